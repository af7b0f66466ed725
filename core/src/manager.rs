//! The app's handle: commits, reads, events.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use futures::future::{Either, select};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use crate::batch::Batch;
use crate::builder::Builder;
use crate::driver::{Control, OpenStore, Request, Waiting};
use crate::engine::{Commit, Current, Staged};
use crate::error::{Error, StopReason};
use crate::events::{Events, Notice, RecordKey};
use crate::ids::{DeviceId, ReplicaId};
use crate::joined;
use crate::limits::{Limit, Limits, weight};
use crate::list::List;
use crate::member::{Member, MemberState};
use crate::model::{self, Registry};
use crate::projection::Projecting;
use crate::status::Status;
use crate::storage::{BoxError, Key, Storage};
use crate::stored::record;
use crate::syncable::{DeviceOwned, RecordId, Shared, Syncable};
use crate::update::update;

/// Commits and reads the records of one store.
///
/// A cheap handle: clone it, use it from many tasks. Every commit is one atomic, durable write of the store
/// that holds the record, the log entry that announces it, the head of the stream and the clock. Commits that
/// wait while the store writes share its next write.
///
/// # Cancel safety
/// Dropping the future of a commit before it was polled does nothing. After that the commit is made as a whole or
/// not at all, and if it is made, its event is told. Dropping the future of a read has no effect.
///
/// # When the driver stops
/// Every call fails with [`Error::Stopped`], commits that were being written with [`Error::Unknown`], both with
/// the reason. They return only once the store is closed, so that it can be opened again at once.
pub struct TransactionManager<S: Storage = Box<dyn Storage>> {
    pub(crate) inner: Arc<Inner<S>>,
}

/// What the handles of one store share.
pub(crate) struct Inner<S> {
    /// Weak, so that the store is closed when the driver stops, whoever still holds a handle.
    pub(crate) store: Weak<OpenStore<S>>,
    pub(crate) requests: mpsc::UnboundedSender<(Request<S>, Waiting)>,
    pub(crate) control: mpsc::UnboundedSender<Control>,
    /// Bytes that commits may still occupy.
    pub(crate) queue: Arc<Semaphore>,
    pub(crate) notices: broadcast::WeakSender<Notice>,
    pub(crate) closed: watch::Receiver<()>,
    pub(crate) stop_reason: Arc<OnceLock<StopReason>>,
    pub(crate) device: DeviceId,
    /// Whether values may still lie beside records that this version of the app can merge.
    pub(crate) folding: Arc<AtomicBool>,
    pub(crate) models: Arc<Registry>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) projections: Option<Arc<dyn Projecting<S>>>,
}

impl<S> Inner<S> {
    /// Waits until the store is closed, then says why.
    async fn stopped(&self) -> StopReason {
        let mut closed = self.closed.clone();
        if joined::is_inside() {
            return self.stop_reason.get().cloned().unwrap_or(StopReason::DriverDropped);
        }
        // Nothing is ever sent: the channel closes when the store has been dropped.
        while closed.changed().await.is_ok() {}
        self.stop_reason.get().cloned().unwrap_or(StopReason::DriverDropped)
    }

    /// The store, for one read.
    pub(crate) async fn store(&self) -> Result<Arc<OpenStore<S>>, Error> {
        match self.store.upgrade() {
            Some(open) => Ok(open),
            None => Err(Error::Stopped(self.stopped().await)),
        }
    }

    /// An empty batch.
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch::new(self.device, &self.models, &self.limits)
    }

    pub(crate) fn models(&self) -> &Registry {
        &self.models
    }
}

impl<S: Storage> TransactionManager<S> {
    /// Says what `storage` shall be, then opens it.
    pub fn builder(storage: S) -> Builder<S> {
        Builder::new(storage)
    }

