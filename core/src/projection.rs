//! Projections: what the app derives from its records in tables of its own, kept in step by the same transaction.
//!
//! A row for each projection says how far it has got: complete, or up to which record while it is being rebuilt.
//! A change up to there is projected with its commit, one beyond is met by the rebuild later, so commits go on
//! meanwhile and nothing is projected twice or left out. The row is read in the transaction of the commit, so the
//! two cannot disagree.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::builder::Builder;
use crate::engine::{Commit, Current, Received};
use crate::error::{Error, SharedError, StopReason, panic_message};
use crate::events::RecordKey;
use crate::join::{JoinJob, JoinStorage, JoinTx, Native};
use crate::joined::{self, Work};
use crate::model;
use crate::pages::PAGE_ENTRIES;
use crate::storage::{BoxError, Entry, Key, KeyRange, ReadError, Storage, WriteBatch, WriteError, WriteOp};
use crate::stored::{FormatError, Progress, ProjectionRow, keys, record};
use crate::syncable::{RecordId, Syncable};

/// What the app derives from the records of one model, such as a table that its SQL can join, or a full-text index.
///
/// It runs inside the native transaction of every commit that changes such a record, so what it writes is always
/// exactly in step: there with the commit, undone with it. An error in it, or a panic, rejects the commit.
///
/// Such a commit is a joined write of its own and shares it with no other, so that an error in one commit is none in
/// another: many changes at once belong into one [`commit_batch`](crate::TransactionManager::commit_batch). A record
/// that a newer version of the app wrote is not in it until this app is updated.
///
/// Opening a store with a projection that is new, or that has another [`VERSION`](Projection::VERSION) or another
/// schema of its model than before, rebuilds it from the records, a page at a time beside the commits. The same
/// happens if the store was opened without it in between. [`Status::projections`](crate::Status::projections) and
/// [`Event::Projection`](crate::Event::Projection) say how far it is. An error of the projection in a rebuild ends that
/// until the next opening, visibly in both, and so does a store that fails again and again; what is not rebuilt yet is
/// missing in it, the records are there.
///
/// # Contract
/// - It depends on its arguments and on what it wrote itself, and writes nothing that somebody else writes.
/// - A commit is seen whole, also one of another device, and its records come in any order. A record whose commit rests
///   on another comes after it.
/// - It must not end the transaction, calls nothing of the manager, and leaves tables whose names begin with `syncline` alone.
pub trait Projection<S: JoinStorage>: Send + Sync + 'static {
    /// The model that it derives from. Registering the projection registers it.
    type Model: Syncable;

    /// Its name, unlike that of every other projection of the app: 1 to 64 bytes. To the library, one with another
    /// name is another projection; what the old one wrote is the app's to drop.
    const NAME: &'static str;

    /// Rises whenever what it writes changes.
    const VERSION: u32;

    /// Begins from nothing: drops what an earlier version left, and creates what the records go into.
    ///
    /// # Errors
    /// Whatever the app reports. The projection is then not rebuilt before the next opening.
    fn reset(&self, tx: &Native<'_, S>) -> Result<(), BoxError>;

    /// Takes a record that is new or has changed: replaces what is there for its id.
    ///
    /// # Errors
    /// Whatever the app reports. It rejects the commit.
    fn put(&self, tx: &Native<'_, S>, model: &Self::Model) -> Result<(), BoxError>;

    /// Removes what is there for a record, if anything is.
    ///
    /// # Errors
    /// As [`put`](Projection::put).
    fn delete(&self, tx: &Native<'_, S>, id: &RecordId<Self::Model>) -> Result<(), BoxError>;
}

/// How far a projection is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: u32,
    /// Where it stands.
    pub state: ProjectionState,
}

/// Where a projection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProjectionState {
    /// It is being rebuilt from the records.
    Rebuilding {
        /// How many records it has taken since the store was opened.
        records: u64,
    },
    /// It has every record, and follows every commit.
    Complete,
    /// Its rebuild failed and goes on when the store is opened again. It follows commits as far as it got.
    Failed {
        /// What it reported.
        error: String,
    },
}

impl<S: JoinStorage> Builder<S> {
    /// Registers a projection and its model.
    #[must_use]
    pub fn project<P: Projection<S>>(self, projection: P) -> Self {
        let builder = self.model::<P::Model>();
        let registered = builder.projections.clone().and_then(Projections::of);
        let mut all = registered.map_or_else(Vec::new, |projections| projections.all.clone());
        all.push(Arc::new(Typed {
            projection,
            range: RecordKey::range_of_model::<P::Model>(),
            store: PhantomData,
        }) as Arc<dyn Erased<S>>);
        builder.with_projections(Arc::new(Projections::new(all)))
    }
}

