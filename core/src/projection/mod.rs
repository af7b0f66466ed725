//! Projections: what the app derives from its records in tables of its own, kept in step by the same transaction.
//!
//! A row for each projection says how far it has got: complete, or up to which record while it is being rebuilt.
//! A change up to there is projected with its commit, one beyond is met by the rebuild later, so commits go on
//! meanwhile and nothing is projected twice or left out. The row is read in the transaction of the commit, so the
//! two cannot disagree.

mod all;

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::builder::Builder;
use crate::engine::{Commit, Received};
use crate::error::{Error, StopReason};
use crate::events::RecordKey;
use crate::join::{JoinStorage, Native};
use crate::joined::Work;
use crate::storage::{BoxError, KeyRange, Storage, WriteBatch};
use crate::stored::ProjectionRow;
use crate::syncable::{RecordId, Syncable};
pub(crate) use all::Projections;
use all::{Erased, Typed};

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
