//! Waits: calls of the app that wait for peers, until they are level with this replica or have a commit durably.
//!
//! The engine asks this machine whom to look at whenever nothing else is left to do, so a call is answered with the frame
//! or the write that brings the last thing which it waits for. Where no call waits, that costs nothing.
//!
//! Owns: the calls, each with what it waits for and the moment until which it does. Holds always: a call is answered once,
//! by what it waits for or by the end of its time, or it is forgotten; every call that waits has a deadline.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Mono;
use crate::ids::ReplicaId;
use crate::synced::CommitId;

use super::Machine;
use super::io::Ticket;

/// What a call for a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) commit: CommitId,
    /// On how many members it is to be durable.
    pub(crate) on: usize,
}

/// What a call for all members waits for, as it stood when the call came. Without such an aim a call beside a writer that
/// never stops would wait for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Aim {
    /// The commits of the own stream that the members have to acknowledge.
    pub(super) own: u64,
    /// The places of the streams of which a member had more than was here, when it was heard first.
    pub(super) of: BTreeMap<ReplicaId, Vec<(ReplicaId, u64)>>,
}

/// A call whose time has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Late {
    Synced(Aim),
    Durable(Wanted),
}

/// The calls that wait for peers.
#[derive(Debug, Default)]
pub(super) struct Waits {
    synced: BTreeMap<Ticket, (Mono, Aim)>,
    durable: BTreeMap<Ticket, (Mono, Wanted)>,
    /// The calls for a commit, by its stream and the number of members, then by its sequence number: those of which enough
    /// members have the stream are found without a look at the others.
    by_place: BTreeMap<(ReplicaId, usize), BTreeSet<(u64, Ticket)>>,
    deadlines: BTreeSet<(Mono, Ticket)>,
    /// The calls whose time has passed.
    late: Vec<(Ticket, Late)>,
}

impl Waits {
    /// Whether no call waits.
    pub(super) fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }

    /// Takes a call that waits for all members.
    pub(super) fn for_all(&mut self, ticket: Ticket, until: Mono, aim: Aim) {
        self.deadlines.insert((until, ticket));
        self.synced.insert(ticket, (until, aim));
    }

    /// Takes a call that waits for a commit.
    pub(super) fn for_commit(&mut self, ticket: Ticket, until: Mono, wanted: Wanted) {
        let Wanted { commit, on } = wanted;
        self.deadlines.insert((until, ticket));
        self.by_place.entry((commit.replica, on)).or_default().insert((commit.seq, ticket));
        self.durable.insert(ticket, (until, wanted));
    }

    /// Forgets a call, since nobody waits for its answer any more or it is answered.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.take_synced(ticket);
        self.take_durable(ticket);
    }

    fn take_synced(&mut self, ticket: Ticket) -> Option<Aim> {
        let (until, aim) = self.synced.remove(&ticket)?;
        self.deadlines.remove(&(until, ticket));
        Some(aim)
    }

    fn take_durable(&mut self, ticket: Ticket) -> Option<Wanted> {
        let (until, wanted) = self.durable.remove(&ticket)?;
        self.deadlines.remove(&(until, ticket));
        let place = (wanted.commit.replica, wanted.on);
        if let Some(calls) = self.by_place.get_mut(&place) {
            calls.remove(&(wanted.commit.seq, ticket));
            if calls.is_empty() {
                self.by_place.remove(&place);
            }
        }
        Some(wanted)
    }

    /// The calls that wait for all members. What they aim at may grow, when a member is heard that was not before.
    pub(super) fn synced_mut(&mut self) -> impl Iterator<Item = (Ticket, &mut Aim)> {
        self.synced.iter_mut().map(|(ticket, (_, aim))| (*ticket, aim))
    }

    /// The streams of commits that are waited for, each with the numbers of members that are.
    pub(super) fn places(&self) -> Vec<(ReplicaId, usize)> {
        self.by_place.keys().copied().collect()
    }

    /// Takes the calls for commits of a stream up to `seq`, which are durable on so many members now.
    pub(super) fn reached(&mut self, stream: ReplicaId, on: usize, seq: u64) -> Vec<(Ticket, Wanted)> {
        let Some(calls) = self.by_place.get(&(stream, on)) else { return Vec::new() };
        let reached: Vec<_> = calls.iter().take_while(|(wanted, _)| *wanted <= seq).copied().collect();
        reached.into_iter().filter_map(|(_, ticket)| Some((ticket, self.take_durable(ticket)?))).collect()
    }

    /// Takes all calls for commits of a stream.
    pub(super) fn all_of(&mut self, stream: ReplicaId) -> Vec<(Ticket, Wanted)> {
        let of_stream = self.durable.iter().filter(|(_, (_, wanted))| wanted.commit.replica == stream);
        let tickets: Vec<_> = of_stream.map(|(ticket, _)| *ticket).collect();
        tickets.into_iter().filter_map(|ticket| Some((ticket, self.take_durable(ticket)?))).collect()
    }

    /// The calls that waited in vain.
    pub(super) fn take_late(&mut self) -> Vec<(Ticket, Late)> {
        std::mem::take(&mut self.late)
    }
}

