//! Relays: how far members have acknowledged a stream, for its author if it does not hear them itself.
//!
//! In a star the phone hears the hub alone. Its hello names the members that it does not hear, and the hub tells it how
//! far these have acknowledged its stream: in each hello, and soon after it changes. Where everybody hears everybody,
//! nobody asks, and nothing is sent.
//!
//! A relayed word is hearsay. It is shown to the app and counts for nothing else: neither for pruning nor as a proof of
//! a restore.
//!
//! Owns: whom each peer asked for and what it was told last; what this replica was told. Holds always: a peer is told of
//! a member only if it asked; there is a moment to tell exactly while a peer waits for it.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Mono;
use crate::ids::ReplicaId;

use super::Machine;
use super::acks::Moment;
use super::backoff::after;
use super::wire::Relayed;

/// Changes within this time are told together. Longer than the time in which acknowledgements are gathered: those of all
/// members to one commit then take one message.
const RELAY_AFTER_MS: u64 = 200;

/// How far a member has acknowledged a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) seq: u64,
    /// Whether the member's store was restored, so that no acknowledgement of it counts.
    pub(super) restored: bool,
}

/// The question of a peer.
#[derive(Debug, Default)]
struct Asked {
    /// The members that the peer does not hear itself.
    unheard: BTreeSet<ReplicaId>,
    /// The last word about each of them that the peer was told.
    told: BTreeMap<ReplicaId, Word>,
}

/// The questions of peers about others, and the words on others that this replica was told.
#[derive(Debug, Default)]
pub(super) struct Relays {
    asked: BTreeMap<ReplicaId, Asked>,
    /// The peers to tell of a change.
    due: BTreeSet<ReplicaId>,
    moment: Moment,
    /// How far members have acknowledged the stream of this replica, as others say.
    words: BTreeMap<ReplicaId, Word>,
    /// The members that a hello of this replica named as unheard, since it last said hello to all.
    named: BTreeSet<ReplicaId>,
}

impl Relays {
    // --- for others -------------------------------------------------------------------------------------------------

    /// Takes note of the members that `peer` does not hear. `known` gives how far a member has acknowledged its stream.
    pub(super) fn asks(
        &mut self,
        peer: ReplicaId,
        unheard: BTreeSet<ReplicaId>,
        known: impl Fn(ReplicaId) -> Word,
        now: Mono,
    ) {
        if unheard.is_empty() {
            return self.forget(peer);
        }
        let asked = self.asked.entry(peer).or_default();
        asked.told.retain(|member, _| unheard.contains(member));
        asked.unheard = unheard;
        if asked.unheard.iter().any(|member| asked.is_news(*member, known(*member))) {
            self.later(peer, now);
        }
    }

    /// Whether all peers hear all members.
    pub(super) fn nobody_asks(&self) -> bool {
        self.asked.is_empty()
    }

    /// Whether a peer does not hear all members.
    pub(super) fn has_asked(&self, peer: ReplicaId) -> bool {
        self.asked.contains_key(&peer)
    }

    /// Whether a peer hears a member, as far as is known.
    pub(super) fn hears(&self, peer: ReplicaId, member: ReplicaId) -> bool {
        self.asked.get(&peer).is_none_or(|asked| !asked.unheard.contains(&member))
    }

    /// Takes note that `member` has acknowledged more of the stream of `author`.
    pub(super) fn moved(&mut self, author: ReplicaId, member: ReplicaId, now: Mono) {
        if self.asked.get(&author).is_some_and(|asked| asked.unheard.contains(&member)) {
            self.later(author, now);
        }
    }

    /// Takes note that no acknowledgement of `member` counts any more.
    pub(super) fn was_restored(&mut self, member: ReplicaId, now: Mono) {
        let authors: Vec<_> = self.asked.keys().copied().collect();
        authors.into_iter().for_each(|author| self.moved(author, member, now));
    }

    fn later(&mut self, peer: ReplicaId, now: Mono) {
        self.due.insert(peer);
        if self.moment == Moment::Never {
            self.moment = Moment::At(after(now, RELAY_AFTER_MS));
        }
    }

