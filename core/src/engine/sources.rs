//! A chapter of the engine: the peers of which a snapshot is asked, and when another way is the better one.
//!
//! | a peer that has more | is asked for |
//! |---|---|
//! | whose log brings something that is missing here | its log |
//! | whose log does not reach back, or is much longer than all records, while there is no log that goes on | a snapshot |
//! | that has all that a stage rests on | the next page of it, or its tail |
//!
//! A stage is given up if the log has brought what it was begun for, or if nobody goes on with it for a while and there is
//! another way. Its records would all be asked for again, so that is the last resort.

use std::collections::BTreeSet;

use crate::ids::ReplicaId;

use super::install::Wanted;
use super::installing::Installing;
use super::pull::Kind;
use super::wire::{self, Capped, PageHead, Pull, Reach, SnapshotPull, WireHead};
use super::writes::Doing;
use super::{Engine, Mark, Peer};

impl Engine {
    /// The peer to ask for the next part of a snapshot, and what to ask it for.
    pub(super) fn install_pull(&mut self) -> Option<(ReplicaId, Wanted)> {
        if self.closing || self.streams.restored().is_some() || self.upkeep.is_folding() {
            return None;
        }
        let wanted = self.install.wants()?;
        // Only once it is durable is it known what comes next, unless it is a page of records.
        match (self.writes.doing(), &wanted) {
            (Doing::Installing(Installing::Part(_)), Wanted::Records(_)) => {}
            (Doing::Installing(_), _) => return None,
            _ => {}
        }
        if self.install.row().is_none() {
            let source = self.snapshot_source();
            if source.is_none() {
                self.install.asks_nobody();
            }
            return source.map(|peer| (peer, wanted));
        }
        if self.log_has_come() {
            self.install.give_up();
            return None;
        }
        let able: Vec<_> = self.answering().filter(|peer| self.covers_stage(*peer)).collect();
        let (source, refused) = (self.install.source(), self.install.was_refused());
        // Wait a while for a peer that goes on with the stage before it is given up: all that was staged would be lost.
        let waits = able.is_empty() || refused && self.install.is_arriving();
        if waits && self.has_another_way(&able) && self.install.waits_for_cover(self.now.mono) {
            self.install.give_up();
            return None;
        }
        let source = source.filter(|source| able.contains(source) && (!refused || able.len() == 1));
        source.or_else(|| self.rng.choice(able)).map(|peer| (peer, wanted))
    }

    /// Whether there is another way to what is missing here than the peers that are `able` to go on with the stage.
    fn has_another_way(&mut self, able: &[ReplicaId]) -> bool {
        let (ahead, source) = (self.ahead_here(), self.install.source());
        let is_other = |peer: &ReplicaId| able.is_empty() || Some(*peer) != source;
        if self.install.is_in_place() {
            // No log is taken meanwhile, so any of them may be the way.
            return ahead.iter().any(|peer| is_other(peer) || self.reach(*peer) != Reach::Pruned);
        }
        ahead.iter().any(is_other) && self.snapshot_source().is_some()
    }

    /// Whether the log of a peer is the way to what is missing here, by its last page.
    pub(super) fn reach(&self, peer: ReplicaId) -> Reach {
        self.peers.get(peer).map_or(Reach::Whole, Peer::reach)
    }

    /// Takes note that no page of a peer will do: its log is the way, if it has one.
    pub(super) fn snapshot_fails(&mut self, from: ReplicaId) {
        if self.reach(from) != Reach::Pruned {
            self.peers.sent_page(from, false, Reach::Whole);
            self.install.give_up();
        }
        self.install.failed(self.now.mono, &mut self.rng);
    }

    /// Whether all that a stage certainly has is here by log, so that it is of no use any more.
    fn log_has_come(&self) -> bool {
        let Some(stage) = self.install.stage().filter(|stage| !stage.row.in_place) else { return false };
        let me = self.context.me();
        let here = |(stream, seq): (&ReplicaId, &u64)| *stream == me || self.ledger.head(*stream).seq >= *seq;
        self.install.is_arriving() && stage.row.as_of.iter().all(here)
    }

    /// The answering peers that have something that is missing here.
    fn ahead_here(&self) -> Vec<ReplicaId> {
        let admitting = self.admitting();
        let misses = |peer| self.peers.ahead(peer).any(|(stream, _)| admitting.may_take(stream, peer));
        self.answering().filter(|peer| misses(*peer)).collect()
    }

    /// The trusted peers that are up and do not rest since they did not answer.
    fn answering(&self) -> impl Iterator<Item = ReplicaId> {
        let up = self.peers.iter().filter(|(_, peer)| peer.is_greeted());
        let awake = up.filter(|(id, peer)| !(peer.was_silent() && self.peers.rests_now(*id)));
        awake.map(|(id, _)| id).filter(|id| self.members.trusts(*id, &self.context))
    }

