//! Mending: making the tables of projections, filling them page by page, and paying debts. Each step is one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, OpenError, StopReason};
use crate::join::{JoinStorage, JoinTx};
use crate::joined::{self, Halt};
use crate::pages::{PAGE, Pages};
use crate::storage::{Entry, Key, ReadError, ScanLimit, ScanPage, Value, WriteBatch, WriteError};
use crate::stored::keys::{self, StoredKey};
use crate::stored::{FormatError, Progress, ProjectionRow, debt_from_value};

use super::all::{Each, Erased};
use super::calls::text_of;
use super::{
    Account, Declared, Mended, Next, Projecting as _, ProjectionState, Projections, PutOff, Settlement,
};

/// Where mending is.
#[derive(Debug, Default)]
pub(super) struct Mending {
    /// The projection at which the search for one to make or to fill begins.
    turn: usize,
    /// How many projections could not be made or filled, one after the other.
    failed: usize,
    /// Whether none of those could be made or filled: the debts of the others come before the next try.
    pays: bool,
    /// Whether tables were made without foreign keys, so that rows may break one.
    unchecked: bool,
    /// Whether all projections were made anew for such rows. Then the rows are of tables of the app, and stay.
    was_broken: bool,
    /// The projection whose filling was last told to have begun.
    told: Option<usize>,
    /// The place in the debts: the projection, and the last record of it that was tried.
    debt: (usize, Key),
    /// Whether this pass over the debts has paid any.
    paid: bool,
}

/// How many records lie between two events of a rebuild. An event for each page would drown the other events.
const TELL_EVERY_RECORDS: u64 = 10_000;

/// How many debts are tried in one step.
const DEBTS_AT_ONCE: ScanLimit = ScanLimit { entries: 64, ..PAGE };

/// A page of which no record is taken is taken back and tried again, if it has this many records: a table may be locked,
/// or lack the rows of another projection, and making a debt of every record would only make work.
const TAKE_BACK_MIN: usize = 16;
/// How often that is done in a row.
const TAKE_BACK_MAX: u32 = 3;

/// A step that is due.
#[derive(Clone, Copy)]
enum Due {
    Make(usize),
    Fill(usize, u64),
    Check,
    Pay(usize),
    Nothing,
}

/// Why a step was not done.
enum NotDone {
    /// The app or the store failed; another try may succeed.
    Failed(String),
    Stop(StopReason),
}

