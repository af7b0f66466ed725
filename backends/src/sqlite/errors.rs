//! The errors of SQLite, as the caller of the store sees them.

use std::io::{self, ErrorKind};
use std::path::Path;

use rusqlite::{Error, ErrorCode};
use syncline::StatementError;

use crate::OpenStoreError;
use crate::shared::errors::{NotRead, NotWritten};

/// Why a connection was not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotOpened {
    #[error(transparent)]
    Engine(#[from] Error),
    #[error("{name} is {found} and cannot be set to {wanted}, which keeps commits safe")]
    NotInForce { name: &'static str, found: String, wanted: String },
    #[error("{0}")]
    NotOurs(String),
}

pub(super) fn open_error(path: &Path, error: NotOpened) -> OpenStoreError {
    let io = |kind, error: Error| io::Error::new(kind, error);
    let source = match error {
        NotOpened::NotOurs(_) => return OpenStoreError::corrupt(path, error),
        NotOpened::NotInForce { .. } => io::Error::new(ErrorKind::Unsupported, error),
        NotOpened::Engine(error) => match error.sqlite_error_code() {
            // A connection that only reads does not hold this lock, so that its owner writes.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                return OpenStoreError::already_open(path);
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                return OpenStoreError::corrupt(path, error);
            }
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => io(ErrorKind::PermissionDenied, error),
            Some(ErrorCode::DiskFull) => io(ErrorKind::StorageFull, error),
            // rusqlite itself refused what it read: a schema that SQLite does not write.
            None => return OpenStoreError::corrupt(path, error),
            Some(_) => io(ErrorKind::Other, error),
        },
    };
    OpenStoreError::io(path, source)
}

/// A failure before the commit. Certainly nothing was applied. After a failure of the medium, a damaged page or a lack
/// of memory it is unknown whether the connection can go on.
pub(super) fn not_applied(error: Error) -> NotWritten {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::OutOfMemory
            | ErrorCode::InternalMalfunction,
        ) => NotWritten::in_doubt(error),
        _ => NotWritten::rejected(error),
    }
}

/// A failure of the commit itself. It may have come after the last byte of the transaction was written, except for the
/// failures that are rejected here, which are known to come before that.
pub(super) fn not_committed(error: Error) -> NotWritten {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull) => {
            NotWritten::rejected(error)
        }
        // The store's own tables have no such constraint.
        Some(ErrorCode::ConstraintViolation) => {
            NotWritten::rejected(StatementError::Constraint(error.into()))
        }
        _ => NotWritten::in_doubt(error),
    }
}

/// SQLite reads a page that failed again when it is asked for it, so that the next read may succeed.
impl From<Error> for NotRead {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    /// Whether a failure with this code of SQLite is certain to have left nothing.
    fn is_rejected(code: i32, judge: fn(Error) -> NotWritten) -> bool {
        let error = Error::SqliteFailure(ffi::Error::new(code), None);
        matches!(judge(error), NotWritten::Rejected(_))
    }

    /// A commit that met a failure of the medium may be durable all the same. Told that it is not, an app would make it
    /// twice, and its stamp would be drawn for another one.
    #[test]
    fn what_a_failure_says_of_a_write_depends_on_when_it_came() {
        let cases = [
            ("a lock", ffi::SQLITE_BUSY, true, true),
            ("a lock in the own process", ffi::SQLITE_LOCKED, true, true),
            ("a full disk", ffi::SQLITE_FULL, true, true),
            ("a constraint", ffi::SQLITE_CONSTRAINT_FOREIGNKEY, true, true),
            ("a statement that is wrong", ffi::SQLITE_ERROR, true, false),
            ("a read that failed", ffi::SQLITE_IOERR_READ, false, false),
            ("a sync that failed", ffi::SQLITE_IOERR_FSYNC, false, false),
            ("a write that failed", ffi::SQLITE_IOERR_WRITE, false, false),
            ("a damaged page", ffi::SQLITE_CORRUPT, false, false),
            ("a file that is no database", ffi::SQLITE_NOTADB, false, false),
            ("a lack of memory", ffi::SQLITE_NOMEM, false, false),
        ];
        for (name, code, before, at_the_commit) in cases {
            assert_eq!(is_rejected(code, not_applied), before, "{name}, before the commit");
            assert_eq!(is_rejected(code, not_committed), at_the_commit, "{name}, at the commit");
        }
    }
}
