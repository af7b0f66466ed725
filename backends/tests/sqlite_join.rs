//! Goal: the app's statements and a batch of the library share one SQLite transaction that only the store can end.
//! Method: joins whose jobs end the transaction in every way that SQL has, fail, panic, and change settings. After each
//! of them the answer and the content are checked, and a write shows that the store goes on.
#![cfg(feature = "sqlite")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use support::{content, put, write};
use syncline::{
    Attempt, BoxError, JoinStorage, JoinTx, StatementError, Storage, TransactionEnded, WriteError,
};
use syncline_backends::SqliteStorage;
use syncline_backends::sqlite::{SqliteTx, rusqlite};
use tempfile::TempDir;

const SCHEMA: &str = "
    CREATE TABLE app (id INTEGER PRIMARY KEY, text TEXT UNIQUE);
    CREATE TABLE child (app INTEGER REFERENCES app (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE bomb (id INTEGER);
    CREATE TRIGGER bomb AFTER INSERT ON bomb BEGIN SELECT RAISE(ROLLBACK, 'boom'); END;
    INSERT INTO app VALUES (1, 'first');
";

/// A store with the app's tables in the same file.
struct Subject {
    store: SqliteStorage,
    directory: TempDir,
}

impl Subject {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let builder = SqliteStorage::builder().busy_timeout(Duration::ZERO);
        let store = builder.open(directory.path().join("store.sqlite")).unwrap();
        let subject = Self { store, directory };
        subject.join(|tx| Ok(tx.native().execute_batch(SCHEMA)?)).unwrap();
        subject
    }

    fn join(
        &self,
        job: impl FnOnce(&SqliteTx<'_>) -> Result<(), BoxError> + Send + 'static,
    ) -> Result<(), WriteError> {
        block_on(self.store.join(Box::new(job)))
    }

    /// A connection of the app's own, which sees committed rows only.
    fn other_connection(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.directory.path().join("store.sqlite")).unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        connection
    }

    /// Asserts that the database holds only what [`Subject::new`] wrote, and that the store goes on.
    fn assert_untouched(&self, context: &str) {
        let other = self.other_connection();
        let rows = |table: &str| -> i64 {
            other.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        };
        assert_eq!([rows("app"), rows("child"), rows("bomb")], [1, 0, 0], "{context}");
        assert!(content(&self.store).unwrap().is_empty(), "{context}");
        drop(other);

        // A write and a joined write.
        write(&self.store, &put("after", "it")).unwrap();
        let mut gone = syncline::WriteBatch::new();
        gone.delete("after");
        self.join(move |tx| tx.apply(&gone)).unwrap();
        assert!(content(&self.store).unwrap().is_empty(), "{context}");
    }
}

fn assert_ended(outcome: Result<(), WriteError>, context: &str) {
    match outcome {
        Err(WriteError::Rejected(error)) => {
            assert!(error.is::<TransactionEnded>(), "{context}: {error}");
        }
        other => panic!("{context}: {other:?}"),
    }
}

#[test]
fn a_statement_that_ends_the_transaction_undoes_the_join() {
    let endings: [&[&str]; 16] = [
        &["COMMIT"],
        &["END TRANSACTION"],
        &["ROLLBACK"],
        &["BEGIN"],
        &["COMMIT", "BEGIN", "INSERT INTO app VALUES (3, 'third')"],
        &["COMMIT; BEGIN"],
        &["ROLLBACK", "BEGIN IMMEDIATE", "INSERT INTO app VALUES (3, 'third')", "COMMIT"],
        &["INSERT OR ROLLBACK INTO app VALUES (3, 'first')"],
        &["UPDATE OR ROLLBACK app SET text = 'first'"],
        &["INSERT INTO bomb VALUES (1)"],
        // The statements after the rollback run outside the transaction.
        &["INSERT INTO bomb VALUES (1)", "INSERT INTO app VALUES (3, 'third')"],
        &["INSERT INTO bomb VALUES (1)", "BEGIN", "INSERT INTO app VALUES (3, 'third')"],
        &["INSERT INTO bomb VALUES (1)", "BEGIN", "INSERT INTO app VALUES (3, 'third')", "COMMIT"],
        &["INSERT INTO bomb VALUES (1)", "SAVEPOINT s", "INSERT INTO app VALUES (3, 'third')", "RELEASE s"],
        &["INSERT INTO bomb VALUES (1)", "SAVEPOINT s", "INSERT INTO app VALUES (3, 'third')"],
        &["INSERT INTO bomb VALUES (1)", "CREATE TABLE more (id)", "INSERT INTO app VALUES (3, 'third')"],
    ];
    let subject = Subject::new();
    for ending in endings {
        let context = ending.join("; ");
        for batch_is_last in [true, false] {
            let outcome = subject.join(move |tx| {
                if !batch_is_last {
                    tx.apply(&put("ours", "before"))?;
                }
                tx.native().execute("INSERT INTO app VALUES (2, 'second')", [])?;
                for statement in ending {
                    // The app ignores the error of its statement.
                    drop(tx.native().execute_batch(statement));
                }
                if batch_is_last {
                    drop(tx.apply(&put("ours", "after")));
                }
                Ok(())
            });
            assert_ended(outcome, &context);
            subject.assert_untouched(&context);
        }
    }
}

/// A part that tries to end the transaction, in whatever way it reports that, leaves nothing to go back to.
#[test]
fn a_part_that_ends_the_transaction_spoils_the_join() {
    let subject = Subject::new();
    for statement in
        ["COMMIT", "ROLLBACK", "RELEASE syncline", "SAVEPOINT Syncline", "INSERT INTO bomb VALUES (1)"]
    {
        for tells in [true, false] {
            let context = format!("{statement}, {tells}");
            let seen = Arc::new(Mutex::new(None));
            let fill = Arc::clone(&seen);
            let outcome = subject.join(move |tx| {
                let attempt = tx.attempt(&mut || {
                    tx.native().execute("INSERT INTO app VALUES (2, 'second')", [])?;
                    let done = tx.native().execute_batch(statement);
                    if tells { Ok(done?) } else { Ok(()) }
                });
                *fill.lock().unwrap() = Some(attempt);
                Ok(())
            });
            let seen = seen.lock().unwrap().take();
            assert!(matches!(seen, Some(Attempt::Spoiled(_))), "{context}: {seen:?}");
            assert_ended(outcome, &context);
            subject.assert_untouched(&context);
        }
    }
}

/// A statement that failed and rolled the transaction back says more than that the transaction has ended. A statement
/// that was refused says only "not authorized".
#[test]
fn a_job_that_reports_what_rolled_it_back_gets_its_own_error_back() {
    let subject = Subject::new();
    for (ending, own) in [("COMMIT", false), ("INSERT INTO bomb VALUES (1)", true)] {
        let outcome = subject.join(move |tx| {
            tx.apply(&put("ours", "before"))?;
            Ok(tx.native().execute_batch(ending)?)
        });
        match outcome {
            Err(WriteError::Rejected(error)) => {
                assert_eq!(error.is::<rusqlite::Error>(), own, "{ending}: {error}");
                assert_eq!(error.is::<TransactionEnded>(), !own, "{ending}: {error}");
            }
            other => panic!("{ending}: {other:?}"),
        }
        subject.assert_untouched(ending);
    }
}

#[test]
fn savepoints_undo_a_part_and_keep_the_rest() {
    let subject = Subject::new();
    subject
        .join(|tx| {
            let native = tx.native();
            native.execute_batch("SAVEPOINT outer; INSERT INTO app VALUES (2, 'kept'); SAVEPOINT inner")?;
            native.execute("INSERT INTO app VALUES (3, 'undone')", [])?;
            tx.apply(&put("undone", "with it"))?;
            assert_eq!(tx.get_many(&[b"undone".to_vec()])?, [Some(b"with it".to_vec())]);
            native.execute_batch("ROLLBACK TO inner; RELEASE outer; SAVEPOINT left_open")?;
            tx.apply(&put("ours", "kept"))
        })
        .unwrap();
    let texts: String = subject
        .other_connection()
        .query_row("SELECT group_concat(text) FROM app ORDER BY id", [], |row| row.get(0))
        .unwrap();
    assert_eq!(texts, "first,kept");
    let entries = content(&subject.store).unwrap();
    assert_eq!(entries.into_iter().collect::<Vec<_>>(), [(b"ours".to_vec(), b"kept".to_vec())]);
}

#[test]
fn a_job_that_fails_or_panics_leaves_no_trace() {
    let subject = Subject::new();
    let work = |tx: &SqliteTx<'_>| {
        tx.native().execute("INSERT INTO app VALUES (2, 'second')", []).unwrap();
        tx.apply(&put("ours", "too"))
    };
    let outcome = subject.join(move |tx| work(tx).and(Err("the app says no".into())));
    assert!(matches!(outcome, Err(WriteError::Rejected(error)) if error.to_string() == "the app says no"));
    subject.assert_untouched("an error");

    let outcome = subject.join(move |tx| work(tx).map(|()| panic!("seven")));
    assert!(matches!(outcome, Err(WriteError::Rejected(error)) if error.to_string().contains("seven")));
    subject.assert_untouched("a panic");
}

