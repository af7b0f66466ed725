//! One peer: its link, its session, and what is known of it.
//!
//! Owns: the link, the streams that the peer has and acknowledged, the messages that it is owed. Holds always: a peer
//! that is down is owed nothing; an acknowledgement never falls; a store that was restored stays so.

use std::collections::BTreeMap;

use crate::ids::ReplicaId;
use crate::stored::Point;

use super::super::backoff::Backoff;
use super::super::wire::{STREAMS_MAX, WireHead};

/// The link to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    Down,
    /// The peer can be reached, and has not named its session yet.
    Up,
    /// The peer said hello in this session.
    Greeted(u64),
}

/// The messages that a peer is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Owed {
    /// A hello.
    pub(in crate::engine) hello: bool,
    /// The word that it is no member.
    pub(in crate::engine) stranger: bool,
    /// The word that it once acknowledged this place.
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
    /// The highest commit of each stream that the peer is known to have.
    pub(super) has: BTreeMap<ReplicaId, u64>,
    /// The highest place of each stream that the peer ever acknowledged.
    pub(super) acked: BTreeMap<ReplicaId, Point>,
    /// Whether the peer says that its store was restored: none of its acknowledgements counts.
    restored: bool,
    /// Whether the peer says that this replica is no member.
    pub(super) stranger: bool,
    /// Whether the peer's log begins behind what is here.
    pub(super) pruned: bool,
    /// How many frames of the peer were refused.
    pub(super) rejected: u64,
    pub(super) backoff: Backoff,
    pub(super) owed: Owed,
    /// The place of each stream that was last compared with the own log.
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

    /// Whether nothing is lost if the peer is forgotten: neither an acknowledgement, nor that it must not acknowledge
    /// any more.
    pub(super) fn is_forgettable(&self) -> bool {
        self.acked.is_empty() && !self.restored
    }

    /// Takes the session of a hello; returns whether it is a new one. The store may have lost since what it had in an
    /// earlier session.
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

    /// Takes note that the store was restored, which it stays for ever. Returns whether this is news.
    pub(super) fn was_restored(&mut self, forget_acks: bool) -> bool {
        let news = !std::mem::replace(&mut self.restored, true);
        if news && forget_acks {
            self.acked.clear();
        }
        news
    }

    /// Takes an acknowledgement; returns whether it is more than before. It never falls, and counts only while the
    /// store is known to be the one that gave it, which the hello of the peer says; `any` switches that rule off.
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
