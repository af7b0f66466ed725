//! A store on files as [`FileStore`](syncline_testkit::FileStore), with one flaw: each is one that stores have had.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::thread;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use syncline::{
    BoxError, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, Value, WriteBatch, WriteError, WriteOp,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    // What a kill shows.
    SplitsLargeBatches,
    AcknowledgesBeforeWriting,
    LosesTheLastBatchAtOpening,
    CutsAWholePageAtOpening,
    RewritesTheLogInPlaceAtOpening,
    LockOutlivesItsOwner,
    NoLock,
    LockWaits,
    RefusalRemovesTheLock,
    RefusalReleasesTheLock,
    LockStaysAfterClosing,
    HalfARecordStaysAtOpening,
    // What loss of power would show.
    NoSync,
    SyncsNowAndThen,
    SyncsAnotherFile,
    SyncsAfterAcknowledging,
    NewFileIsNotSyncedInItsDirectory,
    RenamedFileIsNotSyncedInItsDirectory,
    RenamedFileIsNotSynced,
    VisibleBeforeDurable,
    // What errors of the files show.
    WriteErrorIsSwallowed,
    SyncErrorIsSwallowed,
    RejectsWhatIsThereAtReopening,
    GoesOnAfterUnknown,
    HangsAfterAnError,
    AbortsAtAnError,
    ShortWriteIsTakenForWhole,
    HalfARecordStays,
    CreatesAnEmptyLogIfItCannotOpenIt,
    RetriesAFailedSync,
    RenameErrorIsSwallowed,
    ReadErrorIsTheEnd,
    TooLargeAtAnError,
    FencedAtAnError,
    /// No flaw: an opener takes the store over, and the one before is fenced.
    TakesOver,
}

use Flaw::*;

/// The lock of the store that this process has open.
static OWN_LOCK: Mutex<Option<File>> = Mutex::new(None);

pub(crate) struct Flawed {
    shared: Arc<Shared>,
    /// For the flaws that write or sync later, on a thread.
    later: Option<mpsc::Sender<Vec<u8>>>,
}

struct Shared {
    flaw: Flaw,
    path: PathBuf,
    log: Mutex<Log>,
    entries: RwLock<BTreeMap<Key, Value>>,
    lock: File,
}

struct Log {
    file: File,
    failed: bool,
    batches: u32,
    epoch: u64,
}

impl Flawed {
    pub(crate) fn open(path: &Path, flaw: Flaw) -> Result<Self, BoxError> {
        fs::create_dir_all(path)?;
        let lock = append_to(&path.join("lock"))?;
        match flaw {
            NoLock => {}
            TakesOver => {
                let epoch = epoch(path)? + 1;
                fs::write(path.join("epoch"), epoch.to_string())?;
            }
            LockWaits => lock.lock()?,
            LockOutlivesItsOwner => drop(File::create_new(path.join("owned"))?),
            RefusalRemovesTheLock => {
                if let Err(error) = lock.try_lock() {
                    fs::remove_file(path.join("lock"))?;
                    return Err(error.into());
                }
            }
            // As locks of POSIX: a process that closes any handle of the file has released its lock.
            RefusalReleasesTheLock => {
                let mut own = OWN_LOCK.lock().unwrap();
                if let Err(error) = lock.try_lock() {
                    drop(own.take().map(|own| own.unlock()));
                    return Err(error.into());
                }
                *own = Some(lock.try_clone()?);
            }
            _ => lock.try_lock()?,
        }
        let mut file = match append_to(&path.join("log")) {
            Err(_) if flaw == CreatesAnEmptyLogIfItCannotOpenIt => {
                drop(fs::remove_file(path.join("log")));
                append_to(&path.join("log"))?
            }
            outcome => outcome?,
        };
        let mut bytes = Vec::new();
        match file.read_to_end(&mut bytes) {
            Err(_) if flaw == ReadErrorIsTheEnd => bytes.clear(),
            outcome => drop(outcome?),
        }
        let (mut entries, mut len, mut before) = (BTreeMap::new(), 0, 0);
        while let Some((batch, end)) = next_record(&bytes, len) {
            before = len;
            if !(flaw == LosesTheLastBatchAtOpening && next_record(&bytes, end).is_none()) {
                apply(&mut entries, batch);
            }
            len = end;
        }
        match flaw {
            HalfARecordStaysAtOpening => {}
            LosesTheLastBatchAtOpening => file.set_len(before as u64)?,
            CutsAWholePageAtOpening => file.set_len((len / 4096 * 4096) as u64)?,
            RewritesTheLogInPlaceAtOpening => {
                file.set_len(0)?;
                for chunk in bytes[..len].chunks(512) {
                    file.write_all(chunk)?;
                    file.sync_data()?;
                }
            }
            _ => file.set_len(len as u64)?,
        }
        if flaw != NoSync {
            file.sync_all()?;
        }
        if flaw != NewFileIsNotSyncedInItsDirectory {
            sync_directory(path)?;
            sync_directory(path.parent().unwrap())?;
        }
        let log = Mutex::new(Log { file, failed: false, batches: 0, epoch: epoch(path)? });
        let shared =
            Arc::new(Shared { flaw, path: path.to_owned(), log, entries: RwLock::new(entries), lock });
        let later =
            [AcknowledgesBeforeWriting, SyncsAfterAcknowledging].contains(&flaw).then(|| later(&shared));
        Ok(Self { shared, later })
    }
}