#[test]
fn a_constraint_that_fails_at_the_commit_rejects_the_join() {
    let subject = Subject::new();
    let outcome = subject.join(|tx| {
        tx.native().execute("INSERT INTO child VALUES (17)", [])?;
        tx.apply(&put("ours", "too"))
    });
    match outcome {
        Err(WriteError::Rejected(error)) => {
            assert!(error.to_string().contains("FOREIGN KEY"), "{error}");
            assert!(matches!(error.downcast_ref(), Some(StatementError::Constraint(_))), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    subject.assert_untouched("a deferred foreign key");
}

#[test]
fn settings_that_the_store_relies_on_cannot_be_changed() {
    let subject = Subject::new();
    let settings = [
        ("synchronous", "0"),
        ("fullfsync", "0"),
        ("checkpoint_fullfsync", "0"),
        ("trusted_schema", "1"),
        ("cell_size_check", "0"),
        ("mmap_size", "1000000"),
        ("query_only", "1"),
        ("locking_mode", "EXCLUSIVE"),
        ("writable_schema", "1"),
        ("wal_autocheckpoint", "0"),
        ("count_changes", "1"),
        ("max_page_count", "1"),
    ];
    // Reads the settings. If `first` is not empty, runs it and tries to change the settings before: inside the
    // transaction, or after its end if `first` ends it.
    let read = |first: &'static str| {
        let found = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&found);
        let job = move |tx: &SqliteTx<'_>| -> Result<(), BoxError> {
            drop(tx.native().execute_batch(first));
            if !first.is_empty() {
                for (name, value) in settings {
                    let error =
                        tx.native().execute_batch(&format!("PRAGMA main.{name} = {value}")).unwrap_err();
                    assert!(error.to_string().contains("not authorized"), "{name}: {error}");
                }
                assert!(tx.native().execute_batch("PRAGMA Journal_Mode(DELETE)").is_err());
                assert!(tx.native().execute_batch("PRAGMA wal_checkpoint").is_err());
                assert!(tx.native().execute_batch("ATTACH ':memory:' AS other").is_err());
                assert!(tx.native().execute_batch("VACUUM").is_err());
            }
            for (name, _) in settings {
                let value: rusqlite::types::Value = tx
                    .native()
                    .pragma_query_value(None, name, |row| row.get(0))
                    .unwrap_or(rusqlite::types::Value::Null);
                seen.lock().unwrap().push((name, value));
            }
            Ok(())
        };
        drop(subject.join(job));
        let found = found.lock().unwrap().clone();
        assert_eq!(found.len(), settings.len());
        found
    };
    let before = read("");
    assert_eq!(before[0], ("synchronous", 2.into()));
    for first in ["SELECT 1", "INSERT INTO bomb VALUES (1)"] {
        assert_eq!(read(first), before, "{first}");
        assert_eq!(read(""), before, "{first}");
        subject.assert_untouched(first);
    }
}

