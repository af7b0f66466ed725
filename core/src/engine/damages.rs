//! The damaged places of the logs here, and the streams that a peer cannot serve since its own log is damaged.
//!
//! A damaged place ends its stream for peers, and no other stream. It is known until the store is closed, or the place is
//! mended; nothing of it is stored, since the next look at the place finds it again.
//!
//! Owns: the places here, and the ends at peers. Holds always: a place is told once; there are no more of them than a cap.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::events::{Damage, DamagedPart};
use crate::ids::ReplicaId;

use super::wire::STREAMS_MAX;

/// The most damaged places that are remembered. Further ones are found again when the ones before them are mended.
const PLACES_MAX: usize = 4096;

/// The damaged places that are known.
#[derive(Debug, Default)]
pub(super) struct Damages {
    here: BTreeMap<(ReplicaId, u64), DamagedPart>,
    /// The streams whose heads are damaged: they go no further here.
    heads: BTreeSet<ReplicaId>,
    /// By peer and stream, the first commit that the peer cannot serve.
    ends: BTreeMap<(ReplicaId, ReplicaId), u64>,
}

impl Damages {
    /// Takes note of a damaged place here; returns whether it is news.
    pub(super) fn note(&mut self, damage: Damage) -> bool {
        if damage.part == DamagedPart::Head {
            self.heads.insert(damage.stream);
        }
        let (id, room) = ((damage.stream, damage.seq), self.here.len() < PLACES_MAX);
        let is_news = room && !self.here.contains_key(&id);
        // A place keeps the part that was told of it: whoever asks for a head must not find a row.
        if is_news {
            self.here.insert(id, damage.part);
        }
        is_news
    }

    /// Whether the head of a stream is the one that its log proves.
    pub(super) fn head_is_whole(&self, stream: ReplicaId) -> bool {
        !self.heads.contains(&stream)
    }

    /// The streams whose heads are damaged.
    pub(super) fn heads(&self) -> impl Iterator<Item = ReplicaId> {
        self.heads.iter().copied()
    }

    /// Takes note that the head of a stream is the right one again, and stands at `seq`: what was missed behind it is no
    /// damage.
    pub(super) fn head_is_mended(&mut self, stream: ReplicaId, seq: u64) {
        self.heads.remove(&stream);
        self.here.retain(|(other, at), part| *other != stream || *part != DamagedPart::Head && *at <= seq);
    }

    /// The first damaged place of a stream here behind `seq`.
    pub(super) fn first_behind(&self, stream: ReplicaId, seq: u64) -> Option<u64> {
        let behind = (stream, seq.saturating_add(1))..=(stream, u64::MAX);
        self.here.range(behind).next().map(|((_, seq), _)| *seq)
    }

    /// The first damaged place of a stream here.
    pub(super) fn first(&self, stream: ReplicaId) -> Option<Damage> {
        let all = (stream, 0)..=(stream, u64::MAX);
        self.here.range(all).next().map(|((_, seq), part)| Damage { stream, seq: *seq, part: *part })
    }

    /// Forgets the damage of places that are whole.
    pub(super) fn forget(&mut self, stream: ReplicaId, seqs: RangeInclusive<u64>) {
        let whole: Vec<_> =
            self.here.range((stream, *seqs.start())..=(stream, *seqs.end())).map(|(id, _)| *id).collect();
        for id in whole {
            self.here.remove(&id);
        }
    }

    /// Takes the word of a peer that it cannot serve a stream from the commit `seq` on.
    pub(super) fn ends_at(&mut self, peer: ReplicaId, stream: ReplicaId, seq: u64) {
        if self.ends.len() < STREAMS_MAX {
            self.ends.insert((peer, stream), seq);
        }
    }

    /// Forgets what a peer cannot serve: it may have been mended.
    pub(super) fn forget_ends(&mut self, peer: ReplicaId) {
        self.ends.retain(|(other, _), _| *other != peer);
    }

    /// Whether a peer cannot serve the commit of a stream behind `tip`.
    pub(super) fn has_ended(&self, peer: ReplicaId, stream: ReplicaId, tip: u64) -> bool {
        self.ends.get(&(peer, stream)).is_some_and(|end| *end <= tip.saturating_add(1))
    }

    /// The streams of which a peer cannot serve what stands behind the tip here.
    pub(super) fn ended(
        &self,
        peer: ReplicaId,
        tip: impl Fn(ReplicaId) -> u64,
    ) -> impl Iterator<Item = ReplicaId> {
        let all = self.ends.range((peer, ReplicaId::MIN)..=(peer, ReplicaId::MAX));
        let ended = all.filter(move |((_, stream), end)| **end <= tip(*stream).saturating_add(1));
        ended.map(|((_, stream), _)| *stream)
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{B, C, ME};
    use super::*;

    fn row(stream: ReplicaId, seq: u64) -> Damage {
        Damage { stream, seq, part: DamagedPart::Row }
    }

    #[test]
    fn a_place_is_told_once_and_ends_its_stream_for_whoever_needs_it() {
        let mut damages = Damages::default();
        assert!(damages.note(row(B, 5)) && !damages.note(row(B, 5)) && damages.note(row(B, 3)));
        assert_eq!(damages.first(B), Some(row(B, 3)));
        for (has, ends) in [(0, Some(3)), (2, Some(3)), (3, Some(5)), (5, None)] {
            assert_eq!(damages.first_behind(B, has), ends, "behind {has}");
        }
        assert_eq!((damages.first(C), damages.first_behind(C, 0)), (None, None));
        let head = Damage { part: DamagedPart::Head, ..row(C, 7) };
        assert!(damages.note(head) && !damages.note(row(C, 7)));
        assert_eq!(damages.first(C), Some(head), "what is told of a place stays");
    }

    #[test]
    fn a_peer_is_not_asked_for_what_it_said_that_it_cannot_serve() {
        let mut damages = Damages::default();
        damages.ends_at(B, ME, 5);
        damages.ends_at(C, ME, 2);
        for (tip, ended) in [(3, false), (4, true), (9, true)] {
            assert_eq!(damages.has_ended(B, ME, tip), ended, "{tip}");
            assert_eq!(damages.ended(B, |_| tip).count(), usize::from(ended), "{tip}");
        }
        assert!(!damages.has_ended(B, C, 9));
        damages.forget_ends(B);
        assert!(!damages.has_ended(B, ME, 9) && damages.has_ended(C, ME, 9));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut damages = Damages::default();
        let news = (0..=PLACES_MAX as u64).filter(|seq| damages.note(row(B, *seq))).count();
        (0..=STREAMS_MAX as u64).for_each(|n| damages.ends_at(B, super::super::made::replica(n.into()), 1));
        assert_eq!((news, damages.ends.len()), (PLACES_MAX, STREAMS_MAX));
    }
}
