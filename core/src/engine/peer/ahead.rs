//! The index of peers that are ahead: which of them have commits of which stream that are not here, not even in the
//! inbox.
//!
//! Without the index every received commit would compare what each peer has of each stream with what is here: peers
//! times streams, for nothing.
//!
//! Owns: for each stream the peers that are ahead, and how far. Holds always: the index is empty exactly if no commit
//! is missing; whatever stands in it is above the tip here.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::ReplicaId;

/// The peers that are ahead in each stream, and how far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ahead(BTreeMap<ReplicaId, BTreeMap<ReplicaId, u64>>);

impl Ahead {
    /// Takes note that `peer` has `stream` up to `seq`, where the tip here is `tip`.
    pub(super) fn note(&mut self, peer: ReplicaId, stream: ReplicaId, seq: u64, tip: u64) {
        if seq > tip {
            self.0.entry(stream).or_default().insert(peer, seq);
        }
    }

    /// Takes note that the tip of `stream` is `tip` now: peers that have no more are ahead no longer.
    pub(super) fn tip_rose(&mut self, stream: ReplicaId, tip: u64) {
        if let Some(peers) = self.0.get_mut(&stream) {
            peers.retain(|_, seq| *seq > tip);
            if peers.is_empty() {
                self.0.remove(&stream);
            }
        }
    }

    /// Forgets what `peer` had.
    pub(super) fn forget(&mut self, peer: ReplicaId) {
        self.0.retain(|_, peers| {
            peers.remove(&peer);
            !peers.is_empty()
        });
    }

    /// Forgets what `peer` had of `stream`.
    pub(super) fn forget_stream(&mut self, peer: ReplicaId, stream: ReplicaId) {
        if let Some(peers) = self.0.get_mut(&stream) {
            peers.remove(&peer);
            if peers.is_empty() {
                self.0.remove(&stream);
            }
        }
    }

    /// The peers that are ahead in a stream that is `wanted` of them.
    pub(super) fn peers(&self, wanted: impl Fn(ReplicaId, ReplicaId) -> bool) -> BTreeSet<ReplicaId> {
        let pairs = self.0.iter().flat_map(|(stream, peers)| peers.keys().map(|peer| (*stream, *peer)));
        pairs.filter(|(stream, peer)| wanted(*stream, *peer)).map(|(_, peer)| peer).collect()
    }

    /// The streams in which `peer` is ahead, and how much of each it has.
    pub(super) fn streams(&self, peer: ReplicaId) -> impl Iterator<Item = (ReplicaId, u64)> {
        self.0.iter().filter_map(move |(stream, peers)| Some((*stream, *peers.get(&peer)?)))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> ReplicaId {
        ReplicaId(Uuid::from_u128(n))
    }

    #[test]
    fn the_index_is_empty_exactly_if_nothing_is_missing() {
        let mut ahead = Ahead::default();
        ahead.note(id(1), id(9), 5, 5);
        assert_eq!(ahead, Ahead::default(), "as far as we are is not ahead");
        ahead.note(id(1), id(9), 6, 5);
        ahead.note(id(2), id(9), 8, 5);
        ahead.tip_rose(id(9), 6);
        assert_eq!(ahead.peers(|_, _| true), BTreeSet::from([id(2)]));
        assert_eq!(ahead.streams(id(2)).collect::<Vec<_>>(), [(id(9), 8)]);
        ahead.tip_rose(id(9), 8);
        assert_eq!(ahead, Ahead::default());
    }

    #[test]
    fn a_peer_that_lost_what_it_had_is_ahead_in_nothing() {
        let mut ahead = Ahead::default();
        ahead.note(id(1), id(8), 1, 0);
        ahead.note(id(1), id(9), 1, 0);
        ahead.note(id(2), id(9), 1, 0);
        ahead.forget_stream(id(2), id(9));
        assert_eq!(ahead.peers(|stream, _| stream == id(9)), BTreeSet::from([id(1)]));
        ahead.forget(id(1));
        assert_eq!(ahead, Ahead::default());
    }
}
