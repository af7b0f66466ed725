//! One peer: its link, its session, and what is known of it.
//!
//! Owns: the link, the streams that the peer has and acknowledged, the messages that it is owed. Holds always: a peer
//! that is down is owed nothing; an acknowledgement never falls; a store that was restored stays so, until the peer
//! proves that it is another one.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};

use crate::clock::{Mono, Now};
use crate::events::{Refusal, StreamStop};
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::stored::Point;

use super::super::backoff::Backoff;
use super::super::wire::{Reach, STREAMS_MAX, WireHead};
use super::clock::PeerClock;
use super::following::Following;
use super::pace::Pace;
use super::passed::Passed;

/// A peer that was not heard for this long, the time of three hellos, does not speak to this replica.
const HEARD_MS: u64 = 90_000;

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
    /// The word that this replica is of another group than this one, which the peer named.
    pub(in crate::engine) other_group: Option<GroupId>,
    /// The word that it once acknowledged this place.
    pub(in crate::engine) regressed: Option<WireHead>,
    /// The word of what stops its stream here.
    pub(in crate::engine) stop: bool,
    /// The word that there is more of the stream of this replica.
    pub(in crate::engine) word: bool,
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
    /// When the peer said last that its store was restored: then none of its acknowledgements counts.
    restored: Option<Mono>,
    /// Why the peer takes no more of the stream of this replica.
    refusal: Option<Refusal>,
    /// The highest commit of which the app was told that it is refused, and the kinds of reasons that it was told.
    told: (u64, Vec<Discriminant<StreamStop>>),
    /// Whether the app was told of the refusal that stands, so that it is to hear of its end.
    tells: bool,
    pub(super) clock: PeerClock,
    pub(super) pace: Pace,
    pub(super) following: Following,
    /// Whether the peer says that this replica is no member.
    pub(super) stranger: bool,
    /// Whether the peer says that it is of another group.
    pub(super) other_group: bool,
    /// The device of a peer that waits to be added to the group.
    pub(super) knock: Option<DeviceId>,
    /// How many times the app could have been told that the peer knocks.
    pub(super) knocks: u64,
    /// Whether the peer's log is the way to what is missing here, by its last page.
    pub(super) reach: Reach,
    /// When a frame of the peer was read last.
    pub(super) heard: Option<Mono>,
    /// How many frames of the peer were refused.
    pub(super) rejected: u64,
    pub(super) backoff: Backoff,
    /// Whether it rests since it did not answer a pull.
    pub(super) silent: bool,
    pub(super) passed: Passed,
    pub(super) owed: Owed,
    /// The place of each stream that was last compared with the own log.
    pub(super) compared: BTreeMap<ReplicaId, u64>,
}

impl Peer {
    /// Whether it did not answer the last pull.
    pub(in crate::engine) fn was_silent(&self) -> bool {
        self.silent
    }

    pub(in crate::engine) fn is_up(&self) -> bool {
        self.link != Link::Down
    }

    pub(in crate::engine) fn acked_points(&self) -> &BTreeMap<ReplicaId, Point> {
        &self.acked
    }

    pub(in crate::engine) fn acked_of(&self, stream: ReplicaId) -> u64 {
        self.acked.get(&stream).map_or(0, |point| point.seq)
    }

    /// The streams that the peer is known to have.
    pub(in crate::engine) fn known_streams(&self) -> Vec<ReplicaId> {
        self.has.keys().copied().collect()
    }

    /// How much of a stream the peer is known to have.
    pub(in crate::engine) fn has_of(&self, stream: ReplicaId) -> u64 {
        self.has.get(&stream).copied().unwrap_or(0)
    }

    /// How much of each stream the peer is known to have.
    pub(in crate::engine) fn has_of_each(&self) -> impl Iterator<Item = (ReplicaId, u64)> {
        self.has.iter().map(|(stream, seq)| (*stream, *seq))
    }

    pub(in crate::engine) fn is_restored(&self) -> bool {
        self.restored.is_some()
    }

    pub(in crate::engine) fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// By how many milliseconds the wall clock here stands ahead of the peer's, at least.
    pub(in crate::engine) fn ahead_ms(&self, now: &Now) -> Option<i64> {
        self.clock.ahead_ms(now)
    }

    pub(in crate::engine) fn calls_us_stranger(&self) -> bool {
        self.stranger
    }

    /// Whether the peer said hello since it is up.
    pub(in crate::engine) fn is_greeted(&self) -> bool {
        matches!(self.link, Link::Greeted(_))
    }

    /// When the peer was heard last, since the opening.
    pub(in crate::engine) fn heard(&self) -> Option<Mono> {
        self.heard
    }

