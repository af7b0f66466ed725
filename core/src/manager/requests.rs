//! The state that the managers of one store share; how a call reaches the driver and waits for its answer.

use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};

use futures::future::{Either, select};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use crate::batch::Batch;
use crate::driver::{Control, OpenStore, Request, Waiting};
use crate::engine::Commit;
use crate::error::{Error, StopReason};
use crate::events::Notice;
use crate::ids::DeviceId;
use crate::joined;
use crate::limits::{Limits, weight};
use crate::model::Registry;
use crate::projection::Projecting;
use crate::storage::Storage;

use super::TransactionManager;

/// The state that the managers of one store share.
pub(crate) struct Inner<S> {
    /// A weak reference, so that the store is closed when the driver stops, although managers are still there.
    pub(crate) store: Weak<OpenStore<S>>,
    pub(crate) requests: mpsc::UnboundedSender<(Request<S>, Waiting)>,
    pub(crate) control: mpsc::UnboundedSender<Control>,
    /// The bytes of the queue that commits may still occupy.
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
    /// Waits until the store is closed, then returns the reason.
    pub(super) async fn stopped(&self) -> StopReason {
        let mut closed = self.closed.clone();
        if joined::is_inside() {
            return self.stop_reason.get().cloned().unwrap_or(StopReason::DriverDropped);
        }
        // The channel carries no messages: it closes when the store has been dropped.
        while closed.changed().await.is_ok() {}
        self.stop_reason.get().cloned().unwrap_or(StopReason::DriverDropped)
    }

    /// Returns the store for one read; waits and fails once the driver has stopped.
    pub(crate) async fn store(&self) -> Result<Arc<OpenStore<S>>, Error> {
        match self.store.upgrade() {
            Some(open) => Ok(open),
            None => Err(Error::Stopped(self.stopped().await)),
        }
    }

    /// Makes an empty batch.
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch::new(self.device, &self.models, &self.limits)
    }

    pub(crate) fn models(&self) -> &Registry {
        &self.models
    }
}

impl<S: Storage> TransactionManager<S> {
    pub(super) async fn submit(&self, commit: Commit) -> Result<(), Error> {
        if commit.changes.is_empty() {
            return self.inner.store().await.map(drop);
        }
        let weight = weight(commit.bytes, commit.changes.len());
        self.submit_weighing(commit, weight).await
    }

    pub(super) async fn submit_weighing(&self, commit: Commit, weight: usize) -> Result<(), Error> {
        self.request(Request::Commit(commit), weight).await
    }

    /// Sends a request, which occupies `weight` bytes of the queue until it is answered.
    pub(crate) async fn request(&self, request: Request<S>, weight: usize) -> Result<(), Error> {
        // `Limits::check` made sure that the largest commit fits the queue, and the queue a `u32`.
        let weight = u32::try_from(weight.min(self.inner.limits.queue_bytes_max)).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.inner.queue).acquire_many_owned(weight).await;
        let Ok(share) = share else { return Err(Error::Stopped(self.inner.stopped().await)) };
        let (reply, answer) = oneshot::channel();
        // A request that cannot be sent drops its reply, which is answer enough: the driver has stopped.
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
    /// Waits for the closing of the store too: a request that is sent just while the driver stops may lie in its
    /// channel for ever, unread and not dropped. The driver answers the requests that it took before it closes the
    /// store.
    pub(super) async fn answer<T>(&self, mut answer: oneshot::Receiver<T>) -> Option<T> {
        let mut closed = self.inner.closed.clone();
        match select(&mut answer, pin!(closed.changed())).await {
            Either::Left((given, _)) => given.ok(),
            Either::Right(_) => answer.try_recv().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Goal: a call returns although its request lies in a channel that is never read again, as can happen if it is
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
