use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::made::{B, Bag, complaint, context};
use super::*;
use crate::model::Registry;
use crate::pages::{PAGE, PAGE_ENTRIES};
use crate::storage::Value;

/// What lies beside records in a store, and the upkeep of an app that can merge bags.
struct World {
    rows: BTreeMap<Key, Value>,
    upkeep: Upkeep,
    context: Context,
    rng: fastrand::Rng,
    /// How many rows each scan found.
    scans: Vec<usize>,
}

fn bag(id: u32) -> RecordKey {
    RecordKey::new::<Bag>(&id)
}

/// The rows beside a record: one value of each length.
fn beside(record: &RecordKey, lengths: &[usize]) -> Vec<(Key, Value)> {
    (1..).zip(lengths).map(|(seq, bytes)| (keys::beside(record, B, seq), vec![7; *bytes])).collect()
}

/// A value so long that four fill a page.
const LONG: usize = FOLD_BYTES_MAX / 4;

impl World {
    fn of(besides: impl IntoIterator<Item = (RecordKey, Vec<usize>)>) -> Self {
        let mut models = Registry::new();
        models.add::<Bag>().unwrap();
        let rows = besides.into_iter().flat_map(|(record, lengths)| beside(&record, &lengths)).collect();
        Self {
            rows,
            upkeep: Upkeep::new(true, false),
            context: Context { models: Arc::new(models), ..context() },
            rng: fastrand::Rng::with_seed(1),
            scans: Vec::new(),
        }
    }

    /// A store with bags from 0 on, beside each of which lie as many small values.
    fn of_bags(records: u32, values: usize) -> Self {
        Self::of((0..records).map(|id| (bag(id), vec![10; values])))
    }

    /// Reads up to the next page; `None` if everything is folded.
    fn page(&mut self) -> Option<Vec<Besides>> {
        loop {
            match self.upkeep.fold_step().expect("it folds") {
                Step::Scan(range) => {
                    let page = ScanPage::of(self.rows.iter().filter(|(key, _)| range.contains(key)), PAGE);
                    self.scans.push(page.entries.len());
                    assert!(self.scans.len() < 1000, "it comes to an end");
                    self.upkeep.take_rows(page, &self.context);
                    self.upkeep.check();
                }
                Step::Read(keys) => {
                    let page = self.upkeep.take_page();
                    let records = page.iter().map(|besides| besides.record.as_bytes().to_vec());
                    assert_eq!(keys, records.collect::<Vec<_>>(), "the records of the page are read");
                    return Some(page);
                }
                Step::Done => return None,
            }
        }
    }

    /// The page could not be read or written, and the pause after that is over.
    fn fail(&mut self) {
        self.upkeep.fold_failed(Mono(0), &mut self.rng);
        let until = self.upkeep.next_timeout().unwrap();
        self.upkeep.expire(until);
    }

    /// The page is durable: nothing of it lies beside its records any more.
    fn folded(&mut self, page: &[Besides]) -> Option<u64> {
        page.iter().flat_map(|besides| &besides.values).for_each(|(key, _)| _ = self.rows.remove(key));
        self.upkeep.decided(page.len(), None);
        self.upkeep.page_is_folded()
    }

    /// Folds everything; says of each page which records it has and whether it has all of each.
    fn fold(&mut self) -> Vec<Vec<(RecordKey, usize, bool)>> {
        std::iter::from_fn(|| {
            let page = self.page()?;
            self.folded(&page);
            Some(content(&page))
        })
        .collect()
    }
}

/// The records of a page, how many values it has of each, and whether these are all.
fn content(page: &[Besides]) -> Vec<(RecordKey, usize, bool)> {
    page.iter().map(|besides| (besides.record.clone(), besides.values.len(), besides.all)).collect()
}

#[test]
fn a_page_has_a_thousand_records_with_all_that_lies_beside_them() {
    for (records, pages) in
        [(1, vec![1]), (1000, vec![1000]), (1001, vec![1000, 1]), (2500, vec![1000, 1000, 500])]
    {
        let mut world = World::of_bags(records, 2);
        let folded = world.fold();
        assert_eq!(folded.iter().map(Vec::len).collect::<Vec<_>>(), pages);
        let all: Vec<_> = folded.into_iter().flatten().collect();
        assert!(all.iter().all(|(_, values, all)| *values == 2 && *all), "{records} records");
        let ids: BTreeSet<_> = all.iter().map(|(record, ..)| record).collect();
        assert_eq!((ids.len(), world.rows.len()), (all.len(), 0), "each of them once");
        assert!(world.scans.iter().all(|rows| *rows <= PAGE_ENTRIES));
        assert_eq!(world.upkeep.end_fold(), u64::from(records));
        assert!(!world.upkeep.is_folding() && world.upkeep.fold_step().is_none());
    }
}

