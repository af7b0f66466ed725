//! A range delete removes its range and nothing else.

use syncline::{KeyRange, WriteBatch};

use super::samples::{
    SWEPT_ENTRIES, filling, long_ranges, long_state, nasty_ranges, nasty_state, replacing, wide_state,
};
use super::subject::{Outcome, Subject};
use super::sweep::Sweep;
use crate::Fixture;
use crate::sorted_map::{self, SortedMap};

/// Goal: every key of the range goes, no other. Method: every range of nasty bounds against a sorted map, then long keys
/// and bounds, deleted in ranges and one by one; then a range larger than a page, and one under a broken medium.
///
/// # Panics
/// If the store breaks the property.
pub async fn delete_range_stays_inside<F: Fixture>(fresh: &impl Fn() -> F) {
    const MANY: u32 = 12_000;

    let fixture = &fresh();
    let subject = Subject::open("delete_range_stays_inside", fixture).await;
    let state = nasty_state();
    for range in nasty_ranges() {
        let step = format!("deleting {}", sorted_map::show_range(&range));
        subject.write(&step, replacing(&state)).await;
        let mut batch = WriteBatch::new();
        batch.delete_range(range);
        let expected = sorted_map::after(&state, &batch);
        subject.write(&step, batch).await;
        subject.expect(&step, &expected).await;
    }

    long_bounds_are_kept(&subject).await;

    subject.write("storing some keys", replacing(&state)).await;
    let many = (0..MANY).map(|number| ([&b"many/"[..], &number.to_be_bytes()].concat(), b"value".to_vec()));
    subject.fill("storing many keys", many).await;
    let mut batch = WriteBatch::new();
    batch.delete_range(KeyRange::prefix(*b"many/"));
    subject.write("deleting many keys", batch).await;
    subject.expect("deleting many keys", &state).await;
    failed_deletes_are_whole(subject).await;
}

/// A store that must read what it deletes may not be able to. Then nothing is deleted, or all.
async fn failed_deletes_are_whole<F: Fixture>(mut subject: Subject<'_, F>) {
    let state = wide_state(SWEPT_ENTRIES);
    let mut sweep = Sweep::of(subject.fixture());
    while let Some(fault) = sweep.next_fault() {
        let step = format!("deleting everything under {fault}");
        subject.write(&step, replacing(&state)).await;
        let mut batch = WriteBatch::new();
        batch.delete_range(KeyRange::all());
        // Reopen it before: a store that has what it wrote in memory reads its medium only then.
        subject.reopen(&step).await;
        subject.break_medium(fault);
        let outcome = subject.try_write(batch).await;
        subject.mend_medium();
        subject.reopen(&step).await;
        subject
            .expect_either(format_args!("{step}, which ended with {outcome}"), &state, &SortedMap::new())
            .await;
        sweep.went_well(outcome == Outcome::Ok);
    }
}

async fn long_bounds_are_kept<F: Fixture>(subject: &Subject<'_, F>) {
    let longest = subject.must_keep().key_bytes;
    let state = long_state(longest);
    subject.write("storing long keys", replacing(&state)).await;
    for range in long_ranges(longest) {
        let fits = range.end.as_ref().is_none_or(|end| end.len() <= longest);
        let deleted = sorted_map::scan(&state, &range, usize::MAX);
        // A range that no key lies in is tried too, but not each of them: they are alike.
        if !fits || deleted.is_empty() && range.start.len() != longest {
            continue;
        }
        let step = format!("deleting long keys, {}", sorted_map::show_range(&range));
        let mut batch = WriteBatch::new();
        batch.delete_range(range);
        let expected = sorted_map::after(&state, &batch);
        subject.write(&step, batch).await;
        subject.expect(&step, &expected).await;
        subject
            .write(format_args!("{step}, storing them again"), filling(&sorted_map::from_entries(deleted)))
            .await;
    }
    for (key, value) in state.iter().step_by(3) {
        let step = format!("deleting the long key {}", sorted_map::bytes(key));
        let mut batch = WriteBatch::new();
        batch.delete(key.clone());
        let expected = sorted_map::after(&state, &batch);
        subject.write(&step, batch).await;
        subject.expect(&step, &expected).await;
        subject.fill(format_args!("{step}, storing it again"), [(key.clone(), value.clone())]).await;
    }
    subject.expect("after deleting long keys, all stored again", &state).await;
}
