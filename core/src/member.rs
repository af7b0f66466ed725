//! The built-in model of members: the replicas of the group, replicated like every other record.

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

    fn sync_id(&self) -> ReplicaId {
        self.replica
    }
}
