//! Where keys and values lie in redb: in one table for each first byte of a key.
//!
//! redb fills the pages of a tree only if keys are appended at the end of the tree. Keys of one kind begin with the
//! same byte. With a tree for each byte, the kinds that grow at their end have full pages: log entries, and the records
//! of every model with time-ordered ids. The tables are in the order of their keys, so that a scan reads one after the
//! other.
//!
//! The tables hold plain bytes, and neither `Option` nor typed values: redb has changed how it encodes those.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Bound, RangeInclusive};

use ::redb::{
    Database, Error, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition,
    TableError, TableHandle, WriteTransaction,
};
use syncline::{Key, KeyRange, Value, WriteBatch, WriteOp};

use crate::bounds::bounds;
use crate::shared::closing::Closing;
use crate::shared::errors::NotRead;
use crate::shared::range_end::RangeEnd;
use crate::shared::show::Show;
use crate::shared::sizes::SizeLimits;

/// The sizes up to which redb stores keys and values.
pub(super) const SIZES: SizeLimits = SizeLimits {
    key_bytes_max: ITEM_BYTES_MAX,
    value_bytes_max: ITEM_BYTES_MAX,
    pair_bytes_max: ITEM_BYTES_MAX + (768 << 20),
};
const ITEM_BYTES_MAX: u64 = 3 << 30;

/// Returns the values of `keys`, in their order.
pub(super) fn get_many(transaction: &ReadTransaction, keys: &[Key]) -> Result<Vec<Option<Value>>, Error> {
    if let [key] = keys {
        return Ok(vec![get(transaction, key)?]);
    }
    let mut tables = Reading::new(transaction);
    keys.iter().map(|key| tables.get(key)).collect()
}

/// Shows the entries of `range`, which must not be empty; returns whether there may be more than were shown.
pub(super) fn visit(
    transaction: &ReadTransaction,
    range: &KeyRange,
    show: &mut Show<'_>,
    closing: &Closing,
) -> Result<bool, NotRead> {
    let end = RangeEnd::of(range);
    for table in reading_of(transaction, range)? {
        let mut cursor = table.lower_bound(Bound::Included(range.start.as_slice()))?;
        while let Some((key, value)) = cursor.next()? {
            if closing.has_begun() {
                return Err(NotRead::Closing);
            }
            let key = key.value();
            // The tables come in the order of their keys.
            if !end.is_above(key) {
                return Ok(false);
            }
            if show.entry(key, value.value()).is_break() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Applies `batch` in the transaction. It becomes durable with the commit.
pub(super) fn apply(transaction: &WriteTransaction, batch: &WriteBatch) -> Result<(), Error> {
    let mut tables = Writing::new(transaction);
    for op in batch.ops() {
        match op {
            WriteOp::Put { key, value } => {
                drop(tables.of(key)?.insert(key.as_slice(), value.as_slice())?);
            }
            WriteOp::Delete { key } => drop(tables.of(key)?.remove(key.as_slice())?),
            WriteOp::DeleteRange { range } if range.is_empty() => {}
            WriteOp::DeleteRange { range } => tables
                .each_of(range, |table| Ok(table.retain_in::<&[u8], _>(bounds(range), |_, _| false)?))?,
        }
    }
    Ok(())
}

/// Fails if a table has a name of ours and other types: this library did not write it.
pub(super) fn check_tables(database: &Database) -> Result<(), Error> {
    reading_of(&database.begin_read()?, &KeyRange::all()).map(drop)
}

/// Returns the value of one key that is asked for alone.
fn get(transaction: &ReadTransaction, key: &[u8]) -> Result<Option<Value>, Error> {
    open(transaction, name_of(key))?.map_or(Ok(None), |table| value_in(&table, key))
}

fn value_in(table: &ReadTable, key: &[u8]) -> Result<Option<Value>, Error> {
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

fn open(transaction: &ReadTransaction, name: Name) -> Result<Option<ReadTable>, Error> {
    match transaction.open_table(TableDefinition::new(&text(name))) {
        Ok(table) => Ok(Some(table)),
        // No key of this table was ever written.
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens the tables that `range` lies in, in order.
fn reading_of(transaction: &ReadTransaction, range: &KeyRange) -> Result<Vec<ReadTable>, Error> {
    let names = names_of(range);
    // Most ranges lie in one table. Then the list of all tables is not read.
    let names = if names.start() == names.end() {
        vec![*names.start()]
    } else {
        existing(transaction.list_tables()?, range)
    };
    names.into_iter().filter_map(|name| open(transaction, name).transpose()).collect()
}

/// The tables of a read transaction, for a read of many keys.
struct Reading<'t> {
    transaction: &'t ReadTransaction,
    /// The table that was used last: keys of one table mostly stand side by side.
    current: Option<(Name, Option<Current>)>,
}

/// A table and its last key.
struct Current {
    table: ReadTable,
    last: Key,
}

impl<'t> Reading<'t> {
    fn new(transaction: &'t ReadTransaction) -> Self {
        Self { transaction, current: None }
    }

    /// Returns the value of `key`, one of many.
    fn get(&mut self, key: &[u8]) -> Result<Option<Value>, Error> {
        let name = name_of(key);
        let current = match self.current.take() {
            Some((current, table)) if current == name => table,
            _ => Current::open(self.transaction, name)?,
        };
        match &self.current.insert((name, current)).1 {
            // A new record with a time-ordered id lies behind the last key of its table. Then the table need not be
            // searched.
            Some(current) if key <= current.last.as_slice() => value_in(&current.table, key),
            _ => Ok(None),
        }
    }
}

impl Current {
    /// Returns `None` for a table that is empty or does not exist.
    fn open(transaction: &ReadTransaction, name: Name) -> Result<Option<Self>, Error> {
        let Some(table) = open(transaction, name)? else { return Ok(None) };
        let last = table.last()?.map(|(key, _)| key.value().to_vec());
        Ok(last.map(|last| Self { table, last }))
    }
}

/// The tables of a write transaction, each opened once.
pub(super) struct Writing<'t> {
    transaction: &'t WriteTransaction,
    open: BTreeMap<Name, WriteTable<'t>>,
}

impl<'t> Writing<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Self {
        Self { transaction, open: BTreeMap::new() }
    }

    /// Returns the table of `key`, and creates it if need be.
    fn of(&mut self, key: &[u8]) -> Result<&mut WriteTable<'t>, Error> {
        self.named(name_of(key))
    }

    /// Returns the value of `key` as the transaction sees it.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Value>, Error> {
        Ok(self.of(key)?.get(key)?.map(|value| value.value().to_vec()))
    }

    fn named(&mut self, name: Name) -> Result<&mut WriteTable<'t>, Error> {
        Ok(match self.open.entry(name) {
            btree_map::Entry::Occupied(entry) => entry.into_mut(),
            btree_map::Entry::Vacant(entry) => {
                entry.insert(self.transaction.open_table(TableDefinition::new(&text(name)))?)
            }
        })
    }

    /// Does `work` in each table that `range` lies in.
    fn each_of(
        &mut self,
        range: &KeyRange,
        mut work: impl FnMut(&mut WriteTable<'t>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let names = names_of(range);
        if names.start() == names.end() {
            return work(self.named(*names.start())?);
        }
        // The tables that this transaction has open are added, since it may have just created them.
        let mut affected = existing(self.transaction.list_tables()?, range);
        affected.extend(self.open.keys().filter(|name| names.contains(name)));
        affected.sort_unstable();
        affected.dedup();
        for name in affected {
            work(self.named(name)?)?;
        }
        Ok(())
    }
}

