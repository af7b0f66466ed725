//! Projections: tables that the app derives from its records, kept in step by the same transaction.
//!
//! A row for each projection says how far it is: complete, or up to which record while it is being rebuilt. A change
//! of a record up to there is projected with its commit; a record beyond is projected by the rebuild later. So commits
//! go on during a rebuild, and no record is projected twice or left out. The row is read in the transaction of the
//! commit, so the two cannot disagree.
//!
//! A record that a projection cannot take becomes a *debt*, in the same transaction: what an app derives must not hold
//! up what it receives. Debts are paid later, when the projection takes the record after all.
//!
//! | what | where |
//! |---|---|
//! | the projections of a store, and how far each is | [`all`] |
//! | projecting the records of one write | [`calls`] |
//! | the debts of one write | [`account`] |
//! | making tables, filling them, paying debts | [`mend`] |

mod account;
mod all;
mod calls;
mod mend;

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::builder::Builder;
use crate::engine::{Commit, Received, Ticket};
use crate::error::{Error, OpenError, StopReason};
use crate::events::{Notice, RecordKey};
use crate::join::{JoinStorage, Native};
use crate::joined::Work;
use crate::storage::{BoxError, KeyRange, Storage, WriteBatch};
use crate::stored::ProjectionRow;
use crate::syncable::{RecordId, Syncable};
pub(crate) use account::{Account, Settlement};
pub(crate) use all::Projections;
use all::{Erased, Typed};
pub(crate) use calls::{Manner, PutOff};

/// A table or an index that the app derives from the records of one model, for its SQL to join or to search.
///
/// A projection runs inside the native transaction of every commit that changes such a record, so its rows are always
/// in step: there with the commit, undone with it. **A projection is its records less its debts.**
///
/// # Errors and debts
/// An error or a panic of the projection rejects a commit of this replica ([`Error::Projection`]). A commit of another
/// device goes on all the same: records never wait for what is derived from them. The record is then a *debt* of the
/// projection, stored with the error in the same transaction, and what the failed call had done is undone. Debts stand
/// in [`ProjectionStatus::debts`] and [`Event::Projection`](crate::Event::Projection). They are tried again after each
/// later change of a projected record, ever more rarely otherwise, and when the store is opened; a debt that is paid
/// vanishes. While a projection of the store is being rebuilt, an error may come from rows that are not there yet:
/// commits of this replica make debts then too.
///
/// A value that this app cannot decode is left out of the table, and is a debt. So is nothing else that is left out: a
/// record that a newer version of the app wrote waits, uncounted, for this app to be updated.
///
/// Commits of this replica share writes also where there are projections, and an error in one is none in another. A
/// commit with an [`update`](crate::TransactionManager::update) and a [`with_tx`](crate::TransactionManager::with_tx)
/// have a write to themselves: what they ran cannot be run again without the commit beside them that failed. On a store
/// whose engine cannot undo [a part of a transaction](crate::JoinTx::attempt) (redb), a write with a failed call is done
/// again without it.
///
/// # Making and rebuilding
/// Opening a store makes the tables with [`reset`](Projection::reset), before `open` returns, and then fills them from
/// the records, if the projection is new, if its [`VERSION`](Projection::VERSION) or the schema of its model has
/// changed, or if the store was opened without it in between. Filling takes a page at a time, beside the commits;
/// [`Status::projections`](crate::Status::projections) and [`Event::Projection`](crate::Event::Projection) say how far
/// it is. What fails is tried again, ever more rarely. Foreign keys are not enforced while tables are made, so that a
/// table that others refer to can be made anew without emptying them, and the order in which projections are registered
/// does not matter. They are checked once all is filled: if a row breaks one, all projections are made anew, once;
/// debts that are counted until then may pass.
///
/// # Snapshots
/// A snapshot is folded into the records step by step, and each step is projected with its records. Meanwhile reads of records
/// show all of the snapshot, and tables follow: [`InstallStatus::folding`](crate::InstallStatus::folding) says so. Commits
/// that change a projected record wait for the end of it.
///
/// # Contract
/// - A projection depends on its arguments and on its own rows alone, and nothing else writes these rows.
/// - A projection sees each commit whole, also one of another device; the records of a commit come in any order. A
///   commit comes after its causes. A call that fails is repeated after the others of its commit, so that a child may
///   come before its parent.
/// - A table has no constraint that two devices can break apart: a `UNIQUE` name that both may give, a foreign key to a
///   row that one deletes while the other refers to it. Each device would keep the row that came first, and owe the
///   other: their tables differ until somebody changes a record. Check such rules when you commit, or when you read. Records are taken one by one,
///   so two that swap a `UNIQUE` value in one commit are refused too.
/// - `INSERT OR REPLACE` deletes the row that it replaces, and with `ON DELETE CASCADE` everything that refers to it:
///   write `INSERT … ON CONFLICT (id) DO UPDATE SET …`.
/// - A projection must not end the transaction, does not use the manager, and leaves tables and savepoints whose names
///   begin with `syncline` alone.
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
    /// The error that the app reports. The projection follows no commit until a later try succeeds.
    fn reset(&self, tx: &Native<'_, S>) -> Result<(), BoxError>;

    /// Takes a record that is new or has changed: replaces the rows of its id.
    ///
    /// # Errors
    /// The error that the app reports. It rejects a commit of this replica, and makes a debt of another's record.
    fn put(&self, tx: &Native<'_, S>, model: &Self::Model) -> Result<(), BoxError>;

    /// Removes the rows of a record, if it has any.
    ///
    /// # Errors
    /// As [`put`](Projection::put).
    fn delete(&self, tx: &Native<'_, S>, id: &RecordId<Self::Model>) -> Result<(), BoxError>;
}

/// The status of a projection: how far it is, and what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// The name of the projection.
    pub name: &'static str,
    /// The version of the projection.
    pub version: u32,
    /// How far the projection is.
    pub state: ProjectionState,
    /// How many records the projection could not take: the table may show nothing of them, or what they were before.
    pub debts: u64,
    /// One of these debts, if there are any; for a moment `None` after those that were shown are paid, until another one
    /// is tried.
    pub first_debt: Option<Debt>,
}

/// A record that a projection could not take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Debt {
    /// The record.
    pub record: RecordKey,
    /// The error of the last try that was stored: what the projection reported, or why the value cannot be decoded.
    pub error: String,
}

