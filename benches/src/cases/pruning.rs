//! Dropping a long log, all of which every member has at once: how long the app's commits wait for it.
//!
//! The author is connected to one member and not to the other, which gets everything from the first. So the author keeps
//! all of its log, until it meets that member too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use syncline::{Storage, TransactionManager};
use syncline_backends::MemoryStorage;
use tempfile::TempDir;

use super::Bench;
use crate::Result;
use crate::group::{Group, stream, until};
use crate::hand_written::{CACHE_BYTES, HandWritten};
use crate::item::{Ids, Items};
use crate::ours::commit_each;
use crate::rounds::Spread;
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};

/// The longest that a commit may take, beside the longest one of as many while nothing is pruned: both are durable writes,
/// and a commit may wait for one more.
const BAR: Bar = Bar::AtMost(2.);

/// The author; the member that it is connected to; the one that it is not.
const A: u8 = 0;
const B: u8 = 1;
const C: u8 = 2;

/// So many that the commits of one record share writes.
const CALLERS: usize = 1000;

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (records, rounds) = (bench.amount(100_000, 20_000), bench.amount(5, 3));
    let (ids, commit) = (Ids::Random, H::Commit::default());
    let (mut pruned, mut quiet) = (Vec::new(), Vec::new());
    let mut items = Items::new(ids, 1);
    for round in 0..rounds {
        let dir = TempDir::with_prefix_in("pruning-", bench.dir)?;
        let (storage, mut items) = (H::storage(&dir.path().join("a"), commit, CACHE_BYTES)?, items.split());
        let times = bench.wait(async move {
            let group = Group::default();
            let a = group.founder(storage, |builder| builder).await?;
            let b = group.joins(MemoryStorage::new(), B, (&a, A)).await?;
            group.disconnect(A, C);
            let c = group.joins(MemoryStorage::new(), C, (&b, B)).await?;
            commit_each(&a.manager, items.take(records), CALLERS).await?;
            let all = a.manager.status().await?.commits;
            until(&c.manager, "the other member has all", |status| stream(status, A).0 >= all).await?;
            let floor = a.manager.status().await?.pruned;
            if floor > 16 {
                return Err(format!("{floor} entries are pruned already").into());
            }
            let done = Arc::new(AtomicBool::new(false));
            let commits =
                tokio::spawn(commit_until(Arc::clone(&done), a.manager.clone(), items.split(), usize::MAX));
            let stopwatch = Stopwatch::start();
            group.connect(A, C);
            let is_pruned = until(&a.manager, "the log is pruned", |status| status.pruned >= all).await;
            let took = stopwatch.elapsed();
            done.store(true, Relaxed);
            let busy = commits.await??;
            is_pruned?;
            group.disconnect(A, C);
            group.disconnect(A, B);
            let never = Arc::new(AtomicBool::new(false));
            let quiet = commit_until(never, a.manager.clone(), items, busy.len()).await?;
            for closed in [a.close().await, b.close().await, c.close().await] {
                closed?;
            }
            Ok((busy, quiet, took))
        })?;
        let (busy, alone, took) = times;
        eprintln!("  round {round}: pruned in {:.1} s, beside {} commits", took.as_secs_f64(), busy.len());
        pruned.push(busy);
        quiet.push(alone);
    }
    let at = |times: &[Vec<f64>], percent: usize| -> Vec<f64> {
        let nth = |times: &Vec<f64>| {
            let last = times.len().saturating_sub(1);
            times.get((last * percent).div_ceil(100)).copied().unwrap_or(f64::NAN)
        };
        times.iter().map(nth).collect()
    };
    let row = |what: &str, percent, bar| {
        let (pruned, quiet) = (at(&pruned, percent), at(&quiet, percent));
        Row {
            case: format!("{}: a commit while {records} log entries are pruned, {what}", H::ENGINE),
            ids: ids.name(),
            commit: commit.to_string(),
            ours: Quantity::Micros(Spread::of(&pruned).median),
            beside: Some(Quantity::Micros(Spread::of(&quiet).median)),
            bare: None,
            figure: Spread::of_ratios(&pruned, &quiet),
            bar,
        }
    };
    Ok(vec![row("the longest", 100, Some(BAR)), row("p99", 99, None), row("p50", 50, None)])
}

/// Commits one record after the other, until it is `done` or so `many` are made; gives the time that each of them took, in
/// microseconds, the shortest first.
async fn commit_until<S: Storage>(
    done: Arc<AtomicBool>,
    manager: TransactionManager<S>,
    mut items: Items,
    many: usize,
) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    while !done.load(Relaxed) && times.len() < many {
        let item = items.take(1).pop().ok_or("no item")?;
        let stopwatch = Stopwatch::start();
        manager.commit_shared(item).await?;
        times.push(stopwatch.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}
