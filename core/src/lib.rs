#![forbid(unsafe_code)]
//! Leaderless replication for apps that live on several devices of one person or team.
//!
//! One call commits a record **and** the log entry that announces it **and** the clock that orders it, in one
//! transaction of the app's own embedded store, and then tells the peers. There is no leader and no server.
//!
//! ```text
//!   TransactionManager            Driver (async)                  Engine (pure)
//!   commit, update, …  ──────▶  clock ─┐                   ┌──▶ what to read
//!   Transport: frames  ──────▶  timer ─┼─ Input ──▶ handle ┤    what to write
//!   get, list ─▶ Storage  ◀────────────┘                   └──▶ what to answer, what to tell, what to send
//!                   ▲               Effect ◀── next_effect
//!                   └───────────────── performs
//! ```
//!
//! Peers apply a commit whole, after everything that its author had seen, and all end with the same records, whatever
//! the network loses, repeats or reorders. What is not there yet: a replica gets everything by log, which is therefore
//! not pruned while there is a transport.
//!
//! - Start with [`TransactionManager`], and [`Syncable`] for your types.
//! - Choose a store from `syncline-backends`, or write one: [`Storage`] is three methods and a contract.
//! - Reach the peers over a [`Transport`], three methods; `syncline-backends` has a network in memory.
//! - Prove it with `syncline-testkit`: one test for each line of that contract.
//! - On a store with native transactions ([`JoinStorage`]), [`with_tx`](TransactionManager::with_tx) puts the app's own
//!   SQL into the commit, and a [`Projection`] keeps a table or an index of the app in step with its records.
//! - How it works is told in [the protocol](docs::protocol), [the storage format](docs::storage_format) and the
//!   catalogue of [the properties](docs::properties) that tests prove.
//!
//! # Names
//!
//! Every name has one path, at the root: `syncline::Storage`, `syncline::Key`, `syncline::JoinTx`. The modules behind
//! them are private. Two modules are public: [`uuid`] is the crate that [`Uuid`] comes from, and `internals`, which is
//! there with the feature `internals-for-tests` alone, is for tests of the library itself.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | device | what a user owns, [`DeviceId`]; it **owns** records |
//! | replica | one store's life, [`ReplicaId`]; it **writes** a stream |
//! | group | the replicas that share one data set, [`GroupId`] |
//! | record | a model's name, an id, a value; with a stamp, and perhaps a tombstone instead of the value |
//! | stamp | [`Hlc`]: when, in the hybrid-logical sense, and by which replica |
//! | commit | what a replica decides atomically: changes, one stamp, one sequence number |
//! | stream | all commits of one replica: 1, 2, 3 … without holes, stamps rising |
//! | head | sequence number, stamp and digest of the last commit known of a stream |
//! | write | what a *store* does: one atomic, durable batch. Replicas commit, stores write |
//! | joined write | a write in the store's native transaction, together with the app's own statements |
//! | projection | what the app derives from its records in tables of its own, in the same transaction |
//! | floor | the sequence number up to which a stream's log has been pruned |
//! | stable | the sequence number that every member has acknowledged |

mod audit;
mod batch;
mod builder;
mod clock;
#[cfg(any(doc, doctest))]
pub mod docs;
mod driver;
mod engine;
mod error;
mod events;
mod folded;
mod hlc;
mod ids;
#[cfg(feature = "internals-for-tests")]
pub mod internals;
mod join;
mod joined;
mod limits;
mod list;
mod manager;
mod member;
mod model;
mod pages;
mod projection;
mod sorted;
mod status;
mod storage;
mod stored;
mod syncable;
mod transport;
mod tx;
mod update;

pub use audit::{Rule, Violation, audit};
pub use batch::Batch;
pub use builder::Builder;
pub use clock::{Clock, ClockError, Mono, Now, SystemClock, WallMs};
pub use driver::Driver;
pub use error::{Error, OpenError, SharedError, StopReason};
pub use events::{Change, ChangeKind, Event, Events, Lagged, RecordKey, Restored, StreamStop};
pub use hlc::{DriftError, Hlc, HlcGenerator, HlcLengthError};
pub use ids::{DeviceId, GroupId, ReplicaId};
pub use join::{JoinJob, JoinStorage, JoinTx, Native, TransactionEnded};
pub use limits::{Limit, Limits};
pub use list::List;
pub use manager::TransactionManager;
pub use member::{Member, MemberState};
pub use projection::{Projection, ProjectionState, ProjectionStatus};
pub use status::{PeerStatus, Status, StreamStatus};
pub use storage::{
    BoxError, Entry, Key, KeyRange, ReadError, Storage, Value, WriteBatch, WriteError, WriteOp,
};
pub use stored::FormatError;
pub use syncable::{DeviceOwned, MODEL_BYTES_MAX, Ownership, RecordId, Shared, SyncId, Syncable};
pub use syncline_derive::Syncable;
pub use transport::{Incoming, Transport, TransportError};
pub use tx::Tx;
pub use uuid::{self, Uuid};
