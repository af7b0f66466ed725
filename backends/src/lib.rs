#![forbid(unsafe_code)]
//! Stores for `syncline`, one cargo feature each.
