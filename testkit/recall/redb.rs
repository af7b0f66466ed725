//! redb, with all keys in one table.

#[path = "lists.rs"]
mod lists;

use std::ops::Bound;
use std::path::Path;

use lists::{Engine, made};
#[cfg(feature = "since-3")]
use redb::ReadableDatabase as _;
#[allow(unused_imports, reason = "the newer versions have its methods on the table itself")]
use redb::ReadableTable as _;
use redb::{Database, Durability, TableDefinition};
use syncline::{BoxError, Key, KeyRange, Value, WriteBatch, WriteOp};

lists!(usual, |path| open(path, true));
#[cfg(feature = "deferred")]
lists!(deferred, |path| open(path, false));

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

struct Redb {
    database: Database,
    is_durable: bool,
}

fn open(path: &Path, is_durable: bool) -> Result<Redb, BoxError> {
    let file = made(path, "redb", |new| {
        let database = Database::create(new)?;
        let transaction = database.begin_write()?;
        transaction.open_table(ROWS)?;
        Ok(transaction.commit()?)
    })?;
    Ok(Redb { database: Database::create(file)?, is_durable })
}

fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let end = range.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()));
    (Bound::Included(range.start.as_slice()), end)
}

impl Engine for Redb {
    fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, BoxError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(ROWS)?;
        keys.iter().map(|key| Ok(table.get(key.as_slice())?.map(|value| value.value().to_vec()))).collect()
    }

    fn scan(&self, range: &KeyRange, most: usize) -> Result<Vec<(Key, Value)>, BoxError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(ROWS)?;
        let rows = table.range::<&[u8]>(bounds(range))?.take(most);
        rows.map(|row| {
            row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).map_err(Into::into)
        })
        .collect()
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        let mut transaction = self.database.begin_write()?;
        if !self.is_durable {
            let _ = transaction.set_durability(Durability::None);
        }
        let mut table = transaction.open_table(ROWS)?;
        for op in batch.ops() {
            match op {
                WriteOp::Put { key, value } => drop(table.insert(key.as_slice(), value.as_slice())?),
                WriteOp::Delete { key } => drop(table.remove(key.as_slice())?),
                WriteOp::DeleteRange { range } => table.retain_in::<&[u8], _>(bounds(range), |_, _| false)?,
            }
        }
        drop(table);
        Ok(transaction.commit()?)
    }
}
