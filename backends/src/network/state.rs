//! Everything that the ends of a network share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use syncline::{Clock, Incoming, Mono, ReplicaId, TransportError};
use tokio::sync::Notify;

use super::end::{End, Frame, Slot};
use super::link::{Wire, chance, damaged, generator, within};
use super::transport::Owner;
use super::{Link, Traffic};

pub(super) struct State {
    pub(super) seed: u64,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) queue_frames_max: usize,
    pub(super) queue_bytes_max: usize,
    /// Whether replicas reach each other without being connected by hand.
    pub(super) mesh: bool,
    /// Whether any link has ever delayed. From then on every frame is due at a time: one that is not delayed must not
    /// overtake those that have become due.
    pub(super) timed: bool,
    /// What links are that were not set by name.
    pub(super) link: Link,
    pub(super) ends: BTreeMap<ReplicaId, End>,
    /// By sender and receiver.
    pub(super) wires: BTreeMap<(ReplicaId, ReplicaId), Wire>,
    /// Pairs connected by hand.
    pub(super) connected: BTreeSet<(ReplicaId, ReplicaId)>,
    /// Pairs disconnected by hand.
    pub(super) cut: BTreeSet<(ReplicaId, ReplicaId)>,
    /// Counts frames: those that are due at the same time come in this order.
    pub(super) order: u64,
    /// Counts attached ends: the newest of a replica owns its queue.
    pub(super) generation: u64,
    /// Ends that have something new, to be woken after the lock is given back.
    pub(super) woken: Vec<Arc<Notify>>,
}

pub(super) enum Next {
    Ready(Incoming),
    Due { wait_ms: u64 },
    Nothing,
}

impl State {
    pub(super) fn attach(&mut self, me: ReplicaId) -> Owner {
        self.detach(me);
        self.generation += 1;
        let end = End {
            generation: self.generation,
            news: VecDeque::new(),
            queue: BTreeMap::new(),
            queue_bytes: 0,
            changed: Arc::new(Notify::new()),
        };
        let owner = Owner { me, generation: end.generation, changed: Arc::clone(&end.changed) };
        self.ends.insert(me, end);
        for peer in self.peers(me) {
            self.tell_up(me, peer);
        }
        owner
    }

    pub(super) fn detach(&mut self, me: ReplicaId) {
        for peer in self.peers(me) {
            self.tell_down(me, peer);
        }
        let Some(end) = self.ends.remove(&me) else { return };
        // What is left was injected for replicas that are no peers.
        for frame in end.queue.into_values() {
            self.wire(frame.from, me).traffic.dropped_frames += 1;
        }
        self.woken.push(end.changed);
    }

    pub(super) fn own(&mut self, owner: &Owner) -> Result<&mut End, TransportError> {
        self.ends
            .get_mut(&owner.me)
            .filter(|end| end.generation == owner.generation)
            .ok_or_else(|| TransportError::closed("a newer end of the same replica took over"))
    }

    pub(super) fn reaches(&self, a: ReplicaId, b: ReplicaId) -> bool {
        let pair = pair(a, b);
        a != b
            && self.ends.contains_key(&a)
            && self.ends.contains_key(&b)
            && (self.mesh || self.connected.contains(&pair))
            && !self.cut.contains(&pair)
    }

    pub(super) fn peers(&self, me: ReplicaId) -> Vec<ReplicaId> {
        self.ends.keys().copied().filter(|peer| self.reaches(me, *peer)).collect()
    }

    pub(super) fn tell_up(&mut self, a: ReplicaId, b: ReplicaId) {
        for (me, peer) in [(a, b), (b, a)] {
            let Some(end) = self.ends.get_mut(&me) else { continue };
            end.news.push_back(Incoming::Up(peer));
            self.woken.push(Arc::clone(&end.changed));
        }
    }

    pub(super) fn tell_down(&mut self, a: ReplicaId, b: ReplicaId) {
        for (me, peer) in [(a, b), (b, a)] {
            let Some(end) = self.ends.get_mut(&me) else { continue };
            let dropped_frames = end.hear_down(peer);
            self.woken.push(Arc::clone(&end.changed));
            self.wire(peer, me).traffic.dropped_frames += dropped_frames;
        }
    }

