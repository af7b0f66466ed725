//! One peer: its connection, its session, and what is known of it.

use std::collections::BTreeMap;

use crate::ids::ReplicaId;
use crate::stored::Point;

use super::super::backoff::Backoff;
use super::super::wire::{STREAMS_MAX, WireHead};

/// How a peer can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    Down,
    /// It can be reached, and has not said yet which session it is in.
    Up,
    /// It said hello in this session.
    Greeted(u64),
}

/// What a peer is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Owed {
    /// Our hello.
    pub(in crate::engine) hello: bool,
    /// Word that it is no member.
    pub(in crate::engine) stranger: bool,
    /// Word that it once acknowledged this place.
    pub(in crate::engine) regressed: Option<WireHead>,
}

impl Owed {
    pub(super) fn is_anything(&self) -> bool {
        *self != Self::default()
    }
}

/// Another replica.
#[derive(Debug, Default)]
pub(in crate::engine) struct Peer {
    link: Link,
    /// The highest commit that it is known to have, of each stream.
    pub(super) has: BTreeMap<ReplicaId, u64>,
    /// What it acknowledged, ever.
    pub(super) acked: BTreeMap<ReplicaId, Point>,
    /// It says that its store was restored: nothing that it acknowledges counts.
    restored: bool,
    /// It says that this replica is no member.
    pub(super) stranger: bool,
    /// Its log begins behind what is here.
    pub(super) pruned: bool,
    /// How many of its frames were refused.
    pub(super) rejected: u64,
    pub(super) backoff: Backoff,
    pub(super) owed: Owed,
    /// The place in each stream that was compared with the own log last.
    pub(super) compared: BTreeMap<ReplicaId, u64>,
}

impl Peer {
    pub(in crate::engine) fn is_up(&self) -> bool {
        self.link != Link::Down
    }

    pub(in crate::engine) fn acked_points(&self) -> &BTreeMap<ReplicaId, Point> {
        &self.acked
    }

    pub(in crate::engine) fn acked_of(&self, stream: ReplicaId) -> u64 {
        self.acked.get(&stream).map_or(0, |point| point.seq)
    }

    pub(in crate::engine) fn is_restored(&self) -> bool {
        self.restored
    }

    pub(in crate::engine) fn calls_us_stranger(&self) -> bool {
        self.stranger
    }

    pub(in crate::engine) fn is_pruned(&self) -> bool {
        self.pruned
    }

    pub(in crate::engine) fn rejected(&self) -> u64 {
        self.rejected
    }

    pub(super) fn came_up(&mut self) {
        self.link = Link::Up;
        self.backoff.reset();
    }

    pub(super) fn went_down(&mut self) {
        self.link = Link::Down;
        self.owed = Owed::default();
    }

    /// Whether nothing would be lost with it: what it acknowledged, or that it must not acknowledge any more.
    pub(super) fn is_forgettable(&self) -> bool {
        self.acked.is_empty() && !self.restored
    }

    /// Takes the session of a hello; says whether it is a new one. What it had in an earlier one it may have lost since.
    pub(super) fn greeted(&mut self, session: u64) -> bool {
        debug_assert!(self.is_up(), "a frame comes from a peer that is up");
        self.stranger = false;
        if self.link == Link::Greeted(session) {
            return false;
        }
        self.link = Link::Greeted(session);
        self.has.clear();
        self.pruned = false;
        self.backoff.reset();
        true
    }

    /// A store that was restored does not become whole again. Says whether this is news.
    pub(super) fn was_restored(&mut self, forget_acks: bool) -> bool {
        let news = !std::mem::replace(&mut self.restored, true);
        if news && forget_acks {
            self.acked.clear();
        }
        news
    }

    /// Takes an acknowledgement. It never moves back, and counts only while the store is known to be the one that
    /// gave it, which its hello says; `any` switches that rule off. Says whether it is more than before.
    pub(super) fn acks(&mut self, stream: ReplicaId, point: Point, any: bool) -> bool {
        let rises = self.acked.get(&stream).is_none_or(|before| before.seq < point.seq);
        let counts = any || !self.restored && matches!(self.link, Link::Greeted(_));
        let taken = rises && counts && self.acked.len() < STREAMS_MAX;
        if taken {
            self.acked.insert(stream, point);
        }
        taken
    }
}
