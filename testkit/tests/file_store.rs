//! Goal: the store on files that authors can start from keeps the whole contract. Method: the lists that it passes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use async_trait::async_trait;
use syncline::BoxError;
use syncline_testkit::{
    FileStore, Fixture, clock_rises_tests, crash_tests, fault_tests, power_tests, replica_tests,
    replication_tests, storage_tests,
};
use tempfile::TempDir;

/// A directory of its own.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

#[async_trait]
impl Fixture for Directory {
    type Store = FileStore;

    async fn open(&self) -> Result<FileStore, BoxError> {
        FileStore::open(self.0.path().join("store"))
    }
}

storage_tests!(storage, Directory::new);
replica_tests!(replica, Directory::new);
replication_tests!(replication, Directory::new);
clock_rises_tests!(clock_rises, Directory::new);
crash_tests!(crash, |path| FileStore::open(path));
power_tests!(power, |path| FileStore::open(path));
fault_tests!(faults, |path| FileStore::open(path));
