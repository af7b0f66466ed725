//! Everything that the ends of a network share, under one lock.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use syncline::{Clock, Incoming, Mono, ReplicaId, TransportError};
use tokio::sync::Notify;

use super::Link;
use super::end::{End, Frame, Next, QueueLimits, Slot};
use super::link::{chance, damaged, within};
use super::links::Links;
use super::topology::Topology;
use super::transport::Owner;
use super::wire::Wire;

pub(super) struct State {
    pub(super) links: Links,
    topology: Topology,
    ends: BTreeMap<ReplicaId, End>,
    clock: Arc<dyn Clock>,
    limits: QueueLimits,
    /// The number of the last frame. Frames that are due at the same time arrive in the order of their numbers.
    last_frame: u64,
    /// The generation of the last end that was attached.
    generation: u64,
    /// The ends that have something new. They are woken once the lock is released.
    woken: Vec<Arc<Notify>>,
}

impl State {
    pub(super) fn new(links: Links, topology: Topology, clock: Arc<dyn Clock>, limits: QueueLimits) -> Self {
        Self {
            links,
            topology,
            ends: BTreeMap::new(),
            clock,
            limits,
            last_frame: 0,
            generation: 0,
            woken: Vec::new(),
        }
    }

    /// Attaches a new end of `me`, which takes over from an older one.
    pub(super) fn attach(&mut self, me: ReplicaId) -> Owner {
        self.detach(me);
        self.generation += 1;
        let end = End::new(self.generation);
        let owner = Owner { me, generation: end.generation(), changed: end.changed() };
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
        self.woken.push(end.changed());
        // `tell_down` dropped the frames of the peers. The frames that are left were injected in other names.
        for frame in end.into_frames() {
            self.links.counters(frame.from, me).dropped(1);
        }
    }

    /// The end of `owner`.
    ///
    /// # Errors
    /// [`TransportError::Closed`] if a newer end of the same replica took over.
    pub(super) fn own(&mut self, owner: &Owner) -> Result<&mut End, TransportError> {
        self.ends
            .get_mut(&owner.me)
            .filter(|end| end.generation() == owner.generation)
            .ok_or_else(|| TransportError::closed("a newer end of the same replica took over"))
    }

    pub(super) fn is_attached(&self, replica: ReplicaId) -> bool {
        self.ends.contains_key(&replica)
    }

    pub(super) fn reaches(&self, a: ReplicaId, b: ReplicaId) -> bool {
        self.is_attached(a) && self.is_attached(b) && self.topology.connects(a, b)
    }

    pub(super) fn connect(&mut self, a: ReplicaId, b: ReplicaId) {
        let reached = self.reaches(a, b);
        self.topology.connect(a, b);
        if !reached && self.reaches(a, b) {
            self.tell_up(a, b);
        }
    }

    pub(super) fn disconnect(&mut self, a: ReplicaId, b: ReplicaId) {
        let reached = self.reaches(a, b);
        self.topology.cut(a, b);
        if reached {
            self.tell_down(a, b);
        }
    }

    pub(super) fn heal(&mut self) {
        self.links.set_all(Link::default());
        for (a, b) in self.topology.heal() {
            if self.reaches(a, b) {
                self.tell_up(a, b);
            }
        }
    }

    /// Sends a frame over its link, which decides what becomes of it.
    pub(super) fn transmit(&mut self, from: ReplicaId, to: ReplicaId, bytes: &Bytes) {
        let now = self.now();
        let used = self.links.get(from, to);
        used.traffic.sent(bytes);
        // Each frame draws from a generator of its own. How many draws a frame takes depends on its link, so with one
        // generator for all frames a link that is set otherwise for a while would draw other fates ever after.
        let mut random = used.random.fork();
        let link = used.link.clone();
        let left = if link.blocked { None } else { used.wire.take(now, bytes.len(), &link) };
        let Some(left) = left.filter(|_| !chance(&mut random, link.loss)) else {
            used.traffic.dropped(1);
            return;
        };
        let twice = chance(&mut random, link.duplicate);
        let extra_ms = within(&mut random, &link.duplicate_delay_ms);
        self.send_copy(left, from, to, bytes, &link, &mut random);
        if twice {
            let later = Mono(left.0.saturating_add(extra_ms));
            self.send_copy(later, from, to, bytes, &link, &mut random);
        }
    }

    /// Brings a frame to `to` as if `from` had sent it, over no link.
    pub(super) fn inject(&mut self, from: ReplicaId, to: ReplicaId, bytes: Bytes) {
        let due = self.now();
        self.links.counters(from, to).sent(&bytes);
        self.enqueue(due, from, to, bytes);
    }

    /// Takes what `owner` receives next.
    pub(super) fn receive(&mut self, owner: &Owner) -> Result<Next, TransportError> {
        let clock = Arc::clone(&self.clock);
        let next = self.own(owner)?.pop(|| clock.mono());
        if let Next::Ready(Incoming::Frame { from, bytes }) = &next {
            self.links.counters(*from, owner.me).delivered(bytes);
        }
        Ok(next)
    }

    pub(super) fn take_woken(&mut self) -> Vec<Arc<Notify>> {
        mem::take(&mut self.woken)
    }

    fn peers(&self, me: ReplicaId) -> Vec<ReplicaId> {
        self.ends.keys().copied().filter(|peer| self.reaches(me, *peer)).collect()
    }

    fn tell_up(&mut self, a: ReplicaId, b: ReplicaId) {
        for (me, peer) in [(a, b), (b, a)] {
            let Some(end) = self.ends.get_mut(&me) else { continue };
            end.hear_up(peer);
            self.woken.push(end.changed());
        }
    }

    fn tell_down(&mut self, a: ReplicaId, b: ReplicaId) {
        for (me, peer) in [(a, b), (b, a)] {
            let Some(end) = self.ends.get_mut(&me) else { continue };
            let dropped_frames = end.hear_down(peer);
            self.woken.push(end.changed());
            let link = self.links.get(peer, me);
            link.traffic.dropped(dropped_frames);
            // The frames that waited to leave are lost, so the next connection begins with a free wire.
            link.wire = Wire::default();
        }
    }

    /// The time, or zero while no link has ever delayed: then frames arrive in the order in which they were sent. From
    /// the first delay on every frame is due at a time, so that a frame without delay does not overtake one that has
    /// become due.
    fn now(&self) -> Mono {
        if self.links.have_delayed() { self.clock.mono() } else { Mono(0) }
    }

    fn send_copy(
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

    /// Puts a frame into the queue of `to`, or drops it if there is no room.
    fn enqueue(&mut self, due: Mono, from: ReplicaId, to: ReplicaId, bytes: Bytes) -> Option<Slot> {
        let Some(end) = self.ends.get_mut(&to) else {
            self.links.counters(from, to).dropped(1);
            return None;
        };
        let (has_room, dropped) = end.make_room(from, bytes.len(), self.limits);
        for sender in dropped {
            self.links.counters(sender, to).dropped(1);
        }
        if !has_room {
            self.links.counters(from, to).dropped(1);
            return None;
        }
        self.last_frame += 1;
        let slot = (due, self.last_frame);
        end.push(slot, Frame { from, bytes });
        self.woken.push(end.changed());
        Some(slot)
    }
}
