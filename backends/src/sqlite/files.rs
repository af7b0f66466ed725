//! Who may write: the one store that holds the lock on a file beside the database.
//!
//! SQLite lets any number of connections write by turns, and a store must be the only one. A lock on the database
//! itself will not do: closing any handle of that file drops the locks that SQLite holds on it in this process. So
//! the lock is on an empty file of its own, which the system releases with the process, and which nobody deletes,
//! since whoever locked the deleted one would not see who locks the next.

use std::ffi::OsString;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use crate::OpenError;
use crate::shared::directory::parent;
use crate::shared::lock::LockFile;

/// What the name of the database is followed by to name the file that is locked.
const SUFFIX: &str = "-syncline-lock";

/// The right to write a database, until it is dropped.
#[derive(Debug)]
pub(super) struct Owner {
    /// The database by its one true name.
    pub(super) database: PathBuf,
    _lock: LockFile,
}

impl Owner {
    /// Claims the database at `path`, whether or not it is there yet. Never waits.
    pub(super) fn claim(path: &Path) -> Result<Self, OpenError> {
        let database = true_name(path).map_err(|error| OpenError::io(path, error))?;
        let lock = LockFile::claim(&beside(&database, SUFFIX), path)?;
        Ok(Self { database, _lock: lock })
    }
}

/// The file whose name is that of `database` and then `suffix`.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(suffix);
    name.into()
}

/// The absolute path of the file, or of the one to be created: one lock for all the ways to write it. SQLite takes
/// relative names such as `file:x` for something else.
fn true_name(path: &Path) -> Result<PathBuf, Error> {
    // Not opened here: closing it again would drop the locks of the app's own connections.
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
