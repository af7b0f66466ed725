//! Transports that break the contract, one way each, over the network in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use syncline::{BoxError, Clock, Incoming, ReplicaId, Transport, TransportError, Uuid};
use syncline_backends::{MemoryNetwork, MemoryTransport};

use super::flaw::flaws;
use super::lock;
use crate::poll::give_way;
use crate::transport::{Holds, MemoryNetworkFixture, TransportFixture};

flaws! {
    /// The fault of a [`BrokenTransport`].
    TransportFlaw

    from_is_true {
        /// A frame comes under the name of the peer that came up last.
        NamesTheLastPeer,
        /// The sender is read from the first bytes of the frame.
        BelievesTheFrame,
    }
    attach_twice_is_refused {
        /// A second replica takes the end over.
        SecondAttachTakesOver,
        /// A second replica is refused, but with an error after which the caller tries again.
        SecondAttachMayBeRepeated,
        /// A second replica is refused, and the first one loses its end.
        SecondAttachEndsTheFirst,
    }
    up_comes_before_the_first_frame {
        /// No peer ever comes up.
        NeverSaysUp,
        /// A frame that is there already overtakes the `Up` of its sender.
        FrameOvertakesUp,
    }
    down_comes_after_up {
        /// A connection that goes is not told.
        NeverSaysDown,
        /// Every `Down` comes twice.
        SaysDownTwice,
        /// The last frame before a `Down` comes after it.
        FrameComesAfterDown,
    }
    dropping_an_end_is_a_down {
        /// An end that is dropped stays attached.
        DropIsSilent,
        /// A replica that has attached an end once gets no second one.
        NoSecondLife,
    }
    frames_come_whole {
        /// A frame is cut after 65,535 bytes.
        CutsFrames,
        /// Two frames that wait come as one.
        JoinsFrames,
        /// A frame of more than 1,400 bytes comes in two.
        SplitsFrames,
    }
    largest_frame_arrives {
        /// Frames of more than a MiB are lost.
        LosesLongFrames,
        /// Frames of more than 16 MiB are refused.
        RefusesLongFrames,
    }
    broadcast_reaches_the_named_and_no_other {
        /// A broadcast goes to every peer.
        BroadcastsToAll,
        /// A broadcast ends at the first peer that cannot be reached.
        BroadcastEndsAtAnError,
        /// A broadcast leaves out the last peer.
        BroadcastLeavesOutTheLast,
    }
    receive_is_cancel_safe {
        /// A `receive` takes a frame, waits, and returns it.
        DroppedReceiveLosesFrame,
        /// A `receive` takes `Up` and `Down`, waits, and returns them.
        DroppedReceiveLosesNews,
    }
    full_queue_drops {
        /// `send` waits until the peer has received the frame.
        SendWaitsForTheReader,
        /// `send` waits as long as the queue is full.
        SendWaitsForRoom,
        /// A queue that was full once takes nothing any more.
        FullQueueEnds,
        /// A `send` to a replica that nobody attached waits for it.
        SendWaitsForThePeer,
    }
    peers_take_turns {
        /// Frames of the peer with the lowest id come first.
        LowestPeerFirst,
        /// Frames of the peer with the highest id come first.
        HighestPeerFirst,
        /// The queue is shared: if it is full of one peer's frames, the others' are dropped.
        OneQueueForAll,
    }
    memory_is_bounded {
        /// The queue has no bound.
        KeepsEverything,
        /// Only frames are counted.
        CountsFramesAlone,
        /// Only bytes are counted.
        CountsBytesAlone,
    }
    closed_says_closed {
        /// A `receive` that waits when its end is taken away waits for ever.
        ClosedWaits,
        /// The end is told once; the next `receive` waits for ever.
        ClosedIsToldOnce,
        /// The error says that a peer cannot be reached.
        ClosedSaysUnreachable,
    }
}

/// A network whose ends have one flaw.
#[derive(Debug)]
pub struct BrokenNetwork {
    flaw: TransportFlaw,
    inner: MemoryNetworkFixture,
    shared: Arc<Mutex<Shared>>,
}