    /// Whether the peer speaks to this replica: it said hello, and was heard not long ago. The transport may say that a
    /// peer is up long after its frames have ceased to come.
    pub(in crate::engine) fn is_heard(&self, now: Mono) -> bool {
        self.is_greeted() && self.heard.is_some_and(|at| now.since(at) < HEARD_MS)
    }

    pub(in crate::engine) fn is_of_other_group(&self) -> bool {
        self.other_group
    }

    pub(in crate::engine) fn knock(&self) -> Option<DeviceId> {
        self.knock
    }

    /// Whether the peer's log is the way to what is missing here, by its last page.
    pub(in crate::engine) fn reach(&self) -> Reach {
        self.reach
    }

    pub(in crate::engine) fn rejected(&self) -> u64 {
        self.rejected
    }

    pub(super) fn came_up(&mut self) {
        self.link = Link::Up;
        (self.stranger, self.other_group) = (false, false);
        // The next connection may be over another network.
        (self.pace, self.following) = (self.pace.of_next(), Following::default());
        self.backoff.reset();
        self.passed = Passed::default();
        self.clock.is_of_new_session();
    }

    pub(super) fn went_down(&mut self) {
        self.link = Link::Down;
        self.owed = Owed::default();
        self.knock = None;
    }

    /// Whether nothing is lost if the peer is forgotten: neither an acknowledgement, nor that it must not acknowledge
    /// any more, nor that it takes no more of the stream here.
    pub(super) fn is_forgettable(&self) -> bool {
        self.acked.is_empty() && self.restored.is_none() && self.refusal.is_none()
    }

    /// Takes the session of a hello; returns whether it is a new one. The store may have lost since what it had in an
    /// earlier session.
    pub(super) fn greeted(&mut self, session: u64) -> bool {
        debug_assert!(self.is_up(), "a frame comes from a peer that is up");
        (self.stranger, self.other_group) = (false, false);
        if self.link == Link::Greeted(session) {
            return false;
        }
        self.link = Link::Greeted(session);
        self.clock.is_of_new_session();
        self.has.clear();
        self.following = Following::default();
        self.compared.clear();
        self.reach = Reach::Whole;
        self.backoff.reset();
        self.passed = Passed::default();
        true
    }

    /// Takes note that the store was restored. Returns whether this is news.
    pub(super) fn was_restored(&mut self, now: Mono, forget_acks: bool) -> bool {
        let news = self.restored.replace(now).is_none();
        if news && forget_acks {
            self.acked.clear();
        }
        news
    }

    /// Takes note that the store says, in a hello that was sent after the moment `after`, that it was not restored. A
    /// store that was restored says so in every hello, so this is another store of the same replica: the one that was
    /// restored was a copy of it. A hello of before proves nothing.
    pub(super) fn was_not_restored(&mut self, after: Mono) {
        self.restored.take_if(|said| *said < after);
    }

    /// Takes the word that the peer takes no more of the stream of this replica; returns whether it is news. The words
    /// alone are none: a full disk may be another bit fuller at every trial. A kind of reason is news once for a commit,
    /// and only for one that is not before the last one that was: a peer that says ever other things floods nobody.
    pub(super) fn refuses(&mut self, refusal: Refusal) -> bool {
        if self.refusal.as_ref().is_some_and(is_final) {
            return false;
        }
        let (seq, kind, ends) = (refusal.stop.seq(), discriminant(&refusal.stop), !is_final(&refusal));
        self.tells &= self.refusal.replace(refusal).is_some();
        let (highest, kinds) = &mut self.told;
        if ends && (seq < *highest || seq == *highest && kinds.contains(&kind)) {
            return false;
        }
        if seq > *highest {
            (*highest, *kinds) = (seq, Vec::new());
        }
        kinds.push(kind);
        self.tells = true;
        true
    }

    /// Takes note that the peer has the stream of this replica up to `seq`; returns whether it takes it again, and that
    /// is news.
    pub(super) fn takes(&mut self, seq: u64) -> bool {
        let ends = self.refusal.take_if(|known| !is_final(known) && known.stop.seq() <= seq).is_some();
        ends && std::mem::take(&mut self.tells)
    }

    /// Takes an acknowledgement; returns whether it is more than before. It never falls, and counts only while the
    /// store is known to be the one that gave it, which the hello of the peer says; `any` switches that rule off.
    pub(super) fn acks(&mut self, stream: ReplicaId, point: Point, any: bool) -> bool {
        let rises = self.acked.get(&stream).is_none_or(|before| before.seq < point.seq);
        let counts = any || self.restored.is_none() && matches!(self.link, Link::Greeted(_));
        let taken = rises && counts && (self.acked.len() < STREAMS_MAX || self.acked.contains_key(&stream));
        if taken {
            self.acked.insert(stream, point);
        }
        taken
    }
}

