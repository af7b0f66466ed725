//! The errors of sled, as the caller of the store sees them.

use std::path::Path;

use super::layout::RowError;
use crate::OpenStoreError;
use crate::shared::errors::NotRead;

/// Whether sled found its own lock taken, by a program that opened the files without this library. sled has no variant
/// of its own for it.
pub(super) fn is_locked(error: &::sled::Error) -> bool {
    matches!(error, ::sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock"))
}

pub(super) fn row_error(path: &Path, error: RowError) -> OpenStoreError {
    match error {
        RowError::Sled(error) => open_error(path, error),
        other => OpenStoreError::corrupt(path, other),
    }
}

pub(super) fn open_error(path: &Path, error: ::sled::Error) -> OpenStoreError {
    match error {
        ::sled::Error::Io(source) => OpenStoreError::io_of_engine(path, source),
        ::sled::Error::Unsupported(ref what) if what.contains("pagecache version") => {
            OpenStoreError::upgrade(path, error)
        }
        other => OpenStoreError::corrupt(path, other),
    }
}

/// sled does not say whether the pages that it holds in memory are still right.
impl From<RowError> for NotRead {
    fn from(error: RowError) -> Self {
        Self::InDoubt(error.into())
    }
}
