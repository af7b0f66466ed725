//! One caller that commits one record at a time.

use std::sync::Arc;

use super::stores::Stores;
use super::{Bench, in_every_way};
use crate::Result;
use crate::hand_written::{self, HandWritten};
use crate::item::Item;
use crate::ours::Runs;
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};

/// The share of the bare store, called in place, that one caller must reach where the driver has a thread of its own.
const IN_PLACE: f64 = 0.8;

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    run_as::<H>(bench, Runs::AsTask)
}

pub(super) fn run_in_place<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    run_as::<H>(bench, Runs::OnThread)
}

fn run_as<H: HandWritten>(bench: &Bench<'_>, runs: Runs) -> Result<Vec<Row>> {
    in_every_way::<H>(|ids, commit| {
        let mut stores = Stores::<H>::grown_as(bench, ids, commit, runs)?;
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
        let (how, figure, least) = match runs {
            Runs::AsTask => ("", Spread::of_ratios(&ours, &hand), H::BARS.one),
            Runs::OnThread => (" in place, beside bare", Spread::of_ratios(&ours, &bare), IN_PLACE),
        };
        Ok(vec![Row {
            case: format!("{}: one caller, `commit_shared`{how}", H::ENGINE),
            ids: ids.name(),
            commit: commit.to_string(),
            ours: Quantity::Rate(Spread::of(&ours).median),
            beside: Some(Quantity::Rate(Spread::of(&hand).median)),
            bare: Some(Quantity::Rate(Spread::of(&bare).median)),
            figure,
            bar: Some(Bar::AtLeast(least)),
        }])
    })
}
