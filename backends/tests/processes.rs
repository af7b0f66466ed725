//! Goal: the stores on files keep what they acknowledge when their process is killed, when the power is lost, and when
//! the system refuses their calls. Method: the lists of child processes of the testkit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(any(feature = "redb", feature = "sled", feature = "sqlite"))]

#[allow(unused_macros, reason = "each feature uses a part of it")]
#[macro_use]
#[path = "support/app_rows.rs"]
mod app_rows;

use syncline_testkit::{crash_tests, fault_tests, power_tests};

#[cfg(any(feature = "redb", feature = "sqlite"))]
mod joined {
    pub(crate) use std::path::PathBuf;

    pub(crate) use async_trait::async_trait;
    pub(crate) use syncline::BoxError;
    pub(crate) use syncline_testkit::{Fixture, crash_join_tests};
}

#[cfg(feature = "redb")]
mod redb {
    use super::joined::*;
    use super::*;
    use syncline_backends::RedbStorage;

    crash_tests!(crash, |path| RedbStorage::open(path));
    crash_join_tests!(joined, |path| At(path.to_owned()));
    power_tests!(power, |path| RedbStorage::open(path));
    fault_tests!(faults, |path| RedbStorage::open(path));

    struct At(PathBuf);

    #[async_trait]
    impl Fixture for At {
        type Store = RedbStorage;

        async fn open(&self) -> Result<RedbStorage, BoxError> {
            Ok(RedbStorage::open(&self.0)?)
        }
    }

    rows_in_redb!(At);
}

#[cfg(feature = "sled")]
mod sled {
    use super::*;
    use syncline_backends::SledStorage;

    crash_tests!(crash, |path| SledStorage::open(path));
    power_tests!(power, |path| SledStorage::open(path));
    // `known_to_lose.rs` shows that sled does so.
    fault_tests!(faults, |path| SledStorage::open(path), ignore {
        failed_read_is_told = "sled takes what it cannot read for the end of its log, and writes over it",
    });
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::joined::*;
    use super::*;
    use syncline_backends::SqliteStorage;

    crash_tests!(crash, |path| SqliteStorage::open(path));
    crash_join_tests!(joined, |path| At(path.to_owned()));
    // The index of the log lies in shared memory, and the first opener makes it anew.
    power_tests!(power, |path| SqliteStorage::open(path), without: ["-shm"]);
    fault_tests!(faults, |path| SqliteStorage::open(path));

    struct At(PathBuf);

    #[async_trait]
    impl Fixture for At {
        type Store = SqliteStorage;

        async fn open(&self) -> Result<SqliteStorage, BoxError> {
            Ok(SqliteStorage::open(&self.0)?)
        }
    }

    rows_in_sqlite!(At);
}
