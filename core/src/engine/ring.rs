//! The ring: which members are told that a stream has moved here.
//!
//! If every member told every other one, a commit in a group of 32 would cost a thousand frames. So the author is told,
//! and each other member hears it from [`TELLERS`] members: those that stand before it in the ring of ids, among the
//! members that it hears and that hear the author. A member that hears none of these is told by the ones before it among
//! all that it hears. So in a star the hub tells all, where everybody hears everybody each tells the next two, and a
//! member that missed a commit hears soon that there is something to pull.
//!
//! Whom a member hears is known from its hello, which names those that it does not hear. All others hear of the stream
//! with the next hello.

use std::collections::BTreeMap;

use crate::ids::ReplicaId;

use super::relays::Relays;

/// How many members tell a member of a stream that it may have missed. Two, since one of them may have missed it too, and
/// frames are lost.
pub(super) const TELLERS: usize = 2;

/// The members that are up, in the order of their ids, and whom each of them hears.
#[derive(Debug)]
pub(super) struct Ring<'a> {
    me: ReplicaId,
    up: &'a [ReplicaId],
    relays: &'a Relays,
    /// The members that may tell each member which does not hear all of them: those that it hears.
    heard: BTreeMap<ReplicaId, Vec<ReplicaId>>,
}

impl<'a> Ring<'a> {
    /// The ring of the members in `up`, which are in order.
    pub(super) fn new(me: ReplicaId, up: &'a [ReplicaId], relays: &'a Relays) -> Self {
        debug_assert!(up.is_sorted() && !up.contains(&me), "{up:?} is the others, in order");
        let deaf = up.iter().filter(|peer| relays.has_asked(**peer));
        let heard = deaf.map(|peer| {
            let hears = |other: &ReplicaId| relays.hears(*peer, *other) && other != peer;
            (*peer, up.iter().copied().filter(hears).collect())
        });
        Self { me, up, relays, heard: heard.collect() }
    }

    /// Whom to tell that `stream` has moved here. `is_heard` says whether this replica hears its author.
    pub(super) fn told_of(&self, stream: ReplicaId, is_heard: bool) -> Vec<ReplicaId> {
        if stream == self.me {
            return self.up.to_vec();
        }
        if is_heard && self.relays.nobody_asks() {
            // All hear all, so it is the next ones. This is what most groups are: it must not cost a walk for each of
            // them.
            let behind = self.up.partition_point(|peer| *peer < self.me);
            let (before, behind) = self.up.split_at(behind);
            let next = behind.iter().chain(before).copied().filter(|peer| *peer != stream).take(TELLERS);
            let mut told: Vec<_> = next.chain(self.up.binary_search(&stream).ok().map(|_| stream)).collect();
            told.sort_unstable();
            return told;
        }
        let first_hand: Vec<_> =
            self.up.iter().copied().filter(|peer| self.relays.hears(*peer, stream)).collect();
        let told = self.up.iter().copied().filter(|peer| {
            *peer == stream
                || !is_heard && self.is_relay(*peer, stream, &first_hand)
                || self.tells(*peer, stream, is_heard)
        });
        told.collect()
    }

    /// Whether `peer` is one of those that relay the word of this replica to the author, which is not heard here.
    fn is_relay(&self, peer: ReplicaId, stream: ReplicaId, first_hand: &[ReplicaId]) -> bool {
        let others = first_hand.iter().copied().filter(|other| *other != stream);
        peer != stream && self.behind(self.me, others).any(|relay| relay == peer)
    }

    /// Whether this replica is one of those that tell `peer`.
    fn tells(&self, peer: ReplicaId, stream: ReplicaId, is_heard: bool) -> bool {
        let heard = self.heard.get(&peer).map_or(self.up, Vec::as_slice);
        let others = || heard.iter().copied().filter(|other| *other != peer && *other != stream);
        let first_hand = || others().filter(|other| self.relays.hears(*other, stream));
        if is_heard {
            return self.is_before(peer, first_hand());
        }
        first_hand().next().is_none() && self.is_before(peer, others())
    }

    /// Whether this replica is one of the last before `peer` in a ring that it forms with `others`.
    fn is_before(&self, peer: ReplicaId, others: impl Iterator<Item = ReplicaId>) -> bool {
        let distance = |id: ReplicaId| peer.0.as_u128().wrapping_sub(id.0.as_u128());
        let mine = distance(self.me);
        others.filter(|other| distance(*other) < mine).take(TELLERS).count() < TELLERS
    }

