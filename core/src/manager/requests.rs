//! The state that the managers of one store share; how a call reaches the driver and waits for its answer.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use tokio::sync::{Mutex, Semaphore, broadcast, mpsc, oneshot, watch};

use crate::batch::Batch;
use crate::clock::Clock;
use crate::driver::{Control, OpenStore, Request, Waiting};
use crate::engine::Commit;
use crate::error::{Error, StopReason};
use crate::events::Notice;
use crate::inside;
use crate::limits::{Limits, weight};
use crate::model::Registry;
use crate::overlay::Shown;
use crate::projection::Projecting;
use crate::storage::Storage;
use crate::stored::Identity;

use super::TransactionManager;

/// The state that the managers of one store share.
pub(crate) struct Inner<S> {
    /// A weak reference, so that the store is closed when the driver stops, although managers are still there.
    pub(crate) store: Weak<OpenStore<S>>,
    pub(crate) requests: mpsc::UnboundedSender<(Request<S>, Waiting)>,
    pub(crate) control: mpsc::UnboundedSender<Control>,
    /// The bytes of the queue that commits may still occupy: none before the driver has been run.
    pub(crate) queue: Arc<Semaphore>,
    pub(crate) notices: broadcast::WeakSender<Notice>,
    pub(crate) closed: watch::Receiver<()>,
    /// Whether the driver has been run. The channel is closed once the driver has gone.
    pub(crate) begun: watch::Receiver<bool>,
    /// Measures how long a call waits for a driver that nobody runs.
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop_reason: Arc<OnceLock<StopReason>>,
    pub(crate) identity: Identity,
    /// Whether values may still lie beside records that this version of the app can merge.
    pub(crate) folding: Arc<AtomicBool>,
    /// The overlay of reads: the records of a snapshot that are not in their places yet.
    pub(crate) overlay: Arc<Shown>,
    pub(crate) models: Arc<Registry>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) projections: Option<Arc<dyn Projecting<S>>>,
    /// Held while a member is added: two that are added at once would not see each other.
    pub(crate) adding: Mutex<()>,
    /// The sequence number of the last durable commit of this replica, as the driver tells it.
    pub(crate) own_commits: Arc<AtomicU64>,
    /// How many calls have waited for members: each is named by its number.
    pub(crate) waits: AtomicU64,
}

/// How often, and how long each time, a call waits for the driver to be run. An app that spawns its driver does so
/// right after opening; 3 s are more than any start takes, and less than a user waits.
const DRIVER_WAITS_MAX: u32 = 30;
const DRIVER_WAIT: Duration = Duration::from_millis(100);

