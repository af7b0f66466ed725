//! Stores that break the contract, one way each: the proof that the list finds what it looks for.

mod clock;
mod clock_rows;
mod disk;
mod flaw;
mod joins;
mod rewrite;
mod store;
mod transport;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use clock::{BrokenClock, ClockFlaw};
pub use clock_rows::{BrokenClockDisk, RiseFlaw};
pub use disk::BrokenDisk;
pub use flaw::{Flaw, JoinFlaw};
pub use joins::{BrokenJoins, BrokenJoinsDisk, BrokenTx};
pub use store::Broken;
pub use transport::{BrokenNetwork, BrokenTransport, TransportFlaw};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
