//! Goal: whatever fails below the store, its answers are true and acknowledged writes stay. Method: each operation on
//! the medium fails in turn, once or from then on, by an error or a panic; the answer of the store is checked, its
//! refusal to go on, and the content of a new store. The stories of single defects of redb follow, a test each.
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

use std::io::ErrorKind;

use futures::FutureExt;
use futures::executor::block_on;
use support::crash_disk::{CrashDisk, Fault, How, Kind, PowerCuts};
use support::{Model, Rng, content, put, states, write};
use syncline::{Key, KeyRange, ScanLimit, ScanPage, Storage, WriteBatch, WriteError};
use syncline_backends::redb::RedbBuilder;
use syncline_backends::{OpenStoreError, RedbStorage};

/// The part of the message that says what to do.
const ADVICE: &str = "open it again";

fn workload() -> Vec<WriteBatch> {
    let mut batches = Vec::new();
    for n in 0_u8..3 {
        let mut batch = WriteBatch::new();
        for key in 0..8 {
            batch.put([key, n % 2], vec![n; 200 + usize::from(key) * 300]);
        }
        batch.delete_range(KeyRange::prefix([n]));
        batches.push(batch);
    }
    batches.push(put("large", &"x".repeat(1_100_000)));
    batches.push(put("last", ""));
    batches
}

/// How often the workload ran, and in which way it ended how often.
#[derive(Debug, Default)]
struct Tally {
    runs: usize,
    refused_to_open: usize,
    rejected: usize,
    unknown: usize,
}

/// Runs the workload once for each operation, from creating the store to closing it, and lets that operation fail.
fn fail_everywhere(builder: &RedbBuilder, on: Kind, sticky: bool, how: How) -> Tally {
    let batches = workload();
    let states = states(&batches);
    let mut tally = Tally::default();
    for at in 0.. {
        let context = format!("{on:?} {at} fails, sticky {sticky}, {how:?}");
        let disk = CrashDisk::default();
        disk.set_fault(Fault { on, at, sticky, how });
        let acknowledged = run(builder, &disk, &batches, &states, &mut tally, &context);
        if !disk.has_failed() {
            break;
        }
        tally.runs += 1;
        assert_eq!(disk.holders(), 1, "{context}: the store still holds its medium");
        disk.set_fault(None);
        let possible = &states[acknowledged..(acknowledged + 2).min(states.len())];
        // First as if the process alone had ended, so that the system still has every write; then as if the power had
        // failed.
        check(builder, disk.image(), possible, &context);
        let mut cuts = PowerCuts::new(Vec::new(), disk.trace());
        while cuts.advance() {}
        for (left, image) in cuts.images(&mut Rng::new(at as u64)) {
            check(builder, image, possible, &format!("{context}, left {left}"));
        }
    }
    println!("{tally:?}");
    tally
}

/// Opens a store, writes until an operation fails, and checks the answers. Returns how many batches were acknowledged.
fn run(
    builder: &RedbBuilder,
    disk: &CrashDisk,
    batches: &[WriteBatch],
    states: &[Model],
    tally: &mut Tally,
    context: &str,
) -> usize {
    let store = match builder.open_backend(disk.clone()) {
        Ok(store) => store,
        Err(error) => {
            tally.refused_to_open += 1;
            assert!(disk.has_failed(), "{context}: {error}");
            // redb's panic while it opens is reported as damage.
            assert!(
                matches!(error, OpenStoreError::Io { .. } | OpenStoreError::Corrupt { .. }),
                "{context}: {error}"
            );
            return 0;
        }
    };
    for (n, batch) in batches.iter().enumerate() {
        match write(&store, batch) {
            Ok(()) => assert_eq!(content(&store).unwrap(), states[n + 1], "{context}"),
            Err(WriteError::Rejected(_)) => {
                tally.rejected += 1;
                assert_eq!(content(&store).unwrap(), states[n], "{context}");
                return n;
            }
            Err(error) => {
                tally.unknown += 1;
                assert!(matches!(error, WriteError::Unknown(_)), "{context}: {error}");
                assert_refuses(&store, context);
                return n;
            }
        }
    }
    batches.len()
}

