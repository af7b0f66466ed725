//! Goal: a store's file belongs to one opener and opens again however the last opener ended, and a file that is no
//! store is refused and not changed. Method: real files, a second process, and files that are cut off, damaged, forged
//! or foreign.
#![cfg(feature = "redb")]
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
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use futures::FutureExt;
use redb::{Database, TableDefinition};
use support::crash_disk::{CrashDisk, Fault, How, Kind};
use support::files::{
    REFUSED, WROTE, assert_already_open, assert_left_alone, batches, be_the_other_process, fill, is_corrupt,
    other_process,
};
use support::{Model, Rng, content, put, states, write};
use syncline::{KeyRange, ScanLimit, Storage, WriteBatch};
use syncline_backends::{OpenStoreError, RedbStorage};
use tempfile::TempDir;

/// The offsets of the format version in redb's header, one for each commit slot.
const VERSION_OFFSETS: [usize; 2] = [64, 192];

fn open(path: &Path) -> Result<RedbStorage, OpenStoreError> {
    RedbStorage::open(path)
}

/// The path of a closed store, the bytes of its file, and its content.
fn store_file(directory: &TempDir) -> (PathBuf, Vec<u8>, Model) {
    let path = directory.path().join("store.redb");
    let model = fill(RedbStorage::open(&path).unwrap());
    let bytes = fs::read(&path).unwrap();
    (path, bytes, model)
}

#[test]
fn a_second_opener_in_this_process_is_refused_until_the_first_is_dropped() {
    let directory = TempDir::new().unwrap();
    let (path, _, model) = store_file(&directory);
    let first = RedbStorage::open(&path).unwrap();
    assert_already_open(RedbStorage::open(&path), &path);
    assert!(matches!(RedbStorage::compact(&path), Err(OpenStoreError::AlreadyOpen { .. })));
    // The first store still works after the refusal.
    write(&first, &put("still", "here")).unwrap();
    drop(first);
    assert_eq!(content(&RedbStorage::open(&path).unwrap()).unwrap().len(), model.len() + 1);
}

#[test]
fn a_dropped_store_frees_its_file_at_once() {
    let directory = TempDir::new().unwrap();
    let (path, _, model) = store_file(&directory);
    for round in 0_u8..20 {
        let store = RedbStorage::open(&path).unwrap();
        assert_eq!(content(&store).unwrap().len(), model.len() + usize::from(round));
        drop(store.scan(KeyRange::all(), ScanLimit::NONE).now_or_never());
        let mut batch = WriteBatch::new();
        batch.put([200, round], *b"sent and dropped");
        drop(store.write(batch).now_or_never());
    }
}

#[test]
fn a_second_process_is_refused_and_one_that_ends_without_closing_leaves_the_file_whole() {
    be_the_other_process(open, |_| {});
    let directory = TempDir::new().unwrap();
    let (path, _, model) = store_file(&directory);
    let other_process = || {
        other_process(
            "a_second_process_is_refused_and_one_that_ends_without_closing_leaves_the_file_whole",
            &path,
        )
    };
    let store = RedbStorage::open(&path).unwrap();
    assert_eq!(other_process(), Some(REFUSED));
    drop(store);
    assert_eq!(other_process(), Some(WROTE));
    assert_eq!(content(&RedbStorage::open(&path).unwrap()).unwrap().len(), model.len() + 1);
}

#[test]
fn a_foreign_file_is_refused_and_left_as_it_is() {
    let mut rng = Rng::new(1);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("foreign");
    for bytes in [&b"x"[..], b"SQLite format 3\0", b"redb", b"redb\x1A\x0A\xA9\x0D", &[0; 9], &[0; 4096]] {
        assert_left_alone(open, &path, bytes, is_corrupt);
    }
    for len in [1, 319, 320, 321, 4096, 65_536, 1 << 20, 1_100_000] {
        assert_left_alone(open, &path, &rng.bytes(len), is_corrupt);
    }
}

#[test]
fn a_file_that_was_cut_off_is_refused_or_whole_and_never_a_panic() {
    let directory = TempDir::new().unwrap();
    let (path, bytes, model) = store_file(&directory);
    let ends = [1, 8, 9, 10, 64, 128, 256, 319, 320, 512, 4095, 4096, 4097, 8192];
    let steps = (1..).map(|n| n * 20_480).take_while(|&len| len < bytes.len());
    let near_the_end = [1, 512, 4096].map(|short| bytes.len() - short);
    for len in ends.into_iter().chain(steps).chain(near_the_end).filter(|&len| len < bytes.len()) {
        fs::write(&path, &bytes[..len]).unwrap();
        match RedbStorage::open(&path) {
            Err(error) => {
                assert!(is_corrupt(&error), "{len} bytes: {error}");
                assert!(fs::read(&path).unwrap() == bytes[..len], "{len} bytes: the file was changed");
            }
            Ok(store) => assert_eq!(content(&store).unwrap(), model, "{len} bytes"),
        }
    }
}

