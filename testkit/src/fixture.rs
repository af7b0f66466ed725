//! The fixture that a store author writes to run the lists: a place where the store can be opened again and again.

use std::fmt;

use async_trait::async_trait;
use syncline::{BoxError, JoinStorage, Native, Storage};

/// A place where a store can be opened, dropped and opened again.
///
/// A new fixture is an empty place. For a store in memory, the fixture is a "disk" that the store shares and that
/// outlives it, as [`Disk`](crate::Disk) is, so that the store can be reopened.
#[async_trait]
pub trait Fixture: Send + Sync + 'static {
    /// The store under test.
    type Store: Storage;

    /// Opens the store, creating it if it is not there yet.
    ///
    /// After the store was dropped, an opening finds what was written. While the store is open, another opening is
    /// refused or takes the store over; it does not wait for the first owner to go.
    ///
    /// # Errors
    /// What the store reports, such as another owner or a broken medium.
    async fn open(&self) -> Result<Self::Store, BoxError>;

    /// Makes the medium under the store fail from now on, or work again if there is no fault. Returns whether the
    /// fixture can do that.
    ///
    /// By default it cannot, and the properties that need it check less. A store that reads and writes through a
    /// replaceable medium overrides this: then every error path is walked, one operation of the medium after the other. A
    /// medium that panics does so with [`panic_quietly`](crate::panic_quietly).
    fn break_medium(&self, fault: Option<MediumFault>) -> bool {
        let _ = fault;
        false
    }
}

/// A place for a store that lends its native transaction. The transaction can reach a table of the app, whose rows have
/// a number as their key and a text as their value.
///
/// The numbers are below 2⁶³, so that they fit a signed column and keep their order there.
///
/// Each function takes the engine's own transaction. Any of them may be the first that touches the table, so each
/// creates the table if it is not there, unless [`open`](Fixture::open) does. On SQLite each of them is one statement:
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

    /// Returns all rows that the transaction sees, in the order of their keys.
    ///
    /// # Errors
    /// What the engine reports.
    fn rows(tx: &Native<'_, Self::Store>) -> Result<Vec<(u64, String)>, BoxError>;

    /// Returns the statements by which an app could end the transaction that it is lent, or undo all of it.
    ///
    /// By default there are none: some engines end a transaction by taking the owner's value, which an app does not
    /// have.
    #[must_use]
    fn endings() -> Vec<Ending<Self::Store>> {
        Vec::new()
    }
}

/// A statement by which an app could end the transaction that it is lent.
pub struct Ending<S: JoinStorage> {
    /// The name for a failure message, such as `ROLLBACK`.
    pub name: &'static str,
    /// Runs the statement. The engine may refuse it; then it must have no effect on the transaction at all.
    pub end: EndingFn<S>,
}

/// Runs a statement of the app.
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