/// Asserts that `store` refuses every call and says what to do.
fn assert_refuses(store: &RedbStorage, context: &str) {
    for _ in 0..2 {
        let error = block_on(store.get_many(&[b"key".to_vec()])).unwrap_err();
        assert!(error.to_string().contains(ADVICE), "{context}: {error}");
        let error = block_on(store.scan(KeyRange::all(), ScanLimit::entries(1))).unwrap_err();
        assert!(error.to_string().contains(ADVICE), "{context}: {error}");
        // Last: a write that redb itself refuses would end the store too.
        let error = write(store, &put("key", "value")).unwrap_err();
        assert!(matches!(error, WriteError::Unknown(_)), "{context}: {error}");
        assert!(error.to_string().contains(ADVICE), "{context}: {error}");
    }
}

/// Asserts that a new store on `image` holds one of the `possible` states, and takes writes.
fn check(builder: &RedbBuilder, image: Vec<u8>, possible: &[Model], context: &str) {
    let store =
        builder.open_backend(CrashDisk::with(image)).unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut found = content(&store).unwrap();
    assert!(possible.contains(&found), "{context}: {} entries are no state", found.len());
    let batch = put("again", "there is space");
    write(&store, &batch).unwrap();
    support::apply(&mut found, &batch);
    assert_eq!(content(&store).unwrap(), found, "{context}");
}

fn one_phase() -> RedbBuilder {
    RedbStorage::builder().two_phase_commit(false)
}

#[test]
fn a_full_disk_is_told_truthfully_and_forgotten_once_there_is_space() {
    for builder in [RedbStorage::builder(), one_phase()] {
        for sticky in [true, false] {
            let tally = fail_everywhere(&builder, Kind::Write, sticky, How::Error(ErrorKind::StorageFull));
            assert!(tally.unknown > 10 && tally.refused_to_open > 2, "{tally:?}");
        }
    }
}

#[test]
fn a_failed_sync_is_never_taken_for_a_good_one() {
    for builder in [RedbStorage::builder(), one_phase()] {
        for sticky in [true, false] {
            let tally = fail_everywhere(&builder, Kind::Sync, sticky, How::Error(ErrorKind::Other));
            assert!(tally.unknown >= workload().len() && tally.refused_to_open > 1, "{tally:?}");
        }
    }
}

#[test]
fn a_panic_in_the_middle_of_a_write_leaves_nothing_to_commit() {
    for on in [Kind::Write, Kind::Sync] {
        let tally = fail_everywhere(&RedbStorage::builder(), on, false, How::Panic);
        assert!(tally.unknown >= workload().len(), "{tally:?}");
    }
}

#[test]
fn a_durable_write_survives_a_caught_panic_and_a_clean_close() {
    let disk = CrashDisk::default();
    let store = RedbStorage::builder().open_backend(disk.clone()).unwrap();
    write(&store, &put("first", "durable")).unwrap();
    disk.set_fault(Fault { on: Kind::Write, at: 0, sticky: false, how: How::Panic });
    assert!(matches!(write(&store, &put("second", "panics")), Err(WriteError::Unknown(_))));
    drop(store);
    let store = RedbStorage::builder().open_backend(CrashDisk::with(disk.image())).unwrap();
    assert_eq!(block_on(store.get_many(&[b"first".to_vec()])).unwrap(), [Some(b"durable".to_vec())]);
}

#[test]
fn after_an_io_error_the_store_refuses_until_it_is_reopened() {
    let disk = CrashDisk::default();
    let store = RedbStorage::builder().open_backend(disk.clone()).unwrap();
    write(&store, &put("first", "durable")).unwrap();
    disk.set_fault(Fault { on: Kind::Sync, at: 0, sticky: false, how: How::Error(ErrorKind::Other) });
    let error = write(&store, &put("second", "unknown")).unwrap_err();
    assert!(error.to_string().contains("injected"), "the cause is lost: {error}");
    // The medium works again, but the store must not use what redb holds in memory.
    assert_refuses(&store, "after the error");
    // An empty batch is refused too: `Ok` would say that the store is well.
    assert!(matches!(write(&store, &WriteBatch::new()), Err(WriteError::Unknown(_))));
}

#[test]
fn a_close_that_fails_loses_nothing() {
    for on in [Kind::Write, Kind::Sync] {
        for how in [How::Error(ErrorKind::Other), How::Panic] {
            let disk = CrashDisk::default();
            let store = RedbStorage::builder().open_backend(disk.clone()).unwrap();
            write(&store, &put("first", "durable")).unwrap();
            disk.set_fault(Fault { on, at: 0, sticky: true, how });
            drop(store);
            assert!(disk.has_failed() && disk.holders() == 1);
            let store = RedbStorage::builder().open_backend(CrashDisk::with(disk.image())).unwrap();
            assert_eq!(content(&store).unwrap(), states(&[put("first", "durable")])[1]);
        }
    }
}

