//! A correct store on files, small enough to be read in one go: a log of batches, and all entries in memory.
//!
//! It passes the lists of this crate. An author of a store can start from it; each step that looks superfluous is there
//! because a crash, a loss of power or a full disk has made a store of somebody lose data. The page
//! `docs/writing-a-store.md` shows this file, and explains it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use syncline::{
    BoxError, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, Value, Worker, WriteBatch, WriteError,
    WriteOp,
};

/// A store in a directory: the file `log` has one record for each batch, the file `lock` is locked by the owner.
///
/// Everything is read at opening and kept in memory, and the log is never shortened: a store to learn from, not to use.
#[derive(Debug)]
pub struct FileStore {
    files: Arc<Files>,
    /// Runs the writes, in their order. Fields are dropped in the order of their names here: first the worker, which waits
    /// for its writes, then the lock.
    writes: Worker,
    _lock: Lock,
}

type Entries = BTreeMap<Key, Value>;

#[derive(Debug)]
struct Files {
    log: Mutex<Log>,
    /// Apart from the log, so that a read does not wait for a write.
    entries: RwLock<Entries>,
}

#[derive(Debug)]
struct Log {
    file: File,
    /// Whether a write has not ended well. The store then refuses writes: the file may end with half of a record, and
    /// after a failed sync the system may have dropped what was not written yet.
    failed: bool,
}

/// The file that the owner has locked. If the process ends, the system releases the lock.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    fn take(path: &Path) -> Result<Self, BoxError> {
        let file = open_or_create(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            // Refused at once: an owner that hangs must not make the next one hang too.
            Err(TryLockError::WouldBlock) => Err("another owner has opened the store".into()),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is just being started may hold a copy of it for a moment.
        drop(self.0.unlock());
    }
}

impl FileStore {
    /// Opens the store in the directory at `path`, or creates it. The directory above must exist.
    ///
    /// # Errors
    /// What the file system reports, another owner, or a log that this store has not written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BoxError> {
        let path = path.as_ref();
        fs::create_dir_all(path)?;
        let lock = Lock::take(&path.join("lock"))?;
        let mut file = open_or_create(&path.join("log"))?;
        let (entries, len) = read_log(&mut file)?;
        // What follows the last whole record is a write that a crash has cut off. It goes before the next record, or
        // that one could not be found again.
        file.set_len(len)?;
        // A record that is read here may be in the memory of the system alone. Readers will see it, so it must stay.
        file.sync_all()?;
        // The names of the files, and that of the directory, are contents of directories, which are synced by themselves.
        sync_directory(path)?;
        sync_directory(
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        )?;
        let log = Mutex::new(Log { file, failed: false });
        let files = Arc::new(Files { log, entries: RwLock::new(entries) });
        Ok(Self { files, writes: Worker::start("writes of a file store")?, _lock: lock })
    }
}

impl Files {
    fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let record = record(&batch)?;
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.failed {
            return Err(WriteError::rejected("an earlier write has failed: open the store again"));
        }
        // Set until the write has ended well, so that a panic is a failure too.
        log.failed = true;
        // One record, one write: a batch in two records could be there by half. After an error the record may be in the
        // file, whole, and found at the next opening: the outcome is unknown.
        log.file.write_all(&record).and_then(|()| log.file.sync_data()).map_err(WriteError::unknown)?;
        // Only now, or a reader could see a batch that a crash takes away again.
        batch.apply_to(&mut self.entries.write().unwrap_or_else(PoisonError::into_inner));
        log.failed = false;
        Ok(())
    }
}

#[async_trait]
impl Storage for FileStore {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let entries = self.files.entries.read().unwrap_or_else(PoisonError::into_inner);
        Ok(keys.iter().map(|key| entries.get(key).cloned()).collect())
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let entries = self.files.entries.read().unwrap_or_else(PoisonError::into_inner);
        let found = entries.range(range.start.clone()..).take_while(|(key, _)| range.contains(key));
        Ok(ScanPage::of(found, limit))
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let files = Arc::clone(&self.files);
        self.writes
            .run(move || files.write(batch))
            .await
            .unwrap_or_else(|panic| Err(WriteError::unknown(panic)))
    }
}

/// An operation in the log.
#[derive(Serialize, Deserialize)]
enum Row {
    Put(#[serde(with = "serde_bytes")] Key, #[serde(with = "serde_bytes")] Value),
    Delete(#[serde(with = "serde_bytes")] Key),
    DeleteRange(Key, Option<Key>),
}

/// The length of the body, and its checksum.
const HEAD_BYTES: usize = 4 + 8;

/// The record of a batch: a head, by which a record that was cut off is told from a whole one, and the operations.
fn record(batch: &WriteBatch) -> Result<Vec<u8>, WriteError> {
    let rows: Vec<_> = batch
        .ops()
        .iter()
        .cloned()
        .map(|op| match op {
            WriteOp::Put { key, value } => Row::Put(key, value),
            WriteOp::Delete { key } => Row::Delete(key),
            WriteOp::DeleteRange { range } => Row::DeleteRange(range.start, range.end),
        })
        .collect();
    let body = postcard::to_allocvec(&rows).map_err(WriteError::rejected)?;
    let len = u32::try_from(body.len()).map_err(WriteError::too_large)?;
    Ok([&len.to_le_bytes()[..], &checksum(&body).to_le_bytes(), &body].concat())
}

/// Returns the entries of the whole records of a log, and where the last of them ends.
fn read_log(file: &mut File) -> Result<(Entries, u64), BoxError> {
    let (mut bytes, mut entries) = (Vec::new(), Entries::new());
    file.read_to_end(&mut bytes)?;
    let mut rest = bytes.as_slice();
    while let Some((body, after)) = first_record(rest) {
        let rows: Vec<Row> = postcard::from_bytes(body)?;
        let ops = rows.into_iter().map(|row| match row {
            Row::Put(key, value) => WriteOp::Put { key, value },
            Row::Delete(key) => WriteOp::Delete { key },
            Row::DeleteRange(start, end) => WriteOp::DeleteRange { range: KeyRange { start, end } },
        });
        WriteBatch::from(ops.collect::<Vec<_>>()).apply_to(&mut entries);
        rest = after;
    }
    Ok((entries, (bytes.len() - rest.len()) as u64))
}

/// The body of the first record, and what follows the record; `None` if it is not whole.
fn first_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let (len, sum) = head.split_at_checked(4)?;
    let (body, after) = rest.split_at_checked(u32::from_le_bytes(len.try_into().ok()?) as usize)?;
    (checksum(body).to_le_bytes() == sum).then_some((body, after))
}

/// FNV-1a: enough to find a record that was cut off. An empty record has a checksum too, which is not zero, so that a
/// file that has grown and was not filled is no record.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

fn open_or_create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// On other systems a directory cannot be synced, and the file system keeps names by itself.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
