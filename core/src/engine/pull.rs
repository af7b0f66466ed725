//! The puller: which peer is asked for missing commits, and when.
//!
//! The replica that lacks commits drives. It asks one peer at a time, so a replica takes in no more than it asked for, and
//! no commit comes twice because two peers sent it. The next page is asked for as soon as one has arrived and nothing
//! else waits, while that one is being written: asking and writing overlap. On a link that holds more than a page, the
//! pages behind it are asked for too, before it has come. A peer that does not answer, or not with the commits that it
//! said it has, rests for a while, and another one is asked.
//!
//! A page that comes too late is an answer all the same: it teaches how slow the link is. A peer that has said that a page
//! is coming is asked for nothing else until that page is here, or is given up. Others are asked meanwhile if it takes long,
//! or if there is no sign of an answer for a while: a peer that has died unnoticed keeps nobody from the others.
//!
//! Owns: the pages on their way, the peer that was of no use last, the pause after the store failed. Holds always: all
//! pages on their way are of one peer, and each goes on from the one before it.

use std::collections::{BTreeMap, VecDeque};

use crate::clock::Mono;
use crate::ids::ReplicaId;

use super::Machine;
use super::backoff::{Backoff, after};

/// How long a page that is coming keeps other peers from being asked.
const PATIENCE_MS: u64 = 60_000;
/// A pull without any sign of an answer keeps other peers from being asked for such a part of the time after which its peer
/// counts as silent: that is a round trip, and 2.5 s.
const SIGN_SHARE: u64 = 4;

/// Asks for missing commits, page by page.
#[derive(Debug)]
pub(super) struct Puller {
    /// The pages that are on their way, in the order in which they were asked for.
    on_the_way: VecDeque<Asked>,
    /// When the peer counts as silent.
    deadline: Mono,
    /// The page of each peer that did not come in time.
    late: BTreeMap<ReplicaId, Late>,
    last_id: u32,
    /// The peer whose last page was taken whole and said that there is more.
    goes_on: Option<ReplicaId>,
    /// The peer whose last page or silence was of no use.
    useless: Option<ReplicaId>,
    /// The peer that did not answer in time, until the engine has asked for it.
    silent: Option<ReplicaId>,
    /// The pause after the store failed to take received commits.
    store_backoff: Backoff,
}

/// A page that was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    peer: ReplicaId,
    id: u32,
    at: Mono,
    budget: usize,
    kind: Kind,
    /// Until when other peers are not asked, though there is no sign of an answer. One that waits for the page before it
    /// has none.
    patient_until: Option<Mono>,
    /// When the word came that the page is coming, and how many bytes it has.
    coming: Option<(Mono, u64)>,
    /// The page rests on commits that are not here any more. It is still waited for, and its peer is not blamed for
    /// what it brings.
    void: bool,
}

/// A page that did not come in time.
#[derive(Clone, Copy, Debug)]
struct Late {
    asked: Asked,
    /// Until when the peer is sending it, if it said so.
    sending: Option<Mono>,
}

/// The content that a page was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As many commits as fit.
    Page,
    /// The commits behind those of a page that is on its way.
    On,
    /// One commit alone.
    One,
    /// Records of a snapshot.
    Records,
    /// The log behind the records of a snapshot.
    Tail,
}

impl Kind {
    /// Whether it is of a snapshot: then it rests on no commit that waits, and answers the install, however late.
    fn is_of_snapshot(self) -> bool {
        matches!(self, Self::Records | Self::Tail)
    }
}

/// The pull that a page answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// A pull whose page is on its way.
    Asked,
    /// The same, and it goes on from another page. If it brings nothing, perhaps that page was lost.
    AskedOn,
    /// The same, and it asked for one commit alone.
    AskedForOne,
    /// A pull of records of a snapshot.
    Records,
    /// A pull of the log behind the records of a snapshot.
    Tail,
    /// The pull that its peer did not answer in time.
    Late,
    /// A pull whose page rests on commits that are not here any more. Its page says nothing about the peer.
    Void,
    /// A pull of an earlier session, or one that was given up. The commits of its page are as good as any, but say
    /// nothing about the peer.
    Nothing,
}

