//! A store in memory whose operations take time, fail, and are cut off by crashes, as the plan says.

use std::collections::BTreeMap;
use std::future::pending;
use std::ops::Bound;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use syncline::internals::history;
use syncline::{Entry, Key, KeyRange, ReadError, Storage, Value, WriteBatch, WriteError, WriteOp};

use super::time::Timeline;

/// The disk of a process. It outlives the stores that are opened on it; clones share it.
#[derive(Clone, Default)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Shared with the images of the disk, so that to take one costs nothing.
    entries: Arc<BTreeMap<Key, Value>>,
    /// How many operations come before the fault, and the fault.
    fault: Option<(u32, StoreFault)>,
    /// Whether the process has died in an operation of the store since `take_death` was called last.
    died: bool,
    full: bool,
    /// Whether a write that is cut off is applied.
    applies_cut: bool,
    write_ms: u64,
    read_ms: u64,
    /// Counts the slow reads: the count says whether one sees the store at its beginning or at its end.
    reads: u64,
    writes: u64,
    restored: bool,
}

/// How an operation of a store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum StoreFault {
    /// A read or a write returns an error and has no effect.
    Error,
    /// A write returns that its outcome is unknown. A read returns an error.
    Unknown {
        /// Whether the write is applied.
        applied: bool,
    },
    /// A read or a write panics.
    Panic {
        /// Whether the write is applied.
        applied: bool,
    },
    /// The process dies in the middle of a read or a write.
    Death {
        /// Whether the write is applied.
        applied: bool,
        /// How often the process dies again after it was started again.
        again: u8,
        /// How many operations come before each of these deaths. If they are few, the process dies while it opens.
        every: u8,
    },
}

impl SimDisk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an operation fail, after so many others.
    pub(super) fn fail(&self, after: u32, fault: StoreFault) {
        self.lock().fault = Some((after, fault));
    }

    /// Whether the process has died in an operation of the store since this was called last.
    pub(super) fn take_death(&self) -> bool {
        std::mem::take(&mut self.lock().died)
    }

    pub(super) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    pub(super) fn set_applies_cut(&self, applies: bool) {
        self.lock().applies_cut = applies;
    }

    pub(super) fn set_write_ms(&self, ms: u64) {
        self.lock().write_ms = ms;
    }

    pub(super) fn set_read_ms(&self, ms: u64) {
        self.lock().read_ms = ms;
    }

    /// Makes every operation work, at once.
    pub(super) fn heal(&self) {
        let mut state = self.lock();
        (state.fault, state.full, state.write_ms, state.read_ms) = (None, false, 0, 0);
    }

    /// How many writes were applied.
    pub(super) fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Copies what is on the disk, as a store that can only be read.
    pub(super) fn image(&self) -> Image {
        Image(Arc::clone(&self.lock().entries))
    }

    /// Puts an earlier image back.
    pub(super) fn restore(&self, image: &Image) {
        let mut state = self.lock();
        state.entries = Arc::clone(&image.0);
        state.restored = true;
    }

    /// Flips a bit of a row that is of a log or has a value, and of a whole that has so many rows and bits: they are counted
    /// round and round. Returns whether there was one.
    pub(super) fn flip(&self, row: u32, bit: u32) -> bool {
        let mut state = self.lock();
        let rows: Vec<&Key> = state.entries.keys().filter(|key| history::is_content(key)).collect();
        let Some(key) = rows.get(row as usize % rows.len().max(1)).map(|key| (*key).clone()) else {
            return false;
        };
        let Some(value) = Arc::make_mut(&mut state.entries).get_mut(&key) else { return false };
        let bit = bit as usize % (value.len() * 8).max(1);
        if let Some(byte) = value.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        true
    }

    /// Whether an earlier image was ever put back.
    pub(super) fn was_restored(&self) -> bool {
        self.lock().restored
    }

    /// The fault of the operation that begins now, if it is the one that fails.
    fn strike(&self) -> Option<StoreFault> {
        let mut state = self.lock();
        let (after, fault) = state.fault.take()?;
        if after > 0 {
            state.fault = Some((after - 1, fault));
            return None;
        }
        if let StoreFault::Death { applied, again, every } = fault {
            (state.died, state.applies_cut) = (true, applied);
            let next = |again| (u32::from(every), StoreFault::Death { applied: !applied, again, every });
            state.fault = again.checked_sub(1).map(next);
        }
        Some(fault)
    }

    fn apply(&self, batch: WriteBatch) {
        let mut state = self.lock();
        state.writes += 1;
        let entries = Arc::make_mut(&mut state.entries);
        for op in batch {
            match op {
                WriteOp::Put { key, value } => drop(entries.insert(key, value)),
                WriteOp::Delete { key } => drop(entries.remove(&key)),
                WriteOp::DeleteRange { range } => entries.retain(|key, _| !range.contains(key)),
            }
        }
    }
}

