//! A store in one [SQLite](https://sqlite.org) database, which may also hold the app's own tables.
//!
//! Reads run on the caller's thread and on connections of their own, also while a write runs; long scans run on the
//! `blocking` pool; writes and joins run one after the other on a thread of their own, on the one connection that
//! writes. The database is in WAL mode, and every commit is flushed.

mod builder;
mod connection;
mod errors;
mod files;
mod guard;
mod join;
mod layout;
mod store;
mod writer;

pub use builder::SqliteBuilder;
pub use join::SqliteTx;
/// The version of rusqlite that [`SqliteTx`] lends a transaction of.
pub use rusqlite;
pub use store::SqliteStorage;
