//! Why a stream goes no further here, and when that is looked at again; what proves that this store was restored.
//!
//! A stop is about one stream and leaves all others alone. A commit that another than its author sent stops a stream only
//! until its author sends the same place, since it may have been made up. Two histories stop it for good, whoever says
//! so: without signatures a member is taken at its word.

use crate::clock::{Mono, Now};
use crate::events::{Restored, StreamStop};
use crate::hlc::Hlc;
use crate::ids::ReplicaId;

use super::super::backoff::after;
use super::super::context::Context;
use super::super::ledger::Ledger;
use super::{Stream, Streams, Told};

/// How often a held stream is looked at again at least: the wall clock may step.
const HELD_RETRY_MS: u64 = 10_000;
/// And how often at most, should the wall clock stand still.
const HELD_RETRY_MS_MIN: u64 = 250;

/// A stream that goes no further here.
#[derive(Debug)]
pub(super) struct Stop {
    reason: StreamStop,
    /// Who sent the commit that stops it; the author itself, if something else does.
    from: ReplicaId,
    /// For a held stream, when to compare its stamp with the wall clock again. `None` once that moment has come.
    look_at: Option<Mono>,
}

impl Stop {
    /// Whether nothing ends it.
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
    /// When time alone may end the stop.
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

    /// Where the stream has two histories.
    pub(in crate::engine) fn fork_of(&self, stream: ReplicaId) -> Option<u64> {
        match self.stop_of(stream) {
            Some(StreamStop::Forked { seq }) => Some(*seq),
            _ => None,
        }
    }

    /// A commit that `from` sent stops its stream. A fork stays as it is: nothing mends it.
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

    /// The next commit of a stream could not be applied: it is tried again after a pause.
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

    /// Lets the held commits of a stream through, until its stamps are within the bound again; `None` if none is held.
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

    /// The stamps of a stream are within the bound: beyond it, it is held again.
    pub(in crate::engine) fn is_within_bound(&mut self, stream: ReplicaId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.released = false;
        }
    }

    /// The streams whose stop time has ended. A held one that is still too far ahead is looked at again later.
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

    /// How this replica learned that its store was restored or cloned.
    pub(in crate::engine) fn restored(&self) -> Option<Restored> {
        self.restored
    }

    /// Whether what was written here since the store was restored may contradict what others have of the own stream.
    pub(in crate::engine) fn has_two_histories(&self, me: ReplicaId) -> bool {
        self.restored.is_some_and(|restored| restored.stream == me)
    }

    /// Takes a proof that this store was restored or cloned; says whether it says more than what was known. That the own
    /// stream has another history is what more rests on than on any other proof.
    pub(in crate::engine) fn take_proof(&mut self, proof: Restored, me: ReplicaId) -> bool {
        let known = self.restored.is_some() && (proof.stream != me || self.has_two_histories(me));
        if !known {
            self.restored = Some(proof);
        }
        !known
    }

    /// What a store says of a stream with two histories.
    pub(in crate::engine) fn remember_fork(&mut self, stream: ReplicaId, seq: u64) {
        self.stopped.insert(stream);
        let stop = Stop { reason: StreamStop::Forked { seq }, from: stream, look_at: None };
        self.entry(stream).stop = Some(stop);
    }
}

/// When to compare a held stamp with the wall clock again: once it should be within the bound.
fn look_at(stamp: Hlc, now: &Now, context: &Context) -> Mono {
    let wait_ms = now.wall.as_ref().map_or(HELD_RETRY_MS, |wall| {
        let tolerated = wall.saturating_add(context.limits.max_drift_ms);
        stamp.wall().get().saturating_sub(tolerated.get())
    });
    after(now.mono, wait_ms.clamp(HELD_RETRY_MS_MIN, HELD_RETRY_MS))
}
