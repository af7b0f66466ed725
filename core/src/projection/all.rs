//! All projections of a store: what they are, how far each is, and what each owes.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::engine::{Commit, Current, Received, Ticket};
use crate::error::{Error, OpenError, StopReason, panic_message};
use crate::events::{Event, RecordKey};
use crate::join::{JoinStorage, Native};
use crate::joined::{self, Work};
use crate::model;
use crate::storage::{BoxError, KeyRange, WriteBatch};
use crate::stored::{FormatError, ProjectionRow, record};
use crate::syncable::Syncable;

use super::account::Change;
use super::mend::Mending;
use super::{
    Debt, Declared, Manner, Mended, Projecting, Projection, ProjectionState, ProjectionStatus, Settled,
    Settlement,
};

/// All projections of one store.
pub(crate) struct Projections<S: JoinStorage> {
    pub(super) all: Vec<Arc<dyn Erased<S>>>,
    pub(super) state: Mutex<State>,
}

/// How far the projections are.
#[derive(Debug)]
pub(super) struct State {
    pub(super) each: Vec<Each>,
    pub(super) mending: Mending,
}

/// How far one projection is.
#[derive(Clone, Debug)]
pub(super) struct Each {
    pub(super) state: ProjectionState,
    /// Whether its tables are made.
    pub(super) made: bool,
    /// How often in a row a page of it was taken back, since no record of the page could be taken.
    pub(super) taken_back: u32,
    /// How many debts it has.
    pub(super) debts: u64,
    /// Some of its debts.
    some: BTreeMap<RecordKey, String>,
}

/// How many debts of a projection are kept in memory, of which one is shown.
const DEBTS_SHOWN_MAX: usize = 16;

impl Each {
    fn new() -> Self {
        let state = ProjectionState::Rebuilding { records: 0 };
        Self { state, made: false, taken_back: 0, debts: 0, some: BTreeMap::new() }
    }

    /// Takes note that the tables were made anew.
    pub(super) fn begin(&mut self) {
        *self = Self { made: true, ..Self::new() };
    }

    /// Takes note of a debt that is stored.
    pub(super) fn know(&mut self, record: &[u8], error: String) {
        if let Some(record) = RecordKey::from_bytes(record)
            && (self.some.len() < DEBTS_SHOWN_MAX || self.some.contains_key(&record))
        {
            self.some.insert(record, error);
        }
    }

    /// Whether there are debts of which none is kept in memory.
    pub(super) fn shows_none(&self) -> bool {
        self.debts > 0 && self.some.is_empty()
    }

    fn forget(&mut self, record: &[u8]) {
        if let Some(record) = RecordKey::from_bytes(record) {
            self.some.remove(&record);
        }
    }
}

