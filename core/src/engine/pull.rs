//! The puller: who is asked for what is missing, and when.
//!
//! The puller drives. One page is on its way at a time, so what a replica takes in is bounded by what it asked for, and
//! nothing comes twice because two peers sent it. The next page is asked for as soon as one has arrived and nothing else
//! waits, while that one is being written: asking and writing overlap. A peer that does not answer, or not with what it
//! said it has, is left alone for a while, and another one is asked.
//!
//! Owns: the page that is on its way, the peer that was of no use last, the pause after the store failed.

use crate::clock::Mono;
use crate::ids::ReplicaId;

use super::Machine;
use super::backoff::{Backoff, after};

/// How long a page may take.
const PULL_TIMEOUT_MS: u64 = 10_000;

/// The one that asks.
#[derive(Debug, Default)]
pub(super) struct Puller {
    on_its_way: Option<Asked>,
    last_id: u32,
    /// The peer whose last page or silence was of no use.
    useless: Option<ReplicaId>,
    /// The peer that did not answer in time, until that is taken note of.
    silent: Option<ReplicaId>,
    /// Since the store failed to take what was received.
    store_backoff: Backoff,
}

/// A page that is on its way.
#[derive(Debug)]
struct Asked {
    peer: ReplicaId,
    id: u32,
    deadline: Mono,
    /// What it rests on is not here any more: it is waited for, and its sender is not to blame for what it brings.
    void: bool,
}

/// What a page answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// What was asked.
    Asked,
    /// A pull of an earlier session, or one that was given up: what it brings is as good, and says nothing about its
    /// sender.
    Nothing,
}

impl Puller {
    /// Whether nobody is asked now and the store has not just failed.
    pub(super) fn is_free(&self) -> bool {
        self.on_its_way.is_none() && self.store_backoff.is_over()
    }

    /// Chooses whom to ask: not the one that was of no use, if there is another, since what a peer says it has need not
    /// be so.
    pub(super) fn choose(&self, mut able: Vec<ReplicaId>, rng: &mut fastrand::Rng) -> Option<ReplicaId> {
        if able.len() > 1 {
            able.retain(|replica| Some(*replica) != self.useless);
        }
        rng.choice(able)
    }

    /// A peer is asked for a page; returns the name of the pull.
    pub(super) fn asks(&mut self, peer: ReplicaId, now: Mono) -> u32 {
        debug_assert!(self.on_its_way.is_none(), "one page at a time: {:?}", self.on_its_way);
        self.last_id = self.last_id.wrapping_add(1);
        let deadline = after(now, PULL_TIMEOUT_MS);
        self.on_its_way = Some(Asked { peer, id: self.last_id, deadline, void: false });
        self.last_id
    }

    /// A page has arrived; says whether it is the one that is waited for.
    pub(super) fn arrived(&mut self, from: ReplicaId, id: u32) -> Answers {
        match self.on_its_way.take_if(|asked| asked.peer == from && asked.id == id) {
            Some(asked) if !asked.void => Answers::Asked,
            _ => Answers::Nothing,
        }
    }

    /// Whether the page that was asked for was of use to this replica.
    pub(super) fn judged(&mut self, from: ReplicaId, useless: bool) {
        self.useless = useless.then_some(from);
    }

    /// The peer cannot be reached any more: nothing of it is waited for.
    pub(super) fn went_down(&mut self, peer: ReplicaId) {
        self.on_its_way.take_if(|asked| asked.peer == peer);
    }

    /// What waited for the store was let go: a page that is on its way rests on it.
    pub(super) fn let_go(&mut self) {
        if let Some(asked) = &mut self.on_its_way {
            asked.void = true;
        }
    }

    /// The store failed to take what was received: nobody is asked for a while.
    pub(super) fn store_failed(&mut self, now: Mono, rng: &mut fastrand::Rng) {
        self.store_backoff.again(now, rng);
    }

    /// The store took what was received.
    pub(super) fn store_works(&mut self) {
        self.store_backoff.reset();
    }

    /// The peer that did not answer in time, once.
    pub(super) fn poll_silent(&mut self) -> Option<ReplicaId> {
        self.silent.take()
    }

    #[cfg(test)]
    pub(super) fn useless(&self) -> Option<ReplicaId> {
        self.useless
    }
}

impl Machine for Puller {
    fn next_timeout(&self) -> Option<Mono> {
        let page = self.on_its_way.as_ref().map(|asked| asked.deadline);
        [page, self.store_backoff.until()].into_iter().flatten().min()
    }

    fn expire(&mut self, now: Mono) {
        self.store_backoff.expire(now);
        if let Some(asked) = self.on_its_way.take_if(|asked| asked.deadline <= now) {
            self.useless = Some(asked.peer);
            self.silent = Some(asked.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const A: ReplicaId = ReplicaId(Uuid::from_u128(0xa));
    const B: ReplicaId = ReplicaId(Uuid::from_u128(0xb));

    #[test]
    fn one_page_is_on_its_way_at_a_time() {
        let mut puller = Puller::default();
        assert!(puller.is_free());
        let id = puller.asks(A, Mono(0));
        assert!(!puller.is_free());
        assert_eq!(puller.arrived(B, id), Answers::Nothing, "of another peer");
        assert_eq!(puller.arrived(A, id.wrapping_add(1)), Answers::Nothing, "of another pull");
        assert!(!puller.is_free(), "it is still waited for");
        assert_eq!(puller.arrived(A, id), Answers::Asked);
        assert!(puller.is_free());
    }

    #[test]
    fn whoever_is_silent_is_named_once_and_not_asked_again_if_there_is_another() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut puller = Puller::default();
        let id = puller.asks(A, Mono(0));
        puller.expire(Mono(9_999));
        assert_eq!(puller.poll_silent(), None);
        puller.expire(puller.next_timeout().unwrap());
        assert_eq!((puller.poll_silent(), puller.poll_silent()), (Some(A), None));
        assert_eq!(puller.arrived(A, id), Answers::Nothing, "it came too late");
        for _ in 0..20 {
            assert_eq!(puller.choose(vec![A, B], &mut rng), Some(B));
        }
        assert_eq!(puller.choose(vec![A], &mut rng), Some(A));
        assert_eq!(puller.choose(Vec::new(), &mut rng), None);
    }

    #[test]
    fn a_page_whose_ground_was_lost_is_waited_for_and_blamed_on_nobody() {
        let mut puller = Puller::default();
        let id = puller.asks(A, Mono(0));
        puller.let_go();
        assert!(!puller.is_free());
        assert_eq!(puller.arrived(A, id), Answers::Nothing);
        assert!(puller.is_free());
    }
}
