//! Where a replica stands, and where the others do: is it synced yet, and who is behind?

use crate::events::{Restored, StreamStop};
use crate::hlc::Hlc;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::projection::ProjectionStatus;

/// Where a replica stands. See [`status`](crate::TransactionManager::status).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Its group.
    pub group: GroupId,
    /// Its device.
    pub device: DeviceId,
    /// Itself.
    pub replica: ReplicaId,
    /// The replicas of the group, in the order of their ids.
    pub members: Vec<ReplicaId>,
    /// Whether it waits for its own member record, and so neither commits nor serves anybody.
    pub joining: bool,
    /// That this store was restored from a backup or cloned, and how it is known. It commits no more.
    pub restored: Option<Restored>,
    /// How many commits its stream has: the sequence number of the last durable one. The founder's first commit is the
    /// founding of the group.
    pub commits: u64,
    /// The sequence number up to which its log has been pruned.
    pub pruned: u64,
    /// The highest stamp it issued or saw.
    pub clock: Hlc,
    /// The streams of all replicas, its own included, in the order of their ids.
    pub streams: Vec<StreamStatus>,
    /// The other replicas that it has heard of, in the order of their ids.
    pub peers: Vec<PeerStatus>,
    /// Commits of others that were received and wait for the store.
    pub received: usize,
    /// Into how many records values were merged since the opening that an earlier version of the app could not merge;
    /// `None` once there is nothing more to merge. Reads see all of it from the first moment.
    pub folded: Option<u64>,
    /// The bytes of the queue that commits occupy while they wait for the store.
    pub queued_bytes: usize,
    /// The projections, in the order of their registration.
    pub projections: Vec<ProjectionStatus>,
    /// What has happened since the store was opened, by the bits of [`MARKS`](crate::internals::MARKS).
    #[cfg(feature = "internals-for-tests")]
    pub marks: u32,
}

/// How far the stream of a replica is here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStatus {
    /// Whose stream it is.
    pub replica: ReplicaId,
    /// Its device, if its member record is here.
    pub device: Option<DeviceId>,
    /// The sequence number of its last commit here.
    pub commits: u64,
    /// The sequence number up to which its log has been pruned here.
    pub pruned: u64,
    /// Why it goes no further; nothing if it does.
    pub stopped: Option<StreamStop>,
}

/// What is known of another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The replica.
    pub replica: ReplicaId,
    /// Whether it can be reached.
    pub connected: bool,
    /// How many of this replica's commits it has acknowledged as durable there.
    pub acknowledged: u64,
    /// How many commits it is known to have that are missing here: 0 if this replica is as far as that one.
    pub missing: u64,
    /// It says that its store was restored from a backup or cloned, so what it acknowledges does not count.
    pub restored: bool,
    /// It says that this replica is no member: let a member call
    /// [`add_member`](crate::TransactionManager::add_member).
    pub stranger: bool,
    /// Its log begins behind what is here, so that another peer must help.
    pub pruned: bool,
    /// How many of its frames were refused since the store was opened; those of a replica that never acknowledged
    /// anything, since it is connected.
    pub rejected: u64,
}
