//! Stops: why a stream goes no further here, and when that is looked at again; and the proof that this store was
//! restored.
//!
//! A stop is about one stream and leaves all others alone. A commit that a peer other than its author sent may have
//! been made up, so it stops a stream only until the author sends the same place. Two histories stop it for good,
//! whichever peer shows them: without signatures a member is taken at its word.
//!
//! Holds always: a fork never ends; only a held stream has a moment to compare its stamp with the wall clock.

use crate::clock::{Mono, Now};
use crate::events::{Restored, StreamStop};
use crate::hlc::Hlc;
use crate::ids::ReplicaId;
use crate::stored::ForkRow;

use super::super::backoff::after;
use super::super::context::Context;
use super::super::ledger::Ledger;
use super::{Stream, Streams, Told};

/// The longest time until a held stream is looked at again, since the wall clock may step.
const HELD_RETRY_MS: u64 = 10_000;
/// The shortest such time, in case the wall clock stands still.
const HELD_RETRY_MS_MIN: u64 = 250;

/// A stream that goes no further here.
#[derive(Debug)]
pub(super) struct Stop {
    reason: StreamStop,
    /// The peer that sent the commit at which the stream stops; the author itself, if the stop has another reason.
    from: ReplicaId,
    /// For a held stream, the moment to compare its stamp with the wall clock again; `None` once it has come.
    look_at: Option<Mono>,
}

impl Stop {
    /// Whether nothing ends the stop.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.reason, StreamStop::Forked { .. })
    }

    /// The commit at which the stream stops.
    pub(super) fn seq(&self) -> u64 {
        self.reason.seq()
    }
}

impl Stream {
    /// The moment at which time alone may end the stop.
    pub(super) fn look_again_at(&self) -> Option<Mono> {
        let stop = self.stop.as_ref()?;
        match stop.reason {
            StreamStop::Held { .. } => stop.look_at,
            StreamStop::NotStored { .. } => self.backoff.until(),
            StreamStop::Forked { .. } | StreamStop::Refused { .. } => None,
        }
    }

    pub(super) fn expire(&mut self, now: Mono) {
        self.backoff.expire(now);
        if let Some(stop) = &mut self.stop {
            stop.look_at.take_if(|at| *at <= now);
        }
    }

    /// Whether the moment has come to look at the stop again.
    fn is_due(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| match stop.reason {
            StreamStop::Held { .. } => stop.look_at.is_none(),
            StreamStop::NotStored { .. } => self.backoff.is_over(),
            StreamStop::Forked { .. } | StreamStop::Refused { .. } => false,
        })
    }
}

impl Streams {
    pub(in crate::engine) fn stop_of(&self, stream: ReplicaId) -> Option<&StreamStop> {
        self.streams.get(&stream)?.stop.as_ref().map(|stop| &stop.reason)
    }

    /// Whether a stream goes no further here, whatever `from` sends of it.
    pub(in crate::engine) fn is_stopped_for(&self, stream: ReplicaId, from: ReplicaId) -> bool {
        let stop = self.streams.get(&stream).and_then(|stream| stream.stop.as_ref());
        stop.is_some_and(|stop| stop.from == stream || from != stream)
    }

    /// The streams of which no page is asked of `from`: those that go no further here, whatever it sends of them, and
    /// those whose next commit is asked for alone.
    pub(in crate::engine) fn left_out_for(&self, from: ReplicaId) -> impl Iterator<Item = ReplicaId> {
        let all = self.stopped.union(&self.tried_again).copied();
        all.filter(move |stream| self.is_tried_again(*stream) || self.is_stopped_for(*stream, from))
    }

    pub(in crate::engine) fn is_forked(&self, stream: ReplicaId) -> bool {
        self.streams.get(&stream).and_then(|stream| stream.stop.as_ref()).is_some_and(Stop::is_final)
    }

    /// Stops a stream at a commit that `from` sent. A fork stays as it is, since nothing mends it.
    pub(in crate::engine) fn stop(
        &mut self,
        stream: ReplicaId,
        from: ReplicaId,
        reason: StreamStop,
        now: &Now,
        context: &Context,
    ) -> Option<Told> {
        if self.is_forked(stream) {
            return None;
        }
        let look_at = match reason {
            StreamStop::Held { stamp, .. } => Some(look_at(stamp, now, context)),
            _ => None,
        };
        self.stopped.insert(stream);
        let before = self.entry(stream).stop.replace(Stop { reason: reason.clone(), from, look_at });
        let news = before.is_none_or(|before| before.reason != reason);
        news.then_some(Told::Stopped(stream, reason))
    }

