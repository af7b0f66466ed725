//! A store in one [redb](https://docs.rs/redb) file: pure Rust, copy on write, no log to replay.
//!
//! Reads run where they are called, beside a write; long scans run on the `blocking` pool; writes run one after
//! the other on a thread of their own. redb allows one opener per file, so a second one is refused.

mod join;
mod layout;
mod medium;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use ::redb::backends::FileBackend;
use ::redb::{
    CompactionError, Database, DatabaseError, Error, ReadTransaction, ReadableDatabase, StorageBackend,
    StorageError, TransactionError, WriteTransaction,
};
use async_trait::async_trait;
use syncline::{Entry, Key, KeyRange, ReadError, Storage, Value, WriteBatch, WriteError, WriteOp};

use crate::OpenError;
use crate::bounds::bounds;
use crate::shared::closing::Closing;
use crate::shared::directory::{parent, sync_directory};
use crate::shared::errors::{NotRead, NotWritten};
use crate::shared::open_store::{OpenStore, SCAN_INLINE_ENTRIES_MAX};
use crate::shared::panics::contain_open;
use crate::shared::sizes::SizeLimits;
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
    store: OpenStore<Engine>,
}

/// A redb database, and how its commits are made.
#[derive(Debug)]
struct Engine {
    database: Database,
    commit: CommitOptions,
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

/// Exactly what redb stores.
const SIZES: SizeLimits = SizeLimits {
    key_bytes_max: ITEM_BYTES_MAX,
    value_bytes_max: ITEM_BYTES_MAX,
    pair_bytes_max: ITEM_BYTES_MAX + (768 << 20),
};
const ITEM_BYTES_MAX: u64 = 3 << 30;

/// Enough for the hot part of a large store, small enough for a phone.
const CACHE_BYTES_DEFAULT: usize = 128 << 20;

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
            other => OpenError::io(path, io::Error::other(other)),
        };
        let failed_io = |error| OpenError::io_of_engine(path, error);
        let length = || path.metadata().map(|file| file.len()).map_err(failed_io);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed_io)?;
        let bytes_before = length()?;
        let mut options = Database::builder();
        options.set_cache_size(CACHE_BYTES_DEFAULT);
        contain_open(path, || {
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
        let failed = |error| OpenError::io_of_engine(path, error);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let storage = self.open_at(path, file_backend(file, path)?)?;
        // Without this a loss of power could take the name of a new file away, and every write with it.
        sync_directory(parent(path)).map_err(failed)?;
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
        let database = contain_open(path, || {
            let database = create(&options, backend, path)?;
            check_tables(&database).map_err(|error| OpenError::corrupt(path, error))?;
            Ok(database)
        })?;
        let engine = Engine { database, commit: self.commit };
        Ok(RedbStorage { store: OpenStore::start("syncline-redb", path, engine)? })
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
        self.store.read(|engine| {
            let transaction = engine.database.begin_read()?;
            Ok(match keys {
                [key] => vec![layout::get(&transaction, key)?],
                keys => {
                    let mut tables = layout::Reading::new(&transaction);
                    keys.iter().map(|key| tables.get(key)).collect::<Result<_, Error>>()?
                }
            })
        })
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        self.store
            .scan(limit, move |store| store.read(|engine| engine.scan(&range, limit, store.closing())))
            .await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        // Here, where nothing has begun, so that the answer is certain.
        SIZES.check(&batch).map_err(WriteError::rejected)?;
        self.store.write(move |store| store.write(|engine| engine.write(&batch))).await
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

impl Engine {
    fn scan(&self, range: &KeyRange, limit: usize, closing: &Closing) -> Result<Vec<Entry>, NotRead> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        scan(&self.database.begin_read()?, range, limit, closing)
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), NotWritten> {
        if batch.is_empty() {
            return Ok(());
        }
        let transaction = self.begin()?;
        match stage(&transaction, batch) {
            Ok(()) => transaction.commit().map_err(in_doubt),
            Err(error @ Error::ValueTooLarge(_)) => {
                transaction.abort().map_err(in_doubt)?;
                Err(NotWritten::rejected(error))
            }
            Err(error) => Err(in_doubt(error)),
        }
    }

    fn begin(&self) -> Result<WriteTransaction, NotWritten> {
        // Nobody else writes. If a transaction of an earlier job is still there, because the job leaked a table,
        // waiting for it would never end.
        let mut transaction = self.database.try_begin_write().map_err(in_doubt)?;
        transaction.set_two_phase_commit(self.commit.two_phase);
        transaction.set_quick_repair(self.commit.quick_repair);
        Ok(transaction)
    }
}

fn scan(
    transaction: &ReadTransaction,
    range: &KeyRange,
    limit: usize,
    closing: &Closing,
) -> Result<Vec<Entry>, NotRead> {
    let mut entries = Vec::with_capacity(limit.min(SCAN_INLINE_ENTRIES_MAX));
    for table in layout::reading_of(transaction, range)? {
        for entry in table.range::<&[u8]>(bounds(range))?.take(limit - entries.len()) {
            if closing.has_begun() {
                return Err(NotRead::Closing);
            }
            let (key, value) = entry?;
            entries.push(Entry { key: key.value().to_vec(), value: value.value().to_vec() });
        }
        if entries.len() >= limit {
            break;
        }
    }
    Ok(entries)
}

/// A failure of redb other than a size: whether the pages that it holds in memory are right is not known.
fn in_doubt(error: impl Into<Error>) -> NotWritten {
    NotWritten::in_doubt(error.into())
}

/// The same for a read: redb trusts what it has read once.
impl From<Error> for NotRead {
    fn from(error: Error) -> Self {
        Self::InDoubt(error.into())
    }
}

impl From<StorageError> for NotRead {
    fn from(error: StorageError) -> Self {
        Error::from(error).into()
    }
}

impl From<TransactionError> for NotRead {
    fn from(error: TransactionError) -> Self {
        Error::from(error).into()
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

/// Finds a table of ours that has other types, which this library never wrote.
fn check_tables(database: &Database) -> Result<(), Error> {
    layout::reading_of(&database.begin_read()?, &KeyRange::all()).map(drop)
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::already_open(path)
        }
        DatabaseError::UpgradeRequired(_) => OpenError::upgrade(path, error),
        DatabaseError::Storage(StorageError::Corrupted(ref what)) if what.starts_with(NEWER_FORMAT) => {
            OpenError::upgrade(path, error)
        }
        DatabaseError::Storage(StorageError::Io(source)) => OpenError::io_of_engine(path, source),
        DatabaseError::Storage(StorageError::Corrupted(_)) => OpenError::corrupt(path, error),
        other => OpenError::io(path, io::Error::other(other)),
    }
}

/// How redb reports a file of a newer format, which it has no variant for.
const NEWER_FORMAT: &str = "Expected file format version";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_refused_exactly_where_redb_refuses_them() {
        let fits = |key_bytes, value_bytes| SIZES.check_pair(key_bytes, value_bytes).is_ok();
        assert!(fits(ITEM_BYTES_MAX, 0) && fits(0, ITEM_BYTES_MAX));
        assert!(!fits(ITEM_BYTES_MAX + 1, 0) && !fits(0, ITEM_BYTES_MAX + 1));
        assert!(fits(768 << 20, ITEM_BYTES_MAX));
        assert!(!fits((768 << 20) + 1, ITEM_BYTES_MAX));
    }
}