/// Lets the other futures of the task, and the other tasks, run first.
pub(crate) async fn give_way() {
    let mut gone = false;
    poll_fn(|context| {
        if std::mem::replace(&mut gone, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl<S> Inner<S> {
    /// Waits until the store is closed, then returns the reason.
    pub(super) async fn stopped(&self) -> StopReason {
        let mut closed = self.closed.clone();
        // The store cannot be closed before code that it runs has ended: to wait for that there would never end.
        if inside::is_inside(self.identity.replica) {
            return self.stop_reason.get().cloned().unwrap_or(StopReason::DriverDropped);
        }
        // The channel carries no messages: it closes when the store has been dropped.
        while closed.changed().await.is_ok() {}
        self.stop_reason.get().cloned().unwrap_or(StopReason::DriverDropped)
    }

    /// Waits until the driver has been run, or has gone.
    ///
    /// # Errors
    /// [`Error::InsideClosure`] in code that the replica itself runs, [`Error::DriverNotRun`] if it takes too long.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        inside::check(self.identity.replica)?;
        if *self.begun.borrow() {
            return Ok(());
        }
        let mut begun = self.begun.clone();
        let begins = pin!(begun.wait_for(|begun| *begun).map(drop));
        match select(begins, pin!(self.driver_is_not_run())).await {
            Either::Left(((), _)) => Ok(()),
            Either::Right((error, _)) => Err(error),
        }
    }

    /// Waits so long that a driver which has not been run by then is certainly forgotten; for ever if it has been run,
    /// or has gone.
    async fn driver_is_not_run(&self) -> Error {
        for _ in 0..DRIVER_WAITS_MAX {
            if *self.begun.borrow() || self.begun.has_changed().is_err() {
                return pending().await;
            }
            self.clock.sleep(DRIVER_WAIT).await;
            // A clock of a test may end a wait at once: whoever runs the driver gets its turn all the same.
            give_way().await;
        }
        Error::DriverNotRun
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
        Batch::new(self.identity.device, &self.models, &self.limits)
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
        inside::check(self.inner.identity.replica)?;
        let share = {
            let room = pin!(Arc::clone(&self.inner.queue).acquire_many_owned(weight));
            match select(room, pin!(self.inner.driver_is_not_run())).await {
                Either::Left((share, _)) => share,
                Either::Right((error, _)) => return Err(error),
            }
        };
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
    use uuid::Uuid;

    use super::*;
    use crate::clock::SystemClock;
    use crate::ids::{DeviceId, GroupId, ReplicaId};

    const IDENTITY: Identity = Identity {
        group: GroupId(Uuid::nil()),
        device: DeviceId(Uuid::nil()),
        replica: ReplicaId(Uuid::nil()),
    };

    /// A manager of a replica that was fenced, whose requests nobody reads.
    struct Stopped {
        manager: TransactionManager<Box<dyn Storage>>,
        queue: Arc<Semaphore>,
        _never_read: mpsc::UnboundedReceiver<(Request<Box<dyn Storage>>, Waiting)>,
        control: mpsc::UnboundedReceiver<Control>,
    }

    impl Stopped {
        fn new(closed: watch::Receiver<()>) -> Self {
            let (requests, _never_read) = mpsc::unbounded_channel();
            let (send_control, control) = mpsc::unbounded_channel();
            let queue = Arc::new(Semaphore::new(1_000_000));
            let manager = TransactionManager::new(Inner {
                store: Weak::new(),
                requests,
                control: send_control,
                queue: Arc::clone(&queue),
                notices: broadcast::channel(1).0.downgrade(),
                closed,
                stop_reason: Arc::new(OnceLock::from(StopReason::Fenced)),
                begun: watch::channel(true).1,
                clock: Arc::new(SystemClock::new()),
                identity: IDENTITY,
                folding: Arc::default(),
                overlay: Arc::default(),
                models: Arc::new(Registry::new()),
                limits: Arc::default(),
                projections: None,
                adding: Default::default(),
                own_commits: Arc::default(),
                waits: Default::default(),
            });
            Self { manager, queue, _never_read, control }
        }
    }

    /// Goal: a call returns although its request lies in a channel that is never read again, as can happen if it is
    /// sent just while the driver stops. Method: receivers that are kept and never read, a store that is closed.
    #[test]
    fn a_message_that_nobody_takes_does_not_hang_its_caller() {
        let stopped = Stopped::new(watch::channel(()).1);
        let manager = &stopped.manager;
        let commit = manager.submit_weighing(Commit { changes: Vec::new(), bytes: 0 }, 1);
        assert!(matches!(commit.now_or_never(), Some(Err(Error::Stopped(StopReason::Fenced)))));
        assert!(matches!(manager.status().now_or_never(), Some(Err(Error::Stopped(StopReason::Fenced)))));
        assert!(matches!(manager.shutdown().now_or_never(), Some(Err(Error::Stopped(StopReason::Fenced)))));
    }

    /// Goal: once a call has returned, the app can open the store again. Method: a driver that has stopped and holds the
    /// store for a moment longer.
    #[test]
    fn a_call_to_a_replica_that_stops_returns_once_the_store_is_closed() {
        let (open, closed) = watch::channel(());
        let stopped = Stopped::new(closed);
        stopped.queue.close();
        let mut commit = pin!(stopped.manager.submit_weighing(Commit { changes: Vec::new(), bytes: 0 }, 1));
        assert!(commit.as_mut().now_or_never().is_none());
        drop(open);
        assert!(matches!(commit.now_or_never(), Some(Err(Error::Stopped(StopReason::Fenced)))));
    }

    /// Calls that an app gives up would pile up in the engine until their time is over. Method: the channel of a driver, read
    /// in its place.
    #[test]
    fn a_wait_for_members_that_is_dropped_is_taken_back() {
        let (_open, closed) = watch::channel(());
        let Stopped { manager, mut control, .. } = Stopped::new(closed);
        let mut named = || match control.try_recv() {
            Ok(Control::WaitSynced(ticket, ..) | Control::Forget(ticket)) => Some(ticket),
            _ => None,
        };
        for _ in 0..2 {
            let mut wait = Box::pin(manager.wait_synced(Duration::from_secs(1)));
            assert!(wait.as_mut().now_or_never().is_none());
            let waits = named().expect("it waits");
            assert_eq!(named(), None);
            drop(wait);
            assert_eq!((named(), named()), (Some(waits), None));
        }
        drop(manager.wait_synced(Duration::from_secs(1)));
        assert_eq!(named(), None, "a call that was never polled is none");
    }
}
