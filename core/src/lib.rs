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
//! Peers apply a commit whole, after everything that its author had seen. All end with the same records, although the
//! network loses, repeats or reorders messages. What every member has is pruned from the logs; a replica that is further
//! behind than they reach takes a snapshot.
//!
//! - Start with [`TransactionManager`], and [`Syncable`] for your types.
//! - Choose a store from `syncline-backends`, or write one: [`Storage`] is three methods and a contract.
//! - Reach the peers over a [`Transport`], three methods; `syncline-backends` has a network in memory.
//! - Prove your store with `syncline-testkit`: one test for each line of that contract.
//! - On a store with native transactions ([`JoinStorage`]), [`with_tx`](TransactionManager::with_tx) puts the app's own
//!   SQL into the commit, and a [`Projection`] keeps a table or an index of the app in step with its records.
//! - Read how it works in [the protocol](docs::protocol), [the storage format](docs::storage_format) and the
//!   catalogue of [the properties](docs::properties) that tests prove.
//!
//! # Names
//!
//! Every name has one path, at the root: `syncline::Storage`, `syncline::Key`, `syncline::JoinTx`. The modules behind
//! them are private. Two modules are public: [`uuid`] is the crate that [`Uuid`] comes from; `internals`, which only
//! the feature `internals-for-tests` adds, is for tests of the library itself. The pages of [`docs`] are part of this
//! documentation and of no build.
//!
//! # What a replica reports
//!
//! To [`tracing`](https://docs.rs/tracing), under the target `syncline`; each names the `replica`. The names are part of the
//! API. Where nobody listens, one costs the load of an atomic.
//!
//! | name | kind, level | fields | when |
//! |---|---|---|---|
//! | `write` | span, debug | `kind`: `batch` (with `rows`: all writes of no projected records), `round` and `received` and `folded` (of projected ones), `with_tx`, `projection` | a write of the store |
//! | `page` | span, debug | | a read for a peer that asks or is served |
//! | `commit` | event, trace | `stream`, `seq`, `changes` | a commit that changes a record is durable here |
//! | `stop`, `resume` | event, warn and info | `stream`, `reason` | [`Event::Stopped`], [`Event::Resumed`] |
//! | `projection` | event, debug; warn with debts or a failure | `name`, `state`, `debts` | [`Event::Projection`] |
//! | `peer up`, `peer down` | event, info | `peer` | the transport says so |
//! | `synced` | event, info; debug if the time ran out | `outcome`: `level`, `alone` or `not yet`; `with` so many members, so many `away`, so many that `differ`, so many streams `stopped` | [`wait_synced`](TransactionManager::wait_synced) returns |
//! | `durable` | event, debug | `stream`, `seq`, durable `on` so many members, of `wanted` | [`wait_durable_on`](TransactionManager::wait_durable_on) returns |
//! | `event` | event, debug; warn for what somebody must mend: refused, restored, damaged, disputed, failed, lost; info for the end of it: accepted, mended | `event` | every other [`Event`] |
//!
//! # Words
//!
//! Each word has one meaning, in the code, the comments and the pages.
//!
//! | the data | |
//! |---|---|
//! | device | a user's phone or laptop, [`DeviceId`]; it **owns** records |
//! | replica | one store's life, [`ReplicaId`]; it **writes** a stream |
//! | group | the replicas that share one data set, [`GroupId`] |
//! | model | a type of the app whose values replicate, under one name on all devices, [`Syncable`] |
//! | schema | the version of a model's fields |
//! | record | a model's name, an id, a value; with a stamp, and perhaps a tombstone instead of the value |
//! | tombstone | stands in a deleted record in the place of the value |
//! | change | a put or a delete of one record |
//! | commit | an atomic decision of a replica: changes, one stamp, one sequence number |
//! | author | the replica that made a commit |
//! | stamp | [`Hlc`]: when, in the hybrid-logical sense, and by which replica a commit was made |
//! | clock | the highest stamp that a replica issued or saw, [`HlcGenerator`]; the next stamp is above it |
//! | physical time | the time that the device's *wall clock* shows; its *timer* measures waits, [`Clock`] |
//! | drift | how far a stamp stands ahead of physical time |
//! | stream | all commits of one replica: 1, 2, 3 … without holes, stamps rising |
//! | dot | a replica and a sequence number, which together name one commit, [`CommitId`] |
//! | place | a sequence number of a stream, with the digest there |
//! | cause | a commit of another stream that must be applied before a commit, since its author had seen it |
//! | merge | to make one value of two, for a model that brings its own way, [`Syncable::merge`] |
//! | epoch | the stamp of the delete after which a record was put again; values of different epochs are not merged |
//! | rank | a record's epoch, if its model brings its own merge, then its stamp: the higher rank wins |
//!
//! | the store | |
//! |---|---|
//! | write | one atomic, durable batch of a *store*. Replicas commit, stores write |
//! | joined write | a write in the store's native transaction, together with the app's own statements |
//! | row | an entry of the store, by its kind: record, log, head, kept, … |
//! | log entry | a commit as every replica stores it: causes, and changes with the digest of each value |
//! | digest | a BLAKE3 hash: of a value, or of a stream up to one of its commits |
//! | head | sequence number, stamp and digest of the last commit of a stream in the store |
//! | damaged | of a row of a log, a value or a head: other bytes than those whose digest is named, or none, [`Damage`]. From there on the stream is served to nobody |
//! | mended | of what was damaged: it has the bytes of its digest again, which a peer has sent, [`Event::Mended`] |
//! | floor | the sequence number up to which a stream's log has been *pruned*, that is deleted |
//! | stable | the sequence number that every member has acknowledged |
//! | kept | of a value: in a row of its own, since a log entry needs it and its record holds it no more |
//! | beside | of a value: in a row of its own, since this version of the app cannot merge it into its record yet |
//! | mixed | of a record: merged of several values, so that it holds the value of no single commit |
//! | fold | to merge into its record what lies beside it, once the app can |
//! | projection | tables that the app derives from its records, in the same transaction, [`Projection`] |
//! | rebuild | to fill a projection from all records, page by page |
//! | debt | a record that a projection could not take: a row with the error, kept until the projection takes it |
//!
//! | the others | |
//! |---|---|
//! | peer | another replica, as this one knows it: connected or not, what it has, what it acknowledged |
//! | member | a replica that was added to the group, [`Member`] |
//! | joiner | a replica whose own member record has not arrived yet: it commits nothing and serves nobody |
//! | introducer | the one member that a joiner listens to |
//! | to knock | of a joiner: to say in its hello that it waits to be added, and on which device, [`Event::Knocks`] |
//! | stranger | a replica that is no member; it only hears that it is none |
//! | session | one opening of a store, told by a random number: a peer in a new session may have less than before |
//! | frame | the bytes that a [`Transport`] carries at once: one or more messages |
//! | hello | the message that says the session, the clock and the heads of its sender |
//! | acknowledgement | the message that says up to where its sender has streams durably |
//! | relayed word | what a member says of how far another one has acknowledged a stream, for an author that does not hear that one |
//! | live | the message that carries a commit to all connected members, as soon as it is durable |
//! | pull | to ask a peer for the commits that are missing here |
//! | page | a bounded part of a long answer: commits for a pull, entries of a range, records of a [`List`] |
//! | inbox | the commits of others that passed all checks and wait for the store |
//! | tip | the place that a stream's head will have once its commits in the inbox are applied |
//! | stop | why a stream goes no further here, [`StreamStop`]; the other streams go on |
//! | refusal | the word of a peer that it takes no more of the own stream, [`Refusal`] |
//! | held | of a stream: stopped, since its next stamp is too far ahead of physical time; the app may *release* it |
//! | fork | a second history of a stream, which stops the stream for good |
//! | doubt | the open question whether a stream has a second history, since a peer named another digest than the one here |
//! | to show | to send the row of a commit, so that its receiver can check it: a peer that is doubted must, [`Fork`] |
//! | disputed | of a stream: a peer has another history of it and could not show it, so nothing of it is taken from that peer, [`Event::Disputed`] |
//! | restored | of a store: put back from a backup, or cloned. It commits no more, [`Restored`] |
//!
//! | the engine | |
//! |---|---|
//! | driver | the async part, [`Driver`]: performs *effects* of the engine, and tells it the results as *inputs* |
//! | machine | a part of the engine with private state, which is told facts and returns values |
//! | ledger | the machine that owns the durable heads of all streams and the clock |
//! | pen | the right to draw stamps and sequence numbers; one write has it at a time |
//! | call | a commit or a joined write that a caller waits for |
//! | ticket | names a call, so that its reply finds the caller |
//! | queue | the calls that wait for the store, bounded by their bytes |
//! | round | the commits of this replica that share one write |
//! | lane | a queue of work for the store: the write lane does one write at a time, the read lane one read for peers |
//! | upkeep | writes that the engine does for itself: folding, rebuilding, paying debts |
//! | notice | events that became true together and are told at once |
//! | owed | of a message: to be sent to a peer next, before anything is asked of it |
//! | mark | an event inside the engine that test histories must have brought about, or they prove too little |

