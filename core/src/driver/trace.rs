//! Tracing: the spans and events that the crate's documentation names, under the target `syncline`. The driver tells all
//! of them, so that the engine stays pure; one costs the load of an atomic where nobody listens.

use tracing::{Span, debug, debug_span, info, trace, warn};

use crate::engine::Effect;
use crate::error::Error;
use crate::events::Event;
use crate::ids::ReplicaId;
use crate::projection::ProjectionState;
use crate::synced::{DurableOn, Synced};

/// The span around the work of the store for an effect; none for the reads before a write, which are part of no write.
pub(super) fn span(me: ReplicaId, effect: &Effect) -> Span {
    let kind = match effect {
        Effect::Write(_, batch) => {
            return debug_span!(target: "syncline", "write", replica = %me, kind = "batch", rows = batch.ops().len());
        }
        Effect::Round(..) => "round",
        Effect::Join(..) => "with_tx",
        Effect::Receive(..) => "received",
        Effect::WriteProjected(..) => "folded",
        Effect::Mend(_) => "projection",
        Effect::Find(..) => return debug_span!(target: "syncline", "page", replica = %me),
        _ => return Span::none(),
    };
    debug_span!(target: "syncline", "write", replica = %me, kind)
}

/// A peer can be reached, or cannot be reached any more.
pub(super) fn peer(me: ReplicaId, peer: ReplicaId, is_up: bool) {
    if is_up {
        info!(target: "syncline", replica = %me, %peer, "peer up");
    } else {
        info!(target: "syncline", replica = %me, %peer, "peer down");
    }
}

/// A call that waited for all members is answered.
pub(super) fn synced(me: ReplicaId, answer: &Result<Synced, Error>) {
    let (outcome, with, away, stopped, differ) = match answer {
        Ok(Synced::Level { with, away, stopped }) => ("level", with.len(), away.len(), stopped.len(), 0),
        Ok(Synced::Alone { away }) => ("alone", 0, away.len(), 0, 0),
        Ok(Synced::NotYet(unsynced)) => ("not yet", 0, 0, 0, unsynced.peers.len()),
        // The event of the restore was told.
        Err(_) => return,
    };
    if outcome == "not yet" {
        debug!(target: "syncline", replica = %me, outcome, with, away, stopped, differ, "synced");
    } else {
        info!(target: "syncline", replica = %me, outcome, with, away, stopped, differ, "synced");
    }
}

/// A call that waited for a commit to be durable on so many members is answered.
pub(super) fn durable(me: ReplicaId, wanted: usize, answer: &Result<DurableOn, Error>) {
    if let Ok(durable) = answer {
        let (stream, seq, on) = (durable.commit.replica, durable.commit.seq, durable.count());
        debug!(target: "syncline", replica = %me, %stream, seq, on, wanted, "durable");
    }
}

/// Events that became true together.
pub(super) fn notice(me: ReplicaId, notice: &[Event]) {
    if let Some(Event::Changed(first)) = notice.first() {
        let (stream, seq) = (first.stamp.replica(), first.seq);
        return trace!(target: "syncline", replica = %me, %stream, seq, changes = notice.len(), "commit");
    }
    for event in notice {
        match event {
            Event::Stopped { stream, reason } => {
                warn!(target: "syncline", replica = %me, %stream, %reason, "stop");
            }
            Event::Resumed { stream } => info!(target: "syncline", replica = %me, %stream, "resume"),
            Event::Projection(status) => {
                let (name, debts) = (status.name, status.debts);
                let state = match &status.state {
                    ProjectionState::Rebuilding { .. } => "rebuilding",
                    ProjectionState::Complete => "complete",
                    ProjectionState::Failed { .. } => "failed",
                };
                if debts == 0 && state != "failed" {
                    debug!(target: "syncline", replica = %me, name, state, debts, "projection");
                } else {
                    warn!(target: "syncline", replica = %me, name, state, debts, "projection");
                }
            }
            Event::Refused { .. }
            | Event::Restored(_)
            | Event::Damaged(_)
            | Event::Disputed { .. }
            | Event::ReceiveFailed { .. }
            | Event::TransportLost { .. } => {
                warn!(target: "syncline", replica = %me, event = ?event, "event");
            }
            Event::Accepted { .. } | Event::Mended(_) => {
                info!(target: "syncline", replica = %me, event = ?event, "event");
            }
            other => debug!(target: "syncline", replica = %me, event = ?other, "event"),
        }
    }
}
