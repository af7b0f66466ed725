//! The puller: which peer is asked for missing commits, and when.
//!
//! The replica that lacks commits drives. One page is on its way at a time, so a replica takes in no more than it asked
//! for, and no commit comes twice because two peers sent it. The next page is asked for as soon as one has arrived and
//! nothing else waits, while that one is being written: asking and writing overlap. A peer that does not answer, or not
//! with the commits that it said it has, rests for a while, and another one is asked.
//!
//! Owns: the page on its way, the peer that was of no use last, the pause after the store failed. Holds always: at most
//! one page is on its way; only the page of the last pull counts as an answer.

use crate::clock::Mono;
use crate::ids::ReplicaId;

use super::Machine;
use super::backoff::{Backoff, after};

/// The longest time that a page may be on its way. Its peer counts as silent after that.
const PULL_TIMEOUT_MS: u64 = 10_000;

/// Asks for missing commits, one page at a time.
#[derive(Debug, Default)]
pub(super) struct Puller {
    on_its_way: Option<Asked>,
    last_id: u32,
    /// The peer whose last page or silence was of no use.
    useless: Option<ReplicaId>,
    /// The peer that did not answer in time, until the engine has asked for it.
    silent: Option<ReplicaId>,
    /// The pause after the store failed to take received commits.
    store_backoff: Backoff,
}

/// A page that is on its way.
#[derive(Debug)]
struct Asked {
    peer: ReplicaId,
    id: u32,
    deadline: Mono,
    /// Whether one commit alone was asked for.
    one: bool,
    /// The page rests on commits that are not here any more. It is still waited for, and its peer is not blamed for
    /// what it brings.
    void: bool,
}

/// The pull that a page answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// The pull whose page is on its way.
    Asked,
    /// The same, and it asked for one commit alone.
    AskedForOne,
    /// A pull of an earlier session, or one that was given up. The commits of its page are as good as any, but say
    /// nothing about the peer.
    Nothing,
}

impl Puller {
    /// Whether no page is on its way, and the store has not just failed.
    pub(super) fn is_free(&self) -> bool {
        self.on_its_way.is_none() && self.store_backoff.is_over()
    }

    /// Chooses the peer to ask. A peer that was of no use is left out if there is another, since a peer may not have
    /// what it says it has.
    pub(super) fn choose(&self, mut able: Vec<ReplicaId>, rng: &mut fastrand::Rng) -> Option<ReplicaId> {
        if able.len() > 1 {
            able.retain(|replica| Some(*replica) != self.useless);
        }
        rng.choice(able)
    }

    /// Asks a peer for a page, or for one commit alone; returns the id of the pull.
    pub(super) fn asks(&mut self, peer: ReplicaId, one: bool, now: Mono) -> u32 {
        debug_assert!(self.on_its_way.is_none(), "one page at a time: {:?}", self.on_its_way);
        self.last_id = self.last_id.wrapping_add(1);
        let deadline = after(now, PULL_TIMEOUT_MS);
        self.on_its_way = Some(Asked { peer, id: self.last_id, deadline, one, void: false });
        self.last_id
    }

    /// Takes note of a page that has arrived; returns the pull that it answers.
    pub(super) fn arrived(&mut self, from: ReplicaId, id: u32) -> Answers {
        match self.on_its_way.take_if(|asked| asked.peer == from && asked.id == id) {
            Some(asked) if asked.void => Answers::Nothing,
            Some(asked) if asked.one => Answers::AskedForOne,
            Some(_) => Answers::Asked,
            None => Answers::Nothing,
        }
    }

    /// Takes note of whether the page of `from` was of use.
    pub(super) fn rated(&mut self, from: ReplicaId, useless: bool) {
        self.useless = useless.then_some(from);
    }

    /// Gives up the page of a peer that went down.
    pub(super) fn went_down(&mut self, peer: ReplicaId) {
        self.on_its_way.take_if(|asked| asked.peer == peer);
    }

    /// Takes note that the inbox was let go: a page on its way rests on its commits.
    pub(super) fn let_go(&mut self) {
        if let Some(asked) = &mut self.on_its_way {
            asked.void = true;
        }
    }

    /// Takes note that the store failed to take received commits: no page is asked for during a pause.
    pub(super) fn store_failed(&mut self, now: Mono, rng: &mut fastrand::Rng) {
        self.store_backoff.again(now, rng);
    }

    /// Takes note that the store took received commits.
    pub(super) fn store_works(&mut self) {
        self.store_backoff.reset();
    }

    /// The peer that did not answer in time. Each one is named once.
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
        let id = puller.asks(A, false, Mono(0));
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
        let id = puller.asks(A, false, Mono(0));
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
        let id = puller.asks(A, false, Mono(0));
        puller.let_go();
        assert!(!puller.is_free());
        assert_eq!(puller.arrived(A, id), Answers::Nothing);
        assert!(puller.is_free());
    }

    #[test]
    fn the_page_of_one_commit_answers_the_pull_that_asked_for_one() {
        let mut puller = Puller::default();
        for (one, answers) in [(true, Answers::AskedForOne), (false, Answers::Asked)] {
            let id = puller.asks(A, one, Mono(0));
            assert_eq!(puller.arrived(A, id), answers);
        }
        let id = puller.asks(A, true, Mono(0));
        puller.let_go();
        assert_eq!(puller.arrived(A, id), Answers::Nothing, "its ground was lost");
    }
}
