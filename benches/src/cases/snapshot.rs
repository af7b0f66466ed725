//! A replica takes the records of another one, whose log does not reach back: how fast, in how many bytes, and in how much
//! memory.
//!
//! Both replicas are on the engine, so reading the records there is part of the time. The hand-written rows come in the
//! order of their ids too, and have no log: neither has a snapshot.

use std::path::Path;
use std::sync::Arc;

use syncline::{Limits, Status, Storage};
use syncline_backends::MemoryStorage;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Bench;
use super::growth::{self, FEW};
use super::list::CHILD_CACHE_BYTES;
use super::receive_live::{Put, apply};
use super::stores::BATCH;
use crate::counting::{Counting, Writes};
use crate::group::{Group, until, until_installed, works_alone};
use crate::hand_written::{self, CACHE_BYTES, HandWritten, Writer};
use crate::item::{Ids, Item, Items};
use crate::ours::commit_batch;
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};
use crate::{Result, memory};

/// The founder, which has the records; the replica that takes them; one more member, which makes the founder drop its log.
const A: u8 = 0;
const B: u8 = 1;
const C: u8 = 2;

/// The replica that takes the records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taker {
    /// A joiner without any record: they are put in their places.
    Empty,
    /// A member that has half of them, and was away: they are staged, switched to and folded.
    Others,
}

impl Taker {
    const ALL: [Self; 2] = [Self::Empty, Self::Others];

    const fn name(self) -> &'static str {
        match self {
            Self::Empty => "an empty joiner",
            Self::Others => "a member that has half of them",
        }
    }

    const fn bar(self) -> f64 {
        match self {
            Self::Empty => 0.7,
            Self::Others => 0.35,
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|taker| taker.name() == name)
    }

    /// The records of a snapshot that brings so many new ones: those that are here come with it again.
    const fn all(self, records: usize) -> usize {
        match self {
            Self::Empty => records,
            Self::Others => 2 * records,
        }
    }
}

/// A snapshot that was taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// The rate of its records, until they could be read, and until all were folded.
    readable: f64,
    folded: f64,
    /// The writes until they could be read.
    writes: usize,
    /// The bytes that A sent, and those of the records, with their keys.
    sent: u64,
    bytes: u64,
}

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (records, rounds) = (bench.amount(100_000, 20_000), bench.amount(5, 3));
    let (ids, commit) = (Ids::Random, H::Commit::default());
    let mut rows = Vec::new();
    for taker in Taker::ALL {
        eprintln!("  {records} records into {}", taker.name());
        let mut taken: Vec<Taken> = Vec::new();
        let mut items = Items::new(ids, 1);
        let [folded, beside] = paired(
            rounds,
            || [items.take(records), items.take(records)],
            |[new, others]: &[Vec<Item>; 2], side| {
                let dir = TempDir::with_prefix_in("snapshot-", bench.dir)?;
                if side == 0 {
                    let storage = |name| H::storage(&dir.path().join(name), commit, CACHE_BYTES);
                    let batches =
                        |items: &[Item]| -> Vec<_> { items.chunks(BATCH).map(<[Item]>::to_vec).collect() };
                    let (others, new) = (batches(others), batches(new));
                    ready(bench, storage, taker, others.into_iter(), new.into_iter(), records)?;
                    let ((b, writes), a) = (Counting::new(storage("b")?), storage("a")?);
                    let this = bench.wait(install(a, b, writes, taker, records))?;
                    taken.push(this);
                    return Ok(this.folded);
                }
                let mut hand = H::open(&dir.path().join("hand"), commit, CACHE_BYTES)?;
                if taker == Taker::Others {
                    for batch in sorted(others)?.chunks(BATCH) {
                        hand.commit_rows_alone(batch)?;
                    }
                }
                let all = if taker == Taker::Others { [&others[..], &new[..]].concat() } else { new.clone() };
                let rows = sorted(&all)?;
                let writes = taken.last().map_or(1, |taken| taken.writes);
                let at_once = rows.len().div_ceil(writes.max(1));
                apply(bench, &Arc::new(Writer::start(hand)), rows, at_once, Put::Alone)
            },
        )?;
        let counted = || taken.iter().skip(1);
        let readable: Vec<_> = counted().map(|taken| taken.readable).collect();
        let writes = counted().map(|taken| taken.writes).max().unwrap_or_default();
        eprintln!("  {} records a write", taker.all(records).div_ceil(writes.max(1)));
        let row = |case: String, ours, beside, figure, bar| Row {
            case: format!("{}: {case}", H::ENGINE),
            ids: ids.name(),
            commit: commit.to_string(),
            ours,
            beside: Some(beside),
            bare: None,
            figure,
            bar,
        };
        let rate = |rates: &[f64]| Quantity::Rate(Spread::of(rates).median);
        let case = format!("snapshot of {} into {}", taker.all(records), taker.name());
        let (figure, bar) = (Spread::of_ratios(&folded, &beside), Bar::AtLeast(taker.bar()));
        rows.push(row(case.clone(), rate(&folded), rate(&beside), figure, Some(bar)));
        if taker == Taker::Others {
            let figure = Spread::of_ratios(&readable, &beside);
            rows.push(row(case + ", until it is readable", rate(&readable), rate(&beside), figure, None));
        }
        let a_record = |bytes: fn(&Taken) -> u64| -> Vec<_> {
            counted().map(|taken| bytes(taken) as f64 / taker.all(records) as f64).collect()
        };
        let (sent, held) = (a_record(|taken| taken.sent), a_record(|taken| taken.bytes));
        let bytes = |bytes: &[f64]| Quantity::Bytes(Spread::of(bytes).median);
        let case = format!("bytes sent for a record of a snapshot into {}", taker.name());
        let (figure, bar) = (Spread::of_ratios(&sent, &held), Bar::AtMost(SENT));
        rows.push(row(case, bytes(&sent), bytes(&held), figure, Some(bar)));
    }
    Ok(rows)
}

