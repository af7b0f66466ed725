//! Events: a replica tells its app of every change, once the change is durable.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::clock::WallMs;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, ReplicaId};
use crate::join_wait::JoinWait;
use crate::projection::ProjectionStatus;
use crate::status::InstallStatus;
use crate::stored::ForkRow;
pub use crate::stored::keys::RecordKey;
use crate::synced::CommitId;

/// An event that an app may want to react to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A record changed. The event is told once per change, in the order of commits, after the commit is durable.
    ///
    /// Changes of models that are not registered here are told too, and so are those of the library's own, whose names
    /// begin with `syncline.`: the members. A value that lies beside its record, since this
    /// version of the app cannot merge it, is told neither when it comes nor when it is merged: read again after an
    /// update of the app.
    Changed(Change),
    /// The wall clock stepped against the timer. Stamping goes on: behind stamps already drawn if it stepped
    /// back, ahead of what peers tolerate if it stepped too far forward.
    ClockJumped {
        /// The milliseconds of the step; negative if it went back.
        by_ms: i64,
    },
    /// A stream stopped here. The other streams go on, but for commits that come after the one that stopped.
    Stopped {
        /// The replica that writes the stream.
        stream: ReplicaId,
        /// Why the stream stopped.
        reason: StreamStop,
    },
    /// A stream that was stopped goes on, or its next commit is tried again.
    Resumed {
        /// The replica that writes the stream.
        stream: ReplicaId,
    },
    /// A peer takes no more of this replica's own stream, and says why. What is committed from there on stays on this
    /// device until the reason is mended, here or there. Told when it begins or has another reason, and again after
    /// this store was opened anew.
    Refused {
        /// The peer.
        by: ReplicaId,
        /// At which commit, and why.
        refusal: Refusal,
    },
    /// A peer that took no more of this replica's own stream has the commit at which that stopped: it goes on.
    Accepted {
        /// The peer.
        by: ReplicaId,
    },
    /// This store was restored from a backup or cloned: a peer knows commits of this replica, or acknowledged by it,
    /// that the store does not have. The replica commits no more.
    Restored(Restored),
    /// A replica that is no member, or was added on a wrong device, knocks: it waits to be added. Anybody who can connect
    /// can knock, with any device. So let a person confirm it, then call
    /// [`add_member`](crate::TransactionManager::add_member).
    ///
    /// The event is told for the first knock of a peer since it is connected. If it names other devices later, the event
    /// comes ever more rarely. [`PeerStatus::knocks`](crate::PeerStatus::knocks) says who knocks now.
    Knocks {
        /// The replica that knocks.
        replica: ReplicaId,
        /// The device on which it says that it is.
        device: DeviceId,
    },
    /// This replica waits for another reason than before for its own member record. See
    /// [`Status::joining`](crate::Status::joining).
    Joining(JoinWait),
    /// This replica has become a member, at last or again: from now on it commits, and serves its peers.
    Joined,
    /// A frame was refused. The event is told for the first such frame of a peer and then ever more rarely, so that a
    /// flood of frames does not drown the other events. Some refused frames are no fault: a new member may send the first
    /// ones before its member record has arrived here.
    FrameRejected {
        /// The replica that sent it.
        from: ReplicaId,
        /// The fault of the frame, in words for a person.
        reason: String,
        /// How many frames of this replica were refused, as [`PeerStatus::rejected`](crate::PeerStatus::rejected)
        /// counts them.
        count: u64,
    },
    /// A place in the log of a stream is damaged in this store. From there on, this replica serves the stream to no peer;
    /// others get it from its author, and from whoever has it whole. All other streams go on. Told once for a place, and
    /// again after this store was opened anew; [`StreamStatus::damaged`](crate::StreamStatus::damaged) shows it, and
    /// [`check_log`](crate::TransactionManager::check_log) mends it. From a damaged [head](DamagedPart::Head) the stream goes
    /// no further here, and what rests on it waits; if it is the own one, this replica commits no more until it is mended,
    /// and commits of others wait that were made after it.
    Damaged(Damage),
    /// A damaged place of this store was mended with what a peer has: see
    /// [`check_log`](crate::TransactionManager::check_log). The place may be one behind the one that was told as damaged,
    /// since whoever serves a row cannot tell whether it or the [row behind it](DamagedPart::Row) is damaged. What is
    /// damaged now is in the [status](crate::StreamStatus::damaged).
    Mended(Damage),
    /// A peer has another history of a stream and could not show it, or another member has the one that is here: its log is
    /// damaged, or the one here is. Nothing of that stream is taken from the peer any more until one of the two is opened
    /// anew, and nothing else follows from its word.
    Disputed {
        /// The peer.
        peer: ReplicaId,
        /// The replica that writes the stream.
        stream: ReplicaId,
        /// The sequence number of the commit that was to be shown.
        seq: u64,
    },
    /// Several commits of peers could not be written together. They are pulled again and written one by one, so that a
    /// commit that cannot be written stops its own stream alone.
    ReceiveFailed {
        /// The error of the store, or of a record that cannot be read.
        error: String,
    },
    /// The transport has ended, or has panicked. The replica goes on without its peers.
    TransportLost {
        /// The error that the transport reported, or the words of its panic.
        error: String,
    },
    /// Values that an earlier version of the app could not merge are being merged into their records, from the opening
    /// on. Reads return the same before and after: they have merged such values from the first moment.
    Folding {
        /// The number of records that values were merged into since the opening.
        records: u64,
        /// Whether there is nothing more to merge.
        complete: bool,
    },
    /// A projection began to be filled, got on with it, is complete or failed; or its debts have changed.
    Projection(ProjectionStatus),
    /// A snapshot arrives, since this replica is further behind than the logs of its peers reach. Told with every page;
    /// nothing of it is to be read before [`Installed`](Event::Installed).
    Installing(InstallStatus),
    /// A snapshot counts from now on: all of it at once. The changes that it brought are told one by one no more than those
    /// behind a [`Lagged`](crate::Lagged): read again what is shown.
    Installed {
        /// How many records it had, tombstones among them, and values beside records.
        records: u64,
        /// The bytes of their keys and values.
        bytes: u64,
    },
    /// A peer cannot serve the snapshot that this replica needs. Another one is asked, or this one again.
    SnapshotRefused {
        /// The peer.
        by: ReplicaId,
        /// Why, in words for a person.
        reason: String,
    },
}

