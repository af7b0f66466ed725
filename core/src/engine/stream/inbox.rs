//! The inbox: commits that admission let through and that the store has not taken yet, in the order in which they may
//! be applied.
//!
//! A commit is taken only as the next one of its stream, on the same history, with everything that it rests on here or
//! in front of it. So the inbox can be written front to back, in as few writes as it fits. If a write fails, the
//! commits behind it rest on some that are not here: all of them are let go and pulled again.
//!
//! Owns: the commits, the members that they add, how many of them are written one by one. Holds always: `bytes` is the
//! sum of their weights, and above the cap only if a single commit is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::ReplicaId;
use crate::limits::Limits;
use crate::member::Member;
use crate::update::put_over;

use super::super::Machine;
use super::super::commit::Received;

/// Commits that wait to be applied.
#[derive(Debug, Default)]
pub(in crate::engine) struct Inbox {
    commits: VecDeque<Received>,
    bytes: usize,
    /// The weight of the last page in memory, which is more than its bytes in the frame.
    last_page: usize,
    /// The members that its commits add or correct, each as the last of them leaves it.
    members: BTreeMap<ReplicaId, Member>,
    /// How many more commits are written one by one, since a projection or the store refused one of them.
    one_by_one: usize,
    /// The commits that are written alone, since the store refused them before.
    alone: BTreeSet<(ReplicaId, u64)>,
}

/// The filling of the inbox at one moment, to tell which commits came since.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Filled {
    commits: usize,
    bytes: usize,
}

/// The most bytes of pages that are asked for ahead of what was written: enough for a round trip of 200 ms to a store that
/// writes 40 MB a second.
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// The most bytes of a received write: a larger one would be hardly faster, and occupy memory twice over.
const WRITE_BYTES_MAX: usize = 8 << 20;

impl Inbox {
    pub(in crate::engine) fn len(&self) -> usize {
        self.commits.len()
    }

    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    /// The memory that its commits occupy.
    pub(in crate::engine) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether another page may be asked for. At most two pages are in memory at once, beside the commits in the write.
    pub(in crate::engine) fn has_room_for_a_page(&self, limits: &Limits) -> bool {
        let page = self.last_page.max(limits.page_bytes_max);
        self.bytes <= page.min(limits.frame_bytes_max / 2)
    }

    /// Whether so many pages would find room, if they all came before anything is written.
    pub(in crate::engine) fn has_room_for_pages(&self, pages: usize, limits: &Limits) -> bool {
        let page = self.last_page.max(limits.page_bytes_max);
        self.bytes.saturating_add(page.saturating_mul(pages)) <= limits.frame_bytes_max.min(AHEAD_BYTES_MAX)
    }

    /// Whether there is room for one more commit. An empty inbox has room for any.
    pub(in crate::engine) fn has_room_for(&self, commit: &Received, limits: &Limits) -> bool {
        self.commits.is_empty() || self.bytes.saturating_add(commit.weight()) <= limits.frame_bytes_max
    }

    /// The record of a member that a waiting commit adds or corrects.
    pub(in crate::engine) fn member(&self, stream: ReplicaId) -> Option<&Member> {
        self.members.get(&stream)
    }

    pub(in crate::engine) fn new_members(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.members.keys().copied()
    }

    /// Takes a commit that may be applied after those that are here, with the members that it adds.
    pub(in crate::engine) fn push(&mut self, commit: Received, members: Vec<Member>) {
        for member in members {
            let before = self.members.remove(&member.replica);
            self.members.insert(member.replica, put_over(before, member));
        }
        self.bytes += commit.weight();
        self.commits.push_back(commit);
    }

    /// Takes such a commit, which shares its write with no other one.
    pub(in crate::engine) fn push_alone(&mut self, commit: Received, members: Vec<Member>) {
        self.alone.insert((commit.stream, commit.seq));
        self.push(commit, members);
    }

    pub(in crate::engine) fn filled(&self) -> Filled {
        Filled { commits: self.commits.len(), bytes: self.bytes }
    }

    /// Ends a frame, which brought the commits since `before`. They keep the whole frame in memory, so they are copied
    /// out of it unless they are most of it.
    pub(in crate::engine) fn end_of_frame(&mut self, before: Filled, frame_bytes: usize) {
        let new = self.commits.len() - before.commits;
        let taken: usize = self.commits.iter().rev().take(new).map(Received::shared_bytes).sum();
        if taken < frame_bytes / 2 {
            self.commits.iter_mut().rev().take(new).for_each(Received::detach);
        }
    }

