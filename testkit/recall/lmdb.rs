//! LMDB through heed, with each of its flags.

#[path = "lists.rs"]
mod lists;

use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};
use lists::Engine;
use syncline::{BoxError, Key, KeyRange, StoreLimits, Value, WriteBatch, WriteOp};

lists!(synced, |path| open(path, EnvFlags::empty()));
lists!(no_sync, |path| open(path, EnvFlags::NO_SYNC));
lists!(no_meta_sync, |path| open(path, EnvFlags::NO_META_SYNC));
lists!(map_async, |path| open(path, EnvFlags::WRITE_MAP | EnvFlags::MAP_ASYNC));

struct Lmdb {
    env: Env<WithoutTls>,
    rows: Database<Bytes, Bytes>,
}

fn open(path: &Path, flags: EnvFlags) -> Result<Lmdb, BoxError> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(4 << 30);
    // SAFETY: one owner has the files, by the lock of the store, and each flag is for a list to judge.
    let env = unsafe { options.flags(flags).open(path)? };
    let mut transaction = env.write_txn()?;
    let rows = env.create_database(&mut transaction, None)?;
    transaction.commit()?;
    env.force_sync()?;
    Ok(Lmdb { env, rows })
}

fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let end = range.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()));
    // The empty key is in no store, and LMDB takes it for none.
    let start =
        if range.start.is_empty() { Bound::Unbounded } else { Bound::Included(range.start.as_slice()) };
    (start, end)
}

impl Engine for Lmdb {
    const LIMITS: StoreLimits = StoreLimits { key_bytes: 511, ..StoreLimits::NONE };

    fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, BoxError> {
        let transaction = self.env.read_txn()?;
        keys.iter().map(|key| Ok(self.rows.get(&transaction, key)?.map(<[u8]>::to_vec))).collect()
    }

    fn scan(&self, range: &KeyRange, most: usize) -> Result<Vec<(Key, Value)>, BoxError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let transaction = self.env.read_txn()?;
        let rows = self.rows.range(&transaction, &bounds(range))?.take(most);
        rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(Into::into)).collect()
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        let mut transaction = self.env.write_txn()?;
        for op in batch.ops() {
            match op {
                WriteOp::Put { key, value } => self.rows.put(&mut transaction, key, value)?,
                WriteOp::Delete { key } => {
                    self.rows.delete(&mut transaction, key)?;
                }
                WriteOp::DeleteRange { range } if range.is_empty() => {}
                WriteOp::DeleteRange { range } => {
                    self.rows.delete_range(&mut transaction, &bounds(range))?;
                }
            }
        }
        Ok(transaction.commit()?)
    }
}
