//! What the apps of a run commit, and what they are told of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;

use futures::future::join_all;
use syncline::Error;

use super::processes::{Manager, Process};
use crate::sim::app::{Kind, Kinds, with_set};
use crate::sim::deletes::Name;
use crate::sim::models::{AnySet as _, Note, PAIR, Photo, Place};
use crate::sim::oracle::{Oracle, Outcome, Told};
use crate::sim::plan::Edit;

/// The apps of all processes. They count the values that they put, so that each has a serial number of its own.
pub(super) struct Apps {
    pub(super) oracle: Rc<RefCell<Oracle>>,
    pub(super) kinds: Kinds,
    committed: Rc<Cell<u64>>,
    last_serial: u64,
}

impl Apps {
    /// Apps that tell `oracle` how their commits end.
    pub(super) fn new(oracle: &Rc<RefCell<Oracle>>, kinds: &Kinds) -> Self {
        Self { oracle: Rc::clone(oracle), kinds: kinds.clone(), committed: Rc::default(), last_serial: 0 }
    }

    /// How many commits returned `Ok`.
    pub(super) fn committed(&self) -> u64 {
        self.committed.get()
    }

    /// The manager of a process whose app writes: `None` if it is not open, or only reads since it was restored.
    pub(super) fn writing(&self, process: &Process) -> Option<Manager> {
        process.manager().filter(|_| !process.rolled_back || process.revived)
    }

    /// A task that commits `edits` at the process at place `at`; `None` if it is not open or was restored.
    pub(super) fn commit(
        &mut self,
        at: usize,
        process: &Process,
        edits: Vec<Edit>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let manager = self.writing(process)?;
        let (device, version) = (process.device, process.app.version);
        let (mut serials, mut deletes) = (Vec::new(), Vec::new());
        let mut named = BTreeSet::new();
        let mut staged = Vec::new();
        for edit in edits {
            let (kind, id, put) = match edit {
                Edit::Note(id, put) => (0, id, put),
                Edit::Place(id, put) => (1, id, put),
                Edit::Set(id, put) => (2, id, put),
            };
            // A damaged record must not be merged, and may seem to be gone already.
            if kind == 2 && !process.commits_sets() || process.damaged && !put {
                continue;
            }
            // Only the last edit of a record counts in a commit. So take one edit of each record: the serial number of
            // another one would be missed everywhere.
            if named.insert((kind, id)) {
                let serial = put.then(|| self.next_serial(at));
                serials.extend(serial);
                if !put {
                    deletes.push(self.ask_for_delete(process, edit));
                }
                staged.push((edit, serial));
            }
        }
        let told = self.teller(serials, deletes);
        Some(async move {
            let result = manager
                .commit_batch(|batch| {
                    for (edit, serial) in staged {
                        match (edit, serial) {
                            (Edit::Note(id, _), Some(serial)) => batch.put(&Note { id, serial })?,
                            (Edit::Note(id, _), None) => batch.delete::<Note>(id)?,
                            (Edit::Place(id, _), Some(serial)) => {
                                batch.put(&Place { id, device_id: device, serial })?;
                            }
                            (Edit::Place(id, _), None) => batch.delete::<Place>((device, id))?,
                            (Edit::Set(id, _), Some(serial)) => {
                                with_set!(version, S => batch.put(&S::of(id, serial))?);
                            }
                            (Edit::Set(id, _), None) => {
                                with_set!(version, S => batch.delete::<S>(id)?);
                            }
                        }
                    }
                    Ok(())
                })
                .await;
            told(result);
        })
    }

    /// A task that commits both notes of the [`PAIR`]; `None` as for [`commit`](Self::commit).
    pub(super) fn commit_pair(
        &mut self,
        at: usize,
        process: &Process,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let manager = self.writing(process)?;
        let serial = self.next_serial(at);
        let told = self.teller(vec![serial], Vec::new());
        Some(async move {
            let put = manager.commit_batch(|batch| {
                Ok(PAIR.iter().try_for_each(|id| batch.put(&Note { id: *id, serial }))?)
            });
            told(put.await);
        })
    }

    /// A task that commits a photo of `kib` KiB; `None` as for [`commit`](Self::commit).
    pub(super) fn commit_photo(
        &mut self,
        at: usize,
        process: &Process,
        id: u32,
        kib: u16,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let manager = self.writing(process)?;
        let serial = self.next_serial(at);
        let told = self.teller(vec![serial], Vec::new());
        let photo = Photo::of(id, serial, kib);
        Some(async move { told(manager.commit_batch(|batch| Ok(batch.put(&photo)?)).await) })
    }

    /// A task that makes `count` commits of a note each, as fast as they are taken; `None` as for
    /// [`commit`](Self::commit).
    pub(super) fn commit_many(
        &mut self,
        at: usize,
        process: &Process,
        count: u16,
        ids: u32,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let manager = self.writing(process)?;
        let commits: Vec<_> = (0..u32::from(count))
            .map(|turn| {
                let (manager, serial) = (manager.clone(), self.next_serial(at));
                let told = self.teller(vec![serial], Vec::new());
                async move {
                    let note = Note { id: turn % ids.max(1), serial };
                    told(manager.commit_batch(|batch| Ok(batch.put(&note)?)).await);
                }
            })
            .collect();
        Some(async move { drop(join_all(commits).await) })
    }

    /// A serial number of a row alone, which no value has.
    pub(super) fn next_row(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    pub(super) fn next_serial(&mut self, author: usize) -> u64 {
        self.last_serial += 1;
        let told = Told { author, outcome: Outcome::Open };
        self.oracle.borrow_mut().expect(self.last_serial, told);
        self.last_serial
    }

    /// Tells the oracle that an app deletes a record; returns the serial number of the delete.
    fn ask_for_delete(&self, process: &Process, edit: Edit) -> u64 {
        let name = match edit {
            Edit::Note(id, _) => Name::Note(id),
            Edit::Place(id, _) => Name::Place(process.device, id),
            Edit::Set(id, _) => Name::Set(id),
        };
        let commits = process.judged_heads.get(&process.id).copied().unwrap_or(0);
        self.oracle.borrow_mut().deletes.ask(process.id, name, commits, &process.records)
    }

    /// What an app knows from the result of a call.
    pub(super) fn outcome<T>(result: &Result<T, Error>) -> Outcome {
        match result {
            Ok(_) => Outcome::Committed,
            Err(Error::Unknown(_)) => Outcome::Open,
            Err(_) => Outcome::Failed,
        }
    }

    /// Tells the oracle how the commit of these values and deletes has ended.
    pub(super) fn teller(
        &self,
        serials: Vec<u64>,
        deletes: Vec<u64>,
    ) -> impl FnOnce(Result<(), Error>) + use<> {
        let (oracle, committed) = (Rc::clone(&self.oracle), Rc::clone(&self.committed));
        let kinds = self.kinds.clone();
        move |result| {
            if matches!(result, Err(Error::Projection { .. })) {
                kinds.note(Kind::Refused);
            }
            let outcome = Self::outcome(&result);
            if outcome == Outcome::Committed {
                committed.set(committed.get() + 1);
            }
            let mut oracle = oracle.borrow_mut();
            serials.into_iter().for_each(|serial| oracle.tell(serial, outcome));
            deletes.into_iter().for_each(|serial| oracle.deletes.tell(serial, outcome));
        }
    }
}
