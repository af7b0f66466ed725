//! The built-in model of members: the replicas of the group, replicated like every other record.
//!
//! Member records are merged, not overwritten: a state only moves on, and if two members ever add the same replica on
//! different devices, every replica settles for the same device.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, ReplicaId};
use crate::syncable::{Shared, Syncable};

/// The beginning of the names of the library's own models. An app's model must not have it.
pub(crate) const RESERVED_PREFIX: &str = "syncline.";

/// A replica of the group and the device it runs on. An app reads it like any model; the library alone commits it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// The device it runs on, set once for good.
    pub device: DeviceId,
    /// Whether the replica belongs to the group now.
    pub state: MemberState,
}

/// Whether a replica belongs to the group. A state only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MemberState {
    /// The replica belongs to the group: its commits are taken, and it is served.
    Active,
}

impl Syncable for Member {
    const SYNC_MODEL: &'static str = "syncline.member";
    type Id = ReplicaId;
    type Ownership = Shared;

    const OWN_MERGE: bool = true;

    fn sync_id(&self) -> ReplicaId {
        self.replica
    }

    fn merge(self, other: Self) -> Self {
        Self {
            replica: self.replica,
            device: self.device.min(other.device),
            state: self.state.max(other.state),
        }
    }
}
