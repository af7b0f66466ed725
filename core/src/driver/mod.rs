//! The driver: the one async part. It performs the engine's effects and feeds the results back.

mod channels;
mod line;
mod perform;

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
use crate::joined::Work;
use crate::projection::Projecting;
use crate::storage::Storage;
use crate::transport::{Incoming, Transport, TransportError};
pub(crate) use channels::{Channels, Control, OpenStore, Request, Waiting};
use line::Line;
pub(crate) use line::read_clock;

/// Runs a replica: everything its managers commit passes through here.
///
/// Spawn [`run`](Driver::run) on any runtime. Dropping the driver stops the replica: calls fail with
/// [`StopReason::DriverDropped`] once the store is closed, and the store can be opened again.
pub struct Driver<S: Storage> {
    engine: Engine,
    /// `None` once stopped.
    store: Option<Arc<OpenStore<S>>>,
    /// What the store does now: a step of the engine, and beside it a read for a peer.
    running: FuturesUnordered<BoxFuture<'static, Result<Input, StopReason>>>,
    line: Line,
    channels: Channels<S>,
    waiting: HashMap<Ticket, Waiting>,
    /// The joined writes that the engine has not come to yet.
    joins: HashMap<Ticket, Work<S>>,
    projections: Option<Arc<dyn Projecting<S>>>,
    next_ticket: u64,
}

/// How many frames are taken before the engine goes on with what they brought.
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
            engine,
            store: Some(store),
            running: FuturesUnordered::new(),
            line: Line { clock, transport },
            channels,
            waiting: HashMap::new(),
            joins: HashMap::new(),
            projections,
            next_ticket: 0,
        }
    }

    /// Runs until [`shutdown`](crate::TransactionManager::shutdown) is called or the last manager is dropped.
    /// The store is closed before this returns.
    ///
    /// # Errors
    /// The reason why it could not go on: the store was fenced, or lost track of a write. Open the store again.
    ///
    /// # Cancel safety
    /// Dropping the future drops the driver. A write that was under way is there whole or not at all.
    pub async fn run(mut self) -> Result<(), StopReason> {
        let ended = self.serve().await;
        self.stop(ended.clone().err().unwrap_or(StopReason::Shutdown));
        ended
    }

    /// Goes on until it is shut down. What the store does and what peers send overlap: frames are taken and checked,
    /// and peers are answered, while a write is under way.
    async fn serve(&mut self) -> Result<(), StopReason> {
        // Whether others are due to run, and whether no more calls come.
        let (mut yields, mut closed) = (false, false);
        loop {
            while let Ok(control) = self.channels.control.try_recv() {
                answer(&mut self.engine, &mut self.channels.requests, control);
            }
            // Frames that never end must not keep it waiting.
            while let Some(Some(done)) = self.running.next().now_or_never() {
                self.engine.handle(self.line.now(), done?);
            }
            // What was taken of the app is done before more is: those who came together are answered together.
            if self.engine.is_idle() && !self.engine.has_calls() {
                if std::mem::take(&mut yields) {
                    // Callers that were just answered often commit again at once. Letting them run first makes
                    // one group of their commits instead of a group of one and a group of all others.
                    Yield::default().await;
                }
                closed = self.take_what_has_arrived();
                if closed {
                    self.engine.close();
                }
            }
            if self.engine.is_between_effects() {
                // Frames that never end must not keep others from running either, the store among them.
                if !closed && self.take_frames() {
                    if self.running.is_empty() {
                        yields = true;
                    } else {
                        Yield::default().await;
                    }
                }
                self.pass_time();
            }
            if let Some(effect) = self.engine.next_effect() {
                yields |= matches!(effect, Effect::Reply(..));
                self.perform(effect).await?;
                continue;
            }
            if closed && self.engine.is_idle() {
                return Ok(());
            }
            self.wait().await?;
        }
    }

    /// Takes every commit that waits; says whether there will never be another.
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

    /// Takes the frames that are there, as far as there is room for what they bring: where there is none they wait in
    /// the transport, which drops what it cannot hold.
    ///
    /// Says whether there were any.
    fn take_frames(&mut self) -> bool {
        let Some(transport) = self.line.transport.clone() else { return false };
        for taken in 0..FRAMES_AT_ONCE {
            if !self.engine.has_room() {
                return taken > 0;
            }
            match transport.receive().now_or_never() {
                Some(incoming) => self.line.take(incoming, &mut self.engine, &self.channels),
                None => return taken > 0,
            }
        }
        true
    }

    /// Tells the engine that something is due, also while there is never a moment to wait for it.
    fn pass_time(&mut self) {
        let timeout = self.engine.next_timeout();
        if timeout.is_some_and(|at| at <= self.line.clock.mono()) {
            self.engine.handle(self.line.now(), Input::Tick);
        }
    }

    /// Waits for the store, a commit, a frame, the time, or for anything else that changes what is to be done.
    async fn wait(&mut self) -> Result<(), StopReason> {
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
            // Calls that come while a write is under way form the next round.
            let idle = self.engine.is_idle();
            let requests =
                async { if idle { Arrived::Request(requests.recv().await) } else { pending().await } };
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
            // Found out once more when they are taken.
            Arrived::Request(None) => {}
            Arrived::Control(control) => answer(&mut self.engine, &mut self.channels.requests, control),
            Arrived::Incoming(incoming) => {
                self.line.take(incoming, &mut self.engine, &self.channels);
                if !self.running.is_empty() {
                    // Frames that never end must not keep others from running, the store among them.
                    Yield::default().await;
                }
            }
            Arrived::Time => self.engine.handle(self.line.now(), Input::Tick),
        }
        Ok(())
    }

    /// Answers everybody, then closes the store. Callers return to the app only once it is closed.
    fn stop(&mut self, reason: StopReason) {
        let Channels { requests, control, queue, notices, stop_reason, .. } = &mut self.channels;
        let reason = stop_reason.get_or_init(|| reason);
        queue.close();
        requests.close();
        control.close();
        // What is still in the channels is answered by being dropped.
        while requests.try_recv().is_ok() {}
        while control.try_recv().is_ok() {}
        for (ticket, error) in self.engine.stop(reason) {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                let _ = waiting.reply.send(Err(error));
            }
        }
        self.waiting.clear();
        self.joins.clear();
        *notices = None;
        self.line.transport = None;
        // Holds the store as well.
        self.running.clear();
        self.store = None;
    }
}

