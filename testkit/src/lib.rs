#![forbid(unsafe_code)]
//! Proves that a store keeps the storage contract.
