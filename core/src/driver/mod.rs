//! The driver: the one async part, which performs the engine's effects and feeds the results back as inputs.

mod channels;
mod line;
mod perform;
mod thread;
mod trace;

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use crate::clock::{Clock, Mono};
use crate::engine::{Effect, Engine, Input, Ticket};
use crate::error::StopReason;
use crate::inside;
use crate::joined::Work;
use crate::projection::Projecting;
use crate::storage::Storage;
use crate::transport::{Incoming, Transport, TransportError};
pub(crate) use channels::{Callers, Channels, Control, OpenStore, Request, Waiting};
use line::Line;
pub(crate) use line::read_clock;
pub use thread::{DriverThread, blocking, may_block};

/// Runs a replica: every commit of its managers passes through the driver.
///
/// Spawn [`run`](Driver::run) on any runtime, right after opening: calls wait about 3 s for it, and then fail with
/// [`Error::DriverNotRun`](crate::Error::DriverNotRun). Or give it [a thread of its own](Driver::run_on_thread), on which
/// the store writes in place. Dropping the driver stops the replica: calls fail with
/// [`StopReason::DriverDropped`] once the store is closed, and the store can be opened again.
pub struct Driver<S: Storage> {
    /// Boxed, since the future that runs the driver would hold all of it several times.
    engine: Box<Engine>,
    /// The store; `None` once the driver has stopped.
    store: Option<Arc<OpenStore<S>>>,
    /// The work of the store that is under way: a step of the write lane, and beside it a read for a peer.
    running: FuturesUnordered<BoxFuture<'static, Result<Input, StopReason>>>,
    line: Line,
    channels: Channels<S>,
    waiting: HashMap<Ticket, Waiting>,
    callers: Callers,
    /// The work of joined writes whose turn has not come yet.
    joins: HashMap<Ticket, Work<S>>,
    projections: Option<Arc<dyn Projecting<S>>>,
    next_ticket: u64,
}

/// The most frames that are taken before the engine goes on with the commits that they brought.
const FRAMES_AT_ONCE: usize = 64;

impl<S: Storage> Driver<S> {
    pub(crate) fn new(
        engine: Engine,
        store: Arc<OpenStore<S>>,
        clock: Arc<dyn Clock>,
        transport: Option<Arc<dyn Transport>>,
        channels: Channels<S>,
        projections: Option<Arc<dyn Projecting<S>>>,
    ) -> Self {
        Self {
            engine: Box::new(engine),
            store: Some(store),
            running: FuturesUnordered::new(),
            line: Line { clock, transport },
            channels,
            waiting: HashMap::new(),
            callers: Callers::default(),
            joins: HashMap::new(),
            projections,
            next_ticket: 0,
        }
    }

    /// Runs until [`shutdown`](crate::TransactionManager::shutdown) is called or the last manager is dropped.
    /// The store is closed before this returns.
    ///
    /// # Errors
    /// [`StopReason`] if the store was fenced, panicked, or lost track of a write. Open the store again.
    ///
    /// # Cancel safety
    /// Dropping the future drops the driver. A write that was under way is there whole or not at all.
    pub async fn run(mut self) -> Result<(), StopReason> {
        self.channels.begin();
        // Code of the app that the driver calls must not wait for the driver.
        let me = self.engine.me();
        let ended = inside::while_polled(me, pin!(self.serve())).await;
        self.stop(ended.clone().err().unwrap_or(StopReason::Shutdown));
        ended
    }

