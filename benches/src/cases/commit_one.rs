//! One caller that commits one record at a time.

use std::sync::Arc;

use super::stores::Stores;
use super::{Bench, in_every_way};
use crate::Result;
use crate::hand_written::{self, HandWritten};
use crate::item::Item;
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    in_every_way::<H>(|ids, commit| {
        let mut stores = Stores::<H>::grown(bench, ids, commit)?;
        let (rounds, commits) = (bench.amount(25, 9), bench.amount(100, 50));
        let (manager, hand) = (stores.manager(), Arc::clone(&stores.hand));
        let [ours, hand, bare] = paired(
            rounds,
            || stores.items.take(commits),
            |work: &Vec<Item>, side| {
                let items = work.clone();
                match side {
                    0 => {
                        let manager = manager.clone();
                        bench.wait(async move {
                            let stopwatch = Stopwatch::start();
                            for item in items {
                                manager.commit_shared(item).await?;
                            }
                            Ok(stopwatch.rate(commits))
                        })
                    }
                    1 => {
                        let hand = Arc::clone(&hand);
                        bench.wait(async move {
                            let stopwatch = Stopwatch::start();
                            for item in items {
                                hand.commit(vec![hand_written::Row::new(&item)?]).await?;
                            }
                            Ok(stopwatch.rate(commits))
                        })
                    }
                    _ => {
                        let stopwatch = Stopwatch::start();
                        for item in &items {
                            stores.bare.commit(&[hand_written::Row::new(item)?])?;
                        }
                        Ok(stopwatch.rate(commits))
                    }
                }
            },
        )?;
        stores.close(bench)?;
        Ok(vec![Row {
            case: format!("{}: one caller, `commit_shared`", H::ENGINE),
            ids: ids.name(),
            commit: commit.to_string(),
            ours: Quantity::Rate(Spread::of(&ours).median),
            beside: Some(Quantity::Rate(Spread::of(&hand).median)),
            bare: Some(Quantity::Rate(Spread::of(&bare).median)),
            figure: Spread::of_ratios(&ours, &hand),
            bar: Some(Bar::AtLeast(H::BARS.one)),
        }])
    })
}