    /// Ends a page, which brought the commits since `before`.
    pub(in crate::engine) fn end_of_page(&mut self, before: Filled) {
        self.last_page = self.bytes - before.bytes;
    }

    /// Takes the commits at the front, as many as fit into one write that weighs no more than `weight_max`, and at least
    /// one.
    pub(in crate::engine) fn take(&mut self, limits: &Limits, weight_max: usize) -> Vec<Received> {
        let (mut changes, mut bytes) = (0, 0);
        let bytes_max = weight_max.min(limits.frame_bytes_max).min(WRITE_BYTES_MAX);
        let commits_max = limits.event_commits_max.min(limits.round_commits_max);
        let is_alone = |commit: &Received| self.alone.contains(&(commit.stream, commit.seq));
        let most = match self.commits.front() {
            Some(first) if self.one_by_one > 0 || is_alone(first) => 1,
            _ if self.alone.is_empty() => commits_max,
            _ => self.commits.iter().take_while(|next| !is_alone(next)).count().min(commits_max),
        };
        let fitting = self.commits.iter().take(most).take_while(|next| {
            (changes, bytes) = (changes + next.values.len(), bytes + next.weight());
            changes <= limits.commit_changes_max && bytes <= bytes_max
        });
        let count = fitting.count().max(1).min(self.commits.len());
        self.one_by_one = self.one_by_one.saturating_sub(1);
        let taken: Vec<_> = self.commits.drain(..count).collect();
        self.bytes -= taken.iter().map(Received::weight).sum::<usize>();
        if let ([one], false) = (&taken[..], self.alone.is_empty()) {
            self.alone.remove(&(one.stream, one.seq));
        }
        taken
    }

    /// Lets go of everything that waits, since a write of the `in_write` commits before it failed. If these were
    /// several, they come one by one the next time: perhaps only one of them is the reason.
    pub(in crate::engine) fn fail(&mut self, in_write: usize) {
        let one_by_one = if in_write > 1 { in_write } else { self.one_by_one };
        *self = Self { one_by_one, ..Self::default() };
    }

    /// Takes note that the commits that were taken are applied.
    pub(in crate::engine) fn settle(&mut self) {
        if self.commits.is_empty() {
            self.members.clear();
        }
    }
}

#[cfg(test)]
impl Inbox {
    pub(in crate::engine) fn last(&self) -> Option<&Received> {
        self.commits.back()
    }
}

impl Machine for Inbox {
    fn check(&self) {
        assert_eq!(self.bytes, self.commits.iter().map(Received::weight).sum::<usize>());
        let is_here = |id: &(ReplicaId, u64)| self.commits.iter().any(|next| (next.stream, next.seq) == *id);
        assert!(self.alone.iter().all(is_here), "{:?} do not wait", self.alone);
    }
}

#[cfg(test)]
mod tests {
    use crate::limits::weight;

    use super::super::super::made::{Author, B, C, Made, complaint, member, note};
    use super::*;

    /// Commits of one stream, each of which puts a note of so many bytes.
    fn commits(bytes: &[usize]) -> Vec<Received> {
        let mut author = Author::new(B);
        bytes.iter().map(|bytes| author.note(1, &"x".repeat(*bytes)).received()).collect()
    }

    fn filled(commits: Vec<Received>) -> Inbox {
        let mut inbox = Inbox::default();
        for commit in commits {
            inbox.push(commit, Vec::new());
            inbox.check();
        }
        inbox
    }

    fn seqs(taken: &[Received]) -> Vec<u64> {
        taken.iter().map(|commit| commit.seq).collect()
    }

    #[test]
    fn its_bytes_are_the_weights_of_its_commits() {
        let all = commits(&[10, 2000, 300]);
        let weights: Vec<_> = all.iter().map(Received::weight).collect();
        assert_eq!(
            weights[1],
            weight(2000 + all[1].raw.len(), 2),
            "the entry, the value, and what is around"
        );
        let mut inbox = filled(all);
        assert_eq!((inbox.len(), inbox.bytes()), (3, weights.iter().sum()));
        inbox.take(&Limits { event_commits_max: 2, ..Limits::default() }, usize::MAX);
        inbox.check();
        assert_eq!(inbox.bytes(), weights[2]);
        inbox.fail(2);
        inbox.check();
        assert!(inbox.is_empty() && inbox.bytes() == 0 && inbox.last().is_none());
        inbox.bytes = 1;
        assert!(complaint(|| inbox.check()).is_some());
    }

