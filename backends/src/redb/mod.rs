//! A store in one [redb](https://docs.rs/redb) file: pure Rust, copy on write, no log to replay.
//!
//! Reads run where they are called, beside a write; long scans run on the `blocking` pool; writes run one after
//! the other on a thread of their own. redb allows one opener per file, so a second one is refused.

mod join;
mod layout;
mod medium;

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use ::redb::backends::FileBackend;
use ::redb::{
    CompactionError, Database, DatabaseError, Error, ReadTransaction, ReadableDatabase, StorageBackend,
    StorageError, WriteTransaction,
};
use async_trait::async_trait;
use syncline::{BoxError, Entry, Key, KeyRange, ReadError, Storage, Value, WriteBatch, WriteError, WriteOp};

use crate::OpenError;
use crate::shared::health::{Failed, Health};
use crate::shared::worker::{AwaitClosed, Worker, contain};
use medium::Medium;

pub use ::redb;
pub use join::RedbTx;

/// A store in one redb file.
///
/// The file may hold other tables of the app beside those of this store, whose names begin with `syncline/`.
///
/// # Errors
/// A write that is too large for redb is [`WriteError::Rejected`]; every other failure of the engine is
/// [`WriteError::Unknown`]. After one of those, and after a read that failed, the store refuses everything until
/// it is dropped and opened again: what redb holds in memory is not to be trusted any more, what it wrote is.
///
/// # Cancel safety
/// A write whose future is dropped runs to its end, and the next write comes after it.
///
/// # Drop
/// Dropping the store releases the file before it returns, so that the path can be opened again at once. For that
/// it blocks until the writes that were sent have ended, and until a scan whose future was dropped has noticed.
#[derive(Debug)]
pub struct RedbStorage {
    // Dropped in this order: the last write ends, this handle lets go of the database, and whoever still reads it
    // is waited for.
    writer: Worker,
    shared: Arc<Shared>,
    _closed: AwaitClosed,
}

/// How a [`RedbStorage`] is opened.
#[derive(Clone, Debug)]
pub struct RedbBuilder {
    commit: CommitOptions,
    cache_bytes: usize,
    verify: bool,
}

/// The file lengths around a [`RedbStorage::compact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The length of the file before, in bytes.
    pub bytes_before: u64,
    /// Its length afterwards.
    pub bytes_after: u64,
}

#[derive(Clone, Copy, Debug)]
struct CommitOptions {
    two_phase: bool,
    quick_repair: bool,
}

/// The largest key, and the largest value, that redb stores.
const ITEM_BYTES_MAX: u64 = 3 << 30;
/// The largest key and value together.
const PAIR_BYTES_MAX: u64 = ITEM_BYTES_MAX + (768 << 20);

/// Enough for the hot part of a large store, small enough for a phone.
const CACHE_BYTES_DEFAULT: usize = 128 << 20;

/// Up to here a scan runs where it is called, as point reads do: handing it to another thread and back, and freeing
/// there what was allocated here, costs as much as the scan itself. A page of `list` is that long.
const SCAN_INLINE_ENTRIES_MAX: usize = 256;

impl RedbStorage {
    /// Opens the store at `path`, or creates it, with the defaults of [`RedbBuilder`].
    ///
    /// # Errors
    /// As [`RedbBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(path)
    }

    /// Begins to describe how a store is opened.
    #[must_use]
    pub const fn builder() -> RedbBuilder {
        RedbBuilder {
            commit: CommitOptions { two_phase: true, quick_repair: false },
            cache_bytes: CACHE_BYTES_DEFAULT,
            verify: false,
        }
    }

    /// Shortens the file at `path` to what its content needs. Takes as long as copying it.
    ///
    /// The store must be closed. A crash in between loses nothing.
    ///
    /// # Errors
    /// As [`RedbBuilder::open`], and [`OpenError::Io`] if there is no such file or the app keeps savepoints in it.
    pub fn compact(path: impl AsRef<Path>) -> Result<Compaction, OpenError> {
        let path = path.as_ref();
        let failed = |error: CompactionError| match error {
            CompactionError::Storage(error) => open_error(path, error.into()),
            other => io_error(path, io::Error::other(other)),
        };
        let length = || path.metadata().map(|file| file.len()).map_err(|error| io_error(path, error));
        let file =
            OpenOptions::new().read(true).write(true).open(path).map_err(|error| io_error(path, error))?;
        let bytes_before = length()?;
        let mut options = Database::builder();
        options.set_cache_size(CACHE_BYTES_DEFAULT);
        contained(path, || {
            let mut database = create(&options, file_backend(file, path)?, path)?;
            while database.compact().map_err(failed)? {}
            // The rest of the free space goes when the database is closed.
            database.close().map_err(|error| open_error(path, error))
        })?;
        Ok(Compaction { bytes_before, bytes_after: length()? })
    }
}

