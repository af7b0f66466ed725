//! The one connection that writes: its transactions, and the length of the log.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use syncline::{JoinTx, StatementError, TransactionEnded, WriteBatch, WriteOp};

use super::builder::Options;
use super::errors::{not_applied, not_committed};
use super::guard::{Fate, Guard};
use super::{SqliteTx, connection};
use crate::shared::errors::NotWritten;

/// The connection that writes.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    guard: Arc<Guard>,
    /// The path of the log.
    wal: PathBuf,
    options: Options,
    /// The log is cut off when it is longer than this many bytes.
    log_bytes_max: u64,
    /// About how many bytes were written to the log since its length was last read.
    unseen_bytes: u64,
    /// Whether nothing was ever written. What comes first makes the store what it is: it goes into the database at once.
    is_empty: bool,
    is_in_doubt: bool,
}

/// How long the writer waits for connections that read and so keep it from cutting off a log beyond its limit.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(100);

impl Writer {
    pub(super) const fn new(
        connection: Connection,
        guard: Arc<Guard>,
        wal: PathBuf,
        options: Options,
        is_empty: bool,
    ) -> Self {
        let log_bytes_max = options.wal_bytes_max;
        Self { connection, guard, wal, options, log_bytes_max, unseen_bytes: 0, is_empty, is_in_doubt: false }
    }

    /// The connection, for a read. `None` after a write in doubt: a transaction may still be open, and the read would
    /// see entries that were never committed.
    pub(super) fn for_reading(&self) -> Option<&Connection> {
        (!self.is_in_doubt).then_some(&self.connection)
    }

    /// Has foreign keys enforced or not, from the next transaction on; returns whether they were.
    pub(super) fn set_foreign_keys(&self, enforced: bool) -> rusqlite::Result<bool> {
        let before = self.connection.pragma_query_value(None, "foreign_keys", |row| row.get(0))?;
        self.connection.pragma_update(None, "foreign_keys", enforced)?;
        Ok(before)
    }

    /// Whether a row breaks a foreign key.
    pub(super) fn breaks_foreign_keys(&self) -> rusqlite::Result<bool> {
        // The check is prepared by the schema that the connection has seen last, and fails as such if a key there refers
        // to nothing that it may refer to. A read makes the connection see that another one has mended that.
        self.connection.prepare("SELECT 1 FROM sqlite_schema")?.exists([])?;
        self.connection.prepare("PRAGMA foreign_key_check")?.exists([])
    }

