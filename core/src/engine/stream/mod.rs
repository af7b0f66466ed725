//! The streams of other replicas: how far each is here, and what stops it.
//!
//! Owns: for each stream its tip (its head once everything that waits in the inbox is applied), its stop and the moment
//! to look at that again; and the proof that this store was restored, which stops the own stream. Holds always: a tip
//! is at or above its head; a stop stands at the commit behind the tip, but for a fork, which is final.

pub(super) mod admission;
pub(super) mod inbox;
mod stop;

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Mono;
use crate::events::{Restored, StreamStop};
use crate::hlc::Hlc;
use crate::ids::{GroupId, ReplicaId};
use crate::stored::{Digest, ForkRow, Head, Point};

use super::Machine;
use super::backoff::Backoff;
use super::context::Context;
use super::ledger::Ledger;
use stop::Stop;

/// The place of a stream once everything that waits is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) seq: u64,
    pub(super) stamp: Hlc,
    pub(super) digest: Digest,
}

impl Tip {
    fn of(head: &Head) -> Self {
        Self { seq: head.seq, stamp: head.stamp, digest: head.digest }
    }

    pub(super) const fn point(&self) -> Point {
        Point { seq: self.seq, digest: self.digest }
    }
}

/// One stream.
#[derive(Debug)]
struct Stream {
    tip: Tip,
    stop: Option<Stop>,
    /// Whether its held commits are let through, until its stamps are within the drift bound again.
    released: bool,
    /// The pause after a projection or the store refused its next commit.
    backoff: Backoff,
}

/// The streams of others, and whether the own one may go on.
#[derive(Debug)]
pub(super) struct Streams {
    group: GroupId,
    streams: BTreeMap<ReplicaId, Stream>,
    /// The streams whose tip is above their head.
    waiting: BTreeSet<ReplicaId>,
    /// The streams that are stopped.
    stopped: BTreeSet<ReplicaId>,
    /// The streams whose next commit could not be applied, until it is: it is asked for and written alone.
    tried_again: BTreeSet<ReplicaId>,
    /// The proof that this store was restored or cloned.
    restored: Option<Restored>,
    /// The proof that a stream has two histories; of the own one, that this store was restored.
    proofs: BTreeMap<ReplicaId, ForkRow>,
}

/// A change of a stream that the app is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Stopped(ReplicaId, StreamStop),
    Resumed(ReplicaId),
}

impl Streams {
    /// The streams of an opened store: the tip of each is its head.
    pub(super) fn opened(me: ReplicaId, ledger: &Ledger) -> Self {
        let mut all = Self {
            group: ledger.group(),
            streams: BTreeMap::new(),
            waiting: BTreeSet::new(),
            stopped: BTreeSet::new(),
            tried_again: BTreeSet::new(),
            restored: None,
            proofs: BTreeMap::new(),
        };
        for (stream, head) in ledger.heads().iter().filter(|(stream, _)| **stream != me) {
            all.entry(*stream).tip = Tip::of(head);
        }
        all
    }

    fn entry(&mut self, stream: ReplicaId) -> &mut Stream {
        let group = self.group;
        self.streams.entry(stream).or_insert_with(|| Stream {
            tip: Tip::of(&Head::start(group, stream)),
            stop: None,
            released: false,
            backoff: Backoff::default(),
        })
    }

    pub(super) fn tip(&self, stream: ReplicaId) -> Tip {
        self.streams
            .get(&stream)
            .map_or_else(|| Tip::of(&Head::start(self.group, stream)), |stream| stream.tip)
    }