/// One write of a page must stay short, also if each of its values is.
#[test]
fn a_page_has_no_more_values_than_fill_it() {
    let mut world = World::of_bags(3, FOLD_VALUES_MAX / 2);
    let pages: Vec<_> = world.fold().iter().map(Vec::len).collect();
    assert_eq!(pages, [2, 1]);
}

#[test]
fn a_page_has_no_more_bytes_than_fill_it() {
    let mut world = World::of((0..10).map(|id| (bag(id), vec![LONG])));
    let pages: Vec<_> = world.fold().iter().map(Vec::len).collect();
    assert_eq!(pages, [4, 4, 2]);
    let mut world = World::of([(bag(0), vec![2 * FOLD_BYTES_MAX]), (bag(1), vec![10])]);
    assert_eq!(world.fold().len(), 2, "a single value fits always");
}

/// A record whose backlog is cut says so, and only then: a page that is wrong about it leaves the record open for ever,
/// or closed too early.
#[test]
fn a_record_says_that_it_has_more_exactly_if_more_of_it_follows() {
    // The records with how many values lie beside each, and what the pages have of which.
    type Pages = &'static [&'static [(u32, usize, bool)]];
    let cases: [(&[(u32, usize)], Pages); 5] = [
        (&[(0, 4)], &[&[(0, 4, true)]]),
        (&[(0, 5)], &[&[(0, 4, false)], &[(0, 1, true)]]),
        (&[(0, 9)], &[&[(0, 4, false)], &[(0, 4, false)], &[(0, 1, true)]]),
        (&[(0, 4), (1, 1)], &[&[(0, 4, true)], &[(1, 1, true)]]),
        (&[(0, 1), (1, 4)], &[&[(0, 1, true), (1, 3, false)], &[(1, 1, true)]]),
    ];
    for (records, pages) in cases {
        let mut world = World::of(records.iter().map(|(id, values)| (bag(*id), vec![LONG; *values])));
        let expected: Vec<Vec<_>> = pages
            .iter()
            .map(|page| page.iter().map(|(id, values, all)| (bag(*id), *values, *all)).collect())
            .collect();
        assert_eq!(world.fold(), expected, "{records:?}");
    }
}

/// Only the row behind tells, and that may come with another scan.
#[test]
fn a_record_whose_backlog_ends_with_a_scan_is_whole() {
    for (values, pages) in [(PAGE_ENTRIES, 1), (PAGE_ENTRIES + 1, 2)] {
        let mut world = World::of([(bag(0), vec![FOLD_BYTES_MAX / PAGE_ENTRIES; values])]);
        let folded = world.fold();
        assert_eq!(folded.len(), pages);
        assert_eq!(folded[0], [(bag(0), PAGE_ENTRIES, pages == 1)]);
    }
}

/// An app must not read the values of models that it does not know, one by one.
#[test]
fn models_that_the_app_cannot_merge_are_left_out_as_a_whole() {
    let unknown = |n: u32| RecordKey::from_parts("box", None, &n.to_be_bytes());
    // Rows stand in the order of the lengths of their records' keys: of one model some lie before the bags, some behind.
    let short = |n: u32| RecordKey::from_parts("box", None, &n.to_be_bytes()[2..]);
    let long = |n: u32| RecordKey::from_parts("crate", None, &n.to_be_bytes());
    let bags = (0..3).map(bag);
    let others = (0..600).flat_map(|n| [short(n), unknown(n), long(n)]);
    let mut world = World::of(bags.chain(others).map(|record| (record, vec![10])));
    let folded: Vec<_> = world.fold().into_iter().flatten().map(|(record, ..)| record).collect();
    assert_eq!(folded, [bag(0), bag(1), bag(2)]);
    assert!(world.scans.len() <= 5, "{:?} rows", world.scans);
}

#[test]
fn a_row_that_is_damaged_is_left_where_it_lies() {
    let mut world = World::of_bags(3, 1);
    let (key, _) = beside(&bag(1), &[10]).remove(0);
    world.rows.remove(&key);
    let damaged = (0..600_u32).map(|n| [&key[..key.len() - 1], &n.to_be_bytes()].concat());
    world.rows.extend(damaged.map(|key| (key, vec![7])));
    let folded: Vec<_> = world.fold().into_iter().flatten().map(|(record, ..)| record).collect();
    assert_eq!((folded, world.rows.len()), (vec![bag(0), bag(2)], 600));
}

