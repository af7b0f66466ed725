//! Commits of another replica, as they come: what it takes to apply them, from the arrival of the first one to the last
//! event; and once more from the first commit on the other side, which makes them out of the same cores.

use std::sync::Arc;

use syncline::Storage;
use syncline_backends::MemoryStorage;
use tempfile::TempDir;

use super::Bench;
use crate::Result;
use crate::counting::{Counting, Writes};
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
        let storage = |name| H::storage(&dir.path().join(name), commit, CACHE_BYTES);
        let mut applying = Live::open(bench, storage("applied")?)?;
        let mut receiving = Live::open(bench, storage("received")?)?;
        let hand = Arc::new(Writer::start(H::open(&dir.path().join("hand"), commit, CACHE_BYTES)?));
        let mut items = Items::new(ids, 1);
        let [applied, received, beside] = paired(
            bench.amount(10, 5),
            || items.take(COMMITS),
            |items: &Vec<Item>, side| match side {
                0 => applying.round(bench, items.clone(), true),
                1 => receiving.round(bench, items.clone(), false),
                _ => apply(bench, &hand, hand_written::Row::all(items)?, applying.at_once, Put::WithLog),
            },
        )?;
        applying.close(bench)?;
        receiving.close(bench)?;
        for (what, ours, bar) in [
            ("applied live", applied, Some(BAR)),
            ("applied live, with the commits of the sender in memory", received, None),
        ] {
            rows.push(Row {
                case: format!("{}: {what}", H::ENGINE),
                ids: ids.name(),
                commit: commit.to_string(),
                ours: Quantity::Rate(Spread::of(&ours).median),
                beside: Some(Quantity::Rate(Spread::of(&beside).median)),
                bare: None,
                figure: Spread::of_ratios(&ours, &beside),
                bar,
            });
        }
    }
    Ok(rows)
}

/// A, which commits to memory, and B, which applies that.
struct Live<S: Storage> {
    pair: Pair<MemoryStorage, Counting<S>>,
    writes_of_b: Writes,
    /// How many commits shared a write of B in the last round.
    at_once: usize,
}

impl<S: Storage> Live<S> {
    fn open(bench: &Bench<'_>, storage: S) -> Result<Self> {
        let (to_b, writes_of_b) = Counting::new(storage);
        let pair = bench.wait(Pair::open(MemoryStorage::new(), to_b))?;
        pair.network.reset_traffic();
        Ok(Self { pair, writes_of_b, at_once: 1 })
    }

    /// How many commits a second B applies: from when A has made all of them if they are `kept` back until then.
    fn round(&mut self, bench: &Bench<'_>, items: Vec<Item>, kept: bool) -> Result<f64> {
        let (a, b, before) =
            (self.pair.a.manager.clone(), self.pair.b.manager.clone(), self.writes_of_b.count());
        let to_b = self.pair.to_b.clone();
        let rate = bench.wait(async move {
            let all = a.status().await?.commits + COMMITS as u64;
            let mut events = b.events();
            let mut stopwatch = Stopwatch::start();
            if kept {
                to_b.keep();
            }
            commit_each(&a, items, CALLERS).await?;
            if kept {
                stopwatch = Stopwatch::start();
                to_b.release();
            }
            until_received(&b, &mut events, all).await?;
            Ok(stopwatch.rate(COMMITS))
        })?;
        self.at_once = COMMITS.div_ceil((self.writes_of_b.count() - before).max(1));
        Ok(rate)
    }

    fn close(self, bench: &Bench<'_>) -> Result<()> {
        let (sent, back) = (self.pair.network.traffic(A, B), self.pair.network.traffic(B, A));
        eprintln!(
            "  {} frames, {} dropped; {} frames back; {} commits a write of B",
            sent.sent_frames, sent.dropped_frames, back.sent_frames, self.at_once,
        );
        bench.wait(self.pair.close())
    }
}

/// What is asked of every engine, live and when it catches up.
pub(super) const BAR: Bar = Bar::AtLeast(0.6);

/// Whether rows are put with their log, or alone.
#[derive(Clone, Copy)]
pub(super) enum Put {
    WithLog,
    Alone,
}

/// Applies `rows`, which have come from elsewhere and so are encoded already, `at_once` in a transaction.
pub(super) fn apply<H: HandWritten>(
    bench: &Bench<'_>,
    hand: &Arc<Writer<H>>,
    rows: Vec<hand_written::Row>,
    at_once: usize,
    put: Put,
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
            match put {
                Put::WithLog => hand.commit(transaction).await?,
                Put::Alone => hand.run(move |hand| hand.commit_rows_alone(&transaction)).await?,
            }
        }
    })
}
