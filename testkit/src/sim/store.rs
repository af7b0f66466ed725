//! A store in memory whose operations take time, fail, and are cut off by crashes, as the plan says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::pending;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use syncline::internals::history;
use syncline::{
    Attempt, BoxError, JoinJob, JoinStorage, JoinTx, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage,
    Value, WriteBatch, WriteError, WriteOp,
};

use super::tables::{Rows, Tables};
use super::time::Timeline;

/// The error of an operation that fails.
pub(super) const STORE_FAILS: &str = "the store fails";

/// The error of a write to a full disk.
pub(super) const STORE_IS_FULL: &str = "the disk is full";

/// The disk of a process. It outlives the stores that are opened on it; clones share it.
#[derive(Clone, Default)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Shared with the images of the disk, so that to take one costs nothing.
    entries: Arc<BTreeMap<Key, Value>>,
    /// The rows of the app, which are shared as the entries are.
    rows: Arc<Rows>,
    /// Whether the store can undo a part of a transaction.
    undoes: bool,
    /// Counts the joined writes: the count says whether one that fails does so before its job or behind it.
    joins: u64,
    /// Whether a joined write was cut off whose job was done.
    cut_joins: bool,
    /// Whether an operation ever failed.
    failed: bool,
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

    /// Sets whether the store can undo a part of a transaction.
    pub(super) fn set_undoes(&self, undoes: bool) {
        self.lock().undoes = undoes;
    }

    /// Whether a joined write was cut off whose job was done.
    pub(super) fn has_cut_joins(&self) -> bool {
        self.lock().cut_joins
    }

    /// Whether an operation ever failed.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().failed
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
        let mut state = self.lock();
        state.full = full;
        state.failed |= full;
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
        let state = self.lock();
        Image(Arc::clone(&state.entries), Arc::clone(&state.rows))
    }

    /// Puts an earlier image back.
    pub(super) fn restore(&self, image: &Image) {
        let mut state = self.lock();
        (state.entries, state.rows) = (Arc::clone(&image.0), Arc::clone(&image.1));
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
        state.failed = true;
        if let StoreFault::Death { applied, again, every } = fault {
            (state.died, state.applies_cut) = (true, applied);
            let next = |again| (u32::from(every), StoreFault::Death { applied: !applied, again, every });
            state.fault = again.checked_sub(1).map(next);
        }
        Some(fault)
    }

    fn apply(&self, Changes { batch, rows }: Changes) {
        let mut state = self.lock();
        if let Some(rows) = rows {
            state.rows = rows;
        }
        state.writes += 1;
        batch.apply_to(Arc::make_mut(&mut state.entries));
    }
}

/// A store over a disk.
pub(super) struct SimStore {
    pub(super) disk: SimDisk,
    pub(super) timeline: Timeline,
}

/// The changes of a write.
struct Changes {
    batch: WriteBatch,
    /// The rows of the app as a joined write leaves them.
    rows: Option<Arc<Rows>>,
}

/// A write that is not applied yet. If it is dropped with its changes, a crash has cut the write off.
struct Cut {
    disk: SimDisk,
    changes: Option<Changes>,
}

impl Drop for Cut {
    fn drop(&mut self) {
        let Some(changes) = self.changes.take() else { return };
        self.disk.lock().cut_joins |= changes.rows.is_some();
        if self.disk.lock().applies_cut {
            self.disk.apply(changes);
        }
    }
}

#[async_trait]
impl Storage for SimStore {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.read(|entries| keys.iter().map(|key| entries.get(key).cloned()).collect()).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        self.read(|entries| scan(entries, &range, limit)).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let (fault, full) = (self.disk.strike(), self.disk.lock().full);
        self.end_write(Changes { batch, rows: None }, fault, full).await
    }
}

#[async_trait]
impl JoinStorage for SimStore {
    type Tx<'t> = SimTx;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        let (fault, full, fails_early) = {
            let fault = self.disk.strike();
            let mut state = self.disk.lock();
            state.joins += 1;
            (fault, state.full, state.joins.is_multiple_of(2))
        };
        if fails_early && fault == Some(StoreFault::Error) {
            return Err(WriteError::rejected(STORE_FAILS));
        }
        let changes = self.run(job).map_err(WriteError::Rejected)?;
        self.end_write(changes, fault, full).await
    }
}

