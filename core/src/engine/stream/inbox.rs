//! The inbox: commits that admission let through and that the store has not taken yet, in the order in which they may
//! be applied.
//!
//! A commit is taken only as the next one of its stream, on the same history, with everything that it rests on here or
//! in front of it. So the inbox can be written front to back, in as few writes as it fits. If a write fails, the
//! commits behind it rest on some that are not here: all of them are let go and pulled again.
//!
//! Owns: the commits, the members that they add, how many of them are written one by one. Holds always: `bytes` is the
//! sum of their weights, and above the cap only if a single commit is.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{DeviceId, ReplicaId};
use crate::limits::Limits;
use crate::member::Member;

use super::super::Machine;
use super::super::commit::Received;

/// Commits that wait to be applied.
#[derive(Debug, Default)]
pub(in crate::engine) struct Inbox {
    commits: VecDeque<Received>,
    bytes: usize,
    /// The weight of the last page in memory, which is more than its bytes in the frame.
    last_page: usize,
    /// The members that its commits add, with their devices.
    members: BTreeMap<ReplicaId, DeviceId>,
    /// How many more commits are written one by one, since a projection or the store refused one of them.
    one_by_one: usize,
}

/// The filling of the inbox at one moment, to tell which commits came since.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Filled {
    commits: usize,
    bytes: usize,
}

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

    /// Whether there is room for one more commit. An empty inbox has room for any.
    pub(in crate::engine) fn has_room_for(&self, commit: &Received, limits: &Limits) -> bool {
        self.commits.is_empty() || self.bytes.saturating_add(commit.weight()) <= limits.frame_bytes_max
    }

    /// The device of a member that a waiting commit adds.
    pub(in crate::engine) fn device_of(&self, stream: ReplicaId) -> Option<DeviceId> {
        self.members.get(&stream).copied()
    }

    pub(in crate::engine) fn new_members(&self) -> usize {
        self.members.len()
    }

    /// Takes a commit that may be applied after those that are here, with the members that it adds.
    pub(in crate::engine) fn push(&mut self, commit: Received, members: Vec<Member>) {
        self.members.extend(members.into_iter().map(|member| (member.replica, member.device)));
        self.bytes += commit.weight();
        self.commits.push_back(commit);
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

    /// Takes the commits at the front, as many as fit into one write, and at least one.
    pub(in crate::engine) fn take(&mut self, limits: &Limits) -> Vec<Received> {
        let (mut changes, mut bytes) = (0, 0);
        let most = if self.one_by_one > 0 { 1 } else { limits.event_commits_max };
        let fitting = self.commits.iter().take(most).take_while(|next| {
            (changes, bytes) = (changes + next.values.len(), bytes + next.weight());
            changes <= limits.commit_changes_max && bytes <= limits.frame_bytes_max
        });
        let count = fitting.count().max(1).min(self.commits.len());
        self.one_by_one = self.one_by_one.saturating_sub(1);
        let taken: Vec<_> = self.commits.drain(..count).collect();
        self.bytes -= taken.iter().map(Received::weight).sum::<usize>();
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
    }
}
