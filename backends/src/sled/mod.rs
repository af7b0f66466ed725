//! A store in one [sled](https://docs.rs/sled) directory: pure Rust, a log with a lock-free tree in memory.
//! Experimental.
//!
//! Reads run on the caller's thread; long scans run on the `blocking` pool; writes run one after the other on a thread
//! of their own. A read that meets a write waits until the write is durable. The directory is locked, so a second
//! opener is refused.

mod builder;
mod errors;
mod files;
mod layout;
mod store;

pub use builder::SledBuilder;
pub use store::SledStorage;
