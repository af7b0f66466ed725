//! Joined writes: the app's own statements and ours in one SQLite transaction.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use rusqlite::Transaction;
use syncline::{
    Attempt, BoxError, JoinJob, JoinStorage, JoinTx, Key, Panicked, ReadError, TransactionEnded, Value,
    WriteBatch, WriteError,
};

use super::errors::not_applied;
use super::guard::Guard;
use super::store::{Engine, lock};
use super::{SqliteStorage, layout};
use crate::shared::errors::NotWritten;

/// A write transaction of a [`SqliteStorage`] that the app's own statements share.
#[derive(Debug)]
pub struct SqliteTx<'t> {
    native: Transaction<'t>,
    guard: &'t Guard,
    /// The failure of one of the store's own statements that leaves the store in doubt. A job may ignore such a
    /// failure; the store must not.
    in_doubt: RefCell<Option<BoxError>>,
}

#[async_trait]
impl JoinStorage for SqliteStorage {
    type Tx<'t> = SqliteTx<'t>;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        self.send(move |engine| engine.join(job)).await
    }

    async fn join_without_foreign_keys(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        self.send(move |engine| engine.join_without_foreign_keys(job)).await
    }

    async fn breaks_foreign_keys(&self) -> Result<bool, ReadError> {
        // The check reads whole tables, so it runs on the thread that writes: it would block the caller's.
        let broken = Arc::new(AtomicBool::new(false));
        let found = Arc::clone(&broken);
        let asked = self.send(move |engine| {
            let writer = lock(&engine.writer);
            let breaks = writer.breaks_foreign_keys().map_err(|error| NotWritten::Rejected(error.into()))?;
            found.store(breaks, Relaxed);
            Ok(())
        });
        asked.await.map_err(ReadError::new)?;
        Ok(broken.load(Relaxed))
    }
}

impl<'t> JoinTx for SqliteTx<'t> {
    type Native = Transaction<'t>;

    fn native(&self) -> &Transaction<'t> {
        &self.native
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        layout::get_many(&self.native, keys).map_err(|error| ReadError(self.note(error)))
    }

    fn apply(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        layout::apply(&self.native, batch).map_err(|error| self.note(error))
    }

    fn attempt(&self, part: &mut dyn FnMut() -> Result<(), BoxError>) -> Attempt {
        if let Err(error) = self.guard.savepoint(&self.native, "SAVEPOINT") {
            return Attempt::Spoiled(error.into());
        }
        let done = part();
        // The part may have ended the transaction, or tried to: then there is nothing to go back to.
        if self.guard.is_broken() || self.native.is_autocommit() {
            return Attempt::Spoiled(done.err().unwrap_or_else(|| TransactionEnded.into()));
        }
        let statements: &[&str] = if done.is_ok() { &["RELEASE"] } else { &["ROLLBACK TO", "RELEASE"] };
        for statement in statements {
            if let Err(error) = self.guard.savepoint(&self.native, statement) {
                return Attempt::Spoiled(error.into());
            }
        }
        done.map_or_else(Attempt::Undone, |()| Attempt::Done)
    }
}

impl<'t> SqliteTx<'t> {
    pub(super) const fn new(native: Transaction<'t>, guard: &'t Guard) -> Self {
        Self { native, guard, in_doubt: RefCell::new(None) }
    }

    pub(super) fn into_native(self) -> Transaction<'t> {
        self.native
    }

    /// Fails if one of the store's own statements left the store in doubt.
    pub(super) fn check(&self) -> Result<(), NotWritten> {
        self.in_doubt.take().map_or(Ok(()), |error| Err(NotWritten::InDoubt(error)))
    }

    /// Keeps a failure that leaves the store in doubt for [`check`](Self::check).
    fn note(&self, error: rusqlite::Error) -> BoxError {
        let text = error.to_string();
        match not_applied(error) {
            NotWritten::Rejected(error) => error,
            NotWritten::InDoubt(error) => {
                *self.in_doubt.borrow_mut() = Some(error);
                text.into()
            }
        }
    }
}

impl Engine {
    fn join(&self, job: JoinJob<SqliteStorage>) -> Result<(), NotWritten> {
        lock(&self.writer).write(JOIN_LOG_BYTES, |transaction| {
            let done = Panicked::catch(|| job(transaction));
            done.map_err(|panicked| NotWritten::rejected(JobPanicked(panicked.message().to_owned())))?
                .map_err(NotWritten::Rejected)
        })
    }

    /// SQLite takes the setting only between transactions.
    fn join_without_foreign_keys(&self, job: JoinJob<SqliteStorage>) -> Result<(), NotWritten> {
        let enforced = lock(&self.writer).set_foreign_keys(false).map_err(not_applied)?;
        let joined = self.join(job);
        match lock(&self.writer).set_foreign_keys(enforced) {
            Ok(_) => joined,
            // Later writes would break foreign keys unnoticed.
            Err(error) => Err(NotWritten::InDoubt(error.into())),
        }
    }
}

/// How many bytes a joined write is assumed to add to the log: the store does not know the app's statements.
const JOIN_LOG_BYTES: u64 = 256 << 10;

/// The job panicked. Everything it did was undone.
#[derive(Debug, thiserror::Error)]
#[error("the job panicked: {0}")]
struct JobPanicked(String);