    /// Serves until it is shut down. The work of the store and of the peers overlaps: frames are taken and checked,
    /// and peers are answered, while a write is under way.
    async fn serve(&mut self) -> Result<(), StopReason> {
        // `yields`: other tasks are due to run before calls are taken. `closed`: no more calls come.
        let (mut yields, mut closed) = (false, false);
        loop {
            while let Ok(control) = self.channels.control.try_recv() {
                answer(&mut self.engine, &self.line, &mut self.callers, &mut self.channels.requests, control);
            }
            // Take the results of the store before any frames: an endless run of frames must not keep a write waiting.
            while let Some(Some(done)) = self.running.next().now_or_never() {
                self.engine.handle(self.line.now(), done?);
            }
            // Finish the calls already taken before taking more, so that callers who arrived together share one write.
            if self.engine.is_idle() && !self.engine.has_calls() {
                if std::mem::take(&mut yields) {
                    // Let callers that were just answered run first: they often commit again at once, and their
                    // commits then form one round instead of a round of one and a round of all others.
                    Yield::default().await;
                }
                closed |= self.take_what_has_arrived();
            }
            if closed {
                self.engine.close();
            }
            if self.engine.is_between_effects() {
                // Yield after frames: an endless run of them must not keep other tasks from running, the store's too.
                if !closed && self.take_frames() {
                    if self.running.is_empty() {
                        yields = true;
                    } else {
                        Yield::default().await;
                    }
                }
            }
            if let Some(effect) = self.engine.next_effect() {
                yields |= matches!(effect, Effect::Reply(..));
                self.perform(effect).await?;
                continue;
            }
            if closed && self.engine.is_idle() && !self.engine.has_calls() {
                return Ok(());
            }
            closed |= self.wait(closed).await?;
        }
    }

    /// Takes every call that waits; returns true if no other call can come.
    fn take_what_has_arrived(&mut self) -> bool {
        loop {
            match self.channels.requests.try_recv() {
                Ok((request, waiting)) => self.take(request, waiting),
                Err(error) => return error == mpsc::error::TryRecvError::Disconnected,
            }
        }
    }

    fn take(&mut self, request: Request<S>, waiting: Waiting) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.insert(ticket, waiting);
        let input = match request {
            Request::Commit(commit) => Input::Commit(ticket, commit),
            Request::Join(work) => {
                self.joins.insert(ticket, work);
                Input::Join(ticket)
            }
        };
        self.engine.handle(self.line.now(), input);
    }

    /// Takes the frames that have come, as far as the engine has room for the commits in them. The others wait in the
    /// transport, which drops those that it cannot hold.
    ///
    /// Returns whether any frame was taken.
    fn take_frames(&mut self) -> bool {
        for taken in 0..FRAMES_AT_ONCE {
            if !self.engine.has_room() {
                return taken > 0;
            }
            match self.line.receive(true).now_or_never() {
                Some(incoming) => self.line.take(incoming, &mut self.engine, &self.channels),
                None => return taken > 0,
            }
        }
        true
    }

    /// Waits for the next thing to happen: a result of the store, a call, a request, a frame or a deadline. Returns whether
    /// it has found that no more calls come.
    async fn wait(&mut self, closed: bool) -> Result<bool, StopReason> {
        enum Arrived<S> {
            Done(Result<Input, StopReason>),
            Request(Option<(Request<S>, Waiting)>),
            Control(Control),
            Incoming(Result<Incoming, TransportError>),
            Time,
        }
        let arrived = {
            let Channels { requests, control, .. } = &mut self.channels;
            let done = next_done(&mut self.running).map(Arrived::Done);
            // Leave calls in the channel while a write is under way: together they form the next round.
            // A channel that is closed says so at once, again and again: no deadline would be reached beside it.
            let takes = self.engine.is_idle() && !closed;
            let requests =
                async { if takes { Arrived::Request(requests.recv().await) } else { pending().await } };
            let control = next_control(control).map(Arrived::Control);
            let incoming = self.line.receive(self.engine.has_room()).map(Arrived::Incoming);
            let timeout = self.engine.next_timeout();
            let time = async {
                match timeout {
                    Some(at) => sleep_until(&*self.line.clock, at).await,
                    None => pending().await,
                }
                Arrived::Time
            };
            first(done, first(first(requests, control), first(incoming, time))).await
        };
        match arrived {
            Arrived::Done(input) => self.engine.handle(self.line.now(), input?),
            Arrived::Request(Some((request, waiting))) => self.take(request, waiting),
            Arrived::Request(None) => return Ok(true),
            Arrived::Control(control) => {
                answer(&mut self.engine, &self.line, &mut self.callers, &mut self.channels.requests, control);
            }
            Arrived::Incoming(incoming) => {
                self.line.take(incoming, &mut self.engine, &self.channels);
                if !self.running.is_empty() {
                    // Yield: an endless run of frames must not keep other tasks from running, the store's too.
                    Yield::default().await;
                }
            }
            Arrived::Time => self.engine.handle(self.line.now(), Input::Tick),
        }
        Ok(false)
    }

    /// Answers every caller, then closes the store. Callers return to the app only once the store is closed, so that
    /// the app can open it again at once.
    fn stop(&mut self, reason: StopReason) {
        let Channels { requests, control, queue, notices, stop_reason, .. } = &mut self.channels;
        let reason = stop_reason.get_or_init(|| reason);
        queue.close();
        requests.close();
        control.close();
        // Drop the requests that are still in the channels: their callers see the dropped reply and return.
        while requests.try_recv().is_ok() {}
        while control.try_recv().is_ok() {}
        for (ticket, error) in self.engine.stop(reason) {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                let _ = waiting.reply.send(Err(error));
            }
        }
        self.waiting.clear();
        self.callers = Callers::default();
        self.joins.clear();
        *notices = None;
        self.line.transport = None;
        // The work under way holds the store too, so it must go before the store can close.
        self.running.clear();
        self.store = None;
    }
}

