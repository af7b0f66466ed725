//! Goal: a database belongs to one store at a time, the app reads it and keeps its own tables in it, the log stays
//! within its limit, and a file that is no store is refused and not changed. Method: real files, other connections, a
//! second process, and files that are cut off, damaged or foreign.
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

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use support::files::{
    REFUSED, WROTE, assert_already_open, assert_left_alone, be_the_other_process, fill, is_corrupt,
    other_process,
};
use support::{Model, Rng, content, put, write};
use syncline::{KeyRange, ScanLimit, Storage, WriteBatch, WriteError};
use syncline_backends::sqlite::rusqlite::{self, Connection, OpenFlags};
use syncline_backends::{OpenStoreError, SqliteStorage};
use tempfile::TempDir;

fn open(path: &Path) -> Result<SqliteStorage, OpenStoreError> {
    SqliteStorage::open(path)
}

/// The path of a closed store, the bytes of its file, and its content.
fn store_file(directory: &TempDir) -> (PathBuf, Vec<u8>, Model) {
    let path = directory.path().join("store.sqlite");
    let model = fill(SqliteStorage::open(&path).unwrap());
    let bytes = fs::read(&path).unwrap();
    (path, bytes, model)
}

fn large(n: u8) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put([n], vec![n; 50_000]);
    batch
}

/// The file beside the database whose name ends in `suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

fn log_bytes(path: &Path) -> u64 {
    beside(path, "-wal").metadata().map_or(0, |file| file.len())
}

#[test]
fn a_second_opener_in_this_process_is_refused_until_the_first_is_dropped() {
    let directory = TempDir::new().unwrap();
    let (path, _, model) = store_file(&directory);
    let first = SqliteStorage::open(&path).unwrap();
    assert_already_open(SqliteStorage::open(&path), &path);
    // The first store still works after the refusal.
    write(&first, &put("still", "here")).unwrap();
    assert_already_open(SqliteStorage::open(&path), &path);
    drop(first);
    assert_eq!(content(&SqliteStorage::open(&path).unwrap()).unwrap().len(), model.len() + 1);
}

#[cfg(unix)]
#[test]
fn another_name_for_the_same_database_does_not_open_it_twice() {
    let directory = TempDir::new().unwrap();
    let (path, _, model) = store_file(&directory);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let first = SqliteStorage::open(&link).unwrap();
    assert_already_open(SqliteStorage::open(&path), &path);
    let dotted = directory.path().join(".").join("store.sqlite");
    assert_already_open(SqliteStorage::open(&dotted), &dotted);
    drop(first);
    assert_eq!(content(&SqliteStorage::open(&path).unwrap()).unwrap(), model);

    // To SQLite a hard link is another database, with a log of its own.
    let link = directory.path().join("hard");
    fs::hard_link(&path, &link).unwrap();
    for path in [&path, &link] {
        let error = SqliteStorage::open(path).unwrap_err();
        assert!(error.to_string().contains("several names"), "{error}");
    }
}

#[test]
fn a_dropped_store_frees_its_file_at_once() {
    let directory = TempDir::new().unwrap();
    let (path, _, model) = store_file(&directory);
    let store = SqliteStorage::open(&path).unwrap();
    // So many entries that a scan is still running when the store is dropped.
    let mut batch = WriteBatch::new();
    for n in 0..200 {
        batch.put([201, n], vec![n; 50_000]);
    }
    write(&store, &batch).unwrap();
    drop(store);
    for round in 0_u8..20 {
        let store = SqliteStorage::open(&path).unwrap();
        let keys: Vec<_> = (0..round).map(|round| vec![200, round]).collect();
        assert!(block_on(store.get_many(&keys)).unwrap().iter().all(Option::is_some));
        drop(store.scan(KeyRange::all(), ScanLimit::NONE).now_or_never());
        let mut batch = WriteBatch::new();
        batch.put([200, round], *b"sent and dropped");
        drop(store.write(batch).now_or_never());
    }
    assert_eq!(content(&SqliteStorage::open(&path).unwrap()).unwrap().len(), model.len() + 200 + 20);
    // SQLite removes the log when the last connection is closed.
    assert!(!beside(&path, "-wal").exists() && !beside(&path, "-shm").exists());
}

