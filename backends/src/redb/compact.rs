//! Compacting the file of a closed store.

use std::io;
use std::path::Path;

use ::redb::{CompactionError, Database};

use super::builder::{CACHE_BYTES_DEFAULT, create};
use super::errors::open_error;
use super::{RedbStorage, files};
use crate::OpenStoreError;
use crate::shared::panics::contain_open;

/// The lengths of the file before and after [`RedbStorage::compact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The length before, in bytes.
    pub bytes_before: u64,
    /// The length after, in bytes.
    pub bytes_after: u64,
}

impl RedbStorage {
    /// Shortens the file at `path` to what its content needs. Takes about as long as copying the file.
    ///
    /// The store must be closed. A crash during the compaction loses nothing.
    ///
    /// # Errors
    /// As [`RedbBuilder::open`](super::RedbBuilder::open), and [`OpenStoreError::Io`] if there is no such file or the app
    /// keeps savepoints in it.
    pub fn compact(path: impl AsRef<Path>) -> Result<Compaction, OpenStoreError> {
        let path = path.as_ref();
        let failed = |error: CompactionError| match error {
            CompactionError::Storage(error) => open_error(path, error.into()),
            other => OpenStoreError::io(path, io::Error::other(other)),
        };
        let length =
            || path.metadata().map(|file| file.len()).map_err(|error| OpenStoreError::io(path, error));
        let file = files::open(path)?;
        let bytes_before = length()?;
        let mut options = Database::builder();
        options.set_cache_size(CACHE_BYTES_DEFAULT);
        contain_open(path, || {
            let mut database = create(&options, file, path)?;
            while database.compact().map_err(failed)? {}
            // Closing the database cuts the last free pages off the file.
            database.close().map_err(|error| open_error(path, error))
        })?;
        Ok(Compaction { bytes_before, bytes_after: length()? })
    }
}
