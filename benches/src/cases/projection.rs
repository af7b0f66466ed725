//! 64 callers that each commit one record at a time, with a projection of it and without one.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use syncline::{BoxError, Native, Projection, RecordId};
use tempfile::TempDir;

use super::commit_many::{CALLERS, together};
use super::{Bench, in_every_way};
use crate::Result;
use crate::hand_written::{CACHE_BYTES, HandWrittenJoin};
use crate::item::{Item, Items};
use crate::ours::{FOUNDER, GROUP, Ours};
use crate::rounds::{Spread, paired};
use crate::table::{Bar, Quantity, Row};

/// A row of the app's for each record.
struct Notes<H>(AtomicU64, PhantomData<fn() -> H>);

impl<H: HandWrittenJoin> Projection<H::Storage> for Notes<H> {
    type Model = Item;
    const NAME: &'static str = "notes";
    const VERSION: u32 = 1;

    fn reset(&self, tx: &Native<'_, H::Storage>) -> std::result::Result<(), BoxError> {
        H::create_notes(tx)
    }

    fn put(&self, tx: &Native<'_, H::Storage>, _: &Item) -> std::result::Result<(), BoxError> {
        H::add_note(tx, self.0.fetch_add(1, Relaxed))
    }

    fn delete(&self, _: &Native<'_, H::Storage>, _: &RecordId<Item>) -> std::result::Result<(), BoxError> {
        Ok(())
    }
}

pub(super) fn run<H: HandWrittenJoin>(bench: &Bench<'_>) -> Result<Vec<Row>> {
    in_every_way::<H>(|ids, commit| {
        let dir = TempDir::with_prefix_in("projection-", bench.dir)?;
        let storage = |name| H::storage(&dir.path().join(name), commit, CACHE_BYTES);
        let (with, without) = (storage("with")?, storage("without")?);
        let with = bench.wait(Ours::start(with, FOUNDER, |builder| {
            builder.found(GROUP).project(Notes::<H>(AtomicU64::new(1), PhantomData))
        }))?;
        let without = bench.wait(Ours::open(without))?;
        let (rounds, each) = (bench.amount(25, 7), 20);
        let mut items = Items::new(ids, 1);
        let make = || items.take(CALLERS * each);
        let [with_one, without_one] = paired(rounds, make, |items: &Vec<Item>, side| {
            let manager = if side == 0 { with.manager.clone() } else { without.manager.clone() };
            bench.wait(together(items.clone(), move |item| {
                let manager = manager.clone();
                async move {
                    manager.commit_shared(item).await?;
                    Ok(())
                }
            }))
        })?;
        bench.wait(with.close())?;
        bench.wait(without.close())?;
        let rate = |rates: &[f64]| Quantity::Rate(Spread::of(rates).median);
        Ok(vec![Row {
            case: format!("{}: {CALLERS} callers, with a projection beside without", H::ENGINE),
            ids: ids.name(),
            commit: commit.to_string(),
            ours: rate(&with_one),
            beside: Some(rate(&without_one)),
            bare: None,
            figure: Spread::of_ratios(&with_one, &without_one),
            bar: Some(Bar::AtLeast(0.5)),
        }])
    })
}
