//! Pins: how far back the log is needed by the snapshots that are served.
//!
//! A replica that installs a snapshot takes the log from where that began, once it has all records. If the log were pruned
//! meanwhile, it would have to begin anew. A pin does not last for ever: a replica that goes away must not make the log grow.
//!
//! Owns: for each peer, where its snapshot began, and when it asked last. Holds always: a pin is no older than [`PIN_MS`].

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::ids::ReplicaId;

use super::Machine;
use super::backoff::after;

/// How long the log is kept for a peer that asks for nothing more.
const PIN_MS: u64 = 600_000;
/// The most peers for which the log is kept. Others may have to begin anew.
const PINS_MAX: usize = 16;

/// The snapshots that are served.
#[derive(Debug, Default)]
pub(super) struct Pins(BTreeMap<ReplicaId, Pin>);

/// A snapshot that is served.
#[derive(Debug)]
struct Pin {
    /// The heads at which the snapshot began.
    as_of: Vec<(ReplicaId, u64)>,
    until: Mono,
}

impl Pins {
    /// Takes note that a snapshot for a peer begins at these heads. It asks for no earlier one any more.
    pub(super) fn pin(&mut self, peer: ReplicaId, as_of: Vec<(ReplicaId, u64)>, now: Mono) {
        if self.0.len() < PINS_MAX || self.0.contains_key(&peer) {
            self.0.insert(peer, Pin { as_of, until: after(now, PIN_MS) });
        }
    }

    /// Takes note that a peer asks on.
    pub(super) fn asks(&mut self, peer: ReplicaId, now: Mono) {
        if let Some(pin) = self.0.get_mut(&peer) {
            pin.until = after(now, PIN_MS);
        }
    }

    /// Ends the pins of the peers that have installed: by what a peer acknowledged of a stream, `acked` says so.
    pub(super) fn end(&mut self, acked: impl Fn(ReplicaId, ReplicaId) -> u64) {
        self.0.retain(|peer, pin| {
            pin.as_of.iter().any(|(stream, seq)| stream != peer && acked(*peer, *stream) < *seq)
        });
    }

    /// For each stream, the place behind which the log is needed.
    pub(super) fn needed(&self) -> BTreeMap<ReplicaId, u64> {
        let mut needed = BTreeMap::new();
        for (stream, seq) in self.0.values().flat_map(|pin| &pin.as_of) {
            let least = needed.entry(*stream).or_insert(*seq);
            *least = *seq.min(least);
        }
        needed
    }
}

impl Machine for Pins {
    fn next_timeout(&self) -> Option<Mono> {
        self.0.values().map(|pin| pin.until).min()
    }

    fn expire(&mut self, now: Mono) {
        self.0.retain(|_, pin| pin.until > now);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const A: ReplicaId = ReplicaId(Uuid::from_u128(0xa));
    const B: ReplicaId = ReplicaId(Uuid::from_u128(0xb));
    const C: ReplicaId = ReplicaId(Uuid::from_u128(0xc));

    #[test]
    fn the_log_is_needed_from_where_the_first_snapshot_began_until_its_peer_has_installed() {
        let mut pins = Pins::default();
        pins.pin(A, vec![(B, 7), (C, 2)], Mono(0));
        pins.pin(B, vec![(B, 9), (C, 1)], Mono(0));
        assert_eq!(pins.needed(), BTreeMap::from([(B, 7), (C, 1)]));
        pins.end(|peer, stream| if (peer, stream) == (A, B) { 7 } else { 0 });
        assert_eq!(pins.needed().len(), 2, "of one of its streams it has too little");
        pins.end(|peer, stream| if peer == A { if stream == B { 7 } else { 2 } } else { 0 });
        assert_eq!(pins.needed(), BTreeMap::from([(B, 9), (C, 1)]));
        pins.end(|_, stream| u64::from(stream == C));
        assert!(pins.needed().is_empty(), "a peer needs no word of its own stream");
    }

    #[test]
    fn a_peer_that_asks_for_nothing_more_keeps_no_log_for_ever() {
        let mut pins = Pins::default();
        pins.pin(A, vec![(B, 7)], Mono(0));
        pins.asks(A, Mono(10));
        assert_eq!(pins.next_timeout(), Some(Mono(10 + PIN_MS)));
        pins.expire(Mono(10 + PIN_MS));
        assert!(pins.needed().is_empty() && pins.next_timeout().is_none());
        for peer in 0..100 {
            pins.pin(ReplicaId(Uuid::from_u128(peer)), vec![(B, 7)], Mono(0));
        }
        assert_eq!(pins.0.len(), PINS_MAX);
        pins.pin(ReplicaId(Uuid::from_u128(0)), vec![(B, 3)], Mono(0));
        assert_eq!(pins.needed(), BTreeMap::from([(B, 3)]), "one that begins anew keeps its place");
    }
}
