//! The driver: the one async part. It performs the engine's effects and feeds the results back.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};

use crate::clock::{Clock, Now};
use crate::engine::{Commit, Effect, Engine, Input, Snapshot, Ticket};
use crate::error::{Error, StopReason, panic_message};
use crate::events::Notice;
use crate::storage::{Storage, WriteError};

/// What a manager asks of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Commit(Commit, Waiting),
    Status(oneshot::Sender<Snapshot>),
    Shutdown,
}

/// A caller that waits for its commit.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
    /// The commit's share of the queue, given back when the engine is done with it.
    pub(crate) _share: OwnedSemaphorePermit,
}

/// The store, and the sign that it was released. Managers read through a weak reference.
#[derive(Debug)]
pub(crate) struct Held<S> {
    pub(crate) store: S,
    /// Dropped right after the store, which closes the channel that stopped callers wait for.
    pub(crate) _released: watch::Sender<()>,
}

/// Reads the two clocks.
pub(crate) fn read_clock(clock: &dyn Clock) -> Now {
    Now { wall: clock.wall(), mono: clock.mono() }
}

/// Runs a replica: everything its managers commit passes through here.
///
/// Spawn [`run`](Driver::run) on any runtime. Dropping the driver stops the replica: calls fail with
/// [`StopReason::DriverDropped`] once the store is released, and the store can be opened again.
pub struct Driver<S: Storage> {
    pub(crate) engine: Engine,
    /// `None` once stopped.
    pub(crate) store: Option<Arc<Held<S>>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) queue: Arc<Semaphore>,
    /// Dropped when stopped, which ends the subscriptions.
    pub(crate) notices: Option<broadcast::Sender<Notice>>,
    pub(crate) waiting: HashMap<Ticket, Waiting>,
    pub(crate) next_ticket: u64,
    pub(crate) stop_reason: Arc<OnceLock<StopReason>>,
}

impl<S: Storage> Driver<S> {
    /// Runs until [`shutdown`](crate::TransactionManager::shutdown) is called or the last manager is dropped.
    /// The store is released before this returns.
    ///
    /// # Errors
    /// The reason why it could not go on: the store was fenced, or lost track of a write. Open the store again.
    ///
    /// # Cancel safety
    /// Dropping the future drops the driver. A write that was under way is there whole or not at all.
    pub async fn run(mut self) -> Result<(), StopReason> {
        let reason = self.serve().await;
        self.stop(reason.clone());
        if matches!(reason, StopReason::Shutdown) { Ok(()) } else { Err(reason) }
    }

    async fn serve(&mut self) -> StopReason {
        loop {
            let mut closed = false;
            loop {
                match self.commands.try_recv() {
                    Ok(command) => self.take(command),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        closed = true;
                        break;
                    }
                }
            }
            let mut replied = false;
            while let Some(effect) = self.engine.next_effect() {
                replied |= matches!(effect, Effect::Reply(..));
                if let Err(reason) = self.perform(effect).await {
                    return reason;
                }
            }
            if replied {
                // Callers that were just answered often commit again at once. Letting them run first makes
                // one group of their commits instead of a group of one and a group of all others.
                Yield::default().await;
            } else if closed {
                return StopReason::Shutdown;
            } else if let Some(command) = self.commands.recv().await {
                self.take(command);
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Commit(commit, waiting) => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.waiting.insert(ticket, waiting);
                self.engine.handle(read_clock(&*self.clock), Input::Commit(ticket, commit));
            }
            Command::Status(reply) => drop(reply.send(self.engine.snapshot())),
            // What was sent before is still served.
            Command::Shutdown => self.commands.close(),
        }
    }

    async fn perform(&mut self, effect: Effect) -> Result<(), StopReason> {
        let Some(held) = &self.store else { return Err(StopReason::DriverDropped) };
        let input = match effect {
            Effect::Read(keys) => Input::Read(unwound(held.store.get_many(&keys)).await?),
            Effect::Write(batch) => match unwound(held.store.write(batch)).await? {
                Ok(()) => Input::Written(Ok(())),
                Err(WriteError::Rejected(error)) => Input::Written(Err(Arc::from(error))),
                Err(WriteError::Unknown(error)) => return Err(StopReason::Unknown(Arc::from(error))),
                Err(WriteError::Fenced) => return Err(StopReason::Fenced),
            },
            Effect::Reply(ticket, result) => {
                if let Some(waiting) = self.waiting.remove(&ticket) {
                    // The caller may have gone; its commit stands all the same.
                    let _ = waiting.reply.send(result);
                }
                return Ok(());
            }
            Effect::Notify(notice) => {
                if let Some(notices) = &self.notices {
                    // Nobody may listen.
                    let _ = notices.send(notice);
                }
                return Ok(());
            }
        };
        self.engine.handle(read_clock(&*self.clock), input);
        Ok(())
    }

    /// Answers everybody, then releases the store. Callers return to the app only once it is released.
    fn stop(&mut self, reason: StopReason) {
        let reason = self.stop_reason.get_or_init(|| reason).clone();
        self.queue.close();
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        for (ticket, error) in self.engine.stop(&reason) {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                let _ = waiting.reply.send(Err(error));
            }
        }
        self.waiting.clear();
        self.notices = None;
        self.store = None;
    }
}

impl<S: Storage> Drop for Driver<S> {
    fn drop(&mut self) {
        self.stop(StopReason::DriverDropped);
    }
}

impl<S: Storage> fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// Turns a panic of the store into a reason to stop: it may have happened in the middle of a write.
async fn unwound<T>(operation: impl Future<Output = T>) -> Result<T, StopReason> {
    let caught = AssertUnwindSafe(operation).catch_unwind().await;
    caught.map_err(|panic| StopReason::Panicked(panic_message(&*panic)))
}

/// Lets the tasks that are ready run first.
#[derive(Default)]
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
