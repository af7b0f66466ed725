//! Where keys and values lie in SQLite: records in one table, all other entries in another one.
//!
//! **Records** lie in a table with a row id and an index on the key, because a write then appends its values, and
//! changes only a small index at random places. Measured against `WITHOUT ROWID`, with WAL and full sync, batches of
//! 1,000 records and keys of this library: random ids are written 3 times as fast, time-ordered ids and single commits
//! at the same speed; point reads run at 0.85 of the speed, scans over random ids at 0.55, scans over time-ordered ids
//! at the same. Larger pages gain nothing.
//!
//! **The other entries** (identity, clock, heads, log) are small, and a part of them changes with every commit. In a
//! table that is clustered by its key they mostly fit into one page, so that a single commit writes 3 or 4 pages
//! instead of 7.

use rusqlite::{Connection, OptionalExtension, Result};
use syncline::{Key, KeyRange, Value, WriteBatch, WriteOp};

use crate::shared::closing::Closing;
use crate::shared::errors::NotRead;
use crate::shared::show::Show;
use crate::shared::sizes::SizeLimits;

/// The largest row that SQLite stores, unless it was built with a smaller limit.
const ROW_BYTES_MAX: u64 = 1_000_000_000;
/// The most that a row holds beside its key and its value.
const ROW_HEADER_BYTES_MAX: u64 = 32;

/// The sizes that fit into a row of SQLite.
pub(super) const SIZES: SizeLimits = SizeLimits {
    key_bytes_max: ROW_BYTES_MAX - ROW_HEADER_BYTES_MAX,
    value_bytes_max: ROW_BYTES_MAX - ROW_HEADER_BYTES_MAX,
    pair_bytes_max: ROW_BYTES_MAX - ROW_HEADER_BYTES_MAX,
};

/// Returns the values of `keys`, in their order. More than one key needs a transaction: otherwise the values could come
/// from different states.
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
            // New records with time-ordered ids lie side by side, in the gap that the first of them was found in.
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

/// Shows the entries of `range`, from one state; returns whether there may be more than were shown. Must not be called in
/// a transaction.
pub(super) fn visit(
    connection: &Connection,
    range: &KeyRange,
    show: &mut Show<'_>,
    closing: &Closing,
) -> Result<bool, NotRead> {
    let mut read = || visit_tables(connection, range, show, closing);
    // A single statement reads one state by itself.
    if is_in_one_table(range) { read() } else { in_one_state(connection, read) }
}

fn visit_tables(
    connection: &Connection,
    range: &KeyRange,
    show: &mut Show<'_>,
    closing: &Closing,
) -> Result<bool, NotRead> {
    for (table, part) in parts(range) {
        let mut statement =
            connection.prepare_cached(if part.end.is_some() { table.scan } else { table.scan_to_the_end })?;
        let mut rows = match &part.end {
            Some(end) => statement.query((&part.start, end))?,
            None => statement.query((&part.start,))?,
        };
        while let Some(row) = rows.next()? {
            if closing.has_begun() {
                return Err(NotRead::Closing);
            }
            let blob = |at| row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from);
            if show.entry(blob(0)?, blob(1)?).is_break() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether the store has no entry.
pub(super) fn is_empty(connection: &Connection) -> Result<bool> {
    let has = |table: &Table| {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{})", table.name);
        connection.query_row(&sql, [], |row| row.get::<_, bool>(0))
    };
    Ok(!has(&STATE)? && !has(&RECORDS)?)
}

/// Applies `batch` in the open transaction.
pub(super) fn apply(connection: &Connection, batch: &WriteBatch) -> Result<()> {
    // Most entries of a batch are records: this statement is not looked up for each of them.
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

/// Runs `work` in a transaction, so that all its statements read the same state.
pub(super) fn in_one_state<T, E: From<rusqlite::Error>>(
    connection: &Connection,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    // If `work` fails, the transaction is rolled back when it is dropped.
    let transaction = connection.unchecked_transaction()?;
    let found = work()?;
    transaction.commit()?;
    Ok(found)
}

fn get(connection: &Connection, key: &[u8]) -> Result<Option<Value>> {
    connection.prepare_cached(table_of(key).get)?.query_row([key], |row| row.get(0)).optional()
}

/// A range of records that holds no key, as a lookup has found it.
struct Gap<'k> {
    start: &'k Key,
    end: Option<Key>,
}

impl Gap<'_> {
    fn contains(&self, key: &Key) -> bool {
        key >= self.start && self.end.as_ref().is_none_or(|end| key < end)
    }
}

