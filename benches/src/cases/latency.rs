//! From a commit on one replica to its event on another.
//!
//! Beside it stands one commit of the same replica, from the call to its reply, while both are out of each other's
//! reach and commit in turn. So the stores of the two sides are the same ones, with the same rows, and their files are
//! written in the same order. A replica on its own drops its log as it goes, so its file stays in place and its commits
//! cost the file system less; how the way compares with that is a row of its own, without a bar.
//!
//! The times of durable stores are means of a round: the way is the sum of two writes, and of flushes, whose times have
//! a long tail, the median of a sum is more than the sum of the medians.

use std::sync::Arc;

use syncline::{Storage, TransactionManager};
use syncline_backends::MemoryStorage;
use tempfile::TempDir;

use super::Bench;
use crate::Result;
use crate::hand_written::{CACHE_BYTES, HandWritten};
use crate::item::{Ids, Item, Items};
use crate::ours::Ours;
use crate::pair::{A, B, Pair, until_received};
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};

/// It takes two durable writes, one after the other, and a commit takes one.
const BAR: Bar = Bar::Below(2.2);

/// The side that waits for the event of the other replica.
const RECEIVED: usize = 0;
/// The side whose commits the other replica does not hear of.
const KEPT: usize = 1;

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (rounds, commits, ids) = (bench.amount(25, 9), 50, Ids::Random);
    let mut rows = Vec::new();
    for &commit in H::COMMITS {
        eprintln!("  {commit}");
        let dir = TempDir::with_prefix_in("latency-", bench.dir)?;
        let storage = |name| H::storage(&dir.path().join(name), commit, CACHE_BYTES);
        let (a, b, alone) = (storage("a")?, storage("b")?, storage("alone")?);
        let (pair, alone) = bench.wait(async { Ok((Pair::open(a, b).await?, Ours::open(alone).await?)) })?;
        let pair = Arc::new(pair);
        let mut items = Items::new(ids, 1);
        let [ours, one, of_alone] = paired(
            rounds,
            // The same record twice would be no commit.
            || [items.take(commits), items.take(commits), items.take(commits)],
            |[received, kept, of_b]: &[Vec<Item>; 3], side| match side {
                RECEIVED => {
                    let (pair, items) = (Arc::clone(&pair), received.clone());
                    bench.wait(async move { Ok(mean(&to_event(&pair, items).await?)) })
                }
                KEPT => {
                    let (pair, items, of_b) = (Arc::clone(&pair), kept.clone(), of_b.clone());
                    bench.wait(async move { Ok(mean(&to_reply(&pair, items, of_b).await?)) })
                }
                _ => {
                    let (alone, items) = (alone.manager.clone(), kept.clone());
                    bench.wait(async move { Ok(mean(&to_reply_alone(&alone, items).await?)) })
                }
            },
        )?;
        let pair = Arc::into_inner(pair).ok_or("a round still runs")?;
        bench.wait(async {
            pair.close().await?;
            alone.close().await
        })?;
        for (what, beside, bar) in
            [("one commit", &one, Some(BAR)), ("one commit of a replica on its own", &of_alone, None)]
        {
            rows.push(Row {
                case: format!("{}: commit to a peer's event, mean, beside {what}", H::ENGINE),
                ids: ids.name(),
                commit: commit.to_string(),
                ours: Quantity::Micros(Spread::of(&ours).median),
                beside: Some(Quantity::Micros(Spread::of(beside).median)),
                bare: None,
                figure: Spread::of_ratios(&ours, beside),
                bar,
            });
        }
    }
    Ok(rows)
}

/// The same without a disk: what the way itself takes.
pub(super) fn run_in_memory(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let pair = Arc::new(bench.wait(Pair::open(MemoryStorage::new(), MemoryStorage::new()))?);
    let mut items = Items::new(Ids::Random, 1);
    let [ours] = paired(
        bench.amount(25, 9),
        || items.take(200),
        |items: &Vec<Item>, _| {
            let (pair, items) = (Arc::clone(&pair), items.clone());
            bench.wait(async move { Ok(Spread::of(&to_event(&pair, items).await?).median) })
        },
    )?;
    let pair = Arc::into_inner(pair).ok_or("a round still runs")?;
    bench.wait(pair.close())?;
    Ok(vec![Row {
        case: "memory: commit to a peer's event, p50".into(),
        ids: Ids::Random.name(),
        commit: String::new(),
        ours: Quantity::Micros(Spread::of(&ours).median),
        beside: None,
        bare: None,
        figure: Spread::of(&ours),
        bar: Some(Bar::BelowMicros(300.)),
    }])
}

/// The times from a commit on A to its event on B, in microseconds.
async fn to_event<SA: Storage, SB: Storage>(pair: &Pair<SA, SB>, items: Vec<Item>) -> Result<Vec<f64>> {
    let (a, b) = (&pair.a.manager, &pair.b.manager);
    let mut events = b.events();
    let mut commits = a.status().await?.commits;
    let mut times = Vec::with_capacity(items.len());
    for item in items {
        commits += 1;
        let stopwatch = Stopwatch::start();
        a.commit_shared(item).await?;
        until_received(b, &mut events, commits).await?;
        times.push(stopwatch.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// The times of commits on A, in microseconds, while B cannot hear it and commits `of_b` in turn.
async fn to_reply<SA: Storage, SB: Storage>(
    pair: &Pair<SA, SB>,
    items: Vec<Item>,
    of_b: Vec<Item>,
) -> Result<Vec<f64>> {
    let (a, b) = (&pair.a.manager, &pair.b.manager);
    let mut events = b.events();
    pair.network.disconnect(A, B);
    let mut times = Vec::with_capacity(items.len());
    for (item, of_b) in items.into_iter().zip(of_b) {
        let stopwatch = Stopwatch::start();
        a.commit_shared(item).await?;
        times.push(stopwatch.elapsed().as_secs_f64() * 1e6);
        b.commit_shared(of_b).await?;
    }
    let commits = a.status().await?.commits;
    pair.network.connect(A, B);
    until_received(b, &mut events, commits).await?;
    Ok(times)
}

/// The times of commits on a replica that is the only one of its group, in microseconds.
async fn to_reply_alone<S: Storage>(alone: &TransactionManager<S>, items: Vec<Item>) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(items.len());
    for item in items {
        let stopwatch = Stopwatch::start();
        alone.commit_shared(item).await?;
        times.push(stopwatch.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}
