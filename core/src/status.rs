//! The status of a replica: how far its streams and its peers are, so that an app can tell whether all is synced.

use std::time::Duration;

use crate::events::{Damage, Fork, Refusal, Restored, StreamStop};
use crate::hlc::Hlc;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::join_wait::JoinWait;
use crate::projection::ProjectionStatus;

/// The status of a replica. See [`status`](crate::TransactionManager::status).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The group of the replica.
    pub group: GroupId,
    /// The device that the replica is on.
    pub device: DeviceId,
    /// The id of the replica.
    pub replica: ReplicaId,
    /// The replicas of the group, in the order of their ids.
    pub members: Vec<ReplicaId>,
    /// Why the replica still waits for its own member record, and so neither commits nor serves a peer; `None` once it is
    /// a member. [`Event::Joining`](crate::Event::Joining) tells of every change, and
    /// [`Event::Joined`](crate::Event::Joined) of the end.
    pub joining: Option<JoinWait>,
    /// The proof that this store was restored from a backup or cloned, if any: the replica then commits no more.
    pub restored: Option<Restored>,
    /// How many commits the replica's stream has: the sequence number of the last durable one. The founder's first
    /// commit is the founding of the group.
    pub commits: u64,
    /// The floor of the replica's stream: the sequence number up to which its log has been pruned.
    pub pruned: u64,
    /// The highest stamp that the replica issued or saw.
    pub clock: Hlc,
    /// By how many milliseconds the wall clock here stands ahead of those of the peers that were heard since the
    /// opening: the middle one of their [`PeerStatus::ahead_ms`]. Negative if it is behind, 0 if it may be right, `None`
    /// until a peer was heard.
    ///
    /// Beyond [`max_drift_ms`](crate::Limits::max_drift_ms) peers hold what is committed here: ask the user to set the
    /// clock. Once it is right this is 0, and peers go on holding until their time has reached the stamps that were drawn
    /// meanwhile, since stamps never go back: [`PeerStatus::refuses`] says until when. To wait is best. Who calls
    /// [`release_held`](crate::TransactionManager::release_held) on one device must do so on all, this one included.
    /// One wrong peer among many does not move the figure; of two replicas it tells only that one is wrong.
    pub ahead_ms: Option<i64>,
    /// The streams of all replicas, this one included, in the order of their ids.
    pub streams: Vec<StreamStatus>,
    /// The other members, and all other replicas that this one has heard of, in the order of their ids.
    pub peers: Vec<PeerStatus>,
    /// How many commits of peers were received and wait for the store.
    pub received: usize,
    /// How far a snapshot is that is being installed, if one is.
    pub installing: Option<InstallStatus>,
    /// How many records have been folded since the opening: values that an earlier version of the app could not merge
    /// were merged into them. `None` if none is left that this version can merge. Reads return merged records from the
    /// first moment.
    pub folded: Option<u64>,
    /// The bytes of the queue that commits occupy while they wait for the store.
    pub queued_bytes: usize,
    /// The projections, in the order of their registration.
    pub projections: Vec<ProjectionStatus>,
    /// The marks seen since the store was opened, by the bits of [`MARKS`](crate::internals::MARKS).
    #[cfg(feature = "internals-for-tests")]
    pub marks: u32,
}

/// How far a snapshot is: the records of a peer, which a replica takes when the logs of its peers do not reach back to what it
/// has. See [`Status::installing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstallStatus {
    /// The peer that it was asked of last; `None` since this replica lost the connection to it.
    pub from: Option<ReplicaId>,
    /// How many records have arrived, tombstones among them, and values beside records.
    pub records: u64,
    /// The bytes of their keys and values.
    pub bytes: u64,
    /// How many records the peer had when it began; it may have got more.
    pub of_records: u64,
    /// The bytes of their keys and values.
    pub of_bytes: u64,
    /// Whether the snapshot counts already: reads show all of it, and it is being folded into the records that were here.
    pub folding: bool,
}