/// What opening a store must know of a projection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declared {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) schema: u16,
}

impl Declared {
    /// Whether `row` is of this projection as it is now, so that it can go on where it was.
    pub(crate) fn fits(&self, row: &ProjectionRow) -> bool {
        (row.version, row.schema) == (self.version, self.schema)
    }
}

/// The projections of a store, for those who need not know that it lends its transactions.
pub(crate) trait Projecting<S: Storage>: Send + Sync {
    /// What the app registered, in its order.
    fn declared(&self) -> Vec<Declared>;

    /// Takes note of how far each of them was when the store was opened.
    fn begin(&self, rows: &BTreeMap<String, ProjectionRow>);

    /// Whether any of them derives from this record.
    fn concern(&self, record: &RecordKey) -> bool;

    /// The joined write that makes `commit` and projects it.
    fn work(self: Arc<Self>, commit: Commit) -> Work<S>;

    /// The joined write that applies what others committed and projects it.
    fn receive(self: Arc<Self>, commits: Vec<Received>) -> Work<S>;

    /// Writes what was folded and projects it: durable, or certainly undone.
    fn write<'a>(
        self: Arc<Self>,
        store: &'a S,
        batch: WriteBatch,
    ) -> BoxFuture<'a, Result<Result<(), Error>, StopReason>>;

    /// Takes note that these begin from nothing.
    fn restart(&self, names: &[&'static str]);

    /// The name of each, and the records that it derives from.
    fn ranges(&self) -> Vec<(&'static str, KeyRange)>;

    /// Rebuilds one page of the first projection that is not complete, and says whether that became one to tell
    /// of; `None` if there is nothing to do.
    fn rebuild<'a>(&'a self, store: &'a S) -> BoxFuture<'a, Result<Option<Told>, StopReason>>;

    fn status(&self) -> Vec<ProjectionStatus>;

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// What to tell after a step of a rebuild; nothing, most of the time.
pub(crate) type Told = Option<ProjectionStatus>;

/// All projections of one store.
pub(crate) struct Projections<S: JoinStorage> {
    all: Vec<Arc<dyn Erased<S>>>,
    states: Mutex<Vec<ProjectionState>>,
    /// The last one whose rebuild was told to have begun.
    told: AtomicUsize,
}

/// A projection whose model is known to itself alone.
trait Erased<S: JoinStorage>: Send + Sync {
    fn declared(&self) -> Declared;
    fn range(&self) -> &KeyRange;
    fn reset(&self, tx: &Native<'_, S>) -> Result<(), BoxError>;
    fn project(&self, tx: &Native<'_, S>, key: &[u8], stored: &[u8]) -> Result<(), Error>;
}

/// How many records lie between two events of a rebuild. A page each would drown the other events.
const TELL_EVERY_RECORDS: u64 = 10_000;

impl<S: JoinStorage> Projections<S> {
    fn new(all: Vec<Arc<dyn Erased<S>>>) -> Self {
        let states = all.iter().map(|_| ProjectionState::Rebuilding { records: 0 }).collect();
        Self { all, states: Mutex::new(states), told: AtomicUsize::new(usize::MAX) }
    }

    /// The projections behind the trait; there is only this type behind it.
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
            // A complete one stays so while the store is open.
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
                    // One after the other. Also one that goes on where an earlier opening left it begins now.
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

/// A projection and what it needs of its model.
struct Typed<S, P> {
    projection: P,
    range: KeyRange,
    store: PhantomData<fn() -> S>,
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
            // What a newer app wrote cannot be read here, so it is not there until this app is updated: its schema
            // then differs, and the projection is rebuilt.
            contain(|| self.projection.delete(tx, &id))
        } else {
            let model: P::Model = model::decode(&id, Current { schema: header.schema, value })?;
            // One that says it is another record must not write that one's row. It cannot be read either.
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

/// Runs the app's code. A panic in it is an error like any other: the transaction is undone either way.
fn contain(work: impl FnOnce() -> Result<(), BoxError>) -> Result<(), BoxError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(format!("it panicked: {}", panic_message(&*panic)).into()))
}

/// How far the projection is, as the transaction sees it. Without a row its rebuild has not begun.
fn progress_in(tx: &impl JoinTx, name: &str) -> Result<Progress, Error> {
    match tx.get_many(&[keys::projection(name)])?.into_iter().next().flatten() {
        Some(row) => Ok(ProjectionRow::parse(&row)?.progress),
        None => Ok(Progress::Until(Key::new())),
    }
}

/// Why a page was not taken.
enum NotRebuilt {
    /// What the app does with the records failed: it would again.
    App(BoxError),
    /// The store could not read or write, which may pass.
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
    // Decoding and migrating are the app's code too.
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
