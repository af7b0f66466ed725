//! What is under way to a replica.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use syncline::{Incoming, Mono, ReplicaId};
use tokio::sync::Notify;

/// What is under way to an attached replica.
pub(super) struct End {
    pub(super) generation: u64,
    /// `Up` and `Down`, which come before every frame: the frames of a peer that went down are gone.
    pub(super) news: VecDeque<Incoming>,
    pub(super) queue: BTreeMap<Slot, Frame>,
    pub(super) queue_bytes: usize,
    pub(super) changed: Arc<Notify>,
}

/// When a frame is due, and the tie-break.
pub(super) type Slot = (Mono, u64);

pub(super) struct Frame {
    pub(super) from: ReplicaId,
    pub(super) bytes: Bytes,
}

impl End {
    /// Forgets what is under way from `peer` and owes the news. Returns how many frames that were.
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
        // A peer that comes and goes must not fill the memory of one that does not read.
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
}
