//! A store in one [redb](https://docs.rs/redb) file: pure Rust, copy on write, no log to replay.
//!
//! Reads run on the caller's thread, also while a write runs; long scans run on the `blocking` pool; writes run one
//! after the other on a thread of their own. redb locks its file, so a second opener is refused.

mod builder;
mod compact;
mod errors;
mod files;
mod join;
mod layout;
mod medium;
mod store;

pub use ::redb;
pub use builder::RedbBuilder;
pub use compact::Compaction;
pub use join::RedbTx;
pub use store::RedbStorage;
