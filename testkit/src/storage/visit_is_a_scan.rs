//! `visit` shows what `scan` returns.

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use syncline::{Entry, KeyRange, ScanLimit, Storage as _};

use super::samples::{
    SWEPT_ENTRIES, WIDE_ENTRIES, filling, long_ranges, long_state, nasty_ranges, nasty_state, numbered_batch,
    replacing, wide_state,
};
use super::subject::{Subject, try_read};
use super::sweep::Sweep;
use crate::sorted_map::{self, SortedMap};
use crate::{Fixture, panic_quietly, watchdog};

/// Goal: a visit is a scan that copies nothing. Method: every range of nasty bounds with several limits, visited and
/// compared with a sorted map, and so with long keys and bounds; visitors that stop at each entry; visitors that panic,
/// after which the store must go on; a broken medium, under which a short visit would pass for a whole one.
///
/// # Panics
/// If the store breaks the property.
pub async fn visit_is_a_scan<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("visit_is_a_scan", fixture).await;
    let mut state = nasty_state();
    subject.write("filling the store", filling(&state)).await;
    for range in nasty_ranges() {
        let all = sorted_map::scan(&state, &range, usize::MAX);
        for limit in [
            ScanLimit::NONE,
            ScanLimit::entries(2),
            ScanLimit { entries: 9, bytes: 20 },
            ScanLimit { bytes: 0, ..ScanLimit::NONE },
        ] {
            let step = format!("{}, {}", sorted_map::show_range(&range), sorted_map::show_limit(limit));
            let (found, more) = visit(&subject, &step, range.clone(), limit, usize::MAX).await;
            let bytes: usize = found.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
            if found.len() > limit.entries || found.len() > 1 && bytes > limit.bytes {
                subject.fail(&step, format_args!("it showed {} entries of {bytes} bytes", found.len()));
            }
            if !all.starts_with(&found) {
                subject.fail(step, format_args!("it showed {}", sorted_map::show(&found)));
            }
            if !more && found.len() < all.len() {
                subject.fail(step, "it said that there is no more");
            }
            if found.is_empty() && !all.is_empty() {
                subject.fail(step, "it showed nothing");
            }
            if found.is_empty() && more {
                subject.fail(step, "it showed nothing and said that there is more");
            }
        }
        for stops_at in 1..=all.len() {
            let step = format!("{}, stopped at entry {stops_at}", sorted_map::show_range(&range));
            let (found, more) = visit(&subject, &step, range.clone(), ScanLimit::NONE, stops_at).await;
            if found.len() > stops_at || !all.starts_with(&found) {
                subject.fail(step, format_args!("it showed {}", sorted_map::show(&found)));
            }
            if !more {
                subject.fail(step, "it said that there is no more, which it cannot know");
            }
        }
    }
    panics_stay_outside(&mut subject, &mut state).await;
    long_bounds_are_kept(&subject).await;
    wide_visits_are_whole(&subject).await;
    failed_visits_say_so(subject).await;
}

/// A visit of some thousand entries.
async fn wide_visits_are_whole<F: Fixture>(subject: &Subject<'_, F>) {
    let state = wide_state(WIDE_ENTRIES);
    subject.write("deleting everything", replacing(&SortedMap::new())).await;
    subject.fill("storing many entries", state.clone()).await;
    let expected = sorted_map::scan(&state, &KeyRange::all(), usize::MAX);
    let (found, more) = visit_all(subject, "many entries").await;
    if !expected.starts_with(&found) || !more && found.len() < expected.len() {
        let at = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        subject.fail("many entries", format_args!("it showed {} entries, wrong from {at:?} on", found.len()));
    }
}

