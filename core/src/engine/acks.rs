//! Acknowledgements and hellos: when this replica says how far its streams are.
//!
//! Streams that move within a short time are acknowledged together, which saves frames; after half of that time the
//! acknowledgement rides on a frame that goes to the same peers anyway. A hello with all heads goes out now and then, so
//! that every lost frame is noticed.
//!
//! Owns: the streams that moved since the last acknowledgement, the moment to acknowledge, and the moment to say hello.
//! Holds always: there is a moment to acknowledge exactly while a stream waits for it; a hello that is due stays due
//! until it was said.

use std::collections::BTreeSet;

use crate::clock::Mono;
use crate::ids::ReplicaId;

use super::Machine;
use super::backoff::{after, jittered};

/// Streams that move within this time are acknowledged together.
const ACK_AFTER_MS: u64 = 20;
/// The same, for each peer that is up: where many acknowledge, each does it more rarely, so that no author is flooded.
const ACK_AFTER_MS_A_PEER: u64 = 2;
/// How often a replica says hello to connected peers. A lost frame is noticed after this time at the latest.
const HELLO_EVERY_MS: u64 = 30_000;
/// How soon a replica says hello again if it hears a member that its last hello named as unheard.
const CORRECTION_AFTER_MS: u64 = 2_000;
/// The same, for each peer that is up: in a large group many members may come and go.
const CORRECTION_AFTER_MS_A_PEER: u64 = 100;
/// How often a joiner says hello to its introducer, until it has been added.
const JOINER_HELLO_EVERY_MS: u64 = 2_000;

/// When to say something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Moment {
    /// There is nothing to say.
    #[default]
    Never,
    At(Mono),
    /// The moment has come.
    Now,
}

impl Moment {
    pub(super) fn expire(&mut self, now: Mono) {
        if matches!(self, Self::At(at) if *at <= now) {
            *self = Self::Now;
        }
    }

    pub(super) fn at(self) -> Option<Mono> {
        match self {
            Self::At(at) => Some(at),
            Self::Never | Self::Now => None,
        }
    }
}

fn times(ms: u64, up: usize) -> u64 {
    ms.saturating_mul(u64::try_from(up).unwrap_or(u64::MAX))
}

/// Which streams to acknowledge, and when.
#[derive(Debug, Default)]
pub(super) struct Acks {
    moved: BTreeSet<ReplicaId>,
    moment: Moment,
    /// From when on the acknowledgement may ride on another frame. Earlier it would ride on each of many frames, and cost
    /// more bytes than a frame of its own.
    rides_from: Option<Mono>,
}

impl Acks {
    /// Takes note that streams have moved: they are acknowledged soon, together with those that move until then. `up` is
    /// the number of peers that are up.
    pub(super) fn later(&mut self, streams: impl IntoIterator<Item = ReplicaId>, up: usize, now: Mono) {
        self.moved.extend(streams);
        if self.moment == Moment::Never && !self.moved.is_empty() {
            let wait_ms = ACK_AFTER_MS.max(times(ACK_AFTER_MS_A_PEER, up));
            self.moment = Moment::At(after(now, wait_ms));
            self.rides_from = Some(after(now, wait_ms / 2));
        }
    }

    /// The streams that a frame which is sent now may acknowledge too: none, unless some wait long enough.
    pub(super) fn riding(&self, now: Mono) -> Option<&BTreeSet<ReplicaId>> {
        self.rides_from.filter(|from| *from <= now).map(|_| &self.moved)
    }

    /// Takes note that all that waited rode on another frame.
    pub(super) fn rode(&mut self) {
        *self = Self::default();
    }

    /// The streams to acknowledge now; `None` if it is not time yet.
    pub(super) fn poll(&mut self) -> Option<BTreeSet<ReplicaId>> {
        (self.moment == Moment::Now).then(|| std::mem::take(self).moved)
    }
}

impl Machine for Acks {
    fn next_timeout(&self) -> Option<Mono> {
        self.moment.at()
    }

    fn expire(&mut self, now: Mono) {
        self.moment.expire(now);
    }

    fn check(&self) {
        assert_eq!(self.moved.is_empty(), self.moment == Moment::Never, "{self:?}");
    }
}

/// When to say hello to all connected members.
#[derive(Debug, Default)]
pub(super) struct Hellos {
    moment: Moment,
    /// Whether a hello is due because of news.
    hurried: bool,
}

/// Why a hello to all connected members is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HelloReason {
    /// The interval between two hellos has passed.
    Time,
    /// Something has changed that peers must know.
    News,
}

impl Hellos {
    /// Takes note that a peer is up: hellos begin, unless they have begun.
    pub(super) fn begin(&mut self, awaits_membership: bool, now: Mono, rng: &mut fastrand::Rng) {
        if self.moment == Moment::Never {
            self.later(awaits_membership, now, rng);
        }
    }

