//! Goal: if the commit path leaves out any one of its operations, a property fails and names the fault. Method: a store
//! that drops one kind of operation from every batch, and the properties of a whole replica over it.
//!
//! The first byte of a key is its kind, as `core/src/stored` defines it and golden tests there pin it.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use syncline::{BoxError, WriteOp};
use syncline_testkit::{
    Disk, Filtered, Fixture, JoinFixture, Reference, ReferenceRows, block_on, joined_replica, replica,
};

const HEAD: u8 = 2;
const LOG: u8 = 6;
const KEPT: u8 = 7;
const SHARED: Range<u8> = 0x10..0x70;
const OWNED: Range<u8> = 0x70..0xd0;

/// A store that is founded whole, and from then on drops the operations that match.
struct Crippled {
    disk: Disk,
    founded: Arc<AtomicBool>,
    dropped: Dropped,
}

/// Whether an operation is dropped.
type Dropped = fn(&WriteOp) -> bool;

impl Crippled {
    fn new(dropped: Dropped) -> Self {
        Self { disk: Disk::new(), founded: Arc::default(), dropped }
    }
}

#[async_trait]
impl Fixture for Crippled {
    type Store = Filtered<Reference>;

    async fn open(&self) -> Result<Self::Store, BoxError> {
        let (founded, dropped) = (Arc::clone(&self.founded), self.dropped);
        let dropped = move |op: &WriteOp| {
            if matches!(op, WriteOp::Put { key, .. } if key == b"\x01store") {
                founded.store(true, Ordering::Relaxed);
            }
            founded.load(Ordering::Relaxed) && dropped(op)
        };
        Ok(Filtered::without_ops(self.disk.open().await?, dropped))
    }
}

impl JoinFixture for Crippled {
    fn put_row(tx: &ReferenceRows, key: u64, value: &str) -> Result<(), BoxError> {
        Disk::put_row(tx, key, value)
    }

    fn delete_row(tx: &ReferenceRows, key: u64) -> Result<(), BoxError> {
        Disk::delete_row(tx, key)
    }

    fn rows(tx: &ReferenceRows) -> Result<Vec<(u64, String)>, BoxError> {
        Disk::rows(tx)
    }
}

fn put_of(op: &WriteOp, kind: u8) -> bool {
    put_in(op, kind..kind + 1)
}

fn put_in(op: &WriteOp, kinds: Range<u8>) -> bool {
    matches!(op, WriteOp::Put { key, .. } if key.first().is_some_and(|kind| kinds.contains(kind)))
}

fn removal_of(op: &WriteOp, kind: u8) -> bool {
    match op {
        WriteOp::Put { .. } => false,
        WriteOp::Delete { key } => key.first() == Some(&kind),
        WriteOp::DeleteRange { range } => range.start.first() == Some(&kind),
    }
}

/// The message of a property over a store that drops the operations that match; empty if the property holds.
fn verdict(property: fn(Dropped), dropped: Dropped) -> String {
    match catch_unwind(AssertUnwindSafe(|| property(dropped))) {
        Ok(()) => String::new(),
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "no message".into()),
    }
}

/// Asserts that the message of the property has `name`: the rule of the audit that is broken, or the read that fails.
fn assert_named(property: fn(Dropped), dropped: Dropped, name: &str) {
    let said = verdict(property, dropped);
    assert!(said.contains(name), "instead of {name} the property says: {said}");
}

fn read_back(dropped: Dropped) {
    block_on(replica::committed_is_read_back(&|| Crippled::new(dropped)));
}

fn kept(dropped: Dropped) {
    block_on(replica::overwritten_values_are_kept(&|| Crippled::new(dropped)));
}

fn joined(dropped: Dropped) {
    block_on(joined_replica::with_tx_commits_all_together(&|| Crippled::new(dropped)));
}

#[test]
fn nothing_left_out_is_fine() {
    for property in [read_back, kept, joined] {
        assert_eq!(verdict(property, |_| false), "");
    }
}

#[test]
fn a_joined_commit_without_its_record_is_noticed() {
    assert_named(joined, |op| put_in(op, SHARED), "RecordFollowsLog");
    assert_named(joined, |op| put_in(op, OWNED), "RecordFollowsLog");
}

#[test]
fn a_joined_commit_without_its_log_entry_or_head_is_noticed() {
    assert_named(joined, |op| put_of(op, LOG), "LogIsWhole");
    assert_named(joined, |op| put_of(op, HEAD), "LogIsWhole");
}

#[test]
fn a_joined_commit_without_its_clock_is_noticed() {
    let clock = |op: &WriteOp| matches!(op, WriteOp::Put { key, .. } if key == b"\x01clock");
    assert_named(joined, clock, "Clock");
}

#[test]
fn a_commit_without_its_shared_record_is_noticed() {
    assert_named(read_back, |op| put_in(op, SHARED), "listed");
}

#[test]
fn a_commit_without_its_owned_record_is_noticed() {
    assert_named(kept, |op| put_in(op, OWNED), "RecordFollowsLog");
}

#[test]
fn a_commit_without_its_log_entry_is_noticed() {
    assert_named(read_back, |op| put_of(op, LOG), "LogIsWhole");
}

#[test]
fn a_commit_without_its_head_is_noticed() {
    assert_named(read_back, |op| put_of(op, HEAD), "LogIsWhole");
}

#[test]
fn a_commit_without_its_clock_is_noticed() {
    let clock = |op: &WriteOp| matches!(op, WriteOp::Put { key, .. } if key == b"\x01clock");
    assert_named(read_back, clock, "Clock");
}

#[test]
fn a_displaced_value_that_is_not_kept_is_noticed() {
    assert_named(kept, |op| put_of(op, KEPT), "LogResolves");
}

#[test]
fn a_log_that_is_not_pruned_is_noticed() {
    assert_named(read_back, |op| removal_of(op, LOG), "LogIsWhole");
}

#[test]
fn a_kept_value_that_is_not_pruned_is_noticed() {
    assert_named(kept, |op| removal_of(op, KEPT), "KeptIsNeeded");
}
