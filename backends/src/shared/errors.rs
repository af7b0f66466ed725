//! What a failure of the engine means to the caller of a store.

use std::io::{self, ErrorKind};
use std::path::Path;

use syncline::BoxError;

use crate::OpenError;

/// Why a read found nothing out.
pub(crate) enum NotRead {
    /// The store is being dropped, and nobody waits for this scan.
    Closing,
    /// This read failed, which says nothing of the next one: the store goes on.
    Failed(BoxError),
    /// The engine may hold damaged pages in memory: the store refuses everything until it is opened again.
    InDoubt(BoxError),
}

/// Why a write was not committed.
pub(crate) enum NotWritten {
    /// Certainly nothing of it was applied, and the store goes on.
    Rejected(BoxError),
    /// Nobody knows whether it was applied, or whether the engine can go on: the store refuses everything until it is
    /// opened again.
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

impl OpenError {
    pub(crate) fn already_open(path: &Path) -> Self {
        Self::AlreadyOpen { path: path.to_owned() }
    }

    pub(crate) fn corrupt(path: &Path, source: impl Into<BoxError>) -> Self {
        Self::Corrupt { path: path.to_owned(), source: source.into() }
    }

    pub(crate) fn upgrade(path: &Path, source: impl Into<BoxError>) -> Self {
        Self::Upgrade { path: path.to_owned(), source: source.into() }
    }

    /// The system failed to open, lock, read or write a file.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// The engine failed to read a file. It reports one that it did not write, or that ends too early, in these kinds.
    pub(crate) fn io_of_engine(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Self::corrupt(path, source),
            _ => Self::io(path, source),
        }
    }
}