#[test]
fn flipped_bits_never_panic_and_a_verified_open_never_shows_them() {
    let mut rng = Rng::new(2);
    let directory = TempDir::new().unwrap();
    let (path, bytes, _) = store_file(&directory);
    let states = states(&batches());
    let (mut refused, mut opened) = (0, 0);
    // Every byte of the header, and many of the bytes after it, most of which are in use.
    let offsets: Vec<usize> = (0..320).chain((0..500).map(|_| rng.below(bytes.len()))).collect();
    for offset in offsets {
        let mut damaged = bytes.clone();
        damaged[offset] ^= 1 << rng.below(8);
        for verify in [false, true] {
            fs::write(&path, &damaged).unwrap();
            match RedbStorage::builder().verify(verify).open(&path) {
                Err(error) => {
                    refused += 1;
                    assert!(
                        matches!(error, OpenStoreError::Corrupt { .. } | OpenStoreError::Upgrade { .. }),
                        "{error}"
                    );
                }
                Ok(store) => {
                    opened += 1;
                    // Without `verify` a damaged value can go unnoticed: redb does not check a file that was closed.
                    if let (Ok(found), true) = (content(&store), verify) {
                        assert!(states.contains(&found), "byte {offset}: a state that never was");
                    }
                    drop(write(&store, &put("another", "write")));
                }
            }
        }
    }
    println!("{refused} refused, {opened} opened");
    assert!(refused > 100 && opened > 100);
}

#[test]
fn a_file_of_another_format_version_is_left_to_that_version() {
    let directory = TempDir::new().unwrap();
    let (path, bytes, _) = store_file(&directory);
    for version in [1, 2, 4, 5] {
        let mut forged = bytes.clone();
        for offset in VERSION_OFFSETS {
            assert_eq!(forged[offset], 3, "the header has changed");
            forged[offset] = version;
        }
        assert_left_alone(open, &path, &forged, |error| matches!(error, OpenStoreError::Upgrade { .. }));
    }
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.redb");
    // The file at redb's first sync: the header without its magic number.
    let disk = CrashDisk::default();
    disk.set_fault(Fault { on: Kind::Sync, at: 0, sticky: true, how: How::Error(ErrorKind::Other) });
    RedbStorage::builder().open_backend(disk.clone()).unwrap_err();
    let mut header = disk.image();
    assert!(header[..9] == [0; 9] && header[9..320] != [0; 311], "redb creates its files in another way");
    for cut_short in [vec![0; header.len()], header.clone(), header[..320].to_vec(), Vec::new()] {
        fs::write(&path, cut_short).unwrap();
        let store = RedbStorage::open(&path).unwrap();
        write(&store, &put("key", "value")).unwrap();
        drop(store);
        assert_eq!(content(&RedbStorage::open(&path).unwrap()).unwrap().len(), 1);
    }
    // A single byte of content shows that this is no interrupted creation.
    *header.last_mut().unwrap() = 1;
    assert_left_alone(open, &path, &header, is_corrupt);
    // Other bytes in place of the header show it too.
    let mut foreign = vec![0; header.len()];
    foreign[100] = 1;
    assert_left_alone(open, &path, &foreign, is_corrupt);
}

#[test]
fn a_path_that_cannot_be_opened_says_what_to_do() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("missing").join("store.redb");
    let error = RedbStorage::open(&path).unwrap_err();
    assert!(matches!(error, OpenStoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("create the directory first"), "{error}");
    assert!(matches!(RedbStorage::open(directory.path()), Err(OpenStoreError::Io { .. })));
}

#[test]
fn the_tables_of_an_app_stay_beside_ours_and_one_in_our_place_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("app.redb");
    let app: TableDefinition<'_, u64, &str> = TableDefinition::new("app");
    let ours: TableDefinition<'_, u64, &str> = TableDefinition::new("syncline/6b");
    let insert = |table: TableDefinition<'_, u64, &str>| {
        let transaction = Database::create(&path).unwrap().begin_write().unwrap();
        transaction.open_table(table).unwrap().insert(1, "theirs").unwrap();
        transaction.commit().unwrap();
    };
    insert(app);
    let store = RedbStorage::open(&path).unwrap();
    assert!(content(&store).unwrap().is_empty());
    assert_eq!(store.get_many(&[Vec::new(), Vec::new()]).now_or_never().unwrap().unwrap(), [None, None]);
    write(&store, &put("key", "value")).unwrap();
    assert_eq!(content(&store).unwrap().len(), 1);
    drop(store);

    fs::remove_file(&path).unwrap();
    insert(ours);
    let error = RedbStorage::open(&path).unwrap_err();
    assert!(is_corrupt(&error), "{error}");
}

#[test]
fn compaction_shortens_the_file_and_keeps_its_content() {
    let directory = TempDir::new().unwrap();
    let (path, _, model) = store_file(&directory);
    let store = RedbStorage::open(&path).unwrap();
    let mut large = WriteBatch::new();
    for n in 0_u8..40 {
        large.put([255, n], vec![n; 200_000]);
    }
    write(&store, &large).unwrap();
    let mut gone = WriteBatch::new();
    gone.delete_range(KeyRange::prefix([255]));
    write(&store, &gone).unwrap();
    drop(store);
    let compaction = RedbStorage::compact(&path).unwrap();
    assert!(compaction.bytes_after < compaction.bytes_before, "{compaction:?}");
    assert_eq!(compaction.bytes_after, path.metadata().unwrap().len());
    assert_eq!(content(&RedbStorage::open(&path).unwrap()).unwrap(), model);

    let missing = directory.path().join("missing.redb");
    assert!(matches!(RedbStorage::compact(&missing), Err(OpenStoreError::Io { .. })));
    assert!(!missing.exists());
}

#[test]
fn a_store_says_where_it_lies() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.redb");
    assert_eq!(RedbStorage::open(&path).unwrap().location(), path.to_str().unwrap());
}
