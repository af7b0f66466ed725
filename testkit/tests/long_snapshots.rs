//! Goal: Y5, a snapshot of 100,000 records that is interrupted at every page goes on where it was. Method: the scenario of the list with
//! so many records, over stores that can hold them; it takes minutes.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use async_trait::async_trait;
use syncline::BoxError;
use syncline_backends::RedbStorage;
use syncline_testkit::replication::{Size, a_snapshot_of_this_size_is_interrupted};
use syncline_testkit::{Disk, Fixture, block_on};
use tempfile::TempDir;

const LARGE: Size = Size { records: 100_000, page_bytes: 1 << 20, bytes_a_second: 1_000_000 };

/// A file in a directory of its own.
struct Redb(TempDir);

impl Redb {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory can be made"))
    }
}

#[async_trait]
impl Fixture for Redb {
    type Store = RedbStorage;

    async fn open(&self) -> Result<RedbStorage, BoxError> {
        Ok(RedbStorage::open(self.0.path().join("large.redb"))?)
    }
}

/// Y5, Y10, Y14
#[test]
#[ignore = "it takes minutes: `.ci/nightly large`"]
fn a_large_snapshot_in_memory_is_interrupted_at_every_page() {
    block_on(a_snapshot_of_this_size_is_interrupted(&Disk::new, LARGE));
}

/// Y5, Y10, Y14
#[test]
#[ignore = "it takes minutes: `.ci/nightly large`"]
fn a_large_snapshot_in_redb_is_interrupted_at_every_page() {
    block_on(a_snapshot_of_this_size_is_interrupted(&Redb::new, LARGE));
}
