//! What a store author writes to run the list: a place where the store can be opened again and again.

use std::fmt;

use async_trait::async_trait;
use syncline::{BoxError, JoinStorage, Native, Storage};

/// A place where a store can be opened, dropped and opened again.
///
/// A new fixture is an empty place. A store that lives in memory implements it over a shared "disk" that outlives
/// the store, as [`Disk`](crate::Disk) does, so that reopening works for it too.
#[async_trait]
pub trait Fixture: Send + Sync + 'static {
    /// The store under test.
    type Store: Storage;

    /// Opens the store, creating it if it is not there yet.
    ///
    /// Called again after the store was dropped, it finds what was written. Called while the store is open, it
    /// refuses or takes over, but does not wait for the first owner to go.
    ///
    /// # Errors
    /// What the store reports, such as another owner or a broken medium.
    async fn open(&self) -> Result<Self::Store, BoxError>;

    /// Makes the medium under the store fail from now on (`None`: work again), and says whether it can.
    ///
    /// By default it cannot, and the properties that need it check what they can without. A store that reads and
    /// writes through a replaceable medium overrides this: then every error path is walked, one medium operation
    /// after the other.
    fn break_medium(&self, fault: Option<MediumFault>) -> bool {
        let _ = fault;
        false
    }
}

/// A place for a store that lends its native transaction, with a table of the app's in it: numbers and texts.
///
/// The numbers are below 2⁶³, so that they fit a signed column and keep their order there.
///
/// Each function takes the engine's own transaction and may be the first that touches the table: whoever comes first
/// creates it, unless [`open`](Fixture::open) does. On SQLite each of them is one statement:
/// `INSERT OR REPLACE INTO app_row VALUES (?, ?)`, `DELETE FROM app_row WHERE key = ?`,
/// `SELECT key, value FROM app_row ORDER BY key`.
pub trait JoinFixture: Fixture<Store: JoinStorage> {
    /// Puts `value` under `key`, in place of what is there.
    ///
    /// # Errors
    /// What the engine reports.
    fn put_row(tx: &Native<'_, Self::Store>, key: u64, value: &str) -> Result<(), BoxError>;

    /// Deletes what is under `key`, if anything is.
    ///
    /// # Errors
    /// What the engine reports.
    fn delete_row(tx: &Native<'_, Self::Store>, key: u64) -> Result<(), BoxError>;

    /// Returns all rows, as the transaction sees them, by their keys.
    ///
    /// # Errors
    /// What the engine reports.
    fn rows(tx: &Native<'_, Self::Store>) -> Result<Vec<(u64, String)>, BoxError>;

    /// Ways in which a statement of the app's ends the transaction that it is part of, or undoes all of it.
    ///
    /// By default there is none, as for an engine that ends a transaction by taking it away from its owner.
    #[must_use]
    fn endings() -> Vec<Ending<Self::Store>> {
        Vec::new()
    }
}

/// A way in which a statement of the app's ends the transaction that it is part of.
pub struct Ending<S: JoinStorage> {
    /// What goes into a failure message, such as `ROLLBACK`.
    pub name: &'static str,
    /// Runs the statement. It may be refused, as long as it then has no effect on the transaction at all.
    pub end: EndingFn<S>,
}

/// Runs a statement of the app's.
pub type EndingFn<S> = fn(&Native<'_, S>) -> Result<(), BoxError>;

impl<S: JoinStorage> fmt::Debug for Ending<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ending").field(&self.name).finish()
    }
}

/// When and how the medium under a store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediumFault {
    /// The operation that fails first, counted from zero since the fault was set. Reads, writes and syncs count.
    pub at: u64,
    /// How it fails.
    pub kind: MediumFaultKind,
}

/// How a medium fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediumFaultKind {
    /// One operation returns an error and has no effect; the ones after it work.
    Error,
    /// Every operation from there on returns an error, as on a full disk or a device that was pulled out.
    ErrorsFrom,
    /// One operation panics and has no effect.
    Panic,
}

impl MediumFaultKind {
    /// All kinds, for sweeps.
    pub const ALL: [Self; 3] = [Self::Error, Self::ErrorsFrom, Self::Panic];
}

impl MediumFault {
    /// Whether an operation fails, if `seen` others came before it since the fault was set.
    #[must_use]
    pub fn hits(&self, seen: u64) -> bool {
        match self.kind {
            MediumFaultKind::Error | MediumFaultKind::Panic => seen == self.at,
            MediumFaultKind::ErrorsFrom => seen >= self.at,
        }
    }
}

impl fmt::Display for MediumFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.kind {
            MediumFaultKind::Error => write!(f, "an error at medium operation {at}"),
            MediumFaultKind::ErrorsFrom => write!(f, "errors from medium operation {at} on"),
            MediumFaultKind::Panic => write!(f, "a panic at medium operation {at}"),
        }
    }
}
