//! Reading one record, and 1,000 records at once.

use std::hint::black_box;

use syncline::{TransactionManager, Uuid};
use tempfile::TempDir;

use super::Bench;
use super::stores::BATCH;
use crate::Result;
use crate::hand_written::{self, CACHE_BYTES, HandWritten};
use crate::item::{Ids, Item, Items, copy_out_and_decode, decode_in_place};
use crate::ours::{Ours, commit_batch};
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (records, rounds, reads) =
        (bench.amount(100_000, 20_000), bench.amount(15, 5), bench.amount(20_000, 5_000));
    let mut rows = Vec::new();
    for ids in Ids::ALL {
        eprintln!("  ids {}", ids.name());
        let dir = TempDir::with_prefix_in("reads-", bench.dir)?;
        let (ours, hand, all) = grown::<H>(bench, dir.path(), ids, records)?;
        let mut random = fastrand::Rng::with_seed(2);
        let mut some = || -> Vec<Uuid> {
            let id = |_| all.get(random.usize(..all.len())).copied().unwrap_or_default();
            (0..reads).map(id).collect()
        };
        let one = paired(rounds, &mut some, |ids, side| match side {
            0 => {
                let (manager, ids) = (ours.manager.clone(), ids.clone());
                bench.wait(async move { get_each(&manager, &ids).await })
            }
            1 => get_each_by_hand(&hand, ids, copy_out_and_decode),
            _ => get_each_by_hand(&hand, ids, decode_in_place),
        })?;
        let many = paired(rounds, some, |ids, side| match side {
            0 => {
                let (manager, ids) = (ours.manager.clone(), ids.clone());
                bench.wait(async move { get_many(&manager, &ids).await })
            }
            1 => get_many_by_hand(&hand, ids, copy_out_and_decode),
            _ => get_many_by_hand(&hand, ids, decode_in_place),
        })?;
        let bars = H::BARS.reads;
        for (case, [ours, hand, in_place], bar) in [
            ("`get`", one, bars.map(|bars| bars.get)),
            ("`get_many` of 1,000", many, bars.map(|bars| bars.get_many)),
        ] {
            rows.push(Row {
                case: format!("{}: {case}, of {records} records", H::ENGINE),
                ids: ids.name(),
                commit: String::new(),
                ours: Quantity::Rate(Spread::of(&ours).median),
                beside: Some(Quantity::Rate(Spread::of(&hand).median)),
                bare: Some(Quantity::Rate(Spread::of(&in_place).median)),
                figure: Spread::of_ratios(&ours, &hand),
                bar: bar.map(Bar::AtLeast),
            });
        }
        bench.wait(ours.close())?;
    }
    Ok(rows)
}

fn grown<H: HandWritten>(
    bench: &Bench<'_>,
    dir: &std::path::Path,
    ids: Ids,
    records: usize,
) -> Result<(Ours<H::Storage>, H, Vec<Uuid>)> {
    let commit = H::Commit::default();
    let ours = bench.wait(Ours::open(H::storage(&dir.join("ours"), commit, CACHE_BYTES)?))?;
    let mut hand = H::open(&dir.join("hand"), commit, CACHE_BYTES)?;
    let mut items = Items::new(ids, 1);
    let mut all = Vec::with_capacity(records);
    while all.len() < records {
        let batch = items.take(BATCH);
        all.extend(batch.iter().map(|item| item.id));
        hand.commit(&hand_written::Row::all(&batch)?)?;
        let manager = ours.manager.clone();
        bench.wait(async move { commit_batch(&manager, &batch).await })?;
    }
    Ok((ours, hand, all))
}

async fn get_each<S: syncline::Storage>(manager: &TransactionManager<S>, ids: &[Uuid]) -> Result<f64> {
    let stopwatch = Stopwatch::start();
    for id in ids {
        black_box(manager.get::<Item>(*id).await?.ok_or("a record is missing")?);
    }
    Ok(stopwatch.rate(ids.len()))
}

fn get_each_by_hand<H: HandWritten>(hand: &H, ids: &[Uuid], decode: hand_written::Decode) -> Result<f64> {
    let stopwatch = Stopwatch::start();
    for id in ids {
        black_box(hand.get(*id, decode)?.ok_or("a record is missing")?);
    }
    Ok(stopwatch.rate(ids.len()))
}

async fn get_many<S: syncline::Storage>(manager: &TransactionManager<S>, ids: &[Uuid]) -> Result<f64> {
    let stopwatch = Stopwatch::start();
    for ids in ids.chunks(BATCH) {
        let found = black_box(manager.get_many::<Item>(ids).await?);
        found.iter().all(Option::is_some).then_some(()).ok_or("a record is missing")?;
    }
    Ok(stopwatch.rate(ids.len()))
}

fn get_many_by_hand<H: HandWritten>(hand: &H, ids: &[Uuid], decode: hand_written::Decode) -> Result<f64> {
    let stopwatch = Stopwatch::start();
    for ids in ids.chunks(BATCH) {
        let found = black_box(hand.get_many(ids, decode)?);
        found.iter().all(Option::is_some).then_some(()).ok_or("a record is missing")?;
    }
    Ok(stopwatch.rate(ids.len()))
}
