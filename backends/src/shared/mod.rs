//! What the stores on an embedded engine share: the open store with the thread that writes, the health of the engine,
//! closing, panics, and the check of sizes.
//!
//! The *engine* is what a store stands on: redb, sled or SQLite. The folder of each store holds what its engine does in
//! a way of its own, in files of the same names.

pub(crate) mod closing;
pub(crate) mod directory;
pub(crate) mod errors;
pub(crate) mod health;
pub(crate) mod lock;
pub(crate) mod open_store;
pub(crate) mod panics;
pub(crate) mod sizes;
pub(crate) mod worker;
