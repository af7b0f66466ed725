//! The app's own tables and ours in one redb transaction.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use ::redb::{Error, WriteTransaction};
use async_trait::async_trait;
use syncline::{BoxError, JoinJob, JoinStorage, JoinTx, Key, ReadError, Value, WriteBatch, WriteError};

use super::{Doubt, NotWritten, RedbStorage, Shared, begin, check_sizes, stage, tables};
use crate::worker::{Panicked, contain};

/// A redb transaction that the app's own tables share with the store's, whose names begin with `syncline/`.
pub struct RedbTx<'t> {
    transaction: &'t WriteTransaction,
    /// Whether redb failed at what the store asked of it, so that even undoing is not to be trusted.
    failed: &'t Cell<Option<Error>>,
}

#[async_trait]
impl JoinStorage for RedbStorage {
    type Tx<'t> = RedbTx<'t>;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        let shared = Arc::clone(&self.shared);
        self.writer
            .run(move || shared.join(job))
            .await
            .unwrap_or_else(|panicked| Err(WriteError::unknown(panicked)))
    }
}

impl JoinTx for RedbTx<'_> {
    type Native = WriteTransaction;

    fn native(&self) -> &WriteTransaction {
        self.transaction
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let mut tables = tables::Writing::new(self.transaction);
        let values = keys.iter().map(|key| tables.get(key)).collect();
        self.note(values).map_err(ReadError::new)
    }

    fn apply(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        check_sizes(batch)?;
        self.note(stage(self.transaction, batch))
    }
}

impl RedbTx<'_> {
    /// Remembers that redb failed, which a job could hide from the store.
    fn note<T>(&self, result: Result<T, Error>) -> Result<T, BoxError> {
        result.map_err(|error| {
            let told = error.to_string();
            // A table that the app holds open is its own mistake, and undone like any other.
            if !matches!(error, Error::TableAlreadyOpen(..)) {
                self.failed.set(Some(error));
            }
            told.into()
        })
    }
}

impl Shared {
    /// Runs on the writer's thread, and to its end.
    fn join(&self, job: JoinJob<RedbStorage>) -> Result<(), WriteError> {
        let database = self.database().map_err(WriteError::unknown)?;
        let doubt = Doubt(self);
        let outcome = begin(database, self.commit).and_then(|transaction| transact(transaction, job));
        doubt.lift();
        outcome.map_err(|error| self.not_written(error))
    }
}

fn transact(transaction: WriteTransaction, job: JoinJob<RedbStorage>) -> Result<(), NotWritten> {
    let failed = Cell::new(None);
    let done = contain(|| job(&RedbTx { transaction: &transaction, failed: &failed }));
    if let Some(error) = failed.take() {
        return Err(error.into());
    }
    match done {
        Ok(Ok(())) => Ok(transaction.commit()?),
        Ok(Err(error)) => undo(transaction, error),
        Err(panicked @ Panicked(_)) => undo(transaction, panicked.into()),
    }
}

fn undo(transaction: WriteTransaction, because: BoxError) -> Result<(), NotWritten> {
    transaction.abort()?;
    Err(NotWritten::Rejected(because))
}

impl fmt::Debug for RedbTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbTx").finish_non_exhaustive()
    }
}
