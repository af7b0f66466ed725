//! The fixture of broken stores. Some flaws lose or change something between two openings.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use syncline::{BoxError, WriteBatch};

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
    openings: u64,
    /// The batches whose writes have returned `Ok` since; or those that a flaw applies at the next opening.
    pub(super) log: Vec<WriteBatch>,
}

impl BrokenDisk {
    /// An empty place for a store with `flaw`.
    #[must_use]
    pub fn new(flaw: Flaw) -> Self {
        let disk = match flaw {
            Flaw::TwoOwnersWrite | Flaw::FencedIsApplied | Flaw::FencedSaysOk => Disk::fencing(),
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
            Flaw::LeavesHole if last >= 2 => drop(log.remove(last - 2)),
            Flaw::SwapsLastBatches if last >= 2 => log.swap(last - 2, last - 1),
            Flaw::OpeningDropsEmptyValues => {
                self.disk.edit(|entries| entries.retain(|_, value| !value.is_empty()));
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

    const fn replays(&self) -> bool {
        matches!(self.flaw, Flaw::LosesLastBatch | Flaw::LeavesHole | Flaw::SwapsLastBatches)
    }
}

#[async_trait]
impl Fixture for BrokenDisk {
    type Store = Broken;

    async fn open(&self) -> Result<Broken, BoxError> {
        let mut opened = self.disk.open().await;
        while self.flaw == Flaw::SecondOpenerWaits
            && opened.as_ref().is_err_and(|error| error.to_string().starts_with("another owner"))
        {
            thread::park_timeout(Duration::from_millis(20));
            opened = self.disk.open().await;
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
