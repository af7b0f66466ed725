//! Goal: the content of a `MemoryDisk` outlives its stores, and only the newest store writes. Method: one disk is
//! opened several times, and its content is compared with a model.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use futures::executor::block_on;
use support::{content, put, states, write};
use syncline::{KeyRange, ScanLimit, ScanPage, Storage, WriteBatch, WriteError};
use syncline_backends::{MemoryDisk, MemoryStorage};

#[test]
fn a_disk_keeps_what_was_written_when_its_store_is_dropped() {
    let disk = MemoryDisk::new();
    write(&MemoryStorage::open(&disk), &put("key", "value")).unwrap();
    assert_eq!(content(&MemoryStorage::open(&disk)).unwrap(), states(&[put("key", "value")])[1]);
    assert!(content(&MemoryStorage::new()).unwrap().is_empty());
}

#[test]
fn the_newest_opener_owns_the_disk_and_earlier_ones_are_fenced_for_good() {
    let disk = MemoryDisk::new();
    let first = MemoryStorage::open(&disk);
    write(&first, &put("a", "first")).unwrap();
    let second = MemoryStorage::open(&disk.clone());
    assert!(matches!(write(&first, &put("a", "stale")), Err(WriteError::Fenced)));
    assert!(matches!(write(&first, &WriteBatch::new()), Err(WriteError::Fenced)));
    write(&second, &put("b", "second")).unwrap();
    drop(second);
    // Dropping the owner does not give the disk back to the first store.
    assert!(matches!(write(&first, &put("a", "stale")), Err(WriteError::Fenced)));
    assert_eq!(content(&first).unwrap(), states(&[put("a", "first"), put("b", "second")])[2]);
}

#[test]
fn a_range_that_ends_before_it_starts_is_empty() {
    let store = MemoryStorage::new();
    let mut batch = put("b", "value");
    batch.delete_range(KeyRange::new("c", "a"));
    batch.delete_range(KeyRange::new("b", "b"));
    write(&store, &batch).unwrap();
    assert_eq!(content(&store).unwrap().len(), 1);
    assert_eq!(block_on(store.scan(KeyRange::new("c", "a"), ScanLimit::NONE)).unwrap(), ScanPage::default());
}

#[test]
fn a_store_is_usable_after_a_panic_beside_it() {
    let disk = MemoryDisk::new();
    let store = MemoryStorage::open(&disk);
    let panicked = std::thread::spawn(move || {
        let _store = MemoryStorage::open(&disk);
        panic!("beside it");
    });
    panicked.join().unwrap_err();
    assert!(content(&store).unwrap().is_empty());
}
