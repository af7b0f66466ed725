//! The end of a store: scans stop, and the path is free once dropping the store has returned.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use super::worker;

/// Whether the store is being dropped. A scan that is in progress then stops, because nobody waits for its entries:
/// otherwise dropping the store would last as long as the scan.
#[derive(Debug, Default)]
pub(crate) struct Closing(AtomicBool);

impl Closing {
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shows that the engine is open, until it is dropped. Nothing is ever sent on it.
#[derive(Debug)]
pub(crate) struct StillOpen(#[allow(dead_code, reason = "dropping it is what it is for")] mpsc::Sender<()>);

/// Blocks on drop until every [`StillOpen`] of its pair is dropped, and with it the engine.
///
/// Not on the worker's own thread: a job that holds the last handle would wait for itself.
#[derive(Debug)]
pub(crate) struct AwaitClosed(Mutex<mpsc::Receiver<()>>);

impl AwaitClosed {
    pub(crate) fn new() -> (StillOpen, Self) {
        let (open, closed) = mpsc::channel();
        (StillOpen(open), Self(Mutex::new(closed)))
    }
}

impl Drop for AwaitClosed {
    fn drop(&mut self) {
        if !worker::is_this_thread() {
            let closed = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
            // Returns an error as soon as the sender is gone.
            let _ = closed.recv();
        }
    }
}
