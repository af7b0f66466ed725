//! Bytes on the wire for a change, beside its value: the frames from the one who commits to the one who receives.
//!
//! The acknowledgements that go back are shared by all commits of some milliseconds.

use syncline_backends::MemoryStorage;

use super::Bench;
use super::catch_up::catch_up;
use super::stores::BATCH;
use crate::Result;
use crate::item::{self, Ids, Item, Items};
use crate::ours::commit_batch;
use crate::pair::{A, B, Pair, until_received};
use crate::rounds::Spread;
use crate::table::{Bar, Quantity, Row};

pub(super) fn run(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let rows = [("live", 1, 85.), ("live", BATCH, 25.), ("in pages", 1, 48.)];
    rows.map(|(way, at_once, bar)| {
        let ids = Ids::Random;
        let (total, value) = bench.wait(async move {
            let pair = Pair::open(MemoryStorage::new(), MemoryStorage::new()).await?;
            if way == "live" {
                live(pair, Items::new(ids, 1), at_once).await
            } else {
                in_pages(pair, Items::new(ids, 1)).await
            }
        })?;
        Ok(Row {
            case: format!("wire bytes a change over its value, {at_once} a commit, {way}"),
            ids: ids.name(),
            commit: String::new(),
            ours: Quantity::Bytes(total),
            beside: Some(Quantity::Bytes(value)),
            bare: None,
            figure: Spread::once(total - value),
            bar: Some(Bar::BelowBytes(bar)),
        })
    })
    .into_iter()
    .collect()
}

type Memory = Pair<MemoryStorage, MemoryStorage>;

/// The bytes of a change and of its value where each commit goes out alone.
async fn live(pair: Memory, mut items: Items, at_once: usize) -> Result<(f64, f64)> {
    let (a, b, commits) = (&pair.a.manager, &pair.b.manager, 100);
    let (mut events, mut values, before) = (b.events(), 0, a.status().await?.commits);
    pair.network.reset_traffic();
    for commit in 1..=commits {
        let batch = items.take(at_once);
        values += bytes(&batch)?;
        commit_batch(a, &batch).await?;
        until_received(b, &mut events, before + commit).await?;
    }
    let sent = pair.network.traffic(A, B).sent_bytes;
    pair.close().await?;
    let changes = commits as f64 * at_once as f64;
    Ok((sent as f64 / changes, values as f64 / changes))
}

/// The bytes of a change and of its value where the commits were made while the receiver was away. Pages are compressed,
/// the values with them.
async fn in_pages(pair: Memory, mut items: Items) -> Result<(f64, f64)> {
    let (a, items) = (&pair.a.manager, items.take(10_000));
    let values = bytes(&items)?;
    pair.network.disconnect(A, B);
    for item in &items {
        commit_batch(a, std::slice::from_ref(item)).await?;
    }
    pair.network.reset_traffic();
    catch_up(&pair).await?;
    let sent = pair.network.traffic(A, B).sent_bytes;
    pair.close().await?;
    Ok((sent as f64 / items.len() as f64, values as f64 / items.len() as f64))
}

/// The bytes of the values of `items`.
fn bytes(items: &[Item]) -> Result<usize> {
    items.iter().map(|item| Ok(item::encode(item)?.len())).sum()
}
