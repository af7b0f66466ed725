//! The driver: the one async part. It performs the engine's effects and feeds the results back.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};

use crate::clock::{Clock, Mono, Now};
use crate::engine::{Commit, Effect, Engine, Input, Snapshot, Ticket};
use crate::error::{Error, StopReason, panic_message};
use crate::events::{Event, Notice};
use crate::ids::ReplicaId;
use crate::joined::Work;
use crate::projection::Projecting;
use crate::storage::{Storage, WriteError};
use crate::transport::{Incoming, Transport, TransportError};

/// What a manager asks of the driver beside commits: answered also while the store writes.
#[derive(Debug)]
pub(crate) enum Control {
    Status(oneshot::Sender<Snapshot>),
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
    /// Taken only between two writes: what waits here forms the next group.
    pub(crate) requests: mpsc::UnboundedReceiver<(Request<S>, Waiting)>,
    pub(crate) control: mpsc::UnboundedReceiver<Control>,
    /// Bytes that commits may still occupy.
    pub(crate) queue: Arc<Semaphore>,
    /// `None` once stopped, which ends the subscriptions.
    pub(crate) notices: Option<broadcast::Sender<Notice>>,
    pub(crate) stop_reason: Arc<OnceLock<StopReason>>,
}

impl<S> Channels<S> {
    fn notify(&self, notice: Notice) {
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
    engine: Engine,
    /// `None` once stopped.
    store: Option<Arc<Held<S>>>,
    line: Line,
    channels: Channels<S>,
    waiting: HashMap<Ticket, Waiting>,
    /// The joined writes that the engine has not come to yet.
    joins: HashMap<Ticket, Work<S>>,
    projections: Option<Arc<dyn Projecting<S>>>,
    /// Whether there may be something to rebuild.
    rebuilds: bool,
    next_ticket: u64,
}

/// Where frames come from, and the clocks that say when.
struct Line {
    clock: Arc<dyn Clock>,
    /// `None` without one, and once it has ended.
    transport: Option<Arc<dyn Transport>>,
}

/// How many frames are taken before the engine goes on with what they brought.
const FRAMES_AT_ONCE: usize = 64;

impl Line {
    fn now(&self) -> Now {
        read_clock(&*self.clock)
    }

    /// The next frame, once there is one and the engine has room for what it brings.
    async fn receive(&self, has_room: bool) -> Result<Incoming, TransportError> {
        match self.transport.as_deref().filter(|_| has_room) {
            Some(transport) => transport.receive().await,
            None => pending().await,
        }
    }

