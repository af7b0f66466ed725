//! A chapter of the engine: the report, which is the status of the replica for its app.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::events::Fork;
use crate::ids::ReplicaId;
use crate::status::{InstallStatus, PeerStatus, Status, StreamStatus};
use crate::stored::{Counts, Identity, Phase};

use super::wire::Reach;
use super::{Engine, Peer};

impl Engine {
    pub(crate) fn me(&self) -> ReplicaId {
        self.context.me()
    }

    pub(crate) fn identity(&self) -> Identity {
        self.context.identity
    }

    /// How far a snapshot is, if one is being installed.
    pub(super) fn install_status(&self) -> Option<InstallStatus> {
        let stage = self.install.stage().filter(|stage| stage.row.phase != Phase::Clear)?;
        let Counts { records, bytes, of_records, of_bytes } = stage.row.counts;
        let (from, folding) = (self.install.source(), self.install.is_folding());
        Some(InstallStatus { from, records, bytes, of_records, of_bytes, folding })
    }

    /// The status of this replica. Fields that only its manager knows stay empty.
    pub(crate) fn report(&self) -> Status {
        let own = self.ledger.own();
        let streams: BTreeSet<_> =
            self.members.ids().chain(self.ledger.heads().keys().copied()).chain(self.streams.ids()).collect();
        let streams = streams.into_iter().map(|replica| {
            let head = self.ledger.head(replica);
            StreamStatus {
                replica,
                device: self.members.device_of(replica),
                commits: head.seq,
                pruned: head.floor,
                held_by: self.held_by(replica),
                stopped: self.streams.stop_of(replica).cloned(),
                damaged: self.damages.first(replica),
                disputed: self
                    .doubts
                    .set_aside_peers()
                    .filter(|(_, other)| *other == replica)
                    .map(|(peer, _)| peer)
                    .collect(),
                fork: self.streams.proof_of(replica).map(|proof| Fork::from(*proof)),
            }
        });
        let admitting = self.admitting();
        let missing = |peer| {
            let wanted = self.peers.ahead(peer).filter(|(stream, _)| admitting.may_take(*stream, peer));
            wanted.map(|(stream, seq)| seq - self.streams.tip(stream).seq).fold(0, u64::saturating_add)
        };
        let mut ahead: Vec<_> = self.peers.iter().filter_map(|(_, peer)| peer.ahead_ms(&self.now)).collect();
        ahead.sort_unstable();
        let (unknown, restored) = (Peer::default(), self.streams.restored());
        let peers: BTreeSet<_> = self.members.ids().chain(self.peers.iter().map(|(peer, _)| peer)).collect();
        let peers = peers.into_iter().filter(|replica| *replica != self.context.me()).map(|replica| {
            let peer = self.peers.get(replica).unwrap_or(&unknown);
            let known = self.known(replica);
            let is_member = self.members.get(replica).is_some();
            PeerStatus {
                replica,
                connected: peer.is_up(),
                heard: peer.heard().map(|at| Duration::from_millis(self.now.mono.since(at))),
                acknowledged: known.acknowledged_or_relayed(self.context.me()),
                behind: if is_member { known.behind_in_each() } else { Vec::new() },
                missing: missing(replica),
                restored: peer.is_restored() || known.is_void(),
                stranger: peer.calls_us_stranger(),
                knocks: self.knock_of(replica),
                pruned: peer.reach() == Reach::Pruned,
                rejected: peer.rejected(),
                refuses: peer.refusal().cloned(),
                ahead_ms: peer.ahead_ms(&self.now),
            }
        });
        Status {
            group: self.context.group(),
            device: self.identity().device,
            replica: self.me(),
            members: self.members.ids().collect(),
            joining: self.join_wait(),
            restored,
            commits: own.seq,
            pruned: own.floor,
            clock: self.ledger.durable_clock(),
            ahead_ms: median(&ahead),
            streams: streams.collect(),
            peers: peers.collect(),
            received: self.inbox.len(),
            installing: self.install_status(),
            folded: self.upkeep.folded(),
            queued_bytes: 0,
            projections: Vec::new(),
            #[cfg(feature = "internals-for-tests")]
            marks: self.marks.bits(),
        }
    }
}

/// The middle of sorted figures; of two in the middle, the lower one.
fn median(sorted: &[i64]) -> Option<i64> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}
