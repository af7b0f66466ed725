//! fjall, with each of its ways to persist a batch.

#[path = "lists.rs"]
mod lists;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable as _, Snapshot};
use lists::{Engine, made, sync_all};
use syncline::{BoxError, Key, KeyRange, StoreLimits, Value, WriteBatch, WriteOp};

lists!(synced, |path| open(path, Some(PersistMode::SyncAll)));
lists!(buffered, |path| open(path, Some(PersistMode::Buffer)));
lists!(not_persisted, |path| open(path, None));

struct Fjall {
    database: Database,
    rows: Keyspace,
    persist: Option<PersistMode>,
}

fn open(path: &Path, persist: Option<PersistMode>) -> Result<Fjall, BoxError> {
    let directory = made(path, "fjall", |new| {
        let database = Database::builder(new).open()?;
        database.keyspace("rows", KeyspaceCreateOptions::default)?;
        Ok(database.persist(PersistMode::SyncAll)?)
    })?;
    let database = Database::builder(&directory).open()?;
    let rows = database.keyspace("rows", KeyspaceCreateOptions::default)?;
    sync_all(&directory)?;
    Ok(Fjall { database, rows, persist })
}

impl Fjall {
    fn rows(
        &self,
        snapshot: &Snapshot,
        range: &KeyRange,
        most: usize,
    ) -> Result<Vec<(Key, Value)>, BoxError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let end = range.end.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = snapshot.range(&self.rows, (Bound::Included(range.start.clone()), end)).take(most);
        rows.map(|row| {
            row.into_inner().map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(Into::into)
        })
        .collect()
    }
}

impl Engine for Fjall {
    const LIMITS: StoreLimits = StoreLimits { key_bytes: 65_535, ..StoreLimits::NONE };

    fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, BoxError> {
        let snapshot = self.database.snapshot();
        keys.iter().map(|key| Ok(snapshot.get(&self.rows, key)?.map(|value| value.to_vec()))).collect()
    }

    fn scan(&self, range: &KeyRange, most: usize) -> Result<Vec<(Key, Value)>, BoxError> {
        self.rows(&self.database.snapshot(), range, most)
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        // A batch of fjall has neither ranges nor an order within one key.
        let mut rows = BTreeMap::new();
        for op in batch.ops() {
            match op {
                WriteOp::Put { key, value } => drop(rows.insert(key.clone(), Some(value.clone()))),
                WriteOp::Delete { key } => drop(rows.insert(key.clone(), None)),
                WriteOp::DeleteRange { range } => {
                    let there = self.rows(&self.database.snapshot(), range, usize::MAX)?;
                    rows.extend(there.into_iter().map(|(key, _)| (key, None)));
                    rows.iter_mut()
                        .filter(|(key, _)| range.contains(key))
                        .for_each(|(_, value)| *value = None);
                }
            }
        }
        let mut batch = self.database.batch().durability(self.persist);
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(&self.rows, key, value),
                None => batch.remove(&self.rows, key),
            }
        }
        Ok(batch.commit()?)
    }
}
