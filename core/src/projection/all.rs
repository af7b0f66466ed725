//! All projections of a store: each follows every commit, and is rebuilt page by page.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::engine::{Commit, Current, Received};
use crate::error::{Error, SharedError, StopReason, panic_message};
use crate::events::RecordKey;
use crate::join::{JoinJob, JoinStorage, JoinTx, Native};
use crate::joined::{self, Work};
use crate::model;
use crate::pages::PAGE_ENTRIES;
use crate::storage::{BoxError, Entry, Key, KeyRange, ReadError, WriteBatch, WriteError, WriteOp};
use crate::stored::{FormatError, Progress, ProjectionRow, keys, record};
use crate::syncable::Syncable;

use super::{Declared, Projecting, Projection, ProjectionState, ProjectionStatus, Told};

/// All projections of one store.
pub(crate) struct Projections<S: JoinStorage> {
    pub(super) all: Vec<Arc<dyn Erased<S>>>,
    states: Mutex<Vec<ProjectionState>>,
    /// The projection whose rebuild was last told to have begun.
    told: AtomicUsize,
}

/// A projection behind a trait object, which hides its model.
pub(super) trait Erased<S: JoinStorage>: Send + Sync {
    fn declared(&self) -> Declared;
    fn range(&self) -> &KeyRange;
    fn reset(&self, tx: &Native<'_, S>) -> Result<(), BoxError>;
    fn project(&self, tx: &Native<'_, S>, key: &[u8], stored: &[u8]) -> Result<(), Error>;
}

/// How many records lie between two events of a rebuild. An event for each page would drown the other events.
const TELL_EVERY_RECORDS: u64 = 10_000;

impl<S: JoinStorage> Projections<S> {
    pub(super) fn new(all: Vec<Arc<dyn Erased<S>>>) -> Self {
        let states = all.iter().map(|_| ProjectionState::Rebuilding { records: 0 }).collect();
        Self { all, states: Mutex::new(states), told: AtomicUsize::new(usize::MAX) }
    }

    /// Returns the projections behind the trait. No other type implements it, so this always succeeds.
    pub(crate) fn of(erased: Arc<dyn Projecting<S>>) -> Option<Arc<Self>> {
        erased.into_any().downcast().ok()
    }

    fn states(&self) -> MutexGuard<'_, Vec<ProjectionState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Projects the records that `batch` writes, in the transaction that writes them.
    pub(crate) fn project(&self, tx: &S::Tx<'_>, batch: &WriteBatch) -> Result<(), Error> {
        let states = self.states().clone();
        for (projection, state) in self.all.iter().zip(states) {
            // A complete projection stays complete while the store is open, so its row need not be read.
            let mut progress = (state == ProjectionState::Complete).then_some(Progress::Complete);
            for op in batch.ops() {
                let WriteOp::Put { key, value } = op else { continue };
                if !projection.range().contains(key) {
                    continue;
                }
                let progress = match &mut progress {
                    Some(progress) => progress,
                    unread => unread.insert(progress_in(tx, projection.declared().name)?),
                };
                if progress.covers(key) {
                    projection.project(tx.native(), key, value)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the next page of a projection; returns how many records it had, and whether it was the last.
    async fn page(&self, store: &S, projection: Arc<dyn Erased<S>>) -> Result<(u64, bool), NotRebuilt> {
        let Declared { name, version, schema } = projection.declared();
        let row = move |progress| {
            let mut batch = WriteBatch::new();
            batch.put(keys::projection(name), ProjectionRow { version, schema, progress }.to_value());
            batch
        };
        let stored = store.get_many(&[keys::projection(name)]).await?.into_iter().next().flatten();
        let Some(stored) = stored else {
            let began = row(Progress::Until(Key::new()));
            join(store, move |tx| {
                projection.reset(tx.native())?;
                tx.apply(&began)
            })
            .await?;
            return Ok((0, false));
        };
        let range = match ProjectionRow::parse(&stored)?.progress {
            Progress::Complete => return Ok((0, true)),
            Progress::Until(key) if key.is_empty() => projection.range().clone(),
            Progress::Until(key) => projection.range().clone().after(&key),
        };
        let page = store.scan(range, PAGE_ENTRIES).await?;
        let last = page.last().filter(|_| page.len() >= PAGE_ENTRIES).map(|entry| entry.key.clone());
        let (records, complete) = (page.len() as u64, last.is_none());
        let row = row(last.map_or(Progress::Complete, Progress::Until));
        join(store, move |tx| {
            for Entry { key, value } in &page {
                projection.project(tx.native(), key, value)?;
            }
            tx.apply(&row)
        })
        .await?;
        Ok((records, complete))
    }
}

impl<S: JoinStorage> Projecting<S> for Projections<S> {
    fn declared(&self) -> Vec<Declared> {
        self.all.iter().map(|projection| projection.declared()).collect()
    }

    fn concern(&self, record: &RecordKey) -> bool {
        self.all.iter().any(|projection| projection.range().contains(record.as_bytes()))
    }

    fn begin(&self, rows: &BTreeMap<String, ProjectionRow>) {
        for (projection, state) in self.all.iter().zip(self.states().iter_mut()) {
            let row = rows.get(projection.declared().name);
            if row.is_some_and(|row| projection.declared().fits(row) && row.progress == Progress::Complete) {
                *state = ProjectionState::Complete;
            }
        }
    }

    fn work(self: Arc<Self>, commit: Commit) -> Work<S> {
        joined::work(move |_| Ok(commit), Some(self))
    }

    fn receive(self: Arc<Self>, commits: Vec<Received>) -> Work<S> {
        joined::receive(commits, self)
    }

    fn write<'a>(
        self: Arc<Self>,
        store: &'a S,
        batch: WriteBatch,
    ) -> BoxFuture<'a, Result<Result<(), Error>, StopReason>> {
        joined::write(store, batch, self)
    }

    fn restart(&self, names: &[&'static str]) {
        for (projection, state) in self.all.iter().zip(self.states().iter_mut()) {
            if names.contains(&projection.declared().name) {
                *state = ProjectionState::Rebuilding { records: 0 };
            }
        }
    }

    fn ranges(&self) -> Vec<(&'static str, KeyRange)> {
        let named =
            |projection: &Arc<dyn Erased<S>>| (projection.declared().name, projection.range().clone());
        self.all.iter().map(named).collect()
    }

    fn rebuild<'a>(&'a self, store: &'a S) -> BoxFuture<'a, Result<Option<Told>, StopReason>> {
        async move {
            let next = self.states().iter().enumerate().find_map(|(at, state)| match state {
                ProjectionState::Rebuilding { records } => Some((at, *records)),
                ProjectionState::Complete | ProjectionState::Failed { .. } => None,
            });
            let Some((at, before)) = next else { return Ok(None) };
            let Some(projection) = self.all.get(at).cloned() else { return Ok(None) };
            let mut page = self.page(store, Arc::clone(&projection)).await;
            for _ in 1..TRIES_MAX {
                let Err(NotRebuilt::Store(_)) = page else { break };
                page = self.page(store, Arc::clone(&projection)).await;
            }
            let (state, tell) = match page {
                Ok((_, true)) => (ProjectionState::Complete, true),
                Ok((taken, false)) => {
                    let records = before + taken;
                    // Projections are rebuilt one after the other, so another `at` means that a rebuild begins, also
                    // one that goes on where an earlier opening left it.
                    let begins = self.told.swap(at, Relaxed) != at;
                    let tell = begins || records / TELL_EVERY_RECORDS > before / TELL_EVERY_RECORDS;
                    (ProjectionState::Rebuilding { records }, tell)
                }
                Err(NotRebuilt::App(error) | NotRebuilt::Store(error)) => {
                    (ProjectionState::Failed { error: error.to_string() }, true)
                }
                Err(NotRebuilt::Stop(reason)) => return Err(reason),
            };
            if let Some(entry) = self.states().get_mut(at) {
                *entry = state;
            }
            Ok(Some(self.status().into_iter().nth(at).filter(|_| tell)))
        }
        .boxed()
    }

    fn status(&self) -> Vec<ProjectionStatus> {
        let states = self.states().clone();
        let described = self.all.iter().zip(states);
        described
            .map(|(projection, state)| {
                let Declared { name, version, .. } = projection.declared();
                ProjectionStatus { name, version, state }
            })
            .collect()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// A projection and the range of its model's records.
pub(super) struct Typed<S, P> {
    pub(super) projection: P,
    pub(super) range: KeyRange,
    pub(super) store: PhantomData<fn() -> S>,
}

impl<S: JoinStorage, P: Projection<S>> Erased<S> for Typed<S, P> {
    fn declared(&self) -> Declared {
        Declared { name: P::NAME, version: P::VERSION, schema: P::Model::SCHEMA }
    }

    fn range(&self) -> &KeyRange {
        &self.range
    }

    fn reset(&self, tx: &Native<'_, S>) -> Result<(), BoxError> {
        contain(|| self.projection.reset(tx))
    }

    fn project(&self, tx: &Native<'_, S>, key: &[u8], stored: &[u8]) -> Result<(), Error> {
        let id = RecordKey::id_in::<P::Model>(key).ok_or(FormatError::Damaged { what: "a record's key" })?;
        let (header, value) = record::parse(stored)?;
        let done = if header.tombstone || header.schema > P::Model::SCHEMA {
            // A record of a newer app cannot be read here, so leave it out. When this app is updated, the schema of
            // the model differs, and the projection is rebuilt with the record.
            contain(|| self.projection.delete(tx, &id))
        } else {
            let model: P::Model = model::decode(&id, Current { schema: header.schema, value })?;
            // A value with the id of another record must not write the rows of that one. Reads of it fail too.
            if model.sync_id() == id {
                contain(|| self.projection.put(tx, &model))
            } else {
                contain(|| self.projection.delete(tx, &id))
            }
        };
        done.map_err(|source| Error::Projection {
            projection: P::NAME,
            record: RecordKey::new::<P::Model>(&id),
            source,
        })
    }
}

/// Runs the app's code. A panic in it becomes an error, since the transaction is undone either way.
fn contain(work: impl FnOnce() -> Result<(), BoxError>) -> Result<(), BoxError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(format!("it panicked: {}", panic_message(&*panic)).into()))
}

/// Reads how far the projection is, as the transaction sees it. Without a row its rebuild has not begun.
fn progress_in(tx: &impl JoinTx, name: &str) -> Result<Progress, Error> {
    match tx.get_many(&[keys::projection(name)])?.into_iter().next().flatten() {
        Some(row) => Ok(ProjectionRow::parse(&row)?.progress),
        None => Ok(Progress::Until(Key::new())),
    }
}

/// Why a page of a rebuild was not taken.
enum NotRebuilt {
    /// The app's code failed on a record, and would fail again.
    App(BoxError),
    /// The store could not read or write; another try may succeed.
    Store(BoxError),
    Stop(StopReason),
}

/// How often a page is tried if the store fails.
const TRIES_MAX: u32 = 3;

impl From<ReadError> for NotRebuilt {
    fn from(error: ReadError) -> Self {
        Self::Store(error.0)
    }
}

impl From<FormatError> for NotRebuilt {
    fn from(error: FormatError) -> Self {
        Self::App(error.into())
    }
}

/// Runs `job` in one native transaction.
async fn join<S, F>(store: &S, job: F) -> Result<(), NotRebuilt>
where
    S: JoinStorage,
    F: FnOnce(&S::Tx<'_>) -> Result<(), BoxError> + Send + 'static,
{
    let failed = Arc::new(AtomicBool::new(false));
    let note = Arc::clone(&failed);
    // Run the whole job as the app's code: decoding and migrating are the app's too, and may panic.
    let job: JoinJob<S> = Box::new(move |tx| {
        let done = joined::inside(|| job(tx).map_err(Error::Aborted));
        note.store(done.is_err(), Relaxed);
        done.map_err(|error| match error {
            Error::Aborted(error) => error,
            panicked => panicked.into(),
        })
    });
    store.join(job).await.map_err(|error| match error {
        WriteError::Rejected(error) if failed.load(Relaxed) => NotRebuilt::App(error),
        WriteError::Rejected(error) => NotRebuilt::Store(error),
        WriteError::Unknown(error) => NotRebuilt::Stop(StopReason::Unknown(SharedError::from(error))),
        WriteError::Fenced => NotRebuilt::Stop(StopReason::Fenced),
    })
}
