//! The network under test, with methods that act on its ends and fail with a message that names the step.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use syncline::{BoxError, Clock, Incoming, ReplicaId, Transport as _, TransportError, Uuid};

use super::TransportFixture;
use crate::poll::give_way;
use crate::watchdog;

/// How long anything may take that must come.
const DEADLINE_MS: u64 = 10_000;
/// How long is waited for what must not come.
const SILENCE_MS: u64 = 100;
/// In how many parts a wait is cut: a clock that does not wait gives so many chances to a future that gives way.
const PARTS: u64 = 100;
/// How often a frame is sent again that did not come: any frame may be lost.
const TRIES: u32 = 20;

pub(super) const A: ReplicaId = ReplicaId(Uuid::from_u128(0xa0));
pub(super) const B: ReplicaId = ReplicaId(Uuid::from_u128(0xb0));
pub(super) const C: ReplicaId = ReplicaId(Uuid::from_u128(0xc0));
pub(super) const D: ReplicaId = ReplicaId(Uuid::from_u128(0xd0));

/// What a message calls a replica.
pub(super) const fn name(replica: ReplicaId) -> &'static str {
    // The last byte of the ids above; a match on ids would need them to be plain data.
    match replica.as_bytes()[15] {
        0xa0 => "a",
        0xb0 => "b",
        0xc0 => "c",
        0xd0 => "d",
        _ => "a replica that nobody attached",
    }
}

/// A network under test.
pub(super) struct Subject<'f, F> {
    property: &'static str,
    pub(super) fixture: &'f F,
    clock: Arc<dyn Clock>,
}

impl<'f, F: TransportFixture> Subject<'f, F> {
    pub(super) fn new(property: &'static str, fixture: &'f F) -> Self {
        Self { property, fixture, clock: fixture.clock() }
    }

    /// Fails the property.
    pub(super) fn fail(&self, step: impl Display, what: impl Display) -> ! {
        panic!("{}: {step}: {what}", self.property)
    }

    async fn wait<T>(&self, ms: u64, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        for _ in 0..PARTS {
            match select(future.as_mut(), self.clock.sleep(Duration::from_millis(ms / PARTS))).await {
                Either::Left((output, _)) => return Some(output),
                // A clock that does not wait must let the other futures of a property run.
                Either::Right(_) => give_way().await,
            }
        }
        None
    }

    /// The output of `future`, which must come.
    pub(super) async fn within<T>(&self, what: impl Display, future: impl Future<Output = T>) -> T {
        watchdog::step(format_args!("{what} does not come"));
        let output = self.wait(DEADLINE_MS, future).await;
        output.unwrap_or_else(|| {
            self.fail(&what, format_args!("it did not come within {} s", DEADLINE_MS / 1000))
        })
    }

    /// The output of `future`, if it comes soon.
    pub(super) async fn soon<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.wait(SILENCE_MS, future).await
    }

    /// Does what the fixture must be able to do.
    pub(super) async fn can(&self, what: &str, act: impl Future<Output = Result<(), BoxError>>) {
        if let Err(error) = self.within(what, act).await {
            self.fail(what, error);
        }
    }

    /// An end that `me` has attached.
    pub(super) async fn attached(&self, me: ReplicaId) -> Peer<'_, 'f, F> {
        let end = match self.within("an end", self.fixture.end(me)).await {
            Ok(end) => end,
            Err(error) => self.fail(format_args!("an end of {}", name(me)), error),
        };
        if let Err(error) = self.within("the answer of `attach`", end.attach(me)).await {
            self.fail(format_args!("`attach` of {}", name(me)), error);
        }
        Peer { subject: self, me, end, up: RefCell::default() }
    }

    /// Ends of these replicas, which have heard `Up` of each other.
    pub(super) async fn connected<const N: usize>(&self, replicas: [ReplicaId; N]) -> [Peer<'_, 'f, F>; N] {
        let mut peers = Vec::new();
        for me in replicas {
            peers.push(self.attached(me).await);
        }
        for peer in &peers {
            for other in replicas.into_iter().filter(|other| *other != peer.me) {
                peer.hear_up(other).await;
            }
        }
        peers.try_into().ok().expect("as many as were made")
    }
}

/// An attached end.
pub(super) struct Peer<'s, 'f, F: TransportFixture> {
    subject: &'s Subject<'f, F>,
    pub(super) me: ReplicaId,
    pub(super) end: F::End,
    /// The peers that are up, by all that was received.
    up: RefCell<BTreeSet<ReplicaId>>,
}

