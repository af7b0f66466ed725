//! What the engines of this folder have in common: a store over an engine, and all lists that it is run by.
//!
//! A store here is what a careful author writes over an engine, so that what the lists find is a fault of the engine or of
//! its setting: one owner, by a lock; writes one after the other; nothing accepted after a failure.

#![allow(dead_code, reason = "each engine uses what it needs")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use syncline::{
    BoxError, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, StoreLimits, Value, WriteBatch,
    WriteError, WriteOp,
};
use syncline_testkit::Fixture;

/// The lists, over a store that the function opens in a directory.
#[macro_export]
macro_rules! lists {
    ($setting:ident, $open:expr) => {
        mod $setting {
            use super::*;

            syncline_testkit::storage_tests!(storage, || $crate::lists::Place::new($open));
            syncline_testkit::crash_tests!(crash, $crate::lists::at($open));
            syncline_testkit::power_tests!(power, $crate::lists::at($open), without: ["owner", "-shm", "lock.mdb"]);
            syncline_testkit::fault_tests!(faults, $crate::lists::at($open));
        }
    };
}

/// Opens an engine in a directory that is there.
pub type Open<E> = fn(&Path) -> Result<E, BoxError>;

/// What an engine does, with any of its own errors.
pub trait Engine: Sized + Send + Sync + 'static {
    const LIMITS: StoreLimits = StoreLimits::NONE;

    /// The values of `keys`, all of one state.
    fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, BoxError>;

    /// The entries of `range`, no more than `most`, all of one state.
    fn scan(&self, range: &KeyRange, most: usize) -> Result<Vec<(Key, Value)>, BoxError>;

    fn write(&self, batch: &WriteBatch) -> Result<(), BoxError>;
}

/// A store over an engine.
pub struct Store<E> {
    /// Closed before the lock is released.
    engine: E,
    failed: Mutex<bool>,
    _lock: File,
}

/// Returns what opens the store at a path.
pub fn at<E: Engine>(open: Open<E>) -> impl Fn(&Path) -> Result<Store<E>, BoxError> + Send + Sync + 'static {
    move |path| {
        fs::create_dir_all(path)?;
        let lock = File::options().append(true).create(true).open(path.join("owner"))?;
        lock.try_lock()?;
        let store = Store { engine: open(path)?, failed: Mutex::new(false), _lock: lock };
        // The names of the files are durable before the first write is.
        for directory in [Some(path), path.parent()].into_iter().flatten() {
            File::open(directory)?.sync_all()?;
        }
        Ok(store)
    }
}

/// Makes the files of an engine, unless they are there, and returns their path. Many engines do not open what is left of a
/// process that has died while it made them. So they are made, and synced, under another name.
pub fn made(
    path: &Path,
    name: &str,
    make: impl FnOnce(&Path) -> Result<(), BoxError>,
) -> Result<PathBuf, BoxError> {
    let (files, new) = (path.join(name), path.join("new"));
    if !files.exists() {
        let _ = fs::remove_file(&new);
        let _ = fs::remove_dir_all(&new);
        make(&new)?;
        sync_all(&new)?;
        fs::rename(new, &files)?;
    }
    Ok(files)
}

/// Syncs a file, or a directory and all that is in it.
pub fn sync_all(path: &Path) -> Result<(), BoxError> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_all(&entry?.path())?;
        }
    }
    Ok(File::open(path)?.sync_all()?)
}

#[async_trait]
impl<E: Engine> Storage for Store<E> {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        // Some engines panic for a key that they do not take.
        let fits = |key: &&Key| key.len() <= E::LIMITS.key_bytes;
        let possible: Vec<_> = keys.iter().filter(fits).cloned().collect();
        let mut found = self.engine.get(&possible).map_err(ReadError::new)?.into_iter();
        Ok(keys.iter().map(|key| if fits(&key) { found.next().flatten() } else { None }).collect())
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let rows = self.engine.scan(&range, limit.entries.saturating_add(1)).map_err(ReadError::new)?;
        Ok(ScanPage::of(rows, limit))
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        if !fits(&batch, E::LIMITS) {
            return Err(WriteError::too_large("the engine takes less"));
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(WriteError::unknown("a write has failed before"));
        }
        // Also if the engine panics.
        *failed = true;
        self.engine.write(&batch).map_err(WriteError::unknown)?;
        *failed = false;
        Ok(())
    }

    fn limits(&self) -> StoreLimits {
        E::LIMITS
    }
}

fn fits(batch: &WriteBatch, limits: StoreLimits) -> bool {
    batch.ops().iter().all(|op| match op {
        WriteOp::Put { key, value } => key.len() <= limits.key_bytes && value.len() <= limits.value_bytes,
        WriteOp::Delete { key } => key.len() <= limits.key_bytes,
        WriteOp::DeleteRange { .. } => true,
    })
}

/// A directory of its own.
pub struct Place<E> {
    directory: tempfile::TempDir,
    open: Open<E>,
}

impl<E> Place<E> {
    pub fn new(open: Open<E>) -> Self {
        Self { directory: tempfile::tempdir().expect("a directory for a store"), open }
    }
}

#[async_trait]
impl<E: Engine> Fixture for Place<E> {
    type Store = Store<E>;

    async fn open(&self) -> Result<Store<E>, BoxError> {
        at(self.open)(&self.path())
    }
}

impl<E> Place<E> {
    fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }
}
