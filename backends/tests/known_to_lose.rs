//! Goal: engines in settings that lose what they have acknowledged are found, and so is an app whose rows are in no
//! transaction. Method: each of them must fail its list, with a sentence that says what is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(any(feature = "sled", feature = "sqlite"))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use async_trait::async_trait;
use syncline::Storage;
use syncline_testkit::child::Opener;
use syncline_testkit::strace_test;

fn fails<S: Storage>(opener: &Opener<S>, check: fn(&Opener<S>), says: &str) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(opener))) else {
        panic!("the list finds nothing");
    };
    let text = panic.downcast_ref::<String>().expect("a property fails with a text");
    assert!(text.contains(says), "{text}");
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use std::sync::Mutex;

    use syncline::{
        BoxError, Key, KeyRange, ReadError, ScanLimit, ScanPage, Value, WriteBatch, WriteError, WriteOp,
    };
    use syncline_backends::sqlite::rusqlite::{Connection, OptionalExtension as _, params};
    use syncline_testkit::power::{acknowledged_is_synced, new_files_are_synced_in_their_directory};

    strace_test! {
        fn synchronous_normal_acknowledges_before_the_sync() {
            let opener = opener(concat!(module_path!(), "::synchronous_normal_acknowledges_before_the_sync"), "WAL", "NORMAL");
            fails(&opener, acknowledged_is_synced, "`store-wal` was not synced after pwrite64");
        }
    }

    strace_test! {
        fn a_deleted_journal_comes_back() {
            let opener = opener(concat!(module_path!(), "::a_deleted_journal_comes_back"), "DELETE", "FULL");
            let says = "was not synced after unlink of `store-journal`";
            fails(&opener, new_files_are_synced_in_their_directory, says);
        }
    }

    strace_test! {
        fn a_truncated_journal_comes_back() {
            let opener = opener(concat!(module_path!(), "::a_truncated_journal_comes_back"), "TRUNCATE", "NORMAL");
            fails(&opener, acknowledged_is_synced, "`store-journal` was not synced after ftruncate");
        }
    }

    strace_test! {
        fn wal_and_full_lose_nothing() {
            let opener = opener(concat!(module_path!(), "::wal_and_full_lose_nothing"), "WAL", "FULL");
            acknowledged_is_synced(&opener);
        }
    }

    fn opener(test: &str, journal: &'static str, synchronous: &'static str) -> Opener<Plain> {
        Opener::new(test, move |path| Plain::open(path, journal, synchronous)).without(["-shm"])
    }

    /// SQLite without what `SqliteStorage` adds.
    struct Plain(Mutex<Connection>);

    impl Plain {
        fn open(path: &Path, journal: &str, synchronous: &str) -> Result<Self, BoxError> {
            let connection = Connection::open(path)?;
            connection.execute_batch(&format!(
                "PRAGMA journal_mode = {journal}; PRAGMA synchronous = {synchronous};
                CREATE TABLE IF NOT EXISTS entry (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
            ))?;
            Ok(Self(Mutex::new(connection)))
        }

        fn apply(&self, batch: &WriteBatch) -> Result<(), BoxError> {
            let mut connection = self.0.lock().unwrap();
            let tx = connection.transaction()?;
            for op in batch.ops() {
                match op {
                    WriteOp::Put { key, value } => tx
                        .prepare_cached("INSERT OR REPLACE INTO entry VALUES (?, ?)")?
                        .execute(params![key, value])?,
                    WriteOp::Delete { key } => tx.execute("DELETE FROM entry WHERE key = ?", [key])?,
                    WriteOp::DeleteRange { range: KeyRange { start, end } } => match end {
                        Some(end) => {
                            tx.execute("DELETE FROM entry WHERE key >= ? AND key < ?", [start, end])?
                        }
                        None => tx.execute("DELETE FROM entry WHERE key >= ?", [start])?,
                    },
                };
            }
            Ok(tx.commit()?)
        }

        fn rows_from(&self, start: &Key) -> Result<Vec<(Key, Value)>, BoxError> {
            let connection = self.0.lock().unwrap();
            let mut rows = connection.prepare("SELECT key, value FROM entry WHERE key >= ? ORDER BY key")?;
            let rows = rows.query_map([start], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        }

        fn get(&self, key: &Key) -> Result<Option<Value>, BoxError> {
            let connection = self.0.lock().unwrap();
            Ok(connection
                .query_row("SELECT value FROM entry WHERE key = ?", [key], |row| row.get(0))
                .optional()?)
        }
    }

    #[async_trait]
    impl Storage for Plain {
        async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
            keys.iter().map(|key| self.get(key).map_err(ReadError::new)).collect()
        }

        async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
            let rows = self.rows_from(&range.start).map_err(ReadError::new)?;
            Ok(ScanPage::of(rows.into_iter().take_while(|(key, _)| range.contains(key)), limit))
        }

        async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
            self.apply(&batch).map_err(WriteError::unknown)
        }
    }
}