    pub(super) fn set_all(&mut self, link: Link) {
        self.timed |= link.delays();
        for wire in self.wires.values_mut() {
            wire.link = link.clone();
        }
        self.link = link;
    }

    pub(super) fn wire(&mut self, from: ReplicaId, to: ReplicaId) -> &mut Wire {
        self.wires.entry((from, to)).or_insert_with(|| Wire {
            link: self.link.clone(),
            random: generator(self.seed, from, to),
            traffic: Traffic::default(),
        })
    }

    /// The time, or the start of it as long as nothing was ever delayed: then the order alone counts.
    pub(super) fn now(&self) -> Mono {
        if self.timed { self.clock.mono() } else { Mono(0) }
    }

    pub(super) fn transmit(&mut self, from: ReplicaId, to: ReplicaId, bytes: &Bytes) {
        let now = self.now();
        let wire = self.wire(from, to);
        wire.traffic.sent(bytes);
        // Each frame draws from a generator of its own: a link that is set otherwise for a while draws the same as
        // before afterwards.
        let mut random = wire.random.fork();
        let link = wire.link.clone();
        if link.blocked || chance(&mut random, link.loss) {
            wire.traffic.dropped_frames += 1;
            return;
        }
        let twice = chance(&mut random, link.duplicate);
        let extra_ms = within(&mut random, &link.duplicate_delay_ms);
        self.deliver(now, from, to, bytes, &link, &mut random);
        if twice {
            let later = Mono(now.0.saturating_add(extra_ms));
            self.deliver(later, from, to, bytes, &link, &mut random);
        }
    }

    /// Sends one copy on its way.
    pub(super) fn deliver(
        &mut self,
        now: Mono,
        from: ReplicaId,
        to: ReplicaId,
        bytes: &Bytes,
        link: &Link,
        random: &mut Rng,
    ) {
        let due = Mono(now.0.saturating_add(within(random, &link.delay_ms)));
        let corrupt = chance(random, link.corrupt);
        let bytes = if corrupt { damaged(bytes, random) } else { bytes.clone() };
        let reorder = chance(random, link.reorder);
        let Some(slot) = self.enqueue(due, from, to, bytes) else { return };
        if reorder && let Some(end) = self.ends.get_mut(&to) {
            end.exchange(slot, from, random);
        }
    }

    /// Puts a frame into the queue of `to`, if there is room.
    pub(super) fn enqueue(
        &mut self,
        due: Mono,
        from: ReplicaId,
        to: ReplicaId,
        bytes: Bytes,
    ) -> Option<Slot> {
        let (frames_max, bytes_max) = (self.queue_frames_max, self.queue_bytes_max);
        let room = |end: &&mut End| {
            end.queue.len() < frames_max
                && end.queue_bytes.checked_add(bytes.len()).is_some_and(|sum| sum <= bytes_max)
        };
        let Some(end) = self.ends.get_mut(&to).filter(room) else {
            self.wire(from, to).traffic.dropped_frames += 1;
            return None;
        };
        self.order += 1;
        let slot = (due, self.order);
        end.queue_bytes += bytes.len();
        end.queue.insert(slot, Frame { from, bytes });
        self.woken.push(Arc::clone(&end.changed));
        Some(slot)
    }

    /// What `owner` receives next. Taken out of the queue only if it is ready.
    pub(super) fn take(&mut self, owner: &Owner) -> Result<Next, TransportError> {
        let clock = Arc::clone(&self.clock);
        let end = self.own(owner)?;
        if let Some(news) = end.news.pop_front() {
            return Ok(Next::Ready(news));
        }
        let Some(first) = end.queue.first_entry() else { return Ok(Next::Nothing) };
        let &(due, _) = first.key();
        if due > Mono(0) {
            let now = clock.mono();
            if due > now {
                return Ok(Next::Due { wait_ms: due.since(now) });
            }
        }
        let Frame { from, bytes } = first.remove();
        end.queue_bytes -= bytes.len();
        self.wire(from, owner.me).traffic.delivered(&bytes);
        Ok(Next::Ready(Incoming::Frame { from, bytes }))
    }
}

/// A pair in the one order that both directions share.
pub(super) fn pair(a: ReplicaId, b: ReplicaId) -> (ReplicaId, ReplicaId) {
    if a <= b { (a, b) } else { (b, a) }
}