/// A store without a cache, so that reads reach the medium, and its content.
fn uncached(disk: &CrashDisk) -> (RedbStorage, Model) {
    let mut batch = WriteBatch::new();
    for n in 0_u16..300 {
        batch.put(n.to_be_bytes(), vec![1; 500]);
    }
    let store = RedbStorage::builder().cache_bytes(0).open_backend(disk.clone()).unwrap();
    write(&store, &batch).unwrap();
    (store, states(&[batch]).remove(1))
}

#[test]
fn a_scan_over_a_failing_medium_is_an_error_never_a_short_success() {
    for (sticky, how) in
        [(false, How::Error(ErrorKind::Other)), (true, How::Error(ErrorKind::Other)), (false, How::Panic)]
    {
        let mut failures = 0;
        for at in 0.. {
            let disk = CrashDisk::default();
            let (store, model) = uncached(&disk);
            disk.set_fault(Fault { on: Kind::Read, at, sticky, how });
            match content(&store) {
                Ok(found) => assert_eq!(found, model, "read {at} failed, sticky {sticky}, {how:?}"),
                Err(_) => assert_refuses(&store, "after a failed read"),
            }
            if !disk.has_failed() {
                break;
            }
            failures += 1;
        }
        assert!(failures > 20, "the scan does not reach the medium");
    }
}

#[test]
fn a_point_read_over_a_failing_medium_is_an_error_never_an_absent_key() {
    let mut failures = 0;
    for at in 0.. {
        let disk = CrashDisk::default();
        let (store, model) = uncached(&disk);
        disk.set_fault(Fault { on: Kind::Read, at, sticky: false, how: How::Error(ErrorKind::Other) });
        let keys: Vec<Key> = model.keys().step_by(60).cloned().collect();
        match block_on(store.get_many(&keys)) {
            Ok(found) => assert!(found.iter().all(Option::is_some), "read {at} failed"),
            Err(_) => assert_refuses(&store, "after a failed point read"),
        }
        if !disk.has_failed() {
            break;
        }
        failures += 1;
    }
    assert!(failures > 5, "the reads do not reach the medium");
}

#[test]
fn a_range_that_ends_before_it_starts_is_empty() {
    let store = RedbStorage::builder().open_backend(CrashDisk::default()).unwrap();
    let mut batch = WriteBatch::new();
    for key in ["a", "b", "c", "d"] {
        batch.put(key, "value");
    }
    for (start, end) in [("c", "b"), ("b", "b"), ("zz", "a"), ("a", "")] {
        batch.delete_range(KeyRange::new(start, end));
    }
    write(&store, &batch).unwrap();
    assert_eq!(content(&store).unwrap().len(), 4);
    for limit in [ScanLimit::entries(10), ScanLimit::NONE] {
        for (start, end) in [("c", "b"), ("b", "b"), ("zz", "a"), ("a", "")] {
            assert_eq!(block_on(store.scan(KeyRange::new(start, end), limit)).unwrap(), ScanPage::default());
        }
    }
}

#[test]
fn a_write_is_two_phase_unless_asked_otherwise() {
    for (builder, expected) in [
        (RedbStorage::builder(), 2),
        (RedbBuilder::default(), 2),
        (one_phase(), 1),
        (one_phase().quick_repair(true), 2),
    ] {
        let disk = CrashDisk::default();
        let store = builder.open_backend(disk.clone()).unwrap();
        let before = disk.syncs();
        write(&store, &put("key", "value")).unwrap();
        assert_eq!(disk.syncs() - before, expected, "{builder:?}");
    }
}

#[test]
fn quick_repair_opens_after_a_crash_without_repairing() {
    let writes_to_open = |quick| {
        let builder = RedbStorage::builder().quick_repair(quick);
        let disk = CrashDisk::default();
        let store = builder.open_backend(disk.clone()).unwrap();
        write(&store, &put("key", "value")).unwrap();
        let crashed = CrashDisk::with(disk.image());
        let opened = builder.open_backend(crashed.clone()).unwrap();
        assert_eq!(content(&opened).unwrap().len(), 1);
        crashed.ops()
    };
    // A repair is counted by its writes: a debug build of redb reads the whole file either way.
    let (slow, quick) = (writes_to_open(false), writes_to_open(true));
    println!("{slow} {quick}");
    assert!(quick < slow, "{quick} against {slow} operations");
}