    /// Takes note that a hello was said: the next one is due after the interval.
    pub(super) fn later(&mut self, awaits_membership: bool, now: Mono, rng: &mut fastrand::Rng) {
        let every = if awaits_membership { JOINER_HELLO_EVERY_MS } else { HELLO_EVERY_MS };
        self.moment = Moment::At(after(now, jittered(every, rng)));
        self.hurried = false;
    }

    /// Makes a hello due before long, since the last one named a member as unheard that is heard. `up` is the number of
    /// peers that are up.
    pub(super) fn correct(&mut self, up: usize, now: Mono) {
        let soon = after(now, CORRECTION_AFTER_MS.max(times(CORRECTION_AFTER_MS_A_PEER, up)));
        if let Moment::At(at) = &mut self.moment {
            *at = soon.min(*at);
        }
    }

    /// Makes a hello due at once.
    pub(super) fn now(&mut self) {
        self.hurried |= self.moment != Moment::Now;
        self.moment = Moment::Now;
    }

    /// The reason of the hello that is due, if one is. It stays due until [`later`](Hellos::later) is called.
    pub(super) fn due(&self) -> Option<HelloReason> {
        (self.moment == Moment::Now).then_some(if self.hurried {
            HelloReason::News
        } else {
            HelloReason::Time
        })
    }
}

impl Machine for Hellos {
    fn next_timeout(&self) -> Option<Mono> {
        self.moment.at()
    }

    fn expire(&mut self, now: Mono) {
        self.moment.expire(now);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_moves_within_a_short_time_is_acknowledged_together() {
        let (a, b) = (ReplicaId(Uuid::from_u128(0xa)), ReplicaId(Uuid::from_u128(0xb)));
        let mut acks = Acks::default();
        acks.later([], 2, Mono(100));
        acks.check();
        acks.later([a], 2, Mono(100));
        acks.later([b, a], 2, Mono(110));
        assert_eq!(acks.next_timeout(), Some(Mono(120)), "from the first on");
        acks.expire(Mono(119));
        assert_eq!(acks.poll(), None);
        acks.expire(Mono(120));
        assert_eq!(acks.next_timeout(), None, "what is due is no moment to wait for");
        assert_eq!(acks.poll(), Some(BTreeSet::from([a, b])));
        assert_eq!(acks.poll(), None);
        acks.check();
        acks.later([a], 100, Mono(200));
        assert_eq!(acks.next_timeout(), Some(Mono(400)), "more rarely where many do it");
    }

    #[test]
    fn an_acknowledgement_rides_once_it_has_waited_for_half_of_its_time() {
        let a = ReplicaId(Uuid::from_u128(0xa));
        let mut acks = Acks::default();
        assert_eq!(acks.riding(Mono(100)), None);
        acks.later([a], 2, Mono(100));
        assert_eq!(acks.riding(Mono(109)), None);
        assert_eq!(acks.riding(Mono(110)), Some(&BTreeSet::from([a])));
        acks.rode();
        acks.check();
        assert_eq!((acks.riding(Mono(110)), acks.next_timeout()), (None, None));
    }

    #[test]
    fn a_hello_that_is_outdated_is_corrected_soon() {
        for (up, soon) in [(1, 2_000), (10, 2_000), (100, 10_000), (1_000, 100_000)] {
            let mut hellos = Hellos::default();
            hellos.correct(up, Mono(0));
            assert_eq!(hellos.next_timeout(), None, "there was none");
            hellos.begin(false, Mono(0), &mut fastrand::Rng::with_seed(3));
            let next = hellos.next_timeout();
            hellos.correct(up, Mono(0));
            assert_eq!(hellos.next_timeout(), next.min(Some(Mono(soon))), "{up}");
            hellos.correct(up, Mono(5_000));
            assert_eq!(hellos.next_timeout(), next.min(Some(Mono(soon))), "and never put off");
        }
    }

    #[test]
    fn a_joiner_says_hello_more_often() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut hellos = Hellos::default();
        hellos.begin(true, Mono(0), &mut rng);
        let soon = hellos.next_timeout().unwrap();
        assert!((1_500..=2_500).contains(&soon.0));
        hellos.begin(false, Mono(0), &mut rng);
        assert_eq!(hellos.next_timeout(), Some(soon), "it has begun");
        hellos.expire(soon);
        assert_eq!(
            (hellos.due(), hellos.due()),
            (Some(HelloReason::Time), Some(HelloReason::Time)),
            "until it was said"
        );
        hellos.later(false, soon, &mut rng);
        assert!(hellos.due().is_none() && hellos.next_timeout().unwrap().since(soon) >= 22_500);
        hellos.now();
        assert_eq!((hellos.due(), hellos.next_timeout()), (Some(HelloReason::News), None));
    }

    #[test]
    fn news_take_no_turn_of_the_interval() {
        let mut hellos = Hellos::default();
        hellos.begin(false, Mono(0), &mut fastrand::Rng::with_seed(3));
        hellos.expire(Mono(u64::MAX));
        hellos.now();
        assert_eq!(hellos.due(), Some(HelloReason::Time), "acknowledgements are stored in this rhythm");
    }
}
