//! Goal: replicas that talk keep their promises on every store. Method: the list of the testkit, one line each.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use async_trait::async_trait;
use syncline::BoxError;
use syncline_backends::{MemoryDisk, MemoryStorage};
use syncline_testkit::{Fixture, replication_tests};

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

replication_tests!(memory, Memory::default);

#[cfg(feature = "redb")]
mod with_redb {
    use super::*;
    use syncline_backends::RedbStorage;
    use tempfile::TempDir;

    /// A file in a directory of its own.
    struct Redb(TempDir);

    #[async_trait]
    impl Fixture for Redb {
        type Store = RedbStorage;

        async fn open(&self) -> Result<RedbStorage, BoxError> {
            Ok(RedbStorage::open(self.0.path().join("store.redb"))?)
        }
    }

    replication_tests!(redb, || Redb(tempfile::tempdir().unwrap()));
}

#[cfg(feature = "sled")]
mod with_sled {
    use super::*;
    use syncline_backends::SledStorage;
    use tempfile::TempDir;

    /// A directory in a directory of its own.
    struct Sled(TempDir);

    #[async_trait]
    impl Fixture for Sled {
        type Store = SledStorage;

        async fn open(&self) -> Result<SledStorage, BoxError> {
            Ok(SledStorage::open(self.0.path().join("store.sled"))?)
        }
    }

    replication_tests!(sled, || Sled(tempfile::tempdir().unwrap()));
}

#[cfg(feature = "sqlite")]
mod with_sqlite {
    use super::*;
    use syncline_backends::SqliteStorage;
    use tempfile::TempDir;

    /// A file in a directory of its own.
    struct Sqlite(TempDir);

    #[async_trait]
    impl Fixture for Sqlite {
        type Store = SqliteStorage;

        async fn open(&self) -> Result<SqliteStorage, BoxError> {
            Ok(SqliteStorage::open(self.0.path().join("store.sqlite"))?)
        }
    }

    replication_tests!(sqlite, || Sqlite(tempfile::tempdir().unwrap()));
}