/// The state that the ends of a broken network share.
#[derive(Debug, Default)]
struct Shared {
    /// How many frames wait at each end, and who waits for that to change.
    waiting: BTreeMap<ReplicaId, usize>,
    senders: Vec<Waker>,
    attached: BTreeSet<ReplicaId>,
}

impl BrokenNetwork {
    /// A network without ends.
    #[must_use]
    pub fn new(flaw: TransportFlaw) -> Self {
        let network = MemoryNetwork::builder();
        let network = match flaw {
            TransportFlaw::KeepsEverything => {
                network.queue_frames_max(usize::MAX).queue_bytes_max(usize::MAX)
            }
            TransportFlaw::CountsFramesAlone => network.queue_bytes_max(usize::MAX),
            TransportFlaw::CountsBytesAlone => network.queue_frames_max(usize::MAX),
            _ => network,
        };
        Self { flaw, inner: MemoryNetworkFixture::over(network.build()), shared: Arc::default() }
    }
}

#[async_trait]
impl TransportFixture for BrokenNetwork {
    type End = BrokenTransport;

    async fn end(&self, me: ReplicaId) -> Result<BrokenTransport, BoxError> {
        let inner = Arc::new(self.inner.end(me).await?);
        if self.flaw == TransportFlaw::DropIsSilent {
            std::mem::forget(Arc::clone(&inner));
        }
        Ok(BrokenTransport {
            flaw: self.flaw,
            inner,
            shared: Arc::clone(&self.shared),
            holds: self.holds(),
            state: Mutex::default(),
        })
    }

    fn holds(&self) -> Holds {
        self.inner.holds()
    }

    async fn disconnect(&self, a: ReplicaId, b: ReplicaId) -> Result<(), BoxError> {
        self.inner.disconnect(a, b).await
    }

    async fn connect(&self, a: ReplicaId, b: ReplicaId) -> Result<(), BoxError> {
        self.inner.connect(a, b).await
    }

    async fn close(&self, me: ReplicaId) -> Result<(), BoxError> {
        self.inner.close(me).await
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock()
    }
}

/// An end with one flaw, and otherwise correct.
#[derive(Debug)]
pub struct BrokenTransport {
    flaw: TransportFlaw,
    inner: Arc<MemoryTransport>,
    shared: Arc<Mutex<Shared>>,
    holds: Holds,
    state: Mutex<State>,
}

/// The memory of a flaw.
#[derive(Debug, Default)]
struct State {
    me: Option<ReplicaId>,
    peers: BTreeSet<ReplicaId>,
    last_up: Option<ReplicaId>,
    /// What comes before anything else.
    next: VecDeque<Incoming>,
    queues: BTreeMap<ReplicaId, VecDeque<Bytes>>,
    last_frame: Option<Incoming>,
    ended: bool,
    told: bool,
}

impl BrokenTransport {
    fn note(&self, incoming: &Incoming) {
        let mut state = lock(&self.state);
        match incoming {
            Incoming::Up(peer) => {
                state.last_up = Some(*peer);
                state.peers.insert(*peer);
            }
            Incoming::Down(peer) => drop(state.peers.remove(peer)),
            Incoming::Frame { .. } => {
                let Some(me) = state.me else { return };
                drop(state);
                let mut shared = lock(&self.shared);
                if let Some(waiting) = shared.waiting.get_mut(&me) {
                    *waiting = waiting.saturating_sub(1);
                }
                let senders = std::mem::take(&mut shared.senders);
                drop(shared);
                senders.into_iter().for_each(Waker::wake);
            }
        }
    }

