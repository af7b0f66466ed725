//! `Storage` for sled: what reads and writes do with a sled database.

use std::sync::Arc;

use async_trait::async_trait;
use syncline::{
    Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, StoreLimits, Value, Visitor, WriteBatch,
    WriteError,
};
use tokio::sync::RwLock;

use super::files::{Directory, Log};
use super::layout::{Rows, SIZES};
use crate::shared::errors::NotWritten;
use crate::shared::open_store::{OpenStore, Shared};
use crate::shared::show;

/// A store in one sled directory. **Experimental**: choose another store for data that you cannot lose.
///
/// sled calls itself beta, and says "if reliability is your primary constraint, use SQLite". Its last stable release,
/// 0.34.7, is from 2021; the 1.0 alphas have no batches over a whole database and are not supported. It depends on two
/// crates that are not maintained any more, `fxhash` and `instant`.
///
/// This store makes up for some faults of sled: it syncs the file that sled only hands to the system, keeps values out
/// of files that sled never syncs, and removes snapshots that a crash interrupted, with which sled would not open. It
/// cannot make up for others: sled may wait for ever for a log whose writing failed, notices lost or changed bytes of
/// its log only in part, and may keep half of a batch if it fails to read its own file in the middle of that batch.
///
/// The directory must hold nothing else. A key has at most 4 KiB, a value at most 1 GiB; a larger one is
/// [`WriteError::TooLarge`].
///
/// # Reads beside a write
/// sled shows a batch row by row, and before it is durable. So a write keeps reads out from its first row until its
/// last byte is on the medium: a read waits for one flush at most, and blocks no thread. A scan likewise delays the
/// next write, and the reads after that write.
///
/// # Errors
/// A write that is too large is [`WriteError::TooLarge`]; every failure of sled is [`WriteError::Unknown`]. After such
/// a failure, and after a read that failed, the store refuses every call until it is dropped and opened again: sled may
/// hold wrong pages in memory.
///
/// # Cancel safety
/// A write whose future is dropped runs to its end, and the next write comes after it.
///
/// # Drop
/// Dropping the store releases the directory before it returns, so that the path can be opened again at once. For that
/// it blocks until the writes that were sent have ended, until a scan whose future was dropped has stopped, and until
/// sled's own threads have closed the file.
#[derive(Debug)]
pub struct SledStorage {
    pub(super) store: OpenStore<Engine>,
    /// Held by reads together, and by a write alone. It is fair: reads that keep coming cannot keep a write waiting.
    pub(super) gate: Arc<RwLock<()>>,
}

/// The rows of an open database, and the files that they lie in.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) rows: Rows,
    pub(super) log: Log,
    /// Releases the directory when it is dropped, after the rows.
    pub(super) _directory: Directory,
}

#[async_trait]
impl Storage for SledStorage {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let _gate = self.gate.read().await;
        self.store.read(|engine| Ok(engine.rows.get_many(keys)?))
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let gate = Arc::clone(&self.gate).read_owned().await;
        let scan = move |store: &Shared<Engine>| {
            let _gate = gate;
            store.read(|engine| show::page(limit, |show| engine.rows.visit(&range, show, store.closing())))
        };
        self.store.scan(limit, scan).await
    }

    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        let _gate = self.gate.read().await;
        self.store.visit(limit, each, |engine, show, closing| engine.rows.visit(&range, show, closing))
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        // Checked before the write begins, so that a size that does not fit is certainly rejected.
        SIZES.check(&batch).map_err(WriteError::too_large)?;
        let (gate, rows) = (Arc::clone(&self.gate), batch.ops().len());
        let written = self.store.write(move |store| {
            // Held until the batch is durable: otherwise a crash could take away what a read has seen. Held around the
            // whole write, so that after a failure no read runs before the store has noted the failure.
            let _gate = gate.blocking_write();
            store.write(|engine| engine.write(batch))
        });
        // Sent after the write, so that the caller does not wait for it.
        self.store.tidy(move || free_replaced(rows));
        written.await
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits::NONE
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
        // On Linux sled's flush ends with `sync_file_range`. That call syncs neither the metadata by which the bytes
        // are found again, nor the cache of the medium.
        self.log.sync().map_err(NotWritten::in_doubt)
    }
}

