//! The errors of redb, as the caller of the store sees them.

use std::io;
use std::path::Path;

use ::redb::{DatabaseError, Error, StorageError, TransactionError};

use crate::OpenStoreError;
use crate::shared::errors::{NotRead, NotWritten};

pub(super) fn open_error(path: &Path, error: DatabaseError) -> OpenStoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenStoreError::already_open(path)
        }
        DatabaseError::UpgradeRequired(_) => OpenStoreError::upgrade(path, error),
        DatabaseError::Storage(StorageError::Corrupted(ref what)) if what.starts_with(NEWER_FORMAT) => {
            OpenStoreError::upgrade(path, error)
        }
        DatabaseError::Storage(StorageError::Io(source)) => OpenStoreError::io_of_engine(path, source),
        DatabaseError::Storage(StorageError::Corrupted(_)) => OpenStoreError::corrupt(path, error),
        other => OpenStoreError::io(path, io::Error::other(other)),
    }
}

/// The first words of redb's error for a file of a newer format. redb has no variant of its own for it.
const NEWER_FORMAT: &str = "Expected file format version";

/// Any failure of redb but a size that does not fit. redb may hold wrong pages in memory after it.
pub(super) fn in_doubt(error: impl Into<Error>) -> NotWritten {
    NotWritten::in_doubt(error.into())
}

/// redb keeps a page that it has read, so that a wrong one would stay in memory.
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