mod audit;
mod batch;
mod builder;
mod check;
mod clock;
mod codec;
#[cfg(any(doc, doctest))]
pub mod docs;
mod driver;
mod engine;
mod error;
mod events;
mod folded;
mod hlc;
mod ids;
mod in_pieces;
mod inside;
#[cfg(feature = "internals-for-tests")]
pub mod internals;
mod join;
mod join_wait;
mod joined;
mod limits;
mod list;
mod manager;
mod member;
mod model;
mod overlay;
mod pages;
mod projection;
mod sorted;
mod status;
mod storage;
mod stored;
mod syncable;
mod synced;
mod tournament;
mod transport;
mod tx;
mod update;
mod usage;
#[cfg(test)]
mod vectors;
mod worker;

pub use audit::{Rule, Violation, audit};
pub use batch::Batch;
pub use builder::Builder;
pub use check::LogCheck;
pub use clock::{Clock, ClockError, Mono, Now, SystemClock, WallMs};
pub use driver::{Driver, DriverThread, blocking, may_block};
pub use error::{Error, OpenError, SharedError, StopReason};
pub use events::{
    Change, ChangeKind, Damage, DamagedPart, Event, Events, Fork, Lagged, RecordKey, Refusal, Restored,
    StreamStop,
};
pub use hlc::{DriftError, Hlc, HlcGenerator, HlcLengthError};
pub use ids::{DeviceId, GroupId, ParseIdError, ReplicaId};
pub use join::{Attempt, JoinJob, JoinStorage, JoinTx, Native, StatementError, TransactionEnded};
pub use join_wait::JoinWait;
pub use limits::{Limit, Limits};
pub use list::{List, Unreadable};
pub use manager::TransactionManager;
pub use member::{Member, MemberState};
pub use model::{decode_bytes as decode, encode_bytes as encode};
pub use projection::{Debt, Projection, ProjectionState, ProjectionStatus};
pub use status::{FloorHolder, InstallStatus, PeerStatus, Status, StreamStatus};
pub use storage::{
    BoxError, Entry, GET_KEYS_MAX, Key, KeyRange, ReadError, ScanLimit, ScanMeter, ScanPage, Storage,
    StoreLimits, Value, Visitor, WriteBatch, WriteError, WriteOp,
};
pub use stored::FormatError;
pub use syncable::{DeviceOwned, MODEL_BYTES_MAX, Ownership, RecordId, Shared, SyncId, Syncable};
pub use synced::{CommitId, DurableOn, PeerLag, Synced, Unsynced};
pub use syncline_derive::Syncable;
pub use transport::{Incoming, Transport, TransportError};
pub use tx::Tx;
pub use update::Update;
pub use usage::{Amount, Usage};
pub use uuid::{self, Uuid};
pub use worker::{Panicked, Worker};
