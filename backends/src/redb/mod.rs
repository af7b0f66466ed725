//! A store in one [redb](https://docs.rs/redb) file: pure Rust, copy on write, no log to replay.
//!
//! Reads run where they are called, beside a write; long scans run on the `blocking` pool; writes run one after
//! the other on a thread of their own. redb allows one opener per file, so a second one is refused.

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