fn table_of(key: &[u8]) -> &'static Table {
    if key < RECORDS_START { &STATE } else { &RECORDS }
}

/// Whether all keys of `range` lie in one table.
fn is_in_one_table(range: &KeyRange) -> bool {
    range.start.as_slice() >= RECORDS_START || range.end.as_deref().is_some_and(|end| end <= RECORDS_START)
}

/// The parts of `range` that are not empty, by table and in order.
fn parts(range: &KeyRange) -> impl Iterator<Item = (&'static Table, KeyRange)> {
    let at = RECORDS_START;
    let before = KeyRange {
        start: range.start.clone(),
        end: Some(range.end.as_deref().map_or(at, |end| end.min(at)).to_vec()),
    };
    let behind = KeyRange { start: range.start.as_slice().max(at).to_vec(), end: range.end.clone() };
    TABLES.into_iter().zip([before, behind]).filter(|(_, part)| !part.is_empty())
}

/// A table and its statements.
#[derive(Debug)]
pub(super) struct Table {
    /// The name in the schema.
    pub(super) name: &'static str,
    /// The statement that creates the table. A table that was created by another statement is not ours.
    ///
    /// `STRICT` keeps text out: another connection could write text, which SQLite orders before all blobs.
    pub(super) create: &'static str,
    get: &'static str,
    /// Finds a key or the next one after it. Returns the value only with the key itself: the value of another key is
    /// not needed, and to read it takes another page.
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
                " WHERE key >= ?1 AND key < ?2 ORDER BY key"
            ),
            scan_to_the_end: concat!(
                "SELECT key, value FROM main.",
                $name,
                $by_key,
                " WHERE key >= ?1 ORDER BY key"
            ),
            // `REPLACE` would delete the row, run the app's triggers for that, and append another row.
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

/// The table of all entries but records, which stand before them.
const STATE: Table = table!(
    "syncline_state",
    "(key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
    ""
);

/// The table of records.
const RECORDS: Table = table!(
    "syncline_records",
    "(key BLOB NOT NULL UNIQUE, value BLOB NOT NULL) STRICT",
    // The index is named, because the statistics of an `ANALYZE` by the app could make the planner sort the table
    // instead.
    " INDEXED BY sqlite_autoindex_syncline_records_1"
);

/// Both tables, in the order of their keys.
pub(super) const TABLES: [&Table; 2] = [&STATE, &RECORDS];

/// The first key of [`RECORDS`]. If entries other than records lay there too, only the speed would suffer.
const RECORDS_START: &[u8] = &[0x10];

#[cfg(test)]
mod tests {
    use syncline::ScanLimit;

    use super::*;
    use crate::shared::show;

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

    /// Goal: a scan over both tables reads one state. Method: another connection writes once the first table is read, as
    /// the statement for the second one is prepared.
    #[test]
    fn a_scan_over_both_tables_reads_one_state() {
        use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

        fn put(connection: &Connection, value: &str) {
            let mut batch = WriteBatch::new();
            batch.put([1], value);
            batch.put([0x20], value);
            in_one_state::<_, rusqlite::Error>(connection, || apply(connection, &batch)).unwrap();
        }

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.sqlite");
        let mut reader = Connection::open(&path).unwrap();
        reader.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        TABLES.iter().for_each(|table| reader.execute_batch(table.create).unwrap());
        let writer = Connection::open(&path).unwrap();
        put(&writer, "old");
        let mut writes = Some(writer);
        let between = move |context: AuthContext<'_>| {
            if matches!(context.action, AuthAction::Read { table_name, .. } if table_name == RECORDS.name)
                && let Some(writer) = writes.take()
            {
                put(&writer, "new");
            }
            Authorization::Allow
        };
        reader.authorizer(Some(between)).unwrap();
        for expected in [b"old", b"new"] {
            let visit = |show: &mut Show<'_>| visit(&reader, &KeyRange::all(), show, &Closing::default());
            let found = show::page(ScanLimit::entries(10), visit).ok().unwrap();
            let values: Vec<_> = found.entries.iter().map(|entry| entry.value.as_slice()).collect();
            assert_eq!(values, [expected, expected]);
        }
    }
}