#[test]
fn pragmas_of_the_app_are_its_own() {
    let subject = Subject::new();
    subject
        .join(|tx| {
            tx.native().execute_batch("PRAGMA user_version = 7; PRAGMA defer_foreign_keys = ON")?;
            tx.native().query_row("SELECT count(*) FROM pragma_table_info('app')", [], |_| Ok(()))?;
            Ok(())
        })
        .unwrap();
    let version: i64 =
        subject.other_connection().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 7);
}

#[test]
fn a_commit_is_flushed_in_full_and_the_log_is_a_write_ahead_log() {
    let subject = Subject::new();
    subject
        .join(|tx| {
            let ask = |name: &str| tx.native().pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            for (name, expected) in [
                ("synchronous", 2),
                ("fullfsync", 1),
                ("checkpoint_fullfsync", 1),
                ("trusted_schema", 0),
                ("cell_size_check", 1),
            ] {
                assert_eq!(ask(name).unwrap(), expected, "{name}");
            }
            assert_eq!(ask("mmap_size").unwrap_or(0), 0);
            let mode: String = tx.native().pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            assert_eq!(mode, "wal");
            Ok(())
        })
        .unwrap();
}

#[test]
fn nobody_can_write_between_the_first_read_of_a_join_and_its_end() {
    let subject = Subject::new();
    let other = subject.other_connection();
    subject
        .join(move |tx| {
            tx.get_many(&[b"key".to_vec()])?;
            let error = other.execute("INSERT INTO app VALUES (9, 'other')", []).unwrap_err();
            assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
            tx.apply(&put("key", "value"))
        })
        .unwrap();
}

#[test]
fn a_write_beside_another_writer_is_rejected_and_can_be_repeated() {
    let subject = Subject::new();
    let other = subject.other_connection();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(write(&subject.store, &put("key", "value")), Err(WriteError::Rejected(_))));
    assert!(matches!(subject.join(|_| panic!("it was not to run")), Err(WriteError::Rejected(_))));
    other.execute_batch("COMMIT").unwrap();
    subject.assert_untouched("another writer");
}