/// What could not be merged lies there still, and must not be looked at for ever.
#[test]
fn what_stays_beside_its_record_is_looked_at_once() {
    let mut world = World::of_bags(1500, 1);
    let mut pages = Vec::new();
    while let Some(page) = world.page() {
        pages.push(page.len());
        world.upkeep.decided(0, None);
        assert_eq!(world.upkeep.page_is_folded(), None, "there is nothing to tell");
    }
    assert_eq!((pages, world.upkeep.end_fold()), (vec![1000, 500], 0));
}

// --- records that a commit waits for --------------------------------------------------------------------------------

#[test]
fn a_record_that_a_commit_waits_for_comes_first_and_once() {
    let mut world = World::of_bags(2500, 1);
    assert!(world.upkeep.hurry([bag(2400), bag(2300)]));
    let page = world.page().unwrap();
    assert_eq!(
        content(&page),
        [(bag(2400), 1, true), (bag(2300), 1, true)],
        "and no others, which it would wait for too"
    );
    world.folded(&page);
    assert!(!world.upkeep.hurry([bag(2400)]), "of what could not be merged, more cannot be had");
    assert!(world.upkeep.hurry([bag(2400), bag(2450)]), "but another one can");
    let page = world.page().unwrap();
    assert_eq!(content(&page), [(bag(2450), 1, true)]);
    world.folded(&page);
    assert!(!world.upkeep.is_urgent());
    world.fold();
    assert_eq!((world.upkeep.end_fold(), world.rows.len()), (2500, 0));
    assert!(!world.upkeep.hurry([bag(3)]), "nobody waits once everything is folded");
}

#[test]
fn a_record_that_is_hurried_comes_first_again_if_its_page_failed() {
    let mut world = World::of_bags(1500, 1);
    world.upkeep.hurry([bag(1400)]);
    for _ in 0..2 {
        assert_eq!(world.page().unwrap()[0].record, bag(1400));
        world.fail();
    }
}

// --- pages that fail ------------------------------------------------------------------------------------------------

#[test]
fn a_page_that_failed_is_folded_again_from_its_beginning_after_a_pause() {
    let mut world = World::of_bags(2500, 1);
    let page = world.page().unwrap();
    assert_eq!(world.folded(&page), Some(1000));
    let failed = content(&world.page().unwrap());
    world.upkeep.decided(failed.len(), None);
    world.upkeep.fold_failed(Mono(0), &mut world.rng);
    assert!(world.upkeep.is_folding() && !world.upkeep.waits(), "a commit waits, for now");
    assert_eq!(world.upkeep.folded(), Some(1000), "what failed is not counted");
    let until = world.upkeep.next_timeout().unwrap();
    world.upkeep.expire(Mono(until.0 - 1));
    assert!(!world.upkeep.waits());
    world.upkeep.expire(until);
    assert!(world.upkeep.is_folding() && world.upkeep.waits() && world.upkeep.next_timeout().is_none());
    let page = world.page().unwrap();
    assert_eq!(content(&page), failed);
    assert_eq!(world.folded(&page), Some(2000));
    world.upkeep.fold_failed(until, &mut world.rng);
    assert!(world.upkeep.next_timeout().unwrap().since(until) < 400, "pauses begin anew after a success");
    world.upkeep.fold_failed(until, &mut world.rng);
    assert!(world.upkeep.is_folding());
    world.upkeep.fold_failed(until, &mut world.rng);
    assert!(!world.upkeep.is_folding(), "nobody waits for what fails again and again");
}

/// It fails also while it is read, when some of its rows are here already.
#[test]
fn a_page_that_is_half_read_begins_anew() {
    let mut world = World::of_bags(600, 1);
    for _ in 0..3 {
        let Some(Step::Scan(range)) = world.upkeep.fold_step() else { panic!("rows are read") };
        let page = ScanPage::of(world.rows.range(range.start..), PAGE);
        world.upkeep.take_rows(page, &world.context);
        world.fail();
    }
    assert_eq!(world.fold().iter().map(Vec::len).collect::<Vec<_>>(), [600]);
}

// --- mending --------------------------------------------------------------------------------------------------------

#[test]
fn projections_are_mended_after_everything_is_folded() {
    for (besides, mends) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut upkeep = Upkeep::new(besides, mends);
        assert_eq!((upkeep.waits(), upkeep.is_folding()), (besides || mends, besides));
        assert_eq!((upkeep.fold_step().is_some(), upkeep.folded()), (besides, besides.then_some(0)));
        assert_eq!((upkeep.end_fold(), upkeep.waits()), (0, mends));
        upkeep.mended(Next::Done, Mono(0), &mut fastrand::Rng::with_seed(1));
        assert!(!upkeep.waits());
        upkeep.check();
    }
}

