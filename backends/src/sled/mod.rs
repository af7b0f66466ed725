//! A store in one [sled](https://docs.rs/sled) directory: pure Rust, a log with a lock-free tree in memory. Experimental.
//!
//! Reads run where they are called, scans of many entries on the `blocking` pool, writes one after the other on a
//! thread of their own; a read that meets a write waits until it is durable. One opener per directory, a second is
//! refused.

mod files;
mod layout;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ::sled::Config;
use async_trait::async_trait;
use syncline::{Entry, Key, KeyRange, ReadError, Storage, Value, WriteBatch, WriteError};
use tokio::sync::RwLock;

use crate::OpenError;
use crate::shared::errors::{NotRead, NotWritten};
use crate::shared::open_store::OpenStore;
use crate::shared::panics::contain_open;
use crate::shared::sizes::SizeLimits;
use files::{Directory, Log};
use layout::{KEY_BYTES_MAX, RowError, Rows, SEGMENT_BYTES, VALUE_BYTES_MAX};

/// A store in one sled directory. **Experimental**: choose another store for data that you cannot lose.
///
/// sled calls itself beta, and says "if reliability is your primary constraint, use SQLite". Its last stable
/// release, 0.34.7, is from 2021; the 1.0 alphas have no batches over a whole database and are not supported. It pulls
/// in two crates that are not maintained any more, `fxhash` and `instant`. What this store can make up for, it does: it
/// syncs the file that sled only hands to the system, keeps values out of files that sled never syncs, and removes the
/// snapshots that a crash cut short, over which sled would not open. What it cannot: sled may wait for ever for a log
/// whose writing failed, notices lost or changed bytes of its log only in part, and may keep half of a batch in the
/// middle of which it failed to read its own file.
///
/// The directory holds nothing else. Keys have at most 4 KiB, values at most 1 GiB; what is larger is
/// [`WriteError::Rejected`].
///
/// # Reads beside a write
/// sled shows a batch row by row, and before it is durable. So a write keeps reads out from its first row until its
/// last byte is on the medium: they wait for a flush at most, without blocking a thread. A scan likewise holds up the
/// write that comes after it, and the reads that come after that.
///
/// # Errors
/// A write that is too large is [`WriteError::Rejected`]; every failure of the engine is [`WriteError::Unknown`].
/// After one of those, and after a read that failed, the store refuses everything until it is dropped and opened
/// again: what sled holds in memory is not to be trusted any more.
///
/// # Cancel safety
/// A write whose future is dropped runs to its end, and the next write comes after it.
///
/// # Drop
/// Dropping the store releases the directory before it returns, so that the path can be opened again at once. For that
/// it blocks until the writes that were sent have ended, until a scan whose future was dropped has noticed, and until
/// sled's own threads have let go of the file.
#[derive(Debug)]
pub struct SledStorage {
    store: OpenStore<Engine>,
    /// Held by every read, and by a write alone. It is fair: reads that keep coming cannot keep a write out.
    gate: Arc<RwLock<()>>,
}

/// The rows of an open database, and the files that they lie in.
#[derive(Debug)]
struct Engine {
    rows: Rows,
    log: Log,
    /// Lets go of the directory when it goes, after the rows.
    _directory: Directory,
}

/// The largest sizes that this store keeps.
const SIZES: SizeLimits = SizeLimits {
    key_bytes_max: KEY_BYTES_MAX as u64,
    value_bytes_max: VALUE_BYTES_MAX as u64,
    pair_bytes_max: (KEY_BYTES_MAX + VALUE_BYTES_MAX) as u64,
};

/// How a [`SledStorage`] is opened.
#[derive(Clone, Debug)]
pub struct SledBuilder {
    cache_bytes: usize,
}

/// Enough for the hot part of a large store, small enough for a phone.
const CACHE_BYTES_DEFAULT: usize = 128 << 20;

impl SledStorage {
    /// Opens the store in the directory at `path`, or creates it, with the defaults of [`SledBuilder`].
    ///
    /// # Errors
    /// As [`SledBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(path)
    }

    /// Begins to describe how a store is opened.
    #[must_use]
    pub const fn builder() -> SledBuilder {
        SledBuilder { cache_bytes: CACHE_BYTES_DEFAULT }
    }
}

