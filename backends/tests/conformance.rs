//! Goal: every store keeps the contract, and on every store a replica alone and replicas that talk keep their promises.
//! Method: the lists of tests in the testkit, one line each for every store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[allow(unused_macros, reason = "each feature uses a part of it")]
#[macro_use]
#[path = "support/app_rows.rs"]
mod app_rows;
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use async_trait::async_trait;
use syncline::BoxError;
use syncline_backends::{MemoryDisk, MemoryStorage};
use syncline_testkit::{Fixture, clock_rises_tests, replica_tests, replication_tests, storage_tests};

/// The disk of a memory store.
#[derive(Default)]
struct Memory(MemoryDisk);

#[async_trait]
impl Fixture for Memory {
    type Store = MemoryStorage;

    async fn open(&self) -> Result<MemoryStorage, BoxError> {
        Ok(MemoryStorage::open(&self.0))
    }
}

storage_tests!(memory, Memory::default);
replica_tests!(memory_replica, Memory::default);
replication_tests!(memory_replication, Memory::default);
clock_rises_tests!(memory_clock_rises, Memory::default);

#[cfg(feature = "redb")]
mod with_redb {
    use super::*;
    use std::io::ErrorKind;
    use support::crash_disk::{CrashDisk, Fault, How, Kind};
    use syncline_backends::RedbStorage;
    use syncline_testkit::{
        MediumFault, MediumFaultKind, join_tests, joined_replica_tests, joined_replication_tests,
    };
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

    rows_in_redb!(Redb);
    storage_tests!(redb, Redb::new);
    join_tests!(redb_join, Redb::new);
    joined_replica_tests!(redb_joined_replica, Redb::new);
    replica_tests!(redb_replica, Redb::new);
    replication_tests!(redb_replication, Redb::new);
    clock_rises_tests!(redb_clock_rises, Redb::new);
    joined_replication_tests!(redb_joined_replication, Redb::new);

    /// A medium that fails on demand, so that the lists also run the error paths of the store.
    #[derive(Default)]
    struct RedbOnFailingMedium(CrashDisk);

    #[async_trait]
    impl Fixture for RedbOnFailingMedium {
        type Store = RedbStorage;

        async fn open(&self) -> Result<RedbStorage, BoxError> {
            // The medium has no locks that would refuse a second opener.
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

    rows_in_redb!(RedbOnFailingMedium);
    storage_tests!(redb_on_failing_medium, RedbOnFailingMedium::default, breaks_its_medium);
    join_tests!(redb_join_on_failing_medium, RedbOnFailingMedium::default);
    joined_replica_tests!(redb_joined_replica_on_failing_medium, RedbOnFailingMedium::default);
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

    storage_tests!(sled, Sled::new);
    replica_tests!(sled_replica, Sled::new);
    replication_tests!(sled_replication, Sled::new);
    clock_rises_tests!(sled_clock_rises, Sled::new);
}

#[cfg(feature = "sqlite")]
mod with_sqlite {
    use super::*;
    use syncline_backends::SqliteStorage;
    use syncline_testkit::{join_tests, joined_replica_tests, joined_replication_tests};
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

    rows_in_sqlite!(Sqlite);
    storage_tests!(sqlite, Sqlite::new);
    join_tests!(sqlite_join, Sqlite::new);
    joined_replica_tests!(sqlite_joined_replica, Sqlite::new);
    replica_tests!(sqlite_replica, Sqlite::new);
    replication_tests!(sqlite_replication, Sqlite::new);
    clock_rises_tests!(sqlite_clock_rises, Sqlite::new);
    joined_replication_tests!(sqlite_joined_replication, Sqlite::new);
}
