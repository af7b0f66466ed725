//! sled, as it is used with nothing but its own calls.

#[path = "lists.rs"]
mod lists;

use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use lists::{Engine, made, sync_all};
use sled::{Batch, Db};
use syncline::{BoxError, Key, KeyRange, Value, WriteBatch, WriteOp};

lists!(flushed, |path| open(path, Sync::Flush, true));
lists!(not_flushed, |path| open(path, Sync::None, true));
lists!(without_a_lock, |path| open(path, Sync::File, false));
lists!(made_in_place, |path| open_in_place(path, Sync::File, true));
lists!(careful, |path| open(path, Sync::File, true));

/// What happens after a batch.
#[derive(Clone, Copy, PartialEq)]
enum Sync {
    None,
    Flush,
    /// The file of sled is synced behind its flush.
    File,
}

struct Sled {
    db: Db,
    /// Held by readers and by the writer, since an iterator of sled is no snapshot.
    turn: Option<RwLock<()>>,
    file: PathBuf,
    sync: Sync,
}

fn open(path: &Path, sync: Sync, takes_turns: bool) -> Result<Sled, BoxError> {
    made(path, "sled", |new| Ok(drop(sled::open(new)?)))?;
    open_in_place(path, sync, takes_turns)
}

fn open_in_place(path: &Path, sync: Sync, takes_turns: bool) -> Result<Sled, BoxError> {
    let directory = path.join("sled");
    let db = sled::open(&directory)?;
    sync_all(&directory)?;
    let file = directory.join("db");
    Ok(Sled { db, turn: takes_turns.then(RwLock::default), file, sync })
}

impl Sled {
    fn rows(&self, range: &KeyRange) -> impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>> {
        let end = range.end.clone().map(|end| end.max(range.start.clone()));
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        self.db.range((Bound::Included(range.start.clone()), end))
    }
}

impl Engine for Sled {
    fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, BoxError> {
        let _turn = self.turn.as_ref().map(|turn| turn.read().unwrap_or_else(PoisonError::into_inner));
        keys.iter().map(|key| Ok(self.db.get(key)?.map(|value| value.to_vec()))).collect()
    }

    fn scan(&self, range: &KeyRange, most: usize) -> Result<Vec<(Key, Value)>, BoxError> {
        let _turn = self.turn.as_ref().map(|turn| turn.read().unwrap_or_else(PoisonError::into_inner));
        let rows = self.rows(range).take(most);
        rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(Into::into)).collect()
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        let mut rows = Batch::default();
        let mut put = std::collections::BTreeSet::new();
        for op in batch.ops() {
            match op {
                WriteOp::Put { key, value } => {
                    put.insert(key.clone());
                    rows.insert(key.as_slice(), value.as_slice());
                }
                WriteOp::Delete { key } => rows.remove(key.as_slice()),
                WriteOp::DeleteRange { range } => {
                    for row in self.rows(range) {
                        rows.remove(row?.0);
                    }
                    put.iter().filter(|key| range.contains(key)).for_each(|key| rows.remove(key.as_slice()));
                }
            }
        }
        {
            let _turn = self.turn.as_ref().map(|turn| turn.write().unwrap_or_else(PoisonError::into_inner));
            self.db.apply_batch(rows)?;
        }
        if self.sync != Sync::None {
            self.db.flush()?;
        }
        if self.sync == Sync::File {
            File::open(&self.file)?.sync_data()?;
        }
        Ok(())
    }
}