    /// Runs `work` in a transaction. It makes the log about `log_bytes` longer.
    pub(super) fn write(
        &mut self,
        log_bytes: u64,
        work: impl FnOnce(&SqliteTx<'_>) -> Result<(), NotWritten>,
    ) -> Result<(), NotWritten> {
        let outcome = self.transact(work);
        match &outcome {
            Ok(()) => {
                if std::mem::take(&mut self.is_empty) {
                    // Otherwise a copy of the database without its log would be an empty store, and would be founded
                    // anew: two histories of one stream that nobody could tell from each other.
                    self.checkpoint();
                }
                self.bound_log(log_bytes);
            }
            Err(NotWritten::Rejected(_)) => {}
            // Noted before the lock is released: the store refuses reads only a moment after that.
            Err(NotWritten::InDoubt(_)) => self.is_in_doubt = true,
        }
        outcome
    }

    /// Copies the log into the database, as far as connections that read allow. If this fails, the log has everything.
    pub(super) fn checkpoint(&self) {
        if !self.is_in_doubt {
            drop(connection::checkpoint(&self.connection, "PASSIVE"));
        }
    }

    fn transact(
        &mut self,
        work: impl FnOnce(&SqliteTx<'_>) -> Result<(), NotWritten>,
    ) -> Result<(), NotWritten> {
        let outcome = self.commit(work);
        // A transaction that was not committed is rolled back when it is dropped. If that fails, only the connection
        // says so.
        if self.connection.is_autocommit() {
            return outcome;
        }
        Err(NotWritten::in_doubt("the transaction could not be rolled back"))
    }

    fn commit(
        &mut self,
        work: impl FnOnce(&SqliteTx<'_>) -> Result<(), NotWritten>,
    ) -> Result<(), NotWritten> {
        // `Immediate` takes the write lock at the beginning: a transaction that has read before another connection
        // wrote could not write any more.
        let native =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(not_applied)?;
        let transaction = SqliteTx::new(native, &self.guard);
        // If `work` panics, `armed` is dropped before the transaction: an armed guard would refuse the rollback.
        let armed = self.guard.arm();
        let done = work(&transaction);
        let (fate, forbidden) = armed.disarm();
        transaction.check()?;
        if fate != Fate::Refused {
            done.map_err(|error| why_forbidden(error, forbidden))?;
        }
        if fate != Fate::Open || transaction.native().is_autocommit() {
            return Err(NotWritten::rejected(TransactionEnded));
        }
        transaction.into_native().commit().map_err(not_committed)
    }

    /// Reads the length of the log once enough was written, and keeps the log within its limit.
    ///
    /// The length is not read after every write: on a system with fine timestamps of files (Linux since 6.13), the
    /// write after such a read also changes the file's time, and flushing the time makes a commit a third slower.
    fn bound_log(&mut self, log_bytes: u64) {
        self.unseen_bytes = self.unseen_bytes.saturating_add(log_bytes);
        if self.unseen_bytes >= self.options.wal_bytes_max / 8 {
            self.unseen_bytes = 0;
            self.cut_off_log();
        }
    }

    /// Cuts the log off if it is too long. If this fails, the write that was just committed stands, and a later write
    /// tries again.
    fn cut_off_log(&mut self) {
        // The length is read by the path: closing a handle of the file would drop locks of SQLite.
        let log_bytes = || fs::metadata(&self.wal).map_or(0, |log| log.len());
        if log_bytes() <= self.log_bytes_max {
            return;
        }
        let options = &self.options;
        drop(self.connection.busy_timeout(options.busy_timeout.min(CHECKPOINT_WAIT)));
        drop(connection::checkpoint(&self.connection, "TRUNCATE"));
        drop(self.connection.busy_timeout(options.busy_timeout));
        // If a connection that reads for long kept the log from being cut off, the next attempt comes a quarter of the
        // limit later: otherwise every write would wait for that connection.
        let log_bytes = log_bytes();
        let is_too_long = log_bytes > options.wal_bytes_max;
        let next = if is_too_long { log_bytes.saturating_add(options.wal_bytes_max / 4) } else { 0 };
        self.log_bytes_max = next.max(options.wal_bytes_max);
    }
}

/// The error of a job that failed since SQLite refused a statement: SQLite says "not authorized" and does not say why.
fn why_forbidden(error: NotWritten, forbidden: Option<StatementError>) -> NotWritten {
    match (error, forbidden) {
        (NotWritten::Rejected(error), Some(forbidden)) if error.to_string().contains(NOT_AUTHORIZED) => {
            NotWritten::rejected(forbidden)
        }
        (error, _) => error,
    }
}

/// The message of SQLite for a statement that an authorizer refused.
const NOT_AUTHORIZED: &str = "not authorized";

impl Drop for Writer {
    fn drop(&mut self) {
        Guard::off(&mut self.connection);
    }
}

/// About how many bytes `batch` adds to the log: for each entry a page of the table, a page of the index and one more,
/// and the entry itself.
pub(super) fn log_bytes(batch: &WriteBatch) -> u64 {
    const PAGES_BYTES: u64 = 3 * 4096;
    let bytes = |op: &WriteOp| match op {
        WriteOp::Put { key, value } => (key.len() + value.len()) as u64,
        WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => 0,
    };
    batch.ops().iter().map(|op| PAGES_BYTES.saturating_add(bytes(op))).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::SqliteStorage;

    /// A transaction may still be open on the connection: a read there would see what was never committed.
    #[test]
    fn nothing_is_read_on_a_connection_whose_write_is_in_doubt() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStorage::open(directory.path().join("store.sqlite")).unwrap();
        let outcome = store.store.read(|engine| {
            let mut writer = engine.writer.lock().unwrap();
            let rejected = writer.write(0, |_| Err(NotWritten::rejected("no")));
            assert!(matches!(rejected, Err(NotWritten::Rejected(_))) && writer.for_reading().is_some());
            let doubtful = writer.write(0, |_| Err(NotWritten::in_doubt("perhaps")));
            assert!(matches!(doubtful, Err(NotWritten::InDoubt(_))) && writer.for_reading().is_none());
            Ok(())
        });
        outcome.unwrap();
    }

    /// Otherwise the next write would be a part of the transaction that was told to be rejected.
    #[test]
    fn a_transaction_that_cannot_be_rolled_back_leaves_the_store_in_doubt() {
        use rusqlite::hooks::{AuthAction, AuthContext, Authorization, TransactionOperation};

        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStorage::open(directory.path().join("store.sqlite")).unwrap();
        let outcome = store.store.read(|engine| {
            let mut writer = engine.writer.lock().unwrap();
            let no_rollback = |context: AuthContext<'_>| match context.action {
                AuthAction::Transaction { operation: TransactionOperation::Rollback } => Authorization::Deny,
                _ => Authorization::Allow,
            };
            writer.connection.authorizer(Some(no_rollback)).unwrap();
            let outcome = writer.write(0, |_| Err(NotWritten::rejected("no")));
            assert!(matches!(outcome, Err(NotWritten::InDoubt(_))) && writer.for_reading().is_none());
            Ok(())
        });
        outcome.unwrap();
    }
}
