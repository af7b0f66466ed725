//! Doubts: a peer's word on a stream contradicts what is here, and nobody has shown yet who is right.
//!
//! A second history stops a stream for good, so the word of a peer is not enough: its log may be damaged, or the one here.
//! The peer shows its row at the place where the two histories part, which it has checked from there to its head. The same
//! is checked here. While a doubt is open, nothing is taken of the stream from that peer, and nothing is done that could
//! not be undone; if it is about the own stream, the app's commits wait a short while, since a store that was restored
//! must not commit. A peer that cannot show what it says is set aside: its word on that stream counts no more until it is
//! opened again.
//!
//! Owns: the doubts by peer and stream, and the search for the place of one of them. Holds always: one search at a time;
//! it comes to an end, since every answer narrows it and a silent peer has a deadline.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::clock::Mono;
use crate::ids::ReplicaId;
use crate::stored::{Digest, LogEntry};

use super::Machine;
use super::backoff::after;
use super::looks::LookedRow;
use super::wire::{STREAMS_MAX, Show};

/// How long a peer may take to show a row. Links of long delay are the reason for so much.
const SHOW_TIMEOUT_MS: u64 = 30_000;
/// How long the app's commits wait at most for the end of a doubt about the own stream.
const SUSPENSE_MS: u64 = 10_000;
/// How soon the words of the same peer may let them wait again. A peer that is heard, and does not hear, can be asked
/// for nothing, and doubts begin anew with each of its hellos.
const SUSPENSE_AGAIN_MS: u64 = 600_000;

/// A doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Where the peer's history is known to differ, or to go on behind the one here.
    Open(u64),
    /// The peer could not show what it says.
    SetAside,
}

/// A row of a peer, as it showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShownRow {
    pub(super) row: LookedRow,
    /// How far the peer has checked the chain behind the row: to its head; 0 if it was not asked to.
    pub(super) head: u64,
}

/// The answer that the search waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The row of the peer.
    Asking,
    /// The row here, to compare it with the one that the peer showed.
    Comparing(ShownRow),
    /// The check of the chain here from the place on.
    Proving(ShownRow),
    /// The row of another member.
    Witness { witness: ReplicaId, shown: ShownRow, ours: Digest },
}

/// The search for the place at which two histories part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Search {
    pub(super) peer: ReplicaId,
    pub(super) stream: ReplicaId,
    /// The histories are the same up to this place.
    lo: u64,
    /// The histories differ at this place, or only the peer has one.
    hi: u64,
    /// How far the next place stands before `hi`, until one was found at which they are the same.
    step: Option<u64>,
    /// The place that is looked at.
    pub(super) place: u64,
    /// Whether the peer is asked to check its chain from there on.
    pub(super) checked: bool,
    pub(super) stage: Stage,
    deadline: Mono,
}

/// The result of a comparison of the rows at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// The next place is to be looked at.
    Next,
    /// The histories part at this place.
    Part,
    /// The answers contradict each other.
    Nonsense,
}

impl Search {
    fn new(peer: ReplicaId, stream: ReplicaId, floor: u64, hi: u64, now: Mono) -> Self {
        let deadline = after(now, SHOW_TIMEOUT_MS);
        // Mostly the histories part at their end, so the first place is checked at once.
        let (step, checked, stage) = (Some(1), true, Stage::Asking);
        Self { peer, stream, lo: floor, hi, step, place: hi, checked, stage, deadline }
    }

    /// Compares what the peer showed with the digests here before the place and at it, if it is here.
    pub(super) fn compare(&mut self, theirs: &LookedRow, before: Digest, at: Option<Digest>) -> Compared {
        if theirs.previous != before {
            self.hi = self.place - 1;
        } else if at == Some(theirs.digest) {
            (self.lo, self.step) = (self.place, None);
        } else {
            (self.lo, self.hi) = (self.place - 1, self.place);
            return Compared::Part;
        }
        if self.lo >= self.hi {
            return Compared::Nonsense;
        }
        self.place = match &mut self.step {
            Some(step) => {
                let place = self.hi.saturating_sub(*step).max(self.lo + 1);
                *step = step.saturating_mul(2);
                place
            }
            None => self.lo + (self.hi - self.lo).div_ceil(2),
        };
        self.checked = false;
        Compared::Next
    }

