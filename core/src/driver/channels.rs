//! The channels between the driver and its managers, and the store that they share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};

use crate::check::LogCheck;
use crate::engine::{Commit, Ticket, Wanted};
use crate::error::{Error, StopReason};
use crate::events::Notice;
use crate::ids::{DeviceId, ReplicaId};
use crate::joined::Work;
use crate::overlay::Shown;
use crate::status::Status;
use crate::synced::{CommitId, DurableOn, Synced};

/// A request of a manager that needs no write, so that the driver answers it also while the store writes.
#[derive(Debug)]
pub(crate) enum Control {
    Status(oneshot::Sender<Status>),
    /// Lets the held commits of a stream through; the reply says whether the stream was held.
    Release(ReplicaId, oneshot::Sender<bool>),
    /// Waits for a replica to knock; the reply says its device.
    Knock(ReplicaId, oneshot::Sender<Result<DeviceId, Error>>),
    /// Checks the logs here.
    CheckLog(oneshot::Sender<Result<LogCheck, Error>>),
    /// Asks which members have a commit.
    DurableOn(CommitId, oneshot::Sender<DurableOn>),
    /// Waits for all members that are reached, for so many milliseconds. The manager names the call, so that it can take
    /// it back.
    WaitSynced(Ticket, u64, oneshot::Sender<Result<Synced, Error>>),
    /// Waits until a commit is durable on enough members, for so many milliseconds.
    WaitDurable(Ticket, Wanted, u64, oneshot::Sender<Result<DurableOn, Error>>),
    /// Takes a call back that waits for members: nobody is there for its answer.
    Forget(Ticket),
    Shutdown,
}

/// A call of the app that needs a write.
pub(crate) enum Request<S> {
    /// Changes that need no native transaction, so that they share a write with other commits.
    Commit(Commit),
    /// A joined write, which shares the native transaction with no other commit.
    Join(Work<S>),
}

/// The driver's ends of the channels that it shares with its managers.
pub(crate) struct Channels<S> {
    /// The calls, taken only between two writes: those that wait here form the next round.
    pub(crate) requests: mpsc::UnboundedReceiver<(Request<S>, Waiting)>,
    pub(crate) control: mpsc::UnboundedReceiver<Control>,
    /// The bytes of the queue that commits may still occupy. The driver fills it when it is run, so that no call is sent
    /// to a driver that nobody runs.
    pub(crate) queue: Arc<Semaphore>,
    pub(crate) queue_bytes_max: usize,
    /// Tells the managers that the driver is run.
    pub(crate) begun: watch::Sender<bool>,
    /// The subscribers' channel; `None` once the driver has stopped, which ends the subscriptions.
    pub(crate) notices: Option<broadcast::Sender<Notice>>,
    pub(crate) stop_reason: Arc<OnceLock<StopReason>>,
    /// Whether the engine may still have values to fold. Until it has none, reads merge such values themselves.
    pub(crate) folding: Arc<AtomicBool>,
    /// The overlay of reads: the records of a snapshot that are not in their places yet.
    pub(crate) overlay: Arc<Shown>,
    /// The sequence number of the last durable commit of this replica. It rises before any caller or subscriber is told.
    pub(crate) own_commits: Arc<AtomicU64>,
}

impl<S> Channels<S> {
    /// Lets the calls come that wait for the driver.
    pub(super) fn begin(&self) {
        self.queue.add_permits(self.queue_bytes_max);
        self.begun.send_replace(true);
    }

    pub(super) fn notify(&self, notice: Notice) {
        if let Some(notices) = &self.notices {
            // Sending fails if the app has no subscriber, which is no error.
            let _ = notices.send(notice);
        }
    }
}

/// A caller that waits for its commit.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
    /// The commit's share of the queue, given back when the call is answered.
    pub(crate) _share: OwnedSemaphorePermit,
}

/// The callers whose calls need no write.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    knocks: HashMap<Ticket, oneshot::Sender<Result<DeviceId, Error>>>,
    checks: HashMap<Ticket, oneshot::Sender<Result<LogCheck, Error>>>,
    next: u64,
    /// The callers that wait for members, by the tickets that their managers drew.
    pub(super) synced: HashMap<Ticket, oneshot::Sender<Result<Synced, Error>>>,
    pub(super) durable: HashMap<Ticket, oneshot::Sender<Result<DurableOn, Error>>>,
}

impl Callers {
    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// Takes a caller that waits for a replica to knock.
    pub(super) fn await_knock(&mut self, caller: oneshot::Sender<Result<DeviceId, Error>>) -> Ticket {
        let ticket = self.ticket();
        self.knocks.insert(ticket, caller);
        ticket
    }

    /// Takes a caller that waits for a check of the logs.
    pub(super) fn await_check(&mut self, caller: oneshot::Sender<Result<LogCheck, Error>>) -> Ticket {
        let ticket = self.ticket();
        self.checks.insert(ticket, caller);
        ticket
    }

    /// Forgets a caller that waited for members.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.synced.remove(&ticket);
        self.durable.remove(&ticket);
    }

    pub(super) fn is_synced(&mut self, ticket: Ticket, answer: Result<Synced, Error>) {
        if let Some(caller) = self.synced.remove(&ticket) {
            let _ = caller.send(answer);
        }
    }

    pub(super) fn is_durable(&mut self, ticket: Ticket, answer: Result<DurableOn, Error>) {
        if let Some(caller) = self.durable.remove(&ticket) {
            let _ = caller.send(answer);
        }
    }

    pub(super) fn knocked(&mut self, ticket: Ticket, device: Result<DeviceId, Error>) {
        if let Some(caller) = self.knocks.remove(&ticket) {
            // The caller may no longer wait.
            let _ = caller.send(device);
        }
    }

    pub(super) fn checked(&mut self, ticket: Ticket, result: Result<LogCheck, Error>) {
        if let Some(caller) = self.checks.remove(&ticket) {
            let _ = caller.send(result);
        }
    }
}

/// The store, and the sign that it was closed. Managers hold a weak reference, so that the driver can close the store.
#[derive(Debug)]
pub(crate) struct OpenStore<S> {
    pub(crate) store: S,
    /// The channel that stopped callers wait for. It is dropped, and so closed, right after the store.
    pub(crate) _closed: watch::Sender<()>,
}