    pub(crate) fn new(inner: Inner<S>) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Commits a shared record: puts `model` under its id.
    ///
    /// A value equal to the stored one changes nothing: no log entry, no event. If the model brings its own
    /// [merge](Syncable::merge), what is put is merged into what is there, and the result is returned.
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
    /// `stage` runs at once, in the caller's task. Of several changes to one record the last one counts. Returns
    /// what `stage` returned.
    ///
    /// # Errors
    /// The error of `stage`: one of ours as it is, any other as [`Error::Aborted`], a panic as
    /// [`Error::Panicked`]. Otherwise as [`commit`](TransactionManager::commit).
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn commit_batch<R, F>(&self, stage: F) -> Result<R, Error>
    where
        F: FnOnce(&mut Batch<'_>) -> Result<R, BoxError>,
    {
        let (commit, result) = {
            let mut batch = self.batch();
            let result = catch_unwind(AssertUnwindSafe(|| stage(&mut batch)))
                .map_err(|panic| Error::from_panic(&*panic))?
                .map_err(Error::from_closure)?;
            (batch.into_commit(), result)
        };
        self.submit(commit).await?;
        Ok(result)
    }

    /// Changes a record by what it is: an atomic read-modify-write. Returns the saved model.
    ///
    /// `change` gets the stored model, `None` if there is none, and returns what to put in its place, under the
    /// same id; if the model brings its own [merge](Syncable::merge), that is merged with what is there. It runs once,
    /// in the driver's task, so it should be quick; no other commit comes between.
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
        let record = self.batch().name::<M>(&id)?;
        let saved = Arc::new(Mutex::new(None));
        let (save, value_bytes_max) = (Arc::clone(&saved), self.inner.limits.value_bytes_max);
        let change = move |old: Option<&M>| change(old.cloned()).map_err(Error::from_closure);
        let save = move |put| *save.lock().unwrap_or_else(PoisonError::into_inner) = Some(put);
        let bytes = record.id_bytes().len();
        let action = update(id, value_bytes_max, change, save);
        let change = Staged { record, action, own_merge: M::OWN_MERGE };
        let commit = Commit { changes: vec![change], bytes };
        // The new value is not known yet, so the queue reserves for the largest.
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

    /// Returns records in the order of `ids`, all from one consistent state.
    ///
    /// # Errors
    /// As [`get`](TransactionManager::get).
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn get_many<M: Syncable>(&self, ids: &[RecordId<M>]) -> Result<Vec<Option<M>>, Error> {
        self.inner.models.check::<M>()?;
        let keys: Vec<Key> = ids.iter().map(|id| RecordKey::new::<M>(id).into_bytes()).collect();
        let values = self.inner.read(&keys).await?;
        let records = ids.iter().zip(values);
        records.map(|(id, value)| value.map_or(Ok(None), |value| read_record(id, &value))).collect()
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
    /// # Ok(()) }
    /// ```
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
            // The driver has stopped: a subscription that has ended.
            None => Events::new(broadcast::channel(1).1),
        }
    }

    /// Adds a replica to the group, on the device that it says it is on: its store was opened with
    /// [`join`](crate::Builder::join), and its [`status`](TransactionManager::status) tells both.
    ///
    /// Any member may add another one. To the group it is one from the moment this commit arrives there; the joiner
    /// itself gets everything by then, and may commit.
    ///
    /// # Errors
    /// [`Error::MemberOnOtherDevice`] if it is a member already, on another device, [`Error::TooLarge`] if the group has
    /// [`members_max`](crate::Limits::members_max) members; otherwise as
    /// [`commit`](TransactionManager::commit).
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn add_member(&self, replica: ReplicaId, device: DeviceId) -> Result<(), Error> {
        let max = self.inner.limits.members_max;
        let size = self.status().await?.members.len() + 1;
        if size > max {
            return Err(Error::TooLarge { size, limit: Limit { name: "members_max", max } });
        }
        let member = Member { replica, device, state: MemberState::Active };
        let record = RecordKey::new::<Member>(&replica);
        let bytes = record.id_bytes().len();
        let change = move |known: Option<&Member>| match known {
            Some(known) if known.device != device => {
                Err(Error::MemberOnOtherDevice { replica, stored: known.device, asked: device })
            }
            _ => Ok(member),
        };
        let action = update(replica, self.inner.limits.value_bytes_max, change, drop);
        let change = Staged { record, action, own_merge: Member::OWN_MERGE };
        self.submit(Commit { changes: vec![change], bytes }).await
    }