    #[test]
    fn it_is_above_the_cap_only_with_a_single_commit() {
        let all = commits(&[10, 10, 5000]);
        let limits = Limits { frame_bytes_max: all[0].weight() + all[1].weight(), ..Limits::default() };
        assert!(Inbox::default().has_room_for(&all[2], &limits), "one fits always");
        let inbox = filled(all[..1].to_vec());
        assert!(inbox.has_room_for(&all[1], &limits) && !inbox.has_room_for(&all[2], &limits));
        assert!(!filled(all[..2].to_vec()).has_room_for(&all[1], &limits));
    }

    #[test]
    fn a_write_takes_from_the_front_as_many_as_fit_and_at_least_one() {
        let all = commits(&[10; 5]);
        let weight = all[0].weight();
        let limits = |limits: fn(&mut Limits)| {
            let mut all = Limits::default();
            limits(&mut all);
            all
        };
        let cases: [(&str, Limits, usize); 6] = [
            ("all", Limits::default(), 5),
            ("commits", limits(|limits| limits.event_commits_max = 3), 3),
            ("changes", limits(|limits| limits.commit_changes_max = 2), 2),
            ("bytes", Limits { frame_bytes_max: 4 * weight, ..Limits::default() }, 4),
            ("a commit with too many changes", limits(|limits| limits.commit_changes_max = 0), 1),
            ("a commit with too many bytes", limits(|limits| limits.frame_bytes_max = 1), 1),
        ];
        for (name, limits, count) in cases {
            let mut inbox = filled(all.clone());
            let taken = seqs(&inbox.take(&limits, usize::MAX));
            assert_eq!(taken, [1, 2, 3, 4, 5][..count], "{name}");
            inbox.check();
            assert_eq!(inbox.len(), 5 - count);
        }
        for (weight_max, count) in
            [(5 * weight, 5), (5 * weight - 1, 4), (2 * weight, 2), (weight - 1, 1), (0, 1)]
        {
            let taken = filled(all.clone()).take(&Limits::default(), weight_max);
            assert_eq!(taken.len(), count, "{weight_max} bytes");
        }
        assert!(Inbox::default().take(&Limits::default(), usize::MAX).is_empty());
        let large = commits(&[WRITE_BYTES_MAX / 3; 4]);
        let taken = filled(large).take(&Limits::default(), usize::MAX);
        assert_eq!(taken.len(), 2, "a write has a bound, whatever a frame may have");
    }

    #[test]
    fn commits_that_failed_together_come_one_by_one_the_next_time() {
        let (all, limits) = (commits(&[10; 6]), Limits::default());
        let mut inbox = filled(all.clone());
        inbox.fail(4);
        all.iter().for_each(|commit| inbox.push(commit.clone(), Vec::new()));
        assert_eq!(seqs(&inbox.take(&limits, usize::MAX)), [1]);
        assert_eq!(seqs(&inbox.take(&limits, usize::MAX)), [2]);
        // A single one of them failed: those that were not tried still come one by one.
        inbox.fail(1);
        all[2..].iter().for_each(|commit| inbox.push(commit.clone(), Vec::new()));
        assert_eq!(seqs(&inbox.take(&limits, usize::MAX)), [3]);
        assert_eq!(seqs(&inbox.take(&limits, usize::MAX)), [4]);
        assert_eq!(seqs(&inbox.take(&limits, usize::MAX)), [5, 6]);
    }

    #[test]
    fn a_commit_that_the_store_refused_before_shares_its_write_with_no_other() {
        let (all, limits) = (commits(&[10; 6]), Limits::default());
        let filled = |from: usize| {
            let mut inbox = Inbox::default();
            for (at, commit) in all.iter().enumerate().skip(from) {
                if at == 2 || at == 3 {
                    inbox.push_alone(commit.clone(), Vec::new());
                } else {
                    inbox.push(commit.clone(), Vec::new());
                }
                inbox.check();
            }
            inbox
        };
        let mut inbox = filled(0);
        for taken in [&[1, 2][..], &[3], &[4], &[5, 6]] {
            assert_eq!(seqs(&inbox.take(&limits, usize::MAX)), taken);
            inbox.check();
        }
        let few = Limits { event_commits_max: 1, ..Limits::default() };
        assert_eq!(seqs(&filled(0).take(&few, usize::MAX)), [1], "the other bounds hold too");
        let mut inbox = filled(2);
        inbox.fail(1);
        inbox.check();
        all.iter().for_each(|commit| inbox.push(commit.clone(), Vec::new()));
        assert_eq!(inbox.take(&limits, usize::MAX).len(), 6, "what is let go is alone no longer");
    }