impl From<ReadError> for NotDone {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<FormatError> for NotDone {
    fn from(error: FormatError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<StopReason> for NotDone {
    fn from(reason: StopReason) -> Self {
        Self::Stop(reason)
    }
}

impl<S: JoinStorage> Projections<S> {
    /// Takes note of how far each projection was, and makes the tables that are missing.
    pub(super) async fn opened(
        self: &Arc<Self>,
        store: &S,
        rows: &BTreeMap<String, ProjectionRow>,
    ) -> Result<(), OpenError> {
        let location = store.location();
        for (at, projection) in self.all.iter().enumerate() {
            let declared = projection.declared();
            let row = rows.get(declared.name).filter(|row| declared.fits(row));
            let Some(row) = row else { continue };
            let is_complete = row.progress == Progress::Complete;
            let mut pages = Pages::new(store, keys::debts_of(declared.name));
            let (mut debts, mut first_page) = (0, Vec::new());
            let read = |source| OpenError::Read { location: location.clone(), source };
            while let Some(page) = pages.next().await.map_err(read)? {
                if debts == 0 {
                    first_page.clone_from(&page);
                }
                debts += page.len() as u64;
            }
            let mut state = self.state();
            let Some(each) = state.each.get_mut(at) else { continue };
            each.begin();
            each.debts = debts;
            let may_break = !is_complete && self.all.len() > 1;
            if is_complete {
                each.state = ProjectionState::Complete;
            }
            for (record, error) in debts_in(first_page) {
                each.know(&record, error);
            }
            // An earlier opening made tables, and may have ended before it checked the foreign keys.
            state.mending.unchecked |= may_break;
        }
        let missing = self.state().each.iter().filter(|each| !each.made).count();
        for _ in 0..missing {
            // A projection that cannot be made fails no opening: the app needs its records also without it.
            self.mend_one(store).await.map_err(|reason| {
                let source = match reason {
                    StopReason::Fenced => WriteError::Fenced,
                    other => WriteError::unknown(other.to_string()),
                };
                OpenError::Write { location: location.clone(), source }
            })?;
        }
        Ok(())
    }

    /// Does the next step.
    pub(super) async fn mend_one(self: &Arc<Self>, store: &S) -> Result<Mended, StopReason> {
        let mut told = None;
        let next = match self.due() {
            Due::Make(at) => {
                let made = self.make_tables(store, at).await;
                told = Some(at);
                self.ended(at, made, Each::begin)?
            }
            Due::Fill(at, before) => match self.fill(store, at).await {
                Ok((taken, completes, settlement)) => {
                    let records = before + taken;
                    let settled = self.settle(settlement);
                    let mut state = self.state();
                    let begins = state.mending.told.replace(at) != Some(at);
                    let often = records / TELL_EVERY_RECORDS > before / TELL_EVERY_RECORDS;
                    if completes || begins || often || !settled.notices.is_empty() {
                        told = Some(at);
                    }
                    if let Some(each) = state.each.get_mut(at) {
                        each.taken_back = 0;
                        each.state = match completes {
                            true => ProjectionState::Complete,
                            false => ProjectionState::Rebuilding { records },
                        };
                    }
                    state.mending.failed = 0;
                    Next::Again
                }
                Err(error) => self.ended(at, Err(error), |_| ())?,
            },
            Due::Check => {
                let is_broken = store.breaks_foreign_keys().await;
                let mut state = self.state();
                match is_broken {
                    Ok(true) if !state.mending.was_broken => {
                        (state.mending.was_broken, state.mending.pays) = (true, false);
                        state.each.iter_mut().for_each(|each| each.made = false);
                        Next::Again
                    }
                    Ok(_) => {
                        state.mending.unchecked = false;
                        Next::Again
                    }
                    Err(_) => Next::Later,
                }
            }
            Due::Pay(at) => self.pay(store, at, &mut told).await?,
            Due::Nothing => match std::mem::take(&mut self.state().mending.pays) {
                true => Next::Later,
                false => Next::Done,
            },
        };
        let told = told.and_then(|at| self.status().into_iter().nth(at));
        Ok(Mended { told, next })
    }

    /// The next step that is due.
    fn due(&self) -> Due {
        let mut state = self.state();
        let count = state.each.len();
        let turn = state.mending.turn;
        let order = || (turn..count).chain(0..turn.min(count)).filter(|_| !state.mending.pays);
        // Tables are made before any is filled. One that could not be made takes turns with those to fill.
        let fresh = |each: &Each| !each.made && !matches!(each.state, ProjectionState::Failed { .. });
        let due = order().find(|at| state.each.get(*at).is_some_and(fresh)).map(Due::Make);
        let due = due.or_else(|| {
            order().find_map(|at| match state.each.get(at)? {
                Each { made: false, .. } => Some(Due::Make(at)),
                Each { state: ProjectionState::Rebuilding { records }, .. } => Some(Due::Fill(at, *records)),
                _ => None,
            })
        });
        if let Some(due @ (Due::Make(at) | Due::Fill(at, _))) = due {
            state.mending.turn = at;
            return due;
        }
        if state.mending.unchecked {
            return Due::Check;
        }
        let from = state.mending.debt.0;
        let owes = |at: &usize| state.each.get(*at).is_some_and(|each| each.debts > 0);
        match (from..count).chain(0..from.min(count)).find(owes) {
            Some(at) => Due::Pay(at),
            None => Due::Nothing,
        }
    }

    /// Takes note of how a step for one projection ended. If it failed, the others have their turn first.
    fn ended(
        &self,
        at: usize,
        result: Result<(), NotDone>,
        done: impl FnOnce(&mut Each),
    ) -> Result<Next, StopReason> {
        let mut state = self.state();
        let unfinished =
            state.each.iter().filter(|each| !each.made || each.state != ProjectionState::Complete).count();
        let Some(each) = state.each.get_mut(at) else { return Ok(Next::Done) };
        match result {
            Ok(()) => {
                done(each);
                state.mending.failed = 0;
                state.mending.unchecked |= self.all.len() > 1;
                Ok(Next::Again)
            }
            Err(NotDone::Failed(error)) => {
                if !each.made {
                    each.state = ProjectionState::Failed { error };
                }
                state.mending.turn = at + 1;
                state.mending.failed += 1;
                if state.mending.failed >= unfinished {
                    (state.mending.failed, state.mending.pays) = (0, true);
                }
                Ok(Next::Other)
            }
            Err(NotDone::Stop(reason)) => Err(reason),
        }
    }

    /// Makes the tables of a projection anew.
    async fn make_tables(&self, store: &S, at: usize) -> Result<(), NotDone> {
        let Some(projection) = self.all.get(at).cloned() else { return Ok(()) };
        let mut batch = WriteBatch::new();
        let Declared { name, .. } = projection.declared();
        batch.put(keys::projection(name), row(&*projection, Progress::Until(Key::new())));
        batch.delete_range(keys::debts_of(name));
        let job = move |tx: &S::Tx<'_>| -> Result<(), Halt> {
            projection.reset(tx.native()).map_err(|error| Halt::Error(Error::Aborted(error)))?;
            tx.apply(&batch).map_err(|error| Halt::Error(Error::Aborted(error)))
        };
        joined::without_foreign_keys(store, job).await?.map_err(failed)
    }

    /// Takes the next page of records. Returns how many it has, whether it was the last, and its debts.
    async fn fill(self: &Arc<Self>, store: &S, at: usize) -> Result<(u64, bool, Settlement), NotDone> {
        let Some(projection) = self.all.get(at) else { return Ok((0, true, Settlement::default())) };
        let name = projection.declared().name;
        let stored = store.get_many(&[keys::projection(name)]).await?.into_iter().next().flatten();
        let range = match stored.map(|row| ProjectionRow::parse(&row)).transpose()?.map(|row| row.progress) {
            Some(Progress::Complete) => return Ok((0, true, Settlement::default())),
            Some(Progress::Until(key)) if !key.is_empty() => projection.range().clone().after(&key),
            Some(Progress::Until(_)) | None => projection.range().clone(),
        };
        let ScanPage { entries: page, more } = store.scan(range, PAGE).await?;
        let last = page.last().filter(|_| more).map(|entry| entry.key.clone());
        let (records, completes) = (page.len(), last.is_none());
        let mut batch = WriteBatch::new();
        batch.put(
            keys::projection(name),
            row(&**projection, last.map_or(Progress::Complete, Progress::Until)),
        );
        let takes_back = {
            let mut state = self.state();
            let each = state.each.get_mut(at);
            each.is_some_and(|each| {
                let takes_back = records >= TAKE_BACK_MIN && each.taken_back < TAKE_BACK_MAX;
                each.taken_back += u32::from(takes_back);
                takes_back
            })
        };
        let (this, page, batch) = (Arc::clone(self), Arc::new(page), Arc::new(batch));
        let job = move |tx: &S::Tx<'_>, put_off: &PutOff| -> Result<Settlement, Halt> {
            let mut account = Account::default();
            for Entry { key, value } in &*page {
                this.project_one(tx, at, (key, value), put_off, &mut account)?;
            }
            match account.first_debt() {
                Some(error) if takes_back && account.debts() == page.len() => {
                    return Err(Halt::Error(Error::Aborted(error.into())));
                }
                _ => {}
            }
            tx.apply(&batch).map_err(|error| Halt::Error(Error::Rejected(error.into())))?;
            Ok(account.close(tx, &this)?)
        };
        let settlement = joined::putting_off(store, None, job).await?.map_err(failed)?;
        Ok((records as u64, completes, settlement))
    }