/// A store over a disk.
pub(super) struct SimStore {
    pub(super) disk: SimDisk,
    pub(super) timeline: Timeline,
}

/// A write that is not applied yet. If it is dropped with its batch, a crash has cut the write off.
struct Cut {
    disk: SimDisk,
    batch: Option<WriteBatch>,
}

impl Drop for Cut {
    fn drop(&mut self) {
        let applies = self.disk.lock().applies_cut;
        if let Some(batch) = self.batch.take().filter(|_| applies) {
            self.disk.apply(batch);
        }
    }
}

#[async_trait]
impl Storage for SimStore {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.read(|entries| keys.iter().map(|key| entries.get(key).cloned()).collect()).await
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        self.read(|entries| scan(entries, &range, limit)).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let mut cut = Cut { disk: self.disk.clone(), batch: Some(batch) };
        let (fault, ms, full) = {
            let fault = self.disk.strike();
            let state = self.disk.lock();
            (fault, state.write_ms, state.full)
        };
        if ms > 0 {
            self.timeline.sleep(ms).await;
        }
        let Some(batch) = cut.batch.take() else { return Ok(()) };
        match fault {
            None if full => Err(WriteError::rejected("the disk is full")),
            None => {
                self.disk.apply(batch);
                Ok(())
            }
            Some(StoreFault::Error) => Err(WriteError::rejected("the store fails")),
            Some(StoreFault::Unknown { applied }) => {
                if applied {
                    self.disk.apply(batch);
                }
                Err(WriteError::unknown("the store does not know"))
            }
            Some(StoreFault::Panic { applied }) => {
                if applied {
                    self.disk.apply(batch);
                }
                resume_unwind(Box::new("the store panics"))
            }
            Some(StoreFault::Death { applied, .. }) => {
                if applied {
                    self.disk.apply(batch);
                }
                pending().await
            }
        }
    }
}

impl SimStore {
    /// Reads the store. A slow read sees it as it is at the beginning of the read or at its end: the contract allows
    /// both, and a write may come in between.
    async fn read<T: Send>(&self, read: impl Fn(&BTreeMap<Key, Value>) -> T + Send) -> Result<T, ReadError> {
        if let Some(fault) = self.disk.strike() {
            return Err(failed_read(fault).await);
        }
        let (ms, early) = {
            let mut state = self.disk.lock();
            if state.read_ms == 0 {
                return Ok(read(&state.entries));
            }
            state.reads += 1;
            // Two early reads, then two late ones: of two reads under way at once, either one may see the older state.
            (state.read_ms, (state.reads / 2).is_multiple_of(2).then(|| read(&state.entries)))
        };
        self.timeline.sleep(ms).await;
        Ok(early.unwrap_or_else(|| read(&self.disk.lock().entries)))
    }
}

/// How a read fails. If its process dies in the middle of it, it never returns.
async fn failed_read(fault: StoreFault) -> ReadError {
    match fault {
        StoreFault::Error | StoreFault::Unknown { .. } => ReadError::new("the store fails"),
        StoreFault::Panic { .. } => resume_unwind(Box::new("the store panics")),
        StoreFault::Death { .. } => pending().await,
    }
}

fn scan(entries: &BTreeMap<Key, Value>, range: &KeyRange, limit: usize) -> Vec<Entry> {
    if range.is_empty() {
        return Vec::new();
    }
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let found = entries.range::<[u8], _>((Bound::Included(range.start.as_slice()), end)).take(limit);
    found.map(|(key, value)| Entry { key: key.clone(), value: value.clone() }).collect()
}

/// A copy of a disk. It can be read like a store, and not written.
#[derive(Clone, Default)]
pub(super) struct Image(pub(super) Arc<BTreeMap<Key, Value>>);

#[async_trait]
impl Storage for Image {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        Ok(keys.iter().map(|key| self.0.get(key).cloned()).collect())
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        Ok(scan(&self.0, &range, limit))
    }

    async fn write(&self, _: WriteBatch) -> Result<(), WriteError> {
        Err(WriteError::Fenced)
    }
}
