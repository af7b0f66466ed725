//! Goal: a store's directory belongs to one opener and opens again however the last opener ended, and a directory that
//! is no store is refused and not changed. Method: real directories, a second process, and files that are cut off,
//! damaged or foreign.
#![cfg(feature = "sled")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::executor::block_on;
use support::files::{
    REFUSED, WROTE, assert_already_open, be_the_other_process, fill, is_corrupt, other_process,
};
use support::{Model, Rng, apply, content, put, write};
use syncline::{KeyRange, ScanLimit, Storage, WriteBatch, WriteError};
use syncline_backends::{OpenStoreError, SledStorage};
use tempfile::TempDir;

/// sled's names for its log, its settings and its snapshots, and the store's name for its mark.
const LOG: &str = "db";
const SETTINGS: &str = "conf";
const SNAPSHOT: &str = "snap.";
const MARK: &str = "syncline";

fn open(path: &Path) -> Result<SledStorage, OpenStoreError> {
    SledStorage::open(path)
}

/// The path of a closed store, and its content.
fn store_at(directory: &TempDir) -> (PathBuf, Model) {
    let path = directory.path().join("store.sled");
    let model = fill(SledStorage::open(&path).unwrap());
    (path, model)
}

/// The bytes of the files in a directory, by name.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect()
}

/// Makes `path` a directory of exactly these files.
fn restore(path: &Path, files: &BTreeMap<String, Vec<u8>>) {
    drop(fs::remove_dir_all(path));
    fs::create_dir(path).unwrap();
    for (name, bytes) in files {
        fs::write(path.join(name), bytes).unwrap();
    }
}

/// Asserts that the directory is refused as `expected` says, and not changed.
fn assert_left_alone(path: &Path, expected: fn(&OpenStoreError) -> bool) {
    let before = files(path);
    let error = SledStorage::open(path).expect_err("a directory that is no store was opened");
    assert!(expected(&error), "{error}");
    assert!(files(path) == before, "the directory was changed: {error}");
}

#[test]
fn a_second_opener_in_this_process_is_refused_until_the_first_is_dropped() {
    let directory = TempDir::new().unwrap();
    let (path, model) = store_at(&directory);
    let first = SledStorage::open(&path).unwrap();
    assert_already_open(SledStorage::open(&path), &path);
    // The first store still works after the refusal.
    write(&first, &put("still", "here")).unwrap();
    assert_already_open(SledStorage::open(&path), &path);
    drop(first);
    assert_eq!(content(&SledStorage::open(&path).unwrap()).unwrap().len(), model.len() + 1);
}

/// A program that opens sled's files without this library does not lock the mark, but it holds sled's own lock.
#[test]
fn whoever_opens_the_files_with_sled_itself_is_seen() {
    let directory = TempDir::new().unwrap();
    let (path, model) = store_at(&directory);
    let log = File::options().read(true).write(true).open(path.join(LOG)).unwrap();
    log.try_lock().unwrap();
    assert_already_open(SledStorage::open(&path), &path);
    log.unlock().unwrap();
    assert_eq!(content(&SledStorage::open(&path).unwrap()).unwrap(), model);
}

#[test]
fn a_dropped_store_frees_its_directory_at_once() {
    let directory = TempDir::new().unwrap();
    let (path, model) = store_at(&directory);
    for round in 0_u8..100 {
        let store = SledStorage::open(&path).unwrap();
        assert_eq!(content(&store).unwrap().len(), model.len() + usize::from(round));
        drop(store.scan(KeyRange::all(), ScanLimit::NONE).now_or_never());
        let mut batch = WriteBatch::new();
        batch.put([200, round], *b"sent and dropped");
        drop(store.write(batch).now_or_never());
    }
}

#[test]
fn a_second_process_is_refused_and_one_that_ends_without_closing_leaves_the_store_whole() {
    be_the_other_process(open, |_| {});
    let directory = TempDir::new().unwrap();
    let (path, model) = store_at(&directory);
    let other_process = || {
        other_process(
            "a_second_process_is_refused_and_one_that_ends_without_closing_leaves_the_store_whole",
            &path,
        )
    };
    let store = SledStorage::open(&path).unwrap();
    assert_eq!(other_process(), Some(REFUSED));
    drop(store);
    assert_eq!(other_process(), Some(WROTE));
    assert_eq!(content(&SledStorage::open(&path).unwrap()).unwrap().len(), model.len() + 1);
}

