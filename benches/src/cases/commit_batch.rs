//! Batches of 1,000 records, each one commit.

use std::sync::Arc;

use super::stores::{BATCH, Stores};
use super::{Bench, in_every_way};
use crate::Result;
use crate::hand_written::{self, HandWritten};
use crate::item::Item;
use crate::ours::commit_batch;
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    in_every_way::<H>(|ids, commit| {
        let mut stores = Stores::<H>::grown(bench, ids, commit)?;
        let (rounds, records) = (bench.amount(25, 7), 3 * BATCH);
        let (manager, hand) = (stores.manager(), Arc::clone(&stores.hand));
        let [ours, hand, bare] = paired(
            rounds,
            || stores.items.take(records),
            |work: &Vec<Item>, side| {
                let items = work.clone();
                match side {
                    0 => {
                        let manager = manager.clone();
                        bench.wait(async move {
                            let stopwatch = Stopwatch::start();
                            for batch in items.chunks(BATCH) {
                                commit_batch(&manager, batch).await?;
                            }
                            Ok(stopwatch.rate(records))
                        })
                    }
                    1 => {
                        let hand = Arc::clone(&hand);
                        bench.wait(async move {
                            let stopwatch = Stopwatch::start();
                            for batch in items.chunks(BATCH) {
                                hand.commit(hand_written::Row::all(batch)?).await?;
                            }
                            Ok(stopwatch.rate(records))
                        })
                    }
                    _ => {
                        let stopwatch = Stopwatch::start();
                        for batch in items.chunks(BATCH) {
                            stores.bare.commit(&hand_written::Row::all(batch)?)?;
                        }
                        Ok(stopwatch.rate(records))
                    }
                }
            },
        )?;
        stores.close(bench)?;
        Ok(vec![Row {
            case: format!("{}: `commit_batch` of 1,000", H::ENGINE),
            ids: ids.name(),
            commit: commit.to_string(),
            ours: Quantity::Rate(Spread::of(&ours).median),
            beside: Some(Quantity::Rate(Spread::of(&hand).median)),
            bare: Some(Quantity::Rate(Spread::of(&bare).median)),
            figure: Spread::of_ratios(&ours, &hand),
            bar: Some(Bar::AtLeast(H::BARS.batch)),
        }])
    })
}
