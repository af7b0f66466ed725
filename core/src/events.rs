//! What a replica tells its app: every change, once it is durable.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::hlc::Hlc;
use crate::ids::DeviceId;
use crate::projection::ProjectionStatus;
pub use crate::stored::keys::RecordKey;

/// Something an app may want to react to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A record changed. Told once per change, in the order of commits, after the commit is durable.
    Changed(Change),
    /// The wall clock stepped against the timer. Stamping goes on: behind stamps already drawn if it stepped
    /// back, ahead of what peers tolerate if it stepped too far forward.
    ClockJumped {
        /// By how many milliseconds; negative if back.
        by_ms: i64,
    },
    /// A projection began to be rebuilt, got on with it, is complete or failed.
    Projection(ProjectionStatus),
}

/// One change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The record.
    pub record: RecordKey,
    /// What happened to it.
    pub kind: ChangeKind,
    /// The device whose commit it was.
    pub origin: DeviceId,
    /// The stamp of that commit, which also names its replica.
    pub stamp: Hlc,
    /// The sequence number of that commit in its replica's stream.
    pub seq: u64,
}

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It was not there before.
    Insert,
    /// It was there with another value.
    Update,
    /// It is there no more.
    Delete,
}

/// What the engine tells at once: events that became true together, in their order.
pub(crate) type Notice = Arc<Vec<Event>>;

/// A subscription to the events of a replica.
///
/// Subscribing starts with the commits that become durable from then on: subscribe first, then read, and
/// nothing is missed.
#[derive(Debug)]
pub struct Events {
    notices: broadcast::Receiver<Notice>,
    /// Events of the current notice that were not taken yet.
    current: VecDeque<Event>,
}

impl Events {
    pub(crate) fn new(notices: broadcast::Receiver<Notice>) -> Self {
        Self { notices, current: VecDeque::new() }
    }

    /// Waits for the next event; `None` once the driver has stopped and every event was taken.
    ///
    /// # Errors
    /// [`Lagged`] if the subscriber fell further behind than
    /// [`event_commits_max`](crate::Limits::event_commits_max). Read again what you follow, then go on: the next
    /// call returns the oldest event that is still there.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Result<Event, Lagged>> {
        loop {
            if let Some(event) = self.current.pop_front() {
                return Some(Ok(event));
            }
            match self.notices.recv().await {
                Ok(notice) => self.current.extend(notice.iter().cloned()),
                Err(broadcast::error::RecvError::Lagged(notices)) => return Some(Err(Lagged { notices })),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// A subscriber fell too far behind and missed events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the subscriber fell behind and missed {notices} commits; read the records again, then go on")]
pub struct Lagged {
    /// How many commits it missed.
    pub notices: u64,
}