    /// Stops a stream whose next commit could not be applied: it is tried again after a pause.
    pub(in crate::engine) fn put_off(
        &mut self,
        stream: ReplicaId,
        reason: StreamStop,
        now: &Now,
        context: &Context,
        rng: &mut fastrand::Rng,
    ) -> Option<Told> {
        self.entry(stream).backoff.again(now.mono, rng);
        self.tried_again.insert(stream);
        self.stop(stream, stream, reason, now, context)
    }

    /// Ends the stop of a stream.
    pub(super) fn end_stop(&mut self, stream: ReplicaId) -> Option<Told> {
        let ended = self.streams.get_mut(&stream)?.stop.take();
        self.stopped.remove(&stream);
        ended.map(|_| Told::Resumed(stream))
    }

    /// Lets the held commits of a stream through, until its stamps are within the bound again; `None` if the stream is
    /// not held.
    pub(in crate::engine) fn release(&mut self, stream: ReplicaId) -> Option<Told> {
        if !matches!(self.stop_of(stream), Some(StreamStop::Held { .. })) {
            return None;
        }
        self.entry(stream).released = true;
        self.end_stop(stream)
    }

    pub(in crate::engine) fn is_released(&self, stream: ReplicaId) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.released)
    }

    /// Lets the commits of a stream through, or no more, as it is done elsewhere.
    pub(in crate::engine) fn follow_release(&mut self, stream: ReplicaId, released: bool) {
        if released || self.is_released(stream) {
            self.entry(stream).released = released;
        }
    }

    /// Takes note that a stamp of a stream is within the bound: a later one beyond it holds the stream again.
    pub(in crate::engine) fn is_within_bound(&mut self, stream: ReplicaId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.released = false;
        }
    }

    /// Ends the stops whose time has come. A held stream that is still too far ahead is looked at again later.
    pub(in crate::engine) fn resume_due(
        &mut self,
        now: &Now,
        ledger: &Ledger,
        context: &Context,
    ) -> Vec<Told> {
        let mut told = Vec::new();
        let is_due = |id: &ReplicaId| self.streams.get(id).is_some_and(Stream::is_due);
        let due: Vec<_> = self.stopped.iter().copied().filter(is_due).collect();
        for id in due {
            let stop = self.streams.get_mut(&id).and_then(|stream| stream.stop.as_mut());
            match stop {
                Some(Stop { reason: StreamStop::Held { stamp, .. }, look_at: later, .. })
                    if !ledger.is_within_drift(*stamp, now) =>
                {
                    *later = Some(look_at(*stamp, now, context));
                }
                _ => told.extend(self.end_stop(id)),
            }
        }
        told
    }

    // --- two histories ----------------------------------------------------------------------------------------------

    /// The proof that this store was restored or cloned.
    pub(in crate::engine) fn restored(&self) -> Option<Restored> {
        self.restored
    }

    /// Whether commits written here since the restore may contradict what others have of the own stream.
    pub(in crate::engine) fn has_two_histories(&self, me: ReplicaId) -> bool {
        self.restored.is_some_and(|restored| restored.stream == me)
    }

    /// Takes a proof that this store was restored or cloned; returns whether it says more than the known one. A proof
    /// on the own stream says the most: it hides that stream from peers.
    pub(in crate::engine) fn take_proof(&mut self, proof: Restored, me: ReplicaId) -> bool {
        let known = self.restored.is_some() && (proof.stream != me || self.has_two_histories(me));
        if !known {
            self.restored = Some(proof);
        }
        !known
    }

    /// Takes the proof that a stream has two histories, or that this store was restored.
    pub(in crate::engine) fn prove(&mut self, stream: ReplicaId, proof: ForkRow) {
        self.proofs.insert(stream, proof);
    }

    /// The proof that a stream has two histories; of the own one, that this store was restored.
    pub(in crate::engine) fn proof_of(&self, stream: ReplicaId) -> Option<&ForkRow> {
        self.proofs.get(&stream)
    }

    /// Takes the fork of a stream from the store.
    pub(in crate::engine) fn remember_fork(&mut self, stream: ReplicaId, proof: ForkRow) {
        let seq = proof.seq;
        self.prove(stream, proof);
        self.stopped.insert(stream);
        let stop = Stop { reason: StreamStop::Forked { seq }, from: stream, look_at: None };
        self.entry(stream).stop = Some(stop);
    }
}

/// The moment to compare the stamp of a held stream with the wall clock again: once it should be within the bound.
fn look_at(stamp: Hlc, now: &Now, context: &Context) -> Mono {
    let wait_ms = now.wall.as_ref().map_or(HELD_RETRY_MS, |wall| {
        let tolerated = wall.saturating_add(context.limits.max_drift_ms);
        stamp.wall().get().saturating_sub(tolerated.get())
    });
    after(now.mono, wait_ms.clamp(HELD_RETRY_MS_MIN, HELD_RETRY_MS))
}

