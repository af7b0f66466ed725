//! Goal: a `MemoryNetwork` does to frames what its links say, nothing else, and the same for the same seed. Method:
//! numbered frames between ends that are polled by hand, on a clock that moves when a future sleeps on it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod connections;
mod ends;
mod links;
mod rates;
mod support;