fn answer<T>(
    engine: &mut Engine,
    line: &Line,
    callers: &mut Callers,
    requests: &mut mpsc::UnboundedReceiver<T>,
    control: Control,
) {
    match control {
        // A reply that cannot be sent is dropped: its caller no longer waits.
        Control::Status(reply) => {
            // Tell the time first: after the device slept, the last input may be hours old.
            engine.handle(line.now(), Input::Tick);
            drop(reply.send(engine.report()));
        }
        Control::Release(stream, reply) => drop(reply.send(engine.release_held(stream))),
        Control::Knock(replica, reply) => {
            let ticket = callers.await_knock(reply);
            engine.handle(line.now(), Input::AwaitKnock(ticket, replica));
        }
        Control::CheckLog(reply) => {
            let ticket = callers.await_check(reply);
            engine.handle(line.now(), Input::CheckLog(ticket));
        }
        Control::DurableOn(commit, reply) => drop(reply.send(engine.durable_on(commit))),
        Control::WaitSynced(ticket, ms, reply) => {
            callers.synced.insert(ticket, reply);
            engine.handle(line.now(), Input::WaitSynced(ticket, ms));
        }
        Control::WaitDurable(ticket, wanted, ms, reply) => {
            callers.durable.insert(ticket, reply);
            engine.handle(line.now(), Input::WaitDurable(ticket, wanted, ms));
        }
        Control::Forget(ticket) => {
            callers.forget(ticket);
            engine.handle(line.now(), Input::Forget(ticket));
        }
        // Closing the channel lets the calls that were sent before still be served.
        Control::Shutdown => requests.close(),
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

/// Waits for the first of two futures; prefers `a` if both are ready.
async fn first<T>(a: impl Future<Output = T>, b: impl Future<Output = T>) -> T {
    select(pin!(a), pin!(b)).await.factor_first().0
}

/// Waits for the next result of the store; for ever if it has no work.
async fn next_done<T>(running: &mut FuturesUnordered<BoxFuture<'static, T>>) -> T {
    match running.next().await {
        Some(done) => done,
        None => pending().await,
    }
}

/// Waits for the next request of a manager; for ever once the last one is gone, as `take_what_has_arrived` notices.
async fn next_control(control: &mut mpsc::UnboundedReceiver<Control>) -> Control {
    match control.recv().await {
        Some(control) => control,
        None => pending().await,
    }
}

/// Waits until about `at`. A clock may end a wait early or late, so the engine compares its deadlines again.
async fn sleep_until(clock: &dyn Clock, at: Mono) {
    let ms = at.since(clock.mono());
    if ms > 0 {
        clock.sleep(Duration::from_millis(ms)).await;
    }
}

/// A future that lets the other tasks that are ready run first.
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
