//! Serving: the reads of this replica for its peers, and the pages that it sends them.
//!
//! Owns: the pulls that wait to be answered, the page that is being put together, where the last page of each peer ended.
//! Holds always: one page at a time; at most one pull of each peer waits, and a few that go on from it.
//!
//! Peers are served in turn, so that none of them starves the others: a peer that asks again keeps its place. A page and a
//! look at the log take turns at the store.

pub(super) mod page;
pub(super) mod pick;
pub(super) mod records;
pub(super) mod values;
pub(super) mod weight;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::ReplicaId;

use super::Machine;
use super::wire::{Pull, PullOn, SnapshotPull};
use page::Page;
use pick::Edge;
use records::RecordsPage;
use weight::{Weighed, Weight};

/// The most pages that a peer is asked for at once.
pub(super) const PULLS_MAX: usize = 8;

/// The pulls of all peers.
#[derive(Debug, Default)]
pub(super) struct Serving {
    pulls: VecDeque<(ReplicaId, Pulled)>,
    page: Option<Box<Page>>,
    /// A page of a snapshot, in the place of a page of a log.
    records: Option<Box<RecordsPage>>,
    /// Whether its rows were read, with the count of writes that had begun by then.
    settles: Option<u64>,
    /// Where the last page of each peer ended, and which pull it answered, if there was more.
    ends: BTreeMap<ReplicaId, (u32, Edge)>,
    /// The weight of all records, as it was counted last.
    weight: Option<Weight>,
    /// The peers for which no log is weighed any more in this session.
    weighed: BTreeSet<ReplicaId>,
}

/// A pull that waits.
#[derive(Debug)]
enum Pulled {
    From(Pull),
    /// A pull that goes on from the page before it.
    On(PullOn),
    /// A pull of records.
    Records(SnapshotPull),
}

/// A page to put together.
#[derive(Debug)]
pub(super) struct Ask {
    /// The pull that the page answers.
    pub(super) id: u32,
    pub(super) begin: Edge,
    /// The bytes of its commits, at most.
    pub(super) budget: u32,
}

/// The next pull to answer.
#[derive(Debug)]
pub(super) enum Next {
    Page(Ask),
    /// The pull with this id goes on from a page that is not known here any more.
    Unknown(u32),
    Records(SnapshotPull),
}

impl Ask {
    /// The page that answers a pull from its heads on.
    pub(super) fn of(pull: Pull) -> Self {
        let (id, budget) = (pull.id, pull.budget);
        Self { id, begin: Edge::of(pull), budget }
    }
}

impl Serving {
    /// Takes a pull, which stands in the place of an earlier one of the same peer. At the end of the queue it would
    /// never be answered if the peer asks again sooner than its turn comes.
    pub(super) fn pulled(&mut self, from: ReplicaId, pull: Pull) {
        let place = self.pulls.iter().position(|(peer, _)| *peer == from);
        self.drop_pulls(from);
        let place = place.unwrap_or(self.pulls.len());
        self.pulls.insert(place, (from, Pulled::From(pull)));
    }

    /// Takes a pull that goes on from the page of another one.
    pub(super) fn pulled_on(&mut self, from: ReplicaId, pull: PullOn) {
        if self.pulls.iter().filter(|(peer, _)| *peer == from).count() < PULLS_MAX {
            self.pulls.push_back((from, Pulled::On(pull)));
        }
    }

    /// Takes a pull of records, which stands in the place of an earlier one of the same peer.
    pub(super) fn pulled_records(&mut self, from: ReplicaId, pull: SnapshotPull) {
        let is_same =
            |(peer, pulled): &(ReplicaId, Pulled)| *peer == from && matches!(pulled, Pulled::Records(_));
        match self.pulls.iter_mut().find(|waiting| is_same(waiting)) {
            Some((_, pulled)) => *pulled = Pulled::Records(pull),
            None => self.pulls.push_back((from, Pulled::Records(pull))),
        }
    }

    /// The weight of all records, if it is known.
    pub(super) fn weight(&self) -> Option<Weight> {
        self.weight
    }

    /// Keeps where a page has ended, so that another pull can go on from there.
    pub(super) fn ended(&mut self, peer: ReplicaId, id: u32, end: Option<Edge>) {
        match end {
            Some(end) => drop(self.ends.insert(peer, (id, end))),
            None => drop(self.ends.remove(&peer)),
        }
    }

    /// Forgets a peer that went down.
    pub(super) fn forget(&mut self, peer: ReplicaId) {
        self.drop_pulls(peer);
        self.weighed.remove(&peer);
    }

    /// Whether a log may be weighed for a peer: counting it for each of many pages would take longer than to send it.
    pub(super) fn weighs_for(&self, peer: ReplicaId) -> bool {
        !self.weighed.contains(&peer)
    }

    /// Takes note that a log was weighed for a peer.
    pub(super) fn weighed(&mut self, peer: ReplicaId, weighed: Weighed) {
        self.weight = weighed.records.or(self.weight);
        if weighed.log {
            self.weighed.insert(peer);
        }
    }

    fn drop_pulls(&mut self, peer: ReplicaId) {
        self.ends.remove(&peer);
        self.pulls.retain(|(other, _)| *other != peer);
    }

