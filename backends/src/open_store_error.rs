//! Why a store could not be opened, by what the caller may do about it.

use std::io;
use std::path::PathBuf;

use syncline::BoxError;

/// Why a store was not opened. A file that is not a store of this library is left as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// Another store of this process, or another process, holds the files: close that store and try again.
    #[error("{} is already open: close the other store or end the process that holds it, then try again", path.display())]
    AlreadyOpen {
        /// Where the store lies.
        path: PathBuf,
    },
    /// The files are damaged, or something else than a store: restore them from a copy, or choose another path.
    #[error("{} is damaged or not a store: restore it, or choose another path: {source}", path.display())]
    Corrupt {
        /// Where the store lies.
        path: PathBuf,
        /// The error that the engine reported.
        source: BoxError,
    },
    /// The files have the format of another version of the engine: open them with that version.
    #[error("{} was written by another version of the engine: open it with that version: {source}", path.display())]
    Upgrade {
        /// Where the store lies.
        path: PathBuf,
        /// The error that the engine reported.
        source: BoxError,
    },
    /// The linked engine has a fault that loses data: link a newer version.
    #[error("{} was not opened, because {found} can lose data: link {needed} or newer", path.display())]
    EngineTooOld {
        /// Where the store lies.
        path: PathBuf,
        /// The linked engine and its version.
        found: String,
        /// The first version without the fault.
        needed: String,
    },
    /// The medium failed or is not accessible; the message says what to check.
    #[error("{} cannot be opened: {source}: {}", path.display(), advice(source))]
    Io {
        /// Where the store lies.
        path: PathBuf,
        /// The error that the system reported.
        source: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path, and create the directory first",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "allow reading and writing it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space, then try again",
        io::ErrorKind::IsADirectory => "name a file, not a directory",
        io::ErrorKind::NotADirectory => "name a directory, not a file",
        _ => "check the medium, then try again",
    }
}
