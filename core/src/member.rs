//! The built-in model of members: the replicas of the group, replicated like every other record.
//!
//! Members are merged, not overwritten: a state only moves on, and should two members ever add the same replica under
//! different devices, all of them settle for the same one.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, ReplicaId};
use crate::syncable::{Shared, Syncable};

/// Model names that begin with this are the library's own.
pub(crate) const RESERVED_PREFIX: &str = "syncline.";

/// A replica of the group and the device it runs on. Read it like any model; only the library commits it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// Its device, set once for good.
    pub device: DeviceId,
    /// Whether it counts.
    pub state: MemberState,
}

/// Whether a member counts. States only ever move down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MemberState {
    /// It counts.
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
