//! `Storage` for SQLite: what reads and writes do with the connections to a database.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rusqlite::Connection;
use syncline::{
    JoinTx, Key, KeyRange, Panicked, ReadError, ScanLimit, ScanPage, Storage, StoreLimits, Value, Visitor,
    WriteBatch, WriteError,
};

use super::builder::Options;
use super::errors::not_applied;
use super::files::Owner;
use super::layout::{self, SIZES};
use super::writer::{Writer, log_bytes};
use super::{SqliteTx, connection};
use crate::shared::closing::Closing;
use crate::shared::errors::{NotRead, NotWritten};
use crate::shared::open_store::{OpenStore, Shared};
use crate::shared::show::{self, Show};

/// A store in one SQLite database.
///
/// # The app's own tables
/// The app may keep its own tables in the same file. The names of the store's tables begin with `syncline_`; the app
/// must not change them. The app may read the file with connections of its own at any time. To write its tables it
/// should join the store's transactions: while a connection of the app writes, a write of the store waits for the
/// [`busy_timeout`](super::SqliteBuilder::busy_timeout) and is then [`WriteError::Rejected`]. The log (the file that
/// ends in `-wal`) is not cut off while a read transaction is open, so read transactions should be short; see
/// [`wal_bytes_max`](super::SqliteBuilder::wal_bytes_max).
///
/// The statements of a join run on a connection with `trusted_schema` off: views and triggers can call built-in
/// functions and no others. Its other settings are the defaults of the linked SQLite, and the bundled one enforces
/// foreign keys. Refused are statements that end the transaction, `ATTACH`, and pragmas that would change how the store
/// stores; the error says which, and why.
///
/// # Files
/// The log (`-wal`, `-shm`) lies beside the database. While the store is open, the database must not be moved without
/// it, and a copy of the database alone is an old backup: it has what the log was copied into it for, which is done for
/// the first write of a new store, and then whenever
/// [no write has come for a while](super::SqliteBuilder::checkpoint_after). An empty file (`-syncline-lock`) is locked, so that no second store writes. Network file systems lack
/// the locks and the shared memory that WAL needs. A database with several names (hard links) is refused; symbolic
/// links are followed.
///
/// SQLite has no checksums, so a byte of a value that has changed on the medium goes unnoticed by it. The log has digests of
/// its own, which are compared when it is served and by
/// [`check_log`](syncline::TransactionManager::check_log).
///
/// # Errors
/// A write that is too large for SQLite is [`WriteError::TooLarge`]. One that met an I/O error, a damaged page or a lack
/// of memory is [`WriteError::Unknown`], and after that the store refuses every call until it is dropped and opened
/// again. The same holds for a join if one of the store's own statements met such a failure; a failure of the app's
/// statements is returned to the job. Every other failure, such as a full disk or a lock that another connection holds,
/// is [`WriteError::Rejected`] once the transaction has been rolled back.
///
/// # Cancel safety
/// A write whose future is dropped runs to its end, and the next write comes after it.
///
/// # Drop
/// Dropping the store closes the database before it returns, so that the path can be opened again at once. For that it
/// blocks until the writes that were sent have ended, and until a scan whose future was dropped has stopped.
#[derive(Debug)]
pub struct SqliteStorage {
    pub(super) store: OpenStore<Engine>,
    pub(super) writes: Writes,
}

/// The connections to an open database.
#[derive(Debug)]
pub(super) struct Engine {
    // Fields are dropped in this order: the connection that writes is closed last, and so removes the log. Then `owner`
    // lets another store open the database.
    pub(super) readers: Mutex<Vec<Connection>>,
    pub(super) writer: Mutex<Writer>,
    pub(super) owner: Owner,
    pub(super) options: Options,
}

/// How many connections that read are kept open. If more reads run at the same time, each of the others opens and
/// closes a connection of its own.
const IDLE_READERS_MAX: usize = 8;

/// The number of writes that were sent and have not ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes(Arc<AtomicUsize>);