/// How far a projection is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProjectionState {
    /// The projection is being filled from the records.
    Rebuilding {
        /// How many records the rebuild has taken since the store was opened.
        records: u64,
    },
    /// The projection has every record, less its debts, and follows every commit.
    Complete,
    /// The tables could not be made. That is tried again, ever more rarely; until then the projection follows no
    /// commit.
    Failed {
        /// The error of the last try.
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

    /// The range of the records that each projection derives from.
    fn ranges(&self) -> Vec<KeyRange>;

    /// Takes note of how far each projection was when the store was opened, and makes the tables that are missing.
    fn begin<'a>(
        self: Arc<Self>,
        store: &'a S,
        rows: &'a BTreeMap<String, ProjectionRow>,
    ) -> BoxFuture<'a, Result<(), OpenError>>;

    /// Makes the joined write that commits a round of commits and projects them.
    fn round(self: Arc<Self>, round: Vec<(Ticket, Commit)>) -> Work<S>;

    /// Makes the joined write that applies commits of others and projects them.
    fn receive(self: Arc<Self>, commits: Vec<Received>) -> Work<S>;

    /// Writes folded records and projects them. The inner result is durable, or certainly undone.
    fn write<'a>(
        self: Arc<Self>,
        store: &'a S,
        batch: WriteBatch,
    ) -> BoxFuture<'a, Result<Result<Settled, Error>, StopReason>>;

    /// Does the next step towards projections that are complete and owe nothing.
    fn mend(self: Arc<Self>, store: &S) -> BoxFuture<'_, Result<Mended, StopReason>>;

    fn status(&self) -> Vec<ProjectionStatus>;

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// The outcome of a durable write for the debts of projections.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The projections whose debts have changed, to tell the app.
    pub(crate) notices: Vec<Notice>,
    /// Whether the write made a debt.
    pub(crate) owes: bool,
}

/// The outcome of a step of mending.
#[derive(Debug)]
pub(crate) struct Mended {
    /// The status to tell the app, most of the time none.
    pub(crate) told: Option<ProjectionStatus>,
    pub(crate) next: Next,
}

/// What comes after a step of mending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The step got on: another may too.
    Again,
    /// The step got nothing done, and others are left to try.
    Other,
    /// Nothing that is left could be done now.
    Later,
    /// Nothing is left.
    Done,
}
