//! The debts of one write: which records its projections could not take, and which debts it pays.
//!
//! An account is kept while the write is put together. Its rows are written by the same transaction; the counts in
//! memory follow once that is durable.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::join::{JoinStorage, JoinTx};
use crate::joined;
use crate::storage::{Key, WriteBatch};
use crate::stored::{debt_value, keys};

use super::Projections;

/// The outcomes of the calls of a write that matter to debts, by projection and record: the error with which the
/// projection could not take the record, or `None` if it took it.
#[derive(Debug, Default)]
pub(crate) struct Account(BTreeMap<(usize, Key), Option<String>>);

/// The change of one debt.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) at: usize,
    pub(super) record: Key,
    /// The error of the debt; `None` if it is paid.
    pub(super) error: Option<String>,
    /// Whether the debt was there before.
    pub(super) is_old: bool,
}

/// The changes of debts that a write stores.
#[derive(Debug, Default)]
pub(crate) struct Settlement(pub(super) Vec<Change>);

impl Settlement {
    /// Whether any debt is paid.
    pub(super) fn pays(&self) -> bool {
        self.0.iter().any(|change| change.error.is_none())
    }
}

impl Account {
    pub(super) fn owes(&mut self, at: usize, record: &[u8], error: &str) {
        self.0.insert((at, record.to_vec()), Some(error.to_owned()));
    }

    pub(super) fn took(&mut self, at: usize, record: &[u8]) {
        self.0.insert((at, record.to_vec()), None);
    }

    /// How many records are debts.
    pub(super) fn debts(&self) -> usize {
        self.0.values().filter(|error| error.is_some()).count()
    }

    /// The error of the first debt.
    pub(super) fn first_debt(&self) -> Option<String> {
        self.0.values().flatten().next().cloned()
    }

    /// Adds the account of a later commit of the same write.
    pub(crate) fn add(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Closes the account: writes the rows of the debts that it changes into the transaction.
    pub(crate) fn close<S: JoinStorage>(
        self,
        tx: &S::Tx<'_>,
        projections: &Projections<S>,
    ) -> Result<Settlement, Error> {
        if self.0.is_empty() {
            return Ok(Settlement::default());
        }
        let name = |at: usize| projections.all.get(at).map_or("", |projection| projection.declared().name);
        let rows: Vec<Key> = self.0.keys().map(|(at, record)| keys::debt(name(*at), record)).collect();
        let before = joined::read(tx, &rows)?;
        let (mut batch, mut changes) = (WriteBatch::new(), Vec::new());
        for (((at, record), error), (row, before)) in self.0.into_iter().zip(rows.into_iter().zip(before)) {
            match &error {
                None if before.is_none() => continue,
                None => batch.delete(row),
                Some(error) => {
                    let value = debt_value(error);
                    if before.as_ref() == Some(&value) {
                        continue;
                    }
                    batch.put(row, value);
                }
            }
            changes.push(Change { at, record, error, is_old: before.is_some() });
        }
        if !batch.is_empty() {
            tx.apply(&batch).map_err(|error| Error::Rejected(error.into()))?;
        }
        Ok(Settlement(changes))
    }
}
