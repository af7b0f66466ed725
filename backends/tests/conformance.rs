//! Goal: every store keeps the contract, and a whole replica keeps its promises on every store. Method: the two
//! lists of the testkit, one line each for every store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use async_trait::async_trait;
use syncline::BoxError;
use syncline_backends::{MemoryDisk, MemoryStorage};
use syncline_testkit::{Fixture, replica_tests, storage_tests};

/// A memory store's disk.
#[derive(Default)]
struct Memory(MemoryDisk);

#[async_trait]
impl Fixture for Memory {
    type Store = MemoryStorage;

    async fn open(&self) -> Result<MemoryStorage, BoxError> {
        Ok(MemoryStorage::open(&self.0))
    }
}

storage_tests!(memory, Memory::default());
replica_tests!(memory_replica, Memory::default());

#[cfg(feature = "redb")]
mod with_redb {
    use super::*;
    use syncline_backends::RedbStorage;
    use tempfile::TempDir;

    /// A file in a directory of its own.
    struct Redb(TempDir);

    impl Redb {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
    }

    #[async_trait]
    impl Fixture for Redb {
        type Store = RedbStorage;

        async fn open(&self) -> Result<RedbStorage, BoxError> {
            Ok(RedbStorage::open(self.0.path().join("store.redb"))?)
        }
    }

    storage_tests!(redb, Redb::new());
    replica_tests!(redb_replica, Redb::new());
}