/// Lets sled free the pages that a batch of about `rows` rows has replaced.
///
/// By itself sled frees some hundred pages at every 128th access from outside a batch. Batches of many rows replace
/// more pages than that, so that memory would grow with everything that is ever written.
fn free_replaced(rows: usize) {
    /// About how many rows' pages one collection frees.
    const COLLECTED_ROWS: usize = 256;
    for _ in 0..=rows / COLLECTED_ROWS {
        crossbeam_epoch::pin().flush();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io;
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

    /// Goal: an acknowledged write is durable. Method: the sync of the file is replaced by one that looks whether sled
    /// has handed the write to the system before, since a sync makes durable only what the system has.
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

    /// Goal: what is synced is the file that has the rows. Method: the sync is replaced by one that compares the files.
    #[cfg(unix)]
    #[test]
    fn the_file_that_is_synced_is_the_log_of_sled() {
        use std::os::unix::fs::MetadataExt as _;

        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store");
        let (log, synced) = (path.join("db"), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&synced);
        let sync = move |file: &File| {
            let of = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
            assert_eq!(of(file.metadata()?), of(fs::metadata(&log)?));
            count.fetch_add(1, Ordering::SeqCst);
            file.sync_data()
        };
        let store = SledStorage::builder().open_with(&path, sync).unwrap();
        block_on(store.write(put("key", "value"))).unwrap();
        assert_eq!(synced.load(Ordering::SeqCst), 1);
    }

    /// Without this a loss of power could take away the names of new files, and every write with them.
    #[cfg(unix)]
    #[test]
    fn the_names_of_a_new_store_are_made_durable() {
        use crate::shared::directory::SYNCED;

        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store");
        SledStorage::open(&path).unwrap();
        assert_eq!(SYNCED.take(), [directory.path(), &path], "the directory above, and that of the files");
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
            block_on(store.scan(KeyRange::all(), ScanLimit::entries(1))).unwrap_err();
            let error = block_on(store.write(put("another", "one"))).unwrap_err();
            assert!(matches!(error, WriteError::Unknown(_)), "{error}");
            drop(store);
            let store = SledStorage::open(&path).unwrap();
            let keys = [b"before".to_vec(), b"another".to_vec()];
            assert_eq!(block_on(store.get_many(&keys)).unwrap(), [Some(b"it".to_vec()), None]);
        }
    }

    /// Goal: a read does not show a write before it is durable. Method: a read that is polled in the middle of the
    /// sync.
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
        assert!(early.is_none(), "the read saw a write that a crash could still take away");
        assert_eq!(block_on(read).unwrap(), [Some(b"value".to_vec())]);
        block_on(write).unwrap();
    }

    /// Goal: a write waits for the reads that were there before it, and so does what it shows to later ones. Method: a
    /// read that does not end, until the write waits for it: a writer that waits lets no other reader pass.
    #[test]
    fn a_write_waits_for_the_reads_before_it() {
        use futures::FutureExt as _;

        let directory = TempDir::new().unwrap();
        let (reached, at_sync) = mpsc::channel();
        let reached = Mutex::new(reached);
        let sync = move |_: &File| reached.lock().unwrap().send(()).map_err(io::Error::other);
        let store = SledStorage::builder().open_with(&directory.path().join("store"), sync).unwrap();
        let reading = block_on(store.gate.read());
        let write = store.write(put("key", "value"));
        let mut write = std::pin::pin!(write);
        assert!(write.as_mut().now_or_never().is_none());
        while store.gate.try_read().is_ok() {
            assert!(at_sync.try_recv().is_err(), "the write goes beside a read");
            std::thread::yield_now();
        }
        drop(reading);
        block_on(write).unwrap();
    }
}