#[cfg(test)]
mod tests {
    use crate::clock::{ClockError, WallMs};

    use super::super::super::Machine;
    use super::super::super::made::{B, C, ME, complaint, context, head, ledger, now, stamp};
    use super::*;

    fn opened() -> (Ledger, Streams) {
        let ledger = ledger([(B, head(B, 5)), (C, head(C, 5))]);
        let streams = Streams::opened(ME, &ledger);
        (ledger, streams)
    }

    /// A stream that is stopped at 1000 ms, as `from` says.
    fn stopped(from: ReplicaId, reason: StreamStop) -> Streams {
        let (_, mut streams) = opened();
        assert_eq!(
            streams.stop(B, from, reason.clone(), &now(1000), &context()),
            Some(Told::Stopped(B, reason))
        );
        streams.check();
        streams
    }

    /// A commit of `B` that is stamped `ms` beyond what is tolerated at 1000 ms.
    fn held(ms: u64) -> StreamStop {
        StreamStop::Held { seq: 6, stamp: stamp(1000 + context().limits.max_drift_ms + ms, B) }
    }

    const FORKED: StreamStop = StreamStop::Forked { seq: 4 };

    fn refused() -> StreamStop {
        StreamStop::Refused { seq: 6, reason: "no".into() }
    }

    fn not_stored() -> StreamStop {
        StreamStop::NotStored { seq: 6, error: "full".into() }
    }

    /// Lets time pass, and takes the streams up again that are due.
    fn pass(streams: &mut Streams, ms: u64) -> Vec<Told> {
        streams.expire(Mono(ms));
        let told = streams.resume_due(&now(ms), &opened().0, &context());
        streams.check();
        assert!(streams.next_timeout().is_none_or(|at| at.0 > ms), "what is due is no moment to wait for");
        told
    }

    #[test]
    fn a_held_stream_is_looked_at_when_its_stamp_should_be_within_the_bound() {
        for (ahead, wait) in [(1, 250), (250, 250), (251, 251), (9_999, 9_999), (10_001, 10_000)] {
            let streams = stopped(B, held(ahead));
            assert_eq!(streams.next_timeout(), Some(Mono(1000 + wait)), "{ahead} ms beyond the bound");
        }
        let (_, mut streams) = opened();
        let unknown = Now { wall: Err(ClockError::Before1970), mono: Mono(1000) };
        streams.stop(B, B, held(1), &unknown, &context());
        assert_eq!(streams.next_timeout(), Some(Mono(11_000)), "nobody can tell the time");
    }

    /// The wall clock need not move as the timer does.
    #[test]
    fn a_held_stream_goes_on_when_its_stamp_is_within_the_bound_and_no_sooner() {
        let mut streams = stopped(B, held(500));
        assert_eq!(pass(&mut streams, 1499), []);
        streams.expire(Mono(1500));
        let (ledger, slow) = (opened().0, Now { wall: WallMs::new(1400), mono: Mono(1500) });
        assert_eq!(streams.resume_due(&slow, &ledger, &context()), []);
        assert_eq!(streams.next_timeout(), Some(Mono(1750)), "it is looked at again");
        assert_eq!(pass(&mut streams, 1749), []);
        assert_eq!(pass(&mut streams, 1750), [Told::Resumed(B)]);
        assert_eq!((streams.stop_of(B), streams.next_timeout()), (None, None));
    }

    #[test]
    fn a_commit_that_was_not_taken_is_tried_again_after_ever_longer_pauses() {
        let (mut rng, mut at, mut waits) = (fastrand::Rng::with_seed(3), 1000, Vec::new());
        let (_, mut streams) = opened();
        for _ in 0..4 {
            let told = streams.put_off(B, not_stored(), &now(at), &context(), &mut rng);
            assert_eq!(told, Some(Told::Stopped(B, not_stored())));
            let until = streams.next_timeout().unwrap();
            assert_eq!(pass(&mut streams, until.0 - 1), []);
            assert_eq!(pass(&mut streams, until.0), [Told::Resumed(B)]);
            waits.push(until.0 - at);
            at = until.0;
        }
        assert!(waits.is_sorted() && waits[3] >= 1500, "{waits:?}");
        streams.applied([B]);
        streams.put_off(B, not_stored(), &now(at), &context(), &mut rng);
        assert!(streams.next_timeout().unwrap().0 - at < 400, "after one that was taken");
    }

