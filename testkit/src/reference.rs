//! A correct store, small enough to be read in one go. The broken stores are made from it.

mod join;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::lock::Mutex as AsyncMutex;
use syncline::{
    BoxError, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, Value, WriteBatch, WriteError, WriteOp,
};

pub use join::{ReferenceRows, ReferenceTx};
pub(crate) use join::{Rows, run_job};

use crate::poll::give_way;
use crate::sorted_map::{self, SortedMap};
use crate::{Fixture, MediumFault, MediumFaultKind, panic_quietly};

/// The longest key that [`Reference`] accepts.
const KEY_BYTES_MAX: usize = 64 * 1024;

/// The largest value that [`Reference`] accepts.
const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The medium of a [`Reference`]: it outlives the store, fails on demand and knows its owner.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    image: Arc<Mutex<Image>>,
    takes_over: bool,
}

#[derive(Debug, Default)]
struct Image {
    entries: SortedMap,
    rows: Rows,
    owner: Option<u64>,
    openings: u64,
    fault: Option<MediumFault>,
    operations: u64,
}

impl Image {
    /// Counts one operation of the medium; fails or panics if the fault says so.
    fn operate(&mut self) -> Result<(), BoxError> {
        let seen = self.operations;
        self.operations += 1;
        match self.fault {
            Some(fault) if fault.hits(seen) => {
                if fault.kind == MediumFaultKind::Panic {
                    panic_quietly(format!("the medium panics at operation {seen}"));
                }
                Err(format!("the medium fails at operation {seen}").into())
            }
            _ => Ok(()),
        }
    }
}

impl Disk {
    /// An empty disk. A second opener is refused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk. A second opener takes over, the first one is fenced.
    #[must_use]
    pub fn fencing() -> Self {
        Self { takes_over: true, ..Self::default() }
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        // A poisoned lock is no harm: an operation that panics has no effect, so the image is whole.
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the entries on the disk without the store.
    pub(crate) fn edit<T>(&self, change: impl FnOnce(&mut SortedMap) -> T) -> T {
        change(&mut self.image().entries)
    }

    /// Gives the disk to another owner, or to nobody; returns the owner of before.
    pub(crate) fn give_to(&self, owner: Option<u64>) -> Option<u64> {
        std::mem::replace(&mut self.image().owner, owner)
    }

    /// As [`edit`](Self::edit), for the entries and the rows of the app.
    pub(crate) fn edit_all<T>(&self, change: impl FnOnce(&mut SortedMap, &mut Rows) -> T) -> T {
        let image = &mut *self.image();
        change(&mut image.entries, &mut image.rows)
    }
}

#[async_trait]
impl Fixture for Disk {
    type Store = Reference;

    async fn open(&self) -> Result<Reference, BoxError> {
        let mut image = self.image();
        // An opening reads a superblock and a root.
        image.operate()?;
        image.operate()?;
        if image.owner.is_some() && !self.takes_over {
            return Err("another owner has opened the disk".into());
        }
        image.openings += 1;
        image.owner = Some(image.openings);
        Ok(Reference {
            disk: self.clone(),
            owner: image.openings,
            turn: AsyncMutex::new(()),
            stopped: AtomicBool::new(false),
            kept: AtomicBool::new(false),
            freed: AtomicBool::new(false),
        })
    }

    fn break_medium(&self, fault: Option<MediumFault>) -> bool {
        let mut image = self.image();
        (image.fault, image.operations) = (fault, 0);
        true
    }
}

/// Held for a whole write.
pub(crate) type Turn<'a> = futures::lock::MutexGuard<'a, ()>;

/// A correct store on a [`Disk`], whose native transaction has a table of rows for the app.
///
/// It gives way between its steps, so that every interleaving and every place to drop a future can be reached.
#[derive(Debug)]
pub struct Reference {
    disk: Disk,
    owner: u64,
    // Held for a whole write, so that a write does not start before a dropped one has ended.
    turn: AsyncMutex<()>,
    // Set by an unknown outcome: only reopening shows what is on the disk.
    stopped: AtomicBool,
    // Set by flaws of `Broken`, with `keep_when_dropped` and `free_when_dropped`.
    kept: AtomicBool,
    freed: AtomicBool,
}

impl Reference {
    /// Takes the disk from its owner.
    pub(crate) fn usurp(&self) {
        self.disk.image().owner = Some(self.owner);
    }