    /// Goes on to the next stage, for which there is time again.
    pub(super) fn go_on(&mut self, stage: Stage, now: Mono) {
        self.stage = stage;
        self.deadline = after(now, SHOW_TIMEOUT_MS);
    }
}

/// The doubts.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    doubts: BTreeMap<(ReplicaId, ReplicaId), Doubt>,
    search: Option<Search>,
    /// The doubts that nothing can decide, until the app was told.
    unprovable: Vec<(ReplicaId, ReplicaId, u64)>,
    /// The own stream while the app's commits wait, and until when they do.
    suspense: Option<(ReplicaId, Mono)>,
    /// When each peer last let them wait.
    waited: BTreeMap<ReplicaId, Mono>,
    /// The rows of the own stream that peers want to see, which wait for the end of the doubts about it.
    shows: BTreeMap<ReplicaId, Show>,
    /// The doubt whose search a silent peer has ended.
    silent: Option<(ReplicaId, ReplicaId)>,
}

impl Doubts {
    /// Takes note that a peer has another history of a stream at `seq`, or goes on there behind the own one; returns
    /// whether that is news.
    pub(super) fn doubt(
        &mut self,
        peer: ReplicaId,
        stream: ReplicaId,
        seq: u64,
        own: bool,
        now: Mono,
    ) -> bool {
        let key = (peer, stream);
        if self.doubts.contains_key(&key) || self.doubts.len() >= STREAMS_MAX {
            return false;
        }
        self.doubts.insert(key, Doubt::Open(seq));
        if own {
            self.waited.retain(|_, at| now.since(*at) < SUSPENSE_AGAIN_MS);
            if let Entry::Vacant(waits) = self.waited.entry(peer) {
                waits.insert(now);
                self.suspense = Some((stream, after(now, SUSPENSE_MS)));
            }
        }
        true
    }

    /// Whether nothing is taken of a stream from a peer.
    pub(super) fn any(&self, peer: ReplicaId, stream: ReplicaId) -> bool {
        self.doubts.contains_key(&(peer, stream))
    }

    /// The streams of which nothing is taken from a peer.
    pub(super) fn of(&self, peer: ReplicaId) -> impl Iterator<Item = ReplicaId> {
        self.doubts.range((peer, ReplicaId::MIN)..=(peer, ReplicaId::MAX)).map(|((_, stream), _)| *stream)
    }

    /// Whether a doubt about a stream is open.
    pub(super) fn is_open(&self, stream: ReplicaId) -> bool {
        self.doubts.iter().any(|((_, other), doubt)| *other == stream && *doubt != Doubt::SetAside)
    }

    /// Takes a row of the own stream that a peer wants to see. A second history must not be shown: others would stop the
    /// stream for good, of which another store may have the first history.
    pub(super) fn defer(&mut self, peer: ReplicaId, show: Show) {
        self.shows.insert(peer, show);
    }

    /// The rows of the own stream that peers want to see, once no doubt about it is open.
    pub(super) fn poll_shows(&mut self, me: ReplicaId) -> BTreeMap<ReplicaId, Show> {
        if self.shows.is_empty() || self.is_open(me) {
            BTreeMap::new()
        } else {
            std::mem::take(&mut self.shows)
        }
    }

    /// The peers that were set aside, each with the stream.
    pub(super) fn set_aside_peers(&self) -> impl Iterator<Item = (ReplicaId, ReplicaId)> {
        self.doubts.iter().filter(|(_, doubt)| **doubt == Doubt::SetAside).map(|(key, _)| *key)
    }

    /// Whether the app's commits wait, since the own stream may have two histories.
    pub(super) fn keeps_in_suspense(&self) -> bool {
        self.suspense.is_some()
    }

