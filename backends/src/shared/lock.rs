//! The lock on a file of the store's own, for engines whose own lock does not reliably keep a second store out.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::OpenStoreError;

/// A file that is locked until this is dropped. If the process ends, the system releases the lock.
///
/// The file must not be deleted: a store that holds the lock of the deleted file would not keep out a store that
/// creates the file again.
#[derive(Debug)]
pub(crate) struct LockFile(File);

impl LockFile {
    /// Locks `file` for the store at `store`. Creates the file if need be, and does not wait for the lock.
    pub(crate) fn claim(file: &Path, store: &Path) -> Result<Self, OpenStoreError> {
        let failed = |source| OpenStoreError::io(store, source);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(file).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenStoreError::already_open(store)),
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
        // the lock lasts as long as any copy. If unlocking fails, closing the last copy releases the lock.
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
        assert!(matches!(LockFile::claim(&path, &path), Err(OpenStoreError::AlreadyOpen { .. })));
        drop(lock);
        LockFile::claim(&path, &path).unwrap();
        drop(copy);
    }
}
