//! `with_tx`: the app's own statements and a commit of the library in one native transaction.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::batch::Batch;
use crate::driver::Request;
use crate::engine::{Action, Current};
use crate::error::Error;
use crate::events::RecordKey;
use crate::join::{JoinStorage, JoinTx};
use crate::joined;
use crate::manager::{TransactionManager, read_record};
use crate::model;
use crate::projection::Projections;
use crate::storage::{BoxError, Storage};
use crate::stored::record;
use crate::syncable::{RecordId, Syncable};
use crate::update::put_over;

impl<S: Storage> TransactionManager<S> {
    /// Runs the app's own statements and commits the changes it stages, all in one native transaction of the store.
    ///
    /// ```
    /// # use syncline::{Error, JoinStorage, JoinTx, Syncable, TransactionManager};
    /// # async fn example<S: JoinStorage, Tag: Syncable>(
    /// #     library: TransactionManager<S>, tag: Tag, insert: impl Fn(&S::Tx<'_>) -> Result<u64, Error>
    /// # ) -> Result<(), Error> {
    /// let tag_put = library
    ///     .with_tx(move |tx| {
    ///         // tx.native().execute("INSERT INTO note …", params)?;
    ///         tx.put(&tag)?;
    ///         Ok(tag)
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// The app's rows, the records, the log entry and the clock are there together or not at all: an error, a panic
    /// or a statement that ends the transaction undoes all of it. A closure that stages nothing commits its own
    /// statements alone. The closure runs once, where the store writes, with no other commit beside it, and may block
    /// there. It should not use the manager: a read there sees the state before the transaction, while
    /// [`tx.get`](Tx::get) sees the transaction; any other call fails with [`Error::InsideClosure`], as in
    /// [`update`](TransactionManager::update).
    ///
    /// A closure that stages nothing needs no right to commit: it works while this replica waits for its group, and after
    /// its store was restored.
    ///
    /// # Errors
    /// The error of `work`: an [`Error`] about a change that it staged as it is, any other as [`Error::Aborted`], a
    /// panic as [`Error::Panicked`]. [`Error::TransactionEnded`] if its statements ended the transaction,
    /// [`Error::Statement`] if the store refused one of them or a constraint failed at the end,
    /// [`Error::Projection`] if a projection refused a change; otherwise as
    /// [`commit`](TransactionManager::commit).
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the transaction is made whole or not at all.
    pub async fn with_tx<R, F>(&self, work: F) -> Result<R, Error>
    where
        S: JoinStorage,
        R: Send + 'static,
        F: FnOnce(&mut Tx<'_, S::Tx<'_>>) -> Result<R, BoxError> + Send + 'static,
    {
        let returned = Arc::new(Mutex::new(None));
        let (inner, keep) = (Arc::clone(&self.inner), Arc::clone(&returned));
        let stage = move |joined: &S::Tx<'_>| {
            let mut tx = Tx { joined, batch: inner.batch() };
            let result = work(&mut tx).map_err(Error::from_closure)?;
            *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            Ok(tx.batch.into_commit())
        };
        let projections = self.inner.projections.clone().and_then(Projections::of);
        // The changes of a closure exist only while it runs, and one closure runs at a time: they need no room in the
        // queue.
        self.request(Request::Join(joined::work::<S>(stage, projections)), 1).await?;
        let result = returned.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.ok_or_else(|| Error::Panicked { message: "the closure was not run".into() })
    }
}

/// A native transaction that the app's statements and a commit of the library share. See
/// [`with_tx`](TransactionManager::with_tx).
pub struct Tx<'a, T: JoinTx> {
    joined: &'a T,
    batch: Batch<'a>,
}

impl<T: JoinTx> Tx<'_, T> {
    /// Lends the native transaction: `rusqlite::Transaction`, `redb::WriteTransaction`.
    ///
    /// Leave the tables of the library alone, whose names begin with `syncline`.
    #[must_use]
    pub fn native(&self) -> &T::Native {
        self.joined.native()
    }

    /// Returns a record as this transaction sees it: its staged changes included.
    ///
    /// # Errors
    /// As [`TransactionManager::get`].
    #[allow(clippy::needless_pass_by_value, reason = "ids are small, and `get` of the manager takes one too")]
    pub fn get<M: Syncable>(&self, id: RecordId<M>) -> Result<Option<M>, Error> {
        self.batch.models().check::<M>()?;
        let key = RecordKey::new::<M>(&id);
        match self.batch.staged(&key) {
            Some(Action::Put(new)) => {
                let current = Current { schema: new.schema, value: record::value_of(&new.record) };
                model::decode(&id, current).map(Some)
            }
            Some(_) => Ok(None),
            None => self.stored(&id, key),
        }
    }

    fn stored<M: Syncable>(&self, id: &RecordId<M>, key: RecordKey) -> Result<Option<M>, Error> {
        match self.joined.get_many(&[key.into_bytes()])?.into_iter().next().flatten() {
            Some(value) => read_record(id, &value),
            None => Ok(None),
        }
    }

    /// Stages putting `model` under its id.
    ///
    /// # Errors
    /// As [`Batch::put`].
    pub fn put<M: Syncable>(&mut self, model: &M) -> Result<(), Error> {
        if !M::OWN_MERGE {
            return self.batch.put(model);
        }
        // Merge at once, so that `get` returns the record as it will be. The put replaces a delete that was staged
        // before it.
        let id = model.sync_id();
        let key = RecordKey::new::<M>(&id);
        let there: Option<M> = match self.batch.staged(&key) {
            Some(Action::Put(_)) => self.get(id)?,
            _ => self.stored(&id, key)?,
        };
        self.batch.put_as_it_is(&put_over(there, model.clone()))
    }

    /// Stages deleting a record, if it is there.
    ///
    /// # Errors
    /// As [`Batch::delete`].
    pub fn delete<M: Syncable>(&mut self, id: RecordId<M>) -> Result<(), Error> {
        self.batch.delete::<M>(id)
    }
}

impl<T: JoinTx> fmt::Debug for Tx<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("batch", &self.batch).finish_non_exhaustive()
    }
}