/// A write that was sent and has not ended.
pub(super) struct Writing(Writes);

impl Writes {
    /// Counts a write until the returned [`Writing`] is dropped.
    pub(super) fn begin(&self) -> Writing {
        self.0.fetch_add(1, Ordering::Relaxed);
        Writing(self.clone())
    }

    fn are_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Storage for SqliteStorage {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        // Reads leave the connection alone while there is something to write: reads that keep coming could keep the
        // write waiting for ever.
        let may_use_writer = self.writes.are_none();
        self.store.read(|engine| engine.get_many(keys, may_use_writer))
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let scan = move |store: &Shared<Engine>| {
            store.read(|engine| show::page(limit, |show| engine.visit(&range, show, store.closing())))
        };
        self.store.scan(limit, scan).await
    }

    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        self.store.visit(limit, each, |engine, show, closing| engine.visit(&range, show, closing))
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        // Checked before the write begins, so that a size that does not fit is certainly rejected.
        SIZES.check(&batch).map_err(WriteError::too_large)?;
        self.send(move |engine| engine.write(&batch)).await
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits::NONE
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

impl SqliteStorage {
    /// Sends `work`, a write, and counts it until it has ended.
    pub(super) fn send<W>(&self, work: W) -> impl Future<Output = Result<(), WriteError>> + use<W>
    where
        W: FnOnce(&Engine) -> Result<(), NotWritten> + Send + 'static,
    {
        let writing = self.writes.begin();
        self.store.write(move |store| {
            let _writing = writing;
            store.write(work)
        })
    }
}

impl Engine {
    /// Reads on the connection that writes, if it is free. That connection has the pages that it wrote in its cache,
    /// while any other one reads all of them again after each write; and a commit begins with a read of the records
    /// that it changes.
    fn get_many(&self, keys: &[Key], may_use_writer: bool) -> Result<Vec<Option<Value>>, NotRead> {
        let read = |connection: &Connection| match keys {
            [_] => layout::get_many(connection, keys),
            keys => layout::in_one_state(connection, || layout::get_many(connection, keys)),
        };
        if may_use_writer
            && let Ok(writer) = self.writer.try_lock()
            && let Some(connection) = writer.for_reading()
        {
            return Ok(read(connection)?);
        }
        self.read(|connection| Ok(read(connection)?))
    }

    fn visit(&self, range: &KeyRange, show: &mut Show<'_>, closing: &Closing) -> Result<bool, NotRead> {
        if range.is_empty() {
            return Ok(false);
        }
        self.read(|connection| layout::visit(connection, range, show, closing))
    }

    /// Runs `work` on a connection that no other read uses. A panic there ends only this read: the connection is
    /// dropped.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, NotRead>) -> Result<T, NotRead> {
        let idle = lock(&self.readers).pop();
        let done = Panicked::catch(|| -> Result<_, NotRead> {
            let connection = match idle {
                Some(connection) => connection,
                None => connection::reader(&self.owner.database, &self.options).map_err(NotRead::Failed)?,
            };
            // A connection whose work failed is dropped instead of kept.
            let found = work(&connection)?;
            Ok((connection, found))
        });
        let (connection, found) = done.map_err(|panicked| NotRead::Failed(panicked.into()))??;
        let mut readers = lock(&self.readers);
        if readers.len() < IDLE_READERS_MAX {
            readers.push(connection);
        }
        Ok(found)
    }

    /// Copies the log into the database, so that the file alone is as new as it can be.
    pub(super) fn checkpoint(&self) {
        lock(&self.writer).checkpoint();
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), NotWritten> {
        if batch.is_empty() {
            return Ok(());
        }
        let work =
            |transaction: &SqliteTx<'_>| layout::apply(transaction.native(), batch).map_err(not_applied);
        lock(&self.writer).write(log_bytes(batch), work)
    }
}

/// Takes a lock. Poison is ignored: a panic while the lock was held changed nothing that it guards, or dropped the
/// doubt of a write, which ended the store.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
