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

use syncline_testkit::{crash_tests, fault_tests, power_tests};

#[cfg(any(feature = "redb", feature = "sqlite"))]
mod joined {
    pub(crate) use std::path::PathBuf;

    pub(crate) use async_trait::async_trait;
    pub(crate) use syncline::BoxError;
    pub(crate) use syncline_testkit::{Fixture, JoinFixture, crash_join_tests};
}

#[cfg(feature = "redb")]
mod redb {
    use super::joined::*;
    use super::*;
    use syncline_backends::RedbStorage;
    use syncline_backends::redb::redb::{ReadableTable as _, TableDefinition, WriteTransaction};

    crash_tests!(crash, |path| RedbStorage::open(path));
    crash_join_tests!(joined, |path| At(path.to_owned()));
    power_tests!(power, |path| RedbStorage::open(path));
    fault_tests!(faults, |path| RedbStorage::open(path));

    const ROWS: TableDefinition<'_, u64, &str> = TableDefinition::new("app_row");

    struct At(PathBuf);

    #[async_trait]
    impl Fixture for At {
        type Store = RedbStorage;

        async fn open(&self) -> Result<RedbStorage, BoxError> {
            Ok(RedbStorage::open(&self.0)?)
        }
    }

    impl JoinFixture for At {
        fn put_row(tx: &WriteTransaction, key: u64, value: &str) -> Result<(), BoxError> {
            tx.open_table(ROWS)?.insert(key, value)?;
            Ok(())
        }

        fn delete_row(tx: &WriteTransaction, key: u64) -> Result<(), BoxError> {
            tx.open_table(ROWS)?.remove(key)?;
            Ok(())
        }

        fn rows(tx: &WriteTransaction) -> Result<Vec<(u64, String)>, BoxError> {
            let table = tx.open_table(ROWS)?;
            let rows =
                table.iter()?.map(|row| row.map(|(key, value)| (key.value(), value.value().to_owned())));
            Ok(rows.collect::<Result<_, _>>()?)
        }
    }
}

#[cfg(feature = "sled")]
mod sled {
    use super::*;
    use syncline_backends::SledStorage;

    crash_tests!(crash, |path| SledStorage::open(path));
    power_tests!(power, |path| SledStorage::open(path));
    fault_tests!(faults, |path| SledStorage::open(path));
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::joined::*;
    use super::*;
    use syncline_backends::SqliteStorage;
    use syncline_backends::sqlite::rusqlite::Transaction;

    crash_tests!(crash, |path| SqliteStorage::open(path));
    crash_join_tests!(joined, |path| At(path.to_owned()));
    // The index of the log lies in shared memory, and the first opener makes it anew.
    power_tests!(power, |path| SqliteStorage::open(path), without: ["-shm"]);
    fault_tests!(faults, |path| SqliteStorage::open(path));

    const TABLE: &str = "CREATE TABLE IF NOT EXISTS app_row (key INTEGER PRIMARY KEY, value TEXT NOT NULL)";

    struct At(PathBuf);

    #[async_trait]
    impl Fixture for At {
        type Store = SqliteStorage;

        async fn open(&self) -> Result<SqliteStorage, BoxError> {
            Ok(SqliteStorage::open(&self.0)?)
        }
    }

    impl JoinFixture for At {
        fn put_row(tx: &Transaction<'_>, key: u64, value: &str) -> Result<(), BoxError> {
            tx.execute(TABLE, ())?;
            tx.execute("INSERT OR REPLACE INTO app_row VALUES (?, ?)", (key.cast_signed(), value))?;
            Ok(())
        }

        fn delete_row(tx: &Transaction<'_>, key: u64) -> Result<(), BoxError> {
            tx.execute(TABLE, ())?;
            tx.execute("DELETE FROM app_row WHERE key = ?", [key.cast_signed()])?;
            Ok(())
        }

        fn rows(tx: &Transaction<'_>) -> Result<Vec<(u64, String)>, BoxError> {
            tx.execute(TABLE, ())?;
            let mut rows = tx.prepare("SELECT key, value FROM app_row ORDER BY key")?;
            let rows = rows.query_map((), |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        }
    }
}