/// The status of a stream: how far it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStatus {
    /// The replica that writes the stream.
    pub replica: ReplicaId,
    /// The device of that replica, if its member record is here.
    pub device: Option<DeviceId>,
    /// The sequence number of the last commit of the stream here.
    pub commits: u64,
    /// The floor of the stream: the sequence number up to which its log has been pruned here.
    pub pruned: u64,
    /// The member that is behind all others in the stream, if it is behind this replica: commits that it may lack are not
    /// [pruned](StreamStatus::pruned). Of several, the one that has been there for the longest time.
    pub held_by: Option<FloorHolder>,
    /// Why the stream stopped here; `None` if it goes on.
    pub stopped: Option<StreamStop>,
    /// The first place at which the log of the stream was found damaged in this store since it was opened, and that was not
    /// mended. From there on the stream is served to no peer. If its part is the head, the stream goes no further here; if it
    /// is the own stream, nothing is committed: [`Error::LogDamaged`](crate::Error::LogDamaged). A damaged head may stand
    /// behind a row that is damaged too.
    pub damaged: Option<Damage>,
    /// The peers that said that they have another history of the stream, and were set aside: see
    /// [`Event::Disputed`](crate::Event::Disputed).
    pub disputed: Vec<ReplicaId>,
    /// The proof that the stream has two histories, if it has; of the own stream, the proof that this store was
    /// restored or cloned.
    pub fork: Option<Fork>,
}

/// A member that may lack commits, so that the log keeps them for it. See [`StreamStatus::held_by`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FloorHolder {
    /// The member. It may be one that was never heard of: [`PeerStatus::heard`] says so, until the store is opened again.
    pub member: ReplicaId,
    /// How long ago it acknowledged more of the stream, by the timer; the time since the opening, if it did not since.
    pub since: Duration,
    /// How many of the commits that are here it has not acknowledged.
    pub commits: u64,
}

/// The status of a peer: another replica, as this one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The id of the peer.
    pub replica: ReplicaId,
    /// Whether the peer can be reached, as the transport says. It may take long to notice that a peer is gone:
    /// [`heard`](PeerStatus::heard) says how fresh that word is.
    pub connected: bool,
    /// How long ago this replica heard the peer, by the timer, which counts the time that a device sleeps. `None` if that
    /// was not since the store was opened. A peer that is connected is heard every 40 s at least, unless
    /// a long commit of its takes a slow link for longer.
    pub heard: Option<Duration>,
    /// How many of this replica's commits the peer has acknowledged as durable there: what it said itself, or what
    /// another member says that it said, whichever is more. So it has an answer for a member that this replica never
    /// meets, if one other member meets both.
    ///
    /// The word of another member is hearsay: it is shown here, and the library relies on it nowhere. It may come half a
    /// minute late if a message is lost, and it is not shown once this store is known to be
    /// [restored](Status::restored).
    pub acknowledged: u64,
    /// How many commits of each stream that are here the peer is not known to have, in the order of the streams; those of
    /// which it has all are left out. The own stream is in it as [`acknowledged`](PeerStatus::acknowledged) says. Of
    /// other streams a member tells a few others at once and everybody within 40 s, and tells nothing where it is reached
    /// through others alone. Empty for a replica that is no member.
    pub behind: Vec<(ReplicaId, u64)>,
    /// How many commits the peer is known to have that are missing here: 0 if this replica is as far as the peer.
    pub missing: u64,
    /// Whether the peer says that its store was restored or cloned, so that its acknowledgements do not count.
    pub restored: bool,
    /// Whether the peer says that this replica is no member: let a member call
    /// [`add_member`](crate::TransactionManager::add_member).
    pub stranger: bool,
    /// The device on which the peer waits to be added, as it says itself; `None` if it does not knock. It is the word of a
    /// stranger: let a person confirm it, then call [`add_member`](crate::TransactionManager::add_member).
    pub knocks: Option<DeviceId>,
    /// Whether the peer has pruned commits that are missing here, so that another peer must serve them.
    pub pruned: bool,
    /// How many frames of the peer were refused: since the store was opened, or since the peer is connected if it
    /// never acknowledged anything.
    pub rejected: u64,
    /// Why the peer takes no more of this replica's own stream, as it said; `None` if it takes it, as far as is known.
    ///
    /// It tells so itself, so of a peer that is reached through others alone nothing is known. It stays until the peer
    /// has the commit, also while the peer is away; a fork stays for good.
    pub refuses: Option<Refusal>,
    /// By how many milliseconds the wall clock here stands ahead of the peer's; negative if it is behind. It is the
    /// least that is certain, since nobody knows how long a hello was on its way, and 0 if both may show the same.
    /// `None` until the peer was heard since the opening.
    pub ahead_ms: Option<i64>,
}