impl SledBuilder {
    /// How many bytes of pages sled may keep in memory. Default 128 MiB; less than 1 MiB counts as that.
    ///
    /// The table of all pages, and a log buffer of 8 MiB or a few of them, come on top.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Opens the store in the directory at `path`, or creates it. The directory above must be there.
    ///
    /// Blocks, for as long as reading what was written since it was last opened takes.
    ///
    /// # Errors
    /// [`OpenError`], whose variants say what to do.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<SledStorage, OpenError> {
        self.open_with(path.as_ref(), File::sync_data)
    }

    fn open_with(
        &self,
        path: &Path,
        sync: impl Fn(&File) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<SledStorage, OpenError> {
        let failed = |error| OpenError::io_of_engine(path, error);
        let mut directory = Directory::claim(path, SEGMENT_BYTES)?;
        // sled's thread that flushes twice a second is of no use: every write flushes.
        let config = Config::new()
            .path(path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(self.cache_bytes.max(CACHE_BYTES_MIN) as u64)
            .flush_every_ms(None);
        // Declared after the directory, so that on a way out the database goes first.
        let rows = open_rows(&config, &mut directory)?;
        directory.complete().map_err(failed)?;
        let log = directory.open_log().map_err(failed)?;
        let engine = Engine { rows, log: Log::new(log, sync), _directory: directory };
        Ok(SledStorage { store: OpenStore::start("syncline-sled", path, engine)?, gate: Arc::default() })
    }
}

/// Below this some of sled's shares of its cache would be empty, which it does not allow.
const CACHE_BYTES_MIN: usize = 1 << 20;

impl Default for SledBuilder {
    fn default() -> Self {
        SledStorage::builder()
    }
}

#[async_trait]
impl Storage for SledStorage {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let _gate = self.gate.read().await;
        self.store.read(|engine| Ok(engine.rows.get_many(keys)?))
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        let gate = Arc::clone(&self.gate).read_owned().await;
        self.store
            .scan(limit, move |store| {
                let _gate = gate;
                store.read(|engine| engine.rows.scan(&range, limit, store.closing()))
            })
            .await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        // Here, where nothing has begun, so that the answer is certain.
        SIZES.check(&batch).map_err(WriteError::rejected)?;
        let (gate, rows) = (Arc::clone(&self.gate), batch.ops().len());
        let written = self.store.write(move |store| {
            // Until the batch is durable: what a read has seen must not be lost by a crash. Taken before the doubt, so
            // that after a panic no read comes in before the failure is noted.
            let _gate = gate.blocking_write();
            store.write(|engine| engine.write(batch))
        });
        // Behind it, so that nobody waits for this.
        self.store.tidy(move || free_replaced(rows));
        written.await
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

impl Engine {
    fn write(&self, batch: WriteBatch) -> Result<(), NotWritten> {
        if batch.is_empty() {
            return Ok(());
        }
        let staged = self.rows.stage(batch).map_err(NotWritten::in_doubt)?;
        self.rows.apply(staged).map_err(NotWritten::in_doubt)?;
        // On Linux sled's flush ends with `sync_file_range`, which neither syncs what finds the bytes again, nor asks
        // the medium to keep them.
        self.log.sync().map_err(NotWritten::in_doubt)
    }
}

/// Lets sled free the pages that a batch of about so many rows has replaced.
///
/// It does so by itself only at every 128th access from outside a batch, some hundred pages each time: batches of
/// many rows replace more than that, and memory would grow with everything that is ever written.
fn free_replaced(rows: usize) {
    /// About what one collection frees.
    const COLLECTED_ROWS: usize = 256;
    for _ in 0..=rows / COLLECTED_ROWS {
        crossbeam_epoch::pin().flush();
    }
}

/// Opens sled on files that are not trusted: it may panic over damaged ones.
fn open_rows(config: &Config, directory: &mut Directory) -> Result<Rows, OpenError> {
    let opened = contain_open(directory.path(), || {
        let path = directory.path();
        let database = match config.open() {
            Err(error) if is_locked(&error) => return Err(OpenError::already_open(path)),
            outcome => outcome.map_err(|error| open_error(path, error))?,
        };
        let rows = Rows::new(database).map_err(|error| row_error(path, error))?;
        if !directory.is_complete() {
            rows.begin().map_err(|error| row_error(path, error))?;
        }
        match rows.are_ours() {
            Ok(true) => Ok(rows),
            // sled has lost what every store begins with, and perhaps all the rest.
            outcome => Err(row_error(path, outcome.err().unwrap_or(RowError::Damaged))),
        }
    });
    if !matches!(opened, Err(OpenError::AlreadyOpen { .. })) {
        directory.note_use();
    }
    opened
}

/// How sled reports that someone who opened its files without this library holds them; it has no variant for it.
fn is_locked(error: &::sled::Error) -> bool {
    matches!(error, ::sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock"))
}

fn row_error(path: &Path, error: RowError) -> OpenError {
    match error {
        RowError::Sled(error) => open_error(path, error),
        other => OpenError::corrupt(path, other),
    }
}

fn open_error(path: &Path, error: ::sled::Error) -> OpenError {
    match error {
        ::sled::Error::Io(source) => OpenError::io_of_engine(path, source),
        ::sled::Error::Unsupported(ref what) if what.contains("pagecache version") => {
            OpenError::upgrade(path, error)
        }
        other => OpenError::corrupt(path, other),
    }
}

/// sled does not say whether what it holds in memory is still right.
impl From<RowError> for NotRead {
    fn from(error: RowError) -> Self {
        Self::InDoubt(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Mutex, mpsc};

    use futures::executor::block_on;
    use tempfile::TempDir;

    use super::*;

    fn put(key: &str, value: &str) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        batch
    }

    /// Goal: what is acknowledged is durable. Method: the sync of the file is replaced by one that looks whether sled
    /// has handed everything to the system before it, which is all that a sync can make durable.
    #[test]
    fn every_write_is_synced_before_it_is_acknowledged_and_after_sled_has_flushed() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store");
        let (log, synced) = (path.join("db"), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&synced);
        let sync = move |_: &File| {
            let value = format!("value number {}", count.fetch_add(1, Ordering::SeqCst));
            let bytes = fs::read(&log)?;
            assert!(
                bytes.windows(value.len()).any(|window| window == value.as_bytes()),
                "{value} is missing"
            );
            Ok(())
        };
        let store = SledStorage::builder().open_with(&path, sync).unwrap();
        for number in 0..5 {
            block_on(store.write(put("key", &format!("value number {number}")))).unwrap();
            assert_eq!(synced.load(Ordering::SeqCst), number + 1);
        }
    }

    #[test]
    fn a_sync_that_failed_leaves_the_outcome_unknown_and_the_store_refuses_everything_until_reopened() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store");
        let broken = Arc::new(AtomicBool::new(false));
        for panics in [false, true] {
            let fails = Arc::clone(&broken);
            let sync = move |file: &File| match fails.load(Ordering::SeqCst) {
                true if panics => panic!("pulled out"),
                true => Err(io::Error::other("pulled out")),
                false => file.sync_data(),
            };
            broken.store(false, Ordering::SeqCst);
            let store = SledStorage::builder().open_with(&path, sync).unwrap();
            block_on(store.write(put("before", "it"))).unwrap();
            broken.store(true, Ordering::SeqCst);
            let error = block_on(store.write(put("doubtful", "one"))).unwrap_err();
            assert!(matches!(error, WriteError::Unknown(_)), "{error}");
            broken.store(false, Ordering::SeqCst);
            block_on(store.get_many(&[b"doubtful".to_vec()])).unwrap_err();
            block_on(store.scan(KeyRange::all(), 1)).unwrap_err();
            let error = block_on(store.write(put("another", "one"))).unwrap_err();
            assert!(matches!(error, WriteError::Unknown(_)), "{error}");
            drop(store);
            let store = SledStorage::open(&path).unwrap();
            let keys = [b"before".to_vec(), b"another".to_vec()];
            assert_eq!(block_on(store.get_many(&keys)).unwrap(), [Some(b"it".to_vec()), None]);
        }
    }

    /// Goal: nothing is told before it is durable. Method: a read that is polled in the midst of the sync.
    #[test]
    fn a_read_beside_a_write_waits_until_it_is_durable() {
        use futures::FutureExt as _;

        let directory = TempDir::new().unwrap();
        let (reached, at_sync) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let (reached, may_go_on) = (Mutex::new(reached), Mutex::new(may_go_on));
        let sync = move |_: &File| {
            reached.lock().unwrap().send(()).unwrap();
            may_go_on.lock().unwrap().recv().map_err(io::Error::other)
        };
        let store = SledStorage::builder().open_with(&directory.path().join("store"), sync).unwrap();
        let keys = [b"key".to_vec()];
        let write = store.write(put("key", "value"));
        let mut write = std::pin::pin!(write);
        assert!(write.as_mut().now_or_never().is_none());
        at_sync.recv().unwrap();
        let mut read = store.get_many(&keys);
        let early = read.as_mut().now_or_never();
        go_on.send(()).unwrap();
        assert!(early.is_none(), "it saw what a crash could still take away");
        assert_eq!(block_on(read).unwrap(), [Some(b"value".to_vec())]);
        block_on(write).unwrap();
    }

    #[test]
    fn sizes_are_refused_above_what_the_store_promises() {
        let fits = |key_bytes, value_bytes| SIZES.check_pair(key_bytes as u64, value_bytes as u64).is_ok();
        assert!(fits(KEY_BYTES_MAX, VALUE_BYTES_MAX));
        assert!(!fits(KEY_BYTES_MAX + 1, 0) && !fits(0, VALUE_BYTES_MAX + 1));
    }
}
