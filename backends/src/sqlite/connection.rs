//! Opening connections: the one that writes, and those that read. Every setting that the store relies on is read back
//! after it was set: SQLite ignores a setting that it does not know or cannot apply.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Error, OpenFlags, OptionalExtension, TransactionBehavior};
use syncline::BoxError;

use super::builder::Options;
use super::errors::{NotOpened, open_error};
use super::guard::Guard;
use super::layout::{self, Table};
use crate::OpenStoreError;

/// The first version of SQLite without a fault in WAL mode: a checkpoint beside a write could lose commits.
const VERSION_MIN: i32 = 3_051_003;

/// The settings of every connection: a schema may call only built-in functions, damaged pages are noticed early, and
/// the file is not mapped into memory, where a stray write of the process would be a write to the file.
const ALWAYS: [(&str, i64); 3] = [("trusted_schema", 0), ("cell_size_check", 1), ("mmap_size", 0)];

/// The settings of the connection that writes: a commit has reached the medium when it returns. Without `fullfsync` an
/// Apple system leaves the commit in the cache of the drive; on other systems that setting does nothing.
const DURABLE: [(&str, i64); 3] = [("synchronous", 2), ("fullfsync", 1), ("checkpoint_fullfsync", 1)];

/// Enough for the store's statements beside those that the app caches on the same connection.
const CACHED_STATEMENTS_MAX: usize = 256;

/// Refuses a SQLite whose version, as a `number`, is older than [`VERSION_MIN`].
pub(super) fn check_version(path: &Path, number: i32) -> Result<(), OpenStoreError> {
    if number >= VERSION_MIN {
        return Ok(());
    }
    let text =
        |number: i32| format!("SQLite {}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000);
    Err(OpenStoreError::EngineTooOld {
        path: path.to_owned(),
        found: text(number),
        needed: text(VERSION_MIN),
    })
}

/// The connection that writes, as it was opened.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) guard: Arc<Guard>,
    /// Whether the store has no entry yet.
    pub(super) is_empty: bool,
}

/// Opens the connection that writes to `database`. Creates the database and its tables if need be. Errors name `path`.
pub(super) fn writer(database: &Path, path: &Path, options: &Options) -> Result<Opened, OpenStoreError> {
    try_writer(database, options).map_err(|error| open_error(path, error))
}

fn try_writer(database: &Path, options: &Options) -> Result<Opened, NotOpened> {
    // SQLite takes a file of one byte for an empty one, and would overwrite it.
    if database.metadata().is_ok_and(|file| file.len() == 1) {
        return Err(NotOpened::NotOurs("it has one byte".into()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = connect(database, flags, options)?;
    // Checked before the first change: a file that is not a store must be left as it was.
    let mut missing = Vec::new();
    for table in layout::TABLES {
        if !exists(&connection, table)? {
            missing.push(table.create);
        }
    }
    if options.verify {
        verify(&connection)?;
    }
    use_wal(&connection)?;
    set(&connection, &DURABLE)?;
    bound_wal(&connection, options.wal_bytes_max)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS_MAX);
    if !missing.is_empty() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        missing.into_iter().try_for_each(|create| transaction.execute_batch(create))?;
        transaction.commit()?;
    }
    // The last owner may have crashed before its log reached the medium. The checkpoint copies the log into the
    // database and flushes that: otherwise a read could return an entry that a loss of power takes away again.
    checkpoint(&connection, "PASSIVE")?;
    // A damaged page is an error of the read that meets it: a store that has one is not new.
    let is_empty = layout::is_empty(&connection).unwrap_or(false);
    let guard = Guard::on(&mut connection)?;
    Ok(Opened { connection, guard, is_empty })
}

/// Opens a connection that cannot write.
pub(super) fn reader(database: &Path, options: &Options) -> Result<Connection, BoxError> {
    let connection = connect(database, OpenFlags::SQLITE_OPEN_READ_ONLY, options)?;
    set(&connection, &[("query_only", 1)])?;
    Ok(connection)
}

/// Copies the log into the database, as far as connections that read allow. Returns whether all that `mode` says was
/// done.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> Result<bool, Error> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(|busy| busy == 0)
}