#[test]
fn a_dropped_write_runs_whole_and_the_next_one_comes_after_it() {
    let store = RedbStorage::builder().open_backend(CrashDisk::default()).unwrap();
    let batches = workload();
    for batch in &batches {
        // The future is polled once, which sends the write, and then dropped.
        drop(store.write(batch.clone()).now_or_never());
    }
    // This future is never polled, so that its write is not sent.
    drop(store.write(put("never", "polled")));
    write(&store, &WriteBatch::new()).unwrap();
    assert_eq!(content(&store).unwrap(), states(&batches)[batches.len()]);
}

#[test]
fn a_dropped_store_has_ended_its_writes_and_let_go_of_its_medium() {
    let disk = CrashDisk::default();
    let store = RedbStorage::builder().open_backend(disk.clone()).unwrap();
    drop(store.write(put("in", "flight")).now_or_never());
    drop(store);
    assert_eq!((disk.closes(), disk.holders()), (1, 1));
    let store = RedbStorage::builder().open_backend(disk.clone()).unwrap();
    assert_eq!(content(&store).unwrap(), states(&[put("in", "flight")])[1]);
}

#[test]
fn a_dropped_store_waits_for_a_scan_that_nobody_waits_for() {
    let disk = CrashDisk::default();
    let (store, _) = uncached(&disk);
    let barrier = disk.hold_next(Kind::Read);
    let mut scanning = store.scan(KeyRange::all(), ScanLimit::NONE);
    assert!((&mut scanning).now_or_never().is_none());
    barrier.wait();
    // The scan is now in the middle of a read, on another thread.
    drop(scanning);
    let dropper = std::thread::spawn({
        let disk = disk.clone();
        move || {
            drop(store);
            disk.closes()
        }
    });
    yield_often();
    assert!(!dropper.is_finished());
    barrier.wait();
    assert_eq!(dropper.join().unwrap(), 1);
    assert_eq!(disk.holders(), 1);
}

#[test]
fn a_write_blocks_neither_its_caller_nor_a_read() {
    let disk = CrashDisk::default();
    let store = RedbStorage::builder().open_backend(disk.clone()).unwrap();
    write(&store, &put("key", "before")).unwrap();
    let barrier = disk.hold_next(Kind::Sync);
    let mut writing = store.write(put("key", "after"));
    assert!((&mut writing).now_or_never().is_none());
    barrier.wait();
    // The write is now in its first sync.
    assert_eq!(content(&store).unwrap(), states(&[put("key", "before")])[1]);
    barrier.wait();
    block_on(writing).unwrap();
    assert_eq!(content(&store).unwrap(), states(&[put("key", "after")])[1]);
}

#[test]
fn a_dropped_store_runs_the_writes_that_were_sent_although_it_stops_its_scans() {
    let disk = CrashDisk::default();
    let (store, mut model) = uncached(&disk);
    let reading = disk.hold_next(Kind::Read);
    let mut scanning = store.scan(KeyRange::all(), ScanLimit::NONE);
    assert!((&mut scanning).now_or_never().is_none());
    reading.wait();
    drop(scanning);
    let syncing = disk.hold_next(Kind::Sync);
    drop(store.write(put("first", "stands in its sync")).now_or_never());
    drop(store.write(put("second", "waits behind it")).now_or_never());
    syncing.wait();
    let dropper = std::thread::spawn(move || drop(store));
    // The scan stops before the second write begins, because the store is being dropped.
    yield_often();
    reading.wait();
    yield_often();
    syncing.wait();
    dropper.join().unwrap();
    let store = RedbStorage::builder().open_backend(disk).unwrap();
    support::apply(&mut model, &put("first", "stands in its sync"));
    support::apply(&mut model, &put("second", "waits behind it"));
    assert_eq!(content(&store).unwrap(), model);
}

/// Gives other threads time: to do something wrong, if they would, or to reach a place in a story. The test passes
/// however long that takes.
fn yield_often() {
    for _ in 0..10_000 {
        std::thread::yield_now();
    }
}