async fn long_bounds_are_kept<F: Fixture>(subject: &Subject<'_, F>) {
    let longest = subject.must_keep().key_bytes;
    let state = long_state(longest);
    subject.write("storing long keys", replacing(&state)).await;
    for range in long_ranges(longest) {
        let step = format!("long keys, {}", sorted_map::show_range(&range));
        let expected = sorted_map::scan(&state, &range, usize::MAX);
        let (found, more) = visit(subject, &step, range, ScanLimit::NONE, usize::MAX).await;
        if !more && found != expected || !expected.starts_with(&found) {
            let [found, expected] = [found, expected].map(|entries| sorted_map::show(&entries));
            subject.fail(step, format_args!("it showed {found}, expected {expected}"));
        }
    }
}

async fn failed_visits_say_so<F: Fixture>(mut subject: Subject<'_, F>) {
    let state = wide_state(SWEPT_ENTRIES);
    subject.write("filling the store again", replacing(&state)).await;
    let expected = sorted_map::scan(&state, &KeyRange::all(), usize::MAX);
    let mut sweep = Sweep::of(subject.fixture());
    while let Some(fault) = sweep.next_fault() {
        let step = format!("a visit under {fault}");
        // Reopen it before: a store that answers from memory reads its medium only when it opens.
        subject.reopen(&step).await;
        let mut found = Vec::new();
        let mut each = |key: &[u8], value: &[u8]| {
            found.push(Entry { key: key.to_vec(), value: value.to_vec() });
            ControlFlow::Continue(())
        };
        subject.break_medium(fault);
        let more = try_read(subject.store().visit(KeyRange::all(), ScanLimit::NONE, &mut each)).await;
        subject.mend_medium();
        if !expected.starts_with(&found) {
            subject.fail(step, format_args!("it showed {}", sorted_map::show(&found)));
        }
        if more == Some(false) && found.len() < expected.len() {
            subject.fail(step, "a visit that could not read all of its range said that there is no more");
        }
        sweep.went_well(more.is_some());
    }
}

/// Visits a range, up to and with the entry `stops_at`; returns what was shown, and whether there is more.
async fn visit<F: Fixture>(
    subject: &Subject<'_, F>,
    step: &str,
    range: KeyRange,
    limit: ScanLimit,
    stops_at: usize,
) -> (Vec<Entry>, bool) {
    let mut found = Vec::new();
    let mut each = |key: &[u8], value: &[u8]| {
        found.push(Entry { key: key.to_vec(), value: value.to_vec() });
        if found.len() >= stops_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    watchdog::step(format_args!("{step}, a visit"));
    match subject.store().visit(range, limit, &mut each).await {
        Ok(more) => (found, more),
        Err(error) => subject.fail(step, format_args!("`visit` failed: {error}")),
    }
}

/// A visitor is code of the app, which may panic. That is no failure of the store.
async fn panics_stay_outside<F: Fixture>(subject: &mut Subject<'_, F>, state: &mut SortedMap) {
    for number in 1..=3 {
        let step = format!("a visitor that panics at entry {number}");
        let mut shown = 0;
        let mut each = |_: &[u8], _: &[u8]| {
            shown += 1;
            if shown == number {
                panic_quietly("the visitor panics");
            }
            ControlFlow::Continue(())
        };
        let visit = subject.store().visit(KeyRange::all(), ScanLimit::NONE, &mut each);
        if AssertUnwindSafe(visit).catch_unwind().await.is_ok() {
            subject.fail(step, "the panic of the visitor was lost");
        }
        subject.expect(&step, state).await;
        let batch = numbered_batch(number);
        sorted_map::apply(state, batch.ops());
        subject.write(format_args!("{step}, the next write"), batch).await;
        let (found, _) = visit_all(subject, &step).await;
        if found != sorted_map::scan(state, &KeyRange::all(), usize::MAX) {
            subject.fail(step, "the next visit differs");
        }
    }
}

async fn visit_all<F: Fixture>(subject: &Subject<'_, F>, step: &str) -> (Vec<Entry>, bool) {
    visit(subject, step, KeyRange::all(), ScanLimit::NONE, usize::MAX).await
}