fn connect(database: &Path, access: OpenFlags, options: &Options) -> Result<Connection, NotOpened> {
    // SQLite's own lock on a connection is left out: each connection is used by one thread at a time.
    let connection = Connection::open_with_flags(database, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(options.busy_timeout)?;
    set(&connection, &ALWAYS)?;
    let cache_kib = i64::try_from(options.cache_bytes >> 10).unwrap_or(i64::MAX);
    connection.execute_batch(&format!("PRAGMA cache_size = -{cache_kib}"))?;
    Ok(connection)
}

fn set(connection: &Connection, settings: &[(&'static str, i64)]) -> Result<(), NotOpened> {
    for &(name, wanted) in settings {
        connection.execute_batch(&format!("PRAGMA {name} = {wanted}"))?;
        // A setting that SQLite was built without has no value, and is off.
        let found = connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).optional()?;
        let found = found.unwrap_or(0);
        if found != wanted {
            let (found, wanted) = (found.to_string(), wanted.to_string());
            return Err(NotOpened::NotInForce { name, found, wanted });
        }
    }
    Ok(())
}

fn use_wal(connection: &Connection) -> Result<(), NotOpened> {
    // The pragma returns the mode that is in force after it.
    let found: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if found == "wal" {
        return Ok(());
    }
    Err(NotOpened::NotInForce { name: "journal_mode", found, wanted: "wal".into() })
}

fn bound_wal(connection: &Connection, wal_bytes_max: u64) -> Result<(), NotOpened> {
    let wal_bytes_max = i64::try_from(wal_bytes_max).unwrap_or(i64::MAX);
    let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    // SQLite copies the log at a quarter of the limit, so that the log stays within it even if short reads keep some
    // checkpoints from finishing.
    let checkpoint_pages = (wal_bytes_max / 4 / page_bytes.max(1)).clamp(1, i64::from(i32::MAX));
    set(connection, &[("wal_autocheckpoint", checkpoint_pages), ("journal_size_limit", wal_bytes_max)])
}

/// Whether the database has `table`. A table of that name that is not ours is an error.
fn exists(connection: &Connection, table: &Table) -> Result<bool, NotOpened> {
    let sql = "SELECT sql FROM sqlite_schema WHERE name = ?1";
    let found: Option<Option<String>> =
        connection.query_row(sql, [table.name], |row| row.get(0)).optional()?;
    match found {
        None => Ok(false),
        Some(Some(sql)) if sql == table.create => Ok(true),
        Some(sql) => Err(NotOpened::NotOurs(format!(
            "its table {} was made by something else: {}",
            table.name,
            sql.unwrap_or_default()
        ))),
    }
}

fn verify(connection: &Connection) -> Result<(), NotOpened> {
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(NotOpened::NotOurs(found)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_can_lose_commits_is_refused() {
        let path = Path::new("store.db");
        for number in [3_007_000, 3_050_004, 3_051_002] {
            let error = check_version(path, number).unwrap_err();
            assert!(matches!(error, OpenStoreError::EngineTooOld { .. }));
            assert!(error.to_string().contains("link SQLite 3.51.3 or newer"), "{error}");
        }
        for number in [VERSION_MIN, 3_053_000, 4_000_000, rusqlite::version_number()] {
            check_version(path, number).unwrap();
        }
    }

    #[test]
    fn a_database_that_cannot_do_wal_is_refused() {
        let error = use_wal(&Connection::open_in_memory().unwrap()).unwrap_err();
        assert!(error.to_string().contains("journal_mode is memory"), "{error}");
        assert!(matches!(open_error(Path::new("store.db"), error), OpenStoreError::Io { .. }));
    }

    #[test]
    fn a_setting_that_is_not_in_force_is_an_error() {
        let connection = Connection::open_in_memory().unwrap();
        set(&connection, &ALWAYS).unwrap();
        set(&connection, &DURABLE).unwrap();
        // SQLite ignores a page size that is no power of two.
        let error = set(&connection, &[("page_size", 12_345)]).unwrap_err();
        assert!(matches!(error, NotOpened::NotInForce { name: "page_size", .. }), "{error}");
    }
}
