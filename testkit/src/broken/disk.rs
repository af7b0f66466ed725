//! The fixture of broken stores. Some flaws lose or change something between two openings.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use syncline::{BoxError, WriteBatch, WriteOp};

use super::{Broken, Flaw, lock};
use crate::sorted_map::{self, SortedMap};
use crate::{Disk, Fixture, MediumFault};

/// A place for a store with one flaw.
#[derive(Debug)]
pub struct BrokenDisk {
    flaw: Flaw,
    disk: Disk,
    notes: Arc<Mutex<Notes>>,
}

/// What a flaw has to remember between openings.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// What the disk held when the store was opened.
    opened_with: SortedMap,
    pub(super) openings: u64,
    /// How many openings are under way.
    opening: u64,
    /// What a flaw goes back to, at the second opening from now.
    pub(super) undo: Option<(u64, SortedMap)>,
    /// The batches whose writes have returned `Ok` since; or those that a flaw applies at the next opening.
    pub(super) log: Vec<WriteBatch>,
}

impl BrokenDisk {
    /// An empty place for a store with `flaw`.
    #[must_use]
    pub fn new(flaw: Flaw) -> Self {
        let disk = match flaw {
            Flaw::TwoOwnersWrite
            | Flaw::FencedIsApplied
            | Flaw::FencedSaysOk
            | Flaw::FencedDropFreesThePlace => Disk::fencing(),
            _ => Disk::new(),
        };
        Self { flaw, disk, notes: Arc::default() }
    }

    /// Does to the disk what the flaw does to it between two openings.
    fn recover(&self) {
        let notes = &mut *lock(&self.notes);
        let last = notes.log.len();
        let log = &mut notes.log;
        match self.flaw {
            Flaw::LosesLastBatch if last >= 1 => drop(log.pop()),
            Flaw::LosesLastDeletes => {
                let is_put = |op: &WriteOp| matches!(op, WriteOp::Put { .. });
                drop(log.pop_if(|batch| !batch.ops().iter().any(is_put)));
            }
            Flaw::LeavesHole if last >= 2 => drop(log.remove(last - 2)),
            Flaw::SwapsLastBatches if last >= 2 => log.swap(last - 2, last - 1),
            Flaw::OpeningDropsEmptyValues => {
                self.disk.edit(|entries| entries.retain(|_, value| !value.is_empty()));
            }
            Flaw::OpeningDropsLargeValues => {
                self.disk.edit(|entries| entries.retain(|_, value| value.len() <= 1 << 20));
            }
            Flaw::OpeningDropsManyKeys => {
                let kept = 50_000;
                self.disk.edit(|entries| {
                    if let Some(first) = entries.keys().nth(kept).cloned() {
                        drop(entries.split_off(&first));
                    }
                });
            }
            Flaw::UnknownIsUndoneLater => {
                if let Some((_, before)) = notes.undo.take_if(|(since, _)| notes.openings == *since + 2) {
                    self.disk.edit(|entries| *entries = before);
                }
            }
            Flaw::TwentiethOpeningLosesKey if notes.openings == 20 => {
                drop(self.disk.edit(SortedMap::pop_last));
            }
            Flaw::RejectedIsReplayed | Flaw::TooLargeIsReplayed => self.disk.edit(|entries| {
                notes.log.iter().for_each(|batch| sorted_map::apply(entries, batch.ops()));
            }),
            Flaw::OpeningAddsKey => {
                drop(self.disk.edit(|entries| entries.insert(b"format".to_vec(), vec![1])));
            }
            _ => {}
        }
        if notes.log.len() != last || self.flaw == Flaw::SwapsLastBatches {
            let mut entries = std::mem::take(&mut notes.opened_with);
            notes.log.iter().for_each(|batch| sorted_map::apply(&mut entries, batch.ops()));
            self.disk.edit(|found| *found = entries);
        }
        notes.log.clear();
        if self.replays() {
            notes.opened_with = self.disk.edit(|entries| entries.clone());
        }
    }

    /// Waits a moment for another opener.
    fn another_opens(&self) -> bool {
        const TURNS_MAX: u32 = 2_000;
        lock(&self.notes).opening += 1;
        let mut another = false;
        for _ in 0..TURNS_MAX {
            another |= lock(&self.notes).opening == 2;
            if another {
                break;
            }
            thread::yield_now();
        }
        // The other one is still to see this one.
        for _ in 0..TURNS_MAX {
            thread::yield_now();
        }
        lock(&self.notes).opening -= 1;
        another
    }

    const fn replays(&self) -> bool {
        matches!(
            self.flaw,
            Flaw::LosesLastBatch | Flaw::LosesLastDeletes | Flaw::LeavesHole | Flaw::SwapsLastBatches
        )
    }
}

#[async_trait]
impl Fixture for BrokenDisk {
    type Store = Broken;

    async fn open(&self) -> Result<Broken, BoxError> {
        if self.flaw == Flaw::RaceLetsBothIn && self.another_opens() {
            self.disk.give_to(None);
        }
        let mut opened = self.disk.open().await;
        while self.flaw == Flaw::SecondOpenerWaits
            && opened.as_ref().is_err_and(|error| error.to_string().starts_with("another owner"))
        {
            thread::park_timeout(Duration::from_millis(20));
            opened = self.disk.open().await;
        }
        if opened.is_err() && self.flaw == Flaw::RefusalReleasesLock {
            self.disk.give_to(None);
        }
        if opened.is_err() && self.flaw == Flaw::FailedOpeningErases {
            self.disk.edit(SortedMap::clear);
        }
        let store = opened?;
        let openings = {
            let mut notes = lock(&self.notes);
            notes.openings += 1;
            notes.openings
        };
        if openings == 20 && self.flaw == Flaw::TwentiethOpeningFails {
            return Err("the store is full of openings".into());
        }
        if self.flaw == Flaw::FencedDropFreesThePlace {
            store.free_when_dropped();
        }
        self.recover();
        Ok(Broken {
            flaw: self.flaw,
            store,
            disk: self.disk.clone(),
            notes: Arc::clone(&self.notes),
            replays: self.replays(),
            state: Mutex::default(),
            reads: AtomicU64::new(0),
        })
    }

    fn break_medium(&self, fault: Option<MediumFault>) -> bool {
        self.disk.break_medium(fault)
    }
}