/// How many bytes may be sent for each byte of the records and their keys, which no compression makes shorter here.
const SENT: f64 = 1.1;

/// The rows of `items`, by id.
fn sorted(items: &[Item]) -> Result<Vec<hand_written::Row>> {
    let mut rows = hand_written::Row::all(items)?;
    rows.sort_by_key(|row| row.id);
    Ok(rows)
}

/// Makes the stores `a` and `b`: A has more than B, and has no log of it.
fn ready<S: Storage>(
    bench: &Bench<'_>,
    storage: impl Fn(&'static str) -> Result<S>,
    taker: Taker,
    others: impl Iterator<Item = Vec<Item>> + Send + 'static,
    new: impl Iterator<Item = Vec<Item>> + Send + 'static,
    records: usize,
) -> Result<()> {
    if taker == Taker::Empty {
        return bench.wait(works_alone(storage("a")?, new));
    }
    bench.wait(works_alone(storage("a")?, others))?;
    let (a, b) = (storage("a")?, storage("b")?);
    bench.wait(async move {
        let group = Group::default();
        // An own commit stays until a peer has it, and then goes, though B lacks it.
        let limits = Limits { retain_entries_max: 0, ..Limits::default() };
        let a = group.founder(a, |builder| builder.limits(limits)).await?;
        let b = group.joins(b, B, (&a, A)).await?;
        let had = a.manager.status().await?.commits;
        // As long as B is not known to have the snapshot, the log behind it is kept for B.
        let has = |status: &Status| status.peers.iter().any(|peer| peer.acknowledged >= had);
        until(&a.manager, "the joiner has acknowledged all", has).await?;
        b.close().await?;
        let c = group.joins(MemoryStorage::new(), C, (&a, A)).await?;
        // Small commits: fewer than 64 entries are pruned only after a minute.
        let at_once = (records / 200).clamp(1, BATCH / 10);
        for batch in new {
            for few in batch.chunks(at_once) {
                commit_batch(&a.manager, few).await?;
            }
        }
        let is_pruned = |status: &Status| status.pruned > had;
        until(&a.manager, &format!("a log of {records} is pruned"), is_pruned).await?;
        c.close().await?;
        a.close().await
    })
}

/// Opens both stores, connects them, and waits until B has all that A has.
async fn install<SA: Storage, SB: Storage>(
    a: SA,
    b: SB,
    writes: Writes,
    taker: Taker,
    records: usize,
) -> Result<Taken> {
    let group = Group::default();
    group.disconnect(A, B);
    let a = group.founder(a, |builder| builder).await?;
    let b = group.joiner(b, B, A).await?;
    let mut events = b.manager.events();
    if taker == Taker::Empty {
        group.connect(A, B);
        a.manager.add_member(Group::id(B)).await?;
    }
    group.network.reset_traffic();
    let (before, stopwatch) = (writes.count(), Stopwatch::start());
    if taker == Taker::Others {
        group.connect(A, B);
    }
    let bytes = until_installed(&b.manager, &mut events, taker.all(records)).await?;
    let (readable, wrote) = (stopwatch.rate(taker.all(records)), writes.count() - before);
    until(&b.manager, "it is folded", |status| status.installing.is_none()).await?;
    let folded = stopwatch.rate(taker.all(records));
    let sent = group.sent_bytes(A, B);
    let status = b.manager.status().await?;
    a.close().await?;
    b.close().await?;
    if status.joining.is_some() || status.peers.iter().any(|peer| peer.missing > 0) {
        return Err(format!("something is missing after all: {status:?}").into());
    }
    Ok(Taken { readable, folded, writes: wrote, sent, bytes })
}

// --- memory -----------------------------------------------------------------------------------------------------------

/// Measures how much both replicas grow, in one process.
pub(super) fn run_memory<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (many, most) = (bench.amount(100_000, 20_000), bench.amount(1_000_000, 100_000));
    let mut rows = Vec::new();
    for taker in Taker::ALL {
        let Some(few) = peak_mib::<H>(bench, FEW, taker)? else { return Ok(Vec::new()) };
        for records in [many, most] {
            eprintln!("  {records} records into {}", taker.name());
            let peak = peak_mib::<H>(bench, records, taker)?.unwrap_or(f64::NAN);
            eprintln!("  {peak:.1} MiB, and {few:.1} MiB for {FEW}");
            let case = format!("memory of a snapshot of {records} into {}", taker.name());
            rows.push(growth::row::<H>(&case, peak, few));
        }
    }
    Ok(rows)
}

