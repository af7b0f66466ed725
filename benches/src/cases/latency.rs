//! From a commit on one replica to its event on another.

use syncline::{Storage, TransactionManager};
use syncline_backends::MemoryStorage;
use tempfile::TempDir;

use super::Bench;
use crate::Result;
use crate::hand_written::{CACHE_BYTES, HandWritten};
use crate::item::{Ids, Item, Items};
use crate::ours::Ours;
use crate::pair::{Pair, until_received};
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};

/// With durable stores it takes two flushes, one after the other, and a commit takes one.
const BAR: Bar = Bar::Below(2.2);

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (rounds, commits, ids) = (bench.amount(25, 9), 50, Ids::Random);
    let mut rows = Vec::new();
    for &commit in H::COMMITS {
        eprintln!("  {commit}");
        let dir = TempDir::with_prefix_in("latency-", bench.dir)?;
        let storage = |name| H::storage(&dir.path().join(name), commit, CACHE_BYTES);
        let (a, b, alone) = (storage("a")?, storage("b")?, storage("alone")?);
        let (pair, alone) = bench.wait(async { Ok((Pair::open(a, b).await?, Ours::open(alone).await?)) })?;
        let mut items = Items::new(ids, 1);
        let [ours, one] = paired(
            rounds,
            || items.take(commits),
            |items: &Vec<Item>, side| {
                let items = items.clone();
                if side == 0 {
                    let (a, b) = (pair.a.manager.clone(), pair.b.manager.clone());
                    bench.wait(async move { to_event(&a, &b, items).await })
                } else {
                    let alone = alone.manager.clone();
                    bench.wait(async move { to_reply(&alone, items).await })
                }
            },
        )?;
        bench.wait(async {
            pair.close().await?;
            alone.close().await
        })?;
        rows.push(Row {
            case: format!("{}: commit to a peer's event, p50, beside one commit", H::ENGINE),
            ids: ids.name(),
            commit: commit.to_string(),
            ours: Quantity::Micros(Spread::of(&ours).median),
            beside: Some(Quantity::Micros(Spread::of(&one).median)),
            bare: None,
            figure: Spread::of_ratios(&ours, &one),
            bar: Some(BAR),
        });
    }
    Ok(rows)
}

/// The same without a disk: what the way itself takes.
pub(super) fn run_in_memory(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let pair = bench.wait(Pair::open(MemoryStorage::new(), MemoryStorage::new()))?;
    let mut items = Items::new(Ids::Random, 1);
    let [ours] = paired(
        bench.amount(25, 9),
        || items.take(200),
        |items: &Vec<Item>, _| {
            let (a, b, items) = (pair.a.manager.clone(), pair.b.manager.clone(), items.clone());
            bench.wait(async move { to_event(&a, &b, items).await })
        },
    )?;
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

/// The median time from a commit on A to its event on B, in microseconds.
async fn to_event<SA: Storage, SB: Storage>(
    a: &TransactionManager<SA>,
    b: &TransactionManager<SB>,
    items: Vec<Item>,
) -> Result<f64> {
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
    Ok(Spread::of(&times).median)
}

/// The median time of a commit, in microseconds.
async fn to_reply<S: Storage>(manager: &TransactionManager<S>, items: Vec<Item>) -> Result<f64> {
    let mut times = Vec::with_capacity(items.len());
    for item in items {
        let stopwatch = Stopwatch::start();
        manager.commit_shared(item).await?;
        times.push(stopwatch.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::of(&times).median)
}