/// The times of an answer, which tell about the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timing {
    /// How long the first sign of an answer took.
    pub(super) round_trip_ms: Option<u64>,
    /// The bytes of the page, and how long they took.
    pub(super) transfer: Option<(u64, u64)>,
}

impl Asked {
    /// How long the first sign of an answer took, which comes now. It says something only if nothing was asked for
    /// before it: otherwise it had to wait for other pages.
    fn round_trip_ms(&self, now: Mono) -> Option<u64> {
        (self.kind != Kind::On).then(|| now.since(self.at))
    }

    /// Until when the page keeps other peers from being asked, if not until it counts as lost.
    fn patience(&self) -> Option<Mono> {
        self.coming.map_or(self.patient_until, |(at, _)| Some(after(at, PATIENCE_MS)))
    }

    fn answers(&self) -> Answers {
        match self.kind {
            Kind::Records => Answers::Records,
            Kind::Tail => Answers::Tail,
            _ if self.void => Answers::Void,
            Kind::Page => Answers::Asked,
            Kind::On => Answers::AskedOn,
            Kind::One => Answers::AskedForOne,
        }
    }

    fn timing(&self, now: Mono) -> Timing {
        match self.coming {
            Some((at, bytes)) => Timing { round_trip_ms: None, transfer: Some((bytes, now.since(at))) },
            None => Timing { round_trip_ms: self.round_trip_ms(now), transfer: None },
        }
    }
}

impl Puller {
    /// A puller whose pulls are numbered from a random number on: a late page of an earlier session answers none of
    /// them.
    pub(super) fn new(rng: &mut fastrand::Rng) -> Self {
        Self {
            on_the_way: VecDeque::new(),
            deadline: Mono(0),
            late: BTreeMap::new(),
            last_id: rng.u32(..),
            goes_on: None,
            useless: None,
            silent: None,
            store_backoff: Backoff::default(),
        }
    }

    /// Whether no page is on its way, and the store has not just failed.
    pub(super) fn is_free(&self) -> bool {
        self.on_the_way.is_empty() && self.store_backoff.is_over()
    }

    /// The peer that may be asked for another page behind those that are on their way, with their number and the bytes
    /// that they may have.
    pub(super) fn goes_on(&self) -> Option<(ReplicaId, usize, usize)> {
        let last = self.on_the_way.back().filter(|_| self.store_backoff.is_over())?;
        let whole =
            self.on_the_way.iter().all(|asked| !asked.void && matches!(asked.kind, Kind::Page | Kind::On));
        let bytes = self.on_the_way.iter().map(|asked| asked.budget).sum();
        (whole && self.goes_on == Some(last.peer)).then_some((last.peer, self.on_the_way.len(), bytes))
    }

    /// Chooses the peer to ask. A peer that was of no use is left out if there is another, since a peer may not have
    /// what it says it has; one that is sending a page is left out in any case.
    pub(super) fn choose(&self, mut able: Vec<ReplicaId>, rng: &mut fastrand::Rng) -> Option<ReplicaId> {
        able.retain(|replica| self.late.get(replica).is_none_or(|late| late.sending.is_none()));
        if able.len() > 1 {
            able.retain(|replica| Some(*replica) != self.useless);
        }
        rng.choice(able)
    }