    pub(super) fn search(&self) -> Option<&Search> {
        self.search.as_ref()
    }

    pub(super) fn search_mut(&mut self) -> Option<&mut Search> {
        self.search.as_mut()
    }

    /// Begins the next search, if none is under way: of the own stream `me` first. `ready` gives the floor of a stream and
    /// the place to begin with, once the place is in the log here; a doubt without them is dropped.
    pub(super) fn begin(
        &mut self,
        me: ReplicaId,
        now: Mono,
        ready: impl Fn(ReplicaId, ReplicaId, u64) -> Ready,
    ) -> Option<&Search> {
        if self.search.is_some() {
            return None;
        }
        let open = |(key, doubt): (&(ReplicaId, ReplicaId), &Doubt)| match doubt {
            Doubt::Open(seq) => Some((*key, *seq)),
            Doubt::SetAside => None,
        };
        let mut all: Vec<_> = self.doubts.iter().filter_map(open).collect();
        all.sort_by_key(|((_, stream), _)| *stream != me);
        for ((peer, stream), seq) in all {
            match ready(peer, stream, seq) {
                Ready::At { floor, hi } => {
                    return Some(self.search.insert(Search::new(peer, stream, floor, hi, now)));
                }
                Ready::Later => {}
                Ready::Never => self.end(peer, stream),
                Ready::Unprovable => {
                    self.set_aside(peer, stream);
                    self.unprovable.push((peer, stream, seq));
                }
            }
        }
        None
    }

    /// The doubts that were set aside since the log here was pruned past their places.
    pub(super) fn take_unprovable(&mut self) -> Vec<(ReplicaId, ReplicaId, u64)> {
        std::mem::take(&mut self.unprovable)
    }

    /// Ends a doubt: the peer's word is heard again.
    pub(super) fn end(&mut self, peer: ReplicaId, stream: ReplicaId) {
        self.doubts.remove(&(peer, stream));
        self.search.take_if(|search| (search.peer, search.stream) == (peer, stream));
        self.end_suspense();
    }

    /// Ends all doubts about a stream, whose fate is known.
    pub(super) fn end_all(&mut self, stream: ReplicaId) {
        self.doubts.retain(|(_, other), _| *other != stream);
        self.search.take_if(|search| search.stream == stream);
        self.end_suspense();
    }

    /// Sets a peer aside on a stream.
    pub(super) fn set_aside(&mut self, peer: ReplicaId, stream: ReplicaId) {
        self.end(peer, stream);
        self.doubts.insert((peer, stream), Doubt::SetAside);
    }

    /// Hears those again that were set aside on a stream, since the log here was the damaged one; returns them.
    pub(super) fn hear_again(&mut self, stream: ReplicaId) -> Vec<ReplicaId> {
        let again: Vec<_> =
            self.set_aside_peers().filter(|(_, other)| *other == stream).map(|(peer, _)| peer).collect();
        for peer in &again {
            self.doubts.remove(&(*peer, stream));
        }
        again
    }

    /// Forgets the doubts about the words of a peer: it went down, or begins anew. With `all`, also those on which it was
    /// set aside.
    pub(super) fn forget(&mut self, peer: ReplicaId, all: bool) {
        self.doubts.retain(|(other, _), doubt| *other != peer || !all && *doubt == Doubt::SetAside);
        self.shows.remove(&peer);
        self.search.take_if(|search| search.peer == peer);
        if let Some(Stage::Witness { witness, .. }) = self.search.as_ref().map(|search| &search.stage)
            && *witness == peer
        {
            // The next one is asked, or none.
            if let Some(search) = &mut self.search {
                search.deadline = Mono(0);
            }
        }
        self.end_suspense();
    }

    /// Ends the suspense if no doubt about the own stream is open.
    fn end_suspense(&mut self) {
        if self.suspense.is_some_and(|(stream, _)| !self.is_open(stream)) {
            self.suspense = None;
        }
    }