    /// The peers to tell of a change, if it is time.
    pub(super) fn poll(&mut self) -> BTreeSet<ReplicaId> {
        if self.moment != Moment::Now {
            return BTreeSet::new();
        }
        self.moment = Moment::Never;
        std::mem::take(&mut self.due)
    }

    /// All that `peer` asked for, or only what it was not told yet. From then on it counts as told; what is lost on the
    /// way comes again with the next hello, which has all of it.
    pub(super) fn tell(
        &mut self,
        peer: ReplicaId,
        all: bool,
        known: impl Fn(ReplicaId) -> Word,
    ) -> Vec<Relayed> {
        let Some(asked) = self.asked.get_mut(&peer) else { return Vec::new() };
        let words = asked.unheard.iter().map(|member| (*member, known(*member)));
        let words: Vec<_> = words
            .filter(
                |(member, word)| if all { *word != Word::default() } else { asked.is_news(*member, *word) },
            )
            .collect();
        asked.told.extend(words.iter().copied());
        let relayed = |(member, Word { seq, restored })| Relayed { member, seq, restored };
        words.into_iter().map(relayed).collect()
    }

    /// Forgets the question of a peer.
    pub(super) fn forget(&mut self, peer: ReplicaId) {
        self.asked.remove(&peer);
        self.due.remove(&peer);
        if self.due.is_empty() {
            self.moment = Moment::Never;
        }
    }

    // --- for this replica -------------------------------------------------------------------------------------------

    /// Takes note that a hello to all is said: only what it names counts from here on.
    pub(super) fn names_anew(&mut self) {
        self.named.clear();
    }

    /// Takes note of the members that a hello names as unheard.
    pub(super) fn names(&mut self, unheard: &[ReplicaId]) {
        self.named.extend(unheard);
    }

    /// Whether a peer may believe that this replica does not hear a member.
    pub(super) fn is_named(&self, member: ReplicaId) -> bool {
        self.named.contains(&member)
    }

    /// Takes the word of a peer about a member. An acknowledgement never falls, and a store that was restored stays so.
    pub(super) fn told(&mut self, Relayed { member, seq, restored }: Relayed) {
        let word = self.words.entry(member).or_default();
        *word = Word { seq: word.seq.max(seq), restored: word.restored || restored };
    }

    /// How far a member has acknowledged the stream of this replica, as others say.
    pub(super) fn word(&self, member: ReplicaId) -> Word {
        self.words.get(&member).copied().unwrap_or_default()
    }
}

impl Asked {
    fn is_news(&self, member: ReplicaId, word: Word) -> bool {
        self.told.get(&member).copied().unwrap_or_default() != word
    }
}

impl Machine for Relays {
    fn next_timeout(&self) -> Option<Mono> {
        self.moment.at()
    }

    fn expire(&mut self, now: Mono) {
        self.moment.expire(now);
    }

