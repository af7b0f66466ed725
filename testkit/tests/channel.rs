//! Goal: the transport that the page for authors shows keeps the contract. Method: both lists for transports.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use syncline::{BoxError, Incoming, ReplicaId, Transport, TransportError};
use syncline_testkit::transport::{Holds, TransportFixture};
use syncline_testkit::{replication_over_tests, transport_tests};

/// The most that waits at an end for each peer. A frame that is longer than all of it waits alone.
const FRAMES_MAX: usize = 256;
const BYTES_MAX: usize = 16 << 20;

/// Ends in one process, by replica.
#[derive(Clone, Default)]
struct Channel(Arc<Mutex<BTreeMap<ReplicaId, Inbox>>>);

#[derive(Default)]
struct Inbox {
    /// Who came and who went. `receive` tells it before any frame.
    news: VecDeque<Incoming>,
    /// The peers that can be reached, each with room of its own: one that floods fills its own room alone.
    peers: BTreeMap<ReplicaId, Queue>,
    /// The peer whose frame was received last: the next one has its turn.
    last: Option<ReplicaId>,
    closed: bool,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Channel {
    fn ends(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Inbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    fn up(&mut self, peer: ReplicaId) {
        if self.peers.insert(peer, Queue::default()).is_none() {
            self.news.push_back(Incoming::Up(peer));
        }
        self.wake();
    }

    /// The frames of the peer go with it: none may come between its `Down` and its next `Up`.
    fn down(&mut self, peer: ReplicaId) {
        if self.peers.remove(&peer).is_some() {
            // An `Up` that was not told is taken back, so that a peer that comes and goes fills no memory.
            match self.news.iter().position(|news| *news == Incoming::Up(peer)) {
                Some(untold) => drop(self.news.remove(untold)),
                None => self.news.push_back(Incoming::Down(peer)),
            }
        }
        self.wake();
    }

    fn push(&mut self, from: ReplicaId, frame: Bytes) {
        let Some(queue) = self.peers.get_mut(&from) else { return };
        let room = queue.frames.len() < FRAMES_MAX && queue.bytes + frame.len() <= BYTES_MAX;
        if room || queue.frames.is_empty() {
            queue.bytes += frame.len();
            queue.frames.push_back(frame);
        }
        // Otherwise it is dropped: the peer's replica asks again for what it lacks.
        self.wake();
    }

    fn next(&mut self) -> Option<Incoming> {
        if let Some(news) = self.news.pop_front() {
            return Some(news);
        }
        let waits = |(_, queue): &(&ReplicaId, &Queue)| !queue.frames.is_empty();
        let mut peers = self.peers.iter().filter(waits).map(|(peer, _)| *peer);
        let first = peers.clone().next();
        let from = peers.find(|peer| Some(*peer) > self.last).or(first)?;
        let queue = self.peers.get_mut(&from)?;
        let bytes = queue.frames.pop_front()?;
        queue.bytes -= bytes.len();
        self.last = Some(from);
        Some(Incoming::Frame { from, bytes })
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// One end.
struct End {
    channel: Channel,
    me: Mutex<Option<ReplicaId>>,
}

impl End {
    fn me(&self) -> MutexGuard<'_, Option<ReplicaId>> {
        self.me.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for End {
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
        let mut mine = self.me();
        let mut ends = self.channel.ends();
        // A network between machines lets each end prove who it is. Here the caller vouches for it.
        if mine.is_some() || ends.contains_key(&me) {
            return Err(TransportError::refused("another replica has this end, or this replica another end"));
        }
        let mut inbox = Inbox::default();
        for (peer, end) in ends.iter_mut().filter(|(_, end)| !end.closed) {
            end.up(me);
            inbox.up(*peer);
        }
        ends.insert(me, inbox);
        *mine = Some(me);
        Ok(())
    }

    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
        let me = self.me().ok_or(TransportError::Unreachable(to))?;
        let mut ends = self.channel.ends();
        if ends.get(&me).is_none_or(|end| end.closed) {
            return Err(TransportError::closed("the channel was taken away"));
        }
        let peer = ends.get_mut(&to).filter(|peer| peer.peers.contains_key(&me));
        peer.ok_or(TransportError::Unreachable(to))?.push(me, frame);
        Ok(())
    }

    /// Takes from the inbox and waits in one step, so that a future that is dropped has taken nothing.
    async fn receive(&self) -> Result<Incoming, TransportError> {
        poll_fn(|context| {
            let mut ends = self.channel.ends();
            let inbox = self.me().and_then(|me| ends.get_mut(&me)).filter(|inbox| !inbox.closed);
            let Some(inbox) = inbox else {
                return Poll::Ready(Err(TransportError::closed("the channel was taken away")));
            };
            if let Some(incoming) = inbox.next() {
                return Poll::Ready(Ok(incoming));
            }
            inbox.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let Some(me) = *self.me() else { return };
        let mut ends = self.channel.ends();
        ends.remove(&me);
        ends.values_mut().for_each(|peer| peer.down(me));
    }
}

#[async_trait]
impl TransportFixture for Channel {
    type End = End;

    async fn end(&self, _: ReplicaId) -> Result<End, BoxError> {
        Ok(End { channel: self.clone(), me: Mutex::default() })
    }

    fn holds(&self) -> Holds {
        Holds { frames_max: FRAMES_MAX, bytes_max: BYTES_MAX }
    }

    async fn disconnect(&self, a: ReplicaId, b: ReplicaId) -> Result<(), BoxError> {
        let mut ends = self.ends();
        ends.get_mut(&a).ok_or("it is not attached")?.down(b);
        ends.get_mut(&b).ok_or("it is not attached")?.down(a);
        Ok(())
    }

    async fn connect(&self, a: ReplicaId, b: ReplicaId) -> Result<(), BoxError> {
        let mut ends = self.ends();
        ends.get_mut(&a).ok_or("it is not attached")?.up(b);
        ends.get_mut(&b).ok_or("it is not attached")?.up(a);
        Ok(())
    }

    async fn close(&self, me: ReplicaId) -> Result<(), BoxError> {
        let mut ends = self.ends();
        let inbox = ends.get_mut(&me).ok_or("it is not attached")?;
        inbox.closed = true;
        inbox.wake();
        ends.values_mut().for_each(|peer| peer.down(me));
        Ok(())
    }
}

transport_tests!(channel, Channel::default);
replication_over_tests!(replicas, Channel::default);
