//! A store in one [SQLite](https://sqlite.org) database, which may also hold the app's own tables.
//!
//! Reads run where they are called, beside a write, on connections of their own; long scans run on the `blocking`
//! pool; writes and joins run one after the other on a thread of their own, on the one connection that writes. The
//! database is in WAL mode and every commit is flushed.

mod connection;
mod files;
mod guard;
mod layout;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
/// The version of rusqlite that [`SqliteTx`] lends a transaction of.
pub use rusqlite;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use syncline::{
    BoxError, Entry, JoinJob, JoinStorage, JoinTx, Key, KeyRange, ReadError, Storage, TransactionEnded,
    Value, WriteBatch, WriteError, WriteOp,
};

use crate::OpenError;
use crate::shared::closing::Closing;
use crate::shared::errors::{NotRead, NotWritten};
use crate::shared::open_store::OpenStore;
use crate::shared::panics::{Panicked, contain, contain_open};
use crate::shared::sizes::SizeLimits;
use files::Owner;
use guard::{Fate, Guard};

/// A store in one SQLite database.
///
/// # The app's own tables
/// The app may keep its own tables in the same file; the names of ours begin with `syncline_` and are not to be
/// touched. It may open the file with connections of its own to read, at any time. To write its tables it should join
/// the store's transactions: while a connection of its own writes, a write of the store waits for the
/// [`busy_timeout`](SqliteBuilder::busy_timeout) and is then [`WriteError::Rejected`]. A read transaction that is kept
/// open keeps the log (the file that ends in `-wal`) from being cut off for as long as it lasts, so such transactions
/// should be short; see [`wal_bytes_max`](SqliteBuilder::wal_bytes_max).
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
    store: OpenStore<Engine>,
    writes: Writes,
}

/// The connections to an open database.
#[derive(Debug)]
struct Engine {
    // Dropped in this order: the connection that writes is the last one, and clears the log away; then others may
    // open the database.
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<Writer>,
    owner: Owner,
    options: Options,
}

/// Counts the writes that were sent and have not ended.
#[derive(Clone, Debug, Default)]
struct Writes(Arc<AtomicUsize>);

/// A write that was sent and has not ended.
struct Writing(Writes);

impl Writes {
    /// Counts a write in, until what this returns goes.
    fn begin(&self) -> Writing {
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

/// How a [`SqliteStorage`] is opened.
#[derive(Clone, Debug)]
pub struct SqliteBuilder {
    options: Options,
}

/// A write transaction of a [`SqliteStorage`], with the app's statements in it.
#[derive(Debug)]
pub struct SqliteTx<'t> {
    native: Transaction<'t>,
    /// What kept the store itself from reading or writing, if it leaves the store in doubt.
    in_doubt: RefCell<Option<BoxError>>,
}

#[derive(Clone, Debug)]
struct Options {
    cache_bytes: usize,
    busy_timeout: Duration,
    wal_bytes_max: u64,
    verify: bool,
}

/// The largest row that SQLite stores, unless it was built to store less.
const ROW_BYTES_MAX: u64 = 1_000_000_000;
/// What a row has beside its key and its value, at most.
const ROW_HEADER_BYTES_MAX: u64 = 32;

/// What fits into a row of SQLite.
const SIZES: SizeLimits = SizeLimits {
    key_bytes_max: ROW_BYTES_MAX - ROW_HEADER_BYTES_MAX,
    value_bytes_max: ROW_BYTES_MAX - ROW_HEADER_BYTES_MAX,
    pair_bytes_max: ROW_BYTES_MAX - ROW_HEADER_BYTES_MAX,
};

/// For each connection: more hardly helps, since whoever reads drops its cache after each write of another.
const CACHE_BYTES_DEFAULT: usize = 16 << 20;

/// The log is copied into the database at a quarter of it, four times as late as by SQLite's default: writes with
/// random ids touch the same pages of the index again and again, so copying them less often is a quarter faster.
const WAL_BYTES_MAX_DEFAULT: u64 = 64 << 20;

/// How long the writer waits for readers that keep it from cutting off a log beyond its limit.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(100);

/// As many readers as are kept open. More may read at once, and open and close a connection each time.
const IDLE_READERS_MAX: usize = 8;

impl SqliteStorage {
    /// Opens the store at `path`, or creates it, with the defaults of [`SqliteBuilder`].
    ///
    /// # Errors
    /// As [`SqliteBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(path)
    }