    /// Waits until fewer than `frames` frames wait at `to`.
    async fn wait_until_below(&self, to: ReplicaId, frames: usize) {
        poll_fn(|context| {
            let mut shared = lock(&self.shared);
            if shared.waiting.get(&to).copied().unwrap_or(0) < frames {
                return Poll::Ready(());
            }
            shared.senders.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// What has arrived and was not received, if that is known without a wait.
    fn receive_now(&self) -> Option<Incoming> {
        self.inner.receive().now_or_never()?.ok()
    }

    /// Takes what has arrived into a queue for each peer, of which `first` says which comes first.
    async fn receive_by_peer(
        &self,
        first: fn(&BTreeMap<ReplicaId, VecDeque<Bytes>>) -> Option<ReplicaId>,
    ) -> Result<Incoming, TransportError> {
        loop {
            while let Some(incoming) = self.receive_now() {
                let Incoming::Frame { from, bytes } = incoming else { return Ok(incoming) };
                let mut state = lock(&self.state);
                let queue = state.queues.entry(from).or_default();
                if queue.len() < self.holds.frames_max / 2 {
                    queue.push_back(bytes);
                }
            }
            let queued = {
                let mut state = lock(&self.state);
                state.queues.retain(|_, queue| !queue.is_empty());
                let from = first(&state.queues);
                from.and_then(|from| Some((from, state.queues.get_mut(&from)?.pop_front()?)))
            };
            if let Some((from, bytes)) = queued {
                return Ok(Incoming::Frame { from, bytes });
            }
            match self.inner.receive().await? {
                Incoming::Frame { from, bytes } => {
                    lock(&self.state).queues.entry(from).or_default().push_back(bytes);
                }
                news => return Ok(news),
            }
        }
    }

    async fn receive_flawed(&self) -> Result<Incoming, TransportError> {
        if let Some(next) = lock(&self.state).next.pop_front() {
            return Ok(next);
        }
        match self.flaw {
            TransportFlaw::LowestPeerFirst => {
                return self.receive_by_peer(|queues| queues.keys().next().copied()).await;
            }
            TransportFlaw::HighestPeerFirst => {
                return self.receive_by_peer(|queues| queues.keys().next_back().copied()).await;
            }
            TransportFlaw::ClosedIsToldOnce if lock(&self.state).told => return pending().await,
            _ => {}
        }
        let received = self.inner.receive().await;
        let incoming = match received {
            Ok(incoming) => incoming,
            Err(error) => {
                lock(&self.state).told = true;
                return match self.flaw {
                    TransportFlaw::ClosedWaits => pending().await,
                    TransportFlaw::ClosedSaysUnreachable => {
                        Err(TransportError::Unreachable(ReplicaId(Uuid::nil())))
                    }
                    _ => Err(error),
                };
            }
        };
        self.change(incoming).await
    }

    /// Does to what was received what the flaw does to it.
    async fn change(&self, incoming: Incoming) -> Result<Incoming, TransportError> {
        match (self.flaw, &incoming) {
            (TransportFlaw::DroppedReceiveLosesFrame, Incoming::Frame { .. })
            | (TransportFlaw::DroppedReceiveLosesNews, Incoming::Up(_) | Incoming::Down(_)) => {
                give_way().await;
            }
            (TransportFlaw::NamesTheLastPeer, Incoming::Frame { bytes, from }) => {
                let from = lock(&self.state).last_up.unwrap_or(*from);
                return Ok(Incoming::Frame { from, bytes: bytes.clone() });
            }
            (TransportFlaw::BelievesTheFrame, Incoming::Frame { bytes, .. }) => {
                let named = bytes.get(..16).and_then(|id| id.try_into().ok()).map(ReplicaId::from_bytes);
                let known = named.filter(|id| lock(&self.state).peers.contains(id));
                if let Some(from) = known {
                    return Ok(Incoming::Frame { from, bytes: bytes.clone() });
                }
            }
            (TransportFlaw::NeverSaysUp, Incoming::Up(_))
            | (TransportFlaw::NeverSaysDown, Incoming::Down(_)) => {
                return Box::pin(self.receive_flawed()).await;
            }
            (TransportFlaw::FrameOvertakesUp, Incoming::Up(_)) => {
                if let Some(first) = self.receive_now() {
                    lock(&self.state).next.push_back(incoming);
                    return Ok(first);
                }
            }
            (TransportFlaw::SaysDownTwice, Incoming::Down(_)) => {
                lock(&self.state).next.push_back(incoming.clone());
            }
            (TransportFlaw::FrameComesAfterDown, Incoming::Frame { .. }) => {
                lock(&self.state).last_frame = Some(incoming.clone());
            }
            (TransportFlaw::FrameComesAfterDown, Incoming::Down(_)) => {
                let mut state = lock(&self.state);
                let last = state.last_frame.take();
                state.next.extend(last);
            }
            (TransportFlaw::JoinsFrames, Incoming::Frame { from, bytes }) => match self.receive_now() {
                Some(Incoming::Frame { from: next, bytes: more }) if next == *from => {
                    return Ok(Incoming::Frame {
                        from: next,
                        bytes: [&bytes[..], &more[..]].concat().into(),
                    });
                }
                Some(other) => lock(&self.state).next.push_back(other),
                None => {}
            },
            (TransportFlaw::SplitsFrames, Incoming::Frame { from, bytes }) if bytes.len() > 1_400 => {
                let from = *from;
                lock(&self.state).next.push_back(Incoming::Frame { from, bytes: bytes.slice(1_400..) });
                return Ok(Incoming::Frame { from, bytes: bytes.slice(..1_400) });
            }
            (TransportFlaw::CutsFrames, Incoming::Frame { from, bytes }) if bytes.len() > 65_535 => {
                return Ok(Incoming::Frame { from: *from, bytes: bytes.slice(..65_535) });
            }
            _ => {}
        }
        Ok(incoming)
    }
}

#[async_trait]
impl Transport for BrokenTransport {
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
        let first = lock(&self.state).me;
        match (self.flaw, first) {
            (TransportFlaw::SecondAttachTakesOver, Some(_)) => return Ok(()),
            (TransportFlaw::SecondAttachMayBeRepeated, Some(_)) => {
                return Err(TransportError::not_started("it is in use"));
            }
            (TransportFlaw::SecondAttachEndsTheFirst, Some(_)) => lock(&self.state).ended = true,
            (TransportFlaw::NoSecondLife, None) if !lock(&self.shared).attached.insert(me) => {
                return Err(TransportError::not_started("the port is in use"));
            }
            _ => {}
        }
        self.inner.attach(me).await?;
        lock(&self.state).me = Some(me);
        Ok(())
    }

    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
        if lock(&self.state).ended {
            return Err(TransportError::closed("it has ended"));
        }
        let held = |shared: &Shared| shared.waiting.get(&to).copied().unwrap_or(0);
        match self.flaw {
            TransportFlaw::LosesLongFrames if frame.len() > 1 << 20 => return Ok(()),
            TransportFlaw::RefusesLongFrames if frame.len() > 16 << 20 => {
                return Err(TransportError::refused("the frame is too long"));
            }
            TransportFlaw::SendWaitsForRoom => self.wait_until_below(to, self.holds.frames_max).await,
            TransportFlaw::FullQueueEnds if held(&lock(&self.shared)) >= self.holds.frames_max => {
                lock(&self.state).ended = true;
                return Err(TransportError::closed("the queue is full"));
            }
            TransportFlaw::OneQueueForAll if held(&lock(&self.shared)) >= self.holds.frames_max => {
                return Ok(());
            }
            _ => {}
        }
        let sent = self.inner.send(to, frame).await;
        if sent.is_ok() {
            *lock(&self.shared).waiting.entry(to).or_default() += 1;
            if self.flaw == TransportFlaw::SendWaitsForTheReader {
                self.wait_until_below(to, 1).await;
            }
        } else if self.flaw == TransportFlaw::SendWaitsForThePeer {
            return pending().await;
        }
        sent
    }

    async fn broadcast(&self, to: &[ReplicaId], frame: Bytes) -> Result<(), TransportError> {
        let to = match self.flaw {
            TransportFlaw::BroadcastsToAll => lock(&self.state).peers.iter().copied().collect(),
            TransportFlaw::BroadcastLeavesOutTheLast => {
                to.split_last().map_or_else(Vec::new, |(_, rest)| rest.to_vec())
            }
            _ => to.to_vec(),
        };
        for peer in to {
            let sent = self.send(peer, frame.clone()).await;
            if self.flaw == TransportFlaw::BroadcastEndsAtAnError {
                sent?;
            }
        }
        Ok(())
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        let received = self.receive_flawed().await;
        if let Ok(incoming) = &received {
            self.note(incoming);
        }
        received
    }
}