    fn take<S>(
        &mut self,
        incoming: Result<Incoming, TransportError>,
        engine: &mut Engine,
        channels: &Channels<S>,
    ) {
        let input = match incoming {
            Ok(Incoming::Frame { from, bytes }) => Input::Frame(from, bytes),
            Ok(Incoming::Up(peer)) => Input::Up(peer),
            Ok(Incoming::Down(peer)) => Input::Down(peer),
            Err(error) => {
                if self.transport.take().is_some() {
                    engine.handle(self.now(), Input::Offline);
                    channels.notify(Notice::new(vec![Event::TransportLost { error: error.to_string() }]));
                }
                return;
            }
        };
        engine.handle(self.now(), input);
    }
}

impl<S: Storage> Driver<S> {
    pub(crate) fn new(
        engine: Engine,
        store: Arc<Held<S>>,
        clock: Arc<dyn Clock>,
        transport: Option<Arc<dyn Transport>>,
        channels: Channels<S>,
        projections: Option<Arc<dyn Projecting<S>>>,
    ) -> Self {
        Self {
            engine,
            store: Some(store),
            line: Line { clock, transport },
            channels,
            waiting: HashMap::new(),
            joins: HashMap::new(),
            rebuilds: projections.is_some(),
            projections,
            next_ticket: 0,
        }
    }

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
        // Whether others are due to run, and whether something was written, since they last did.
        let (mut yields, mut wrote, mut closed) = (false, false, false);
        loop {
            while let Ok(control) = self.channels.control.try_recv() {
                answer(&mut self.engine, &mut self.channels.requests, control);
            }
            // What was taken of the app is done before more is: those who came together are answered together.
            if self.engine.is_between_steps() && !self.engine.has_calls() {
                if std::mem::take(&mut yields) {
                    // Callers that were just answered often commit again at once. Letting them run first makes
                    // one group of their commits instead of a group of one and a group of all others.
                    Yield::default().await;
                }
                closed = self.take_what_has_arrived();
                if closed {
                    self.engine.close();
                }
                if std::mem::take(&mut wrote) {
                    // One page between them, so that neither waits for the other.
                    if let Err(reason) = self.rebuild(closed).await {
                        return reason;
                    }
                }
            }
            if self.engine.is_between_steps() {
                // Frames that never end must not keep others from running either.
                yields |= !closed && self.take_frames();
                self.pass_time();
            }
            if let Some(effect) = self.engine.next_effect() {
                yields |= matches!(effect, Effect::Reply(..));
                wrote |= matches!(effect, Effect::Write(_) | Effect::Join(..) | Effect::Receive(..));
                if let Err(reason) = self.perform(effect).await {
                    return reason;
                }
                continue;
            }
            match self.rebuild(closed).await {
                Err(reason) => return reason,
                // Whoever is ready runs between two pages.
                Ok(true) => Yield::default().await,
                Ok(false) if closed => return StopReason::Shutdown,
                Ok(false) => self.wait().await,
            }
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

    /// Waits for a commit, a frame, the time, or for anything else that changes what is to be done.
    async fn wait(&mut self) {
        enum Arrived<S> {
            Request(Option<(Request<S>, Waiting)>),
            Control(Option<Control>),
            Incoming(Result<Incoming, TransportError>),
            Time,
        }
        let arrived = {
            let Channels { requests, control, .. } = &mut self.channels;
            let requests = requests.recv().map(Arrived::Request);
            let control = control.recv().map(Arrived::Control);
            let incoming = self.line.receive(self.engine.has_room()).map(Arrived::Incoming);
            let timeout = self.engine.next_timeout();
            let time = async {
                match timeout {
                    Some(at) => sleep_until(&*self.line.clock, at).await,
                    None => pending().await,
                }
                Arrived::Time
            };
            let (requests, control, incoming, time) =
                (pin!(requests), pin!(control), pin!(incoming), pin!(time));
            match select(select(requests, control), select(incoming, time)).await {
                Either::Left((Either::Left((arrived, _)) | Either::Right((arrived, _)), _))
                | Either::Right((Either::Left((arrived, _)) | Either::Right((arrived, _)), _)) => arrived,
            }
        };
        match arrived {
            Arrived::Request(Some((request, waiting))) => self.take(request, waiting),
            Arrived::Control(Some(control)) => answer(&mut self.engine, &mut self.channels.requests, control),
            // Both close when the last manager goes.
            Arrived::Request(None) | Arrived::Control(None) => {}
            Arrived::Incoming(incoming) => self.line.take(incoming, &mut self.engine, &self.channels),
            Arrived::Time => self.engine.handle(self.line.now(), Input::Tick),
        }
    }

    async fn perform(&mut self, effect: Effect) -> Result<(), StopReason> {
        let Some(held) = &self.store else { return Err(StopReason::DriverDropped) };
        let (engine, channels, line) = (&mut self.engine, &mut self.channels, &mut self.line);
        let input = match effect {
            Effect::Read(keys) => {
                let values = while_answering(engine, channels, held.store.get_many(&keys)).await?;
                Input::Read(keys, values)
            }
            Effect::Write(batch) => {
                match while_receiving(engine, channels, line, held.store.write(batch)).await? {
                    Ok(()) => Input::Written(Ok(())),
                    Err(WriteError::Rejected(error)) => Input::Written(Err(Arc::from(error))),
                    Err(WriteError::Unknown(error)) => return Err(StopReason::Unknown(Arc::from(error))),
                    Err(WriteError::Fenced) => return Err(StopReason::Fenced),
                }
            }
            Effect::Join(ticket, pen) => match self.joins.remove(&ticket) {
                Some(work) => {
                    let join = work(&held.store, ticket, *pen);
                    Input::Joined(while_receiving(engine, channels, line, join).await??)
                }
                // Every joined write brings its work.
                None => Input::Joined(Err(Error::Stopped(StopReason::DriverDropped))),
            },
            Effect::Receive(commits, pen) => match &self.projections {
                Some(all) => {
                    let join = Arc::clone(all).receive(commits)(&held.store, Ticket(0), *pen);
                    Input::Joined(while_receiving(engine, channels, line, join).await??)
                }
                // Only what projections derive from is received like this.
                None => return Ok(()),
            },
            Effect::Scan(range, limit) => {
                Input::Scanned(while_answering(engine, channels, held.store.scan(range, limit)).await?)
            }
            Effect::Peek(keys) => {
                Input::Peeked(while_answering(engine, channels, held.store.get_many(&keys)).await?)
            }
            Effect::Send(to, frame) => {
                if let Some(transport) = &line.transport {
                    // What is lost is pulled.
                    let _ = while_answering(engine, channels, transport.send(to, frame)).await?;
                }
                return Ok(());
            }
            Effect::Broadcast(frame) => {
                if let Some(transport) = &line.transport {
                    let _ = while_answering(engine, channels, transport.broadcast(frame)).await?;
                }
                return Ok(());
            }
            Effect::Reply(ticket, result) => {
                // Refused before its turn came.
                self.joins.remove(&ticket);
                if let Some(waiting) = self.waiting.remove(&ticket) {
                    // The caller may have gone; its commit stands all the same.
                    let _ = waiting.reply.send(result);
                }
                return Ok(());
            }
            Effect::Notify(notice) => {
                self.channels.notify(notice);
                return Ok(());
            }
        };
        self.engine.handle(self.line.now(), input);
        Ok(())
    }

    /// Rebuilds a page of a projection, unless the replica is `closing`; says whether there was one to rebuild.
    async fn rebuild(&mut self, closing: bool) -> Result<bool, StopReason> {
        let (Some(all), Some(held)) = (&self.projections, &self.store) else { return Ok(false) };
        if closing || !self.rebuilds {
            return Ok(false);
        }
        let page = all.rebuild(&held.store);
        match while_answering(&mut self.engine, &mut self.channels, page).await?? {
            Some(told) => {
                if let Some(status) = told {
                    self.channels.notify(Notice::new(vec![Event::Projection(status)]));
                }
                Ok(true)
            }
            None => {
                self.rebuilds = false;
                Ok(false)
            }
        }
    }

    /// Answers everybody, then releases the store. Callers return to the app only once it is released.
    fn stop(&mut self, reason: StopReason) {
        let Channels { requests, control, queue, notices, stop_reason } = &mut self.channels;
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
        self.store = None;
    }
}

fn answer<T>(engine: &mut Engine, requests: &mut mpsc::UnboundedReceiver<T>, control: Control) {
    match control {
        // The caller may have gone.
        Control::Status(reply) => drop(reply.send(engine.snapshot())),
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

/// Waits for the store or the transport, and answers what needs neither meanwhile.
async fn while_answering<T, S>(
    engine: &mut Engine,
    channels: &mut Channels<S>,
    operation: impl Future<Output = T>,
) -> Result<T, StopReason> {
    meanwhile(engine, channels, None, operation).await
}

/// Waits for a write, and also takes what peers send meanwhile, so that it is checked by the time its turn comes. What
/// they are answered waits behind the write.
async fn while_receiving<T, S>(
    engine: &mut Engine,
    channels: &mut Channels<S>,
    line: &mut Line,
    write: impl Future<Output = T>,
) -> Result<T, StopReason> {
    meanwhile(engine, channels, Some(line), write).await
}

/// Waits for `operation`; answers what is asked meanwhile, and takes what comes on the line, if one is given.
///
/// A panic of the store becomes a reason to stop: it may have happened in the middle of a write.
async fn meanwhile<T, S>(
    // Alone with it, since it is held across an await and what callers staged need not be `Sync`.
    engine: &mut Engine,
    channels: &mut Channels<S>,
    mut line: Option<&mut Line>,
    operation: impl Future<Output = T>,
) -> Result<T, StopReason> {
    let mut operation = pin!(AssertUnwindSafe(operation).catch_unwind());
    let result = loop {
        let has_room = engine.has_room();
        let arrived = {
            let incoming = async {
                match line.as_deref() {
                    Some(line) => line.receive(has_room).await,
                    None => pending().await,
                }
            };
            let (control, incoming) = (pin!(channels.control.recv()), pin!(incoming));
            match select(operation.as_mut(), select(control, incoming)).await {
                Either::Left((result, _)) => break result,
                Either::Right((Either::Left((control, _)), _)) => Either::Left(control),
                Either::Right((Either::Right((incoming, _)), _)) => Either::Right(incoming),
            }
        };
        match arrived {
            Either::Left(Some(control)) => answer(engine, &mut channels.requests, control),
            // There is no manager any more.
            Either::Left(None) => break operation.await,
            Either::Right(incoming) => {
                if let Some(line) = line.as_deref_mut() {
                    line.take(incoming, engine, channels);
                }
                // Frames that never end must not keep others from running, the store among them.
                Yield::default().await;
            }
        }
    };
    result.map_err(|panic| StopReason::Panicked(panic_message(&*panic)))
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