impl Machine for Waits {
    fn next_timeout(&self) -> Option<Mono> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    fn expire(&mut self, now: Mono) {
        while let Some((_, ticket)) = self.deadlines.first().filter(|(until, _)| *until <= now).copied() {
            let late = match self.take_synced(ticket) {
                Some(aim) => Some(Late::Synced(aim)),
                None => self.take_durable(ticket).map(Late::Durable),
            };
            self.late.extend(late.map(|late| (ticket, late)));
        }
    }

    fn check(&self) {
        assert!(self.late.is_empty(), "who waited in vain was not answered: {:?}", self.late);
        assert_eq!(self.deadlines.len(), self.synced.len() + self.durable.len(), "{self:?}");
        let places = self.by_place.values().map(BTreeSet::len).sum::<usize>();
        assert_eq!(places, self.durable.len(), "{self:?}");
        assert!(self.by_place.values().all(|calls| !calls.is_empty()), "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{B, C};
    use super::*;

    fn wanted(replica: ReplicaId, seq: u64, on: usize) -> Wanted {
        Wanted { commit: CommitId { replica, seq }, on }
    }

    fn tickets(calls: Vec<(Ticket, Wanted)>) -> Vec<u64> {
        calls.into_iter().map(|(ticket, _)| ticket.0).collect()
    }

    #[test]
    fn a_stream_that_comes_further_answers_the_calls_up_to_there() {
        let mut waits = Waits::default();
        for (ticket, seq, on) in [(1, 3, 2), (2, 5, 2), (3, 3, 3), (4, 3, 2)] {
            waits.for_commit(Ticket(ticket), Mono(100), wanted(B, seq, on));
        }
        waits.for_commit(Ticket(5), Mono(100), wanted(C, 1, 2));
        assert_eq!(waits.places(), [(B, 2), (B, 3), (C, 2)]);
        assert_eq!(tickets(waits.reached(B, 2, 2)), []);
        assert_eq!(tickets(waits.reached(B, 2, 4)), [1, 4]);
        assert_eq!(tickets(waits.reached(B, 2, 4)), [], "each is answered once");
        assert_eq!(tickets(waits.reached(B, 2, u64::MAX)), [2]);
        assert_eq!(waits.places(), [(B, 3), (C, 2)]);
        waits.check();
        assert_eq!(tickets(waits.all_of(B)), [3]);
        assert_eq!(tickets(waits.reached(C, 2, 1)), [5]);
        assert!(waits.is_empty() && waits.next_timeout().is_none());
        waits.check();
    }

    #[test]
    fn a_call_of_either_kind_ends_with_its_time() {
        let mut waits = Waits::default();
        let aim = Aim { own: 7, of: BTreeMap::new() };
        waits.for_all(Ticket(1), Mono(200), aim.clone());
        waits.for_commit(Ticket(2), Mono(100), wanted(B, 3, 2));
        waits.for_all(Ticket(3), Mono(300), aim.clone());
        assert_eq!(waits.next_timeout(), Some(Mono(100)));
        waits.expire(Mono(99));
        assert_eq!(waits.take_late(), []);
        waits.expire(Mono(200));
        assert_eq!(waits.next_timeout(), Some(Mono(300)), "what is due is no moment to wait for");
        let late = [(Ticket(2), Late::Durable(wanted(B, 3, 2))), (Ticket(1), Late::Synced(aim))];
        assert_eq!((waits.take_late(), waits.take_late()), (late.into(), vec![]));
        assert_eq!(waits.synced_mut().count(), 1);
        waits.check();
    }

    #[test]
    fn a_call_that_is_forgotten_leaves_nothing() {
        let mut waits = Waits::default();
        waits.for_all(Ticket(1), Mono(200), Aim::default());
        waits.for_commit(Ticket(2), Mono(100), wanted(B, 3, 2));
        for ticket in [1, 2, 3] {
            waits.forget(Ticket(ticket));
            waits.check();
        }
        assert!(waits.is_empty() && waits.places().is_empty() && waits.next_timeout().is_none());
    }
}