    /// Forgets that a write has an unknown outcome.
    pub(crate) fn go_on(&self) {
        self.stopped.store(false, Ordering::SeqCst);
    }

    /// Keeps the disk owned for good.
    pub(crate) fn never_release(&self) {
        self.disk.image().owner = Some(u64::MAX);
    }

    /// Keeps the disk owned when the store is dropped; until then the store goes on.
    pub(crate) fn keep_when_dropped(&self) {
        self.kept.store(true, Ordering::SeqCst);
    }

    /// Leaves the disk without an owner when the store is dropped, whoever that is.
    pub(crate) fn free_when_dropped(&self) {
        self.freed.store(true, Ordering::SeqCst);
    }

    /// Waits until the write before this one has ended, also if that was dropped.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, WriteError> {
        let turn = self.turn.lock().await;
        give_way().await;
        if self.stopped.load(Ordering::SeqCst) {
            return Err(WriteError::unknown("an earlier write has an unknown outcome, reopen the store"));
        }
        Ok(turn)
    }

    fn readable(&self) -> Result<(), ReadError> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(ReadError::new("an earlier write has an unknown outcome, reopen the store"));
        }
        Ok(())
    }
}

#[async_trait]
impl Storage for Reference {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.readable()?;
        give_way().await;
        let mut image = self.disk.image();
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            image.operate().map_err(ReadError)?;
            values.push(image.entries.get(key).cloned());
        }
        Ok(values)
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        self.readable()?;
        give_way().await;
        let mut image = self.disk.image();
        let page = sorted_map::page(&image.entries, &range, limit);
        for _ in &page.entries {
            image.operate().map_err(ReadError)?;
        }
        Ok(page)
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let _turn = self.turn().await?;
        check_sizes(&batch)?;
        // Write the log. A failure here is a rejection: without a commit mark nothing of the log counts.
        for _ in batch.ops() {
            self.disk.image().operate().map_err(WriteError::Rejected)?;
        }
        give_way().await;
        self.commit(|entries, _| sorted_map::apply(entries, batch.ops()))?;
        give_way().await;
        Ok(())
    }
}

impl Reference {
    /// Makes all of `change` durable, or nothing of it.
    pub(crate) fn commit(&self, change: impl FnOnce(&mut SortedMap, &mut Rows)) -> Result<(), WriteError> {
        let image = &mut *self.disk.image();
        if image.owner != Some(self.owner) {
            return Err(WriteError::Fenced);
        }
        let stop = |error| {
            self.stopped.store(true, Ordering::SeqCst);
            WriteError::Unknown(error)
        };
        // Write the commit mark. A failure here means that the mark did not reach the disk.
        image.operate().map_err(stop)?;
        change(&mut image.entries, &mut image.rows);
        // Sync the disk. A failure here means that everything had reached the disk before.
        image.operate().map_err(stop)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let mut image = self.disk.image();
        if image.owner == Some(self.owner) || self.freed.load(Ordering::SeqCst) {
            image.owner = if self.kept.load(Ordering::SeqCst) { Some(u64::MAX) } else { None };
        }
    }
}

fn check_sizes(batch: &WriteBatch) -> Result<(), WriteError> {
    for op in batch.ops() {
        if let WriteOp::Put { key, value } = op
            && (key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX)
        {
            return Err(WriteError::too_large(format!(
                "keys of at most {KEY_BYTES_MAX} bytes and values of at most {VALUE_BYTES_MAX}, not {} and {}",
                key.len(),
                value.len()
            )));
        }
    }
    Ok(())
}
