//! Projecting the records of one write: which projections take which records, and what becomes of a call that fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Error;
use crate::join::{Attempt, JoinStorage, JoinTx};
use crate::joined::{self, Halt};
use crate::storage::{BoxError, Key};
use crate::stored::{Progress, ProjectionRow, keys};

use super::all::Erased;
use super::{Account, Projections};

/// What a failed call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The commit is refused.
    Refuse,
    /// The record is a debt.
    Owe,
}

/// How often the calls that failed are repeated after the others: a chain of rows that refer to each other may come in
/// the worst order.
const REPEATS_MAX: usize = 64;

/// The calls that spoiled the earlier tries of a write, and are left out of this one.
#[derive(Clone, Debug, Default)]
pub(crate) struct PutOff {
    calls: BTreeMap<(usize, Key), String>,
    /// The error for which every call is left out.
    all: Option<String>,
}

/// How many calls are put off one by one. Each costs another try of the write; after that all are put off, and the
/// debts show which ones fail.
const CALLS_MAX: usize = 8;

impl PutOff {
    fn error(&self, at: usize, record: &[u8]) -> Option<&str> {
        if let Some(error) = &self.all {
            return Some(error);
        }
        if self.calls.is_empty() {
            return None;
        }
        self.calls.get(&(at, record.to_vec())).map(String::as_str)
    }

    /// Takes note of how a try ended. Returns the error if there is no use in another one.
    pub(crate) fn learn(&mut self, halt: Halt) -> Result<(), Error> {
        match halt {
            Halt::Error(error) => Err(error),
            // A constraint that is checked at the end names no record.
            Halt::NotCommitted(error) if self.all.is_none() => {
                self.all = Some(error.to_string());
                Ok(())
            }
            halt @ Halt::NotCommitted(_) => Err(halt.into()),
            Halt::Spoiled { at, record, error } => {
                let error = text_of(&error);
                if self.calls.len() == CALLS_MAX {
                    self.all = Some(error);
                } else {
                    self.calls.insert((at, record), error);
                }
                Ok(())
            }
        }
    }
}

