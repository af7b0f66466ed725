//! The files beside the database, among them the lock that makes a store the only one that writes.
//!
//! SQLite lets any number of connections write in turns, but only one store may write. The store cannot lock the
//! database file for that: closing any handle of a file drops the locks that SQLite holds on the file in this process.
//! So the lock is on an empty file of its own.

use std::ffi::OsString;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use crate::OpenStoreError;
use crate::shared::directory::parent;
use crate::shared::lock::LockFile;

/// The end of the name of the file that is locked.
const LOCK_SUFFIX: &str = "-syncline-lock";

/// The right to write a database. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Owner {
    /// The database by the one name that all paths to it lead to.
    pub(super) database: PathBuf,
    _lock: LockFile,
}

impl Owner {
    /// Claims the database at `path`, which need not exist yet. Does not wait.
    pub(super) fn claim(path: &Path) -> Result<Self, OpenStoreError> {
        let database = true_name(path).map_err(|error| OpenStoreError::io(path, error))?;
        let lock = LockFile::claim(&beside(&database, LOCK_SUFFIX), path)?;
        Ok(Self { database, _lock: lock })
    }

    /// The path of the log that SQLite keeps beside the database.
    pub(super) fn wal(&self) -> PathBuf {
        beside(&self.database, "-wal")
    }
}

/// The path of `database` with `suffix` at the end.
fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(suffix);
    name.into()
}

/// The absolute path of the file, or of the file to be created. All paths that lead to one file get the same lock by
/// it. It also keeps SQLite from reading a relative name such as `file:x` as a URI.
fn true_name(path: &Path) -> Result<PathBuf, Error> {
    // The file is not opened here: closing it would drop the locks of the app's own connections.
    match path.symlink_metadata() {
        Ok(_) => {
            let name = fs::canonicalize(path)?;
            check_file(&name)?;
            Ok(name)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            Ok(fs::canonicalize(parent(path))?.join(name))
        }
        Err(error) => Err(error),
    }
}

fn check_file(name: &Path) -> Result<(), Error> {
    let file = name.metadata()?;
    if file.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&file) > 1 {
        let what = "it has several names (hard links), and the log of a database belongs to one of them: \
            keep one name, copy the file for others";
        return Err(Error::other(what));
    }
    Ok(())
}