/// Why a stream stopped here.
///
/// A commit that came from another replica than its author may have been made up. If such a commit stopped the stream,
/// the stream goes on once the author sends another commit in its place; a fork is final.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamStop {
    /// The next commit is stamped further ahead of physical time than [`max_drift_ms`](crate::Limits::max_drift_ms).
    /// The stream goes on by itself when time has caught up, or with
    /// [`release_held`](crate::TransactionManager::release_held).
    Held {
        /// The sequence number of the commit.
        seq: u64,
        /// The stamp of the commit.
        stamp: Hlc,
    },
    /// The store here refused the next commit, which is tried again, ever more rarely.
    NotStored {
        /// The sequence number of the commit.
        seq: u64,
        /// The error that the store reported.
        error: String,
    },
    /// The stream has two histories, since its writer's store was restored from a backup, or cloned. No replica loses
    /// the commits that it has of either history.
    Forked {
        /// A sequence number at which the histories differ.
        seq: u64,
    },
    /// The next commit breaks a rule or a limit here. It is tried again when the store is opened again.
    Refused {
        /// The sequence number of the commit.
        seq: u64,
        /// The limit to raise, or the rule that the writer broke.
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
            Self::NotStored { seq, error } => {
                write!(f, "commit {seq} is tried again: {error}")
            }
            Self::Forked { seq } => {
                write!(f, "there are two histories from commit {seq} on: its store was restored or cloned")
            }
            Self::Refused { seq, reason } => write!(f, "commit {seq} cannot be taken: {reason}"),
        }
    }
}

impl StreamStop {
    /// The sequence number of the commit at which the stream stopped; of a fork, one at which the histories differ.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        match self {
            Self::Held { seq, .. }
            | Self::NotStored { seq, .. }
            | Self::Forked { seq }
            | Self::Refused { seq, .. } => *seq,
        }
    }
}

/// A damaged place in the log of a stream, in this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The replica that writes the stream.
    pub stream: ReplicaId,
    /// The sequence number of the commit.
    pub seq: u64,
    /// The part that is damaged.
    pub part: DamagedPart,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, seq, part } = self;
        let part = match part {
            DamagedPart::Row => "its log row, or the one behind it, is damaged or missing",
            DamagedPart::Value => "one of its values is damaged or missing",
            DamagedPart::Head => "the head of its stream is damaged, or its log row is",
            DamagedPart::Floor => "the log of its stream begins behind it, and said that it begins elsewhere",
        };
        write!(f, "the log here is damaged at commit {seq} of {stream}: {part}")
    }
}