#[test]
fn a_second_process_may_read_but_not_write_and_one_that_ends_without_closing_leaves_the_file_whole() {
    be_the_other_process(open, |path| {
        let reader = Connection::open(path).unwrap();
        let count = "SELECT count(*) FROM (SELECT key FROM syncline_state UNION ALL SELECT key FROM syncline_records)";
        assert_eq!(reader.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap(), 161);
    });
    let directory = TempDir::new().unwrap();
    let (path, _, model) = store_file(&directory);
    let other_process = || {
        other_process(
            "a_second_process_may_read_but_not_write_and_one_that_ends_without_closing_leaves_the_file_whole",
            &path,
        )
    };
    let store = SqliteStorage::open(&path).unwrap();
    write(&store, &put("only", "in the log")).unwrap();
    assert_eq!(other_process(), Some(REFUSED));
    write(&store, &put("only", "in the log")).unwrap();
    drop(store);
    assert_eq!(other_process(), Some(WROTE));
    assert!(log_bytes(&path) > 0, "the other process closed its store");
    assert_eq!(content(&SqliteStorage::open(&path).unwrap()).unwrap().len(), model.len() + 2);
}

#[test]
fn what_the_last_owner_left_in_the_log_is_in_the_database_once_the_store_is_open() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.sqlite");
    let store = SqliteStorage::open(&path).unwrap();
    // The first write of all does not stay in the log.
    write(&store, &put("first", "value")).unwrap();
    write(&store, &put("second", "value")).unwrap();
    // A crash leaves the database and its log.
    let copy = directory.path().join("copy.sqlite");
    fs::copy(&path, &copy).unwrap();
    fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
    let reopened = SqliteStorage::open(&copy).unwrap();
    let bytes = fs::read(&copy).unwrap();
    drop(reopened);
    // The database without its log has both entries.
    let alone = directory.path().join("alone.sqlite");
    fs::write(&alone, bytes).unwrap();
    assert_eq!(content(&SqliteStorage::open(&alone).unwrap()).unwrap().len(), 2);
}

#[test]
fn a_foreign_file_is_refused_and_left_as_it_is() {
    let mut rng = Rng::new(1);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("foreign");
    for bytes in [&b"x"[..], b"SQLite format 3\0", b"redb\x1A\x0A\xA9\x0D", &[0; 9], &[0; 4096]] {
        assert_left_alone(open, &path, bytes, is_corrupt);
    }
    for len in [1, 99, 100, 101, 511, 512, 4096, 65_536, 1 << 20] {
        assert_left_alone(open, &path, &rng.bytes(len), is_corrupt);
    }
}

#[test]
fn an_empty_file_becomes_a_store() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.sqlite");
    fs::write(&path, []).unwrap();
    write(&SqliteStorage::open(&path).unwrap(), &put("key", "value")).unwrap();
    assert_eq!(content(&SqliteStorage::open(&path).unwrap()).unwrap().len(), 1);
}

#[test]
fn names_that_sqlite_takes_for_something_else_are_files() {
    let directory = TempDir::new().unwrap();
    for name in [":memory:", "file:x?mode=memory", "file::memory:", "a%20b?c#d"] {
        let path = directory.path().join(name);
        write(&SqliteStorage::open(&path).unwrap(), &put("key", "value")).unwrap();
        assert!(path.is_file(), "{name}");
        assert_eq!(content(&SqliteStorage::open(&path).unwrap()).unwrap().len(), 1, "{name}");
    }
    assert!(matches!(SqliteStorage::open(""), Err(OpenStoreError::Io { .. })));
}

#[test]
fn a_path_that_cannot_be_opened_says_what_to_do() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("missing").join("store.sqlite");
    let error = SqliteStorage::open(&path).unwrap_err();
    assert!(matches!(error, OpenStoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("create the directory first"), "{error}");
    let error = SqliteStorage::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("name a file, not a directory"), "{error}");
}

