//! Serving: the reads of this replica for its peers, and the pages that it sends them.
//!
//! Owns: the pulls that wait to be answered, the page that is being put together, the places in streams to compare with
//! the word of a peer. Holds always: one page and one comparison at a time; at most one pull of each peer waits.

pub(super) mod check;
pub(super) mod page;
mod pick;
mod values;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::ReplicaId;
use crate::stored::Point;

use super::Machine;
use super::wire::Pull;
use check::Check;
use page::Page;

/// The pulls and the comparisons of all peers.
#[derive(Debug, Default)]
pub(super) struct Serving {
    pulls: VecDeque<(ReplicaId, Pull)>,
    page: Option<Box<Page>>,
    /// The places to compare, by peer and stream: a later hello replaces an earlier one.
    places: BTreeMap<(ReplicaId, ReplicaId), Point>,
    check: Option<Check>,
}

impl Serving {
    /// Takes a pull, which replaces an earlier one of the same peer.
    pub(super) fn pulled(&mut self, from: ReplicaId, pull: Pull) {
        self.forget(from);
        self.pulls.push_back((from, pull));
    }

    /// Drops the pull of a peer.
    pub(super) fn forget(&mut self, peer: ReplicaId) {
        self.pulls.retain(|(other, _)| *other != peer);
    }

    /// Takes a place in a stream that a peer says it has, to compare it.
    pub(super) fn compare(&mut self, peer: ReplicaId, stream: ReplicaId, point: Point) {
        self.places.insert((peer, stream), point);
    }

    /// The pull to answer next, if no page is being put together.
    pub(super) fn next_pull(&mut self) -> Option<(ReplicaId, Pull)> {
        if self.page.is_none() { self.pulls.pop_front() } else { None }
    }

    /// The place to compare next, if none is being compared.
    pub(super) fn next_place(&mut self) -> Option<Check> {
        if self.check.is_some() {
            return None;
        }
        let ((peer, stream), point) = self.places.pop_first()?;
        Some(Check { peer, stream, point })
    }

    /// Keeps a page until its read has ended.
    pub(super) fn page_reads(&mut self, page: Box<Page>) {
        debug_assert!(self.page.is_none(), "one page at a time");
        self.page = Some(page);
    }

    /// Gives back the page whose read has ended.
    pub(super) fn take_page(&mut self) -> Option<Box<Page>> {
        self.page.take()
    }

    /// Keeps a comparison until its read has ended.
    pub(super) fn check_reads(&mut self, check: Check) {
        debug_assert!(self.check.is_none(), "one comparison at a time");
        self.check = Some(check);
    }

    /// Gives back the comparison whose read has ended.
    pub(super) fn take_check(&mut self) -> Option<Check> {
        self.check.take()
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.pulls.len(), self.places.len())
    }
}

impl Machine for Serving {
    fn check(&self) {
        let peers: BTreeSet<_> = self.pulls.iter().map(|(peer, _)| *peer).collect();
        assert_eq!(peers.len(), self.pulls.len(), "one pull waits a peer: {peers:?}");
    }
}
