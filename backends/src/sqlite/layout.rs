//! The statements on the two tables of entries: what reads, joins and writes do with a connection.
//!
//! **Records** lie in a table with a row id and an index on the key, because a write then appends its values and only
//! a small index is touched at random. Measured against `WITHOUT ROWID`, with WAL and full sync, batches of 1,000
//! records and keys of this library: random ids are written 3 times as fast, time-ordered ids and single commits
//! alike; point reads run at 0.85 of the speed, scans over random ids at 0.55, over time-ordered ids alike. Larger
//! pages gain nothing.
//!
//! **What stands before the records** (identity, clock, heads, log) is small, and a part of it changes with every
//! commit. In a table that is clustered by its key it mostly fits a page, so that a single commit writes 3 or 4 pages
//! instead of 7.

use rusqlite::{Connection, OptionalExtension, Result};
use syncline::{Entry, Key, KeyRange, Value, WriteBatch, WriteOp};

use crate::shared::closing::Closing;
use crate::shared::errors::NotRead;
use crate::shared::sizes::SizeLimits;

/// A table and its statements.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name in the schema.
    pub(super) name: &'static str,
    /// The words that made it: a table made by other words is not ours.
    ///
    /// `STRICT` keeps text out, which another connection could put there and which would compare in another order.
    pub(super) create: &'static str,
    get: &'static str,
    /// The key or the next one behind it. The value only for the key itself: it lies elsewhere, and is not read unless
    /// it is asked for.
    nearest: &'static str,
    scan: &'static str,
    scan_to_the_end: &'static str,
    put: &'static str,
    delete: &'static str,
    delete_range: &'static str,
    delete_to_the_end: &'static str,
}

macro_rules! table {
    ($name:literal, $columns:literal, $by_key:literal) => {
        Table {
            name: $name,
            create: concat!("CREATE TABLE ", $name, " ", $columns),
            get: concat!("SELECT value FROM main.", $name, " WHERE key = ?1"),
            nearest: concat!(
                "SELECT key, CASE WHEN key = ?1 THEN value END FROM main.",
                $name,
                $by_key,
                " WHERE key >= ?1 ORDER BY key LIMIT 1"
            ),
            scan: concat!(
                "SELECT key, value FROM main.",
                $name,
                $by_key,
                " WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3"
            ),
            scan_to_the_end: concat!(
                "SELECT key, value FROM main.",
                $name,
                $by_key,
                " WHERE key >= ?1 ORDER BY key LIMIT ?2"
            ),
            // Not `REPLACE`, which deletes the row, runs the app's triggers for that and appends another.
            put: concat!(
                "INSERT INTO main.",
                $name,
                " (key, value) VALUES (?1, ?2) ",
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            ),
            delete: concat!("DELETE FROM main.", $name, " WHERE key = ?1"),
            delete_range: concat!("DELETE FROM main.", $name, " WHERE key >= ?1 AND key < ?2"),
            delete_to_the_end: concat!("DELETE FROM main.", $name, " WHERE key >= ?1"),
        }
    };
}

/// What stands before the records.
pub(super) const STATE: Table = table!(
    "syncline_state",
    "(key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
    ""
);

/// The records.
pub(super) const RECORDS: Table = table!(
    "syncline_records",
    "(key BLOB NOT NULL UNIQUE, value BLOB NOT NULL) STRICT",
    // Named, because statistics that the app gathers with `ANALYZE` might make the planner read and sort the table.
    " INDEXED BY sqlite_autoindex_syncline_records_1"
);

/// Both, in the order of their keys.
pub(super) const TABLES: [&Table; 2] = [&STATE, &RECORDS];

/// The first key of [`RECORDS`]. Nothing breaks if other keys than records lie there, only speed depends on it.
const RECORDS_START: &[u8] = &[0x10];

fn table_of(key: &[u8]) -> &'static Table {
    if key < RECORDS_START { &STATE } else { &RECORDS }
}

/// Whether the keys of a range lie in one table.
pub(super) fn is_in_one_table(range: &KeyRange) -> bool {
    range.start.as_slice() >= RECORDS_START || range.end.as_deref().is_some_and(|end| end <= RECORDS_START)
}

/// The parts of a range, by table and in order.
fn parts(range: &KeyRange) -> impl Iterator<Item = (&'static Table, KeyRange)> {
    let at = RECORDS_START;
    let before = KeyRange {
        start: range.start.clone(),
        end: Some(range.end.as_deref().map_or(at, |end| end.min(at)).to_vec()),
    };
    let behind = KeyRange { start: range.start.as_slice().max(at).to_vec(), end: range.end.clone() };
    TABLES.into_iter().zip([before, behind]).filter(|(_, part)| !part.is_empty())
}

/// The value of `key`.
pub(super) fn get(connection: &Connection, key: &[u8]) -> Result<Option<Value>> {
    connection.prepare_cached(table_of(key).get)?.query_row([key], |row| row.get(0)).optional()
}

