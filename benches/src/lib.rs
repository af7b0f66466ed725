#![forbid(unsafe_code)]
//! Measures syncline beside the bare store.
