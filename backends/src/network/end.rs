//! One end of the network: what is under way to an attached replica.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use syncline::{Incoming, Mono, ReplicaId};
use tokio::sync::Notify;

/// An attached end. A later end of the same replica has a higher generation, and its own queue.
pub(super) struct End {
    generation: u64,
    /// Every `Up` and `Down` that was not received. They come before every frame, which loses nothing: a `Down` takes
    /// the frames of its peer out of the queue.
    news: VecDeque<Incoming>,
    queue: BTreeMap<Slot, Frame>,
    /// The sum of the lengths in `queue`.
    queue_bytes: usize,
    /// How much of `queue` each sender has, if any.
    shares: BTreeMap<ReplicaId, Share>,
    changed: Arc<Notify>,
}

/// How much may be under way to one end.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    pub(super) frames_max: usize,
    pub(super) bytes_max: usize,
}

/// How much of a queue is a sender's.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    frames: usize,
    bytes: usize,
}

/// When a frame is due, and its number, which orders the frames that are due at the same time.
pub(super) type Slot = (Mono, u64);

pub(super) struct Frame {
    pub(super) from: ReplicaId,
    pub(super) bytes: Bytes,
}

/// The answer of [`End::pop`].
pub(super) enum Next {
    Ready(Incoming),
    Due { wait_ms: u64 },
    Nothing,
}

impl End {
    pub(super) fn new(generation: u64) -> Self {
        Self {
            generation,
            news: VecDeque::new(),
            queue: BTreeMap::new(),
            queue_bytes: 0,
            shares: BTreeMap::new(),
            changed: Arc::new(Notify::new()),
        }
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Wakes the `receive` that waits at this end.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Makes room for a frame of `from`, if need be in place of the last frames of the sender that has most in the queue:
    /// a peer that floods this end must not keep the others from it. Returns whether there is room, and the senders
    /// whose frames were dropped.
    pub(super) fn make_room(
        &mut self,
        from: ReplicaId,
        bytes: usize,
        limits: QueueLimits,
    ) -> (bool, Vec<ReplicaId>) {
        let mut dropped = Vec::new();
        loop {
            let frames_fit = self.queue.len() < limits.frames_max;
            let bytes_fit = self.queue_bytes.checked_add(bytes).is_some_and(|sum| sum <= limits.bytes_max);
            if frames_fit && bytes_fit {
                return (true, dropped);
            }
            let size = |share: &Share| if frames_fit { share.bytes } else { share.frames };
            let mine = self.shares.get(&from).map_or(0, size) + if frames_fit { bytes } else { 1 };
            let most = self.shares.iter().max_by_key(|(_, share)| size(share));
            let most = most.filter(|(_, share)| size(share) > mine).map(|(sender, _)| *sender);
            let last = most.and_then(|most| self.queue.iter().rfind(|(_, frame)| frame.from == most));
            let Some(slot) = last.map(|(slot, _)| *slot) else { return (false, dropped) };
            dropped.extend(self.take(slot).map(|frame| frame.from));
        }
    }

    pub(super) fn push(&mut self, slot: Slot, frame: Frame) {
        self.queue_bytes += frame.bytes.len();
        let share = self.shares.entry(frame.from).or_default();
        share.frames += 1;
        share.bytes += frame.bytes.len();
        self.queue.insert(slot, frame);
    }

    fn take(&mut self, slot: Slot) -> Option<Frame> {
        let frame = self.queue.remove(&slot)?;
        self.queue_bytes -= frame.bytes.len();
        if let Some(share) = self.shares.get_mut(&frame.from) {
            share.frames -= 1;
            share.bytes -= frame.bytes.len();
            if share.frames == 0 {
                self.shares.remove(&frame.from);
            }
        }
        Some(frame)
    }

    /// Takes what is ready out of the queue. Asks for the time only if the first frame was delayed.
    pub(super) fn pop(&mut self, now: impl FnOnce() -> Mono) -> Next {
        if let Some(news) = self.news.pop_front() {
            return Next::Ready(news);
        }
        let Some((&slot, _)) = self.queue.first_key_value() else { return Next::Nothing };
        let (due, _) = slot;
        if due > Mono(0) {
            let now = now();
            if due > now {
                return Next::Due { wait_ms: due.since(now) };
            }
        }
        let Some(Frame { from, bytes }) = self.take(slot) else { return Next::Nothing };
        Next::Ready(Incoming::Frame { from, bytes })
    }

    pub(super) fn hear_up(&mut self, peer: ReplicaId) {
        self.news.push_back(Incoming::Up(peer));
    }

    /// Owes the news that `peer` went down, and forgets its frames. Returns how many frames that were.
    pub(super) fn hear_down(&mut self, peer: ReplicaId) -> u64 {
        let mut dropped_frames = 0;
        self.queue.retain(|_, frame| {
            let kept = frame.from != peer;
            if !kept {
                dropped_frames += 1;
                self.queue_bytes -= frame.bytes.len();
            }
            kept
        });
        self.shares.remove(&peer);
        // An `Up` that was not received is taken back instead of followed by a `Down`: otherwise a peer that comes and
        // goes would fill the memory of a replica that does not read.
        match self.news.iter().position(|news| *news == Incoming::Up(peer)) {
            Some(unheard) => drop(self.news.remove(unheard)),
            None => self.news.push_back(Incoming::Down(peer)),
        }
        dropped_frames
    }

    /// Lets the frame at `slot` change places with another one of the same sender.
    pub(super) fn exchange(&mut self, slot: Slot, from: ReplicaId, random: &mut Rng) {
        let others: Vec<Slot> = self
            .queue
            .iter()
            .filter(|(at, frame)| **at != slot && frame.from == from)
            .map(|(at, _)| *at)
            .collect();
        let Some(other) = random.choice(others) else { return };
        if let (Some(mine), Some(theirs)) = (self.queue.remove(&slot), self.queue.remove(&other)) {
            self.queue.insert(slot, theirs);
            self.queue.insert(other, mine);
        }
    }

    /// The frames that were not received.
    pub(super) fn into_frames(self) -> impl Iterator<Item = Frame> {
        self.queue.into_values()
    }
}