    /// Asks a peer for a page that has so many bytes at most, and whose first sign may take so long; returns the id of
    /// the pull, and that of the pull before it. If the peer was `silent` the last time, others are asked at once.
    pub(super) fn asks(
        &mut self,
        peer: ReplicaId,
        kind: Kind,
        budget: usize,
        now: Mono,
        wait_ms: u64,
        silent: bool,
    ) -> (u32, u32) {
        let behind = self.last_id;
        debug_assert_eq!(self.on_the_way.is_empty(), kind != Kind::On, "one run at a time: {self:?}");
        self.last_id = self.last_id.wrapping_add(1);
        if self.on_the_way.is_empty() {
            self.deadline = after(now, wait_ms);
        }
        let (id, coming) = (self.last_id, None);
        let patience_ms = if silent { 1 } else { wait_ms / SIGN_SHARE };
        let patient_until = (kind != Kind::On).then(|| after(now, patience_ms));
        self.on_the_way.push_back(Asked {
            peer,
            id,
            at: now,
            budget,
            kind,
            patient_until,
            coming,
            void: false,
        });
        (id, behind)
    }

    /// Takes the word that a page is coming; returns how long that took, if it was asked for.
    pub(super) fn coming(&mut self, from: ReplicaId, id: u32, bytes: u64, now: Mono) -> Option<Timing> {
        if let Some(late) = self.late.get(&from).filter(|late| late.asked.id == id).copied() {
            // Go on to wait for the page. If another peer was asked meanwhile, this one is left alone until it has come.
            if self.on_the_way.is_empty() && late.asked.coming.is_none() {
                self.late.remove(&from);
                self.on_the_way.push_back(late.asked);
            }
        }
        let waiting = self.on_the_way.iter_mut().find(|asked| asked.peer == from && asked.id == id);
        let late = self.late.get_mut(&from).map(|late| &mut late.asked).filter(|asked| asked.id == id);
        let asked = waiting.or(late).filter(|asked| asked.coming.is_none())?;
        asked.coming = Some((now, bytes));
        Some(Timing { round_trip_ms: asked.round_trip_ms(now), transfer: None })
    }

    /// Waits for the next page of a peer for so long from now on.
    pub(super) fn waits(&mut self, peer: ReplicaId, now: Mono, ms: u64) {
        let until = after(now, ms.max(1));
        if self.on_the_way.front().is_some_and(|asked| asked.peer == peer) {
            self.deadline = self.deadline.max(until);
        } else if let Some(late) = self.late.get_mut(&peer).filter(|late| late.asked.coming.is_some()) {
            late.sending = Some(until);
        }
    }

    /// Waits no longer than so long after the pull, since the link was found to be faster than was assumed.
    pub(super) fn waits_at_most(&mut self, peer: ReplicaId, now: Mono, ms: u64) {
        let first = self.on_the_way.front_mut().filter(|asked| asked.peer == peer && asked.coming.is_none());
        if let Some(asked) = first {
            let at_most = |until: Mono, ms| until.min(after(asked.at, ms)).max(after(now, 1));
            self.deadline = at_most(self.deadline, ms);
            asked.patient_until = asked.patient_until.map(|until| at_most(until, ms / SIGN_SHARE));
        }
    }

    /// Takes note of a page that has arrived; returns the pull that it answers, and what its times tell. Pages that were
    /// asked for before it are lost, or come later.
    pub(super) fn arrived(&mut self, from: ReplicaId, id: u32, now: Mono) -> (Answers, Timing) {
        if let Some(late) = self.late.get(&from).filter(|late| late.asked.id == id).copied() {
            self.late.remove(&from);
            let answers = match late.asked {
                asked if asked.kind.is_of_snapshot() => asked.answers(),
                asked if asked.void => Answers::Void,
                _ => Answers::Late,
            };
            return (answers, late.asked.timing(now));
        }
        let Some(at) = self.on_the_way.iter().position(|asked| asked.peer == from && asked.id == id) else {
            return (Answers::Nothing, Timing::default());
        };
        let asked = self.on_the_way.drain(..=at).next_back();
        asked.map_or((Answers::Nothing, Timing::default()), |asked| (asked.answers(), asked.timing(now)))
    }

