//! Goal: whichever unsynced bytes a medium keeps when the power fails, the store has every acknowledged write, and each
//! write whole or not at all. Method: the operations of a workload on the medium are recorded and cut after each of
//! them; each medium that could be left is built, opened and read; then the recovery is cut in the same way.
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

use support::crash_disk::{CrashDisk, Op, PowerCuts};
use support::{Model, Rng, apply, content, put, states, write};
use syncline::{KeyRange, WriteBatch};
use syncline_backends::RedbStorage;
use syncline_backends::redb::RedbBuilder;

/// Batches that put, overwrite and delete keys and ranges, with values over many pages, one of which makes the file
/// grow.
fn workload() -> Vec<WriteBatch> {
    let mut batches = Vec::new();
    for n in 0_u8..4 {
        let mut batch = WriteBatch::new();
        for key in 0..12 {
            batch.put([key % 3, key, n % 2], vec![n; 60 + usize::from(key) * 7]);
        }
        batch.delete([1, 1 + n, 0]);
        batch.put([9, n], vec![n; 9_000]);
        batches.push(batch);
    }
    let mut ranges = WriteBatch::new();
    ranges.delete_range(KeyRange::prefix([1]));
    ranges.delete_range(KeyRange::new([5], [4]));
    ranges.put(*b"", *b"");
    batches.push(ranges);
    let mut large = WriteBatch::new();
    large.put([7], vec![7; 1_100_000]);
    large.delete([9, 0]);
    batches.push(large);
    batches.push(put("after", "growth"));
    let mut shrink = WriteBatch::new();
    shrink.delete_range(KeyRange::new([7], [10]));
    batches.push(shrink);
    batches
}

fn one_phase() -> RedbBuilder {
    RedbStorage::builder().two_phase_commit(false)
}

/// The operations of a run on its medium, and when each state was acknowledged.
struct Recorded {
    trace: Vec<Op>,
    /// `acknowledged[n]` is the number of operations before state `n` was acknowledged.
    acknowledged: Vec<usize>,
}

/// Opens a store on `image`, writes `batches`, and closes it.
fn record(builder: &RedbBuilder, image: Vec<u8>, batches: &[WriteBatch]) -> Recorded {
    let disk = CrashDisk::with(image);
    let store = builder.open_backend(disk.clone()).unwrap();
    let mut acknowledged = vec![disk.ops()];
    for batch in batches {
        write(&store, batch).unwrap();
        acknowledged.push(disk.ops());
    }
    drop(store);
    Recorded { trace: disk.trace(), acknowledged }
}

/// The recovery of one medium in so many is cut as well: often enough to meet every phase of a recovery.
const DOUBLE_CRASH_EVERY: usize = 61;

/// Cuts the power after each operation of the workload, and checks the media that could be left.
fn lose_power(builder: &RedbBuilder, seed: u64) {
    let recorded = record(builder, Vec::new(), &workload());
    let (media, recoveries) = survey(builder, seed, recorded).unwrap();
    println!("{media} media, {recoveries} media of recoveries");
    assert!(media > 200 && recoveries > 200, "the workload no longer exercises the store");
}

fn survey(builder: &RedbBuilder, seed: u64, recorded: Recorded) -> Result<(usize, usize), String> {
    let mut rng = Rng::new(seed);
    let states = states(&workload());
    let mut cuts = PowerCuts::new(Vec::new(), recorded.trace);
    let (mut media, mut recoveries) = (0, 0);
    loop {
        let acknowledged = recorded.acknowledged.iter().filter(|&&ops| ops <= cuts.at()).count();
        // Before the first opening has returned, the store is empty or does not exist.
        let possible = &states[acknowledged.saturating_sub(1)..(acknowledged + 1).min(states.len())];
        for (left, image) in cuts.images(&mut rng) {
            let context = format!("seed {seed}, cut after {}, left {left}", cuts.at());
            examine(builder, image.clone(), possible).map_err(|what| format!("{context}: {what}"))?;
            if media % DOUBLE_CRASH_EVERY == 0 {
                recoveries += survey_recovery(builder, image, possible, &mut rng)
                    .map_err(|what| format!("{context}, {what}"))?;
            }
            media += 1;
        }
        if !cuts.advance() {
            return Ok((media, recoveries));
        }
    }
}

/// Opens a store on `image`, writes once more, and cuts the power after each operation of the opening and the write.
fn survey_recovery(
    builder: &RedbBuilder,
    image: Vec<u8>,
    possible: &[Model],
    rng: &mut Rng,
) -> Result<usize, String> {
    let disk = CrashDisk::with(image.clone());
    let store = builder.open_backend(disk.clone()).unwrap();
    let opened_at = disk.ops();
    let seen = content(&store).unwrap();
    let batch = put("after", "recovery");
    write(&store, &batch).unwrap();
    let written_at = disk.ops();
    drop(store);
    let mut written = seen.clone();
    apply(&mut written, &batch);
    let either = [seen, written.clone()];

    let mut cuts = PowerCuts::new(image, disk.trace());
    let mut media = 0;
    loop {
        // The state that was read once must stay. During the recovery itself each possible state may still be the
        // outcome.
        let possible = match cuts.at() {
            at if at >= written_at => std::slice::from_ref(&written),
            at if at >= opened_at => &either,
            _ => possible,
        };
        for (left, image) in cuts.images(rng) {
            let context = format!("cut again after {}, left {left}", cuts.at());
            examine(builder, image, possible).map_err(|what| format!("{context}: {what}"))?;
            media += 1;
        }
        if !cuts.advance() {
            return Ok(media);
        }
    }
}

/// Checks that a store opens on `image` and holds one of the `possible` states.
fn examine(builder: &RedbBuilder, image: Vec<u8>, possible: &[Model]) -> Result<(), String> {
    let store = builder.open_backend(CrashDisk::with(image)).map_err(|error| error.to_string())?;
    let found = content(&store).map_err(|error| error.to_string())?;
    if possible.contains(&found) { Ok(()) } else { Err(format!("{} entries are no state", found.len())) }
}

#[test]
fn two_phase_writes_survive_power_loss_also_in_recovery() {
    lose_power(&RedbStorage::builder(), 1);
}

#[test]
fn one_phase_writes_survive_power_loss_also_in_recovery() {
    lose_power(&one_phase(), 2);
}

#[test]
fn quick_repair_writes_survive_power_loss_also_in_recovery() {
    lose_power(&RedbStorage::builder().quick_repair(true), 3);
}

#[test]
fn verified_opens_survive_power_loss_also_in_recovery() {
    lose_power(&RedbStorage::builder().verify(true), 4);
}

#[test]
fn the_survey_finds_a_write_that_was_acknowledged_before_it_was_synced() {
    let mut recorded = record(&RedbStorage::builder(), Vec::new(), &workload());
    // The records say that each write was acknowledged before its last sync.
    for acknowledged in recorded.acknowledged.iter_mut().skip(1) {
        *acknowledged -= 1;
    }
    let found = survey(&RedbStorage::builder(), 5, recorded).unwrap_err();
    assert!(found.contains("no state"), "{found}");
}

#[test]
fn the_survey_finds_a_medium_that_does_not_sync() {
    let mut recorded = record(&RedbStorage::builder(), Vec::new(), &workload());
    for op in &mut recorded.trace {
        if matches!(op, Op::Sync) {
            *op = Op::Write { offset: 0, data: Vec::new() };
        }
    }
    survey(&RedbStorage::builder(), 6, recorded).unwrap_err();
}