    /// The doubt whose search a silent peer has ended. Each one is named once.
    pub(super) fn poll_silent(&mut self) -> Option<(ReplicaId, ReplicaId)> {
        self.silent.take()
    }

    /// Whether the witness of the search did not answer in time.
    pub(super) fn is_witness_late(&self, now: Mono) -> bool {
        self.search
            .as_ref()
            .is_some_and(|search| matches!(search.stage, Stage::Witness { .. }) && search.deadline <= now)
    }
}

/// Whether the search for a doubt can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    At {
        floor: u64,
        hi: u64,
    },
    Later,
    Never,
    /// The log here was pruned past the place, so that nothing can be shown of it.
    Unprovable,
}

impl Machine for Doubts {
    fn next_timeout(&self) -> Option<Mono> {
        let search = self.search.as_ref().map(|search| search.deadline);
        search.into_iter().chain(self.suspense.map(|(_, until)| until)).min()
    }

    fn expire(&mut self, now: Mono) {
        self.suspense.take_if(|(_, until)| *until <= now);
        let waits = |search: &Search| !matches!(search.stage, Stage::Witness { .. });
        if let Some(search) = self.search.take_if(|search| waits(search) && search.deadline <= now) {
            self.silent = Some((search.peer, search.stream));
            self.end(search.peer, search.stream);
        }
    }

    fn check(&self) {
        if let Some(search) = &self.search {
            let doubt = self.doubts.get(&(search.peer, search.stream));
            assert!(matches!(doubt, Some(Doubt::Open(_))), "{search:?} is about {doubt:?}");
            assert!(search.lo < search.place && search.place <= search.hi, "{search:?}");
        }
        assert!(self.doubts.len() <= STREAMS_MAX + 1, "{} doubts", self.doubts.len());
    }
}

/// Whether `theirs` may be a damaged copy of the commit `ours`, and not a commit of another history: it has the same
/// stamp, or nothing but its stamp differs. Whoever commits another time draws another stamp.
pub(super) fn may_be_a_copy(stream: ReplicaId, ours: &[u8], theirs: &[u8]) -> bool {
    let (Ok(one), Ok(other)) = (LogEntry::parse(stream, ours), LogEntry::parse(stream, theirs)) else {
        return true;
    };
    one.stamp == other.stamp || LogEntry { stamp: other.stamp, ..one } == other
}

#[cfg(test)]
mod tests {
    use super::super::made::{Author, B, C, ME, now};
    use super::*;

