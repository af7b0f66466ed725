//! The native transaction of the reference store: a copy of entries and rows that replaces them as a whole.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use async_trait::async_trait;
use syncline::{
    Attempt, BoxError, JoinJob, JoinStorage, JoinTx, Key, ReadError, TransactionEnded, Value, WriteBatch,
    WriteError,
};

use super::{Disk, Reference, check_sizes};
use crate::poll::give_way;
use crate::sorted_map::{self, SortedMap};
use crate::{Ending, JoinFixture};

/// The rows of the app, by their keys.
pub(crate) type Rows = BTreeMap<u64, String>;

/// A transaction of a [`Reference`].
#[derive(Debug)]
pub struct ReferenceTx {
    pub(crate) entries: RefCell<SortedMap>,
    native: ReferenceRows,
}

/// What an app sees of a [`ReferenceTx`]: its rows, and a way to end the transaction, which an app must not do.
#[derive(Debug)]
pub struct ReferenceRows {
    disk: Disk,
    pub(crate) rows: RefCell<Rows>,
    pub(crate) ended: Cell<bool>,
}

#[async_trait]
impl JoinStorage for Reference {
    type Tx<'t> = ReferenceTx;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        let _turn = self.turn().await?;
        let (entries, rows) = self.run(job)?;
        give_way().await;
        self.commit(|found, found_rows| (*found, *found_rows) = (entries, rows))?;
        give_way().await;
        Ok(())
    }
}

impl Reference {
    /// Begins a transaction.
    pub(crate) fn begin(&self) -> ReferenceTx {
        let disk = self.disk.clone();
        let (entries, rows) = disk.edit_all(|entries, rows| (entries.clone(), rows.clone()));
        ReferenceTx {
            entries: entries.into(),
            native: ReferenceRows { disk, rows: rows.into(), ended: Cell::new(false) },
        }
    }

    /// Runs `job` in a transaction, and returns the entries and rows that it leaves.
    fn run(&self, job: JoinJob<Self>) -> Result<(SortedMap, Rows), WriteError> {
        let tx = self.begin();
        let done = run_job(job, &tx);
        if tx.native.ended.get() {
            return Err(WriteError::rejected(TransactionEnded));
        }
        done.map_err(WriteError::Rejected)?;
        Ok(tx.into_parts())
    }
}

/// Runs `job`, and makes an error of a panic.
pub(crate) fn run_job(
    job: impl FnOnce(&ReferenceTx) -> Result<(), BoxError>,
    tx: &ReferenceTx,
) -> Result<(), BoxError> {
    catch_unwind(AssertUnwindSafe(|| job(tx))).unwrap_or_else(|_| Err("the job panicked".into()))
}

impl ReferenceTx {
    /// Returns the entries and rows as the transaction leaves them.
    pub(crate) fn into_parts(self) -> (SortedMap, Rows) {
        (self.entries.into_inner(), self.native.rows.into_inner())
    }
}

impl JoinTx for ReferenceTx {
    type Native = ReferenceRows;

    fn native(&self) -> &ReferenceRows {
        &self.native
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let entries = self.entries.borrow();
        let value = |key| {
            self.native.operate().map_err(ReadError)?;
            Ok(entries.get(key).cloned())
        };
        keys.iter().map(value).collect()
    }

    fn apply(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        check_sizes(batch)?;
        for _ in batch.ops() {
            self.native.operate()?;
        }
        sorted_map::apply(&mut self.entries.borrow_mut(), batch.ops());
        Ok(())
    }

    fn attempt(&self, part: &mut dyn FnMut() -> Result<(), BoxError>) -> Attempt {
        let before = (self.entries.borrow().clone(), self.native.rows.borrow().clone());
        let done = part();
        if self.native.ended.get() {
            return Attempt::Spoiled(done.err().unwrap_or_else(|| TransactionEnded.into()));
        }
        match done {
            Ok(()) => Attempt::Done,
            Err(error) => {
                (*self.entries.borrow_mut(), *self.native.rows.borrow_mut()) = before;
                Attempt::Undone(error)
            }
        }
    }
}

impl ReferenceRows {
    /// Puts `value` under `key`.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn put(&self, key: u64, value: impl Into<String>) -> Result<(), BoxError> {
        self.operate()?;
        self.rows.borrow_mut().insert(key, value.into());
        Ok(())
    }

    /// Deletes what is under `key`, if anything is.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn delete(&self, key: u64) -> Result<(), BoxError> {
        self.operate()?;
        self.rows.borrow_mut().remove(&key);
        Ok(())
    }

    /// Returns all rows that the transaction sees, in the order of their keys.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn all(&self) -> Result<Vec<(u64, String)>, BoxError> {
        self.operate()?;
        Ok(self.rows.borrow().clone().into_iter().collect())
    }

    /// Ends the transaction, as a `ROLLBACK` would. Later statements still work, as they do in an engine in which they
    /// begin another transaction.
    pub fn end(&self) {
        self.ended.set(true);
    }

    fn operate(&self) -> Result<(), BoxError> {
        self.disk.image().operate()
    }
}

impl JoinFixture for Disk {
    fn put_row(tx: &ReferenceRows, key: u64, value: &str) -> Result<(), BoxError> {
        tx.put(key, value)
    }

    fn delete_row(tx: &ReferenceRows, key: u64) -> Result<(), BoxError> {
        tx.delete(key)
    }

    fn rows(tx: &ReferenceRows) -> Result<Vec<(u64, String)>, BoxError> {
        tx.all()
    }

    fn endings() -> Vec<Ending<Reference>> {
        let end = |tx: &ReferenceRows| {
            tx.end();
            Ok(())
        };
        vec![Ending { name: "end", end }]
    }
}