    /// Tries the next debts of a projection. If the store cannot undo a failed call alone, tries them one by one.
    async fn pay(
        self: &Arc<Self>,
        store: &S,
        at: usize,
        told: &mut Option<usize>,
    ) -> Result<Next, StopReason> {
        let Some(projection) = self.all.get(at) else { return Ok(Next::Done) };
        let range = keys::debts_of(projection.declared().name);
        let after = {
            let state = self.state();
            let (place, last) = &state.mending.debt;
            (*place == at && !last.is_empty()).then(|| last.clone())
        };
        let range = match after {
            Some(last) => range.after(&last),
            None => range,
        };
        let Ok(page) = store.scan(range, DEBTS_AT_ONCE).await else { return Ok(Next::Later) };
        let ScanPage { entries: page, more } = page;
        let last = page.last().filter(|_| more).map(|entry| entry.key.clone());
        let mut owing = Vec::with_capacity(page.len());
        if let Some(each) = self.state().each.get_mut(at) {
            // The debts that were shown may all be paid: then another one is shown, and the app is told.
            if each.shows_none() {
                *told = Some(at);
            }
            for (record, error) in debts_in(page) {
                each.know(&record, error);
                owing.push(record);
            }
        }
        let mut tries = vec![owing];
        let mut paid = false;
        while let Some(records) = tries.pop() {
            if records.is_empty() {
                continue;
            }
            match self.pay_some(store, at, records.clone()).await? {
                Paid::Some(settlement) => {
                    paid = true;
                    self.settle(settlement);
                    *told = Some(at);
                }
                Paid::Nothing => {}
                Paid::Spoiled if records.len() == 1 => {}
                Paid::Spoiled => tries.extend(records.into_iter().map(|record| vec![record])),
            }
        }
        let mut state = self.state();
        state.mending.paid |= paid;
        let ends = last.is_none();
        state.mending.debt = match last {
            Some(last) => (at, last),
            None => (at + 1, Key::new()),
        };
        // A pass ends behind the last projection that has debts. It was worth it if it paid any: that may be what
        // another debt waits for.
        let is_last = !state.each.iter().skip(at + 1).any(|each| each.debts > 0);
        Ok(match (paid, ends && is_last) {
            (_, true) => {
                (state.mending.debt, state.mending.pays) = ((0, Key::new()), false);
                match std::mem::take(&mut state.mending.paid) {
                    true => Next::Again,
                    false => Next::Later,
                }
            }
            (true, false) => Next::Again,
            (false, false) => Next::Other,
        })
    }