impl<F: TransportFixture> Peer<'_, '_, F> {
    fn note(&self, received: Result<Incoming, TransportError>) -> Incoming {
        match received {
            Ok(incoming) => {
                match &incoming {
                    Incoming::Up(peer) => drop(self.up.borrow_mut().insert(*peer)),
                    Incoming::Down(peer) => drop(self.up.borrow_mut().remove(peer)),
                    Incoming::Frame { .. } => {}
                }
                incoming
            }
            Err(error) => self.subject.fail(format_args!("`receive` of {}", name(self.me)), error),
        }
    }

    /// Whether `Up` of this peer was received, and no `Down` since.
    pub(super) fn is_up(&self, peer: ReplicaId) -> bool {
        self.up.borrow().contains(&peer)
    }

    /// The peers that are up.
    pub(super) fn all_up(&self) -> BTreeSet<ReplicaId> {
        self.up.borrow().clone()
    }

    /// What comes next, which must come.
    pub(super) async fn next(&self, what: impl Display) -> Incoming {
        self.note(self.subject.within(what, self.end.receive()).await)
    }

    /// What comes next, if anything comes soon.
    pub(super) async fn soon(&self) -> Option<Incoming> {
        let mut call = self.end.receive();
        let received = match futures::poll!(&mut call) {
            Poll::Ready(received) => received,
            Poll::Pending => self.subject.soon(call).await?,
        };
        Some(self.note(received))
    }

    /// What comes until nothing does.
    pub(super) async fn rest(&self) -> Vec<Incoming> {
        let mut rest = Vec::new();
        while let Some(incoming) = self.soon().await {
            rest.push(incoming);
        }
        rest
    }

    /// Notes what came outside of the other methods.
    pub(super) fn heard(&self, received: Result<Incoming, TransportError>) -> Incoming {
        self.note(received)
    }

    pub(super) async fn hear_up(&self, peer: ReplicaId) {
        while !self.is_up(peer) {
            self.next(format_args!("`Up` of {} at {}", name(peer), name(self.me))).await;
        }
    }

    pub(super) async fn hear_down(&self, peer: ReplicaId) {
        while self.is_up(peer) {
            self.next(format_args!("`Down` of {} at {}", name(peer), name(self.me))).await;
        }
    }

    /// Hands over a frame, whatever becomes of it. The call must return.
    pub(super) async fn send(&self, to: ReplicaId, frame: &Bytes) -> Result<(), TransportError> {
        let mut call = self.end.send(to, frame.clone());
        // Floods send millions, nearly all of which return at once.
        if let Poll::Ready(sent) = futures::poll!(&mut call) {
            return sent;
        }
        let what = format!("the return of `send` from {} to {}", name(self.me), name(to));
        self.subject.within(what, call).await
    }

    /// Sends a frame until it has come, and returns what came before it.
    pub(super) async fn deliver(&self, to: &Self, frame: &Bytes, what: impl Display) -> Vec<Incoming> {
        let mut before = Vec::new();
        for _ in 0..TRIES {
            let sent = self.send(to.me, frame).await;
            loop {
                // A frame that was refused for certain does not come: the connection may not be there yet.
                let incoming = if sent.is_ok() { to.soon_or_late(&what).await } else { to.soon().await };
                match incoming {
                    Some(Incoming::Frame { from, bytes }) if from == self.me && bytes == *frame => {
                        return before;
                    }
                    Some(incoming) => before.push(incoming),
                    None => break,
                }
            }
        }
        self.subject.fail(
            what,
            format_args!(
                "the frame of {} bytes did not come from {} to {}, sent {TRIES} times",
                frame.len(),
                name(self.me),
                name(to.me)
            ),
        )
    }

    /// What comes next: a long frame on a real network takes a while.
    async fn soon_or_late(&self, what: &impl Display) -> Option<Incoming> {
        watchdog::step(format_args!("{what}: a frame does not come"));
        let received = self.subject.wait(DEADLINE_MS / 4, self.end.receive()).await;
        received.map(|received| self.note(received))
    }
}

/// A frame that names its number in its first bytes and has `len` bytes, 8 at least.
pub(super) fn frame(number: u64, len: usize) -> Bytes {
    let pattern: Vec<u8> =
        (0..251_u8).map(|at| at.wrapping_mul(7).wrapping_add(number.to_le_bytes()[0])).collect();
    let mut bytes = pattern.repeat(len.div_ceil(pattern.len()));
    bytes.truncate(len.max(8));
    bytes.resize(len.max(8), 0);
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}

/// The numbers of the frames of `from`.
pub(super) fn numbers<'i>(
    from: ReplicaId,
    incoming: impl IntoIterator<Item = &'i Incoming>,
) -> impl Iterator<Item = u64> {
    incoming.into_iter().filter_map(move |incoming| match incoming {
        Incoming::Frame { from: sender, bytes } if *sender == from => {
            Some(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?))
        }
        _ => None,
    })
}
