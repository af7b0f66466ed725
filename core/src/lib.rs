#![forbid(unsafe_code)]
//! Leaderless replication for apps that live on several devices.

pub mod clock;
mod hlc;
mod ids;
mod limits;
pub mod storage;
pub mod syncable;

pub use clock::{Clock, ClockError, Mono, Now, SystemClock, WallMs};
pub use hlc::{DriftError, Hlc, HlcGenerator, HlcLengthError};
pub use ids::{DeviceId, GroupId, ReplicaId};
pub use limits::{Limit, Limits};
pub use storage::{
    BoxError, Entry, Key, KeyRange, ReadError, Storage, Value, WriteBatch, WriteError, WriteOp,
};
pub use syncable::{DeviceOwned, Ownership, RecordId, Shared, SyncId, Syncable};
pub use syncline_derive::Syncable;
pub use uuid::{self, Uuid};