    /// Begins to describe how a store is opened.
    #[must_use]
    pub const fn builder() -> SqliteBuilder {
        SqliteBuilder {
            options: Options {
                cache_bytes: CACHE_BYTES_DEFAULT,
                busy_timeout: connection::BUSY_TIMEOUT_DEFAULT,
                wal_bytes_max: WAL_BYTES_MAX_DEFAULT,
                verify: false,
            },
        }
    }
}

impl SqliteBuilder {
    /// How many bytes each connection may cache: the one that writes, and as many as read at once. Default 16 MiB.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.options.cache_bytes = bytes;
        self
    }

    /// How long a write waits while another connection writes the same file, before it is rejected. Default 1 s.
    #[must_use]
    pub const fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.options.busy_timeout = timeout;
        self
    }

    /// About how long the log may be after a write, unless somebody reads for long. Default 64 MiB.
    ///
    /// A single write may pass it by what it writes; one of the writes after it cuts the log off.
    /// A log beyond it is copied into the database and cut off, for which the writer waits a moment for readers. A
    /// read transaction of the app that stays open all the time makes the log grow on; it shrinks again with the
    /// writes after that one has ended.
    #[must_use]
    pub const fn wal_bytes_max(mut self, bytes: u64) -> Self {
        self.options.wal_bytes_max = bytes;
        self
    }

    /// Whether opening checks that the whole file is well-formed and that index and table agree. Default false.
    ///
    /// True takes as long as reading the file. Otherwise such damage shows when it is read.
    #[must_use]
    pub const fn verify(mut self, enabled: bool) -> Self {
        self.options.verify = enabled;
        self
    }

    /// Opens the store at `path`, or creates it: the file, or its table in a database that is there.
    ///
    /// Does not wait for another store that holds it. Blocks, after a crash for as long as reading the log takes.
    ///
    /// # Errors
    /// [`OpenError`], whose variants say what to do.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<SqliteStorage, OpenError> {
        let path = path.as_ref();
        connection::check_version(path, rusqlite::version_number())?;
        let owner = Owner::claim(path)?;
        let (connection, guard) =
            contain_open(path, || connection::writer(&owner.database, path, &self.options))?;
        let engine = Engine {
            readers: Mutex::new(Vec::new()),
            writer: Mutex::new(Writer {
                connection,
                guard,
                wal: files::beside(&owner.database, "-wal"),
                options: self.options.clone(),
                checkpoint_from: self.options.wal_bytes_max,
                unseen_bytes: 0,
                is_in_doubt: false,
            }),
            owner,
            options: self.options.clone(),
        };
        let store = OpenStore::start("syncline-sqlite", path, engine)?;
        Ok(SqliteStorage { store, writes: Writes::default() })
    }
}

