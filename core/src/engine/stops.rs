//! Why a stream goes no further here, and when it does again; what proves that this store was restored or cloned.
//!
//! A stop is about one stream and leaves all others alone. A commit that another than its author sent stops a stream only
//! until its author sends the same place, since it may have been made up. Two histories stop it for good, whoever says
//! so: without signatures a member is taken at its word.

use super::sync::Backoff;
use super::wire::Heads;
use super::{Effect, Engine, Mark, Side};
use crate::clock::Mono;
use crate::events::{Event, Restored, StreamStop};
use crate::hlc::Hlc;
use crate::ids::ReplicaId;
use crate::storage::{ReadError, Value};
use crate::stored::{Point, keys, log};

/// How often a held stream is looked at again at least: the wall clock may step.
const HELD_RETRY_MS: u64 = 10_000;
/// And how often at most, should the wall clock stand still.
const HELD_RETRY_MS_MIN: u64 = 250;

/// A stream that goes no further here.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) reason: StreamStop,
    /// Who sent the commit that stops it; the author itself, if something else does.
    from: ReplicaId,
}

impl Stop {
    /// A stop that its author cannot end either.
    pub(super) const fn of(stream: ReplicaId, reason: StreamStop) -> Self {
        Self { reason, from: stream }
    }
}

/// A place in a stream, as a peer knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) peer: ReplicaId,
    pub(super) stream: ReplicaId,
    pub(super) point: Point,
}

impl Engine {
    /// Whether a stream goes no further here, whatever `from` sends of it.
    pub(super) fn is_stopped_for(&self, stream: ReplicaId, from: ReplicaId) -> bool {
        self.sync.stops.get(&stream).is_some_and(|stop| stop.from == stream || from != stream)
    }

    fn is_forked(&self, stream: ReplicaId) -> bool {
        self.sync.stops.get(&stream).is_some_and(|stop| matches!(stop.reason, StreamStop::Forked { .. }))
    }

    /// A commit that `from` sent stops its stream.
    pub(super) fn stop_stream(&mut self, stream: ReplicaId, from: ReplicaId, reason: StreamStop) {
        // Nothing mends it.
        if self.is_forked(stream) {
            return;
        }
        match reason {
            StreamStop::Held { .. } => self.mark(Mark::Held),
            StreamStop::Forked { .. } => self.mark(Mark::Forked),
            StreamStop::Projection { .. } | StreamStop::NotStored { .. } | StreamStop::Refused { .. } => {}
        }
        let before = self.sync.stops.insert(stream, Stop { reason: reason.clone(), from });
        if before.is_none_or(|before| before.reason != reason) {
            self.tell(Event::Stopped { stream, reason });
        }
    }

    /// The next commit of a stream could not be applied: it is tried again later, and whatever came behind it is asked
    /// for now.
    pub(super) fn put_off(&mut self, stream: ReplicaId, reason: StreamStop) {
        self.sync.refusing.entry(stream).or_default().again(self.mono, &mut self.sync.rng);
        self.forget_received();
        self.stop_stream(stream, stream, reason);
        self.maybe_pull();
    }

    /// Lets the held commits of a stream through, until its stamps are within the bound again.
    pub(super) fn release(&mut self, stream: ReplicaId) -> bool {
        let stop = self.sync.stops.get(&stream);
        let held = stop.is_some_and(|stop| matches!(stop.reason, StreamStop::Held { .. }));
        if held {
            self.sync.released.insert(stream);
            self.resume(stream);
        }
        held
    }

    /// Asks again for what a stream stopped at.
    pub(super) fn resume(&mut self, stream: ReplicaId) {
        self.end_stop(stream);
        self.sync.peers.values_mut().for_each(|peer| peer.backoff.reset());
        self.maybe_pull();
    }

    /// The stream goes on, if it was stopped.
    pub(super) fn end_stop(&mut self, stream: ReplicaId) {
        if self.sync.stops.remove(&stream).is_some() {
            self.mark(Mark::Resumed);
            self.tell(Event::Resumed { stream });
        }
    }

    // --- time ----------------------------------------------------------------------------------------------------

    pub(super) fn streams_to_retry(&self) -> Vec<ReplicaId> {
        let due = self.sync.stops.iter().filter(|(stream, stop)| match stop.reason {
            StreamStop::Held { stamp, .. } => self.is_within_drift(stamp),
            StreamStop::Projection { .. } | StreamStop::NotStored { .. } => {
                self.sync.refusing.get(*stream).is_none_or(|backoff: &Backoff| backoff.is_over(self.mono))
            }
            StreamStop::Forked { .. } | StreamStop::Refused { .. } => false,
        });
        due.map(|(stream, _)| *stream).collect()
    }

