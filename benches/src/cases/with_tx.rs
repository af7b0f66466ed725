//! One statement of the app's and one record, in one native transaction.

use std::sync::Arc;

use syncline::{JoinStorage, TransactionManager};

use super::stores::Stores;
use super::{Bench, in_every_way};
use crate::Result;
use crate::hand_written::{self, HandWrittenJoin};
use crate::item::Item;
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};

/// What is asked of every engine that can do it.
const BAR: Bar = Bar::AtLeast(0.8);

pub(super) fn run<H: HandWrittenJoin>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    in_every_way::<H>(|ids, commit| {
        let mut stores = Stores::<H>::grown(bench, ids, commit)?;
        let (rounds, commits) = (bench.amount(25, 9), bench.amount(100, 50));
        let (manager, hand) = (stores.manager(), Arc::clone(&stores.hand));
        {
            let (manager, hand) = (manager.clone(), Arc::clone(&hand));
            bench.wait(async move {
                manager.with_tx(|tx| H::create_notes(tx.native())).await?;
                hand.run(|hand| hand.join(&[], H::create_notes)).await
            })?;
            stores.bare.join(&[], H::create_notes)?;
        }
        let mut notes = 0;
        let work = || {
            notes += commits as u64;
            (notes, stores.items.take(commits))
        };
        let [ours, hand, bare] = paired(rounds, work, |(notes, items): &(u64, Vec<Item>), side| {
            let (notes, items) = (*notes.., items.clone());
            match side {
                0 => {
                    let manager = manager.clone();
                    bench.wait(async move {
                        let stopwatch = Stopwatch::start();
                        for (note, item) in notes.zip(items) {
                            join::<H, _>(&manager, note, item).await?;
                        }
                        Ok(stopwatch.rate(commits))
                    })
                }
                1 => {
                    let hand = Arc::clone(&hand);
                    bench.wait(async move {
                        let stopwatch = Stopwatch::start();
                        for (note, item) in notes.zip(items) {
                            hand.run(move |hand| {
                                let row = hand_written::Row::new(&item)?;
                                hand.join(&[row], |tx| H::add_note(tx, note))
                            })
                            .await?;
                        }
                        Ok(stopwatch.rate(commits))
                    })
                }
                _ => {
                    let stopwatch = Stopwatch::start();
                    for (note, item) in notes.zip(&items) {
                        stores.bare.join(&[hand_written::Row::new(item)?], |tx| H::add_note(tx, note))?;
                    }
                    Ok(stopwatch.rate(commits))
                }
            }
        })?;
        stores.close(bench)?;
        Ok(vec![Row {
            case: format!("{}: one caller, `with_tx`", H::ENGINE),
            ids: ids.name(),
            commit: commit.to_string(),
            ours: Quantity::Rate(Spread::of(&ours).median),
            beside: Some(Quantity::Rate(Spread::of(&hand).median)),
            bare: Some(Quantity::Rate(Spread::of(&bare).median)),
            figure: Spread::of_ratios(&ours, &hand),
            bar: Some(BAR),
        }])
    })
}

async fn join<H, S>(manager: &TransactionManager<S>, note: u64, item: Item) -> Result<()>
where
    H: HandWrittenJoin<Storage = S>,
    S: JoinStorage,
{
    let put = move |tx: &mut syncline::Tx<'_, S::Tx<'_>>| {
        H::add_note(tx.native(), note)?;
        Ok(tx.put(&item)?)
    };
    Ok(manager.with_tx(put).await?)
}