/// The peak memory of a process in which B takes a snapshot of `records`; `None` where it cannot be told.
fn peak_mib<H: HandWritten>(bench: &Bench<'_>, records: usize, taker: Taker) -> Result<Option<f64>> {
    let dir = TempDir::with_prefix_in("snapshot-", bench.dir)?;
    let batches = |seed| {
        let mut items = Items::new(Ids::Random, seed);
        (0..records.div_ceil(BATCH)).map(move |_| items.take(BATCH))
    };
    ready(bench, |name| storage::<H>(dir.path(), name, CACHE_BYTES), taker, batches(1), batches(2), records)?;
    let path = dir.path().to_str().ok_or("the path is no text")?;
    memory::peak_mib_of_child(&[IN_CHILD, H::ENGINE, path, &records.to_string(), taker.name()])
}

fn storage<H: HandWritten>(dir: &Path, name: &str, cache_bytes: usize) -> Result<H::Storage> {
    H::storage(&dir.join(name), H::Commit::default(), cache_bytes)
}

/// The argument that makes a process of this binary take a snapshot and print its peak memory.
pub(super) const IN_CHILD: &str = "--snapshot-in-child";

/// Opens both stores in the child, and installs the snapshot.
pub(super) fn in_child<H: HandWritten>(
    runtime: &Runtime,
    dir: &Path,
    records: usize,
    taker: &str,
) -> Result<()> {
    let taker = Taker::named(taker).ok_or("no such taker is known")?;
    let a = storage::<H>(dir, "a", CHILD_CACHE_BYTES)?;
    let (b, writes) = Counting::new(storage::<H>(dir, "b", CHILD_CACHE_BYTES)?);
    let installing = async move { install(a, b, writes, taker, records).await };
    runtime.block_on(async { tokio::spawn(installing).await? })?;
    memory::print_peak();
    Ok(())
}
