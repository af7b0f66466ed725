//! The stores that a case about commits compares: the same engine with the same content, three times.

use std::sync::Arc;

use syncline::TransactionManager;
use tempfile::TempDir;

use super::Bench;
use crate::Result;
use crate::hand_written::{CACHE_BYTES, HandWritten, Row, Writer};
use crate::item::{Ids, Items};
use crate::ours::{Ours, Runs, commit_batch};

/// Stores that have grown alike.
#[derive(Debug)]
pub(super) struct Stores<H: HandWritten> {
    ours: Ours<H::Storage>,
    pub(super) hand: Arc<Writer<H>>,
    pub(super) bare: H,
    /// Where further items come from.
    pub(super) items: Items,
    // Last, so that the stores are closed before their files go.
    _dir: TempDir,
}

/// The batches of a store that has grown: 16 MiB of log, however the ids follow each other.
const BATCHES: usize = 60;

/// The records of a batch.
pub(super) const BATCH: usize = 1000;

impl<H: HandWritten> Stores<H> {
    /// Creates them and commits some records: so many that a commit finds tables that are more than a page deep, and that
    /// the log of SQLite is as long as it becomes, on both sides. While the log still grows, each flush makes its new length
    /// durable too, which takes about as long as the commit itself; ours grows four times as long as SQLite's default.
    pub(super) fn grown(bench: &Bench<'_>, ids: Ids, commit: H::Commit) -> Result<Self> {
        Self::grown_as(bench, ids, commit, Runs::AsTask)
    }

    /// As [`grown`](Self::grown), with a driver that runs there.
    pub(super) fn grown_as(bench: &Bench<'_>, ids: Ids, commit: H::Commit, runs: Runs) -> Result<Self> {
        let dir = TempDir::with_prefix_in("commits-", bench.dir)?;
        let storage = H::storage(&dir.path().join("ours"), commit, CACHE_BYTES)?;
        let ours = bench.wait(Ours::open_as(storage, runs))?;
        let mut hand = H::open(&dir.path().join("hand"), commit, CACHE_BYTES)?;
        let mut bare = H::open(&dir.path().join("bare"), commit, CACHE_BYTES)?;
        let mut items = Items::new(ids, 1);
        for _ in 0..BATCHES {
            let batch = items.take(BATCH);
            let rows = Row::all(&batch)?;
            hand.commit(&rows)?;
            bare.commit(&rows)?;
            let manager = ours.manager.clone();
            bench.wait(async move { commit_batch(&manager, &batch).await })?;
        }
        Ok(Self { ours, hand: Arc::new(Writer::start(hand)), bare, items, _dir: dir })
    }

    pub(super) fn manager(&self) -> TransactionManager<H::Storage> {
        self.ours.manager.clone()
    }

    /// Closes them.
    pub(super) fn close(self, bench: &Bench<'_>) -> Result<()> {
        bench.wait(self.ours.close())
    }
}
