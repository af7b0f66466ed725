//! A replica goes on committing while it catches up: how long its own commits wait, and what the catch-up loses by them.
//!
//! The commits that it lacks are large, and a projection makes several rows of every record of them, as an index
//! of the words of a note does.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use syncline::{BoxError, Clock, Native, Projection, RecordId, Storage, SystemClock, TransactionManager};
use tempfile::TempDir;

use super::Bench;
use super::catch_up::catch_up;
use super::stores::BATCH;
use crate::Result;
use crate::hand_written::{CACHE_BYTES, HandWrittenJoin};
use crate::item::{Ids, Item, Items};
use crate::ours::commit_batch;
use crate::pair::{A, B, Pair};
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};

/// The longest that a commit may take while another replica's commits are written.
const WAIT: Bar = Bar::BelowMicros(100_000.);
/// The share of its rate that the catch-up must keep.
const RATE: Bar = Bar::AtLeast(0.9);
/// Between two commits of the app.
const PAUSE: Duration = Duration::from_millis(50);
/// The rows that the projection makes of a record.
const ROWS: u64 = 8;

/// Some rows of the app's for each record.
struct Words<H>(AtomicU64, PhantomData<fn() -> H>);

impl<H: HandWrittenJoin> Projection<H::Storage> for Words<H> {
    type Model = Item;
    const NAME: &'static str = "words";
    const VERSION: u32 = 1;

    fn reset(&self, tx: &Native<'_, H::Storage>) -> std::result::Result<(), BoxError> {
        H::create_notes(tx)
    }

    fn put(&self, tx: &Native<'_, H::Storage>, _: &Item) -> std::result::Result<(), BoxError> {
        let first = self.0.fetch_add(ROWS, Relaxed);
        (first..first + ROWS).try_for_each(|row| H::add_note(tx, row))
    }

    fn delete(&self, _: &Native<'_, H::Storage>, _: &RecordId<Item>) -> std::result::Result<(), BoxError> {
        Ok(())
    }
}

pub(super) fn run<H: HandWrittenJoin>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for ids in Ids::ALL {
        rows.extend(run_with::<H>(bench, ids)?);
    }
    Ok(rows)
}

fn run_with<H: HandWrittenJoin>(bench: &Bench<'_>, ids: Ids) -> Result<[Row; 2]> {
    let (records, rounds) = (bench.amount(100_000, 30_000), bench.amount(5, 3));
    let (mut items, mut waits_us) = (Items::new(ids, 1), Vec::new());
    let [busy, quiet] = paired(
        rounds,
        || items.take(records),
        |items: &Vec<Item>, side| {
            let dir = TempDir::with_prefix_in("local-commits-", bench.dir)?;
            let storage = |name| H::storage(&dir.path().join(name), H::Commit::default(), CACHE_BYTES);
            let (a, b, items) = (storage("a")?, storage("b")?, items.clone());
            let (rate, waited) = bench.wait(async move {
                let words = Words::<H>(AtomicU64::new(1), PhantomData);
                let pair = Pair::open_with(a, b, |builder| builder.project(words)).await?;
                pair.network.disconnect(A, B);
                for batch in items.chunks(BATCH) {
                    commit_batch(&pair.a.manager, batch).await?;
                }
                let done = Arc::new(AtomicBool::new(side != 0));
                let app = tokio::spawn(commit_until(Arc::clone(&done), pair.b.manager.clone()));
                let stopwatch = Stopwatch::start();
                catch_up(&pair).await?;
                let rate = stopwatch.rate(items.len());
                done.store(true, Relaxed);
                let waited = app.await??;
                pair.close().await?;
                Ok((rate, waited))
            })?;
            waits_us.extend(waited);
            Ok(rate)
        },
    )?;
    waits_us.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let last = waits_us.len().saturating_sub(1);
        waits_us.get((last * percent).div_ceil(100)).copied().unwrap_or(f64::NAN)
    };
    let commits = waits_us.len();
    let row = |case: String, ours, beside, figure, bar| Row {
        case: format!("{}: {case}", H::ENGINE),
        ids: ids.name(),
        commit: H::Commit::default().to_string(),
        ours,
        beside,
        bare: None,
        figure,
        bar,
    };
    let spread = Spread { median: at(99), min: at(50), max: at(100) };
    let case = format!("a commit during a catch-up, p99 of {commits} (p50..max)");
    let wait = row(case, Quantity::Micros(spread.median), None, spread, Some(WAIT));
    let rate = |rates: &[f64]| Quantity::Rate(Spread::of(rates).median);
    let case = format!("catch-up of {records} beside commits, and without");
    Ok([wait, row(case, rate(&busy), Some(rate(&quiet)), Spread::of_ratios(&busy, &quiet), Some(RATE))])
}

/// Commits one record after the other until it is `done`; gives the time that each of them took, in microseconds.
async fn commit_until<S: Storage>(done: Arc<AtomicBool>, manager: TransactionManager<S>) -> Result<Vec<f64>> {
    let (mut items, mut times, clock) = (Items::new(Ids::Random, 2), Vec::new(), SystemClock::new());
    while !done.load(Relaxed) {
        let item = items.take(1).pop().ok_or("no item")?;
        let stopwatch = Stopwatch::start();
        manager.commit_shared(item).await?;
        times.push(stopwatch.elapsed().as_secs_f64() * 1e6);
        clock.sleep(PAUSE).await;
    }
    Ok(times)
}