#[test]
fn a_file_that_was_cut_off_never_panics_and_a_verified_open_never_shows_a_part_of_it() {
    let directory = TempDir::new().unwrap();
    let (path, bytes, model) = store_file(&directory);
    let lengths = [1, 16, 99, 100, 512, 4095, 4096, 4097, 8192, 20_000, bytes.len() - 4096];
    for len in lengths {
        for verify in [false, true] {
            fs::write(&path, &bytes[..len]).unwrap();
            match SqliteStorage::builder().verify(verify).open(&path) {
                Err(error) => {
                    assert!(is_corrupt(&error), "{len} bytes: {error}");
                    assert!(fs::read(&path).unwrap() == bytes[..len], "{len} bytes: the file was changed");
                }
                Ok(store) => {
                    assert!(!verify, "{len} bytes were opened");
                    // A read may meet the damage or not.
                    if let Ok(found) = content(&store) {
                        assert!(
                            found.iter().all(|(key, value)| model.get(key) == Some(value)),
                            "{len} bytes"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let mut rng = Rng::new(2);
    let directory = TempDir::new().unwrap();
    let (path, bytes, _) = store_file(&directory);
    let (mut refused, mut opened, mut unreadable) = (0, 0, 0);
    let offsets: Vec<usize> = (0..100).chain((0..150).map(|_| rng.below(bytes.len()))).collect();
    for offset in offsets {
        let mut damaged = bytes.clone();
        damaged[offset] ^= 1 << rng.below(8);
        for verify in [false, true] {
            fs::write(&path, &damaged).unwrap();
            match SqliteStorage::builder().verify(verify).open(&path) {
                Err(error) => {
                    refused += 1;
                    assert!(
                        matches!(error, OpenStoreError::Corrupt { .. } | OpenStoreError::Io { .. }),
                        "{error}"
                    );
                }
                Ok(store) => {
                    opened += 1;
                    unreadable += usize::from(content(&store).is_err());
                    drop(write(&store, &put("another", "write")));
                }
            }
        }
    }
    println!("{refused} refused, {opened} opened, {unreadable} of them unreadable");
    assert!(refused > 30 && opened > 100, "{refused} refused, {opened} opened");
}

#[test]
fn a_verified_open_finds_an_index_that_lost_an_entry() {
    let directory = TempDir::new().unwrap();
    let (path, _, _) = store_file(&directory);
    // The key of a record stands in the table and in the index. The copy in the table is changed.
    let (key, value) = ([0x70, 3], [7; 107]);
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    write(&SqliteStorage::open(&path).unwrap(), &batch).unwrap();
    let mut damaged = fs::read(&path).unwrap();
    let row = [&key[..], &value].concat();
    let at = damaged.windows(row.len()).position(|found| found == row).unwrap();
    damaged[at + 1] = 200;
    fs::write(&path, &damaged).unwrap();
    drop(SqliteStorage::open(&path).unwrap());
    let error = SqliteStorage::builder().verify(true).open(&path).unwrap_err();
    assert!(is_corrupt(&error), "{error}");
}

#[test]
fn a_table_in_our_place_is_refused_and_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    for sql in [
        "CREATE TABLE syncline_records (key TEXT UNIQUE, value BLOB)",
        "CREATE TABLE syncline_records (key BLOB NOT NULL, value BLOB NOT NULL) STRICT",
        "CREATE VIEW syncline_records AS SELECT 1 AS key, 2 AS value",
    ] {
        let path = directory.path().join("foreign");
        let _ = fs::remove_file(&path);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_left_alone(open, &path, &bytes, is_corrupt);
    }
}

/// The entries are parted among two tables by their keys.
#[test]
fn entries_where_the_tables_meet_are_found_and_deleted() {
    let directory = TempDir::new().unwrap();
    let store = SqliteStorage::open(directory.path().join("store.sqlite")).unwrap();
    let keys: [&[u8]; 4] = [&[0x0f, 0xff], &[0x10], &[0x10, 0], &[0x11]];
    for key in keys {
        let get = || block_on(store.get_many(&[key.to_vec()])).unwrap().remove(0);
        let mut batch = WriteBatch::new();
        batch.put(key, "value");
        write(&store, &batch).unwrap();
        assert_eq!(get().as_deref(), Some(&b"value"[..]), "{key:?}");
        let mut batch = WriteBatch::new();
        batch.delete(key);
        write(&store, &batch).unwrap();
        assert_eq!(get(), None, "{key:?}");
    }
}

#[test]
fn the_tables_of_an_app_stay_beside_ours_and_its_connections_read_both() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("app.sqlite");
    let app = Connection::open(&path).unwrap();
    app.execute_batch("CREATE TABLE app (text); INSERT INTO app VALUES ('theirs')").unwrap();
    let store = SqliteStorage::open(&path).unwrap();
    assert!(content(&store).unwrap().is_empty());
    write(&store, &put("key", "value")).unwrap();
    assert_eq!(content(&store).unwrap().len(), 1);
    let read_only = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    for reader in [&app, &read_only] {
        let row = "SELECT text || value FROM app, syncline_records";
        let both: Vec<u8> =
            reader.query_row(row, [], |row| Ok(row.get_ref(0)?.as_bytes()?.to_vec())).unwrap();
        assert_eq!(both, b"theirsvalue");
        // Statistics must not change what scans find, nor the order.
        drop(reader.execute_batch("ANALYZE"));
    }
    // The store is closed while the app's connections stay open.
    drop(store);
    assert_eq!(content(&SqliteStorage::open(&path).unwrap()).unwrap().len(), 1);
}

#[test]
fn a_database_that_somebody_keeps_out_of_wal_mode_is_not_opened() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("app.sqlite");
    let app = Connection::open(&path).unwrap();
    app.execute_batch("CREATE TABLE app (text); BEGIN; SELECT * FROM app").unwrap();
    let builder = SqliteStorage::builder().busy_timeout(Duration::ZERO);
    let error = builder.open(&path).unwrap_err();
    assert!(matches!(error, OpenStoreError::AlreadyOpen { .. }), "{error}");
    app.execute_batch("COMMIT").unwrap();
    builder.open(&path).unwrap();
}

#[test]
fn the_log_is_cut_off_at_its_limit() {
    const LIMIT: u64 = 200_000;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.sqlite");
    let store = SqliteStorage::builder().wal_bytes_max(LIMIT).open(&path).unwrap();
    for n in 0..50 {
        write(&store, &large(n)).unwrap();
        block_on(store.get_many(&[vec![n], vec![]])).unwrap();
        assert!(log_bytes(&path) <= LIMIT, "write {n}: {}", log_bytes(&path));
    }
    // Also after a single write that is longer than the limit.
    let mut batch = WriteBatch::new();
    for n in 100..120 {
        batch.put([n], vec![n; 50_000]);
    }
    write(&store, &batch).unwrap();
    assert!(log_bytes(&path) <= LIMIT, "{}", log_bytes(&path));
}

#[test]
fn the_log_grows_while_somebody_reads_and_shrinks_again_afterwards() {
    const LIMIT: u64 = 200_000;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.sqlite");
    let builder = SqliteStorage::builder().wal_bytes_max(LIMIT).busy_timeout(Duration::ZERO);
    let store = builder.open(&path).unwrap();
    write(&store, &put("first", "value")).unwrap();
    let reader = Connection::open(&path).unwrap();
    let count = || reader.query_row("SELECT count(*) FROM syncline_records", [], |row| row.get::<_, i64>(0));
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(count().unwrap(), 1);
    for n in 0..30 {
        write(&store, &large(n)).unwrap();
    }
    assert!(log_bytes(&path) > 5 * LIMIT, "nobody was in the way");
    assert_eq!(count().unwrap(), 1, "the reader has lost its state");
    reader.execute_batch("COMMIT").unwrap();
    for n in 0..3 {
        write(&store, &put("after", &n.to_string())).unwrap();
    }
    assert!(log_bytes(&path) <= LIMIT, "{}", log_bytes(&path));
    assert_eq!(content(&store).unwrap().len(), 32);
}

#[test]
fn a_size_that_sqlite_refuses_is_rejected_before_anything_begins() {
    let directory = TempDir::new().unwrap();
    let store = SqliteStorage::open(directory.path().join("store.sqlite")).unwrap();
    let mut batch = put("small", "value");
    batch.put(*b"large", vec![0; 1_000_000_000]);
    let error = write(&store, &batch).unwrap_err();
    assert!(matches!(error, WriteError::TooLarge(_)), "{error}");
    assert!(error.to_string().contains("too large"), "{error}");
    drop(batch);
    write(&store, &put("small", "value")).unwrap();
}

#[test]
fn a_read_after_a_foreign_fault_says_so_and_the_next_one_reads() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.sqlite");
    let store = SqliteStorage::open(&path).unwrap();
    write(&store, &put("key", "value")).unwrap();
    let app = Connection::open(&path).unwrap();
    app.execute_batch("ALTER TABLE syncline_records RENAME TO elsewhere").unwrap();
    block_on(store.get_many(&[b"key".to_vec()])).unwrap_err();
    block_on(store.scan(KeyRange::all(), ScanLimit::NONE)).unwrap_err();
    assert!(matches!(write(&store, &put("key", "other")), Err(WriteError::Rejected(_))));
    app.execute_batch("ALTER TABLE elsewhere RENAME TO syncline_records").unwrap();
    assert_eq!(content(&store).unwrap().len(), 1);
    write(&store, &put("key", "other")).unwrap();
}

#[test]
fn the_engine_is_new_enough() {
    assert!(rusqlite::version_number() >= 3_051_003);
}

#[test]
fn a_store_says_where_it_lies() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.sqlite");
    assert_eq!(SqliteStorage::open(&path).unwrap().location(), path.to_str().unwrap());
}
