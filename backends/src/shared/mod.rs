//! The parts that the stores on an embedded engine share: the open store with the worker that writes, the health of the engine,
//! closing, panics, locks, and the check of sizes.
//!
//! The *engine* is what a store stands on: redb, sled or SQLite. The folder of each store holds only what its engine
//! does in a way of its own, in files of the same names:
//!
//! | file | role |
//! |---|---|
//! | `builder.rs` | options, and opening |
//! | `store.rs` | `Storage`: what reads and writes do with the engine |
//! | `join.rs` | `JoinStorage`: the app's statements in our transaction |
//! | `layout.rs` | where keys and values lie in the engine, and which sizes fit |
//! | `errors.rs` | what a failure of the engine means to the caller |
//! | `files.rs` | the files on the disk: who owns them, how they become durable |

pub(crate) mod closing;
pub(crate) mod directory;
pub(crate) mod errors;
pub(crate) mod health;
pub(crate) mod lock;
pub(crate) mod open_store;
pub(crate) mod panics;
pub(crate) mod range_end;
pub(crate) mod show;
pub(crate) mod sizes;
