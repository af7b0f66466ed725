//! A store in one [sled](https://docs.rs/sled) directory: pure Rust, a log with a lock-free tree in memory. Experimental.
//!
//! Reads run where they are called, scans of many entries on the `blocking` pool, writes one after the other on a
//! thread of their own; a read that meets a write waits until it is durable. One opener per directory, a second is
//! refused.

mod builder;
mod errors;
mod files;
mod layout;
mod store;

pub use builder::SledBuilder;
pub use store::SledStorage;
