//! A replica that was away catches up by log: how fast, also over a long way, and in how much memory.
//!
//! Both replicas are on the engine, so reading the log there is part of the time.

use std::path::Path;
use std::sync::Arc;

use syncline::{Storage, TransactionManager};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::growth::{self, FEW};
use super::list::CHILD_CACHE_BYTES;
use super::receive_live::Put;
use super::stores::BATCH;
use super::{Bench, receive_live};
use crate::counting::Counting;
use crate::hand_written::{self, CACHE_BYTES, HandWritten, Writer};
use crate::item::{Ids, Item, Items};
use crate::ours::{commit_batch, commit_each};
use crate::pair::{A, B, Pair, until_received};
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};
use crate::{Result, memory};

/// So many that the commits of one record share writes, which makes 100,000 of them quick.
const CALLERS: usize = 1000;

/// How A commits.
#[derive(Clone, Copy)]
enum Commits {
    OfOne,
    OfMany,
}

impl Commits {
    fn describe(self) -> String {
        match self {
            Self::OfOne => "commits of 1".into(),
            Self::OfMany => format!("commits of {BATCH}"),
        }
    }

    async fn make<S: Storage>(self, manager: &TransactionManager<S>, items: Vec<Item>) -> Result<()> {
        match self {
            Self::OfOne => commit_each(manager, items, CALLERS).await,
            Self::OfMany => {
                for batch in items.chunks(BATCH) {
                    commit_batch(manager, batch).await?;
                }
                Ok(())
            }
        }
    }
}

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (records, rounds, ids, commit) =
        (bench.amount(100_000, 20_000), bench.amount(5, 3), Ids::Random, H::Commit::default());
    let mut rows = Vec::new();
    for commits in [Commits::OfOne, Commits::OfMany] {
        eprintln!("  {records} records in {}", commits.describe());
        let (mut items, mut at_once) = (Items::new(ids, 1), 1);
        // Both sides begin with empty stores in every round, as a replica that has just joined does.
        let [ours, beside] = paired(
            rounds,
            || items.take(records),
            |items: &Vec<Item>, side| {
                let dir = TempDir::with_prefix_in("catch-up-", bench.dir)?;
                if side == 0 {
                    let storage = |name| H::storage(&dir.path().join(name), commit, CACHE_BYTES);
                    let (to_b, writes) = Counting::new(storage("b")?);
                    let (to_a, items) = (storage("a")?, items.clone());
                    let (rate, wrote) = bench.wait(async move {
                        let pair = Pair::open(to_a, to_b).await?;
                        pair.network.disconnect(A, B);
                        commits.make(&pair.a.manager, items).await?;
                        let before = writes.count();
                        let stopwatch = Stopwatch::start();
                        catch_up(&pair).await?;
                        let rate = stopwatch.rate(records);
                        pair.close().await?;
                        Ok((rate, writes.count() - before))
                    })?;
                    at_once = records.div_ceil(wrote.max(1));
                    return Ok(rate);
                }
                let hand = Writer::start(H::open(&dir.path().join("hand"), commit, CACHE_BYTES)?);
                let hand = Arc::new(hand);
                receive_live::apply(bench, &hand, hand_written::Row::all(items)?, at_once, Put::WithLog)
            },
        )?;
        eprintln!("  {at_once} records a write");
        rows.push(Row {
            case: format!("{}: catch-up of {records}, {}", H::ENGINE, commits.describe()),
            ids: ids.name(),
            commit: commit.to_string(),
            ours: Quantity::Rate(Spread::of(&ours).median),
            beside: Some(Quantity::Rate(Spread::of(&beside).median)),
            bare: None,
            figure: Spread::of_ratios(&ours, &beside),
            bar: Some(receive_live::BAR),
        });
    }
    Ok(rows)
}

/// Connects both replicas and waits until B has what A has.
pub(super) async fn catch_up<SA: Storage, SB: Storage>(pair: &Pair<SA, SB>) -> Result<()> {
    let all = pair.a.manager.status().await?.commits;
    let (b, mut events) = (&pair.b.manager, pair.b.manager.events());
    pair.network.connect(A, B);
    until_received(b, &mut events, all).await?;
    let missing = b.status().await?.peers.iter().map(|peer| peer.missing).max();
    if missing == Some(0) { Ok(()) } else { Err(format!("missing after all: {missing:?}").into()) }
}

/// The round trip of a long way.
const FAR_MS: u64 = 200;

/// How much of the rate must be left over a long way.
const FAR_BAR: f64 = 0.6;