#[test]
fn a_join_sees_what_it_applied_and_others_see_it_afterwards() {
    let subject = Subject::new();
    write(&subject.store, &put("old", "value")).unwrap();
    let other = subject.other_connection();
    let key = |name: &str| name.as_bytes().to_vec();
    subject
        .join(move |tx| {
            tx.apply(&put("new", "value"))?;
            let values = tx.get_many(&[key("new"), key("none"), key("old"), key("new"), key("")])?;
            assert_eq!(
                values.iter().map(Option::is_some).collect::<Vec<_>>(),
                [true, false, true, true, false]
            );
            let count = "SELECT count(*) FROM syncline_records";
            assert_eq!(other.query_row(count, [], |row| row.get::<_, i64>(0))?, 1);
            Ok(())
        })
        .unwrap();
    assert_eq!(content(&subject.store).unwrap().len(), 2);
}

#[test]
fn a_dropped_join_runs_to_its_end_and_in_its_place() {
    let subject = Subject::new();
    for n in 0..20 {
        let job: syncline::JoinJob<SqliteStorage> = Box::new(move |tx| {
            tx.native().execute("UPDATE app SET text = text || ?1", [n % 10])?;
            Ok(())
        });
        drop(subject.store.join(job).now_or_never());
        drop(subject.store.write(put("last", &n.to_string())).now_or_never());
    }
    subject.join(|_| Ok(())).unwrap();
    let text: String =
        subject.other_connection().query_row("SELECT text FROM app", [], |row| row.get(0)).unwrap();
    assert_eq!(text, "first01234567890123456789");
    assert_eq!(content(&subject.store).unwrap()[&b"last"[..]], b"19");
}

#[test]
fn many_statements_of_the_app_do_not_disturb_ours() {
    let subject = Subject::new();
    for round in 0..3 {
        subject
            .join(move |tx| {
                for n in 0..400 {
                    let mut statement = tx.native().prepare_cached(&format!("SELECT id + {n} FROM app"))?;
                    assert_eq!(statement.query_row([], |row| row.get::<_, i64>(0))?, n + 1);
                }
                // The schema changes while statements are cached.
                tx.native().execute_batch(&format!("CREATE TABLE t{round} (id)"))?;
                tx.apply(&put("key", &round.to_string()))
            })
            .unwrap();
        assert_eq!(content(&subject.store).unwrap()[&b"key"[..]], round.to_string().as_bytes());
    }
}

/// SQLite looks for a table among the temporary ones first. A temporary table of our name would take our entries, and
/// lose them when the store is closed.
#[test]
fn a_temporary_table_of_our_name_takes_nothing_of_ours() {
    let subject = Subject::new();
    subject
        .join(|tx| {
            let native = tx.native();
            native
                .execute_batch("CREATE TEMP TABLE syncline_records (key BLOB NOT NULL UNIQUE, value BLOB)")?;
            Ok(native.execute_batch("CREATE TEMP TABLE syncline_state (key BLOB PRIMARY KEY, value BLOB)")?)
        })
        .unwrap();
    let mut batch = put("\u{7}state", "1");
    batch.put("record", "2");
    write(&subject.store, &batch).unwrap();
    let other = subject.other_connection();
    for table in ["syncline_records", "syncline_state"] {
        let rows: i64 =
            other.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1, "{table}");
    }
    assert_eq!(content(&subject.store).unwrap().len(), 2);
}

/// A damaged page that a write meets ends the store. This holds for a joined write too, even if the job ignores the
/// error.
#[test]
fn damage_that_the_store_meets_in_a_join_is_no_mere_rejection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let batch = |value: &str| {
        let mut batch = syncline::WriteBatch::new();
        (0..500).for_each(|n| batch.put(format!("{n:05}"), value.repeat(300)));
        batch
    };
    write(&SqliteStorage::open(&path).unwrap(), &batch("0123456789")).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.chunks_mut(4096).skip(12).for_each(|page| page[..200].fill(0xee));
    std::fs::write(&path, bytes).unwrap();
    for hidden in [false, true] {
        let store = SqliteStorage::open(&path).unwrap();
        let batch = batch("other");
        let outcome = block_on(store.join(Box::new(move |tx: &SqliteTx<'_>| match tx.apply(&batch) {
            Err(_) if hidden => Ok(()),
            done => done,
        })));
        assert!(matches!(outcome, Err(WriteError::Unknown(_))), "hidden {hidden}: {outcome:?}");
        assert!(write(&store, &put("more", "")).is_err(), "hidden {hidden}: it goes on");
    }
}
