//! Commits of another replica, as they come: from the first commit there to the last event here.
//!
//! A commits to memory, so that what is measured is what B does; but A's commits are part of the time, and on a machine
//! with few cores they take some of it from B.

use std::sync::Arc;

use syncline_backends::MemoryStorage;
use tempfile::TempDir;

use super::Bench;
use crate::Result;
use crate::counting::Counting;
use crate::hand_written::{self, CACHE_BYTES, HandWritten, Writer};
use crate::item::{Ids, Item, Items};
use crate::ours::commit_each;
use crate::pair::{A, B, Pair, until_received};
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};

/// So many that A's commits share writes, and so frames.
const CALLERS: usize = 1000;

/// The commits of a round, ten of which make 100,000: their frames fit any queue, so none of them is dropped.
const COMMITS: usize = 10_000;

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let ids = Ids::Random;
    let mut rows = Vec::new();
    for &commit in H::COMMITS {
        eprintln!("  {commit}");
        let dir = TempDir::with_prefix_in("live-", bench.dir)?;
        let (to_a, a_writes) = Counting::new(MemoryStorage::new());
        let (to_b, b_writes) = Counting::new(H::storage(&dir.path().join("ours"), commit, CACHE_BYTES)?);
        let pair = bench.wait(Pair::open(to_a, to_b))?;
        let hand = Arc::new(Writer::start(H::open(&dir.path().join("hand"), commit, CACHE_BYTES)?));
        let mut items = Items::new(ids, 1);
        let (rounds, mut a_wrote, mut b_wrote) = (bench.amount(10, 5), 0, 0);
        pair.network.reset_traffic();
        let [ours, beside] = paired(
            rounds,
            || items.take(COMMITS),
            |items: &Vec<Item>, side| match side {
                0 => {
                    let (a, b, items) = (pair.a.manager.clone(), pair.b.manager.clone(), items.clone());
                    let before = (a_writes.count(), b_writes.count());
                    let rate = bench.wait(async move {
                        let all = a.status().await?.commits + COMMITS as u64;
                        let mut events = b.events();
                        let stopwatch = Stopwatch::start();
                        commit_each(&a, items, CALLERS).await?;
                        until_received(&b, &mut events, all).await?;
                        Ok(stopwatch.rate(COMMITS))
                    })?;
                    a_wrote += a_writes.count() - before.0;
                    b_wrote = b_writes.count() - before.1;
                    Ok(rate)
                }
                _ => apply(bench, &hand, hand_written::Row::all(items)?, COMMITS.div_ceil(b_wrote.max(1))),
            },
        )?;
        let (sent, back) = (pair.network.traffic(A, B), pair.network.traffic(B, A));
        eprintln!(
            "  {} frames for {a_wrote} writes of A, {} dropped; {} frames back; {} commits a write of B",
            sent.sent_frames,
            sent.dropped_frames,
            back.sent_frames,
            COMMITS.div_ceil(b_wrote.max(1)),
        );
        bench.wait(pair.close())?;
        rows.push(Row {
            case: format!("{}: received live", H::ENGINE),
            ids: ids.name(),
            commit: commit.to_string(),
            ours: Quantity::Rate(Spread::of(&ours).median),
            beside: Some(Quantity::Rate(Spread::of(&beside).median)),
            bare: None,
            figure: Spread::of_ratios(&ours, &beside),
            bar: Some(BAR),
        });
    }
    Ok(rows)
}

/// What is asked of every engine, live and when it catches up.
pub(super) const BAR: Bar = Bar::AtLeast(0.6);

/// Applies `rows`, which have come from elsewhere and so are encoded already, `at_once` in a transaction.
pub(super) fn apply<H: HandWritten>(
    bench: &Bench<'_>,
    hand: &Arc<Writer<H>>,
    rows: Vec<hand_written::Row>,
    at_once: usize,
) -> Result<f64> {
    let (hand, count) = (Arc::clone(hand), rows.len());
    bench.wait(async move {
        let mut rows = rows.into_iter();
        let stopwatch = Stopwatch::start();
        loop {
            let transaction: Vec<_> = rows.by_ref().take(at_once).collect();
            if transaction.is_empty() {
                return Ok(stopwatch.rate(count));
            }
            hand.commit(transaction).await?;
        }
    })
}