/// A projection that is filled in a pause of folding would have half-merged records.
#[test]
fn projections_are_not_mended_in_a_pause_of_folding() {
    let (mut upkeep, mut rng) = (Upkeep::new(true, true), fastrand::Rng::with_seed(1));
    for failures in 1..=FAILURES_MAX {
        upkeep.fold_failed(Mono(0), &mut rng);
        assert_eq!(upkeep.waits(), failures == FAILURES_MAX, "after {failures} failures");
    }
}

#[test]
fn mending_that_gets_nothing_done_waits_ever_longer() {
    let (mut upkeep, mut rng) = (Upkeep::new(false, true), fastrand::Rng::with_seed(1));
    let (mut at, mut waits) = (Mono(0), Vec::new());
    for _ in 0..4 {
        assert!(upkeep.waits());
        upkeep.begin_mending();
        // Others may be left to try, at once.
        upkeep.mended(Next::Other, at, &mut rng);
        assert!(upkeep.waits() && upkeep.next_timeout().is_none());
        upkeep.begin_mending();
        upkeep.mended(Next::Later, at, &mut rng);
        assert!(!upkeep.waits());
        let until = upkeep.next_timeout().unwrap();
        waits.push(until.0 - at.0);
        upkeep.expire(Mono(until.0 - 1));
        assert!(!upkeep.waits());
        upkeep.expire(until);
        at = until;
    }
    assert!(waits.is_sorted() && waits[3] >= 1_500, "{waits:?}");
    upkeep.begin_mending();
    upkeep.mended(Next::Again, at, &mut rng);
    upkeep.mended(Next::Later, at, &mut rng);
    assert!(upkeep.next_timeout().unwrap().0 - at.0 < 400, "after a step that got something done");
}

#[test]
fn a_change_gives_mending_one_step_in_its_pause() {
    let (mut upkeep, mut rng) = (Upkeep::new(false, true), fastrand::Rng::with_seed(1));
    upkeep.begin_mending();
    upkeep.mended(Next::Later, Mono(0), &mut rng);
    // Other failures before, so that the pause is longer than a rest.
    for at in [1_000, 10_000, 20_000] {
        upkeep.expire(Mono(at));
        upkeep.begin_mending();
        upkeep.mended(Next::Later, Mono(at), &mut rng);
    }
    let until = upkeep.next_timeout();
    for (at, next) in [(20_001, Next::Later), (20_251, Next::Other)] {
        upkeep.expire(Mono(at));
        upkeep.projected(false);
        assert!(upkeep.waits());
        upkeep.begin_mending();
        upkeep.mended(next, Mono(at), &mut rng);
        assert!(!upkeep.waits(), "after {next:?}");
        assert_eq!(upkeep.next_timeout(), until, "changes may come often: they make the pause no longer");
        // Another change waits until the rest after that step is over.
        upkeep.projected(false);
        assert!(!upkeep.waits());
        assert_eq!(upkeep.next_timeout(), Some(Mono(at + 250)));
    }
    upkeep.expire(Mono(20_501));
    assert!(upkeep.waits());
    // A step that got something done ends the pause.
    upkeep.begin_mending();
    upkeep.mended(Next::Again, Mono(20_501), &mut rng);
    assert!(upkeep.waits() && upkeep.next_timeout().is_none());
}

#[test]
fn a_change_where_nothing_is_owed_mends_nothing_and_a_debt_does() {
    let mut upkeep = Upkeep::new(false, false);
    upkeep.projected(false);
    assert!(!upkeep.waits());
    upkeep.projected(true);
    assert!(upkeep.waits());
}

#[test]
fn the_check_finds_a_page_with_too_many_records() {
    let mut world = World::of_bags(1, 1);
    let fold = world.upkeep.fold.as_mut().unwrap();
    let besides = |id: u32| Besides { record: bag(id), values: Vec::new(), all: true, others: false };
    fold.page = (0..1001).map(besides).collect();
    assert!(complaint(|| world.upkeep.check()).is_some_and(|says| says.contains("1001 records")));
}

/// The values beside one record may be hundreds of the longest ones. No scan has more of them than fill a page, and few
/// are read twice.
#[test]
fn long_values_are_read_a_few_at_a_time() {
    let mut world = World::of([(bag(0), vec![LONG / 2; 200])]);
    while let Some(page) = world.page() {
        world.folded(&page);
    }
    assert!(world.scans.iter().all(|rows| *rows <= 8), "{:?}", world.scans);
    let read: usize = world.scans.iter().sum();
    assert!(read <= 2 * 200, "{read} rows of 200");
}