/// A table by the first byte of its keys. `None` is the table of the empty key, which comes before all others.
type Name = Option<u8>;

type ReadTable = ReadOnlyTable<&'static [u8], &'static [u8]>;
type WriteTable<'t> = Table<'t, &'static [u8], &'static [u8]>;

const PREFIX: &str = "syncline/";

fn name_of(key: &[u8]) -> Name {
    key.first().copied()
}

fn text(name: Name) -> String {
    name.map_or_else(|| PREFIX.to_owned(), |byte| format!("{PREFIX}{byte:02x}"))
}

fn parse(text: &str) -> Option<Name> {
    let byte = text.strip_prefix(PREFIX)?;
    let name = if byte.is_empty() { None } else { Some(u8::from_str_radix(byte, 16).ok()?) };
    // `from_str_radix` reads more than `text` writes, such as a sign: then the table is the app's.
    (self::text(name) == text).then_some(name)
}

/// Returns the names of the tables that may hold keys of `range`, which must not be empty.
fn names_of(range: &KeyRange) -> RangeInclusive<Name> {
    let last = match range.end.as_deref() {
        None => Some(u8::MAX),
        // The end itself is outside the range: if it is a single byte, no key of that byte's table is inside.
        Some([only]) => only.checked_sub(1),
        Some(end) => name_of(end),
    };
    name_of(&range.start)..=last
}

/// Returns the names among `handles` whose tables may hold keys of `range`, in order.
fn existing(handles: impl Iterator<Item = impl TableHandle>, range: &KeyRange) -> Vec<Name> {
    let names = names_of(range);
    let mut found: Vec<Name> =
        handles.filter_map(|handle| parse(handle.name())).filter(|name| names.contains(name)).collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_in_the_order_of_their_keys() {
        let names = [None, Some(0), Some(9), Some(10), Some(0xff)];
        assert!(names.is_sorted());
        for name in names {
            assert_eq!(parse(&text(name)), Some(name));
        }
        for other in ["syncline", "syncline/a", "syncline/+1", "syncline/0A", "syncline/000", "app/00"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_range_lies_in_the_tables_of_its_keys() {
        assert_eq!(names_of(&KeyRange::all()), None..=Some(0xff));
        assert_eq!(names_of(&KeyRange::prefix([7])), Some(7)..=Some(7));
        assert_eq!(names_of(&KeyRange::prefix([7, 8])), Some(7)..=Some(7));
        assert_eq!(names_of(&KeyRange::prefix([0xff])), Some(0xff)..=Some(0xff));
        assert_eq!(names_of(&KeyRange::new([7], [9])), Some(7)..=Some(8));
        assert_eq!(names_of(&KeyRange::new([7], [9, 0])), Some(7)..=Some(9));
        assert_eq!(names_of(&KeyRange::new([], [0])), None..=None, "the empty key alone");
    }

    #[test]
    fn sizes_are_refused_exactly_where_redb_refuses_them() {
        let fits = |key_bytes, value_bytes| SIZES.check_pair(key_bytes, value_bytes).is_ok();
        assert!(fits(ITEM_BYTES_MAX, 0) && fits(0, ITEM_BYTES_MAX));
        assert!(!fits(ITEM_BYTES_MAX + 1, 0) && !fits(0, ITEM_BYTES_MAX + 1));
        assert!(fits(768 << 20, ITEM_BYTES_MAX));
        assert!(!fits((768 << 20) + 1, ITEM_BYTES_MAX));
    }
}
