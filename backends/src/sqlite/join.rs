//! The app's own statements and a batch of ours in one SQLite transaction.

use std::cell::RefCell;

use async_trait::async_trait;
use rusqlite::Transaction;
use syncline::{BoxError, JoinJob, JoinStorage, JoinTx, Key, ReadError, Value, WriteBatch, WriteError};

use super::errors::not_applied;
use super::store::{Engine, lock};
use super::{SqliteStorage, layout};
use crate::shared::errors::NotWritten;
use crate::shared::panics::{Panicked, contain};

/// A write transaction of a [`SqliteStorage`], with the app's statements in it.
#[derive(Debug)]
pub struct SqliteTx<'t> {
    pub(super) native: Transaction<'t>,
    /// What kept the store itself from reading or writing, if it leaves the store in doubt.
    pub(super) in_doubt: RefCell<Option<BoxError>>,
}

#[async_trait]
impl JoinStorage for SqliteStorage {
    type Tx<'t> = SqliteTx<'t>;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        let writing = self.writes.begin();
        self.store
            .write(move |store| {
                let _writing = writing;
                store.write(|engine| engine.join(job))
            })
            .await
    }
}

impl<'t> JoinTx for SqliteTx<'t> {
    type Native = Transaction<'t>;

    fn native(&self) -> &Transaction<'t> {
        &self.native
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        layout::get_many(&self.native, keys).map_err(|error| ReadError(self.note(error)))
    }

    fn apply(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        layout::apply(&self.native, batch).map_err(|error| self.note(error))
    }
}

impl SqliteTx<'_> {
    /// Remembers a failure after which the store cannot go on, whatever the job makes of it.
    fn note(&self, error: rusqlite::Error) -> BoxError {
        let text = error.to_string();
        match not_applied(error) {
            NotWritten::Rejected(error) => error,
            NotWritten::InDoubt(error) => {
                *self.in_doubt.borrow_mut() = Some(error);
                text.into()
            }
        }
    }
}

impl Engine {
    fn join(&self, job: JoinJob<SqliteStorage>) -> Result<(), NotWritten> {
        lock(&self.writer).write(JOIN_LOG_BYTES, |transaction| {
            let done = contain(|| job(transaction));
            done.map_err(|Panicked(message)| NotWritten::rejected(JobPanicked(message)))?
                .map_err(NotWritten::Rejected)
        })
    }
}

/// What a joined write is taken to add to the log. Only the app knows what its statements do.
const JOIN_LOG_BYTES: u64 = 256 << 10;

/// The app's own work panicked. All of it was undone.
#[derive(Debug, thiserror::Error)]
#[error("the job panicked: {0}")]
struct JobPanicked(String);