    #[test]
    fn time_alone_ends_neither_a_fork_nor_a_refusal() {
        for reason in [FORKED, refused()] {
            let mut streams = stopped(B, reason.clone());
            assert_eq!(streams.next_timeout(), None);
            assert_eq!((pass(&mut streams, 1 << 40), streams.stop_of(B)), (vec![], Some(&reason)));
        }
    }

    /// Only the streams that are due go on, and each is looked at when it says.
    #[test]
    fn the_first_stream_to_look_at_is_the_one_to_wait_for() {
        let mut streams = stopped(B, held(9_000));
        let of_c = StreamStop::Held { seq: 6, stamp: stamp(1000 + context().limits.max_drift_ms + 600, C) };
        streams.stop(C, C, of_c, &now(1000), &context());
        assert_eq!(streams.next_timeout(), Some(Mono(1600)));
        assert_eq!(pass(&mut streams, 1600), [Told::Resumed(C)]);
        assert_eq!(streams.next_timeout(), Some(Mono(10_000)));
    }

    // --- whose word stops a stream ----------------------------------------------------------------------------------

    #[test]
    fn a_stop_by_another_ends_with_the_word_of_the_author() {
        let streams = stopped(C, refused());
        let stopped_for = |streams: &Streams| [B, C].map(|from| streams.is_stopped_for(B, from));
        assert_eq!(stopped_for(&streams), [false, true]);
        assert_eq!(streams.left_out_for(B).chain(streams.left_out_for(C)).collect::<Vec<_>>(), [B]);
        let mut streams = streams;
        assert_eq!(streams.stop(B, B, refused(), &now(1000), &context()), None, "the same is no news");
        assert_eq!(stopped_for(&streams), [true, true], "its author has said so too");
        assert!(!streams.is_stopped_for(C, B) && streams.left_out_for(ME).count() == 1);
        assert!(streams.stop(B, B, held(1), &now(1000), &context()).is_some(), "another reason is");
    }

    #[test]
    fn two_histories_stop_a_stream_for_good() {
        let mut remembered = opened().1;
        let proof = ForkRow { stream: B, seq: 4, by: C, there: [7; 32], here: None };
        remembered.remember_fork(B, proof);
        assert_eq!((remembered.proof_of(B), remembered.proof_of(C)), (Some(&proof), None));
        remembered.check();
        for mut streams in [stopped(B, FORKED), remembered] {
            assert!(streams.is_forked(B) && streams.is_stopped_for(B, B) && streams.is_stopped_for(B, C));
            for reason in [refused(), held(1), StreamStop::Forked { seq: 3 }] {
                assert_eq!(streams.stop(B, B, reason, &now(1000), &context()), None);
            }
            let mut rng = fastrand::Rng::with_seed(1);
            assert_eq!(streams.put_off(B, not_stored(), &now(1000), &context(), &mut rng), None);
            assert_eq!((streams.release(B), pass(&mut streams, 1 << 40)), (None, vec![]));
            assert_eq!(streams.stop_of(B), Some(&FORKED));
        }
        assert!(!stopped(B, refused()).is_forked(B));
    }

    #[test]
    fn only_a_held_stream_is_released_and_until_its_stamps_are_within_the_bound() {
        for reason in [FORKED, refused(), not_stored()] {
            let mut streams = stopped(B, reason);
            assert_eq!((streams.release(B), streams.is_released(B)), (None, false));
        }
        let mut streams = stopped(B, held(5_000));
        assert_eq!((streams.release(C), streams.release(ME)), (None, None));
        assert_eq!(streams.release(B), Some(Told::Resumed(B)));
        streams.check();
        assert!(streams.is_released(B) && streams.stop_of(B).is_none() && !streams.is_released(C));
        streams.is_within_bound(B);
        assert!(!streams.is_released(B));
    }

    // --- what proves that this store was restored -------------------------------------------------------------------

    #[test]
    fn the_first_proof_of_a_restore_counts_but_for_one_of_the_own_stream() {
        let (of_b, of_c) = (Restored { stream: B, seq: 3 }, Restored { stream: C, seq: 4 });
        let own = Restored { stream: ME, seq: 9 };
        let again = Restored { stream: ME, seq: 8 };
        let (_, mut streams) = opened();
        for (proof, news, known) in [
            (of_b, true, of_b),
            (of_c, false, of_b),
            (own, true, own),
            (again, false, own),
            (of_b, false, own),
        ] {
            assert_eq!((streams.take_proof(proof, ME), streams.restored()), (news, Some(known)));
            assert_eq!(streams.has_two_histories(ME), known == own);
        }
        assert!(complaint(|| streams.check()).is_none());
    }
}