/// Whether nothing ends a refusal: a stream with two histories stays so.
fn is_final(refusal: &Refusal) -> bool {
    matches!(refusal.stop, StreamStop::Forked { .. })
}

#[cfg(test)]
mod tests {
    use super::super::super::made::{B, C, complaint, replica};
    use super::*;

    fn point(seq: u64) -> Point {
        Point { seq, digest: [7; 32] }
    }

    /// A peer that said hello in session 1.
    fn greeted() -> Peer {
        let mut peer = Peer::default();
        peer.came_up();
        peer.greeted(1);
        peer
    }

    #[test]
    fn an_acknowledgement_only_rises() {
        let mut peer = greeted();
        for (seq, rises, acked) in [(3, true, 3), (2, false, 3), (3, false, 3), (4, true, 4)] {
            assert_eq!((peer.acks(B, point(seq), false), peer.acked_of(B)), (rises, acked), "{seq}");
        }
        assert_eq!((peer.acked_of(C), peer.acked_points().len()), (0, 1));
    }

    /// The cap is for streams that come new: those that are known go on rising.
    #[test]
    fn a_known_stream_is_acknowledged_also_when_no_other_may_come() {
        let mut peer = greeted();
        for n in 0..STREAMS_MAX as u128 {
            assert!(peer.acks(replica(n), point(1), false));
        }
        assert!(!peer.acks(replica(1 << 64), point(1), false), "one too many");
        assert!(peer.acks(replica(0), point(2), false));
    }

    /// A session that comes with other places has them compared again.
    #[test]
    fn a_new_session_has_its_places_compared_anew() {
        let mut peer = greeted();
        peer.compared.insert(B, 3);
        peer.greeted(2);
        assert!(peer.compared.is_empty());
    }

    /// Before its hello nobody knows whether the store is still the one that it was.
    #[test]
    fn an_acknowledgement_counts_only_in_a_session_of_a_store_that_was_not_restored() {
        type Step = fn(&mut Peer);
        let steps: [(&str, Step, bool); 5] = [
            ("down", |_| {}, false),
            ("up", Peer::came_up, false),
            ("greeted", |peer| _ = peer.greeted(1), true),
            ("up again", Peer::came_up, false),
            ("restored", |peer| _ = (peer.greeted(2), peer.was_restored(Mono(1), false)), false),
        ];
        let mut peer = Peer::default();
        for (seq, (name, step, counts)) in (1..).zip(steps) {
            step(&mut peer);
            assert_eq!(peer.acks(B, point(seq), false), counts, "{name}");
        }
        assert_eq!(peer.acked_of(B), 3);
        assert!(peer.acks(B, point(9), true), "where that rule is off, all of them count");
    }

    /// The store may have lost what it had, and what it acknowledged was durable.
    #[test]
    fn a_new_session_has_what_it_says_and_acknowledged_what_the_ones_before_did() {
        let mut peer = greeted();
        peer.acks(B, point(3), false);
        (peer.reach, peer.stranger) = (Reach::Pruned, true);
        peer.has.insert(B, 3);
        peer.backoff.again(Mono(0), &mut fastrand::Rng::with_seed(1));
        assert!(!peer.greeted(1), "it is the same one");
        assert_eq!((peer.has.len(), peer.reach, peer.stranger), (1, Reach::Pruned, false));
        assert!(!peer.backoff.is_over());
        assert!(peer.greeted(2));
        assert_eq!((peer.has.len(), peer.reach, peer.acked_of(B)), (0, Reach::Whole, 3));
        assert!(peer.backoff.is_over());
        peer.went_down();
        peer.came_up();
        assert!(peer.greeted(2), "a connection that was lost may have hidden another one");
        peer.went_down();
        assert!(complaint(|| peer.greeted(3)).is_some(), "nobody says hello who is down");
    }

    #[test]
    fn a_store_that_was_restored_stays_so_until_a_later_hello_says_otherwise() {
        for (forget, acked) in [(true, 0), (false, 3)] {
            let mut peer = greeted();
            peer.acks(B, point(3), false);
            assert!(peer.was_restored(Mono(10), forget) && peer.is_restored());
            assert_eq!(peer.acked_of(B), acked);
            assert!(!peer.was_restored(Mono(20), forget), "no news");
            peer.greeted(2);
            for (after, restored) in [(9, true), (20, true), (21, false)] {
                peer.was_not_restored(Mono(after));
                assert_eq!(peer.is_restored(), restored, "a hello that was sent after {after}");
            }
            assert!(peer.acks(B, point(4), false), "of the store that was not restored");
        }
    }