    /// Tries these debts in one transaction.
    async fn pay_some(self: &Arc<Self>, store: &S, at: usize, records: Vec<Key>) -> Result<Paid, StopReason> {
        let this = Arc::clone(self);
        let job = move |tx: &S::Tx<'_>| -> Result<Settlement, Halt> {
            let mut account = Account::default();
            let values = joined::read(tx, &records)?;
            for (record, value) in records.iter().zip(values) {
                match value {
                    Some(value) => {
                        this.project_one(tx, at, (record, &value), &PutOff::default(), &mut account)?;
                    }
                    // A record that is gone has no rows to write.
                    None => account.took(at, record),
                }
            }
            let settlement = account.close(tx, &this)?;
            // Without a debt that is paid there is nothing to make durable.
            if settlement.pays() {
                Ok(settlement)
            } else {
                Err(Halt::Error(Error::Aborted("no debt is paid".into())))
            }
        };
        Ok(match joined::in_transaction(store, None, job).await? {
            Ok(settlement) => Paid::Some(settlement),
            Err(Halt::Error(_)) => Paid::Nothing,
            Err(Halt::NotCommitted(_) | Halt::Spoiled { .. }) => Paid::Spoiled,
        })
    }
}

/// The outcome of trying debts.
enum Paid {
    Some(Settlement),
    Nothing,
    /// One of them failed, and what it did could not be undone alone.
    Spoiled,
}

/// The records and errors of the debts in these rows.
fn debts_in(rows: Vec<Entry>) -> impl Iterator<Item = (Key, String)> {
    rows.into_iter().filter_map(|Entry { key, value }| match StoredKey::parse(&key) {
        Some(StoredKey::Debt(_, record)) => {
            Some((record.into_bytes(), debt_from_value(&value).unwrap_or_default()))
        }
        _ => None,
    })
}

/// The row of a projection that is so far.
fn row<S: JoinStorage>(projection: &dyn Erased<S>, progress: Progress) -> Value {
    let Declared { version, schema, .. } = projection.declared();
    ProjectionRow { version, schema, progress }.to_value()
}

fn failed(error: impl Into<Error>) -> NotDone {
    NotDone::Failed(text_of(&error.into()))
}