/// A projection behind a trait object, which hides its model.
pub(super) trait Erased<S: JoinStorage>: Send + Sync {
    fn declared(&self) -> Declared;
    fn range(&self) -> &KeyRange;
    fn reset(&self, tx: &Native<'_, S>) -> Result<(), BoxError>;
    /// Takes a record. An error other than [`Error::Projection`] says that its value cannot be decoded, and that no code
    /// that writes has run.
    fn project(&self, tx: &Native<'_, S>, key: &[u8], stored: &[u8]) -> Result<(), Error>;
    /// Removes the rows of a record.
    fn leave_out(&self, tx: &Native<'_, S>, key: &[u8]) -> Result<(), BoxError>;
}

impl<S: JoinStorage> Projections<S> {
    pub(super) fn new(all: Vec<Arc<dyn Erased<S>>>) -> Self {
        let each = all.iter().map(|_| Each::new()).collect();
        Self { all, state: Mutex::new(State { each, mending: Mending::default() }) }
    }

    /// Returns the projections behind the trait. No other type implements it, so this always succeeds.
    pub(crate) fn of(erased: Arc<dyn Projecting<S>>) -> Option<Arc<Self>> {
        erased.into_any().downcast().ok()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_complete(&self, at: usize) -> bool {
        self.state().each.get(at).is_some_and(|each| each.state == ProjectionState::Complete)
    }

    /// Whether the projection may have debts that a call pays: it has some, or the write under way may make one.
    pub(super) fn may_owe(&self, at: usize) -> bool {
        let state = self.state();
        state.each.get(at).is_some_and(|each| each.debts > 0) || !state.all_are_complete()
    }

    /// What a failed call means to a commit of this replica: while tables are being filled, rows that it needs may not
    /// be there yet.
    pub(crate) fn manner(&self) -> Manner {
        if self.state().all_are_complete() { Manner::Refuse } else { Manner::Owe }
    }

    /// Takes note of the debts that a durable write has changed.
    pub(crate) fn settle(&self, settlement: Settlement) -> Settled {
        let mut settled = Settled::default();
        let mut changed = vec![false; self.all.len()];
        let mut state = self.state();
        for Change { at, record, error, is_old } in settlement.0 {
            let (Some(each), Some(changed)) = (state.each.get_mut(at), changed.get_mut(at)) else { continue };
            *changed = true;
            match error {
                Some(error) => {
                    each.debts += u64::from(!is_old);
                    each.know(&record, error);
                    settled.owes = true;
                }
                None => {
                    each.debts = each.debts.saturating_sub(1);
                    each.forget(&record);
                }
            }
        }
        drop(state);
        for (status, changed) in self.status().into_iter().zip(changed) {
            if changed {
                settled.notices.push([Event::Projection(status)].into());
            }
        }
        settled
    }
}

impl State {
    fn all_are_complete(&self) -> bool {
        self.each.iter().all(|each| each.state == ProjectionState::Complete)
    }
}

impl<S: JoinStorage> Projecting<S> for Projections<S> {
    fn declared(&self) -> Vec<Declared> {
        self.all.iter().map(|projection| projection.declared()).collect()
    }

    fn ranges(&self) -> Vec<KeyRange> {
        self.all.iter().map(|projection| projection.range().clone()).collect()
    }

    fn begin<'a>(
        self: Arc<Self>,
        store: &'a S,
        rows: &'a BTreeMap<String, ProjectionRow>,
    ) -> BoxFuture<'a, Result<(), OpenError>> {
        async move { self.opened(store, rows).await }.boxed()
    }

    fn round(self: Arc<Self>, round: Vec<(Ticket, Commit)>) -> Work<S> {
        joined::round(round, self)
    }

    fn receive(self: Arc<Self>, commits: Vec<Received>) -> Work<S> {
        joined::receive(commits, self)
    }

    fn write<'a>(
        self: Arc<Self>,
        store: &'a S,
        batch: WriteBatch,
    ) -> BoxFuture<'a, Result<Result<Settled, Error>, StopReason>> {
        joined::write(store, batch, self).boxed()
    }

    fn mend(self: Arc<Self>, store: &S) -> BoxFuture<'_, Result<Mended, StopReason>> {
        async move { self.mend_one(store).await }.boxed()
    }

    fn status(&self) -> Vec<ProjectionStatus> {
        let state = self.state();
        let described = self.all.iter().zip(&state.each);
        described
            .map(|(projection, each)| {
                let Declared { name, version, .. } = projection.declared();
                let first_debt = each.some.iter().next();
                let first_debt =
                    first_debt.map(|(record, error)| Debt { record: record.clone(), error: error.clone() });
                ProjectionStatus { name, version, state: each.state.clone(), debts: each.debts, first_debt }
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
            let current = Current { schema: header.schema, value };
            let decoded = catch_unwind(AssertUnwindSafe(|| model::decode::<P::Model>(&id, current)));
            let model = decoded.unwrap_or_else(|panic| Err(Error::from_panic(&*panic)))?;
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

    fn leave_out(&self, tx: &Native<'_, S>, key: &[u8]) -> Result<(), BoxError> {
        match RecordKey::id_in::<P::Model>(key) {
            Some(id) => contain(|| self.projection.delete(tx, &id)),
            None => Ok(()),
        }
    }
}

/// Runs the app's code. A panic in it becomes an error, since what it did is undone either way.
fn contain(work: impl FnOnce() -> Result<(), BoxError>) -> Result<(), BoxError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(format!("it panicked: {}", panic_message(&*panic)).into()))
}