    fn digest_at(history: u8, parts_at: u64, seq: u64) -> Digest {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&seq.to_be_bytes());
        digest[8] = if seq >= parts_at { history } else { 0 };
        digest
    }

    /// The place at which a search finds that the histories part, and how many rows it took.
    fn find(parts_at: u64, ours: u64, hi: u64) -> (u64, usize) {
        let mut search = Search::new(B, ME, 0, hi, Mono(0));
        for rows in 1..200 {
            let place = search.place;
            let (previous, digest) = (digest_at(1, parts_at, place - 1), digest_at(1, parts_at, place));
            let theirs = LookedRow { previous, entry: Vec::new(), digest };
            let at = (place <= ours).then(|| digest_at(2, parts_at, place));
            match search.compare(&theirs, digest_at(2, parts_at, place - 1), at) {
                Compared::Next => {}
                Compared::Part => return (place, rows),
                Compared::Nonsense => panic!("{search:?}"),
            }
        }
        panic!("it comes to an end: {search:?}")
    }

    #[test]
    fn a_search_finds_the_place_wherever_it_is() {
        for ours in 1..60 {
            for parts_at in 1..=ours + 1 {
                for hi in parts_at..=ours + 1 {
                    assert_eq!(find(parts_at, ours, hi).0, parts_at, "{ours} here, known at {hi}");
                }
            }
        }
        assert_eq!(find(1_000_000, 999_999, 1_000_000), (1_000_000, 1), "at the end it is found at once");
        let (_, rows) = find(1, 1_000_000, 1_000_000);
        assert!(rows < 50, "{rows} rows");
        let (_, rows) = find(999_000, 1_000_000, 1_000_000);
        assert!(rows < 25, "{rows} rows");
    }

    #[test]
    fn a_peer_that_contradicts_itself_ends_the_search() {
        let mut search = Search::new(B, ME, 0, 1, Mono(0));
        let theirs = LookedRow { previous: [7; 32], entry: Vec::new(), digest: [8; 32] };
        assert_eq!(search.compare(&theirs, [0; 32], Some([1; 32])), Compared::Nonsense);
    }

    const AT: Ready = Ready::At { floor: 0, hi: 3 };

    #[test]
    fn the_own_stream_is_searched_first_and_one_stream_at_a_time() {
        let mut doubts = Doubts::default();
        assert!(doubts.doubt(B, C, 3, false, Mono(0)) && !doubts.keeps_in_suspense());
        assert!(doubts.doubt(C, ME, 3, true, Mono(0)) && doubts.keeps_in_suspense());
        assert!(!doubts.doubt(C, ME, 4, true, Mono(0)), "no news");
        assert_eq!(doubts.begin(ME, Mono(0), |_, _, _| AT).map(|search| search.stream), Some(ME));
        assert_eq!(doubts.begin(ME, Mono(0), |_, _, _| AT), None);
        doubts.check();
        doubts.end(C, ME);
        assert!(!doubts.any(C, ME) && doubts.any(B, C));
        assert_eq!(doubts.begin(ME, Mono(0), |_, _, _| Ready::Later), None);
        assert!(doubts.any(B, C));
        assert_eq!(doubts.begin(ME, Mono(0), |_, _, _| Ready::Never), None);
        assert!(!doubts.any(B, C));
        doubts.doubt(B, C, 3, false, Mono(0));
        assert_eq!(doubts.begin(ME, Mono(0), |_, _, _| Ready::Unprovable), None);
        assert!(doubts.any(B, C), "nothing of it is asked of the peer again");
        assert_eq!((doubts.take_unprovable(), doubts.take_unprovable()), (vec![(B, C, 3)], vec![]));
    }

    #[test]
    fn a_silent_peer_ends_the_suspense_and_then_the_search() {
        let mut doubts = Doubts::default();
        doubts.doubt(B, ME, 3, true, Mono(0));
        doubts.begin(ME, Mono(0), |_, _, _| AT);
        assert_eq!(doubts.next_timeout(), Some(Mono(SUSPENSE_MS)));
        doubts.expire(Mono(SUSPENSE_MS));
        assert!(!doubts.keeps_in_suspense() && doubts.any(B, ME));
        assert_eq!(doubts.next_timeout(), Some(Mono(SHOW_TIMEOUT_MS)));
        doubts.expire(Mono(SHOW_TIMEOUT_MS));
        assert!(!doubts.any(B, ME) && doubts.search().is_none());
        assert_eq!((doubts.poll_silent(), doubts.poll_silent()), (Some((B, ME)), None));
    }

    /// A link that carries frames one way only must not keep the app waiting for ever.
    #[test]
    fn the_same_peer_lets_commits_wait_seldom() {
        let mut doubts = Doubts::default();
        for (at, waits) in
            [(0, true), (40_000, false), (SUSPENSE_AGAIN_MS - 1, false), (SUSPENSE_AGAIN_MS, true)]
        {
            doubts.doubt(B, ME, 3, true, Mono(at));
            assert_eq!(doubts.keeps_in_suspense(), waits, "at {at}");
            doubts.end(B, ME);
            assert!(!doubts.keeps_in_suspense());
        }
        doubts.doubt(B, ME, 3, true, Mono(SUSPENSE_AGAIN_MS + 1));
        doubts.doubt(C, ME, 3, true, Mono(SUSPENSE_AGAIN_MS + 1));
        assert!(doubts.keeps_in_suspense(), "another peer is another matter");
    }

    /// A doubt about another stream says nothing of the own one.
    #[test]
    fn commits_wait_for_doubts_about_the_own_stream_alone() {
        let mut doubts = Doubts::default();
        doubts.doubt(B, C, 3, false, Mono(0));
        doubts.doubt(B, ME, 3, true, Mono(0));
        doubts.end(B, ME);
        assert!(doubts.any(B, C) && !doubts.keeps_in_suspense());
    }

    /// A witness is another member: that it is late or gone says nothing about the peer.
    #[test]
    fn each_stage_of_a_search_has_its_time_and_a_witness_that_goes_is_late() {
        let mut doubts = Doubts::default();
        doubts.doubt(B, ME, 3, false, Mono(0));
        doubts.begin(ME, Mono(0), |_, _, _| AT);
        let row = LookedRow { previous: [7; 32], entry: Vec::new(), digest: [8; 32] };
        let stage = Stage::Witness { witness: C, shown: ShownRow { row, head: 3 }, ours: [0; 32] };
        if let Some(search) = doubts.search_mut() {
            search.go_on(stage, Mono(1_000));
        }
        let deadline = 1_000 + SHOW_TIMEOUT_MS;
        assert_eq!(doubts.next_timeout(), Some(Mono(deadline)));
        doubts.expire(Mono(deadline + 1));
        assert!(doubts.poll_silent().is_none() && doubts.any(B, ME) && doubts.search().is_some());
        assert!(!doubts.is_witness_late(Mono(deadline - 1)) && doubts.is_witness_late(Mono(deadline)));
        doubts.forget(C, true);
        assert!(doubts.is_witness_late(Mono(1_000)), "it is gone");
    }

    /// One doubt about the own stream that ends does not say that the other one is not so.
    #[test]
    fn the_own_stream_is_in_doubt_until_the_last_doubt_about_it_ends() {
        let mut doubts = Doubts::default();
        doubts.doubt(B, ME, 3, true, Mono(0));
        doubts.doubt(C, ME, 3, true, Mono(0));
        doubts.defer(B, Show { stream: ME, seq: 3, checked: true });
        doubts.end(C, ME);
        assert!(doubts.is_open(ME) && doubts.keeps_in_suspense() && doubts.poll_shows(ME).is_empty());
        doubts.set_aside(B, ME);
        assert!(!doubts.is_open(ME) && !doubts.keeps_in_suspense(), "its word counts no more");
        assert_eq!(doubts.poll_shows(ME).len(), 1);
    }

    #[test]
    fn a_peer_that_was_set_aside_stays_so_until_it_begins_anew() {
        let mut doubts = Doubts::default();
        doubts.doubt(B, ME, 3, true, now(0).mono);
        doubts.set_aside(B, ME);
        assert!(doubts.set_aside_peers().eq([(B, ME)]) && doubts.any(B, ME) && !doubts.keeps_in_suspense());
        assert!(!doubts.doubt(B, ME, 4, true, Mono(0)), "its word on the stream counts no more");
        doubts.forget(B, false);
        assert!(doubts.any(B, ME));
        doubts.forget(B, true);
        assert!(!doubts.any(B, ME));
    }

    #[test]
    fn a_copy_has_the_stamp_or_all_but_the_stamp() {
        let (mut b, mut other) = (Author::new(B), Author::new(B));
        let ours = b.note(1, "a");
        other.wall += 5;
        let later = other.clone().note(1, "a");
        let second = other.note(1, "b");
        assert!(may_be_a_copy(B, ours.raw(), ours.raw()) && may_be_a_copy(B, ours.raw(), later.raw()));
        assert!(!may_be_a_copy(B, ours.raw(), second.raw()));
        for at in 0..ours.raw().len() {
            let mut flipped = ours.raw().to_vec();
            flipped[at] ^= 1;
            assert!(may_be_a_copy(B, ours.raw(), &flipped), "byte {at}");
        }
    }
}