    fn check(&self) {
        assert_eq!(self.due.is_empty(), self.moment == Moment::Never, "{self:?}");
        assert!(self.due.iter().all(|peer| self.asked.contains_key(peer)), "{self:?}");
        for (peer, asked) in &self.asked {
            assert!(!asked.unheard.is_empty() && !asked.unheard.contains(peer), "{peer}: {asked:?}");
            assert!(asked.told.keys().all(|member| asked.unheard.contains(member)), "{peer}: {asked:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{B, C, replica};
    use super::*;

    const D: ReplicaId = replica(0xd1);

    const fn word(seq: u64) -> Word {
        Word { seq, restored: false }
    }

    const fn relayed(member: ReplicaId, seq: u64) -> Relayed {
        Relayed { member, seq, restored: false }
    }

    /// Lets the time pass in which changes are gathered; returns what is told then.
    fn told(relays: &mut Relays, known: impl Fn(ReplicaId) -> Word) -> Vec<(ReplicaId, Vec<Relayed>)> {
        relays.expire(relays.next_timeout().unwrap());
        let due = relays.poll();
        let told = due.into_iter().map(|peer| (peer, relays.tell(peer, false, &known))).collect();
        relays.check();
        told
    }

    #[test]
    fn nobody_is_told_who_did_not_ask() {
        let mut relays = Relays::default();
        relays.moved(B, C, Mono(0));
        assert_eq!((relays.next_timeout(), relays.tell(B, true, |_| word(3))), (None, vec![]));
        relays.asks(B, [D].into(), |_| word(0), Mono(0));
        relays.moved(B, C, Mono(0));
        relays.moved(C, D, Mono(0));
        assert_eq!(relays.next_timeout(), None, "of others it hears itself, and others did not ask");
        relays.check();
    }

    #[test]
    fn changes_are_gathered_and_each_is_told_once() {
        let mut relays = Relays::default();
        relays.asks(B, [C, D].into(), |_| word(0), Mono(0));
        relays.moved(B, C, Mono(100));
        relays.moved(B, D, Mono(150));
        relays.moved(B, C, Mono(200));
        assert_eq!(relays.next_timeout(), Some(Mono(100 + RELAY_AFTER_MS)), "from the first on");
        let known = |member| if member == C { word(3) } else { word(2) };
        assert_eq!(told(&mut relays, known), [(B, vec![relayed(C, 3), relayed(D, 2)])]);
        relays.moved(B, C, Mono(500));
        let known = |member| if member == C { word(4) } else { word(2) };
        assert_eq!(told(&mut relays, known), [(B, vec![relayed(C, 4)])]);
        assert_eq!(relays.tell(B, true, known), [relayed(C, 4), relayed(D, 2)], "a hello has all of it");
        assert_eq!(relays.next_timeout(), None);
    }

    /// A peer that comes with a question hears what is known already.
    #[test]
    fn a_question_is_answered_with_what_is_known() {
        let mut relays = Relays::default();
        relays.asks(B, [C].into(), |_| word(7), Mono(0));
        assert_eq!(told(&mut relays, |_| word(7)), [(B, vec![relayed(C, 7)])]);
        relays.asks(B, [C].into(), |_| word(7), Mono(900));
        assert_eq!(relays.next_timeout(), None, "it was told");
        relays.asks(B, [C, D].into(), |_| word(7), Mono(900));
        assert_eq!(told(&mut relays, |_| word(7)), [(B, vec![relayed(D, 7)])]);
        relays.asks(B, [].into(), |_| word(8), Mono(1_000));
        relays.moved(B, C, Mono(1_000));
        assert_eq!(relays.next_timeout(), None, "it hears all of them now");
        relays.check();
    }

    #[test]
    fn a_peer_that_goes_is_told_nothing() {
        let mut relays = Relays::default();
        relays.asks(B, [C].into(), |_| word(7), Mono(0));
        relays.forget(B);
        assert_eq!(relays.next_timeout(), None);
        relays.check();
    }

    #[test]
    fn that_a_store_was_restored_is_told_to_all_who_ask_for_it() {
        let mut relays = Relays::default();
        for peer in [B, D] {
            relays.asks(peer, [C].into(), |_| word(0), Mono(0));
        }
        relays.was_restored(C, Mono(5));
        let restored = Word { seq: 0, restored: true };
        let said = vec![Relayed { member: C, seq: 0, restored: true }];
        assert_eq!(told(&mut relays, |_| restored), [(B, said.clone()), (D, said)]);
    }

    #[test]
    fn a_word_never_falls_and_a_restored_store_stays_so() {
        let mut relays = Relays::default();
        assert_eq!(relays.word(C), Word::default());
        for (seq, restored, expected) in [
            (3, false, word(3)),
            (2, false, word(3)),
            (0, true, Word { seq: 3, restored: true }),
            (4, false, Word { seq: 4, restored: true }),
        ] {
            relays.told(Relayed { member: C, seq, restored });
            assert_eq!(relays.word(C), expected);
        }
    }
}