/// Measures a catch-up over a long way beside one over none.
pub(super) fn run_far<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (records, rounds) = (bench.amount(1_000_000, 100_000), bench.amount(3, 1));
    let (ids, commit) = (Ids::Random, H::Commit::default());
    let mut items = Items::new(ids, 1);
    let [far, near] = paired(
        rounds,
        || items.take(records),
        |items: &Vec<Item>, side| {
            let dir = TempDir::with_prefix_in("catch-up-", bench.dir)?;
            let [a, b] = storages::<H>(dir.path(), CACHE_BYTES)?;
            let items = items.clone();
            bench.wait(async move {
                let pair = Pair::open(a, b).await?;
                pair.network.disconnect(A, B);
                Commits::OfOne.make(&pair.a.manager, items).await?;
                if side == 0 {
                    pair.is_far(FAR_MS);
                }
                let stopwatch = Stopwatch::start();
                catch_up(&pair).await?;
                let rate = stopwatch.rate(records);
                pair.close().await?;
                Ok(rate)
            })
        },
    )?;
    Ok(vec![Row {
        case: format!("{}: catch-up of {records}, round trip of {FAR_MS} ms", H::ENGINE),
        ids: ids.name(),
        commit: commit.to_string(),
        ours: Quantity::Rate(Spread::of(&far).median),
        beside: Some(Quantity::Rate(Spread::of(&near).median)),
        bare: None,
        figure: Spread::of_ratios(&far, &near),
        bar: Some(Bar::AtLeast(FAR_BAR)),
    }])
}

/// Measures how much both replicas grow, in one process.
pub(super) fn run_memory<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (many, most) = (bench.amount(100_000, 20_000), bench.amount(1_000_000, 100_000));
    let Some(few) = peak_mib::<H>(bench, FEW, Commits::OfOne, 0)? else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    for (records, commits, far_ms) in [
        (many, Commits::OfOne, 0),
        (many, Commits::OfMany, 0),
        (most, Commits::OfOne, 0),
        (most, Commits::OfMany, 0),
        (most, Commits::OfOne, FAR_MS),
    ] {
        let what = format!("{}, round trip of {far_ms} ms", commits.describe());
        eprintln!("  {records} records in {what}");
        let peak = peak_mib::<H>(bench, records, commits, far_ms)?.unwrap_or(f64::NAN);
        rows.push(growth::row::<H>(&format!("memory of catch-up of {records}, {what}"), peak, few));
    }
    Ok(rows)
}

/// The peak memory of a process in which B catches up with `records`; `None` where it cannot be told.
fn peak_mib<H: HandWritten>(
    bench: &Bench<'_>,
    records: usize,
    commits: Commits,
    far_ms: u64,
) -> Result<Option<f64>> {
    let dir = TempDir::with_prefix_in("catch-up-", bench.dir)?;
    let [a, b] = storages::<H>(dir.path(), CACHE_BYTES)?;
    bench.wait(async move {
        let pair = Pair::open(a, b).await?;
        pair.network.disconnect(A, B);
        let mut items = Items::new(Ids::Random, 1);
        for _ in 0..records / FEW {
            commits.make(&pair.a.manager, items.take(FEW)).await?;
        }
        pair.close().await
    })?;
    let path = dir.path().to_str().ok_or("the path is no text")?;
    memory::peak_mib_of_child(&[IN_CHILD, H::ENGINE, path, &far_ms.to_string()])
}

fn storages<H: HandWritten>(dir: &Path, cache_bytes: usize) -> Result<[H::Storage; 2]> {
    let storage = |name| H::storage(&dir.join(name), H::Commit::default(), cache_bytes);
    Ok([storage("a")?, storage("b")?])
}

/// The argument that makes a process of this binary catch up and print its peak memory.
pub(super) const IN_CHILD: &str = "--catch-up-in-child";

/// Opens both stores in the child, and catches up.
pub(super) fn in_child<H: HandWritten>(runtime: &Runtime, dir: &Path, far_ms: u64) -> Result<()> {
    let [a, b] = storages::<H>(dir, CHILD_CACHE_BYTES)?;
    let catching_up = async move {
        let pair = Pair::open_apart(a, b).await?;
        if far_ms > 0 {
            pair.is_far(far_ms);
        }
        catch_up(&pair).await?;
        pair.close().await
    };
    runtime.block_on(async { tokio::spawn(catching_up).await? })?;
    memory::print_peak();
    Ok(())
}
