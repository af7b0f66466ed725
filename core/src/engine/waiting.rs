//! A chapter of the engine: how far the members have a stream durably, and the calls of the app that wait for that.

use crate::error::Error;
use crate::ids::ReplicaId;
use crate::synced::{CommitId, DurableOn, PeerLag, Synced, Unsynced};

use super::backoff::after;
use super::io::{Effect, Ticket};
use super::waits::{Aim, Late, Wanted};
use super::{Engine, Peer};

/// The longest that a call waits, a year: no timer of a platform takes more than a few hundred.
const WAIT_MS_MAX: u64 = 365 * 24 * 3_600_000;

/// What is known of how far another replica has the streams durably.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    engine: &'a Engine,
    replica: ReplicaId,
    peer: Option<&'a Peer>,
    /// How far it has the own stream, as others say.
    relayed: u64,
    /// Whether its store was restored, as others say, so that nothing that it said counts.
    void: bool,
}

impl Known<'_> {
    /// Whether its store was restored, as others say.
    pub(super) fn is_void(&self) -> bool {
        self.void
    }

    /// How far it has acknowledged a stream to this replica.
    pub(super) fn acknowledged(&self, stream: ReplicaId) -> u64 {
        if self.void { 0 } else { self.peer.map_or(0, |peer| peer.acked_of(stream)) }
    }

    /// The same, or how far others say that it has the own stream.
    pub(super) fn acknowledged_or_relayed(&self, stream: ReplicaId) -> u64 {
        let relayed = if stream == self.engine.context.me() { self.relayed } else { 0 };
        self.acknowledged(stream).max(relayed)
    }

    /// How far it has a stream for certain. An author has all that it ever sent, since it sends nothing before that is
    /// durable.
    fn certain(&self, stream: ReplicaId) -> u64 {
        let acked = self.acknowledged(stream);
        let is_author = stream == self.replica
            && !self.void
            && !self.peer.is_some_and(Peer::is_restored)
            && !self.engine.streams.has_two_histories(stream);
        if is_author { acked.max(self.engine.ledger.head(stream).seq) } else { acked }
    }

    /// How many commits of a stream that is here it is not known to have.
    fn behind(&self, stream: ReplicaId, seq: u64) -> u64 {
        seq.saturating_sub(self.certain(stream).max(self.acknowledged_or_relayed(stream)))
    }

    /// How many commits of each stream it is not known to have.
    pub(super) fn behind_in_each(&self) -> Vec<(ReplicaId, u64)> {
        let heads = self.engine.ledger.heads().iter();
        let behind = heads.map(|(stream, head)| (*stream, self.behind(*stream, head.seq)));
        behind.filter(|(_, commits)| *commits > 0).collect()
    }
}

