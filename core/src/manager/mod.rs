//! The app's handle: commits, reads, events.

mod group;
mod requests;
mod waiting;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::batch::Batch;
use crate::builder::Builder;
use crate::engine::{Commit, Current, Staged};
use crate::error::Error;
use crate::events::{Events, RecordKey};
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::inside;
use crate::limits::weight;
use crate::list::List;
use crate::model::{self};
use crate::storage::{BoxError, Key, Storage, Value};
use crate::stored::record;
use crate::syncable::{DeviceOwned, RecordId, Shared, Syncable};
use crate::update::{Update, update};

pub(crate) use requests::{Inner, give_way};

/// Commits and reads the records of one store.
///
/// The manager is a cheap handle: clone it, use it from many tasks. Every commit is one atomic, durable write of the
/// store that holds the record, the log entry that announces it, the head of the stream and the clock. Commits that
/// wait while the store writes share its next write.
///
/// # Cancel safety
/// Dropping the future of a commit before it was polled does nothing. After that the commit is made as a whole or
/// not at all, and if it is made, its event is told. Dropping the future of a read has no effect.
///
/// # When the driver is not run
/// Reads need no driver. Every other call waits about 3 s for the driver to be run, then fails with
/// [`Error::DriverNotRun`], and nothing of it is done later.
///
/// # When the driver stops
/// Every call fails with [`Error::Stopped`], commits that were being written with [`Error::Unknown`], both with
/// the reason. The calls return only once the store is closed, so that it can be opened again at once.
pub struct TransactionManager<S: Storage = Box<dyn Storage>> {
    pub(crate) inner: Arc<Inner<S>>,
}

impl<S: Storage> TransactionManager<S> {
    /// Begins to open `storage`: set the device and the group on the builder, then open it.
    pub fn builder(storage: S) -> Builder<S> {
        Builder::new(storage)
    }