    /// The tips of all streams that have a commit, here or in the inbox.
    pub(super) fn tips(&self) -> impl Iterator<Item = (ReplicaId, Tip)> {
        self.streams.iter().map(|(id, stream)| (*id, stream.tip)).filter(|(_, tip)| tip.seq > 0)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ReplicaId> {
        self.streams.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn contains(&self, stream: ReplicaId) -> bool {
        self.streams.contains_key(&stream)
    }

    // --- going on ---------------------------------------------------------------------------------------------------

    /// Takes note of a commit that went into the inbox: its stream goes on from there, if it was stopped.
    pub(super) fn advance(&mut self, stream: ReplicaId, tip: Tip) -> Option<Told> {
        let entry = self.entry(stream);
        debug_assert_eq!(tip.seq, entry.tip.seq.max(tip.seq), "a tip rises");
        entry.tip = tip;
        self.waiting.insert(stream);
        self.end_stop(stream)
    }

    /// Takes note of the right head of a stream whose head was damaged: nothing of it waits.
    pub(super) fn mend(&mut self, stream: ReplicaId, head: &Head) {
        self.entry(stream).tip = Tip::of(head);
    }

    /// Takes note of the head that a stream has by a snapshot: nothing of it waits, and what stopped it is passed.
    pub(super) fn installed(&mut self, stream: ReplicaId, head: &Head) -> Option<Told> {
        let is_final =
            self.streams.get(&stream).and_then(|stream| stream.stop.as_ref()).is_some_and(Stop::is_final);
        let entry = self.entry(stream);
        entry.tip = Tip::of(head);
        entry.backoff.reset();
        self.tried_again.remove(&stream);
        if is_final { None } else { self.end_stop(stream) }
    }

    /// Takes note that no commit waits any more: all tips are heads.
    pub(super) fn settled(&mut self) {
        self.waiting.clear();
    }

    /// Takes note that the inbox was let go: tips fall back to the heads.
    ///
    /// Returns the streams that fell, and those that go on. A stop behind a commit that is not here any more ends: it
    /// would keep that commit from being asked for again.
    pub(super) fn fall_back(&mut self, ledger: &Ledger) -> (Vec<ReplicaId>, Vec<Told>) {
        let mut told = Vec::new();
        let fell: Vec<_> = std::mem::take(&mut self.waiting).into_iter().collect();
        for stream in &fell {
            let head = ledger.head(*stream);
            let entry = self.entry(*stream);
            let stands = entry.stop.as_ref().is_none_or(|stop| stop.is_final() || stop.seq() == head.seq + 1);
            entry.tip = Tip::of(&head);
            if !stands {
                told.extend(self.end_stop(*stream));
            }
        }
        (fell, told)
    }

    /// Takes note that commits of these streams are durable: the next failure begins with a short pause again. Returns
    /// whether one of them was tried again, so that pulls excluded it until now.
    pub(super) fn applied(&mut self, streams: impl IntoIterator<Item = ReplicaId>) -> bool {
        let mut was_excluded = false;
        for id in streams {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.backoff.reset();
            }
            was_excluded |= self.tried_again.remove(&id);
        }
        was_excluded
    }

    /// Whether the next commit of any stream is tried again.
    pub(super) fn any_tried_again(&self) -> bool {
        !self.tried_again.is_empty()
    }

    /// Whether the next commit of a stream could not be applied the last time.
    pub(super) fn is_tried_again(&self, stream: ReplicaId) -> bool {
        self.tried_again.contains(&stream)
    }

    /// Whether commits of a stream wait in the inbox.
    pub(super) fn waits(&self, stream: ReplicaId) -> bool {
        self.waiting.contains(&stream)
    }

    // --- invariants -------------------------------------------------------------------------------------------------

    pub(super) fn check_against(&self, ledger: &Ledger, context: &Context) {
        for (id, stream) in &self.streams {
            let head = ledger.head(*id);
            assert!(stream.tip.seq >= head.seq, "{id}: the tip {:?} is behind {head:?}", stream.tip);
            if !self.waiting.contains(id) {
                assert_eq!(stream.tip, Tip::of(&head), "{id}: nothing of it waits");
            }
            if let Some(stop) = stream.stop.as_ref().filter(|stop| !stop.is_final()) {
                let next = stream.tip.seq + 1;
                let holes = !context.rules.streams_have_no_holes;
                assert!(stop.seq() == next || holes, "{id} stops at {}, its next is {next}", stop.seq());
            }
        }
        for id in ledger.heads().keys().filter(|id| **id != context.me()) {
            assert!(self.streams.contains_key(id), "{id} has a head and is no stream");
        }
    }
}

impl Machine for Streams {
    fn next_timeout(&self) -> Option<Mono> {
        self.stopped.iter().filter_map(|id| self.streams.get(id)?.look_again_at()).min()
    }