impl RedbBuilder {
    /// Whether a commit flushes its pages before it makes them current. Default true.
    ///
    /// False saves one of two flushes per write. After a loss of power redb then tells a whole commit from a torn
    /// one by a checksum that is not cryptographic: someone who chooses what is stored, as a peer does, and can
    /// make the power fail could have a torn commit taken for a whole one.
    #[must_use]
    pub const fn two_phase_commit(mut self, enabled: bool) -> Self {
        self.commit.two_phase = enabled;
        self
    }

    /// Whether every commit also stores which pages are free. Default false.
    ///
    /// True makes writes slower and opening after a crash instant; otherwise that reads the whole file. It implies
    /// [`two_phase_commit`](Self::two_phase_commit).
    #[must_use]
    pub const fn quick_repair(mut self, enabled: bool) -> Self {
        self.commit.quick_repair = enabled;
        self
    }

    /// How many bytes redb may cache. Default 128 MiB.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Whether opening checks the whole file against its checksums. Default false.
    ///
    /// True finds every byte that changed since it was written, at the price of reading the file. Otherwise a
    /// damaged value can go unnoticed, and other damage shows when it is read.
    #[must_use]
    pub const fn verify(mut self, enabled: bool) -> Self {
        self.verify = enabled;
        self
    }

    /// Opens the store at `path`, or creates it.
    ///
    /// Blocks, after a crash for as long as reading the file takes; see [`quick_repair`](Self::quick_repair).
    ///
    /// # Errors
    /// [`OpenError`], whose variants say what to do.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<RedbStorage, OpenError> {
        let path = path.as_ref();
        let failed = |error| io_error(path, error);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let storage = self.open_at(path, file_backend(file, path)?)?;
        // Without this a loss of power could take the name of a new file away, and every write with it.
        sync_directory(path).map_err(failed)?;
        Ok(storage)
    }

    /// Opens the store on `backend`, or creates it if that is empty.
    ///
    /// Two stores must not share a medium; a backend without locks cannot prevent it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_backend(&self, backend: impl StorageBackend) -> Result<RedbStorage, OpenError> {
        self.open_at(Path::new("the given backend"), backend)
    }

    fn open_at(&self, path: &Path, backend: impl StorageBackend) -> Result<RedbStorage, OpenError> {
        let mut options = Database::builder();
        options.set_cache_size(self.cache_bytes).set_check_integrity_on_open(self.verify);
        let database = contained(path, || {
            let database = create(&options, backend, path)?;
            check_tables(&database).map_err(|error| corrupt(path, error))?;
            Ok(database)
        })?;
        let writer = Worker::start("syncline-redb").map_err(|error| io_error(path, error))?;
        let (open, closed) = AwaitClosed::new();
        let shared = Shared {
            database: Some(database),
            health: Health::new(path),
            commit: self.commit,
            closing: AtomicBool::new(false),
            _open: open,
        };
        Ok(RedbStorage { writer, shared: Arc::new(shared), _closed: closed })
    }
}

impl Default for RedbBuilder {
    fn default() -> Self {
        RedbStorage::builder()
    }
}

#[async_trait]
impl Storage for RedbStorage {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.shared.read(|transaction| match keys {
            [key] => Ok(vec![layout::get(transaction, key)?]),
            keys => {
                let mut tables = layout::Reading::new(transaction);
                keys.iter().map(|key| tables.get(key)).collect()
            }
        })
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        if limit <= SCAN_INLINE_ENTRIES_MAX {
            return self.shared.scan(&range, limit);
        }
        let shared = Arc::clone(&self.shared);
        blocking::unblock(move || shared.scan(&range, limit)).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        // Here, where nothing has begun, so that the answer is certain.
        check_sizes(&batch).map_err(WriteError::rejected)?;
        let shared = Arc::clone(&self.shared);
        self.writer
            .run(move || shared.write(&batch))
            .await
            .unwrap_or_else(|panicked| Err(WriteError::unknown(panicked)))
    }

    fn location(&self) -> String {
        self.shared.health.location().to_owned()
    }
}