impl SimStore {
    /// Runs a job in a transaction, and returns the changes that it leaves.
    fn run(&self, job: JoinJob<Self>) -> Result<Changes, BoxError> {
        let (rows, undoes) = {
            let state = self.disk.lock();
            (Arc::clone(&state.rows), state.undoes)
        };
        let tables = Tables(RefCell::new(rows));
        let tx = SimTx { disk: self.disk.clone(), pending: RefCell::default(), tables, undoes };
        let done = catch_unwind(AssertUnwindSafe(|| job(&tx)));
        done.unwrap_or_else(|_| Err("the job panicked".into()))?;
        let mut batch = WriteBatch::new();
        for (key, value) in tx.pending.into_inner() {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        Ok(Changes { batch, rows: Some(tx.tables.0.into_inner()) })
    }

    /// Applies the changes of a write, or fails as the fault says.
    async fn end_write(
        &self,
        changes: Changes,
        fault: Option<StoreFault>,
        full: bool,
    ) -> Result<(), WriteError> {
        let mut cut = Cut { disk: self.disk.clone(), changes: Some(changes) };
        let ms = self.disk.lock().write_ms;
        if ms > 0 {
            self.timeline.sleep(ms).await;
        }
        let Some(changes) = cut.changes.take() else { return Ok(()) };
        let is_join = changes.rows.is_some();
        match fault {
            None if full => Err(WriteError::rejected(STORE_IS_FULL)),
            None => {
                self.disk.apply(changes);
                Ok(())
            }
            Some(StoreFault::Error) => Err(WriteError::rejected(STORE_FAILS)),
            Some(StoreFault::Unknown { applied }) => {
                if applied {
                    self.disk.apply(changes);
                }
                Err(WriteError::unknown("the store does not know"))
            }
            Some(StoreFault::Panic { applied }) => {
                if applied {
                    self.disk.apply(changes);
                }
                resume_unwind(Box::new("the store panics"))
            }
            Some(StoreFault::Death { applied, .. }) => {
                self.disk.lock().cut_joins |= is_join;
                if applied {
                    self.disk.apply(changes);
                }
                pending().await
            }
        }
    }
}

/// A transaction of a store. No write is made beside it, so it holds what it changes alone.
pub(super) struct SimTx {
    disk: SimDisk,
    pending: RefCell<BTreeMap<Key, Option<Value>>>,
    tables: Tables,
    undoes: bool,
}

impl JoinTx for SimTx {
    type Native = Tables;

    fn native(&self) -> &Tables {
        &self.tables
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let (pending, state) = (self.pending.borrow(), self.disk.lock());
        let value = |key| pending.get(key).cloned().unwrap_or_else(|| state.entries.get(key).cloned());
        Ok(keys.iter().map(value).collect())
    }

    fn apply(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        let mut pending = self.pending.borrow_mut();
        for op in batch.ops() {
            match op {
                WriteOp::Put { key, value } => drop(pending.insert(key.clone(), Some(value.clone()))),
                WriteOp::Delete { key } => drop(pending.insert(key.clone(), None)),
                WriteOp::DeleteRange { range } => {
                    let there = scan(&self.disk.lock().entries, range, ScanLimit::NONE);
                    let there = there.entries.into_iter().map(|entry| (entry.key, None));
                    pending.retain(|key, _| !range.contains(key));
                    pending.extend(there);
                }
            }
        }
        Ok(())
    }

    fn attempt(&self, part: &mut dyn FnMut() -> Result<(), BoxError>) -> Attempt {
        let before = self.undoes.then(|| (self.pending.borrow().clone(), self.tables.0.borrow().clone()));
        match (part(), before) {
            (Ok(()), _) => Attempt::Done,
            (Err(error), None) => Attempt::Spoiled(error),
            (Err(error), Some(before)) => {
                (*self.pending.borrow_mut(), *self.tables.0.borrow_mut()) = before;
                Attempt::Undone(error)
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
        StoreFault::Error | StoreFault::Unknown { .. } => ReadError::new(STORE_FAILS),
        StoreFault::Panic { .. } => resume_unwind(Box::new("the store panics")),
        StoreFault::Death { .. } => pending().await,
    }
}

fn scan(entries: &BTreeMap<Key, Value>, range: &KeyRange, limit: ScanLimit) -> ScanPage {
    if range.is_empty() {
        return ScanPage::default();
    }
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    ScanPage::of(entries.range::<[u8], _>((Bound::Included(range.start.as_slice()), end)), limit)
}

/// A copy of a disk. It can be read like a store, and not written.
#[derive(Clone, Default)]
pub(super) struct Image(pub(super) Arc<BTreeMap<Key, Value>>, pub(super) Arc<Rows>);

impl Image {
    /// The copy as an app reads it, whatever a snapshot has brought and is not whole.
    pub(super) fn settled(&self) -> Result<Self, syncline::Error> {
        let rows = history::settled(&self.0)?;
        Ok(rows.map_or_else(|| self.clone(), |rows| Self(Arc::new(rows), Arc::clone(&self.1))))
    }
}

#[async_trait]
impl Storage for Image {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        Ok(keys.iter().map(|key| self.0.get(key).cloned()).collect())
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        Ok(scan(&self.0, &range, limit))
    }

    async fn write(&self, _: WriteBatch) -> Result<(), WriteError> {
        Err(WriteError::Fenced)
    }
}
