//! Bytes on the wire for a change, beside its value: the frames from the one who commits to the one who receives.
//!
//! The acknowledgements that go back are shared by all commits of some milliseconds.

use syncline_backends::MemoryStorage;

use super::Bench;
use super::stores::BATCH;
use crate::Result;
use crate::item::{self, Ids, Items};
use crate::ours::commit_batch;
use crate::pair::{A, B, Pair, until_received};
use crate::rounds::Spread;
use crate::table::{Bar, Quantity, Row};

pub(super) fn run(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let row = |at_once: usize, bar| {
        let (commits, ids) = (100, Ids::Random);
        let (total, value) = bench.wait(async move {
            let pair = Pair::open(MemoryStorage::new(), MemoryStorage::new()).await?;
            let (a, b) = (&pair.a.manager, &pair.b.manager);
            let (mut events, mut items) = (b.events(), Items::new(ids, 1));
            let (mut values, before) = (0, a.status().await?.commits);
            pair.network.reset_traffic();
            for commit in 1..=commits {
                let batch = items.take(at_once);
                for item in &batch {
                    values += item::encode(item)?.len();
                }
                commit_batch(a, &batch).await?;
                until_received(b, &mut events, before + commit).await?;
            }
            let sent = pair.network.traffic(A, B).sent_bytes;
            pair.close().await?;
            let changes = commits as f64 * at_once as f64;
            Ok((sent as f64 / changes, values as f64 / changes))
        })?;
        Ok(Row {
            case: format!("wire bytes a change over its value, {at_once} a commit"),
            ids: ids.name(),
            commit: String::new(),
            ours: Quantity::Bytes(total),
            beside: Some(Quantity::Bytes(value)),
            bare: None,
            figure: Spread::once(total - value),
            bar: Some(Bar::BelowBytes(bar)),
        })
    };
    [row(1, 85.), row(BATCH, 25.)].into_iter().collect()
}