/// The part of a commit that is damaged in this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DamagedPart {
    /// Its row in the log, or the row behind it, which names its digest.
    Row,
    /// A value that it put, in its record or where it is kept for the log.
    Value,
    /// The head of its stream, or the row that it names: the two contradict each other.
    Head,
    /// The place behind which the log of its stream begins here, and its digest. The log proves where it begins.
    Floor,
}

/// The proof that a stream has two histories: who showed it, and both digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fork {
    /// The stream that proves it: the one that has two histories, or one of which this replica had acknowledged more than it
    /// has.
    pub stream: ReplicaId,
    /// The sequence number of the commit at which the histories part.
    pub seq: u64,
    /// The replica that showed the other history, which it had checked.
    pub by: ReplicaId,
    /// The digest of the stream at that commit here; `None` if the commit is not here.
    pub here: Option<[u8; 32]>,
    /// The digest of the stream at that commit there.
    pub there: [u8; 32],
}

impl From<ForkRow> for Fork {
    fn from(row: ForkRow) -> Self {
        let ForkRow { stream, seq, by, there, here } = row;
        Self { stream, seq, by, here, there }
    }
}

/// The word of a peer that it takes no more of this replica's own stream. See
/// [`PeerStatus::refuses`](crate::PeerStatus::refuses).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// At which commit the stream stopped there, and why. A reason that this version does not know is a
    /// [`StreamStop::Refused`]. Errors and reasons are cut after 256 bytes.
    pub stop: StreamStop,
    /// The wall clock of the peer when it said so; `None` if it could not tell the time. Compare it with the clock here
    /// if the stream is [held](StreamStop::Held): one of the two is wrong.
    pub clock: Option<WallMs>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.stop)?;
        match self.clock {
            Some(clock) => write!(f, " (the clock there shows {} ms since 1970)", clock.get()),
            None => Ok(()),
        }
    }
}

/// The proof that a replica's store was restored from a backup, or cloned.
///
/// To go on, the app opens a new store, which joins the group: on the old device by
/// [`take_over`](crate::TransactionManager::take_over), so that it may change what that owns. Records that the old store
/// alone has, since it committed after it was put back and before a peer was heard, can be read there and committed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The stream of which this replica once had more, or other commits, as a peer knows: the replica's own stream, or
    /// one that it had acknowledged.
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

/// A change of one record, as told to the app.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The record.
    pub record: RecordKey,
    /// The kind of the change.
    pub kind: ChangeKind,
    /// The device of the commit's author.
    pub origin: DeviceId,
    /// The stamp of the commit, which also names its author.
    pub stamp: Hlc,
    /// The sequence number of the commit in its author's stream.
    pub seq: u64,
}

impl Change {
    /// Returns the commit that made the change.
    #[must_use]
    pub const fn commit(&self) -> CommitId {
        CommitId { replica: self.stamp.replica(), seq: self.seq }
    }
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// The record was not there before.
    Insert,
    /// The record was there with another value.
    Update,
    /// The record is there no more.
    Delete,
}

/// A notice: events that became true together, told at once and in their order.
pub(crate) type Notice = Arc<[Event]>;

/// A subscription to the events of a replica.
///
/// A subscription starts with the commits that become durable from then on: subscribe first, then read, and
/// nothing is missed.
#[derive(Debug)]
pub struct Events {
    notices: broadcast::Receiver<Notice>,
    /// The events of the current notice that were not taken yet.
    current: VecDeque<Event>,
}

impl Events {
    pub(crate) fn new(notices: broadcast::Receiver<Notice>) -> Self {
        Self { notices, current: VecDeque::new() }
    }

    /// Waits for the next events that belong together: all changes of a commit, or another event alone; `None` once
    /// the driver has stopped and every event was taken.
    ///
    /// Changes of one commit have the same `stamp` and `seq`, so an app can react to a whole transaction, its own and
    /// those of other devices alike. Changes that [`next`](Events::next) has returned are not returned again.
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
    /// [`event_commits_max`](crate::Limits::event_commits_max). Read the records again, then go on: the next call
    /// returns the oldest event that is still there.
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

/// The error of a subscriber that fell too far behind and missed events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the subscriber fell behind and missed {notices} commits; read the records again, then go on")]
pub struct Lagged {
    /// How many notices it missed: commits, and other events alone.
    pub notices: u64,
}