    /// The bytes of the next page on its way from a peer, at most.
    pub(super) fn next_budget(&self, peer: ReplicaId) -> Option<usize> {
        self.on_the_way.front().filter(|asked| asked.peer == peer).map(|asked| asked.budget)
    }

    /// Waits anew for the next page on its way, since the one before it has come.
    pub(super) fn waits_anew(&mut self, now: Mono, ms: u64) {
        self.deadline = after(now, ms.max(1));
    }

    /// Takes note of whether another page can go on from the last one of `from`: that was taken whole, and said that
    /// there is more.
    pub(super) fn run(&mut self, from: ReplicaId, goes_on: bool) {
        self.goes_on = goes_on.then_some(from);
    }

    /// Gives up the pages on their way of a peer: they go on from one that has nothing behind it, or was lost.
    pub(super) fn ends_run(&mut self, from: ReplicaId) {
        self.on_the_way.retain(|asked| asked.peer != from);
    }

    /// Takes note of whether the page of `from` was of use.
    pub(super) fn rated(&mut self, from: ReplicaId, useless: bool) {
        self.useless = useless.then_some(from);
    }

    /// Whether a page of a peer is on its way.
    pub(super) fn waits_for(&self, peer: ReplicaId) -> bool {
        self.late.contains_key(&peer) || self.on_the_way.iter().any(|asked| asked.peer == peer)
    }

    /// Gives up the pages of a peer that went down.
    pub(super) fn went_down(&mut self, peer: ReplicaId) {
        self.ends_run(peer);
        self.late.remove(&peer);
    }

    /// Takes note that the inbox was let go: the pages on their way rest on its commits.
    pub(super) fn let_go(&mut self) {
        self.on_the_way.iter_mut().for_each(|asked| asked.void = true);
        self.late.values_mut().for_each(|late| late.asked.void = true);
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
        let until = |asked: &Asked| asked.patience().map_or(self.deadline, |at| at.min(self.deadline));
        let page = self.on_the_way.front().map(until);
        let sending = self.late.values().filter_map(|late| late.sending);
        sending.chain(page).chain(self.store_backoff.until()).min()
    }

    fn expire(&mut self, now: Mono) {
        self.store_backoff.expire(now);
        for (peer, late) in &mut self.late {
            if late.sending.take_if(|until| *until <= now).is_some() {
                (self.useless, self.silent) = (Some(*peer), Some(*peer));
            }
        }
        let Some(asked) = self.on_the_way.front().copied() else { return };
        if self.deadline <= now {
            self.on_the_way.clear();
            self.late.insert(asked.peer, Late { asked, sending: None });
            (self.useless, self.silent) = (Some(asked.peer), Some(asked.peer));
        } else if asked.patience().is_some_and(|until| until <= now) {
            // Its peer may still send. Nobody is to blame, but all others have waited long enough.
            self.on_the_way.clear();
            self.late.insert(asked.peer, Late { asked, sending: Some(self.deadline) });
        }
    }