    pub(crate) fn new(inner: Inner<S>) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Returns the id of this replica, which a new store draws.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.inner.identity.replica
    }

    /// Returns the device that the store belongs to.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.inner.identity.device
    }

    /// Returns the group of this replica.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.inner.identity.group
    }

    /// Commits a shared record: puts `model` under its id.
    ///
    /// A value equal to the stored one changes nothing: no log entry, no event. If the model brings its own
    /// [merge](Syncable::merge), `model` is merged into the stored value, and the result is returned.
    ///
    /// # Errors
    /// [`Error::UnregisteredModel`], [`Error::TooLarge`] or [`Error::Encode`] for the call itself,
    /// [`Error::NewerSchema`] over a record of a newer app; [`Error::Clock`], [`Error::Read`] or
    /// [`Error::Rejected`] for the moment: retry; [`Error::Joining`] until this replica is a member,
    /// [`Error::Restored`] if its store was restored from a backup; [`Error::Unknown`] or [`Error::Stopped`]: open
    /// again.
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn commit_shared<M: Syncable<Ownership = Shared>>(&self, model: M) -> Result<M, Error> {
        self.commit(model).await
    }

    /// Commits a record of this device: puts `model` under its id.
    ///
    /// # Errors
    /// [`Error::NotOwner`] if the model names another device, otherwise as
    /// [`commit_shared`](TransactionManager::commit_shared).
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn commit_device_owned<M: Syncable<Ownership = DeviceOwned>>(
        &self,
        model: M,
    ) -> Result<M, Error> {
        self.commit(model).await
    }

    /// Commits a record of either kind; the type picks the strategy.
    ///
    /// # Errors
    /// As [`commit_shared`](TransactionManager::commit_shared) and
    /// [`commit_device_owned`](TransactionManager::commit_device_owned).
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn commit<M: Syncable>(&self, model: M) -> Result<M, Error> {
        if M::OWN_MERGE {
            return self.update(model.sync_id(), move |_| Ok(model)).await;
        }
        let mut batch = self.batch();
        batch.put(&model)?;
        self.submit(batch.into_commit()).await?;
        Ok(model)
    }

    /// Deletes a record, if it is there.
    ///
    /// # Errors
    /// As [`commit`](TransactionManager::commit).
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn delete<M: Syncable>(&self, id: RecordId<M>) -> Result<(), Error> {
        let mut batch = self.batch();
        batch.delete::<M>(id)?;
        self.submit(batch.into_commit()).await
    }

    /// Commits many changes of any models as one: atomic here and at every receiver.
    ///
    /// `stage` runs at once, in the caller's task, and must not wait for a call of this manager: such a call fails with
    /// [`Error::InsideClosure`]. Of several changes to one record the last one counts. Returns
    /// the result of `stage`.
    ///
    /// # Errors
    /// The error of `stage`: an [`Error`] about a change that it staged as it is, any other as [`Error::Aborted`], a
    /// panic as [`Error::Panicked`]. Otherwise as [`commit`](TransactionManager::commit).
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn commit_batch<R, F>(&self, stage: F) -> Result<R, Error>
    where
        F: FnOnce(&mut Batch<'_>) -> Result<R, BoxError>,
    {
        let (commit, result) = {
            let mut batch = self.batch();
            let _inside = inside::enter(self.replica());
            let result = catch_unwind(AssertUnwindSafe(|| stage(&mut batch)))
                .map_err(|panic| Error::from_panic(&*panic))?
                .map_err(Error::from_closure)?;
            (batch.into_commit(), result)
        };
        self.submit(commit).await?;
        Ok(result)
    }

    /// Reads, changes and commits a record in one atomic step. Returns the saved model.
    ///
    /// `change` gets the stored model, `None` if there is none, and returns the model to put in its place, under the
    /// same id; if the model brings its own [merge](Syncable::merge), the new value is merged into the stored one.
    /// To delete the record or to leave it as it is, use [`change`](TransactionManager::change).
    ///
    /// `change` runs once, in the driver's task, so it should be quick; no other commit comes between. A call of this
    /// manager inside it that would wait for the driver fails at once with [`Error::InsideClosure`]. That is found by
    /// the thread: a closure that waits for *another* thread or task, which makes such a call, stops the replica.
    ///
    /// # Errors
    /// [`Error::IdChanged`] if the id differs; otherwise as [`commit_batch`](TransactionManager::commit_batch).
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn update<M, F>(&self, id: RecordId<M>, change: F) -> Result<M, Error>
    where
        M: Syncable,
        F: FnOnce(Option<M>) -> Result<M, BoxError> + Send + 'static,
    {
        let saved = self.change(id, |old| change(old).map(Update::Put)).await?;
        // A put leaves a record.
        saved.ok_or_else(|| Error::Panicked { message: "the update has left no record".into() })
    }

    /// Reads a record and puts, deletes or keeps it, in one atomic step. Returns the record as it is then.
    ///
    /// ```
    /// # use syncline::{Error, Storage, Syncable, TransactionManager, Update};
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, Syncable)]
    /// # #[sync(model = "counter")]
    /// # struct Counter { #[sync(id)] id: u64, left: u32 }
    /// # async fn example<S: Storage>(library: TransactionManager<S>) -> Result<(), Error> {
    /// // Counts down, and deletes the counter at the end.
    /// let left = library.change::<Counter, _>(7, |old| {
    ///     Ok(match old {
    ///         Some(Counter { left: 0 | 1, .. }) => Update::Delete,
    ///         Some(counter) => Update::Put(Counter { left: counter.left - 1, ..counter }),
    ///         None => Update::Keep,
    ///     })
    /// });
    /// let left: Option<Counter> = left.await?;
    /// # Ok(()) }
    /// ```
    ///
    /// The closure gets the stored model, `None` if there is none, and runs as that of
    /// [`update`](TransactionManager::update) does.
    ///
    /// # Errors
    /// As [`update`](TransactionManager::update).
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn change<M, F>(&self, id: RecordId<M>, change: F) -> Result<Option<M>, Error>
    where
        M: Syncable,
        F: FnOnce(Option<M>) -> Result<Update<M>, BoxError> + Send + 'static,
    {
        let record = self.batch().name::<M>(&id)?;
        let saved = Arc::new(Mutex::new(None));
        let (save, value_bytes_max) = (Arc::clone(&saved), self.inner.limits.value_bytes_max);
        let change = move |old: Option<&M>| change(old.cloned()).map_err(Error::from_closure);
        let save = move |left| *save.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        let bytes = record.id_bytes().len();
        let action = update(id, value_bytes_max, change, save);
        let change = Staged { record, action, own_merge: M::OWN_MERGE };
        let commit = Commit { changes: vec![change], bytes };
        // Reserve room in the queue for the largest value, since the new value is not known yet.
        self.submit_weighing(commit, weight(bytes + value_bytes_max, 1)).await?;
        let saved = saved.lock().unwrap_or_else(PoisonError::into_inner).take();
        saved.ok_or_else(|| Error::Panicked { message: "the update was not run".into() })
    }

    /// Returns a record, as the last durable write left it.
    ///
    /// # Errors
    /// [`Error::UnregisteredModel`], [`Error::Read`], [`Error::Decode`] or [`Error::NewerSchema`] if the record
    /// cannot be read as `M`, [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn get<M: Syncable>(&self, id: RecordId<M>) -> Result<Option<M>, Error> {
        self.inner.models.check::<M>()?;
        let key = [RecordKey::new::<M>(&id).into_bytes()];
        let values = self.inner.read(&key).await?;
        match values.into_iter().next().flatten() {
            Some(value) => read_record(&id, &value),
            None => Ok(None),
        }
    }

    /// Returns records in the order of `ids`, all from one consistent state; fails if one of them cannot be read.
    ///
    /// # Errors
    /// As [`get`](TransactionManager::get), about the first record that cannot be read as `M`. Use
    /// [`get_each`](TransactionManager::get_each) to get the others.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn get_many<M: Syncable>(&self, ids: &[RecordId<M>]) -> Result<Vec<Option<M>>, Error> {
        let mut records = Vec::with_capacity(ids.len());
        for (id, value) in ids.iter().zip(self.read_values::<M>(ids).await?) {
            records.push(read_value(id, value)?);
        }
        Ok(records)
    }

    /// Returns records in the order of `ids`, all from one consistent state, each by itself: what can be read, and for
    /// every other one the reason, such as [`Error::NewerSchema`].
    ///
    /// # Errors
    /// [`Error::UnregisteredModel`], [`Error::Read`], [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn get_each<M: Syncable>(
        &self,
        ids: &[RecordId<M>],
    ) -> Result<Vec<Result<Option<M>, Error>>, Error> {
        let values = self.read_values::<M>(ids).await?;
        Ok(ids.iter().zip(values).map(|(id, value)| read_value(id, value)).collect())
    }

    async fn read_values<M: Syncable>(&self, ids: &[RecordId<M>]) -> Result<Vec<Option<Value>>, Error> {
        self.inner.models.check::<M>()?;
        let keys: Vec<Key> = ids.iter().map(|id| RecordKey::new::<M>(id).into_bytes()).collect();
        self.inner.read(&keys).await
    }

    /// Lists the records of a model by id, page by page; those of a device-owned model by device, then by id.
    ///
    /// ```
    /// # use syncline::{Error, Storage, Syncable, TransactionManager};
    /// # async fn example<Tag: Syncable, S: Storage>(library: TransactionManager<S>) -> Result<(), Error> {
    /// let mut tags = library.list::<Tag>();
    /// while let Some(page) = tags.next_page().await? {
    ///     for tag in page { /* … */ }
    /// }
    /// if tags.unreadable().records > 0 {
    ///     println!("update the app to see {}", tags.unreadable());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// A record that this version of the app cannot read, such as one of a newer schema, is left out of its page and
    /// counted in [`unreadable`](List::unreadable).
    #[must_use]
    pub fn list<M: Syncable>(&self) -> List<M, S> {
        List::new(Arc::clone(&self.inner), RecordKey::range_of_model::<M>())
    }

    /// Lists the records of one device by id, page by page.
    #[must_use]
    pub fn list_of<M: Syncable<Ownership = DeviceOwned>>(&self, owner: DeviceId) -> List<M, S> {
        List::new(Arc::clone(&self.inner), RecordKey::range_of_owner::<M>(owner))
    }

    /// Subscribes to every change that becomes durable from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        match self.inner.notices.upgrade() {
            Some(notices) => Events::new(notices.subscribe()),
            // The driver has stopped: return a subscription that has ended.
            None => Events::new(broadcast::channel(1).1),
        }
    }

    fn batch(&self) -> Batch<'_> {
        self.inner.batch()
    }
}

/// Reads what is stored of a record as the model `M` named `id`.
#[inline]
#[allow(clippy::needless_pass_by_value, reason = "each value is freed before the next one is read")]
fn read_value<M: Syncable>(id: &RecordId<M>, stored: Option<Value>) -> Result<Option<M>, Error> {
    stored.map_or(Ok(None), |stored| read_record(id, &stored))
}

/// Reads a stored record as the model `M` named `id`; `None` if it is a tombstone.
#[inline]
pub(crate) fn read_record<M: Syncable>(id: &RecordId<M>, stored: &[u8]) -> Result<Option<M>, Error> {
    let (header, value) = record::parse(stored)?;
    if header.tombstone {
        return Ok(None);
    }
    let model: M = model::decode(id, Current { schema: header.schema, value })?;
    if model.sync_id() == *id {
        Ok(Some(model))
    } else {
        Err(Error::decode::<M>(id, "it has another id than its key"))
    }
}

impl<S: Storage> Clone for TransactionManager<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S: Storage> fmt::Debug for TransactionManager<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionManager").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}