    /// Lets the commits of a stream through that are held because their stamps stand too far ahead of physical time,
    /// until they are within the bound again.
    ///
    /// This replica's clock follows them, so its own commits are as far ahead from then on, and other replicas hold
    /// those in turn: release on every device, or none. Waiting heals it too.
    ///
    /// # Errors
    /// [`Error::NotHeld`] if the stream is not held, [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// Dropping the future does not take the request back.
    pub async fn release_held(&self, stream: ReplicaId) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let _ = self.inner.control.send(Control::Release(stream, reply));
        match self.answer(answer).await {
            Some(true) => Ok(()),
            Some(false) => Err(Error::NotHeld { stream }),
            None => Err(Error::Stopped(self.inner.stopped().await)),
        }
    }

    /// Says where this replica stands.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn status(&self) -> Result<Status, Error> {
        let (reply, answer) = oneshot::channel();
        // What cannot be sent drops its reply, which is the answer.
        let _ = self.inner.control.send(Control::Status(reply));
        let Some(mut status) = self.answer(answer).await else {
            return Err(Error::Stopped(self.inner.stopped().await));
        };
        let queue = self.inner.queue.available_permits();
        status.queued_bytes = self.inner.limits.queue_bytes_max.saturating_sub(queue);
        status.projections = self.inner.projections.as_ref().map_or_else(Vec::new, |all| all.status());
        Ok(status)
    }

    /// Serves the commits that were sent before, stops the driver and releases the store. Callers that still wait
    /// for room in the queue get [`Error::Stopped`].
    ///
    /// # Errors
    /// [`Error::Stopped`] if the driver had stopped for another reason before.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the request back.
    pub async fn shutdown(&self) -> Result<(), Error> {
        // It fails only if the driver has stopped already.
        let _ = self.inner.control.send(Control::Shutdown);
        match self.inner.stopped().await {
            StopReason::Shutdown => Ok(()),
            reason => Err(Error::Stopped(reason)),
        }
    }

    fn batch(&self) -> Batch<'_> {
        self.inner.batch()
    }

    async fn submit(&self, commit: Commit) -> Result<(), Error> {
        if commit.changes.is_empty() {
            return self.inner.store().await.map(drop);
        }
        let weight = weight(commit.bytes, commit.changes.len());
        self.submit_weighing(commit, weight).await
    }

    async fn submit_weighing(&self, commit: Commit, weight: usize) -> Result<(), Error> {
        let request = match &self.inner.projections {
            Some(all) if commit.changes.iter().any(|change| all.concern(&change.record)) => {
                Request::Join(Arc::clone(all).work(commit))
            }
            _ => Request::Commit(commit),
        };
        self.request(request, weight).await
    }

    /// Sends a request, which occupies `weight` bytes of the queue until it is answered.
    pub(crate) async fn request(&self, request: Request<S>, weight: usize) -> Result<(), Error> {
        // The builder has checked that the largest commit fits the queue, and the queue a `u32`.
        let weight = u32::try_from(weight.min(self.inner.limits.queue_bytes_max)).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.inner.queue).acquire_many_owned(weight).await;
        let Ok(share) = share else { return Err(Error::Stopped(self.inner.stopped().await)) };
        let (reply, answer) = oneshot::channel();
        // What cannot be sent drops its reply, which is the answer.
        let _ = self.inner.requests.send((request, Waiting { reply, _share: share }));
        match self.answer(answer).await {
            Some(Err(error @ (Error::Stopped(_) | Error::Unknown(_)))) => {
                self.inner.stopped().await;
                Err(error)
            }
            Some(result) => result,
            None => Err(Error::Stopped(self.inner.stopped().await)),
        }
    }

    /// Waits for an answer of the driver; `None` if it has stopped without giving one.
    ///
    /// What is sent just while the driver stops may lie in its channel for ever, unread and not dropped: so the
    /// answer is never waited for alone. The driver answers what it took before it releases the store.
    async fn answer<T>(&self, mut answer: oneshot::Receiver<T>) -> Option<T> {
        let mut closed = self.inner.closed.clone();
        match select(&mut answer, pin!(closed.changed())).await {
            Either::Left((given, _)) => given.ok(),
            Either::Right(_) => answer.try_recv().ok(),
        }
    }
}

/// Reads a stored record as the model `M` named `id`; `None` if it is a tombstone.
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
        f.debug_struct("TransactionManager").field("device", &self.inner.device).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Goal: a call returns although its message lies in a channel that nobody reads any more, as one does that is
    /// sent just while the driver stops. Method: receivers that are kept and never read, a store that is closed.
    #[test]
    fn a_message_that_nobody_takes_does_not_hang_its_caller() {
        let (requests, _never_read) = mpsc::unbounded_channel();
        let (control, _never_read_either) = mpsc::unbounded_channel();
        let (_, closed) = watch::channel(());
        let manager = TransactionManager::<Box<dyn Storage>>::new(Inner {
            store: Weak::new(),
            requests,
            control,
            queue: Arc::new(Semaphore::new(1_000_000)),
            notices: broadcast::channel(1).0.downgrade(),
            closed,
            stop_reason: Arc::new(OnceLock::from(StopReason::Fenced)),
            device: DeviceId(uuid::Uuid::nil()),
            folding: Arc::default(),
            models: Arc::new(Registry::new()),
            limits: Arc::default(),
            projections: None,
        });
        let commit = manager.submit_weighing(Commit { changes: Vec::new(), bytes: 0 }, 1);
        assert!(matches!(commit.now_or_never(), Some(Err(Error::Stopped(StopReason::Fenced)))));
        assert!(matches!(manager.status().now_or_never(), Some(Err(Error::Stopped(StopReason::Fenced)))));
        assert!(matches!(manager.shutdown().now_or_never(), Some(Err(Error::Stopped(StopReason::Fenced)))));
    }
}
