//! The app's own tables and ours in one redb transaction.

use std::fmt;
use std::sync::Arc;

use ::redb::WriteTransaction;
use async_trait::async_trait;
use syncline::{BoxError, JoinJob, JoinStorage, JoinTx, Key, ReadError, Value, WriteBatch, WriteError};

use super::{NotWritten, RedbStorage, Shared, begin, check_sizes, layout, stage};
use crate::shared::worker::contain;

/// A redb transaction that the app's own tables share with the store's, whose names begin with `syncline/`.
pub struct RedbTx<'t> {
    transaction: &'t WriteTransaction,
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
        let mut tables = layout::Writing::new(self.transaction);
        keys.iter().map(|key| tables.get(key)).collect::<Result<_, _>>().map_err(ReadError::new)
    }

    fn apply(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        check_sizes(batch)?;
        Ok(stage(self.transaction, batch)?)
    }
}

impl Shared {
    /// Runs on the writer's thread, and to its end.
    fn join(&self, job: JoinJob<RedbStorage>) -> Result<(), WriteError> {
        let database = self.database().map_err(WriteError::unknown)?;
        let doubt = self.health.doubt();
        let outcome = begin(database, self.commit).and_then(|transaction| transact(transaction, job));
        doubt.lift();
        outcome.map_err(|error| self.not_written(error))
    }
}

fn transact(transaction: WriteTransaction, job: JoinJob<RedbStorage>) -> Result<(), NotWritten> {
    match contain(|| job(&RedbTx { transaction: &transaction })) {
        // After a failure of the medium redb refuses this, also if the job hid it.
        Ok(Ok(())) => Ok(transaction.commit()?),
        Ok(Err(error)) => undo(transaction, error),
        Err(panicked) => undo(transaction, panicked.into()),
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
