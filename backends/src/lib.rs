#![forbid(unsafe_code)]
//! Stores for `syncline`, one cargo feature each, and a network in memory.
//!
//! | store | feature | what survives | second opener |
//! |---|---|---|---|
//! | [`MemoryStorage`] | always on | nothing: its content ends with the process | takes over, the first is fenced |
//! | `RedbStorage` | `redb` | crashes of the process and loss of power | is refused with [`OpenStoreError::AlreadyOpen`] |
//! | `SqliteStorage` | `sqlite` | crashes of the process and loss of power | is refused with [`OpenStoreError::AlreadyOpen`] |
//! | `SledStorage` | `sled` | the same, as far as sled can be trusted: experimental | is refused with [`OpenStoreError::AlreadyOpen`] |
//!
//! A feature adds a module and changes nothing else. Every store keeps the contract of
//! [`Storage`](syncline::Storage); the page of the store says what it costs and what can be set.
//!
//! [`MemoryNetwork`] is always on too: replicas of one process talk over it, and an app's tests make it lose, delay and
//! damage frames.

mod bounds;
pub mod memory;
pub mod network;
mod open_store_error;
#[cfg(feature = "redb")]
pub mod redb;
#[cfg(any(feature = "redb", feature = "sled", feature = "sqlite"))]
#[cfg_attr(
    not(all(feature = "redb", feature = "sled", feature = "sqlite")),
    allow(dead_code, reason = "each store uses a part of it")
)]
mod shared;
#[cfg(feature = "sled")]
pub mod sled;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use memory::{MemoryDisk, MemoryStorage};
pub use network::{Link, MemoryNetwork, MemoryNetworkBuilder, MemoryTransport, Traffic};
pub use open_store_error::OpenStoreError;
#[cfg(feature = "redb")]
pub use redb::RedbStorage;
#[cfg(feature = "sled")]
pub use sled::SledStorage;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStorage;

/// Compiles the program of the README as a test. The example `quickstart` is the same program, and runs.
#[cfg(all(doctest, feature = "redb"))]
#[doc = include_str!("../../README.md")]
struct Readme;
