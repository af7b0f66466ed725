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
        match self.reason {
            StreamStop::Held { seq, .. }
            | StreamStop::Projection { seq, .. }
            | StreamStop::NotStored { seq, .. }
            | StreamStop::Forked { seq }
            | StreamStop::Refused { seq, .. } => seq,
        }
    }
}

impl Stream {
    /// The moment at which time alone may end the stop.
    pub(super) fn look_again_at(&self) -> Option<Mono> {
        let stop = self.stop.as_ref()?;
        match stop.reason {
            StreamStop::Held { .. } => stop.look_at,
            StreamStop::Projection { .. } | StreamStop::NotStored { .. } => self.backoff.until(),
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
            StreamStop::Projection { .. } | StreamStop::NotStored { .. } => self.backoff.is_over(),
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

    /// The streams that go no further here, whatever `from` sends of them.
    pub(in crate::engine) fn stopped_for(&self, from: ReplicaId) -> impl Iterator<Item = ReplicaId> {
        self.stopped.iter().copied().filter(move |stream| self.is_stopped_for(*stream, from))
    }

    pub(in crate::engine) fn is_forked(&self, stream: ReplicaId) -> bool {
        self.streams.get(&stream).and_then(|stream| stream.stop.as_ref()).is_some_and(Stop::is_final)
    }

    /// The place at which the stream has two histories, if it has.
    pub(in crate::engine) fn fork_of(&self, stream: ReplicaId) -> Option<u64> {
        match self.stop_of(stream) {
            Some(StreamStop::Forked { seq }) => Some(*seq),
            _ => None,
        }
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

    /// Takes the fork of a stream from the store.
    pub(in crate::engine) fn remember_fork(&mut self, stream: ReplicaId, seq: u64) {
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
