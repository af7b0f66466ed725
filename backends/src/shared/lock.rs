//! The lock on a file of the store's own, for engines whose own lock cannot be relied on.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::OpenError;

/// A file that this store has locked, until it is dropped. The system releases the lock with the process.
///
/// Nobody deletes the file: a store that had locked the deleted one would not see a store that locks the next one.
#[derive(Debug)]
pub(crate) struct LockFile(File);

impl LockFile {
    /// Locks `file`, or creates it, for the store at `store`. Never waits.
    pub(crate) fn claim(file: &Path, store: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::io(store, source);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(file).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::already_open(store)),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub(crate) const fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that is being started holds a copy of it for a moment, and
        // would keep the lock for that long. If unlocking fails, closing releases the lock all the same.
        drop(self.0.unlock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_lock_is_free_even_while_a_new_process_holds_a_copy_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = LockFile::claim(&path, &path).unwrap();
        let copy = lock.file().try_clone().unwrap();
        assert!(matches!(LockFile::claim(&path, &path), Err(OpenError::AlreadyOpen { .. })));
        drop(lock);
        LockFile::claim(&path, &path).unwrap();
        drop(copy);
    }
}
