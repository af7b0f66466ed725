//! Bytes on disk per record, after many single commits.

use std::path::Path;

use tempfile::TempDir;

use super::Bench;
use super::stores::BATCH;
use crate::hand_written::{self, CACHE_BYTES, HandWritten};
use crate::item::{Ids, Items};
use crate::ours::{Ours, commit_each};
use crate::rounds::Spread;
use crate::table::{Bar, Quantity, Row};
use crate::{Result, disk};

/// So many that they share writes, which makes 100,000 commits quick. Their number leaves the log as it would be
/// with one caller, but for what the last group wrote.
const CALLERS: usize = 256;

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let records = bench.amount(100_000, 20_000);
    let mut rows = Vec::new();
    for ids in Ids::ALL {
        eprintln!("  {records} commits, ids {}", ids.name());
        let dir = TempDir::with_prefix_in("sizes-", bench.dir)?;
        let commit = H::Commit::default();
        let [ours, alone, logged] = ["ours", "alone", "logged"].map(|name| dir.path().join(name));
        let items = Items::new(ids, 1).take(records);
        {
            let mut alone = H::open(&alone, commit, CACHE_BYTES)?;
            let mut logged = H::open(&logged, commit, CACHE_BYTES)?;
            for batch in items.chunks(BATCH) {
                let batch = hand_written::Row::all(batch)?;
                alone.commit_rows_alone(&batch)?;
                logged.commit(&batch)?;
            }
        }
        let storage = H::storage(&ours, commit, CACHE_BYTES)?;
        bench.wait(async move {
            let ours = Ours::open(storage).await?;
            commit_each(&ours.manager, items, CALLERS).await?;
            ours.close().await
        })?;
        let size = |path: &Path| -> Result<f64> { Ok(disk::size(path)? as f64 / records as f64) };
        let paths = [&ours, &alone, &logged];
        let [mut as_it_lies, mut compacted] = [[0.; 3]; 2];
        let mut can_compact = true;
        for ((path, lies), compact) in paths.iter().zip(&mut as_it_lies).zip(&mut compacted) {
            *lies = size(path)?;
            can_compact &= H::compact(path)?;
            *compact = size(path)?;
        }
        for (case, [ours, alone, logged], bar) in [
            ("bytes a record, compacted", compacted, H::BARS.more.map(|bars| Bar::Below(bars.size))),
            ("bytes a record, as it lies", as_it_lies, None),
        ]
        .into_iter()
        .skip(usize::from(!can_compact))
        {
            let row = Row {
                case: format!("{}: {case}, beside the rows alone", H::ENGINE),
                ids: ids.name(),
                commit: String::new(),
                ours: Quantity::Bytes(ours),
                beside: Some(Quantity::Bytes(alone)),
                bare: None,
                figure: Spread::once(ours / alone),
                bar,
            };
            let beside_logged = Row {
                case: format!("{}: {case}, beside hand-written with log", H::ENGINE),
                beside: Some(Quantity::Bytes(logged)),
                figure: Spread::once(ours / logged),
                bar: None,
                ..row.clone()
            };
            rows.extend([row, beside_logged]);
        }
    }
    Ok(rows)
}