/// A thread that makes durable what was acknowledged before.
fn later(shared: &Arc<Shared>) -> mpsc::Sender<Vec<u8>> {
    let (send, records) = mpsc::channel::<Vec<u8>>();
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for record in records {
            let mut log = shared.log();
            log.file.write_all(&record).unwrap();
            log.file.sync_data().unwrap();
        }
    });
    send
}

impl Drop for Flawed {
    fn drop(&mut self) {
        if self.shared.flaw == LockStaysAfterClosing {
            std::mem::forget(self.shared.lock.try_clone());
        } else {
            drop(self.shared.lock.unlock());
        }
        drop(fs::remove_file(self.shared.path.join("owned")));
    }
}

#[async_trait]
impl Storage for Flawed {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let entries = self.shared.entries.read().unwrap();
        Ok(keys.iter().map(|key| entries.get(key).cloned()).collect())
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let entries = self.shared.entries.read().unwrap();
        let found = entries.range(range.start.clone()..).take_while(|(key, _)| range.contains(key));
        Ok(ScanPage::of(found, limit))
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let shared = &*self.shared;
        if shared.flaw == VisibleBeforeDurable {
            apply(&mut shared.entries.write().unwrap(), batch.clone());
        }
        let record = record(batch.ops());
        match (shared.flaw, &self.later) {
            (AcknowledgesBeforeWriting, Some(later)) => drop(later.send(record)),
            (SyncsAfterAcknowledging, Some(later)) => {
                shared.log().file.write_all(&record).map_err(WriteError::unknown)?;
                drop(later.send(Vec::new()));
            }
            (SplitsLargeBatches, _) => {
                for ops in batch.ops().chunks(100) {
                    shared.append(&self::record(ops))?;
                }
            }
            _ => shared.append(&record)?,
        }
        apply(&mut shared.entries.write().unwrap(), batch);
        Ok(())
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, record: &[u8]) -> Result<(), WriteError> {
        let mut log = self.log();
        if log.failed && self.flaw == HangsAfterAnError {
            loop {
                thread::park();
            }
        }
        if log.failed && ![GoesOnAfterUnknown, HalfARecordStays].contains(&self.flaw) {
            return Err(WriteError::rejected("an earlier write has failed"));
        }
        if self.flaw == TakesOver && epoch(&self.path).map_err(WriteError::rejected)? != log.epoch {
            return Err(WriteError::Fenced);
        }
        log.batches += 1;
        let begins = log.file.metadata().map_err(WriteError::rejected)?.len();
        let written = match self.flaw {
            ShortWriteIsTakenForWhole => log.file.write(record).map(drop),
            _ => log.file.write_all(record),
        };
        let outcome = match written {
            Err(_) if self.flaw == WriteErrorIsSwallowed => Ok(()),
            Err(error) if self.flaw == HalfARecordStays => return Err(WriteError::rejected(error)),
            Ok(()) => self.sync(&mut log),
            failed => failed,
        };
        outcome.map_err(|error| {
            log.failed = true;
            match self.flaw {
                AbortsAtAnError => std::process::abort(),
                TooLargeAtAnError => WriteError::too_large(error),
                FencedAtAnError => WriteError::Fenced,
                RejectsWhatIsThereAtReopening => WriteError::rejected(error),
                GoesOnAfterUnknown => {
                    drop(log.file.set_len(begins));
                    WriteError::unknown(error)
                }
                _ => WriteError::unknown(error),
            }
        })
    }

    fn sync(&self, log: &mut Log) -> io::Result<()> {
        match self.flaw {
            NoSync => Ok(()),
            SyncsNowAndThen if !log.batches.is_multiple_of(10) => Ok(()),
            SyncsAnotherFile => {
                let mut other = append_to(&self.path.join("lock"))?;
                other.write_all(b"!")?;
                other.sync_data()
            }
            SyncErrorIsSwallowed => {
                drop(log.file.sync_data());
                Ok(())
            }
            RetriesAFailedSync => log.file.sync_data().or_else(|_| log.file.sync_data()),
            RenamedFileIsNotSynced | RenamedFileIsNotSyncedInItsDirectory
                if log.batches.is_multiple_of(8) =>
            {
                self.make_the_log_anew(log)
            }
            RenameErrorIsSwallowed if log.batches.is_multiple_of(3) => self.make_the_log_anew(log),
            _ => log.file.sync_data(),
        }
    }

    fn make_the_log_anew(&self, log: &mut Log) -> io::Result<()> {
        let (new, old) = (self.path.join("log.new"), self.path.join("log"));
        let mut file = append_to(&new)?;
        file.write_all(&fs::read(&old)?)?;
        if self.flaw != RenamedFileIsNotSynced {
            file.sync_all()?;
        }
        match fs::rename(&new, &old) {
            Err(_) if self.flaw == RenameErrorIsSwallowed => {}
            outcome => outcome?,
        }
        if self.flaw != RenamedFileIsNotSyncedInItsDirectory {
            sync_directory(&self.path)?;
        }
        log.file = file;
        Ok(())
    }
}

