//! What a failure of sled means to the caller.

use std::path::Path;

use super::layout::RowError;
use crate::OpenError;
use crate::shared::errors::NotRead;

/// How sled reports that someone who opened its files without this library holds them; it has no variant for it.
pub(super) fn is_locked(error: &::sled::Error) -> bool {
    matches!(error, ::sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock"))
}

pub(super) fn row_error(path: &Path, error: RowError) -> OpenError {
    match error {
        RowError::Sled(error) => open_error(path, error),
        other => OpenError::corrupt(path, other),
    }
}

pub(super) fn open_error(path: &Path, error: ::sled::Error) -> OpenError {
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