/// The values of `keys`. The caller sees to it that they are from one state.
pub(super) fn get_many(connection: &Connection, keys: &[Key]) -> Result<Vec<Option<Value>>> {
    if let [key] = keys {
        return Ok(vec![get(connection, key)?]);
    }
    let mut nearest = connection.prepare_cached(RECORDS.nearest)?;
    let mut gap: Option<Gap<'_>> = None;
    keys.iter()
        .map(|key| {
            if key.as_slice() < RECORDS_START {
                return get(connection, key);
            }
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

/// A stretch of records between two keys where no key lies, as a lookup has found it.
struct Gap<'k> {
    start: &'k Key,
    end: Option<Key>,
}

impl Gap<'_> {
    fn contains(&self, key: &Key) -> bool {
        key >= self.start && self.end.as_ref().is_none_or(|end| key < end)
    }
}

/// The first `limit` entries of `range`.
///
/// The caller sees to it that they are from one state, unless the range [is in one table](is_in_one_table).
pub(super) fn scan(
    connection: &Connection,
    range: &KeyRange,
    limit: usize,
    closing: &Closing,
) -> Result<Vec<Entry>, NotRead> {
    let mut entries = Vec::new();
    for (table, part) in parts(range) {
        let rows_max = i64::try_from(limit - entries.len()).unwrap_or(i64::MAX);
        let mut statement =
            connection.prepare_cached(if part.end.is_some() { table.scan } else { table.scan_to_the_end })?;
        let mut rows = match &part.end {
            Some(end) => statement.query((&part.start, end, rows_max))?,
            None => statement.query((&part.start, rows_max))?,
        };
        while let Some(row) = rows.next()? {
            if closing.has_begun() {
                return Err(NotRead::Closing);
            }
            entries.push(Entry { key: row.get(0)?, value: row.get(1)? });
        }
    }
    Ok(entries)
}

/// Applies `batch` in the transaction that is open.
pub(super) fn apply(connection: &Connection, batch: &WriteBatch) -> Result<()> {
    // Most of a batch are records.
    let mut put_record = connection.prepare_cached(RECORDS.put)?;
    for op in batch.ops() {
        match op {
            WriteOp::Put { key, value } if key.as_slice() >= RECORDS_START => {
                put_record.execute((key, value))?;
            }
            WriteOp::Put { key, value } => {
                connection.prepare_cached(STATE.put)?.execute((key, value))?;
            }
            WriteOp::Delete { key } => {
                connection.prepare_cached(table_of(key).delete)?.execute([key])?;
            }
            WriteOp::DeleteRange { range } => {
                for (table, part) in parts(range) {
                    match &part.end {
                        Some(end) => {
                            connection.prepare_cached(table.delete_range)?.execute([&part.start, end])?
                        }
                        None => connection.prepare_cached(table.delete_to_the_end)?.execute([&part.start])?,
                    };
                }
            }
        }
    }
    Ok(())
}

/// Lets several statements of `work` read the same state.
pub(super) fn in_one_state<T, E: From<rusqlite::Error>>(
    connection: &Connection,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    // Rolled back if anything fails in between.
    let transaction = connection.unchecked_transaction()?;
    let found = work()?;
    transaction.commit()?;
    Ok(found)
}

/// The largest row that SQLite stores, unless it was built to store less.
const ROW_BYTES_MAX: u64 = 1_000_000_000;
/// What a row has beside its key and its value, at most.
const ROW_HEADER_BYTES_MAX: u64 = 32;

/// What fits into a row of SQLite.
pub(super) const SIZES: SizeLimits = SizeLimits {
    key_bytes_max: ROW_BYTES_MAX - ROW_HEADER_BYTES_MAX,
    value_bytes_max: ROW_BYTES_MAX - ROW_HEADER_BYTES_MAX,
    pair_bytes_max: ROW_BYTES_MAX - ROW_HEADER_BYTES_MAX,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_parted_where_the_tables_meet() {
        let names = |range: KeyRange| {
            let parts: Vec<_> = parts(&range).map(|(table, part)| (table.name, part)).collect();
            assert_eq!(parts.len() <= 1, is_in_one_table(&range) || range.is_empty(), "{range:?}");
            parts
        };
        let (state, records) = (STATE.name, RECORDS.name);
        let from = |start: &[u8]| KeyRange { start: start.to_vec(), end: None };
        assert_eq!(names(KeyRange::all()), [(state, KeyRange::new([], [0x10])), (records, from(&[0x10]))]);
        assert_eq!(names(KeyRange::new([1], [0x10])), [(state, KeyRange::new([1], [0x10]))]);
        assert_eq!(
            names(KeyRange::new([1], [0x10, 0])),
            [(state, KeyRange::new([1], [0x10])), (records, KeyRange::new([0x10], [0x10, 0]))]
        );
        assert_eq!(names(KeyRange::new([0x10], [0x11])), [(records, KeyRange::new([0x10], [0x11]))]);
        assert_eq!(names(from(&[0x7f, 1])), [(records, from(&[0x7f, 1]))]);
        assert_eq!(names(KeyRange::new([2], [1])), []);
        assert_eq!(names(KeyRange::new([0x20], [0x11])), []);
    }

    #[test]
    fn sizes_are_refused_before_sqlite_refuses_them() {
        let fits = |key_bytes, value_bytes| SIZES.check_pair(key_bytes, value_bytes).is_ok();
        let most = ROW_BYTES_MAX - ROW_HEADER_BYTES_MAX;
        assert!(fits(most, 0) && fits(0, most) && fits(1, most - 1));
        assert!(!fits(most + 1, 0) && !fits(0, most + 1));
        assert!(!fits(1, most) && !fits(u64::MAX, 1));
    }
}