    /// Whether a peer has all that the stage rests on.
    fn covers_stage(&self, peer: ReplicaId) -> bool {
        let Some(row) = self.install.row() else { return true };
        let Some(peer) = self.peers.get(peer) else { return false };
        let me = self.context.me();
        !self.context.rules.resume_needs_cover
            || row.need.iter().all(|(stream, seq)| *stream == me || peer.has_of(*stream) >= *seq)
    }

    /// A peer from which a snapshot may begin: nobody who has more than is here has a log that is the way to it.
    fn snapshot_source(&mut self) -> Option<ReplicaId> {
        let ahead = self.ahead_here();
        let (logs, snapshots): (Vec<_>, Vec<_>) =
            ahead.into_iter().partition(|peer| self.reach(*peer) == Reach::Whole);
        if logs.iter().any(|peer| self.log_goes_on(*peer)) {
            return None;
        }
        self.rng.choice(snapshots)
    }

    /// Whether the log of a peer brings something that is missing here: not if it is damaged there, or its store was
    /// restored, so that it serves nothing of its own stream, and all else rests on that.
    fn log_goes_on(&self, peer: ReplicaId) -> bool {
        let restored = self.peers.get(peer).is_some_and(Peer::is_restored);
        let ended: BTreeSet<_> = self.damages.ended(peer, |stream| self.streams.tip(stream).seq).collect();
        let admitting = self.admitting();
        let mut missing = self.peers.ahead(peer).map(|(stream, _)| stream);
        ended.is_empty() && !restored
            || missing.any(|stream| {
                let rests = ended.contains(&stream) || self.peers.passes_over(peer, stream);
                !rests && admitting.may_take(stream, peer)
            })
    }

    /// Asks a peer for the next part of a snapshot.
    pub(super) fn send_install_pull(&mut self, peer: ReplicaId, wanted: &Wanted) {
        let id = match wanted {
            Wanted::Records(after) => Some(self.send_records_pull(peer, after.as_deref())),
            Wanted::Tail => self.send_tail_pull(peer),
        };
        if let Some(id) = id {
            self.install.asks(peer, id, wanted);
        }
    }

    /// Asks a peer for the records behind a key; returns the id of the pull.
    fn send_records_pull(&mut self, peer: ReplicaId, after: Option<&[u8]>) -> u32 {
        if after.is_none() && self.reach(peer) == Reach::Longer {
            self.marks.note(Mark::LongerLog);
        }
        let (id, budget) = self.asks(peer, Kind::Records);
        let frame_bytes = crate::stored::length(self.context.limits.frame_bytes_max);
        let pull = SnapshotPull { id, budget, frame_bytes, after: after.unwrap_or_default().to_vec() };
        self.send(peer, wire::snapshot_pull(self.context.group(), &pull));
        id
    }

    /// Asks a peer for the log behind the records of the stage; returns the id of the pull, if anything is missing.
    fn send_tail_pull(&mut self, peer: ReplicaId) -> Option<u32> {
        self.install.stage_mut()?.follow(&self.ledger);
        let stage = self.install.stage()?;
        let lacks: BTreeSet<_> = stage.lacks().collect();
        if lacks.is_empty() {
            return None;
        }
        let heads = stage.ledger.heads().iter().filter(|(_, head)| head.seq > 0);
        let heads =
            heads.map(|(stream, head)| WireHead { stream: *stream, seq: head.seq, digest: head.digest });
        let heads: Vec<_> = heads.collect();
        let known = self.peers.get(peer).map(Peer::known_streams).unwrap_or_default();
        let all: BTreeSet<_> = known.into_iter().chain(stage.ledger.heads().keys().copied()).collect();
        let excluded = all.into_iter().filter(|stream| !lacks.contains(stream)).collect();
        let (id, budget) = self.asks(peer, Kind::Tail);
        let frame_bytes = crate::stored::length(self.context.limits.frame_bytes_max);
        let pull = Pull { id, budget, frame_bytes, heads: Capped(heads), excluded: Capped(excluded) };
        self.send(peer, wire::pull(self.context.group(), &pull));
        Some(id)
    }

    /// Whether a snapshot is about to begin in place of the commits of a page, since the log is much longer. Once they
    /// are taken, it could not be put in its place any more.
    pub(super) fn prefers_snapshot(&mut self, page: &PageHead) -> bool {
        page.reach == Reach::Longer
            && !self.install.is_under_way()
            && self.install.wants().is_some()
            && self.installs_in_place()
            && self.snapshot_source().is_some()
    }
}
