//! Stores that break the contract, one way each: the proof that the list finds what it looks for.

mod disk;
mod flaw;
mod joins;
mod rewrite;
mod store;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use disk::BrokenDisk;
pub use flaw::{Flaw, JoinFlaw};
pub use joins::{BrokenJoins, BrokenJoinsDisk, BrokenTx};
pub use store::Broken;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls a function when it is dropped, unless it was disarmed. A future that holds one notices that it is dropped
/// before its end, or that it panics.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    const fn new(act: F) -> Self {
        Self(Some(act))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}
