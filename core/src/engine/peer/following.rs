//! How a peer follows the stream of this replica: which commits it has, and which it was sent.
//!
//! A commit is sent live only to a peer that has been sent, or has, all that comes before it. To others it would come
//! too early, be dropped, and take the link from the page that they wait for. They are told that there is something to
//! pull instead.
//!
//! Owns: what is known of one peer and one connection. Holds always: there is no gap between what the peer has and what
//! it was sent.

use crate::clock::Mono;

use super::super::backoff::after;

/// How soon a peer that has not taken what it was told of is told again: the word may have been lost.
const TOLD_AGAIN_MS: u64 = 2_000;

/// How far a peer follows the own stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Following {
    /// The last commit that the peer is known to have; `None` as long as it has not said anything.
    has: Option<u64>,
    /// All commits behind the first number and up to the second one have been sent.
    sent: Option<(u64, u64)>,
    /// Where the last page ended that was sent.
    paged: u64,
    /// The last commit that the peer was told of, and when.
    told: u64,
    told_at: Option<Mono>,
    /// Whether the peer is to be told once more, when that is due: there is more than it was told of.
    tells_again: bool,
    /// The peer asks again by itself as long as it has no more than this: the last page ended here and said that there is
    /// more, or it is being made for a peer that has so much.
    pulls: Option<u64>,
    /// Whether the last pull named less than the peer had said before: it came late, or asks for a commit again. Its page
    /// says nothing of what the peer will do.
    is_late: bool,
}

impl Following {
    /// Takes the word of the peer that it has the stream up to `seq`.
    pub(super) fn has(&mut self, seq: u64) {
        self.has = self.has.max(Some(seq));
        self.pulls.take_if(|upto| seq > *upto);
    }

    /// Takes the word of the peer that it has the stream up to `seq` and asks for what is behind: whatever was sent of it
    /// may be lost. What a peer has once said to have, it does not lack later.
    pub(super) fn lacks_behind(&mut self, seq: u64) {
        self.is_late = self.has.is_some_and(|has| has > seq);
        if !self.is_late {
            (self.has, self.sent, self.pulls, self.tells_again) = (Some(seq), None, Some(seq), false);
        }
    }

    /// Takes note that a page goes to the peer, which ends at `upto` and says whether there is `more`.
    pub(super) fn page(&mut self, upto: u64, more: bool) {
        if self.is_late {
            return;
        }
        let after = self.sent.map_or(self.has.unwrap_or(0), |(after, _)| after);
        (self.sent, self.pulls, self.told) = (Some((after, upto)), more.then_some(upto), self.told.max(upto));
        self.paged = upto;
    }

    /// Takes note that the page that the peer waits for has less than it could have.
    pub(super) fn page_failed(&mut self) {
        self.pulls = None;
    }

    /// Whether the peer has all commits up to `before`, or was sent them, and those up to `floor` not live: as long as
    /// these may still be on their way, the link has enough to do.
    pub(super) fn is_level(&self, before: u64, floor: u64) -> bool {
        let Some(has) = self.has else {
            // Nothing is known yet: what comes before was perhaps sent in an earlier connection.
            return self.sent.is_none_or(|(_, upto)| upto >= before);
        };
        has.max(self.paged) >= floor
            && (has >= before || self.sent.is_some_and(|(after, upto)| has >= after && upto >= before))
    }

    /// Takes note that the commits behind `before` and up to `upto` are sent live.
    pub(super) fn live(&mut self, before: u64, upto: u64) {
        let after = self.sent.filter(|(_, sent)| *sent == before).map_or(before, |(after, _)| after);
        (self.sent, self.told) = (Some((after, upto)), upto);
    }

    /// Whether the peer is to be told that there is more than it was told of.
    pub(super) fn wants_word(&self, now: Mono) -> bool {
        let again = self.told_at.is_none_or(|at| after(at, TOLD_AGAIN_MS) <= now);
        self.pulls.is_none() && (again || self.has.unwrap_or(0) >= self.told)
    }

    /// Takes note that there is more than the peer was told of, which it does not have to be told now.
    pub(super) fn tell_again(&mut self) {
        self.tells_again = true;
    }

    /// When the peer is to be told once more.
    pub(super) fn tells_again_at(&self) -> Option<Mono> {
        let at = self.told_at.map(|at| after(at, TOLD_AGAIN_MS));
        at.filter(|_| self.tells_again && self.pulls.is_none())
    }