    #[test]
    fn the_members_that_it_adds_are_known_until_it_is_empty() {
        let mut inbox = Inbox::default();
        let all = commits(&[10, 10]);
        inbox.push(all[0].clone(), vec![member(B), member(C)]);
        inbox.push(all[1].clone(), Vec::new());
        assert_eq!((inbox.new_members().count(), inbox.member(C)), (2, Some(&member(C))));
        inbox.take(&Limits { event_commits_max: 1, ..Limits::default() }, usize::MAX);
        inbox.settle();
        assert_eq!(inbox.new_members().count(), 2, "some of them may still wait");
        inbox.take(&Limits::default(), usize::MAX);
        inbox.settle();
        assert_eq!((inbox.new_members().count(), inbox.member(C)), (0, None));
        inbox.push(all[0].clone(), vec![member(C)]);
        inbox.fail(1);
        assert_eq!(inbox.new_members().count(), 0, "what is let go adds nobody");
    }

    /// A member that was added on a wrong device may be put right while both commits wait: its own wait behind them.
    #[test]
    fn of_a_member_that_waits_twice_the_correction_counts() {
        let all = commits(&[10, 10]);
        let corrected = member(C).corrected(member(B).device);
        for (first, second) in [(member(C), corrected.clone()), (corrected.clone(), member(C))] {
            let mut inbox = Inbox::default();
            inbox.push(all[0].clone(), vec![first]);
            inbox.push(all[1].clone(), vec![second]);
            let known = inbox.member(C).unwrap();
            assert_eq!((known.device, known.corrections), (corrected.device, 1));
            assert!(known.was_on(member(C).device), "it may have committed there");
        }
    }

    // --- frames and pages -------------------------------------------------------------------------------------------

    /// A commit whose bytes are a part of `frame_bytes` in one piece.
    fn of_frame(made: &Made, frame_bytes: usize) -> Received {
        let values = made.values.iter().flatten().flatten();
        let mut frame: Vec<u8> = made.raw().iter().chain(values).copied().collect();
        let (raw, all) = (made.raw().len(), frame.len());
        frame.resize(frame_bytes, 0);
        let frame = bytes::Bytes::from(frame);
        Received { raw: frame.slice(..raw), values: vec![Some(frame.slice(raw..all))], ..made.received() }
    }

    /// A small commit would keep the whole frame in memory, which nobody counts.
    #[test]
    fn what_is_the_smaller_part_of_its_frame_is_copied_out_of_it() {
        let made = Author::new(B).commit(&[], vec![(note(1), Some(vec![7; 1000]), None)]);
        let len = made.received().shared_bytes();
        for (frame_bytes, own) in [(len, false), (2 * len, false), (2 * len + 2, true)] {
            let mut inbox = filled(commits(&[10]));
            let before = inbox.filled();
            inbox.push(of_frame(&made, frame_bytes), Vec::new());
            inbox.end_of_frame(before, frame_bytes);
            let last = inbox.last().unwrap();
            assert_eq!(last.raw.is_unique(), own, "{len} of {frame_bytes} bytes");
            assert_eq!((&last.raw[..], &last.values), (made.raw(), &made.values));
            inbox.check();
        }
    }

    /// There are never more than two pages in memory, whatever they weigh there.
    #[test]
    fn another_page_is_asked_for_when_no_more_than_one_waits() {
        let all = commits(&[1000; 3]);
        let weight = all[0].weight();
        let limits = Limits { page_bytes_max: weight - 1, ..Limits::default() };
        let mut inbox = filled(all[..1].to_vec());
        assert!(!inbox.has_room_for_a_page(&limits));
        assert!(inbox.has_room_for_a_page(&Limits { page_bytes_max: weight, ..Limits::default() }));
        let before = inbox.filled();
        all[1..].iter().for_each(|commit| inbox.push(commit.clone(), Vec::new()));
        inbox.end_of_page(before);
        assert!(!inbox.has_room_for_a_page(&limits), "three wait, and the last page had two");
        inbox.take(&Limits { event_commits_max: 1, ..Limits::default() }, usize::MAX);
        assert!(inbox.has_room_for_a_page(&limits), "two of them, as many as the last page had");
        let ahead = AHEAD_BYTES_MAX / Limits::default().page_bytes_max;
        let has_room = |pages, limits: &Limits| Inbox::default().has_room_for_pages(pages, limits);
        assert!(has_room(ahead, &Limits::default()) && !has_room(ahead + 1, &Limits::default()));
        assert!(
            !has_room(2, &Limits { frame_bytes_max: 2 * weight - 3, ..limits.clone() }),
            "nor more than a frame"
        );
        let small = Limits { frame_bytes_max: 4 * weight - 1, ..limits };
        assert!(!inbox.has_room_for_a_page(&small), "half a frame is the most");
    }
}
