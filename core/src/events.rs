//! What a replica tells its app: every change, once it is durable.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::hlc::Hlc;
use crate::ids::{DeviceId, ReplicaId};
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
    /// A stream goes no further here for now, and says why. The other streams do, but for what rests on it.
    Stopped {
        /// The replica whose stream it is.
        stream: ReplicaId,
        /// Why.
        reason: StreamStop,
    },
    /// A stream that was stopped goes on, or is tried again.
    Resumed {
        /// The replica whose stream it is.
        stream: ReplicaId,
    },
    /// This store was restored from a backup or cloned: another replica knows commits of it that it has not. It
    /// commits no more.
    Restored(Restored),
    /// A frame was refused. Told for the first one of a peer and then ever more rarely, so that a flood of them does
    /// not drown the other events.
    FrameRejected {
        /// The replica that sent it.
        from: ReplicaId,
        /// What was wrong with it.
        reason: String,
        /// How many frames of this replica were refused, as [`PeerStatus::rejected`](crate::PeerStatus::rejected)
        /// counts them.
        count: u64,
    },
    /// Several commits of peers could not be written together. They are asked for again, and written one by one.
    ReceiveFailed {
        /// What the store or a stored record reported.
        error: String,
    },
    /// The transport has ended. The replica goes on without its peers.
    TransportLost {
        /// What it reported.
        error: String,
    },
    /// Values that an earlier version of the app could not merge are being merged into their records, from the opening
    /// on. That changes nothing that can be read: reads have merged them from the first moment.
    Folding {
        /// Into how many records, since the opening.
        records: u64,
        /// Whether there is nothing more to merge.
        complete: bool,
    },
    /// A projection began to be rebuilt, got on with it, is complete or failed.
    Projection(ProjectionStatus),
}

/// Why a stream goes no further here. If the commit that stopped it came from another than its author, it goes on once
/// its author sends another one in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamStop {
    /// Its next commit is stamped further ahead of physical time than [`max_drift_ms`](crate::Limits::max_drift_ms).
    /// It goes through by itself when time has caught up, or with
    /// [`release_held`](crate::TransactionManager::release_held).
    Held {
        /// The sequence number of the commit.
        seq: u64,
        /// Its stamp.
        stamp: Hlc,
    },
    /// A projection refused its next commit, which is tried again now and then.
    Projection {
        /// The sequence number of the commit.
        seq: u64,
        /// What the projection reported.
        error: String,
    },
    /// The store here refused its next commit, which is tried again now and then.
    NotStored {
        /// The sequence number of the commit.
        seq: u64,
        /// What the store reported.
        error: String,
    },
    /// There are two histories of it: its writer's store was restored from a backup, or cloned. Nothing of either is
    /// lost where it is.
    Forked {
        /// A sequence number at which the histories differ.
        seq: u64,
    },
    /// Its next commit cannot be taken.
    Refused {
        /// The sequence number of the commit.
        seq: u64,
        /// Why not: a limit to raise, or a rule that the writer broke.
        reason: String,
    },
}

impl fmt::Display for StreamStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { seq, stamp } => {
                write!(
                    f,
                    "commit {seq} is stamped {stamp}, too far ahead of physical time; it waits for that"
                )
            }
            Self::Projection { seq, error } | Self::NotStored { seq, error } => {
                write!(f, "commit {seq} is tried again: {error}")
            }
            Self::Forked { seq } => {
                write!(f, "there are two histories from commit {seq} on: its store was restored or cloned")
            }
            Self::Refused { seq, reason } => write!(f, "commit {seq} cannot be taken: {reason}"),
        }
    }
}

/// How a replica learned that its store was restored from a backup, or cloned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The stream of which a peer knows that this replica once had more, or other commits: its own, or one that it
    /// had acknowledged.
    pub stream: ReplicaId,
    /// The sequence number in that stream.
    pub seq: u64,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, seq } = self;
        write!(f, "its peers know that it once had another commit {seq} of {stream}")
    }
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
pub(crate) type Notice = Arc<[Event]>;

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

    /// Waits for what comes next, as one: all changes of a commit, or another event alone; `None` once the driver has
    /// stopped and everything was taken.
    ///
    /// Changes of one commit have the same `stamp` and `seq`, so an app can react to a whole transaction, its own and
    /// those of other devices alike. What of a commit [`next`](Events::next) has returned already is not in it.
    ///
    /// # Errors
    /// As [`next`](Events::next).
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next_together(&mut self) -> Option<Result<Vec<Event>, Lagged>> {
        match self.next().await? {
            Ok(event) => Some(Ok(std::iter::once(event).chain(self.current.drain(..)).collect())),
            Err(lagged) => Some(Err(lagged)),
        }
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