/// sled writes a page that does not fit into its log to a file that it never syncs: a crash would tear the batch apart.
///
/// Goal: no page of a store is that large. Method: batches of the largest keys, of values around the length of a piece
/// and far above, and of deletions, which split and merge pages; the content is compared with a model, also after
/// reopening, and the directory of such files must stay empty.
#[test]
fn no_value_leaves_the_log_whatever_its_size() {
    let mut rng = Rng::new(3);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.sled");
    let mut store = SledStorage::open(&path).unwrap();
    let mut model = Model::new();
    let mut large = WriteBatch::new();
    large.put(*b"large", vec![1; 2_500_000]);
    apply(&mut model, &large);
    write(&store, &large).unwrap();
    for round in 0..120 {
        let mut batch = WriteBatch::new();
        for _ in 0..=rng.below(30) {
            // Many of these keys begin with another of them, and go on with zeros that look like the number of a piece.
            let mut key = vec![0; [2, 3, 10, 300, 4096][rng.below(5)]];
            key[..2].copy_from_slice(&u16::try_from(rng.below(100)).unwrap().to_be_bytes());
            match rng.below(8) {
                0 | 1 => batch.delete(key),
                2 => {
                    let mut end = key.clone();
                    end[1] = end[1].saturating_add(u8::from(rng.below(2) == 0));
                    end.push(9);
                    batch.delete_range(KeyRange::new(key, end));
                }
                _ => {
                    let bytes = [0, 100, 16 << 10, (16 << 10) + 1, 50_000, 300_000][rng.below(6)];
                    batch.put(key, vec![rng.bytes(1)[0]; bytes]);
                }
            }
        }
        apply(&mut model, &batch);
        write(&store, &batch).unwrap();
        if round % 20 == 19 {
            assert!(content(&store).unwrap() == model, "round {round}");
            drop(store);
            store = SledStorage::open(&path).unwrap();
            assert!(content(&store).unwrap() == model, "round {round}, reopened");
        }
    }
    assert!(fs::read_dir(path.join("blobs")).unwrap().next().is_none(), "a value has a file of its own");
    // Once everything is deleted, no piece is left: sled has only the row that every store begins with.
    let mut all = WriteBatch::new();
    all.delete_range(KeyRange::all());
    write(&store, &all).unwrap();
    drop(store);
    let sled = sled::Config::new().path(&path).segment_size(8 << 20).open().unwrap();
    assert_eq!(sled.len(), 1, "a piece was left behind");
}

#[test]
fn a_key_or_value_that_is_too_large_is_rejected_and_the_store_goes_on() {
    let directory = TempDir::new().unwrap();
    let (path, model) = store_at(&directory);
    let store = SledStorage::open(path).unwrap();
    let mut batch = put("beside", "it");
    batch.put(vec![7; 4097], *b"");
    let error = write(&store, &batch).unwrap_err();
    assert!(matches!(error, WriteError::TooLarge(_)), "{error}");
    assert!(error.to_string().contains("a key may have 4096 bytes"), "{error}");
    assert_eq!(content(&store).unwrap(), model);
    // To read or to delete a key that is too large is no error: it is not there.
    let mut absent = WriteBatch::new();
    absent.delete(vec![7; 100_000]);
    absent.delete_range(KeyRange::new(vec![7; 100_000], vec![7; 100_001]));
    write(&store, &absent).unwrap();
    assert_eq!(block_on(store.get_many(&[vec![7; 100_000]])).unwrap(), [None]);
}

#[test]
fn a_directory_that_holds_something_else_is_refused_and_left_as_it_is() {
    let mut rng = Rng::new(1);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("foreign");
    let foreign = |files: &[(&str, Vec<u8>)]| {
        restore(&path, &files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect());
        assert_left_alone(&path, is_corrupt);
    };
    foreign(&[("notes.txt", b"mine".to_vec())]);
    foreign(&[(LOG, rng.bytes(100_000))]);
    foreign(&[(MARK, b"something else".to_vec()), ("notes.txt", b"mine".to_vec())]);
    // These files look like an interrupted creation, but for the diary.
    foreign(&[(MARK, Vec::new()), ("conf", b"my settings".to_vec()), ("diary.txt", b"mine".to_vec())]);
    // A database that another program keeps in sled.
    fs::remove_dir_all(&path).unwrap();
    sled::open(&path).unwrap().insert("theirs", "theirs").unwrap();
    assert_left_alone(&path, is_corrupt);
}

#[test]
fn a_log_that_sled_would_write_over_is_refused_and_left_as_it_is() {
    let mut rng = Rng::new(2);
    let directory = TempDir::new().unwrap();
    let (path, _) = store_at(&directory);
    let whole = files(&path);
    for garbage in [Vec::new(), b"x".to_vec(), vec![0; 4096], rng.bytes(100_000)] {
        for without_snapshot in [false, true] {
            let mut damaged = whole.clone();
            damaged.insert(LOG.to_owned(), garbage.clone());
            damaged.retain(|name, _| !(without_snapshot && name.starts_with(SNAPSHOT)));
            restore(&path, &damaged);
            assert_left_alone(&path, is_corrupt);
        }
    }
    for missing in [LOG, SETTINGS] {
        let mut damaged = whole.clone();
        damaged.remove(missing);
        restore(&path, &damaged);
        assert_left_alone(&path, is_corrupt);
    }
}

