//! Serving: the reads of this replica for its peers, and the pages that it sends them.
//!
//! Owns: the pulls that wait to be answered, the page that is being put together. Holds always: one page at a time; at most
//! one pull of each peer waits.
//!
//! Peers are served in turn, so that none of them starves the others: a peer that asks again keeps its place. A page and a
//! look at the log take turns at the store.

pub(super) mod page;
mod pick;
mod values;

use std::collections::{BTreeSet, VecDeque};

use crate::ids::ReplicaId;

use super::Machine;
use super::wire::Pull;
use page::Page;

/// The pulls of all peers.
#[derive(Debug, Default)]
pub(super) struct Serving {
    pulls: VecDeque<(ReplicaId, Pull)>,
    page: Option<Box<Page>>,
}

impl Serving {
    /// Takes a pull, which stands in the place of an earlier one of the same peer. At the end of the queue it would
    /// never be answered if the peer asks again sooner than its turn comes.
    pub(super) fn pulled(&mut self, from: ReplicaId, pull: Pull) {
        match self.pulls.iter_mut().find(|(peer, _)| *peer == from) {
            Some((_, earlier)) => *earlier = pull,
            None => self.pulls.push_back((from, pull)),
        }
    }

    /// Drops the pull of a peer. Its places stay: what they show is true also when it is gone.
    pub(super) fn forget(&mut self, peer: ReplicaId) {
        self.pulls.retain(|(other, _)| *other != peer);
    }

    /// The pull to answer next, if no page is being put together.
    pub(super) fn next_pull(&mut self) -> Option<(ReplicaId, Pull)> {
        if self.page.is_none() { self.pulls.pop_front() } else { None }
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

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.pulls.len()
    }
}

impl Machine for Serving {
    fn check(&self) {
        let peers: BTreeSet<_> = self.pulls.iter().map(|(peer, _)| *peer).collect();
        assert_eq!(peers.len(), self.pulls.len(), "one pull waits a peer: {peers:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::Context;
    use super::super::damages::Damages;
    use super::super::made::{B, C, complaint, context, ledger, pull_all};
    use super::*;

    fn page(context: &Context) -> Box<Page> {
        Box::new(Page::new(B, pull_all(), None, &ledger([]), &Damages::default(), context))
    }

    /// A peer that asks again and again, sooner than its turn comes, is answered all the same.
    #[test]
    fn a_pull_that_is_asked_again_keeps_its_place() {
        let mut serving = Serving::default();
        for (from, id) in [(B, 1), (C, 2), (B, 3)] {
            serving.pulled(from, Pull { id, ..pull_all() });
            serving.check();
        }
        assert_eq!(serving.waiting(), 2);
        let next = |serving: &mut Serving| serving.next_pull().map(|(from, pull)| (from, pull.id));
        assert_eq!(next(&mut serving), Some((B, 3)), "the last one of B, where the first one stood");
        assert_eq!(next(&mut serving), Some((C, 2)));
        assert_eq!(next(&mut serving), None);
        serving.pulls.extend([(B, pull_all()), (B, pull_all())]);
        assert!(complaint(|| serving.check()).is_some());
    }

    #[test]
    fn a_peer_that_is_gone_waits_for_nothing() {
        let mut serving = Serving::default();
        serving.pulled(B, pull_all());
        serving.pulled(C, pull_all());
        serving.forget(B);
        assert_eq!(serving.next_pull().map(|(from, _)| from), Some(C));
        assert!(serving.next_pull().is_none());
    }

    #[test]
    fn one_page_is_put_together_at_a_time() {
        let (mut serving, context) = (Serving::default(), context());
        serving.pulled(C, pull_all());
        assert!(serving.take_page().is_none());
        serving.page_reads(page(&context));
        assert!(serving.next_pull().is_none(), "until the page has been read");
        assert!(complaint(|| serving.page_reads(page(&context))).is_some());
        assert!(serving.take_page().is_some() && serving.next_pull().is_some());
    }
}
