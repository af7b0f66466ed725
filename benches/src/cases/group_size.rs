//! Bytes on disk of a group whose members have all commits, and know it of each other: nothing is left of their logs.
//!
//! The author and one of those that receive are on disk, the others in memory. The figure is of the larger store.

use std::path::Path;

use syncline_backends::MemoryStorage;
use tempfile::TempDir;

use super::Bench;
use super::stores::BATCH;
use crate::group::{Group, stream, until};
use crate::hand_written::{self, CACHE_BYTES, HandWritten};
use crate::item::{Ids, Items};
use crate::ours::commit_each;
use crate::rounds::Spread;
use crate::table::{Bar, Quantity, Row};
use crate::{Result, disk};

/// The bytes beside those of a store that only holds the records.
const BAR: Bar = Bar::AtMost(1.25);

/// The members.
const MEMBERS: u8 = 10;
/// The author, and the other one that is on disk.
const A: u8 = 0;
const B: u8 = 1;

/// So many that they share writes, which makes 100,000 commits quick.
const CALLERS: usize = 256;

/// Fewer entries are left: they are not worth a write until half a minute has passed.
const FEW: u64 = 1024;

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (records, ids, commit) = (bench.amount(100_000, 20_000), Ids::Random, H::Commit::default());
    let dir = TempDir::with_prefix_in("group-", bench.dir)?;
    let paths = ["a", "b", "alone"].map(|name| dir.path().join(name));
    let [at_a, at_b, alone] = &paths;
    let items = Items::new(ids, 1).take(records);
    {
        let mut alone = H::open(alone, commit, CACHE_BYTES)?;
        for batch in items.chunks(BATCH) {
            alone.commit_rows_alone(&hand_written::Row::all(batch)?)?;
        }
    }
    let [a, b] = [H::storage(at_a, commit, CACHE_BYTES)?, H::storage(at_b, commit, CACHE_BYTES)?];
    bench.wait(async move {
        let group = Group::default();
        let a = group.founder(a, |builder| builder).await?;
        let b = group.joins(b, B, (&a, A)).await?;
        let mut others = Vec::new();
        for number in B + 1..MEMBERS {
            others.push(group.joins(MemoryStorage::new(), number, (&a, A)).await?);
        }
        commit_each(&a.manager, items, CALLERS).await?;
        let all = a.manager.status().await?.commits;
        let is_pruned = |status: &syncline::Status| {
            let (commits, pruned) = stream(status, A);
            commits >= all && pruned + FEW >= all
        };
        until(&a.manager, "the author has pruned", is_pruned).await?;
        until(&b.manager, "the other one has pruned", is_pruned).await?;
        a.close().await?;
        b.close().await?;
        for other in others {
            other.close().await?;
        }
        Ok(())
    })?;
    let size = |path: &Path| -> Result<f64> { Ok(disk::size(path)? as f64 / records as f64) };
    let [mut as_it_lies, mut compacted] = [[0.; 3]; 2];
    let mut can_compact = true;
    for ((path, lies), compact) in paths.iter().zip(&mut as_it_lies).zip(&mut compacted) {
        *lies = size(path)?;
        can_compact &= H::compact(path)?;
        *compact = size(path)?;
    }
    let row = |what: &str, [a, b, alone]: [f64; 3]| Row {
        case: format!("{}: bytes a record in a group of {MEMBERS}, all acknowledged, {what}", H::ENGINE),
        ids: ids.name(),
        commit: commit.to_string(),
        ours: Quantity::Bytes(a.max(b)),
        beside: Some(Quantity::Bytes(alone)),
        bare: None,
        figure: Spread::once(a.max(b) / alone),
        bar: Some(BAR),
    };
    let mut rows = vec![row("as it lies", as_it_lies)];
    rows.extend(can_compact.then(|| row("compacted", compacted)));
    Ok(rows)
}
