//! Closing a store: scans stop, and the path can be opened again once dropping the store has returned.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use syncline::Worker;

/// Whether the store is being dropped.
///
/// A scan in progress stops then, because its future was dropped before the store was: otherwise dropping the store
/// would last as long as the scan.
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

/// A token that is dropped after the engine. Nothing is ever sent on it.
#[derive(Debug)]
pub(crate) struct StillOpen(#[allow(dead_code, reason = "dropping it is what it is for")] mpsc::Sender<()>);

/// Blocks on drop until the [`StillOpen`] of its pair is dropped, and thus the engine is closed.
///
/// On the thread of a worker it does not block: a job that holds the last handle would wait for its own end.
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
        if !Worker::is_this_thread() {
            let closed = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
            // Returns an error as soon as the sender is dropped.
            let _ = closed.recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_thread_of_a_worker_closing_waits_for_nobody() {
        let worker = Worker::start("test").unwrap();
        let (open, closed) = AwaitClosed::new();
        let (done, is_done) = mpsc::channel();
        drop(worker.run(move || {
            drop(closed);
            done.send(()).unwrap();
        }));
        is_done.recv().unwrap();
        drop(open);
    }
}
