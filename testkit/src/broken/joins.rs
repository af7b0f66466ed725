//! Stores whose joined writes break the contract, one way each.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use syncline::{
    Attempt, BoxError, JoinJob, JoinStorage, JoinTx, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage,
    TransactionEnded, Value, WriteBatch, WriteError,
};

use super::{JoinFlaw, lock};
use crate::on_drop::OnDrop;
use crate::poll::give_way;
use crate::reference::{Rows, run_job};
use crate::sorted_map::SortedMap;
use crate::{Disk, Ending, Fixture, JoinFixture, MediumFault, Reference, ReferenceRows, ReferenceTx};

/// A place for a store with one flaw in its joined writes.
#[derive(Debug)]
pub struct BrokenJoinsDisk {
    flaw: JoinFlaw,
    disk: Disk,
    lost: Arc<Mutex<Option<Everything>>>,
}

type Everything = (SortedMap, Rows);

impl BrokenJoinsDisk {
    /// An empty place for a store with `flaw`.
    #[must_use]
    pub fn new(flaw: JoinFlaw) -> Self {
        Self { flaw, disk: Disk::new(), lost: Arc::default() }
    }
}

#[async_trait]
impl Fixture for BrokenJoinsDisk {
    type Store = BrokenJoins;

    async fn open(&self) -> Result<BrokenJoins, BoxError> {
        let store = self.disk.open().await?;
        if let Some(lost) = lock(&self.lost).take() {
            self.disk.edit_all(|entries, rows| (*entries, *rows) = lost);
        }
        let last = self.disk.edit(|entries| entries.clone());
        Ok(BrokenJoins {
            flaw: self.flaw,
            store,
            disk: self.disk.clone(),
            lost: Arc::clone(&self.lost),
            locked: AtomicBool::new(false),
            state: Mutex::new(State { last, ..State::default() }),
        })
    }

    fn break_medium(&self, fault: Option<MediumFault>) -> bool {
        self.disk.break_medium(fault)
    }
}

impl JoinFixture for BrokenJoinsDisk {
    fn put_row(tx: &ReferenceRows, key: u64, value: &str) -> Result<(), BoxError> {
        Disk::put_row(tx, key, value)
    }

    fn delete_row(tx: &ReferenceRows, key: u64) -> Result<(), BoxError> {
        Disk::delete_row(tx, key)
    }

    fn rows(tx: &ReferenceRows) -> Result<Vec<(u64, String)>, BoxError> {
        Disk::rows(tx)
    }

    fn endings() -> Vec<Ending<BrokenJoins>> {
        let end = |tx: &ReferenceRows| {
            tx.end();
            Ok(())
        };
        vec![Ending { name: "end", end }]
    }
}

/// A store with one flaw in its joined writes, and otherwise correct.
#[derive(Debug)]
pub struct BrokenJoins {
    flaw: JoinFlaw,
    store: Reference,
    disk: Disk,
    /// What the next opening finds instead of the contents of the disk.
    lost: Arc<Mutex<Option<Everything>>>,
    locked: AtomicBool,
    state: Mutex<State>,
}

/// What a flaw has to remember while the store is open.
#[derive(Default)]
struct State {
    /// The entries after the last join.
    last: SortedMap,
    late: Option<JoinJob<BrokenJoins>>,
    batch: Option<SortedMap>,
    leftover: Rows,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// A transaction of a [`BrokenJoins`].
#[derive(Debug)]
pub struct BrokenTx<'t> {
    inner: &'t ReferenceTx,
    disk: &'t Disk,
    flaw: JoinFlaw,
    last: &'t SortedMap,
    /// How many parts are under way.
    depth: Cell<u32>,
    /// Whether the part that ended last was inside another one.
    inner_ended: Cell<bool>,
}