impl Engine {
    /// What is known of how far another replica has the streams durably.
    pub(super) fn known(&self, replica: ReplicaId) -> Known<'_> {
        let (peer, word) = (self.peers.get(replica), self.word_on(replica));
        // A relayed word is a number without a digest: of a store that was restored it may mean what that has lost.
        let counts =
            !(word.restored || peer.is_some_and(Peer::is_restored) || self.streams.restored().is_some());
        let relayed = if counts { word.seq } else { 0 };
        Known { engine: self, replica, peer, relayed, void: word.restored }
    }

    /// The sequence number of the last durable commit of the own stream.
    pub(crate) fn own_commits(&self) -> u64 {
        self.ledger.own().seq
    }

    // --- a commit ---------------------------------------------------------------------------------------------------

    /// How far a member has a stream durably: for certain, and as others say.
    fn durable_at(&self, member: ReplicaId, stream: ReplicaId) -> (u64, u64) {
        let me = self.context.me();
        if self.hidden() == Some(stream) {
            // The members may mean commits that this store has lost.
            return (0, 0);
        }
        if member == me {
            return (self.ack_of(stream).seq, 0);
        }
        let known = self.known(member);
        (known.certain(stream), known.acknowledged_or_relayed(stream))
    }

    /// The members that have a commit durably.
    pub(crate) fn durable_on(&self, commit: CommitId) -> DurableOn {
        let (mut members, mut relayed) = (Vec::new(), Vec::new());
        for member in self.members.ids() {
            let (certain, said) = self.durable_at(member, commit.replica);
            if certain >= commit.seq {
                members.push(member);
            } else if said >= commit.seq {
                relayed.push(member);
            }
        }
        DurableOn { commit, members, relayed }
    }

    /// Up to where a stream is durable on so many members.
    fn durable_up_to(&self, stream: ReplicaId, on: usize) -> u64 {
        let Some(last) = on.checked_sub(1) else { return u64::MAX };
        let each = self.members.ids().map(|member| self.durable_at(member, stream));
        let mut each: Vec<_> = each.map(|(certain, said)| certain.max(said)).collect();
        each.sort_unstable_by(|one, other| other.cmp(one));
        each.get(last).copied().unwrap_or(0)
    }

    /// Answers a call when a commit is durable on enough members, or when its time has passed.
    pub(super) fn wait_durable(&mut self, ticket: Ticket, wanted: Wanted, ms: u64) {
        let Wanted { commit, on } = wanted;
        let answer = match self.streams.restored().filter(|_| commit.replica == self.context.me()) {
            Some(restored) => Err(Error::Restored(restored)),
            None if ms > 0 && self.durable_up_to(commit.replica, on) < commit.seq => {
                let until = after(self.now.mono, ms.min(WAIT_MS_MAX));
                return self.waits.for_commit(ticket, until, wanted);
            }
            None => Ok(self.durable_on(commit)),
        };
        self.effects.push_back(Effect::Durable(ticket, on, answer));
    }

    // --- all members ------------------------------------------------------------------------------------------------

    /// Answers a call when this replica is level with all members that it reaches, or when its time has passed.
    pub(super) fn wait_synced(&mut self, ticket: Ticket, ms: u64) {
        let mut aim = Aim { own: self.ledger.own().seq, ..Aim::default() };
        let answer = match self.synced(&mut aim) {
            Some(answer) => answer,
            None if ms > 0 => {
                let until = after(self.now.mono, ms.min(WAIT_MS_MAX));
                return self.waits.for_all(ticket, until, aim);
            }
            None => Ok(Synced::NotYet(self.unsynced(&aim))),
        };
        self.effects.push_back(Effect::Synced(ticket, answer));
    }

    /// The answer of a call that waits for all members, if it need not wait any more.
    fn synced(&self, aim: &mut Aim) -> Option<Result<Synced, Error>> {
        if let Some(restored) = self.streams.restored() {
            return Some(Err(Error::Restored(restored)));
        }
        if self.members.awaits_membership() {
            return (!self.context.networked).then(|| Ok(Synced::Alone { away: Vec::new() }));
        }
        let (with, away): (Vec<_>, _) = self.others().partition(|member| self.peers.is_up(*member));
        if with.is_empty() {
            return Some(Ok(Synced::Alone { away }));
        }
        for member in &with {
            self.aim_at(*member, aim);
        }
        let is_level = with.iter().all(|member| self.is_level_with(*member, aim));
        is_level.then(|| Ok(Synced::Level { stopped: self.stopped_behind(&with), with, away }))
    }

    fn others(&self) -> impl Iterator<Item = ReplicaId> {
        self.members.ids().filter(|member| *member != self.context.me())
    }

    /// Takes into the aim of a call what a member has and is missing here, once it is heard.
    fn aim_at(&self, member: ReplicaId, aim: &mut Aim) {
        if aim.of.contains_key(&member) || !self.hears(member) {
            return;
        }
        let has = self.peers.get(member).into_iter().flat_map(Peer::has_of_each);
        let missing =
            has.filter(|(stream, seq)| *stream != self.context.me() && self.ledger.head(*stream).seq < *seq);
        aim.of.insert(member, missing.collect());
    }

    /// The streams of which a member has what a call aims at and is not durable here, and how many commits of each. A
    /// stream that does not go on here is not waited for: that may never end.
    fn missing_here(&self, member: ReplicaId, aim: &Aim) -> impl Iterator<Item = (ReplicaId, u64)> {
        let admitting = self.admitting();
        let aims = aim.of.get(&member).into_iter().flatten().copied();
        let missing = aims.map(|(stream, seq)| (stream, seq.saturating_sub(self.ledger.head(stream).seq)));
        missing.filter(move |(stream, commits)| *commits > 0 && admitting.may_take(*stream, member))
    }

    fn is_level_with(&self, member: ReplicaId, aim: &Aim) -> bool {
        let acked = self.peers.get(member).filter(|peer| !peer.is_restored());
        self.hears(member)
            && acked.is_some_and(|peer| peer.acked_of(self.context.me()) >= aim.own)
            && self.missing_here(member, aim).next().is_none()
    }

    /// The streams of which one of these members has more than is here, and which do not go on here.
    fn stopped_behind(&self, members: &[ReplicaId]) -> Vec<ReplicaId> {
        let admitting = self.admitting();
        let ahead = members
            .iter()
            .flat_map(|member| self.peers.ahead(*member).map(move |(stream, _)| (stream, *member)));
        let mut stopped: Vec<_> = ahead
            .filter(|(stream, member)| !admitting.may_take(*stream, *member))
            .map(|(stream, _)| stream)
            .collect();
        stopped.sort_unstable();
        stopped.dedup();
        stopped
    }

    /// What a call that waits for all members still lacks.
    fn unsynced(&self, aim: &Aim) -> Unsynced {
        let reached = self.others().filter(|member| self.peers.is_up(*member));
        let differing = reached.filter(|member| !self.is_level_with(*member, aim));
        let peers = differing.map(|replica| {
            let peer = self.peers.get(replica);
            PeerLag {
                replica,
                heard: self.hears(replica),
                missing_here: self.missing_here(replica, aim).collect(),
                missing_there: aim.own.saturating_sub(self.known(replica).acknowledged(self.context.me())),
                restored: peer.is_some_and(Peer::is_restored),
                refuses: peer.and_then(Peer::refusal).cloned(),
            }
        });
        let peers = if self.members.awaits_membership() { Vec::new() } else { peers.collect() };
        Unsynced { joining: self.join_wait(), received: self.inbox.len(), peers }
    }

    // --- the calls that wait ----------------------------------------------------------------------------------------

    /// Answers the calls that wait for nothing more.
    pub(super) fn answer_waits(&mut self) {
        if self.waits.is_empty() {
            return;
        }
        let mut waits = std::mem::take(&mut self.waits);
        let synced = waits.synced_mut().filter_map(|(ticket, aim)| Some((ticket, self.synced(aim)?)));
        let synced: Vec<_> = synced.collect();
        for (ticket, answer) in synced {
            waits.forget(ticket);
            self.effects.push_back(Effect::Synced(ticket, answer));
        }
        for (stream, on) in waits.places() {
            for (ticket, wanted) in waits.reached(stream, on, self.durable_up_to(stream, on)) {
                let durable = self.durable_on(wanted.commit);
                self.effects.push_back(Effect::Durable(ticket, on, Ok(durable)));
            }
        }
        if let Some(restored) = self.streams.restored() {
            for (ticket, Wanted { on, .. }) in waits.all_of(self.context.me()) {
                self.effects.push_back(Effect::Durable(ticket, on, Err(Error::Restored(restored))));
            }
        }
        self.waits = waits;
    }

    /// Answers the calls whose time has passed.
    pub(super) fn end_late_waits(&mut self) {
        for (ticket, late) in self.waits.take_late() {
            match late {
                Late::Synced(mut aim) => {
                    let answer = self.synced(&mut aim);
                    let answer = answer.unwrap_or_else(|| Ok(Synced::NotYet(self.unsynced(&aim))));
                    self.effects.push_back(Effect::Synced(ticket, answer));
                }
                Late::Durable(Wanted { commit, on }) => {
                    let durable = self.durable_on(commit);
                    self.effects.push_back(Effect::Durable(ticket, on, Ok(durable)));
                }
            }
        }
    }
}