#[cfg(feature = "sled")]
mod sled {
    use super::*;

    use ::sled::{Batch, Db};
    use syncline::{Key, KeyRange, ReadError, ScanLimit, ScanPage, Value, WriteBatch, WriteError, WriteOp};
    use syncline_backends::SledStorage;
    use syncline_testkit::io_faults::failed_read_is_told;
    use syncline_testkit::power::acknowledged_is_synced;

    strace_test! {
        /// Whatever is around it: sled reads its log by itself, and goes on from where it could not.
        fn a_read_that_fails_is_taken_for_the_end_of_the_log() {
            let test = concat!(module_path!(), "::a_read_that_fails_is_taken_for_the_end_of_the_log");
            let opener = Opener::new(test, |path: &Path| SledStorage::open(path));
            fails(&opener, failed_read_is_told, "EIO at call 1 of a thread: then, without the fault,");
        }
    }

    strace_test! {
        fn a_flush_is_no_sync() {
            let test = concat!(module_path!(), "::a_flush_is_no_sync");
            let opener = Opener::new(test, |path: &Path| ::sled::open(path).map(Flushed));
            fails(&opener, acknowledged_is_synced, "`store/db` was not synced after pwrite64");
        }
    }

    /// sled with nothing but its own flush.
    struct Flushed(Db);

    impl Flushed {
        fn range(&self, range: KeyRange) -> impl Iterator<Item = ::sled::Result<(Key, Value)>> {
            let rows = self.0.range(range.start.clone()..);
            let rows = rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())));
            rows.take_while(move |row| row.as_ref().map_or(true, |(key, _)| range.contains(key)))
        }
    }

    #[async_trait]
    impl Storage for Flushed {
        async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
            let values = keys.iter().map(|key| Ok(self.0.get(key)?.map(|value| value.to_vec())));
            values.collect::<::sled::Result<_>>().map_err(ReadError::new)
        }

        async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
            let rows = self.range(range).collect::<::sled::Result<Vec<_>>>().map_err(ReadError::new)?;
            Ok(ScanPage::of(rows, limit))
        }

        async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
            let mut rows = Batch::default();
            for op in batch {
                match op {
                    WriteOp::Put { key, value } => rows.insert(key, value),
                    WriteOp::Delete { key } => rows.remove(key),
                    WriteOp::DeleteRange { range } => {
                        for row in self.range(range) {
                            rows.remove(row.map_err(WriteError::rejected)?.0);
                        }
                    }
                }
            }
            self.0.apply_batch(rows).and_then(|()| self.0.flush()).map_err(WriteError::unknown)?;
            Ok(())
        }
    }
}

#[cfg(feature = "sqlite")]
mod rows_beside_the_transaction {
    use super::*;

    use std::fs::{self, OpenOptions};
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::sync::{Mutex, OnceLock};

    use syncline::BoxError;
    use syncline_backends::SqliteStorage;
    use syncline_backends::sqlite::rusqlite::Transaction;
    use syncline_testkit::crash::kill_9_keeps_rows_and_batches_in_step;
    use syncline_testkit::{Fixture, JoinFixture};

    #[test]
    fn rows_that_are_written_later_get_out_of_step() {
        let test = concat!(module_path!(), "::rows_that_are_written_later_get_out_of_step");
        let opener = Opener::joining(test, |path: &Path| Beside(path.to_owned()));
        fails(&opener, kill_9_keeps_rows_and_batches_in_step, "rows of the app");
    }

    struct Beside(PathBuf);

    /// The file with the rows, and rows that are not in it yet. A process has one store.
    static ROWS: OnceLock<PathBuf> = OnceLock::new();
    static LATER: Mutex<Vec<u64>> = Mutex::new(Vec::new());

    #[async_trait]
    impl Fixture for Beside {
        type Store = SqliteStorage;

        async fn open(&self) -> Result<SqliteStorage, BoxError> {
            let rows = ROWS.get_or_init(|| self.0.with_extension("rows"));
            OpenOptions::new().append(true).create(true).open(rows)?;
            Ok(SqliteStorage::open(&self.0)?)
        }
    }

    impl JoinFixture for Beside {
        fn put_row(_: &Transaction<'_>, key: u64, _: &str) -> Result<(), BoxError> {
            let mut later = LATER.lock().unwrap();
            later.push(key);
            if later.len() == 5 {
                let mut rows = OpenOptions::new().append(true).open(ROWS.wait())?;
                later.drain(..).try_for_each(|key| writeln!(rows, "{key}"))?;
            }
            Ok(())
        }

        fn delete_row(_: &Transaction<'_>, _: u64) -> Result<(), BoxError> {
            Err("the list deletes no rows".into())
        }

        fn rows(_: &Transaction<'_>) -> Result<Vec<(u64, String)>, BoxError> {
            let rows = fs::read_to_string(ROWS.wait())?;
            rows.lines().map(|key| Ok((key.parse()?, String::new()))).collect()
        }
    }
}
