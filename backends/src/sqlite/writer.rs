//! The connection that writes: its transactions, and the length of the log.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use syncline::{TransactionEnded, WriteBatch, WriteOp};

use super::builder::Options;
use super::errors::{not_applied, not_committed};
use super::guard::{Fate, Guard};
use super::{SqliteTx, connection};
use crate::shared::errors::NotWritten;

/// The connection that writes.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) guard: Arc<Guard>,
    pub(super) wal: PathBuf,
    pub(super) options: Options,
    /// The length of the log from which on it is cut off.
    pub(super) checkpoint_from: u64,
    /// About how much was written to the log since its length was looked at.
    pub(super) unseen_bytes: u64,
    /// Whether a transaction may still be open, so that a read here could see what was never committed.
    pub(super) is_in_doubt: bool,
}

/// How long the writer waits for readers that keep it from cutting off a log beyond its limit.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(100);

impl Writer {
    /// Runs `work` in a transaction that makes the log about `log_bytes` longer.
    pub(super) fn write(
        &mut self,
        log_bytes: u64,
        work: impl FnOnce(&SqliteTx<'_>) -> Result<(), NotWritten>,
    ) -> Result<(), NotWritten> {
        let outcome = self.transact(work);
        match &outcome {
            Ok(()) => self.bound_log(log_bytes),
            Err(NotWritten::Rejected(_)) => {}
            // Noted under the lock: the store itself refuses reads only a moment later.
            Err(NotWritten::InDoubt(_)) => self.is_in_doubt = true,
        }
        outcome
    }

    fn transact(
        &mut self,
        work: impl FnOnce(&SqliteTx<'_>) -> Result<(), NotWritten>,
    ) -> Result<(), NotWritten> {
        let outcome = self.commit(work);
        // A transaction that was not committed is rolled back when it goes, which says nothing if it fails.
        if self.connection.is_autocommit() {
            return outcome;
        }
        Err(NotWritten::in_doubt("the transaction could not be rolled back"))
    }

    fn commit(
        &mut self,
        work: impl FnOnce(&SqliteTx<'_>) -> Result<(), NotWritten>,
    ) -> Result<(), NotWritten> {
        // Immediate: a transaction that begins by reading cannot always go on to write.
        let native =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(not_applied)?;
        let transaction = SqliteTx { native, in_doubt: RefCell::new(None) };
        // Goes before the transaction, if the work panics, so that this can be rolled back.
        let armed = self.guard.arm();
        let done = work(&transaction);
        let fate = armed.disarm();
        if let Some(error) = transaction.in_doubt.take() {
            return Err(NotWritten::InDoubt(error));
        }
        if fate != Fate::Refused {
            done?;
        }
        if fate != Fate::Open || transaction.native.is_autocommit() {
            return Err(NotWritten::rejected(TransactionEnded));
        }
        transaction.native.commit().map_err(not_committed)
    }

    /// Looks at the log's length now and then, and keeps it within its limit.
    ///
    /// Not after every write: where the system keeps fine timestamps of files that are looked at (Linux since 6.13),
    /// the write that follows changes the file's time, and flushing that too makes a commit a third slower.
    fn bound_log(&mut self, log_bytes: u64) {
        self.unseen_bytes = self.unseen_bytes.saturating_add(log_bytes);
        if self.unseen_bytes >= self.options.wal_bytes_max / 8 {
            self.unseen_bytes = 0;
            self.cut_off_log();
        }
    }

    /// Keeps the log within its limit. The write stands whether or not this succeeds, and a later one tries again.
    fn cut_off_log(&mut self) {
        // By its name only: closing a handle of it would drop locks of SQLite.
        let log_bytes = || fs::metadata(&self.wal).map_or(0, |log| log.len());
        if log_bytes() <= self.checkpoint_from {
            return;
        }
        let options = &self.options;
        drop(self.connection.busy_timeout(options.busy_timeout.min(CHECKPOINT_WAIT)));
        drop(connection::checkpoint(&self.connection, "TRUNCATE"));
        drop(self.connection.busy_timeout(options.busy_timeout));
        // Whoever reads for long is not waited for after every write.
        let log_bytes = log_bytes();
        let is_too_long = log_bytes > options.wal_bytes_max;
        let next = if is_too_long { log_bytes.saturating_add(options.wal_bytes_max / 4) } else { 0 };
        self.checkpoint_from = next.max(options.wal_bytes_max);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        Guard::off(&mut self.connection);
    }
}

/// About what `batch` adds to the log: for each entry a page of each tree and one more, and what it holds.
pub(super) fn log_bytes(batch: &WriteBatch) -> u64 {
    const PAGES_BYTES: u64 = 3 * 4096;
    let bytes = |op: &WriteOp| match op {
        WriteOp::Put { key, value } => (key.len() + value.len()) as u64,
        WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => 0,
    };
    batch.ops().iter().map(|op| PAGES_BYTES.saturating_add(bytes(op))).fold(0, u64::saturating_add)
}
