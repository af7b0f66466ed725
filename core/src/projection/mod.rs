//! Projections: tables that the app derives from its records, kept in step by the same transaction.
//!
//! A row for each projection says how far it is: complete, or up to which record while it is being rebuilt. A change
//! of a record up to there is projected with its commit; a record beyond is projected by the rebuild later. So commits
//! go on during a rebuild, and no record is projected twice or left out. The row is read in the transaction of the
//! commit, so the two cannot disagree.

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

/// A table or an index that the app derives from the records of one model, for its SQL to join or to search.
///
/// A projection runs inside the native transaction of every commit that changes such a record, so its rows are always
/// exactly in step: there with the commit, undone with it. An error or a panic of the projection rejects the commit.
///
/// Such a commit is a joined write and shares its write with no other commit, so that an error in one commit is none
/// in another: put many changes at once into one [`commit_batch`](crate::TransactionManager::commit_batch). A record
/// that a newer version of the app wrote is left out of the projection until this app is updated.
///
/// Opening a store rebuilds a projection from the records if it is new, if its [`VERSION`](Projection::VERSION) or
/// the schema of its model has changed, or if the store was opened without it in between. The rebuild takes a page at
/// a time, beside the commits. [`Status::projections`](crate::Status::projections) and
/// [`Event::Projection`](crate::Event::Projection) say how far it is. If the projection fails in a rebuild, or if the
/// store fails again and again, the rebuild ends until the next opening, and both say so. The records that were not
/// rebuilt are then missing in the projection, and only there.
///
/// # Contract
/// - A projection depends on its arguments and on its own rows alone, and nothing else writes these rows.
/// - A projection sees each commit whole, also one of another device; the records of a commit come in any order. A
///   commit comes after its causes.
/// - A projection must not end the transaction, does not use the manager, and leaves tables whose names begin with
///   `syncline` alone.
pub trait Projection<S: JoinStorage>: Send + Sync + 'static {
    /// The model that the projection derives from. Registering the projection registers the model.
    type Model: Syncable;

    /// The name of the projection, 1 to 64 bytes, which no other projection of the app has. Under another name it is
    /// another projection to the library; the app must drop the tables of the old one.
    const NAME: &'static str;

    /// The version of the projection. Raise it whenever the projection writes other rows.
    const VERSION: u32;

    /// Begins from nothing: drops the tables of an earlier version, and creates empty ones.
    ///
    /// # Errors
    /// The error that the app reports. The projection is then not rebuilt before the next opening.
    fn reset(&self, tx: &Native<'_, S>) -> Result<(), BoxError>;

    /// Takes a record that is new or has changed: replaces the rows of its id.
    ///
    /// # Errors
    /// The error that the app reports. It rejects the commit.
    fn put(&self, tx: &Native<'_, S>, model: &Self::Model) -> Result<(), BoxError>;

    /// Removes the rows of a record, if it has any.
    ///
    /// # Errors
    /// As [`put`](Projection::put).
    fn delete(&self, tx: &Native<'_, S>, id: &RecordId<Self::Model>) -> Result<(), BoxError>;
}

/// The status of a projection: how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// The name of the projection.
    pub name: &'static str,
    /// The version of the projection.
    pub version: u32,
    /// How far the projection is.
    pub state: ProjectionState,
}

/// How far a projection is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProjectionState {
    /// The projection is being rebuilt from the records.
    Rebuilding {
        /// How many records the rebuild has taken since the store was opened.
        records: u64,
    },
    /// The projection has every record, and follows every commit.
    Complete,
    /// The rebuild failed and goes on when the store is opened again. Until then the projection follows the commits of
    /// the records that it has.
    Failed {
        /// The error that ended the rebuild.
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

/// The parts of a projection that the opening of a store must know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declared {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) schema: u16,
}

impl Declared {
    /// Whether `row` has the version and the schema that the projection has now, so that it can go on where it was.
    pub(crate) fn fits(&self, row: &ProjectionRow) -> bool {
        (row.version, row.schema) == (self.version, self.schema)
    }
}

/// The projections of a store, for callers that know the store only as a [`Storage`] and not as a [`JoinStorage`].
pub(crate) trait Projecting<S: Storage>: Send + Sync {
    /// The registered projections, in the order of the app.
    fn declared(&self) -> Vec<Declared>;

    /// Takes note of how far each projection was when the store was opened.
    fn begin(&self, rows: &BTreeMap<String, ProjectionRow>);

    /// Whether any projection derives from this record.
    fn concern(&self, record: &RecordKey) -> bool;

    /// Makes the joined write that commits `commit` and projects it.
    fn work(self: Arc<Self>, commit: Commit) -> Work<S>;

    /// Makes the joined write that applies commits of others and projects them.
    fn receive(self: Arc<Self>, commits: Vec<Received>) -> Work<S>;

    /// Writes folded records and projects them. The inner result is durable, or certainly undone.
    fn write<'a>(
        self: Arc<Self>,
        store: &'a S,
        batch: WriteBatch,
    ) -> BoxFuture<'a, Result<Result<(), Error>, StopReason>>;

    /// Takes note that these projections begin from nothing.
    fn restart(&self, names: &[&'static str]);

    /// The name of each projection, and the range of the records that it derives from.
    fn ranges(&self) -> Vec<(&'static str, KeyRange)>;

    /// Rebuilds one page of the first projection that is not complete, and returns the status to tell the app, if it
    /// is time to; `None` if no projection is left to rebuild.
    fn rebuild<'a>(&'a self, store: &'a S) -> BoxFuture<'a, Result<Option<Told>, StopReason>>;

    fn status(&self) -> Vec<ProjectionStatus>;

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// The status to tell the app after a step of a rebuild; `None`, most of the time.
pub(crate) type Told = Option<ProjectionStatus>;
