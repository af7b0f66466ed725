//! The store: what reads and writes do with the engine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rusqlite::Connection;
use syncline::{Entry, Key, KeyRange, ReadError, Storage, Value, WriteBatch, WriteError};

use super::builder::Options;
use super::errors::not_applied;
use super::files::Owner;
use super::layout::{self, SIZES};
use super::writer::{Writer, log_bytes};
use super::{SqliteTx, connection};
use crate::shared::closing::Closing;
use crate::shared::errors::{NotRead, NotWritten};
use crate::shared::open_store::OpenStore;
use crate::shared::panics::contain;

/// A store in one SQLite database.
///
/// # The app's own tables
/// The app may keep its own tables in the same file; the names of ours begin with `syncline_` and are not to be
/// touched. It may open the file with connections of its own to read, at any time. To write its tables it should join
/// the store's transactions: while a connection of its own writes, a write of the store waits for the
/// [`busy_timeout`](super::SqliteBuilder::busy_timeout) and is then [`WriteError::Rejected`]. A read transaction that is kept
/// open keeps the log (the file that ends in `-wal`) from being cut off for as long as it lasts, so such transactions
/// should be short; see [`wal_bytes_max`](super::SqliteBuilder::wal_bytes_max).
///
/// The statements of a join run on a connection with `trusted_schema` off, so that views and triggers can call
/// built-in functions and no others, and otherwise with the defaults of the SQLite that is linked: the bundled one
/// enforces foreign keys. Statements that end the transaction, `ATTACH`, and the pragmas that would change how the
/// store stores are refused there.
///
/// # Files
/// Beside the database lie its log (`-wal`, `-shm`), without which it must not be copied or moved while it is open,
/// and an empty file (`-syncline-lock`) whose lock makes the store the only one that writes. Locks and shared memory
/// of the kind that WAL needs do not exist on network file systems. A database with several names (hard links) is
/// refused, symbolic links are followed.
///
/// SQLite has no checksums on what it stores, so a changed byte in a value goes unnoticed.
///
/// # Errors
/// A write that met an I/O error, a damaged page or a lack of memory is [`WriteError::Unknown`], and after that the
/// store refuses everything until it is dropped and opened again. So is a join where the store itself met one; what the
/// app's own statements met is the app's to judge. Every other failure, such as a full disk or a lock
/// held by another connection, is [`WriteError::Rejected`] once the transaction has been rolled back.
///
/// # Cancel safety
/// A write whose future is dropped runs to its end, and the next write comes after it.
///
/// # Drop
/// Dropping the store closes the database before it returns, so that the path can be opened again at once. For that
/// it blocks until the writes that were sent have ended, and until a scan whose future was dropped has noticed.
#[derive(Debug)]
pub struct SqliteStorage {
    pub(super) store: OpenStore<Engine>,
    pub(super) writes: Writes,
}

/// The connections to an open database.
#[derive(Debug)]
pub(super) struct Engine {
    // Dropped in this order: the connection that writes is the last one, and clears the log away; then others may
    // open the database.
    pub(super) readers: Mutex<Vec<Connection>>,
    pub(super) writer: Mutex<Writer>,
    pub(super) owner: Owner,
    pub(super) options: Options,
}

/// As many readers as are kept open. More may read at once, and open and close a connection each time.
const IDLE_READERS_MAX: usize = 8;

/// Counts the writes that were sent and have not ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes(Arc<AtomicUsize>);

/// A write that was sent and has not ended.
pub(super) struct Writing(Writes);

impl Writes {
    /// Counts a write in, until what this returns goes.
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
        // While there is something to write, reads that keep coming could keep it waiting.
        let may_use_writer = self.writes.are_none();
        self.store.read(|engine| engine.get_many(keys, may_use_writer))
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        self.store
            .scan(limit, move |store| store.read(|engine| engine.scan(&range, limit, store.closing())))
            .await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        // Here, where nothing has begun, so that the answer is certain.
        SIZES.check(&batch).map_err(WriteError::rejected)?;
        let writing = self.writes.begin();
        self.store
            .write(move |store| {
                let _writing = writing;
                store.write(|engine| engine.write(&batch))
            })
            .await
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

impl Engine {
    /// The connection that writes knows the pages that it wrote. Any other reads all of them again after each write,
    /// and a commit begins by reading the records that it changes.
    fn get_many(&self, keys: &[Key], may_use_writer: bool) -> Result<Vec<Option<Value>>, NotRead> {
        let read = |connection: &Connection| match keys {
            [_] => layout::get_many(connection, keys),
            keys => layout::in_one_state(connection, || layout::get_many(connection, keys)),
        };
        if may_use_writer
            && let Ok(writer) = self.writer.try_lock()
            && !writer.is_in_doubt
        {
            return Ok(read(&writer.connection)?);
        }
        self.read(|connection| Ok(read(connection)?))
    }

    fn scan(&self, range: &KeyRange, limit: usize, closing: &Closing) -> Result<Vec<Entry>, NotRead> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.read(|connection| {
            let scan = || layout::scan(connection, range, limit, closing);
            if layout::is_in_one_table(range) { scan() } else { layout::in_one_state(connection, scan) }
        })
    }

    /// What `work` finds, on a connection that nobody else uses.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, NotRead>) -> Result<T, NotRead> {
        let idle = lock(&self.readers).pop();
        let done = contain(|| -> Result<_, NotRead> {
            let connection = match idle {
                Some(connection) => connection,
                None => connection::reader(&self.owner.database, &self.options).map_err(NotRead::Failed)?,
            };
            // A connection whose work has failed is not used again.
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

    fn write(&self, batch: &WriteBatch) -> Result<(), NotWritten> {
        if batch.is_empty() {
            return Ok(());
        }
        let work =
            |transaction: &SqliteTx<'_>| layout::apply(&transaction.native, batch).map_err(not_applied);
        lock(&self.writer).write(log_bytes(batch), work)
    }
}

/// Takes a lock. A panic while it was held changed nothing that it guards, or left a [`Doubt`].
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