    /// The pull to answer next, if no page is being put together.
    pub(super) fn next_pull(&mut self) -> Option<(ReplicaId, Next)> {
        if self.page.is_some() || self.records.is_some() {
            return None;
        }
        let (from, pulled) = self.pulls.pop_front()?;
        let next = match pulled {
            Pulled::From(pull) => Next::Page(Ask::of(pull)),
            Pulled::Records(pull) => Next::Records(pull),
            Pulled::On(PullOn { id, behind, budget }) => {
                let end = self.ends.remove(&from).filter(|(ended, _)| *ended == behind);
                end.map_or(Next::Unknown(id), |(_, begin)| Next::Page(Ask { id, begin, budget }))
            }
        };
        Some((from, next))
    }

    /// Keeps a page until its read has ended.
    pub(super) fn page_reads(&mut self, page: Box<Page>) {
        debug_assert!(self.page.is_none(), "one page at a time");
        self.page = Some(page);
    }

    /// Keeps a page of a snapshot until its read has ended; or, with the `writes` that had begun, until those have.
    pub(super) fn records_read(&mut self, page: Box<RecordsPage>, writes: Option<u64>) {
        debug_assert!(self.page.is_none() && self.records.is_none(), "one page at a time");
        (self.records, self.settles) = (Some(page), writes);
    }

    /// Gives back the page of a snapshot whose read has ended.
    pub(super) fn take_records(&mut self) -> Option<Box<RecordsPage>> {
        self.records.take()
    }

    /// Gives back the page of a snapshot whose rows were read, once the write that was under way then has ended: when
    /// none is under way, or it is a later one of `writes`.
    pub(super) fn take_settled(&mut self, writes: u64, idle: bool) -> Option<Box<RecordsPage>> {
        self.settles.take_if(|before| idle || *before != writes).and_then(|_| self.records.take())
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
        let mut waiting = BTreeMap::<_, (usize, usize)>::new();
        for (peer, pulled) in &self.pulls {
            let (pulls, ons) = waiting.entry(*peer).or_default();
            *(if matches!(pulled, Pulled::From(_)) { pulls } else { ons }) += 1;
        }
        let few = |(pulls, ons): &(usize, usize)| *pulls <= 1 && pulls + ons <= PULLS_MAX;
        assert!(waiting.values().all(few), "one pull waits a peer: {waiting:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::Context;
    use super::super::damages::Damages;
    use super::super::made::{B, C, complaint, context, ledger, pull_all};
    use super::super::wire::{Capped, WireHead};
    use super::*;

    fn head_of(stream: ReplicaId, seq: u64) -> WireHead {
        WireHead { stream, seq, digest: [7; 32] }
    }

    fn page(context: &Context) -> Box<Page> {
        let (ledger, damages) = (ledger([]), Damages::default());
        Box::new(Page::new(B, Ask::of(pull_all()), None, (true, None), (&ledger, &damages, context)))
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
        let next = |serving: &mut Serving| {
            serving.next_pull().map(|(from, next)| match next {
                Next::Page(ask) => (from, ask.id),
                other => panic!("{other:?} is none of these pulls"),
            })
        };
        assert_eq!(next(&mut serving), Some((B, 3)), "the last one of B, where the first one stood");
        assert_eq!(next(&mut serving), Some((C, 2)));
        assert_eq!(next(&mut serving), None);
        serving.pulls.extend([(B, Pulled::From(pull_all())), (B, Pulled::From(pull_all()))]);
        assert!(complaint(|| serving.check()).is_some());
    }

    /// A pull that goes on finds where the page before it ended; once, since the next one goes on from its page.
    #[test]
    fn a_pull_goes_on_where_the_page_before_it_ended() {
        let on = |id, behind| PullOn { id, behind, budget: 9 };
        let next = |serving: &mut Serving| match serving.next_pull() {
            Some((_, Next::Page(ask))) => Ok((ask.id, ask.begin.seq_of(C))),
            Some((_, Next::Unknown(id))) => Err(id),
            Some((_, Next::Records(_))) | None => Err(0),
        };
        let mut serving = Serving::default();
        let end = Edge::of(Pull { heads: Capped(vec![head_of(C, 5)]), ..pull_all() });
        serving.ended(B, 7, Some(end.clone()));
        serving.pulled_on(B, on(8, 7));
        serving.pulled_on(B, on(9, 7));
        serving.pulled_on(C, on(8, 7));
        assert_eq!(next(&mut serving), Ok((8, 5)));
        assert_eq!(next(&mut serving), Err(9), "its page was gone on from");
        assert_eq!(next(&mut serving), Err(8), "of another peer");
        for ends in [
            |serving: &mut Serving| serving.ended(B, 8, None),
            |serving: &mut Serving| {
                serving.pulled(B, pull_all());
                serving.next_pull();
            },
        ] {
            serving.ended(B, 7, Some(end.clone()));
            ends(&mut serving);
            serving.pulled_on(B, on(8, 7));
            assert_eq!(next(&mut serving), Err(8));
        }
    }

    #[test]
    fn a_flood_of_pulls_that_go_on_takes_no_more_room_than_a_few() {
        let mut serving = Serving::default();
        serving.pulled(B, pull_all());
        (0..100).for_each(|id| serving.pulled_on(B, PullOn { id, behind: id, budget: 9 }));
        serving.check();
        assert_eq!(serving.waiting(), PULLS_MAX);
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