    /// When to look at a stopped stream again, as the last reading of the clocks has it.
    pub(super) fn retry_at(&self, stream: ReplicaId, stop: &Stop) -> Option<Mono> {
        match stop.reason {
            StreamStop::Held { stamp, .. } => Some(self.retry_held_at(stamp)),
            StreamStop::Projection { .. } | StreamStop::NotStored { .. } => {
                self.sync.refusing.get(&stream).and_then(|backoff| backoff.until)
            }
            StreamStop::Forked { .. } | StreamStop::Refused { .. } => None,
        }
    }

    fn retry_held_at(&self, stamp: Hlc) -> Mono {
        let wait = self.pen.wall.as_ref().map_or(HELD_RETRY_MS, |now| {
            let tolerated = now.saturating_add(self.limits.max_drift_ms);
            stamp.wall().get().saturating_sub(tolerated.get())
        });
        Mono(self.mono.0.saturating_add(wait.clamp(HELD_RETRY_MS_MIN, HELD_RETRY_MS)))
    }

    /// Whether a stamp stands near enough to physical time. Nothing does if that cannot be told.
    pub(super) fn is_within_drift(&self, stamp: Hlc) -> bool {
        let wall = self.pen.wall.as_ref();
        wall.is_ok_and(|now| self.pen.clock.check_drift(stamp, *now).is_ok())
    }

    // --- two histories of one stream -------------------------------------------------------------------------------

    /// A stream has another history elsewhere: the own one, since this store was restored or cloned.
    pub(super) fn note_two_histories(&mut self, stream: ReplicaId, seq: u64) {
        if stream == self.me() {
            self.note_restored(stream, seq);
        } else {
            self.note_fork(stream, seq);
        }
    }

    /// A stream has two histories. It stops here, and whoever is asked says why.
    pub(super) fn note_fork(&mut self, stream: ReplicaId, seq: u64) {
        if self.is_forked(stream) || !self.rules.chains_are_checked {
            return;
        }
        self.stop_stream(stream, stream, StreamStop::Forked { seq });
        self.sync.unstored_forks.insert(stream);
        // Its writer learns of it from the digest here.
        if self.sync.peers.get(&stream).is_some_and(|peer| peer.up) {
            self.say_hello(stream);
        }
    }

    /// This store was restored or cloned: it must not go on writing a stream that another store may have written.
    pub(super) fn note_restored(&mut self, stream: ReplicaId, seq: u64) {
        // That the own stream has another history is what more rests on than on any other proof.
        let known = self.sync.restored.is_some() && (stream != self.me() || self.has_two_histories());
        if known || !self.rules.restores_are_noticed {
            return;
        }
        let restored = Restored { stream, seq };
        self.mark(Mark::Restored);
        self.sync.restored = Some(restored);
        self.sync.unstored_forks.insert(self.me());
        self.tell(Event::Restored(restored));
        self.refuse_pending();
        self.say_hello_to_all();
    }

    /// Whether what was written here since the store was restored may contradict what others have of this stream.
    pub(super) fn has_two_histories(&self) -> bool {
        let me = self.me();
        self.sync.restored.is_some_and(|restored| restored.stream == me)
    }

    /// Compares what a peer has of streams with what is here, where that is more.
    pub(super) fn check_places(&mut self, from: ReplicaId, heads: &Heads) {
        for head in &heads.0 {
            let Some(ours) = self.pen.heads.get(&head.stream).copied() else { continue };
            let inside = head.seq > 0 && head.seq >= ours.floor && head.seq < ours.seq;
            if !inside || !self.is_known_stream(head.stream) {
                continue;
            }
            let Some(peer) = self.sync.peers.get_mut(&from) else { return };
            if peer.checked.insert(head.stream, head.seq) != Some(head.seq) {
                self.sync.checks.insert((from, head.stream), head.point());
            }
        }
    }

    /// Begins to compare a place: the row behind it says which digest the stream had there.
    pub(super) fn begin_check(&mut self, check: Check) {
        let next = check.point.seq.saturating_add(1);
        self.effects.push_back(Effect::Peek(vec![keys::log(check.stream, next)]));
        self.sync.side = Side::Checking(check);
    }

    pub(super) fn handle_checked(&mut self, check: Check, values: Result<Vec<Option<Value>>, ReadError>) {
        let Check { peer, stream, point } = check;
        let Ok(values) = values else {
            // The next hello has it compared again.
            if let Some(peer) = self.sync.peers.get_mut(&peer) {
                peer.checked.remove(&stream);
            }
            return;
        };
        if let Some(Some(row)) = values.first()
            && let Ok((previous, _)) = log::split_row(row)
            && previous != point.digest
        {
            self.note_two_histories(stream, point.seq);
        }
    }
}
