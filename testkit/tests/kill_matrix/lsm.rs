//! A store like a log-structured merge tree, in memory: a log, a sorted table of what came last, and sorted runs that are
//! merged now and then. What is deleted leaves a tombstone until the oldest run is written anew.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use syncline::{
    BoxError, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, Value, WriteBatch, WriteError, WriteOp,
};
use syncline_testkit::Fixture;

/// The disk: the log and the runs.
#[derive(Clone, Default)]
pub(crate) struct LsmDisk(Arc<Mutex<OnDisk>>);

#[derive(Default)]
struct OnDisk {
    is_open: bool,
    /// The batches that are in no run yet.
    log: Vec<WriteBatch>,
    /// The oldest first.
    runs: Vec<Arc<Run>>,
}

/// Sorted keys. A tombstone is `None`.
type Run = BTreeMap<Key, Option<Value>>;

pub(crate) struct Lsm {
    disk: LsmDisk,
    levels: Mutex<Levels>,
}

/// What a reader sees, which no write changes. The oldest run comes first, and what came last comes last.
#[derive(Clone, Default)]
struct Levels(Vec<Arc<Run>>);

/// How many keys the newest table holds before it becomes a run. Small, so that short tests have runs.
const TABLE_KEYS: usize = 32;
/// How many runs there are before they are merged.
const RUNS: usize = 4;

#[async_trait]
impl Fixture for LsmDisk {
    type Store = Lsm;

    async fn open(&self) -> Result<Lsm, BoxError> {
        let mut disk = lock(&self.0);
        if std::mem::replace(&mut disk.is_open, true) {
            return Err("another owner has opened the store".into());
        }
        let mut levels = Levels(disk.runs.clone());
        levels.0.push(Arc::default());
        disk.log.iter().for_each(|batch| levels.apply(batch));
        Ok(Lsm { disk: self.clone(), levels: Mutex::new(levels) })
    }
}

impl Drop for Lsm {
    fn drop(&mut self) {
        lock(&self.disk.0).is_open = false;
    }
}

#[async_trait]
impl Storage for Lsm {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let levels = self.levels();
        Ok(keys.iter().map(|key| levels.get(key)).collect())
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        Ok(ScanPage::of(self.levels().entries(&range), limit))
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let mut disk = lock(&self.disk.0);
        let mut levels = self.levels();
        levels.apply(&batch);
        disk.log.push(batch);
        if levels.0.last().is_some_and(|table| table.len() >= TABLE_KEYS) {
            if levels.0.len() > RUNS {
                levels = levels.merged();
            }
            disk.runs = levels.0.clone();
            disk.log.clear();
            levels.0.push(Arc::default());
        }
        *lock(&self.levels) = levels;
        Ok(())
    }
}

impl Lsm {
    fn levels(&self) -> Levels {
        lock(&self.levels).clone()
    }
}

impl Levels {
    fn get(&self, key: &Key) -> Option<Value> {
        self.0.iter().rev().find_map(|run| run.get(key)).cloned().flatten()
    }

    /// The entries of `range`, each of the newest run that has its key.
    fn entries(&self, range: &KeyRange) -> Vec<(Key, Value)> {
        let bounds = match &range.end {
            _ if range.is_empty() => (Bound::Included(Key::new()), Bound::Excluded(Key::new())),
            Some(end) => (Bound::Included(range.start.clone()), Bound::Excluded(end.clone())),
            None => (Bound::Included(range.start.clone()), Bound::Unbounded),
        };
        let mut heads: Vec<_> = self.0.iter().map(|run| run.range(bounds.clone()).peekable()).collect();
        std::iter::from_fn(move || {
            let key = heads.iter_mut().filter_map(|head| head.peek().map(|(key, _)| *key)).min()?.clone();
            let mut newest = None;
            for head in &mut heads {
                if let Some((_, value)) = head.next_if(|(other, _)| **other == key) {
                    newest = Some(value.clone());
                }
            }
            Some((key, newest.flatten()))
        })
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    fn apply(&mut self, batch: &WriteBatch) {
        for op in batch.ops() {
            let changes: Vec<(Key, Option<Value>)> = match op {
                WriteOp::Put { key, value } => vec![(key.clone(), Some(value.clone()))],
                WriteOp::Delete { key } => vec![(key.clone(), None)],
                WriteOp::DeleteRange { range } => {
                    self.entries(range).into_iter().map(|(key, _)| (key, None)).collect()
                }
            };
            if let Some(table) = self.0.last_mut() {
                Arc::make_mut(table).extend(changes);
            }
        }
    }

    /// All runs as one, in which no tombstone is needed.
    fn merged(&self) -> Self {
        let all = self.entries(&KeyRange::all()).into_iter().map(|(key, value)| (key, Some(value)));
        Self(vec![Arc::new(all.collect())])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