impl Default for SqliteBuilder {
    fn default() -> Self {
        SqliteStorage::builder()
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

#[async_trait]
impl JoinStorage for SqliteStorage {
    type Tx<'t> = SqliteTx<'t>;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        let writing = self.writes.begin();
        self.store
            .write(move |store| {
                let _writing = writing;
                store.write(|engine| engine.join(job))
            })
            .await
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
}

impl SqliteTx<'_> {
    /// Remembers a failure after which the store cannot go on, whatever the job makes of it.
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

/// The connection that writes.
#[derive(Debug)]
struct Writer {
    connection: Connection,
    guard: Arc<Guard>,
    wal: PathBuf,
    options: Options,
    /// The length of the log from which on it is cut off.
    checkpoint_from: u64,
    /// About how much was written to the log since its length was looked at.
    unseen_bytes: u64,
    /// Whether a transaction may still be open, so that a read here could see what was never committed.
    is_in_doubt: bool,
}

impl Engine {
    /// The connection that writes knows the pages that it wrote. Any other reads all of them again after each write,
    /// and a commit begins by reading the records that it changes.
    fn get_many(&self, keys: &[Key], may_use_writer: bool) -> Result<Vec<Option<Value>>, NotRead> {
        let read = |connection: &Connection| match keys {
            [_] => layout::get_many(connection, keys),
            keys => in_one_state(connection, || layout::get_many(connection, keys)),
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
            if layout::is_in_one_table(range) { scan() } else { in_one_state(connection, scan) }
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

    fn join(&self, job: JoinJob<SqliteStorage>) -> Result<(), NotWritten> {
        lock(&self.writer).write(JOIN_LOG_BYTES, |transaction| {
            let done = contain(|| job(transaction));
            done.map_err(|Panicked(message)| NotWritten::rejected(JobPanicked(message)))?
                .map_err(NotWritten::Rejected)
        })
    }
}

impl Writer {
    /// Runs `work` in a transaction that makes the log about `log_bytes` longer.
    fn write(
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

/// What a joined write is taken to add to the log. Only the app knows what its statements do.
const JOIN_LOG_BYTES: u64 = 256 << 10;

/// About what `batch` adds to the log: for each entry a page of each tree and one more, and what it holds.
fn log_bytes(batch: &WriteBatch) -> u64 {
    const PAGES_BYTES: u64 = 3 * 4096;
    let bytes = |op: &WriteOp| match op {
        WriteOp::Put { key, value } => (key.len() + value.len()) as u64,
        WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => 0,
    };
    batch.ops().iter().map(|op| PAGES_BYTES.saturating_add(bytes(op))).fold(0, u64::saturating_add)
}

/// Lets several statements of `work` read the same state.
fn in_one_state<T, E: From<rusqlite::Error>>(
    connection: &Connection,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    // Rolled back if anything fails in between.
    let transaction = connection.unchecked_transaction()?;
    let found = work()?;
    transaction.commit()?;
    Ok(found)
}

/// Takes a lock. A panic while it was held changed nothing that it guards, or left a [`Doubt`].
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The app's own work panicked. All of it was undone.
#[derive(Debug, thiserror::Error)]
#[error("the job panicked: {0}")]
struct JobPanicked(String);

/// A failure before the commit. It is certain that nothing was applied; whether the store can go on is not, if the
/// medium failed.
fn not_applied(error: rusqlite::Error) -> NotWritten {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::OutOfMemory
            | ErrorCode::InternalMalfunction,
        ) => NotWritten::in_doubt(error),
        _ => NotWritten::rejected(error),
    }
}

/// A failure of the commit itself, which may have come after the last byte of the transaction was written. Only these
/// are known to come before that.
fn not_committed(error: rusqlite::Error) -> NotWritten {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::ConstraintViolation,
        ) => NotWritten::rejected(error),
        _ => NotWritten::in_doubt(error),
    }
}

/// SQLite reads a page again whenever it is asked for: a read that failed says nothing of the next one.
impl From<rusqlite::Error> for NotRead {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_refused_before_sqlite_refuses_them() {
        let fits = |key_bytes, value_bytes| SIZES.check_pair(key_bytes, value_bytes).is_ok();
        let most = ROW_BYTES_MAX - ROW_HEADER_BYTES_MAX;
        assert!(fits(most, 0) && fits(0, most) && fits(1, most - 1));
        assert!(!fits(most + 1, 0) && !fits(0, most + 1));
        assert!(!fits(1, most) && !fits(u64::MAX, 1));
    }
}
