//! The statements on the table of entries: what reads, joins and writes do with a connection.
//!
//! A table with a row id and an index on the key, because a write then appends its values and only a small index is
//! touched at random. Measured against `WITHOUT ROWID`, with WAL and full sync, batches of 1,000 records and keys of
//! this library: random ids are written 3 times as fast, time-ordered ids and single commits alike; point reads run
//! at 0.85 of the speed, scans over random ids at 0.55, over time-ordered ids alike. A second table for everything
//! but records gains nothing, and neither do larger pages.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::ffi::{self, SQLITE_INTERRUPT};
use rusqlite::{Connection, Error, OptionalExtension, Result};
use syncline::{Entry, Key, KeyRange, Value, WriteBatch, WriteOp};

/// The table's name in the schema, and the words that made it: a table made by other words is not ours.
///
/// `STRICT` keeps text out, which another connection could put there and which would compare in another order.
pub(super) const TABLE: &str = "syncline_entries";
pub(super) const CREATE: &str =
    "CREATE TABLE syncline_entries (key BLOB NOT NULL UNIQUE, value BLOB NOT NULL) STRICT";

const GET: &str = "SELECT value FROM syncline_entries WHERE key = ?1";
/// The key or the next one behind it. The value only for the key itself: it lies elsewhere, and is not read unless it
/// is asked for.
const NEAREST: &str = "SELECT key, CASE WHEN key = ?1 THEN value END FROM syncline_entries \
    INDEXED BY sqlite_autoindex_syncline_entries_1 WHERE key >= ?1 ORDER BY key LIMIT 1";
// The index is named, because statistics that the app gathers with `ANALYZE` might make the planner read and sort
// the whole table.
const SCAN: &str = "SELECT key, value FROM syncline_entries INDEXED BY sqlite_autoindex_syncline_entries_1 \
    WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
const SCAN_TO_THE_END: &str = "SELECT key, value FROM syncline_entries \
    INDEXED BY sqlite_autoindex_syncline_entries_1 WHERE key >= ?1 ORDER BY key LIMIT ?2";

// Not `REPLACE`, which deletes the row, runs the app's triggers for that and appends another.
const PUT: &str = "INSERT INTO syncline_entries (key, value) VALUES (?1, ?2) \
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const DELETE: &str = "DELETE FROM syncline_entries WHERE key = ?1";
const DELETE_RANGE: &str = "DELETE FROM syncline_entries WHERE key >= ?1 AND key < ?2";
const DELETE_TO_THE_END: &str = "DELETE FROM syncline_entries WHERE key >= ?1";

/// The value of `key`.
pub(super) fn get(connection: &Connection, key: &[u8]) -> Result<Option<Value>> {
    connection.prepare_cached(GET)?.query_row([key], |row| row.get(0)).optional()
}

/// The values of `keys`. The caller sees to it that they are from one state.
pub(super) fn get_many(connection: &Connection, keys: &[Key]) -> Result<Vec<Option<Value>>> {
    let mut nearest = connection.prepare_cached(NEAREST)?;
    let mut gap: Option<Gap<'_>> = None;
    keys.iter()
        .map(|key| {
            // New records with time-ordered ids lie side by side where there is nothing yet.
            if gap.as_ref().is_some_and(|gap| gap.contains(key)) {
                return Ok(None);
            }
            let mut rows = nearest.query([key])?;
            let next = match rows.next()? {
                Some(row) if row.get_ref(0)?.as_blob()? == key.as_slice() => return row.get(1).map(Some),
                Some(row) => Some(row.get(0)?),
                None => None,
            };
            gap = Some(Gap { start: key, end: next });
            Ok(None)
        })
        .collect()
}

/// A stretch between two keys where no key lies, as a lookup has found it.
struct Gap<'k> {
    start: &'k Key,
    end: Option<Key>,
}

impl Gap<'_> {
    fn contains(&self, key: &Key) -> bool {
        key >= self.start && self.end.as_ref().is_none_or(|end| key < end)
    }
}

/// The first `limit` entries of `range`. Gives up once `closing` is set: then nobody waits for them.
pub(super) fn scan(
    connection: &Connection,
    range: &KeyRange,
    limit: usize,
    closing: &AtomicBool,
) -> Result<Vec<Entry>> {
    let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement =
        connection.prepare_cached(if range.end.is_some() { SCAN } else { SCAN_TO_THE_END })?;
    let mut rows = match &range.end {
        Some(end) => statement.query((&range.start, end, rows_max))?,
        None => statement.query((&range.start, rows_max))?,
    };
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        if closing.load(Ordering::Relaxed) {
            let error = ffi::Error::new(SQLITE_INTERRUPT);
            return Err(Error::SqliteFailure(error, Some("the store is being closed".into())));
        }
        entries.push(Entry { key: row.get(0)?, value: row.get(1)? });
    }
    Ok(entries)
}

/// Applies `batch` in the transaction that is open.
pub(super) fn apply(connection: &Connection, batch: &WriteBatch) -> Result<()> {
    let mut put = connection.prepare_cached(PUT)?;
    let mut delete = connection.prepare_cached(DELETE)?;
    for op in batch.ops() {
        match op {
            WriteOp::Put { key, value } => put.execute((key, value))?,
            WriteOp::Delete { key } => delete.execute([key])?,
            WriteOp::DeleteRange { range: KeyRange { start, end: Some(end) } } => {
                connection.prepare_cached(DELETE_RANGE)?.execute([start, end])?
            }
            WriteOp::DeleteRange { range: KeyRange { start, end: None } } => {
                connection.prepare_cached(DELETE_TO_THE_END)?.execute([start])?
            }
        };
    }
    Ok(())
}
