//! A chapter of the engine: how far members have acknowledged a stream, told to its author by others who hear them.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::ReplicaId;

use super::relays::Word;
use super::wire::{self, Capped, Hello, STREAMS_MAX, Words};
use super::{Engine, Peer};

impl Engine {
    /// The members that this replica does not hear itself.
    pub(super) fn unheard(&self) -> Vec<ReplicaId> {
        if self.members.awaits_membership() {
            // A joiner has no stream of which anybody could have anything.
            return Vec::new();
        }
        let others = self.members.ids().filter(|member| *member != self.context.me());
        others.filter(|member| !self.hears(*member)).collect()
    }

    /// Whether this replica hears a member.
    pub(super) fn hears(&self, member: ReplicaId) -> bool {
        self.peers.get(member).is_some_and(|peer| peer.is_heard(self.now.mono))
    }

    /// Takes note of the members that a peer does not hear. If it has less of one of their streams than is here, then an
    /// acknowledgement that said so may have been lost: it is said again. A hello would not do, since two members that
    /// each lack something would answer hellos with hellos for ever.
    pub(super) fn hear_unheard(&mut self, from: ReplicaId, hello: &Hello) {
        let unheard = hello.unheard.0.iter().copied();
        let unheard = unheard.filter(|member| *member != from && *member != self.context.me());
        let unheard: BTreeSet<_> = unheard.filter(|member| self.members.get(*member).is_some()).collect();
        let has: BTreeMap<_, _> = hello.heads.0.iter().map(|head| (head.stream, head.seq)).collect();
        let lacks =
            |stream: &ReplicaId| self.ledger.head(*stream).seq > has.get(stream).copied().unwrap_or(0);
        let heads: Vec<_> = unheard.iter().copied().filter(lacks).map(|stream| self.ack_of(stream)).collect();
        if !heads.is_empty() {
            self.send(from, wire::ack(self.context.group(), &Capped(heads)));
        }
        let Self { relays, peers, .. } = self;
        relays.asks(from, unheard, |member| word(peers.get(member), from), self.now.mono);
    }

    /// Takes the words of a peer about members that this replica does not hear.
    pub(super) fn hear_relayed(&mut self, words: &Words) {
        for word in &words.0 {
            if word.member != self.context.me() && self.members.get(word.member).is_some() {
                self.relays.told(*word);
            }
        }
    }

    /// Tells peers how far others have acknowledged their streams, where that has changed.
    pub(super) fn relay(&mut self) {
        for peer in self.relays.poll() {
            let words = self.relayed(peer, false);
            if !words.0.is_empty() {
                self.send(peer, wire::relayed(self.context.group(), &words));
            }
        }
    }

    /// The words on other members that a peer is told: all that it asked for, or what it was not told yet.
    pub(super) fn relayed(&mut self, to: ReplicaId, all: bool) -> Words {
        let Self { relays, peers, .. } = self;
        Capped(relays.tell(to, all, |member| word(peers.get(member), to)))
    }

    /// The word of others on a member: how far it has acknowledged the own stream. The own stream may have fallen back.
    pub(super) fn word_on(&self, member: ReplicaId) -> Word {
        let word = self.relays.word(member);
        Word { seq: word.seq.min(self.ledger.own().seq), ..word }
    }
}

/// The members that are not heard, but for the one that is told of them.
pub(super) fn others(unheard: &[ReplicaId], to: ReplicaId) -> Capped<ReplicaId, STREAMS_MAX> {
    Capped(unheard.iter().copied().filter(|member| *member != to).take(STREAMS_MAX).collect())
}

/// How far a peer has acknowledged the stream of `author`.
fn word(peer: Option<&Peer>, author: ReplicaId) -> Word {
    peer.map_or_else(Word::default, |peer| Word { seq: peer.acked_of(author), restored: peer.is_restored() })
}
