//! The errors of an engine, as the caller of a store sees them.

use std::io::{self, ErrorKind};
use std::path::Path;

use syncline::BoxError;

use crate::OpenStoreError;

/// Why a read did not return what it was asked for.
pub(crate) enum NotRead {
    /// The scan stopped because the store is being dropped. Its future was dropped before.
    Closing,
    /// This read failed, and the next one may succeed: the store goes on.
    Failed(BoxError),
    /// The engine may hold wrong pages in memory: the store refuses every call until it is opened again.
    InDoubt(BoxError),
}

/// Why a write was not committed.
pub(crate) enum NotWritten {
    /// Nothing of the write was applied, and the store goes on.
    Rejected(BoxError),
    /// Whether the write was applied is unknown, or the engine may hold wrong pages in memory: the store refuses every
    /// call until it is opened again.
    InDoubt(BoxError),
}

impl NotWritten {
    pub(crate) fn rejected(error: impl Into<BoxError>) -> Self {
        Self::Rejected(error.into())
    }

    pub(crate) fn in_doubt(error: impl Into<BoxError>) -> Self {
        Self::InDoubt(error.into())
    }
}

impl OpenStoreError {
    pub(crate) fn already_open(path: &Path) -> Self {
        Self::AlreadyOpen { path: path.to_owned() }
    }

    pub(crate) fn corrupt(path: &Path, source: impl Into<BoxError>) -> Self {
        Self::Corrupt { path: path.to_owned(), source: source.into() }
    }

    pub(crate) fn upgrade(path: &Path, source: impl Into<BoxError>) -> Self {
        Self::Upgrade { path: path.to_owned(), source: source.into() }
    }

    /// The system failed on a file of the store.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// The engine failed on a file of the store. It reports a file that it did not write, or that ends too early, as an
    /// I/O error of these kinds, which is damage and not a fault of the medium.
    pub(crate) fn io_of_engine(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Self::corrupt(path, source),
            _ => Self::io(path, source),
        }
    }
}