    /// Takes note that the peer is told that the stream goes up to `seq`.
    pub(super) fn tell(&mut self, seq: u64, now: Mono) {
        (self.told, self.told_at, self.tells_again) = (seq, Some(now), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_level_while_there_is_no_gap() {
        let mut peer = Following::default();
        assert!(peer.is_level(7, 0), "nothing is known");
        peer.live(7, 8);
        assert!(peer.is_level(8, 0) && !peer.is_level(9, 0), "one was not sent");
        peer.has(7);
        assert!(peer.is_level(8, 0), "what it lacks is on its way");
        let mut behind = Following::default();
        behind.live(7, 8);
        behind.has(5);
        assert!(!behind.is_level(8, 0), "it lacked two when the first was sent");
        behind.has(8);
        assert!(behind.is_level(8, 0), "it got them from another");
    }

    #[test]
    fn a_pull_says_that_what_was_sent_is_lost_and_a_page_makes_up_for_it() {
        let mut peer = Following::default();
        peer.has(3);
        peer.live(3, 9);
        peer.lacks_behind(4);
        assert!(!peer.is_level(9, 0));
        peer.page(6, true);
        peer.page(9, false);
        assert!(peer.is_level(9, 0) && !peer.is_level(10, 0));
        peer.live(9, 10);
        assert!(peer.is_level(10, 0));
    }

    #[test]
    fn a_peer_that_has_said_nothing_of_late_is_no_longer_level() {
        let mut peer = Following::default();
        peer.has(3);
        peer.live(3, 9);
        assert!(peer.is_level(9, 3) && !peer.is_level(9, 4));
        peer.lacks_behind(3);
        peer.page(9, false);
        assert!(peer.is_level(9, 9), "it has asked for what is on its way");
    }

    #[test]
    fn a_peer_is_told_once_until_it_has_taken_it_or_the_word_may_be_lost() {
        let mut peer = Following::default();
        peer.has(3);
        assert!(peer.wants_word(Mono(10)));
        peer.tell(5, Mono(10));
        assert!(!peer.wants_word(Mono(11)) && peer.tells_again_at().is_none());
        peer.tell_again();
        assert_eq!(peer.tells_again_at(), Some(Mono(10 + TOLD_AGAIN_MS)), "nobody may commit until then");
        assert!(peer.wants_word(Mono(10 + TOLD_AGAIN_MS)));
        peer.has(5);
        assert!(peer.wants_word(Mono(11)));
        peer.lacks_behind(5);
        assert!(!peer.wants_word(Mono(u64::MAX)) && peer.tells_again_at().is_none(), "it asks");
        peer.page(7, true);
        assert!(!peer.wants_word(Mono(u64::MAX)), "it will ask");
        peer.page_failed();
        assert!(peer.wants_word(Mono(u64::MAX)));
    }

    /// The network may bring a pull twice, and the second time late; and a check asks for a commit again.
    #[test]
    fn a_pull_of_what_a_peer_has_long_had_says_nothing() {
        let mut peer = Following::default();
        peer.lacks_behind(1);
        peer.page(2, true);
        peer.has(3);
        peer.live(3, 4);
        peer.lacks_behind(1);
        peer.page(2, true);
        assert!(peer.is_level(4, 3), "commits go to it live");
        assert!(peer.wants_word(Mono(0)), "it does not ask by itself");
        peer.lacks_behind(3);
        peer.page(4, true);
        assert!(!peer.wants_word(Mono(0)), "it asks");
        peer.has(4);
        assert!(!peer.wants_word(Mono(0)), "for what is behind the page");
        peer.has(5);
        assert!(peer.wants_word(Mono(0)), "which it has got otherwise");
    }

    /// A word costs a slow link a frame, so none is said of commits that are on their way, or that the peer asks for.
    #[test]
    fn a_peer_is_not_told_of_what_it_gets() {
        let mut peer = Following::default();
        peer.tell(5, Mono(10));
        peer.tell_again();
        peer.lacks_behind(5);
        peer.tell_again();
        assert!(peer.tells_again_at().is_none(), "it asks");
        peer.lacks_behind(5);
        peer.page(9, false);
        assert!(!peer.wants_word(Mono(11)) && peer.tells_again_at().is_none(), "a page is on its way");
        peer.tell_again();
        peer.tell(10, Mono(12));
        assert!(!peer.wants_word(Mono(13)) && peer.tells_again_at().is_none(), "it was told just now");
    }
}