fn answer<T>(engine: &mut Engine, requests: &mut mpsc::UnboundedReceiver<T>, control: Control) {
    match control {
        // The caller may have gone.
        Control::Status(reply) => drop(reply.send(engine.report())),
        Control::Release(stream, reply) => drop(reply.send(engine.release_held(stream))),
        // What was sent before is still served.
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

/// The output of whichever is ready first; of `a` if both are.
async fn first<T>(a: impl Future<Output = T>, b: impl Future<Output = T>) -> T {
    select(pin!(a), pin!(b)).await.factor_first().0
}

/// What the store has done next; never, if it does nothing.
async fn next_done<T>(running: &mut FuturesUnordered<BoxFuture<'static, T>>) -> T {
    match running.next().await {
        Some(done) => done,
        None => pending().await,
    }
}

/// What a manager asks next; never, once the last one is gone, which shows where requests are taken.
async fn next_control(control: &mut mpsc::UnboundedReceiver<Control>) -> Control {
    match control.recv().await {
        Some(control) => control,
        None => pending().await,
    }
}

/// Waits until the timer shows `at`, or about so long: whoever waits looks at the timer again.
async fn sleep_until(clock: &dyn Clock, at: Mono) {
    let ms = at.since(clock.mono());
    if ms > 0 {
        clock.sleep(Duration::from_millis(ms)).await;
    }
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
