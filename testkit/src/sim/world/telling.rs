//! The events of the subscribers of a run: every change of a record, once, in the order of commits, as it is stored.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use futures::executor::block_on;
use syncline::internals::history::{self, StoredRecord};
use syncline::{Change, ChangeKind, Event, Events, Hlc, Lagged, RecordKey, ReplicaId, Syncable as _};

use super::World;
use super::processes::Process;
use crate::sim::models::{Note, Photo, Place, Set};
use crate::sim::store::SimDisk;
use crate::sim::time::Timeline;
use crate::sim::{Failure, fail};

/// The subscriber of one life of a replica. Clones share it.
#[derive(Clone)]
pub(super) struct Ear(Rc<RefCell<Heard>>);

/// The events that a subscriber was told.
#[derive(Default)]
struct Heard {
    /// The events that are not checked yet.
    new: VecDeque<Result<Change, Lagged>>,
    /// The records that are there, as far as the subscriber knows, with the stamps of the commits that wrote them.
    records: BTreeMap<RecordKey, Hlc>,
    /// The last commit of each stream that was told, and the records of its changes.
    last: BTreeMap<ReplicaId, (u64, BTreeSet<RecordKey>)>,
    /// Whether the subscriber ever fell behind, and read the records again: then it is told of changes that it has read.
    lagged: bool,
    /// Whether the subscriber takes its time for an event.
    busy: bool,
}

impl Ear {
    /// A subscriber that has read all records of the disk.
    pub(super) fn new(disk: &SimDisk) -> Self {
        let heard = Self(Rc::default());
        heard.0.borrow_mut().read(disk);
        heard
    }

    /// Takes events as they come, or rarely: one in so many milliseconds.
    pub(super) async fn listen(self, mut events: Events, timeline: Timeline, every_ms: Rc<Cell<u64>>) {
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Changed(change)) => self.0.borrow_mut().new.push_back(Ok(change)),
                // All of a snapshot is there at once, and its changes are not told one by one.
                Ok(Event::Installed { .. }) => self.0.borrow_mut().new.push_back(Err(Lagged { notices: 0 })),
                Ok(_) => continue,
                Err(lagged) => self.0.borrow_mut().new.push_back(Err(lagged)),
            }
            if every_ms.get() > 0 {
                self.0.borrow_mut().busy = true;
                timeline.sleep(every_ms.get()).await;
                self.0.borrow_mut().busy = false;
            }
        }
    }
}

impl Heard {
    /// Reads all records again.
    fn read(&mut self, disk: &SimDisk) {
        let image = disk.image().settled().unwrap_or_default();
        let records = block_on(history::records(&image)).unwrap_or_default();
        let there = records.into_iter().filter(|record| record.value.is_some());
        self.records = there.map(|record| (record.record, record.stamp)).collect();
    }

    /// Takes a change that is told: it comes once, after those before it in its stream, and fits what was told before.
    fn hear(&mut self, replica: ReplicaId, change: &Change) -> Result<(), Failure> {
        let last = self.last.entry(change.stamp.replica()).or_default();
        if change.seq > last.0 {
            *last = (change.seq, BTreeSet::new());
        }
        if change.seq < last.0 || !last.1.insert(change.record.clone()) {
            return fail("C4 events come once, in order", format!("{replica} is told again of {change:?}"));
        }
        let known = match change.kind {
            ChangeKind::Delete => self.records.remove(&change.record).is_some(),
            ChangeKind::Insert | ChangeKind::Update => {
                self.records.insert(change.record.clone(), change.stamp).is_some()
            }
        };
        if known == (change.kind == ChangeKind::Insert) && !self.lagged {
            return fail("C4 what is told is so", format!("{replica}: {change:?}, which it had: {known}"));
        }
        Ok(())
    }
}

impl World {
    /// Checks what subscribers were told since the last time.
    pub(super) fn hear(&mut self) -> Result<(), Failure> {
        for process in &self.processes {
            let ear = process.ear.borrow();
            let Some(mut heard) = ear.as_ref().map(|ear| ear.0.borrow_mut()) else { continue };
            if process.damaged {
                heard.new.clear();
            }
            while let Some(told) = heard.new.pop_front() {
                process.to_compare.set(true);
                match told {
                    Ok(change) => {
                        self.oracle.borrow().check_told(process.id, &change)?;
                        heard.hear(process.id, &change)?;
                    }
                    Err(_) => {
                        heard.lagged = true;
                        heard.read(&process.disk);
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares what subscribers know with the stores. When no task can go on, every change that is durable has been
    /// told, unless a subscriber takes its time.
    pub(super) fn compare_told(&self) -> Result<(), Failure> {
        let now = self.timeline.now_ms();
        for process in &self.processes {
            let ear = process.ear.borrow();
            let Some(heard) = ear.as_ref().map(|ear| ear.0.borrow()) else { continue };
            let waits = !process.running || !process.is_sound() || process.paused_until > now;
            if waits || heard.busy || !process.is_judged() || !process.to_compare.replace(false) {
                continue;
            }
            compare(process, &heard)?;
        }
        Ok(())
    }
}

/// A subscriber knows of every record whether it is there, and by which commit. Records with a merge of their own are
/// left to one: they have a commit that put a part of them.
fn compare(process: &Process, heard: &Heard) -> Result<(), Failure> {
    let is_told = |record: &RecordKey| record.model() != Set::SYNC_MODEL || process.knows_sets.get();
    let there = |record: &&StoredRecord| record.value.is_some() && is_told(&record.record);
    let mut count = 0;
    for record in process.records.iter().filter(there) {
        count += 1;
        let told = heard.records.get(&record.record);
        let by_stamp =
            matches!(record.record.model(), Note::SYNC_MODEL | Place::SYNC_MODEL | Photo::SYNC_MODEL);
        if told.is_none_or(|stamp| by_stamp && *stamp != record.stamp) {
            let detail = format!("{} has {record:?}, of which it was told {told:?}", process.id);
            return fail("C4 every change is told", detail);
        }
    }
    let known = heard.records.keys().filter(|record| is_told(record)).count();
    if count != known {
        return fail(
            "C4 every change is told",
            format!("{} has {count} records, and was told {known}", process.id),
        );
    }
    Ok(())
}