/// The text of an error that a debt keeps: of a projection, what that reported.
pub(super) fn text_of(error: &Error) -> String {
    match error {
        Error::Projection { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

/// A record for a projection to take.
struct Call<'r, S: JoinStorage> {
    at: usize,
    projection: &'r Arc<dyn Erased<S>>,
    record: &'r [u8],
    stored: &'r [u8],
}

impl<S: JoinStorage> Clone for Call<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: JoinStorage> Copy for Call<'_, S> {}

impl<S: JoinStorage> Projections<S> {
    /// Projects records, each given as its key and its stored value, in the transaction that writes them.
    ///
    /// # Errors
    /// [`Halt`]: the commit or the whole write fails.
    pub(crate) fn project<'r>(
        &self,
        tx: &S::Tx<'_>,
        records: &(impl Iterator<Item = (&'r [u8], &'r [u8])> + Clone),
        manner: Manner,
        put_off: &PutOff,
        account: &mut Account,
    ) -> Result<(), Halt> {
        let mut calls = Vec::new();
        for (at, projection) in self.all.iter().enumerate() {
            // A complete projection stays complete while the store is open, so its row need not be read.
            let mut progress = self.is_complete(at).then_some(Progress::Complete);
            for (record, stored) in records.clone() {
                if !projection.range().contains(record) {
                    continue;
                }
                let progress = match &mut progress {
                    Some(progress) => progress,
                    unread => unread.insert(progress_in(tx, projection.declared().name)?),
                };
                if progress.covers(record) {
                    calls.push(Call { at, projection, record, stored });
                }
            }
        }
        self.make(tx, calls, manner, put_off, account)
    }

    /// Projects one record with one projection.
    pub(super) fn project_one(
        &self,
        tx: &S::Tx<'_>,
        at: usize,
        (record, stored): (&[u8], &[u8]),
        put_off: &PutOff,
        account: &mut Account,
    ) -> Result<(), Halt> {
        let Some(projection) = self.all.get(at) else { return Ok(()) };
        self.make(tx, vec![Call { at, projection, record, stored }], Manner::Owe, put_off, account)
    }

    /// Makes calls, and repeats those that fail after the others for as long as that helps.
    fn make(
        &self,
        tx: &S::Tx<'_>,
        mut calls: Vec<Call<'_, S>>,
        manner: Manner,
        put_off: &PutOff,
        account: &mut Account,
    ) -> Result<(), Halt> {
        // An error of the only call of a commit that is refused undoes the whole transaction, so it needs no part.
        if let ([Call { at, projection, record, stored }], Manner::Refuse) = (calls.as_slice(), manner) {
            projection.project(tx.native(), record, stored)?;
            self.took(*at, record, account);
            return Ok(());
        }
        for repeat in 0..=REPEATS_MAX {
            let mut failed = Vec::new();
            for call in &calls {
                if let Some(error) = put_off.error(call.at, call.record) {
                    account.owes(call.at, call.record, error);
                    continue;
                }
                match attempt(tx, *call)? {
                    Ok(()) => self.took(call.at, call.record, account),
                    Err(error) => failed.push((*call, error)),
                }
            }
            if failed.is_empty() {
                break;
            }
            if failed.len() == calls.len() || repeat == REPEATS_MAX {
                for (call, error) in failed {
                    match manner {
                        Manner::Refuse => return Err(Halt::Error(error)),
                        Manner::Owe => owe(tx, call, &error, account)?,
                    }
                }
                break;
            }
            calls = failed.into_iter().map(|(call, _)| call).collect();
        }
        Ok(())
    }

    fn took(&self, at: usize, record: &[u8], account: &mut Account) {
        // A projection without debts has none to pay, and most have none.
        if self.may_owe(at) {
            account.took(at, record);
        }
    }
}

/// Makes one call as a part of the transaction. The inner error says that the projection did not take the record, and
/// that nothing of the call is there.
fn attempt<S: JoinStorage>(tx: &S::Tx<'_>, call: Call<'_, S>) -> Result<Result<(), Error>, Halt> {
    let mut outcome = Ok(());
    let part = &mut || {
        outcome = call.projection.project(tx.native(), call.record, call.stored);
        match &outcome {
            Err(error @ Error::Projection { .. }) => Err(BoxError::from(error.to_string())),
            // A value that cannot be decoded has reached no code that writes.
            _ => Ok(()),
        }
    };
    match tx.attempt(part) {
        Attempt::Done => Ok(outcome),
        Attempt::Undone(error) => Ok(Err(outcome.err().unwrap_or_else(|| Error::Rejected(error.into())))),
        Attempt::Spoiled(error) => Err(spoiled(call, outcome.err(), error)),
    }
}

fn spoiled<S: JoinStorage>(call: Call<'_, S>, own: Option<Error>, error: BoxError) -> Halt {
    let error = own.unwrap_or_else(|| Error::Rejected(error.into()));
    Halt::Spoiled { at: call.at, record: call.record.to_vec(), error }
}

/// Makes the record of a failed call a debt. A value that cannot be decoded is left out of the table.
fn owe<S: JoinStorage>(
    tx: &S::Tx<'_>,
    call: Call<'_, S>,
    error: &Error,
    account: &mut Account,
) -> Result<(), Halt> {
    if !matches!(error, Error::Projection { .. } | Error::Rejected(_)) {
        // If the rows of the record cannot be removed either, they stay as they were.
        if let Attempt::Spoiled(error) =
            tx.attempt(&mut || call.projection.leave_out(tx.native(), call.record))
        {
            return Err(spoiled(call, None, error));
        }
    }
    account.owes(call.at, call.record, &text_of(error));
    Ok(())
}

/// Reads how far the projection is, as the transaction sees it. Without a row its tables are not made.
fn progress_in(tx: &impl JoinTx, name: &str) -> Result<Progress, Error> {
    match joined::read(tx, &[keys::projection(name)])?.into_iter().next().flatten() {
        Some(row) => Ok(ProjectionRow::parse(&row)?.progress),
        None => Ok(Progress::Until(Key::new())),
    }
}
