//! Goal: every store keeps the contract, and a whole replica keeps its promises on every store. Method: the two
//! lists of the testkit, one line each for every store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

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
    use std::io::ErrorKind;
    use support::crash_disk::{CrashDisk, Fault, How, Kind};
    use syncline_backends::RedbStorage;
    use syncline_testkit::{MediumFault, MediumFaultKind};
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

    /// A medium that fails on demand, so that every error path of the store is walked.
    #[derive(Default)]
    struct RedbOnFailingMedium(CrashDisk);

    #[async_trait]
    impl Fixture for RedbOnFailingMedium {
        type Store = RedbStorage;

        async fn open(&self) -> Result<RedbStorage, BoxError> {
            // The medium has no locks.
            if self.0.holders() > 1 {
                return Err("the medium is in use".into());
            }
            Ok(RedbStorage::builder().open_backend(self.0.clone())?)
        }

        fn break_medium(&self, fault: Option<MediumFault>) -> bool {
            self.0.set_fault(fault.map(|MediumFault { at, kind }| Fault {
                on: Kind::Any,
                at: usize::try_from(at).unwrap(),
                sticky: kind == MediumFaultKind::ErrorsFrom,
                how: match kind {
                    MediumFaultKind::Error | MediumFaultKind::ErrorsFrom => How::Error(ErrorKind::Other),
                    MediumFaultKind::Panic => How::Panic,
                },
            }));
            true
        }
    }

    storage_tests!(redb_on_failing_medium, RedbOnFailingMedium::default());
}

#[cfg(feature = "sled")]
mod with_sled {
    use super::*;
    use syncline_backends::SledStorage;
    use tempfile::TempDir;

    /// A directory in a directory of its own.
    struct Sled(TempDir);

    impl Sled {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
    }

    #[async_trait]
    impl Fixture for Sled {
        type Store = SledStorage;

        async fn open(&self) -> Result<SledStorage, BoxError> {
            Ok(SledStorage::open(self.0.path().join("store.sled"))?)
        }
    }

    storage_tests!(sled, Sled::new());
    replica_tests!(sled_replica, Sled::new());
}

#[cfg(feature = "sqlite")]
mod with_sqlite {
    use super::*;
    use syncline_backends::SqliteStorage;
    use tempfile::TempDir;

    /// A file in a directory of its own.
    struct Sqlite(TempDir);

    impl Sqlite {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
    }

    #[async_trait]
    impl Fixture for Sqlite {
        type Store = SqliteStorage;

        async fn open(&self) -> Result<SqliteStorage, BoxError> {
            Ok(SqliteStorage::open(self.0.path().join("store.sqlite"))?)
        }
    }

    storage_tests!(sqlite, Sqlite::new());
    replica_tests!(sqlite_replica, Sqlite::new());
}
