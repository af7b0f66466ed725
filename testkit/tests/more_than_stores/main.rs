//! Goal: the lists that are not for stores find what they are for. Method: the correct ones pass, and of many that are
//! broken in one way each, every one is caught by the property that names its flaw.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod apps;
mod clocks;
mod matrix;
mod merges;
mod transports;