/// How often the store was opened. There is no lock between the look and the write, which the tests do not need: the
/// processes of a test take turns.
fn epoch(path: &Path) -> io::Result<u64> {
    match fs::read_to_string(path.join("epoch")) {
        Ok(text) => Ok(text.parse().unwrap()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn apply(entries: &mut BTreeMap<Key, Value>, batch: WriteBatch) {
    for op in batch {
        match op {
            WriteOp::Put { key, value } => drop(entries.insert(key, value)),
            WriteOp::Delete { key } => drop(entries.remove(&key)),
            WriteOp::DeleteRange { range } => entries.retain(|key, _| !range.contains(key)),
        }
    }
}

#[derive(Serialize, Deserialize)]
enum Row {
    Put(#[serde(with = "serde_bytes")] Key, #[serde(with = "serde_bytes")] Value),
    Delete(Key),
    DeleteRange(Key, Option<Key>),
}

fn record(ops: &[WriteOp]) -> Vec<u8> {
    let rows = ops.iter().cloned().map(|op| match op {
        WriteOp::Put { key, value } => Row::Put(key, value),
        WriteOp::Delete { key } => Row::Delete(key),
        WriteOp::DeleteRange { range } => Row::DeleteRange(range.start, range.end),
    });
    let body = postcard::to_allocvec(&rows.collect::<Vec<_>>()).unwrap();
    [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], &sum(&body).to_le_bytes(), &body].concat()
}

/// The batch in the record at `at`, and where the record ends.
fn next_record(bytes: &[u8], at: usize) -> Option<(WriteBatch, usize)> {
    let body_at = at + 12;
    let len = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().unwrap()) as usize;
    let body = bytes.get(body_at..body_at + len)?;
    if sum(body).to_le_bytes() != bytes[at + 4..body_at] {
        return None;
    }
    let rows: Vec<Row> = postcard::from_bytes(body).unwrap();
    let ops = rows.into_iter().map(|row| match row {
        Row::Put(key, value) => WriteOp::Put { key, value },
        Row::Delete(key) => WriteOp::Delete { key },
        Row::DeleteRange(start, end) => WriteOp::DeleteRange { range: KeyRange { start, end } },
    });
    Some((ops.collect::<Vec<_>>().into(), body_at + len))
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(1, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}
