//! 64 callers that each commit one record at a time: what group commit is worth.

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

pub(super) const CALLERS: usize = 64;

pub(super) fn run<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    run_as::<H>(bench, Runs::AsTask)
}

pub(super) fn run_in_place<H: HandWritten>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    run_as::<H>(bench, Runs::OnThread)
}

fn run_as<H: HandWritten>(bench: &Bench<'_>, runs: Runs) -> Result<Vec<Row>> {
    let how = if runs == Runs::OnThread { " in place" } else { "" };
    in_every_way::<H>(|ids, commit| {
        let mut stores = Stores::<H>::grown_as(bench, ids, commit, runs)?;
        let (rounds, each, alone) = (bench.amount(25, 7), 20, 50);
        let commits = CALLERS * each;
        let (manager, hand) = (stores.manager(), Arc::clone(&stores.hand));
        let make = || (stores.items.take(alone), stores.items.take(commits));
        let [one, ours, hand, bare] = paired(rounds, make, |work: &(Vec<Item>, Vec<Item>), side| {
            let (alone, items) = work.clone();
            match side {
                0 => {
                    let manager = manager.clone();
                    bench.wait(async move {
                        let (stopwatch, commits) = (Stopwatch::start(), alone.len());
                        for item in alone {
                            manager.commit_shared(item).await?;
                        }
                        Ok(stopwatch.rate(commits))
                    })
                }
                1 => {
                    let manager = manager.clone();
                    bench.wait(together(items, move |item| {
                        let manager = manager.clone();
                        async move {
                            manager.commit_shared(item).await?;
                            Ok(())
                        }
                    }))
                }
                2 => {
                    let hand = Arc::clone(&hand);
                    bench.wait(together(items, move |item| {
                        let hand = Arc::clone(&hand);
                        async move { hand.commit(vec![hand_written::Row::new(&item)?]).await }
                    }))
                }
                _ => {
                    let stopwatch = Stopwatch::start();
                    for group in items.chunks(CALLERS) {
                        stores.bare.commit(&hand_written::Row::all(group)?)?;
                    }
                    Ok(stopwatch.rate(commits))
                }
            }
        })?;
        stores.close(bench)?;
        let rate = |rates: &[f64]| Some(Quantity::Rate(Spread::of(rates).median));
        let row = Row {
            case: format!("{}: {CALLERS} callers, `commit_shared`{how}", H::ENGINE),
            ids: ids.name(),
            commit: commit.to_string(),
            ours: Quantity::Rate(Spread::of(&ours).median),
            beside: rate(&hand),
            bare: rate(&bare),
            figure: Spread::of_ratios(&ours, &hand),
            bar: Some(Bar::AtLeast(0.7)),
        };
        let beside_one = Row {
            case: format!("{}: {CALLERS} callers beside one{how}", H::ENGINE),
            beside: rate(&one),
            bare: None,
            figure: Spread::of_ratios(&ours, &one),
            bar: H::BARS.more.map(|bars| Bar::AtLeast(bars.beside_one)),
            ..row.clone()
        };
        Ok(vec![row, beside_one])
    })
}

/// Deals `items` out to as many tasks as there are callers, and commits them; the rate of all together.
pub(super) async fn together<F>(
    items: Vec<Item>,
    commit: impl Fn(Item) -> F + Clone + Send + 'static,
) -> Result<f64>
where
    F: Future<Output = Result<()>> + Send,
{
    let commits = items.len();
    let shares: Vec<Vec<Item>> = items.chunks(commits / CALLERS).map(<[Item]>::to_vec).collect();
    let stopwatch = Stopwatch::start();
    let callers: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let commit = commit.clone();
            tokio::spawn(async move {
                for item in share {
                    commit(item).await?;
                }
                Ok(())
            })
        })
        .collect();
    for caller in callers {
        let outcome: Result<()> = caller.await?;
        outcome?;
    }
    Ok(stopwatch.rate(commits))
}