    fn refusal(stop: StreamStop) -> Refusal {
        Refusal { stop, clock: None }
    }

    fn refused(seq: u64, reason: &str) -> Refusal {
        refusal(StreamStop::Refused { seq, reason: reason.into() })
    }

    #[test]
    fn a_refusal_is_told_once_and_ends_with_the_commit_that_was_refused() {
        let mut peer = greeted();
        assert!(!peer.takes(9), "nothing was refused");
        let not_stored = refusal(StreamStop::NotStored { seq: 4, error: "full".into() });
        for (word, news) in
            [(refused(4, "a"), true), (refused(4, "b"), false), (not_stored, true), (refused(5, "b"), true)]
        {
            assert_eq!(peer.refuses(word.clone()), news, "{word}");
            assert_eq!(peer.refusal(), Some(&word), "the latest words are shown");
        }
        assert!(!peer.takes(4) && peer.refusal().is_some());
        assert!(peer.takes(5) && peer.refusal().is_none() && !peer.takes(6));
    }

    #[test]
    fn a_fork_there_is_the_last_word_however_much_of_the_stream_the_peer_has() {
        let mut peer = greeted();
        let forked = refusal(StreamStop::Forked { seq: 4 });
        assert!(peer.refuses(refused(5, "a")) && peer.refuses(forked.clone()));
        assert!(!peer.refuses(refused(6, "a")) && !peer.takes(9));
        assert_eq!(peer.refusal(), Some(&forked));
    }

    #[test]
    fn a_peer_that_is_down_is_owed_nothing_and_a_pause_ends_when_it_comes_up() {
        let mut peer = greeted();
        peer.owed.hello = true;
        peer.backoff.again(Mono(0), &mut fastrand::Rng::with_seed(1));
        peer.went_down();
        assert!(!peer.owed.is_anything() && !peer.is_up() && !peer.backoff.is_over());
        peer.came_up();
        assert!(peer.is_up() && peer.backoff.is_over());
    }

    /// The words of a peer on itself and on this replica end with the connection: it may be another process that comes back.
    #[test]
    fn what_a_peer_said_counts_while_it_is_up() {
        let mut peer = greeted();
        peer.heard = Some(Mono(100));
        assert!(peer.is_heard(Mono(99 + HEARD_MS)) && !peer.is_heard(Mono(100 + HEARD_MS)));
        (peer.stranger, peer.other_group, peer.knock) = (true, true, Some(DeviceId(uuid::Uuid::nil())));
        peer.went_down();
        assert_eq!((peer.knock(), peer.is_heard(Mono(100))), (None, false));
        peer.came_up();
        assert_eq!((peer.calls_us_stranger(), peer.is_of_other_group()), (false, false));
        assert!(!peer.is_heard(Mono(100)), "it has not said hello yet");
        peer.greeted(1);
        assert_eq!((peer.is_heard(Mono(100)), peer.heard()), (true, Some(Mono(100))));
    }

    #[test]
    fn a_peer_may_be_forgotten_unless_it_acknowledged_or_refuses_something_or_was_restored() {
        assert!(greeted().is_forgettable());
        let (mut acked, mut restored, mut refuses) = (greeted(), greeted(), greeted());
        acked.acks(B, point(1), false);
        restored.was_restored(Mono(1), true);
        refuses.refuses(refused(1, "no"));
        assert!(!acked.is_forgettable() && !restored.is_forgettable() && !refuses.is_forgettable());
    }

    #[test]
    fn a_peer_makes_nobody_remember_more_streams_than_a_group_has() {
        let mut peer = greeted();
        for n in 0..=STREAMS_MAX as u128 {
            assert_eq!(peer.acks(replica(n), point(1), false), n < STREAMS_MAX as u128);
        }
        assert_eq!(peer.acked_points().len(), STREAMS_MAX);
    }

    #[test]
    fn each_kind_of_message_is_something_that_a_peer_can_be_owed() {
        let head = WireHead { stream: B, seq: 1, digest: [0; 32] };
        assert!(!Owed::default().is_anything());
        assert!(Owed { hello: true, ..Owed::default() }.is_anything());
        assert!(Owed { stranger: true, ..Owed::default() }.is_anything());
        assert!(Owed { regressed: Some(head), ..Owed::default() }.is_anything());
        assert!(Owed { stop: true, ..Owed::default() }.is_anything());
        assert!(Owed { word: true, ..Owed::default() }.is_anything());
        let group = GroupId(uuid::Uuid::nil());
        assert!(Owed { other_group: Some(group), ..Owed::default() }.is_anything());
    }
}
