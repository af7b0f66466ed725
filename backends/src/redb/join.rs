//! Joined writes: the app's own tables and ours in one redb transaction.

use std::fmt;

use ::redb::WriteTransaction;
use async_trait::async_trait;
use syncline::{
    BoxError, JoinJob, JoinStorage, JoinTx, Key, Panicked, ReadError, Value, WriteBatch, WriteError,
};

use super::RedbStorage;
use super::errors::in_doubt;
use super::layout::{self, SIZES};
use super::store::Engine;
use crate::shared::errors::NotWritten;

/// A redb write transaction that the app shares with the store. The names of the store's tables begin with `syncline/`.
pub struct RedbTx<'t> {
    transaction: &'t WriteTransaction,
}

#[async_trait]
impl JoinStorage for RedbStorage {
    type Tx<'t> = RedbTx<'t>;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        self.store.write(move |store| store.write(|engine| engine.join(job))).await
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
        SIZES.check(batch)?;
        Ok(layout::apply(self.transaction, batch)?)
    }
}

impl Engine {
    fn join(&self, job: JoinJob<RedbStorage>) -> Result<(), NotWritten> {
        let transaction = self.begin()?;
        match Panicked::catch(|| job(&RedbTx { transaction: &transaction })) {
            // redb refuses the commit after a failure of the medium, even if the job ignored that failure.
            Ok(Ok(())) => transaction.commit().map_err(in_doubt),
            Ok(Err(error)) => undo(transaction, error),
            Err(panicked) => undo(transaction, panicked.into()),
        }
    }
}

fn undo(transaction: WriteTransaction, because: BoxError) -> Result<(), NotWritten> {
    transaction.abort().map_err(in_doubt)?;
    Err(NotWritten::Rejected(because))
}

impl fmt::Debug for RedbTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbTx").finish_non_exhaustive()
    }
}