impl Drop for RedbStorage {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
    }
}

/// What the handle, a write in progress and the scans in progress share. The last of them closes the database.
#[derive(Debug)]
struct Shared {
    /// `None` only while it is being closed.
    database: Option<Database>,
    commit: CommitOptions,
    health: Health,
    /// Whether the handle is gone, so that nobody waits for what is being read.
    closing: AtomicBool,
    /// Never sent on: it ends [`AwaitClosed`] when it goes, after the database.
    _open: mpsc::Sender<()>,
}

impl Shared {
    /// The database, unless an earlier failure forbids using it.
    fn database(&self) -> Result<&Database, Failed> {
        self.health.check()?;
        self.database.as_ref().ok_or_else(|| self.health.failed("it is being closed"))
    }

    /// What `work` finds in the tables as they are now.
    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, Error>) -> Result<T, ReadError> {
        let database = self.database().map_err(ReadError::new)?;
        // redb trusts its file, so reading a damaged one may panic.
        let done = contain(|| work(&database.begin_read()?));
        done.map_err(|panicked| ReadError::new(self.health.fail(&panicked)))?.map_err(|error| match error {
            // A scan that stopped because nobody waits for it. The writes that were sent are still to run.
            Error::DatabaseClosed => ReadError::new(self.health.failed("it is being closed")),
            error => ReadError::new(self.health.fail(&error)),
        })
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.read(|transaction| {
            let mut entries = Vec::with_capacity(limit.min(SCAN_INLINE_ENTRIES_MAX));
            for table in layout::reading_of(transaction, range)? {
                for entry in table.range::<&[u8]>(bounds(range))?.take(limit - entries.len()) {
                    if self.closing.load(Ordering::Relaxed) {
                        return Err(Error::DatabaseClosed);
                    }
                    let (key, value) = entry?;
                    entries.push(Entry { key: key.value().to_vec(), value: value.value().to_vec() });
                }
                if entries.len() >= limit {
                    break;
                }
            }
            Ok(entries)
        })
    }

    /// Runs on the writer's thread, and to its end.
    fn write(&self, batch: &WriteBatch) -> Result<(), WriteError> {
        let database = self.database().map_err(WriteError::unknown)?;
        if batch.is_empty() {
            return Ok(());
        }
        let doubt = self.health.doubt();
        let outcome = transact(database, self.commit, batch);
        doubt.lift();
        outcome.map_err(|error| self.not_written(error))
    }

    fn not_written(&self, error: NotWritten) -> WriteError {
        match error {
            NotWritten::Rejected(error) => WriteError::Rejected(error),
            NotWritten::InDoubt(error) => WriteError::unknown(self.health.fail(&error)),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let database = self.database.take();
        // Closing writes down which pages are free, and may fail or, after a failure, panic. Nothing is lost by it:
        // every write was durable when it was acknowledged, and the next opener repairs the rest.
        drop(contain(move || drop(database)));
    }
}

enum NotWritten {
    Rejected(BoxError),
    InDoubt(Error),
}

impl<E: Into<Error>> From<E> for NotWritten {
    fn from(error: E) -> Self {
        Self::InDoubt(error.into())
    }
}

fn begin(database: &Database, options: CommitOptions) -> Result<WriteTransaction, NotWritten> {
    // Nobody else writes. If a transaction of an earlier job is still there, because the job leaked a table, waiting
    // for it would never end.
    let mut transaction = database.try_begin_write()?;
    transaction.set_two_phase_commit(options.two_phase);
    transaction.set_quick_repair(options.quick_repair);
    Ok(transaction)
}

fn transact(database: &Database, options: CommitOptions, batch: &WriteBatch) -> Result<(), NotWritten> {
    let transaction = begin(database, options)?;
    match stage(&transaction, batch) {
        Ok(()) => Ok(transaction.commit()?),
        Err(error @ Error::ValueTooLarge(_)) => {
            transaction.abort()?;
            Err(NotWritten::Rejected(error.into()))
        }
        Err(error) => Err(error.into()),
    }
}

