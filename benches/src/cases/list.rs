//! Listing all records: how fast, and in how much memory.

use std::hint::black_box;
use std::path::Path;

use syncline::{Storage, TransactionManager, Uuid};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Bench;
use crate::hand_written::{self, CACHE_BYTES, HandWritten};
use crate::item::{Ids, Item, Items};
use crate::ours::{Ours, commit_batch};
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};
use crate::{Result, memory};

/// As many as a commit may have, so that the stores grow quickly: how they grew hardly matters here.
const BATCH: usize = 10_000;

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (records, rounds) = (bench.amount(1_000_000, 100_000), 5);
    let mut rows = Vec::new();
    for ids in Ids::ALL {
        eprintln!("  {records} records, ids {}", ids.name());
        let dir = TempDir::with_prefix_in("lists-", bench.dir)?;
        let (path, commit) = (dir.path().join("ours"), H::Commit::default());
        let ours = bench.wait(Ours::open(H::storage(&path, commit, CACHE_BYTES)?))?;
        let mut hand = H::open(&dir.path().join("hand"), commit, CACHE_BYTES)?;
        let mut items = Items::new(ids, 1);
        for _ in 0..records / BATCH {
            let batch = items.take(BATCH);
            let mut rows = hand_written::Row::all(&batch)?;
            rows.sort_by_key(|row| row.id);
            hand.commit_rows_alone(&rows)?;
            let manager = ours.manager.clone();
            bench.wait(async move { commit_batch(&manager, &batch).await })?;
        }
        let [listed, paged, scanned] = paired(
            rounds,
            || (),
            |(), side| match side {
                0 => {
                    let manager = ours.manager.clone();
                    bench.wait(async move {
                        let stopwatch = Stopwatch::start();
                        list(&manager, records).await?;
                        Ok(stopwatch.rate(records))
                    })
                }
                1 => page_by_page(&hand, records),
                _ => scan(&hand, records),
            },
        )?;
        bench.wait(ours.close())?;
        let rate = Row {
            case: format!("{}: `list` of {records}", H::ENGINE),
            ids: ids.name(),
            commit: String::new(),
            ours: Quantity::Rate(Spread::of(&listed).median),
            beside: Some(Quantity::Rate(Spread::of(&paged).median)),
            bare: Some(Quantity::Rate(Spread::of(&scanned).median)),
            figure: Spread::of_ratios(&listed, &paged),
            bar: H::BARS.reads.map(|bars| Bar::AtLeast(bars.list)),
        };
        rows.push(rate.clone());
        // Without a bar: hand-written pages do not reach one scan either.
        for (pages, all) in [("`list`", &listed), ("hand-written pages", &paged)] {
            rows.push(Row {
                case: format!("{}: {pages}, beside one scan that keeps nothing", H::ENGINE),
                ours: Quantity::Rate(Spread::of(all).median),
                beside: None,
                figure: Spread::of_ratios(all, &scanned),
                bar: None,
                ..rate.clone()
            });
        }
        if peak_mib::<H>(&path, 1)?.is_none() {
            continue;
        }
        let [all, tenth] = paired(
            3,
            || (),
            |(), side| {
                let records = if side == 0 { records } else { records / 10 };
                Ok(peak_mib::<H>(&path, records)?.unwrap_or(f64::NAN))
            },
        )?;
        let growth: Vec<_> = all.iter().zip(&tenth).map(|(all, tenth)| all - tenth).collect();
        rows.push(Row {
            case: format!("{}: memory of `list`, beside a tenth of it", H::ENGINE),
            ours: Quantity::MiB(Spread::of(&all).median),
            beside: Some(Quantity::MiB(Spread::of(&tenth).median)),
            bare: None,
            figure: Spread::of(&growth),
            bar: Some(Bar::BelowMiB(GROWTH_MIB)),
            ..rate
        });
    }
    Ok(rows)
}

/// How much more memory ten times as many records may take: none, but for what the allocator leaves behind in each
/// thread that happened to read a page.
const GROWTH_MIB: f64 = 4.;

async fn list<S: Storage>(manager: &TransactionManager<S>, records: usize) -> Result<()> {
    let (mut pages, mut listed) = (manager.list::<Item>(), 0);
    while listed < records
        && let Some(page) = pages.next_page().await?
    {
        listed += page.len();
        black_box(page);
    }
    if listed < records { Err(format!("{listed} records instead of {records}").into()) } else { Ok(()) }
}

/// As many records as a page of `list` has.
const PAGE: usize = 256;

fn page_by_page<H: HandWritten>(hand: &H, records: usize) -> Result<f64> {
    let (stopwatch, mut listed, mut last) = (Stopwatch::start(), 0, Uuid::nil());
    loop {
        let page = hand.page(last, PAGE)?;
        let Some(item) = page.last() else { break };
        (listed, last) = (listed + page.len(), item.id);
        black_box(page);
    }
    if listed != records {
        return Err(format!("{listed} records instead of {records}").into());
    }
    Ok(stopwatch.rate(records))
}

fn scan<H: HandWritten>(hand: &H, records: usize) -> Result<f64> {
    let (stopwatch, mut scanned) = (Stopwatch::start(), 0);
    hand.scan(|item| {
        black_box(item);
        scanned += 1;
    })?;
    if scanned != records {
        return Err(format!("{scanned} records instead of {records}").into());
    }
    Ok(stopwatch.rate(records))
}

/// The argument that makes a process of this binary list records and print its peak memory.
pub(super) const IN_CHILD: &str = "--list-in-child";

/// So small that it is full long before a tenth of the records is read.
pub(super) const CHILD_CACHE_BYTES: usize = 1 << 20;

/// The peak memory of a process that opens the store and lists `records` of it; `None` where it cannot be told.
fn peak_mib<H: HandWritten>(path: &Path, records: usize) -> Result<Option<f64>> {
    let path = path.to_str().ok_or("the path is no text")?;
    memory::peak_mib_of_child(&[IN_CHILD, H::ENGINE, path, &records.to_string()])
}

/// What the child does.
pub(super) fn in_child<H: HandWritten>(runtime: &Runtime, path: &Path, records: usize) -> Result<()> {
    let storage = H::storage(path, H::Commit::default(), CHILD_CACHE_BYTES)?;
    let listing = async move {
        let ours = Ours::open(storage).await?;
        list(&ours.manager, records).await?;
        ours.close().await
    };
    runtime.block_on(async { tokio::spawn(listing).await? })?;
    memory::print_peak();
    Ok(())
}