    /// The first of `others` behind a place in the ring.
    fn behind(
        &self,
        place: ReplicaId,
        others: impl Iterator<Item = ReplicaId>,
    ) -> impl Iterator<Item = ReplicaId> {
        let mut others: Vec<_> = others.collect();
        others.sort_by_key(|other| other.0.as_u128().wrapping_sub(place.0.as_u128()));
        others.into_iter().take(TELLERS)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::made::replica;
    use super::super::relays::Word;
    use super::*;
    use crate::clock::Mono;

    /// A group, and who hears whom.
    struct Group(BTreeSet<ReplicaId>, fn(u128, u128) -> bool);

    impl Group {
        fn new(size: u128, hears: fn(u128, u128) -> bool) -> Self {
            Self((0..size).map(replica).collect(), hears)
        }

        fn hears(&self, one: ReplicaId, other: ReplicaId) -> bool {
            let n = |id: ReplicaId| id.0.as_u128() - replica(0).0.as_u128();
            one != other && (self.1)(n(one), n(other))
        }

        /// Whom `me` tells of `stream`, after the hello of everybody.
        fn told(&self, me: ReplicaId, stream: ReplicaId) -> Vec<ReplicaId> {
            let up: Vec<_> = self.0.iter().copied().filter(|peer| self.hears(me, *peer)).collect();
            let mut relays = Relays::default();
            for peer in &up {
                let unheard = self.0.iter().copied().filter(|other| *other != *peer && *other != me);
                let unheard = unheard.filter(|other| !self.hears(*peer, *other)).collect();
                relays.asks(*peer, unheard, |_| Word::default(), Mono(0));
            }
            let told = Ring::new(me, &up, &relays).told_of(stream, self.hears(me, stream));
            // A member that nobody meets is one that a peer does not hear: the long way, where nothing else differs.
            relays.asks(replica(1 << 40), [replica(1 << 41)].into(), |_| Word::default(), Mono(0));
            assert_eq!(Ring::new(me, &up, &relays).told_of(stream, self.hears(me, stream)), told);
            told
        }

        /// The acknowledgements of one commit of `author`, and how many rounds of them it takes until all have it. In each
        /// round those tell that have the commit since the last one.
        fn acks(&self, author: ReplicaId) -> (usize, usize) {
            let mut new: BTreeSet<_> =
                self.0.iter().copied().filter(|peer| self.hears(*peer, author)).collect();
            let mut have = new.clone();
            have.insert(author);
            let (mut acks, mut rounds) = (0, 0);
            while !new.is_empty() {
                let told: Vec<_> = new.iter().flat_map(|me| self.told(*me, author)).collect();
                acks += told.len();
                rounds += usize::from(have.len() < self.0.len());
                new = told.into_iter().filter(|peer| !have.contains(peer)).collect();
                have.extend(&new);
            }
            assert_eq!(have, self.0, "all have it");
            (acks, rounds)
        }
    }

    #[test]
    fn where_all_hear_all_each_tells_the_author_and_the_next_two() {
        let group = Group::new(8, |_, _| true);
        let told = |me, stream| group.told(replica(me), replica(stream));
        assert_eq!(told(3, 0), [0, 4, 5].map(replica));
        assert_eq!(told(7, 4), [0, 1, 4].map(replica), "the ring is closed");
        assert_eq!(told(3, 5), [4, 5, 6].map(replica), "the author is no part of the ring");
        assert_eq!(told(3, 3).len(), 7, "of the own stream all are told");
        // Each is told by two, whoever has lost the commit.
        for lost in (1..8).map(replica) {
            let tellers = (1..8).filter(|me| told(*me, 0).contains(&lost)).count();
            assert_eq!(tellers, TELLERS);
        }
    }

    /// In small groups nothing is saved, and all hear of everything at once.
    #[test]
    fn four_members_tell_each_other_everything() {
        for size in 2..=4 {
            let group = Group::new(size, |_, _| true);
            for me in (1..size).map(replica) {
                assert_eq!(group.told(me, replica(0)).len(), group.0.len() - 1);
            }
        }
    }

    /// The acknowledgements of a commit at 32 members: with the live frames of the author at most four frames a member.
    #[test]
    fn a_commit_is_acknowledged_by_few_frames_a_member() {
        type Hears = fn(u128, u128) -> bool;
        let halves: Hears = |one, other| (one <= 16 && other <= 16) || (one >= 15 && other >= 15);
        let shapes: [(&str, Hears, [usize; 2]); 6] = [
            ("all hear all", |_, _| true, [93, 0]),
            ("a star, the author at its rim", |one, other| one == 7 || other == 7, [61, 1]),
            (
                "only 7 hears the author",
                |one, other| one == 7 || other == 7 || (one != 0 && other != 0),
                [61, 1],
            ),
            ("eight hear the author", |one, other| one.max(other) <= 8 || (one != 0 && other != 0), [116, 1]),
            ("a chain", |one, other| one.abs_diff(other) == 1, [61, 30]),
            ("two halves with two members in both", halves, [108, 1]),
        ];
        for (name, hears, expected) in shapes {
            let (acks, rounds) = Group::new(32, hears).acks(replica(0));
            assert_eq!([acks, rounds], expected, "{name}");
        }
    }
}