    fn expire(&mut self, now: Mono) {
        for id in &self.stopped {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.expire(now);
            }
        }
    }

    fn check(&self) {
        for (id, stream) in &self.streams {
            assert_eq!(stream.stop.is_some(), self.stopped.contains(id), "{id}: {stream:?}");
            assert_eq!(stream.backoff.tries() > 0, self.tried_again.contains(id), "{id}: {stream:?}");
        }
        assert!(self.stopped.iter().chain(&self.waiting).all(|id| self.streams.contains_key(id)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{B, C, ME, complaint, context, head, ledger, now, stamp};
    use super::*;

    const HELD: StreamStop = StreamStop::Held { seq: 7, stamp: Hlc::NEVER };

    fn tip(seq: u64) -> Tip {
        Tip::of(&head(B, seq))
    }

    /// A store that has five commits of `B` and none of `C`, and its streams.
    fn opened() -> (Ledger, Streams) {
        let ledger = ledger([(ME, head(ME, 3)), (B, head(B, 5))]);
        let streams = Streams::opened(ME, &ledger);
        check(&streams, &ledger);
        (ledger, streams)
    }

    fn check(streams: &Streams, ledger: &Ledger) {
        streams.check();
        streams.check_against(ledger, &context());
    }

    /// Stops the stream of `B`, as `from` says.
    fn stop(streams: &mut Streams, from: ReplicaId, reason: StreamStop) {
        assert!(streams.stop(B, from, reason, &now(0), &context()).is_some());
    }

    fn refused(seq: u64) -> StreamStop {
        StreamStop::Refused { seq, reason: "no".into() }
    }

    #[test]
    fn a_stream_is_as_far_as_its_head_when_a_store_is_opened() {
        let (_, streams) = opened();
        assert_eq!((streams.tip(B), streams.tip(C).seq), (tip(5), 0));
        assert_eq!(streams.ids().collect::<Vec<_>>(), [B], "the own stream is none of others");
        assert!(streams.len() == 1 && streams.contains(B) && !streams.contains(ME));
        assert_eq!((streams.next_timeout(), streams.restored()), (None, None));
    }

    #[test]
    fn a_tip_is_ahead_of_its_head_by_what_waits() {
        let (mut ledger, mut streams) = opened();
        for seq in [6, 7] {
            assert_eq!(streams.advance(B, tip(seq)), None);
            check(&streams, &ledger);
        }
        ledger.apply(vec![(B, head(B, 6))], stamp(7, ME));
        check(&streams, &ledger);
        ledger.apply(vec![(B, head(B, 7))], stamp(7, ME));
        streams.settled();
        check(&streams, &ledger);
        assert_eq!(streams.tips().collect::<Vec<_>>(), [(B, tip(7))]);
        assert_eq!(streams.fall_back(&ledger), (vec![], vec![]), "nothing of it waits");
        assert!(complaint(|| streams.advance(B, tip(6))).is_some(), "a tip rises");
    }

    #[test]
    fn tips_fall_back_to_the_heads_when_what_waited_is_let_go() {
        let (ledger, mut streams) = opened();
        streams.advance(B, tip(6));
        streams.advance(C, Tip::of(&head(C, 1)));
        assert_eq!(streams.fall_back(&ledger), (vec![B, C], vec![]));
        check(&streams, &ledger);
        assert_eq!((streams.tip(B), streams.tip(C).seq), (tip(5), 0));
        assert_eq!(streams.tips().count(), 1, "a stream of which nothing is here has no tip to tell");
        assert_eq!(streams.fall_back(&ledger), (vec![], vec![]), "nothing waits any longer");
    }

    /// A stop behind a commit that is let go would keep that commit from being asked for again.
    #[test]
    fn a_stop_goes_with_the_commits_before_it() {
        let cases = [
            ("a stop behind what waited", Some(7), refused(7), false),
            ("a fork, which is final", Some(6), StreamStop::Forked { seq: 4 }, true),
            ("a stop at the next commit", None, refused(6), true),
        ];
        for (name, waits, reason, stays) in cases {
            let (ledger, mut streams) = opened();
            if let Some(seq) = waits {
                streams.advance(B, tip(seq - 1));
            }
            stop(&mut streams, B, reason.clone());
            check(&streams, &ledger);
            let (_, told) = streams.fall_back(&ledger);
            assert_eq!(told.is_empty(), stays, "{name}");
            assert_eq!(streams.stop_of(B).cloned(), Some(reason).filter(|_| stays), "{name}");
            check(&streams, &ledger);
        }
    }

    /// All that waited of the stream is durable, and something of another stream still waits.
    #[test]
    fn a_stop_right_behind_the_head_stays_when_tips_fall_back() {
        let (mut ledger, mut streams) = opened();
        streams.advance(B, tip(6));
        streams.advance(C, Tip::of(&head(C, 1)));
        ledger.apply(vec![(B, head(B, 6))], stamp(6, ME));
        stop(&mut streams, B, refused(7));
        check(&streams, &ledger);
        assert_eq!(streams.fall_back(&ledger), (vec![B, C], vec![]));
        assert_eq!((streams.stop_of(B), streams.tip(B)), (Some(&refused(7)), tip(6)));
        check(&streams, &ledger);
    }

    #[test]
    fn a_stream_goes_on_with_the_commit_that_its_author_sent() {
        let (ledger, mut streams) = opened();
        stop(&mut streams, C, StreamStop::Refused { seq: 6, reason: "no".into() });
        assert_eq!(streams.advance(B, tip(6)), Some(Told::Resumed(B)));
        assert!(streams.stop_of(B).is_none() && streams.advance(B, tip(7)).is_none());
        check(&streams, &ledger);
    }

    #[test]
    fn the_check_finds_what_must_never_be() {
        type Break = fn(&mut Ledger, &mut Streams);
        let breaks: [(&str, Break); 7] = [
            ("a tip behind its head", |_, streams| {
                streams.waiting.insert(B);
                streams.entry(B).tip = tip(4);
            }),
            ("a tip that is no head, and nothing waits", |_, streams| streams.entry(B).tip = tip(6)),
            ("a stop far behind the tip", |_, streams| stop(streams, B, HELD)),
            ("a head of no stream", |ledger, _| ledger.apply(vec![(C, head(C, 1))], stamp(5, ME))),
            ("a stop that nobody looks at", |_, streams| {
                stop(streams, B, refused(6));
                streams.stopped.clear();
            }),
            ("a stream that stops for no reason", |_, streams| _ = streams.stopped.insert(B)),
            ("no stream, and something of it waits", |_, streams| _ = streams.waiting.insert(C)),
        ];
        for (name, broken) in breaks {
            let (mut ledger, mut streams) = opened();
            broken(&mut ledger, &mut streams);
            assert!(complaint(|| check(&streams, &ledger)).is_some(), "{name}");
        }
        let (ledger, mut streams) = opened();
        stop(&mut streams, B, StreamStop::Forked { seq: 2 });
        check(&streams, &ledger);
        let mut context = context();
        context.rules.streams_have_no_holes = false;
        streams.entry(B).stop = None;
        stop(&mut streams, B, HELD);
        streams.check_against(&ledger, &context);
    }
}