impl JoinTx for BrokenTx<'_> {
    type Native = ReferenceRows;

    fn native(&self) -> &ReferenceRows {
        self.inner.native()
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let of = |entries: &SortedMap| keys.iter().map(|key| entries.get(key).cloned()).collect();
        match self.flaw {
            JoinFlaw::ReadsOutside => Ok(self.disk.edit(|entries| of(entries))),
            JoinFlaw::ReadsLastJoin if *self.inner.entries.borrow() == self.disk.edit(|now| now.clone()) => {
                Ok(of(self.last))
            }
            _ => self.inner.get_many(keys),
        }
    }

    fn apply(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        self.inner.apply(batch)?;
        if self.flaw == JoinFlaw::ShowsEarly {
            self.disk.edit(|entries| *entries = self.inner.entries.borrow().clone());
        }
        Ok(())
    }

    fn attempt(&self, part: &mut dyn FnMut() -> Result<(), BoxError>) -> Attempt {
        let (entries, rows) = (&self.inner.entries, &self.inner.native().rows);
        let before = (entries.borrow().clone(), rows.borrow().clone());
        self.depth.set(self.depth.get() + 1);
        let done = part();
        self.depth.set(self.depth.get() - 1);
        let inner_ended = self.inner_ended.replace(self.depth.get() > 0);
        if self.inner.native().ended.get() {
            return Attempt::Spoiled(done.err().unwrap_or_else(|| TransactionEnded.into()));
        }
        match done {
            Ok(()) => {
                if self.flaw == JoinFlaw::PartIsLost {
                    (*entries.borrow_mut(), *rows.borrow_mut()) = before;
                }
                Attempt::Done
            }
            Err(_) if self.flaw == JoinFlaw::PartIsSwallowed => Attempt::Done,
            Err(error) => {
                match self.flaw {
                    JoinFlaw::PartKeepsRows => *entries.borrow_mut() = before.0,
                    JoinFlaw::PartKeepsBatch => *rows.borrow_mut() = before.1,
                    JoinFlaw::PartUndoesAll => {
                        (*entries.borrow_mut(), *rows.borrow_mut()) =
                            self.disk.edit_all(|entries, rows| (entries.clone(), rows.clone()));
                    }
                    JoinFlaw::InnerPartEndsOuter if inner_ended => {}
                    _ => (*entries.borrow_mut(), *rows.borrow_mut()) = before,
                }
                Attempt::Undone(error)
            }
        }
    }
}

#[async_trait]
impl Storage for BrokenJoins {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.store.get_many(keys).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        self.store.scan(range, limit).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        self.unlocked()?;
        self.store.write(batch).await?;
        let late = lock(&self.state).batch.take();
        if let Some(late) = late {
            match self.flaw {
                JoinFlaw::JoinWinsOverWrite => self.disk.edit(|entries| {
                    let both =
                        late.into_iter().filter(|(key, _)| entries.contains_key(key)).collect::<Vec<_>>();
                    entries.extend(both);
                }),
                _ => self.disk.edit(|entries| *entries = late),
            }
        }
        *lock(&self.lost) = None;
        Ok(())
    }
}

#[async_trait]
impl JoinStorage for BrokenJoins {
    type Tx<'t> = BrokenTx<'t>;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        self.unlocked()?;
        let _turn = self.store.turn().await?;
        *lock(&self.lost) = None;
        let before = self.disk.edit_all(|entries, rows| (entries.clone(), rows.clone()));
        let job = match self.flaw {
            JoinFlaw::NeverRuns => return Ok(()),
            JoinFlaw::RunsLate => {
                let Some(earlier) = lock(&self.state).late.replace(job) else { return Ok(()) };
                earlier
            }
            _ => job,
        };
        let (entries, rows) = self.run(job, &before)?;
        self.commit(&before, (entries, rows)).await
    }
}

impl BrokenJoins {
    fn unlocked(&self) -> Result<(), WriteError> {
        if self.locked.load(Ordering::SeqCst) {
            // Return an error instead of waiting for ever, so that the list fails and does not hang.
            return Err(WriteError::rejected("the lock is held for good"));
        }
        Ok(())
    }