    fn check(&self) {
        let of_one = |peer| self.on_the_way.iter().all(|asked| asked.peer == peer);
        assert!(self.on_the_way.front().is_none_or(|first| of_one(first.peer)), "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const A: ReplicaId = ReplicaId(Uuid::from_u128(0xa));
    const B: ReplicaId = ReplicaId(Uuid::from_u128(0xb));

    fn new() -> Puller {
        Puller::new(&mut fastrand::Rng::with_seed(1))
    }

    fn asks(puller: &mut Puller, peer: ReplicaId, kind: Kind, at: u64) -> u32 {
        puller.asks(peer, kind, 1_000, Mono(at), 10_000, false).0
    }

    fn answers(puller: &mut Puller, peer: ReplicaId, id: u32, at: u64) -> Answers {
        puller.arrived(peer, id, Mono(at)).0
    }

    #[test]
    fn one_page_is_on_its_way_at_a_time() {
        let mut puller = new();
        assert!(puller.is_free());
        let id = asks(&mut puller, A, Kind::Page, 0);
        assert!(!puller.is_free() && puller.goes_on().is_none());
        assert_eq!(answers(&mut puller, B, id, 1), Answers::Nothing, "of another peer");
        assert_eq!(answers(&mut puller, A, id.wrapping_add(1), 1), Answers::Nothing, "of another pull");
        assert!(!puller.is_free(), "it is still waited for");
        assert_eq!(answers(&mut puller, A, id, 1), Answers::Asked);
        assert!(puller.is_free());
    }

    #[test]
    fn pulls_are_numbered_from_a_random_number_on() {
        let first = |seed| asks(&mut Puller::new(&mut fastrand::Rng::with_seed(seed)), A, Kind::Page, 0);
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn whoever_is_silent_is_named_once_and_not_asked_again_if_there_is_another() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut puller = new();
        asks(&mut puller, A, Kind::Page, 0);
        puller.expire(Mono(9_999));
        assert_eq!(puller.poll_silent(), None);
        puller.expire(puller.next_timeout().unwrap());
        assert_eq!((puller.poll_silent(), puller.poll_silent()), (Some(A), None));
        for _ in 0..20 {
            assert_eq!(puller.choose(vec![A, B], &mut rng), Some(B));
        }
        assert_eq!(puller.choose(vec![A], &mut rng), Some(A));
        assert_eq!(puller.choose(Vec::new(), &mut rng), None);
    }

    #[test]
    fn a_late_page_is_an_answer_and_tells_how_long_it_took() {
        let mut puller = new();
        let id = asks(&mut puller, A, Kind::Page, 0);
        puller.expire(Mono(10_000));
        let late = Timing { round_trip_ms: Some(12_000), transfer: None };
        assert_eq!(puller.arrived(A, id, Mono(12_000)), (Answers::Late, late));
        assert_eq!(answers(&mut puller, A, id, 12_001), Answers::Nothing, "once");
    }

    #[test]
    fn a_peer_that_is_sending_is_not_asked_a_second_time() {
        let mut rng = fastrand::Rng::with_seed(1);
        for other in [false, true] {
            let mut puller = new();
            let id = asks(&mut puller, A, Kind::Page, 0);
            puller.expire(Mono(10_000));
            if other {
                asks(&mut puller, B, Kind::Page, 10_000);
            }
            let timing = puller.coming(A, id, 500, Mono(11_000)).expect("it was asked for");
            assert_eq!(timing.round_trip_ms, Some(11_000));
            puller.waits(A, Mono(11_000), 5_000);
            assert!(puller.choose(vec![A], &mut rng).is_none() || !puller.is_free());
            let answers = puller.arrived(A, id, Mono(12_000));
            let expected = if other { Answers::Late } else { Answers::Asked };
            assert_eq!(answers, (expected, Timing { round_trip_ms: None, transfer: Some((500, 1_000)) }));
            assert_eq!(puller.choose(vec![A], &mut rng), Some(A));
        }
        // A page that never comes keeps nobody waiting for ever.
        let mut puller = new();
        let id = asks(&mut puller, A, Kind::Page, 0);
        puller.expire(Mono(10_000));
        asks(&mut puller, B, Kind::Page, 10_000);
        puller.coming(A, id, 500, Mono(11_000));
        puller.waits(A, Mono(11_000), 5_000);
        puller.expire(Mono(16_000));
        assert_eq!(puller.choose(vec![A], &mut rng), Some(A));
    }

    #[test]
    fn the_word_that_a_page_is_coming_lets_it_take_its_time() {
        let mut puller = new();
        let id = asks(&mut puller, A, Kind::Page, 0);
        assert!(puller.coming(B, id, 1, Mono(1)).is_none() && puller.coming(A, id + 1, 1, Mono(1)).is_none());
        assert!(puller.coming(A, id, 1_000_000, Mono(100)).is_some());
        puller.waits(A, Mono(100), 300_000);
        puller.expire(Mono(100 + PATIENCE_MS - 1));
        assert!(!puller.is_free() && puller.coming(A, id, 1, Mono(10_000)).is_none(), "it is said once");
        let mut rng = fastrand::Rng::with_seed(1);
        for now in [100 + PATIENCE_MS, 300_099] {
            puller.expire(Mono(now));
            assert!(puller.is_free() && puller.poll_silent().is_none());
            assert_eq!(puller.choose(vec![A, B], &mut rng), Some(B), "others are asked meanwhile");
            assert_eq!(puller.next_timeout(), Some(Mono(300_100)));
        }
        let (answers, timing) = puller.arrived(A, id, Mono(200_100));
        assert_eq!((answers, timing.transfer), (Answers::Late, Some((1_000_000, 200_000))));
        assert_eq!(puller.choose(vec![A], &mut rng), Some(A));
    }

    #[test]
    fn a_page_that_was_said_to_come_and_did_not_is_blamed_on_its_peer() {
        let mut puller = new();
        let id = asks(&mut puller, A, Kind::Page, 0);
        puller.coming(A, id, 1_000_000, Mono(100));
        puller.waits(A, Mono(100), 300_000);
        puller.expire(Mono(100 + PATIENCE_MS));
        puller.expire(Mono(300_100));
        assert_eq!((puller.poll_silent(), puller.useless()), (Some(A), Some(A)));
        assert!(puller.coming(A, id, 1, Mono(300_101)).is_none() && puller.is_free(), "it was said before");
    }

    #[test]
    fn a_link_that_is_found_to_be_fast_is_given_less_time() {
        let mut puller = new();
        asks(&mut puller, A, Kind::Page, 0);
        puller.waits_at_most(B, Mono(5), 10);
        assert_eq!(
            (puller.next_timeout(), puller.deadline),
            (Some(Mono(2_500)), Mono(10_000)),
            "another link"
        );
        puller.waits_at_most(A, Mono(5), 3_000);
        puller.waits_at_most(A, Mono(5), 20_000);
        assert_eq!((puller.next_timeout(), puller.deadline), (Some(Mono(750)), Mono(3_000)));
        puller.waits_at_most(A, Mono(500), 10);
        assert_eq!(puller.next_timeout(), Some(Mono(501)), "a moment that has come is no moment to wait for");
    }

    /// A process that has died may count as up for long. Others must not wait for it, and it is not asked again before it
    /// counts as silent.
    #[test]
    fn others_are_asked_while_there_is_no_sign_of_a_peer() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (silent, patience_ms) in [(false, 2_500), (true, 1)] {
            let mut puller = new();
            let (id, _) = puller.asks(A, Kind::Page, 1_000, Mono(0), 10_000, silent);
            puller.expire(Mono(patience_ms - 1));
            assert!(!puller.is_free());
            puller.expire(Mono(patience_ms));
            assert!(puller.is_free() && puller.poll_silent().is_none(), "nobody is to blame");
            assert_eq!(puller.choose(vec![A], &mut rng), None, "it may still answer");
            assert_eq!(puller.choose(vec![A, B], &mut rng), Some(B));
            assert_eq!(puller.next_timeout(), Some(Mono(10_000)));
            let mut late = new();
            asks(&mut late, A, Kind::Page, 0);
            late.expire(Mono(2_500));
            late.expire(Mono(10_000));
            assert_eq!(late.poll_silent(), Some(A));
            assert_eq!(answers(&mut puller, A, id, 9_000), Answers::Late);
            assert_eq!(puller.choose(vec![A], &mut rng), Some(A));
        }
    }

    #[test]
    fn pages_behind_one_on_its_way_are_asked_for_while_it_goes_on() {
        let mut puller = new();
        let first = asks(&mut puller, A, Kind::Page, 0);
        assert_eq!(puller.goes_on(), None, "nobody said that there is more");
        puller.run(A, true);
        assert_eq!(puller.goes_on(), Some((A, 1, 1_000)));
        let (second, behind) = puller.asks(A, Kind::On, 500, Mono(1), 10_000, false);
        assert_eq!((behind, puller.goes_on()), (first, Some((A, 2, 1_500))));
        puller.check();
        assert_eq!(answers(&mut puller, A, first, 5), Answers::Asked);
        assert_eq!(puller.next_budget(A), Some(500));
        assert_eq!(puller.arrived(A, second, Mono(5)), (Answers::AskedOn, Timing::default()));
        assert!(puller.is_free());
    }

    /// A page behind another waits for that one, which may take long: its time says nothing about the peer.
    #[test]
    fn a_page_behind_one_that_took_its_time_is_waited_for() {
        let mut puller = new();
        puller.run(A, true);
        let [first, second] = [Kind::Page, Kind::On].map(|kind| asks(&mut puller, A, kind, 0));
        puller.coming(A, first, 500_000, Mono(1_000)).expect("it was asked for");
        puller.waits(A, Mono(1_000), 60_000);
        puller.expire(Mono(20_000));
        assert_eq!(answers(&mut puller, A, first, 20_000), Answers::Asked);
        puller.waits_anew(Mono(20_000), 10_000);
        assert_eq!(puller.next_timeout(), Some(Mono(30_000)));
        puller.expire(Mono(29_999));
        assert!(!puller.is_free());
        assert_eq!(answers(&mut puller, A, second, 29_999), Answers::AskedOn);
    }

    #[test]
    fn a_run_ends_with_a_page_that_is_lost_or_has_nothing_behind_it() {
        let run = || {
            let mut puller = new();
            puller.run(A, true);
            let ids = [Kind::Page, Kind::On, Kind::On].map(|kind| asks(&mut puller, A, kind, 0));
            (puller, ids)
        };
        let (mut puller, [_, second, third]) = run();
        assert_eq!(answers(&mut puller, A, second, 1), Answers::AskedOn, "the first was lost");
        puller.ends_run(A);
        assert!(puller.is_free());
        assert_eq!(answers(&mut puller, A, third, 1), Answers::Nothing);
        let (mut puller, _) = run();
        puller.let_go();
        assert_eq!(puller.goes_on(), None, "their ground was lost");
        let (mut puller, _) = run();
        puller.run(A, false);
        assert_eq!(puller.goes_on(), None);
        puller.went_down(A);
        assert!(puller.is_free());
        let (mut puller, _) = run();
        puller.expire(Mono(10_000));
        assert!(puller.is_free() && puller.poll_silent() == Some(A));
    }

    #[test]
    fn a_page_whose_ground_was_lost_is_waited_for_and_blamed_on_nobody() {
        let mut puller = new();
        let id = asks(&mut puller, A, Kind::Page, 0);
        puller.let_go();
        assert!(!puller.is_free());
        assert_eq!(answers(&mut puller, A, id, 1), Answers::Void);
        assert!(puller.is_free());
    }

    #[test]
    fn the_page_of_one_commit_answers_the_pull_that_asked_for_one() {
        let mut puller = new();
        for (kind, expected) in [(Kind::One, Answers::AskedForOne), (Kind::Page, Answers::Asked)] {
            let id = asks(&mut puller, A, kind, 0);
            puller.run(A, true);
            assert_eq!(puller.goes_on().is_some(), kind == Kind::Page);
            assert_eq!(answers(&mut puller, A, id, 1), expected);
        }
        let id = asks(&mut puller, A, Kind::One, 0);
        puller.let_go();
        assert_eq!(answers(&mut puller, A, id, 1), Answers::Void, "its ground was lost");
    }
}