fn stage(transaction: &WriteTransaction, batch: &WriteBatch) -> Result<(), Error> {
    let mut tables = layout::Writing::new(transaction);
    for op in batch.ops() {
        match op {
            WriteOp::Put { key, value } => {
                drop(tables.of(key)?.insert(key.as_slice(), value.as_slice())?);
            }
            WriteOp::Delete { key } => drop(tables.of(key)?.remove(key.as_slice())?),
            // Some versions of redb took a range whose end lies before its start for one without an end.
            WriteOp::DeleteRange { range } if range.is_empty() => {}
            WriteOp::DeleteRange { range } => tables
                .each_of(range, |table| Ok(table.retain_in::<&[u8], _>(bounds(range), |_, _| false)?))?,
        }
    }
    Ok(())
}

fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    (Bound::Included(range.start.as_slice()), end)
}

/// A key or value beyond what redb stores.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key of {key_bytes} bytes with a value of {value_bytes} bytes is too large: \
     each may have {ITEM_BYTES_MAX} bytes, both together {PAIR_BYTES_MAX}"
)]
struct TooLarge {
    key_bytes: u64,
    value_bytes: u64,
}

fn check_sizes(batch: &WriteBatch) -> Result<(), TooLarge> {
    batch.ops().iter().try_for_each(|op| match op {
        WriteOp::Put { key, value } => check_size(key.len() as u64, value.len() as u64),
        WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => Ok(()),
    })
}

const fn check_size(key_bytes: u64, value_bytes: u64) -> Result<(), TooLarge> {
    let fits = key_bytes <= ITEM_BYTES_MAX
        && value_bytes <= ITEM_BYTES_MAX
        && key_bytes + value_bytes <= PAIR_BYTES_MAX;
    if fits { Ok(()) } else { Err(TooLarge { key_bytes, value_bytes }) }
}

fn file_backend(file: File, path: &Path) -> Result<FileBackend, OpenError> {
    FileBackend::new(file).map_err(|error| open_error(path, error))
}

fn create(
    options: &::redb::Builder,
    backend: impl StorageBackend,
    path: &Path,
) -> Result<Database, OpenError> {
    options.create_with_backend(Medium::new(backend)).map_err(|error| open_error(path, error))
}

/// Runs `work` on a file that is not trusted: redb may panic over a damaged one.
fn contained<T>(path: &Path, work: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    contain(work).unwrap_or_else(|panicked| Err(corrupt(path, panicked)))
}

/// Finds a table of ours that has other types, which this library never wrote.
fn check_tables(database: &Database) -> Result<(), Error> {
    layout::reading_of(&database.begin_read()?, &KeyRange::all()).map(drop)
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Elsewhere a directory cannot be flushed, and the file system keeps names by itself.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::AlreadyOpen { path }
        }
        DatabaseError::UpgradeRequired(_) => OpenError::Upgrade { path, source: error.into() },
        DatabaseError::Storage(StorageError::Corrupted(ref what)) if what.starts_with(NEWER_FORMAT) => {
            OpenError::Upgrade { path, source: error.into() }
        }
        DatabaseError::Storage(StorageError::Io(source)) => io_error(&path, source),
        DatabaseError::Storage(StorageError::Corrupted(_)) => corrupt(&path, error),
        other => io_error(&path, io::Error::other(other)),
    }
}

/// How redb reports a file of a newer format, which it has no variant for.
const NEWER_FORMAT: &str = "Expected file format version";

fn io_error(path: &Path, source: io::Error) -> OpenError {
    match source.kind() {
        // redb's words for a file that does not begin as its own do, or that ends too early.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => corrupt(path, source),
        _ => OpenError::Io { path: path.to_owned(), source },
    }
}

fn corrupt(path: &Path, source: impl Into<BoxError>) -> OpenError {
    OpenError::Corrupt { path: path.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_refused_exactly_where_redb_refuses_them() {
        assert!(check_size(ITEM_BYTES_MAX, 0).is_ok() && check_size(0, ITEM_BYTES_MAX).is_ok());
        assert!(check_size(ITEM_BYTES_MAX + 1, 0).is_err() && check_size(0, ITEM_BYTES_MAX + 1).is_err());
        assert!(check_size(768 << 20, ITEM_BYTES_MAX).is_ok());
        assert!(check_size((768 << 20) + 1, ITEM_BYTES_MAX).is_err());
    }
}
