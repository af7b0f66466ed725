//! What the driver shares with its managers: the channels between them, and the store.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};

use crate::engine::Commit;
use crate::error::{Error, StopReason};
use crate::events::Notice;
use crate::ids::ReplicaId;
use crate::joined::Work;
use crate::status::Status;

/// What a manager asks of the driver beside commits: answered also while the store writes.
#[derive(Debug)]
pub(crate) enum Control {
    Status(oneshot::Sender<Status>),
    /// Let the held commits of a stream through; whether there were any.
    Release(ReplicaId, oneshot::Sender<bool>),
    Shutdown,
}

/// What a manager wants written.
pub(crate) enum Request<S> {
    /// Changes that need nothing of the store but a batch: they share a write with others.
    Commit(Commit),
    /// A write of its own, in the store's native transaction.
    Join(Work<S>),
}

/// The driver's ends of the channels that it shares with its managers.
pub(crate) struct Channels<S> {
    /// Taken only between two writes: what waits here forms the next round.
    pub(crate) requests: mpsc::UnboundedReceiver<(Request<S>, Waiting)>,
    pub(crate) control: mpsc::UnboundedReceiver<Control>,
    /// Bytes that commits may still occupy.
    pub(crate) queue: Arc<Semaphore>,
    /// `None` once stopped, which ends the subscriptions.
    pub(crate) notices: Option<broadcast::Sender<Notice>>,
    pub(crate) stop_reason: Arc<OnceLock<StopReason>>,
    /// Whether values may still be folded into their records, which reads must do for themselves until then.
    pub(crate) folding: Arc<AtomicBool>,
}

impl<S> Channels<S> {
    pub(super) fn notify(&self, notice: Notice) {
        if let Some(notices) = &self.notices {
            // Nobody may listen.
            let _ = notices.send(notice);
        }
    }
}

/// A caller that waits for its commit.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
    /// The commit's share of the queue, given back when the engine is done with it.
    pub(crate) _share: OwnedSemaphorePermit,
}

/// The store, and the sign that it was closed. Managers read through a weak reference.
#[derive(Debug)]
pub(crate) struct OpenStore<S> {
    pub(crate) store: S,
    /// Dropped right after the store, which closes the channel that stopped callers wait for.
    pub(crate) _closed: watch::Sender<()>,
}