#[test]
fn a_store_of_another_version_is_left_to_that_version() {
    let directory = TempDir::new().unwrap();
    let (path, _) = store_at(&directory);
    fs::write(path.join(MARK), "syncline sled 2\n").unwrap();
    assert_left_alone(&path, |error| matches!(error, OpenStoreError::Upgrade { .. }));
    fs::write(path.join(MARK), "syncline sled 1\n").unwrap();
    let mut settings = fs::read(path.join(SETTINGS)).unwrap();
    let version = b"version: 0.34";
    let at =
        settings.windows(version.len()).position(|window| window == version).expect("it is in the settings");
    settings[at..at + version.len()].copy_from_slice(b"version: 0.99");
    fs::write(path.join(SETTINGS), settings).unwrap();
    assert_left_alone(&path, |error| matches!(error, OpenStoreError::Upgrade { .. }));
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    let directory = TempDir::new().unwrap();
    let (whole, _) = store_at(&directory);
    let whole = files(&whole);
    let path = directory.path().join("begun");
    let settings = &whole[SETTINGS];
    for mark in [0, 1, whole[MARK].len() - 1] {
        for settings_bytes in [0, 7, 20, settings.len() - 4, settings.len()] {
            for log in [None, Some(Vec::new())] {
                let mut begun = BTreeMap::from([
                    (MARK.to_owned(), whole[MARK][..mark].to_vec()),
                    (SETTINGS.to_owned(), settings[..settings_bytes].to_vec()),
                ]);
                begun.extend(log.map(|log| (LOG.to_owned(), log)));
                restore(&path, &begun);
                let store = SledStorage::open(&path).unwrap();
                write(&store, &put("key", "value")).unwrap();
                drop(store);
                assert_eq!(content(&SledStorage::open(&path).unwrap()).unwrap().len(), 1);
            }
        }
    }
}

/// sled takes an unfinished snapshot for the newest one, and then refuses the store (sled issue 1527).
#[test]
fn a_snapshot_that_a_crash_cut_short_does_not_keep_the_store_closed() {
    let directory = TempDir::new().unwrap();
    let (path, model) = store_at(&directory);
    drop(SledStorage::open(&path).unwrap());
    let whole = files(&path);
    let snapshot =
        whole.iter().find(|(name, _)| name.starts_with(SNAPSHOT)).expect("sled writes one at open").1;
    for len in [0, 1, 12, snapshot.len() / 2, snapshot.len() - 1] {
        fs::write(path.join("snap.00FFFFFFFFFFFFFF.generating"), &snapshot[..len]).unwrap();
        assert_eq!(content(&SledStorage::open(&path).unwrap()).unwrap(), model, "{len} bytes");
    }
}

#[test]
fn damaged_files_are_refused_or_opened_and_never_a_panic() {
    let mut rng = Rng::new(4);
    let directory = TempDir::new().unwrap();
    let (path, _) = store_at(&directory);
    let whole = files(&path);
    let names: Vec<&String> = whole.keys().collect();
    let (mut refused, mut opened) = (0, 0);
    for round in 0..150 {
        let name = names[round % names.len()];
        let mut damaged = whole.clone();
        let bytes = damaged.get_mut(name).unwrap();
        let at = rng.below(bytes.len());
        if rng.below(3) == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << rng.below(8);
        }
        restore(&path, &damaged);
        match SledStorage::open(&path) {
            Err(error) => {
                refused += 1;
                assert!(
                    matches!(error, OpenStoreError::Corrupt { .. } | OpenStoreError::Upgrade { .. }),
                    "{name} at {at}: {error}"
                );
            }
            Ok(store) => {
                opened += 1;
                drop(content(&store));
                drop(write(&store, &put("another", "write")));
            }
        }
    }
    println!("{refused} refused, {opened} opened");
    assert!(refused > 20 && opened > 20);
}

#[test]
fn a_path_that_cannot_be_opened_says_what_to_do() {
    let directory = TempDir::new().unwrap();
    let error = SledStorage::open(directory.path().join("missing").join("store.sled")).unwrap_err();
    assert!(matches!(error, OpenStoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("create the directory first"), "{error}");
    let file = directory.path().join("file");
    fs::write(&file, "mine").unwrap();
    let error = SledStorage::open(&file).unwrap_err();
    assert!(matches!(error, OpenStoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("name a directory, not a file"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}
