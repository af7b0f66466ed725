//! The streams that the pages of a peer passed over: the peer is ahead in them, and its page had nothing of them.
//!
//! A page leaves out what rests on a stream that is stopped here. The peer would send the same page again, so it is not
//! asked for these streams for a while. It is asked for all others: a stream that is stopped must not keep the rest of the
//! group waiting.
//!
//! Owns: the streams, and the pause after which the peer is asked for them again. Holds always: there is a pause exactly
//! while there are such streams.

use std::collections::BTreeSet;

use crate::clock::Mono;
use crate::ids::ReplicaId;

use super::super::backoff::Backoff;

/// The streams that the pages of a peer passed over.
#[derive(Debug, Default)]
pub(super) struct Passed {
    streams: BTreeSet<ReplicaId>,
    backoff: Backoff,
}

impl Passed {
    /// Takes streams that a page passed over.
    pub(super) fn again(&mut self, streams: Vec<ReplicaId>, now: Mono, rng: &mut fastrand::Rng) {
        debug_assert!(!streams.is_empty(), "a page that passes nothing over is no failure");
        self.streams.extend(streams);
        self.backoff.again(now, rng);
    }

    pub(super) fn contains(&self, stream: ReplicaId) -> bool {
        self.streams.contains(&stream)
    }

    /// Takes note that a stream goes on: the peer may be asked for it. Returns whether others are left.
    pub(super) fn takes_up(&mut self, stream: ReplicaId) -> bool {
        if self.streams.remove(&stream) && self.streams.is_empty() {
            self.backoff.reset();
        }
        !self.streams.is_empty()
    }

    /// When the peer may be asked for the streams again.
    pub(super) fn until(&self) -> Option<Mono> {
        self.backoff.until()
    }

    /// Lets the peer be asked for the streams again if the pause has ended; returns whether it ended now.
    pub(super) fn expire(&mut self, now: Mono) -> bool {
        let ended = self.backoff.expire(now);
        if ended {
            self.streams.clear();
        }
        ended
    }

    pub(super) fn check(&self) {
        assert_eq!(self.streams.is_empty(), self.until().is_none(), "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::made::{B, C};
    use super::*;

    #[test]
    fn a_stream_that_was_passed_over_waits_for_the_end_of_the_pause_or_until_it_goes_on() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut passed = Passed::default();
        passed.again(vec![B, C], Mono(0), &mut rng);
        passed.check();
        assert!(passed.contains(B) && passed.contains(C));
        assert!(passed.takes_up(B) && !passed.contains(B), "C is left");
        assert!(!passed.takes_up(C) && passed.until().is_none());
        passed.check();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            passed.again(vec![B], Mono(0), &mut rng);
            let until = passed.until().unwrap();
            assert!(!passed.expire(Mono(until.0 - 1)) && passed.contains(B));
            assert!(passed.expire(until) && !passed.contains(B));
            passed.check();
            pauses.push(until.0);
        }
        assert!(pauses.is_sorted() && pauses[3] > 4 * pauses[0], "ever more rarely: {pauses:?}");
    }
}