    /// Runs `job` as far as the flaw lets it, and returns the entries and rows to be committed.
    fn run(&self, job: JoinJob<Self>, before: &Everything) -> Result<Everything, WriteError> {
        let tx = self.store.begin();
        let leftover = std::mem::take(&mut lock(&self.state).leftover);
        tx.native().rows.borrow_mut().extend(leftover);
        let last = lock(&self.state).last.clone();
        let (depth, inner_ended) = (Cell::default(), Cell::default());
        let broken =
            BrokenTx { inner: &tx, disk: &self.disk, flaw: self.flaw, last: &last, depth, inner_ended };
        let done = if self.flaw == JoinFlaw::PanicGoesThrough {
            job(&broken)
        } else {
            run_job(|_| job(&broken), &tx)
        };
        let ended = tx.native().ended.get();
        let (entries, rows) = tx.into_parts();
        if ended {
            return match self.flaw {
                JoinFlaw::EndedSaysOk => Ok(before.clone()),
                JoinFlaw::EndedKeepsRest => Ok((entries, rows)),
                JoinFlaw::EndedKeepsRows => {
                    self.disk.edit_all(|_, found| *found = rows);
                    Err(WriteError::rejected(TransactionEnded))
                }
                JoinFlaw::EndedTellsOtherError => Err(done
                    .err()
                    .map_or_else(|| WriteError::rejected(TransactionEnded), WriteError::Rejected)),
                JoinFlaw::EndedIsRejected => Err(WriteError::rejected("there is no transaction")),
                JoinFlaw::EndedIsUnknown => Err(WriteError::unknown("there is no transaction")),
                _ => Err(WriteError::rejected(TransactionEnded)),
            };
        }
        let Err(error) = done else { return Ok((entries, rows)) };
        let panicked = error.to_string().contains("panicked");
        match self.flaw {
            JoinFlaw::ErrorKeepsRows => self.disk.edit_all(|_, found| *found = rows),
            JoinFlaw::ErrorKeepsBatch => self.disk.edit(|found| *found = entries),
            JoinFlaw::ErrorIsSwallowed => return Ok(before.clone()),
            JoinFlaw::ErrorIsReplaced => return Err(WriteError::rejected("the job failed")),
            JoinFlaw::ErrorIsUnknown => return Err(WriteError::Unknown(error)),
            JoinFlaw::PanicKeepsAll if panicked => {
                self.disk.edit_all(|found, found_rows| (*found, *found_rows) = (entries, rows));
            }
            JoinFlaw::PanicStops if panicked => self.locked.store(true, Ordering::SeqCst),
            JoinFlaw::ErrorIsSweptUp => lock(&self.state).leftover = rows,
            JoinFlaw::ShowsEarly => self.disk.edit(|found| *found = before.0.clone()),
            _ => {}
        }
        Err(WriteError::Rejected(error))
    }

    async fn commit(&self, before: &Everything, after: Everything) -> Result<(), WriteError> {
        let (entries, rows) = after.clone();
        let put_all = |(new, new_rows): Everything| {
            move |found: &mut SortedMap, found_rows: &mut Rows| (*found, *found_rows) = (new, new_rows)
        };
        let cancelled = OnDrop::new(|| match self.flaw {
            JoinFlaw::CancelKeepsRows => self.disk.edit_all(|_, found| *found = rows.clone()),
            JoinFlaw::CancelKeepsBatch => self.disk.edit(|found| *found = entries.clone()),
            JoinFlaw::CancelKeepsLock => self.locked.store(true, Ordering::SeqCst),
            JoinFlaw::CancelledLandsLate => lock(&self.state).batch = Some(entries.clone()),
            _ => {}
        });
        give_way().await;
        let result = match self.flaw {
            JoinFlaw::CommitsRowsFirst => {
                self.store.commit(|_, found| *found = rows.clone())?;
                give_way().await;
                self.store.commit(|found, _| *found = entries.clone())
            }
            JoinFlaw::LosesRows => self.store.commit(|found, _| *found = entries.clone()),
            JoinFlaw::LandsAfterNextWrite => {
                lock(&self.state).batch = Some(entries.clone());
                self.store.commit(put_all(after.clone()))
            }
            JoinFlaw::JoinWinsOverWrite => {
                lock(&self.state).batch = Some(
                    entries
                        .clone()
                        .into_iter()
                        .filter(|(key, value)| before.0.get(key) != Some(value))
                        .collect(),
                );
                self.store.commit(put_all(after.clone()))
            }
            JoinFlaw::LosesLastJoin => {
                *lock(&self.lost) = Some(before.clone());
                self.store.commit(put_all(after.clone()))
            }
            JoinFlaw::LosesLastBatch => {
                *lock(&self.lost) = Some((before.0.clone(), rows.clone()));
                self.store.commit(put_all(after.clone()))
            }
            JoinFlaw::FailedCommitKeepsRows => {
                let result = self.store.commit(put_all(after.clone()));
                if result.is_err() {
                    self.disk.edit_all(|found, found_rows| {
                        (*found, *found_rows) = (before.0.clone(), rows.clone());
                    });
                }
                result
            }
            JoinFlaw::FailedSyncIsForgotten => match self.store.commit(put_all(after.clone())) {
                Err(WriteError::Unknown(_)) => Ok(()),
                other => other,
            },
            _ => self.store.commit(put_all(after.clone())),
        };
        result?;
        lock(&self.state).last = entries.clone();
        give_way().await;
        cancelled.disarm();
        Ok(())
    }
}
