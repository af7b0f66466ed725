//! `scan` returns the entries of its range in order, up to the limit, or an error.

use syncline::{KeyRange, ScanLimit, ScanPage, Storage as _};

use super::samples::{
    SWEPT_ENTRIES, WIDE_ENTRIES, filling, long_ranges, long_state, nasty_ranges, nasty_state, replacing,
    wide_state,
};
use super::subject::{Subject, try_read};
use super::sweep::Sweep;
use crate::Fixture;
use crate::sorted_map::{self, SortedMap};

/// Goal: a scan is exact. Method: every range of nasty bounds with every limit against a sorted map, then long keys and
/// bounds, then many entries, then pages by bytes, joined, then a broken medium, under which a short answer would pass for a whole one.
///
/// # Panics
/// If the store breaks the property.
pub async fn scan_is_ordered<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let subject = Subject::open("scan_is_ordered", fixture).await;
    let state = nasty_state();
    for range in nasty_ranges() {
        check(&subject, "an empty store", &SortedMap::new(), range, usize::MAX).await;
    }
    subject.write("filling the store", filling(&state)).await;
    for range in nasty_ranges() {
        for limit in [0, 1, 2, state.len() - 1, state.len(), state.len() + 1, BEYOND_32_BITS, usize::MAX] {
            check(&subject, "nasty keys", &state, range.clone(), limit).await;
        }
    }
    long_bounds_are_kept(&subject).await;
    wide_scans_are_whole(&subject).await;
    subject.write("filling the store again", replacing(&state)).await;
    bytes_are_bounded(&subject, &state).await;
    let state = wide_state(SWEPT_ENTRIES);
    subject.write("storing more than a page", replacing(&state)).await;
    failed_scans_say_so(subject, &state).await;
}

/// A limit that is none if its upper half is lost.
const BEYOND_32_BITS: usize = (u32::MAX as usize).saturating_add(1);

async fn check<F: Fixture>(
    subject: &Subject<'_, F>,
    keys: &str,
    state: &SortedMap,
    range: KeyRange,
    limit: usize,
) {
    let all = sorted_map::scan(state, &range, usize::MAX);
    let expected = &all[..limit.min(all.len())];
    let shown = if limit == usize::MAX { "no limit".into() } else { format!("limit {limit}") };
    let step = format!("{keys}, {}, {shown}", sorted_map::show_range(&range));
    let page = subject.scan_on(&step, range, limit).await;
    if page.entries != expected {
        let [found, expected] = [&page.entries, expected].map(sorted_map::show);
        subject.fail(step, format_args!("found {found}, expected {expected}"));
    }
    if !page.more && expected.len() < all.len() {
        subject.fail(step, "it said that there is no more");
    }
}

/// Ranges of some thousand entries, with limits around the thousands.
async fn wide_scans_are_whole<F: Fixture>(subject: &Subject<'_, F>) {
    let state = wide_state(WIDE_ENTRIES);
    subject.write("deleting everything", replacing(&SortedMap::new())).await;
    subject.fill("storing many entries", state.clone()).await;
    for limit in [999, 1_000, 1_001, 2_000, state.len(), usize::MAX] {
        check(subject, "many entries", &state, KeyRange::all(), limit).await;
    }
}

/// Keys and bounds as long as the store takes them. The bound of a scan that goes on after the longest key is longer by
/// one byte, which pages of long keys have.
async fn long_bounds_are_kept<F: Fixture>(subject: &Subject<'_, F>) {
    let longest = subject.must_keep().key_bytes;
    let state = long_state(longest);
    subject.write("storing long keys", replacing(&state)).await;
    for range in long_ranges(longest) {
        for limit in [1, 2, usize::MAX] {
            check(subject, "long keys", &state, range.clone(), limit).await;
        }
    }
    for key in state.keys() {
        check(subject, "long keys", &state, KeyRange::all().after(key), 2).await;
    }
}

/// A scan has no more bytes than its limit says, unless its first entry has more; and it says whether it was cut off.
async fn bytes_are_bounded<F: Fixture>(subject: &Subject<'_, F>, state: &SortedMap) {
    let all = sorted_map::scan(state, &KeyRange::all(), usize::MAX);
    for bytes in [0, 1, 8, 9, 10, 20, 21, 100, 1_000] {
        let (mut rest, mut joined) = (KeyRange::all(), Vec::new());
        loop {
            let step = format!("a scan of {bytes} bytes from {}", sorted_map::bytes(&rest.start));
            let limit = ScanLimit { entries: usize::MAX, bytes };
            let page = subject.scan_page(&step, rest.clone(), limit).await;
            joined.extend(page.entries);
            match joined.last().filter(|_| page.more) {
                Some(last) => rest = rest.after(&last.key),
                None => break,
            }
        }
        if joined != all {
            let step = format!("scans of {bytes} bytes, one after the other");
            subject.fail(step, format_args!("together they found {}", sorted_map::show(&joined)));
        }
    }
}

async fn failed_scans_say_so<F: Fixture>(mut subject: Subject<'_, F>, state: &SortedMap) {
    let expected = sorted_map::scan(state, &KeyRange::all(), usize::MAX);
    let mut sweep = Sweep::of(subject.fixture());
    while let Some(fault) = sweep.next_fault() {
        let step = format!("a scan under {fault}");
        // Reopen it before: a store that answers from memory reads its medium only when it opens.
        subject.reopen(&step).await;
        subject.break_medium(fault);
        let found = try_read(subject.store().scan(KeyRange::all(), ScanLimit::NONE)).await;
        subject.mend_medium();
        let is_wrong = |found: &ScanPage| {
            if found.more { !expected.starts_with(&found.entries) } else { found.entries != expected }
        };
        if found.as_ref().is_some_and(is_wrong) {
            subject.fail(step, "a scan that could not read all of its range returned a part, not an error");
        }
        sweep.went_well(found.is_some());
    }
    subject.reopen("after the last failed scan").await;
    subject.expect("after the last failed scan", state).await;
}
