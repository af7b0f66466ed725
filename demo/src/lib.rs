#![forbid(unsafe_code)]
//! Keeps a directory in each of the durable stores, as a file manager would: `cargo demo [DIR]`.
//!
//! One device-owned [`Entry`] stands for each file and directory, one shared [`Tag`] for each kind of them. The names
//! of entries sort as the walk goes, so a run is one pass over two sorted sequences, what is on disk and what is
//! stored, and holds neither of them. Only what differs is committed.
//!
//! A run may be killed at any moment: what was committed is whole, and the next run commits the rest.
//!
//! ```text
//!   Walk ─────────────────▶ Seen ──┐
//!                                  ├─ Merge ──▶ Step ──▶ batches of 1,000 ──▶ commit_batch
//!   list_of(device) ──────▶ Entry ─┘
//! ```

pub mod data_dir;
pub mod kinds;
pub mod merge;
pub mod models;
pub mod path_id;
pub mod progress;
pub mod report;
pub mod run;
pub mod stores;
pub mod survey;
pub mod walk;

pub use models::{Entry, Tag};
pub use path_id::PathId;

/// A result whose error is a sentence for the person who called the program.
pub type Result<T> = std::result::Result<T, syncline::BoxError>;
