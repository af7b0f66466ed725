#![forbid(unsafe_code)]
//! Leaderless replication for apps that live on several devices.

mod audit;
mod builder;
pub mod clock;
mod driver;
mod engine;
mod error;
mod events;
mod hlc;
mod ids;
mod limits;
mod list;
mod manager;
mod member;
mod model;
pub mod storage;
mod stored;
pub mod syncable;

pub use audit::{Rule, Violation, audit};
pub use builder::Builder;
pub use clock::{Clock, ClockError, Mono, Now, SystemClock, WallMs};
pub use driver::Driver;
#[doc(hidden)]
pub use engine::Rules;
pub use error::{Error, OpenError, SharedError, StopReason};
pub use events::{Change, ChangeKind, Event, Events, Lagged, RecordKey};
pub use hlc::{DriftError, Hlc, HlcGenerator, HlcLengthError};
pub use ids::{DeviceId, GroupId, ReplicaId};
pub use limits::{Limit, Limits};
pub use list::List;
pub use manager::{Batch, Status, TransactionManager};
pub use member::{Member, MemberState};
pub use storage::{
    BoxError, Entry, Key, KeyRange, ReadError, Storage, Value, WriteBatch, WriteError, WriteOp,
};
pub use stored::FormatError;
pub use syncable::{DeviceOwned, Ownership, RecordId, Shared, SyncId, Syncable};
pub use syncline_derive::Syncable;
pub use uuid::{self, Uuid};
