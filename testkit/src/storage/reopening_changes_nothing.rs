//! Reopening changes nothing of what is stored, however often.

use super::samples::{nasty_state, numbered_batch, replacing};
use super::subject::Subject;
use super::sweep::Sweep;
use crate::Fixture;
use crate::sorted_map::{self, SortedMap};

const REOPENINGS: u32 = 4;
/// Reopenings of one store. What goes wrong may do so only when something of the store is full.
const REOPENINGS_MANY: u32 = 24;

/// Goal: an opening only reads. Method: reopen an empty store and one with nasty keys, again and again, with and
/// without writes between; then with the medium failing at every operation of an opening; then a store at another place
/// beside it, which has nothing of it.
///
/// # Panics
/// If the store breaks the property.
pub async fn reopening_changes_nothing<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("reopening_changes_nothing", fixture).await;
    subject.expect("a fresh fixture", &SortedMap::new()).await;
    reopen_often(&mut subject, REOPENINGS, "an empty store", &SortedMap::new()).await;

    let mut state = nasty_state();
    subject.write("filling the store", replacing(&state)).await;
    reopen_often(&mut subject, REOPENINGS_MANY, "nasty keys", &state).await;
    for number in 0..REOPENINGS {
        sorted_map::apply(&mut state, numbered_batch(number).ops());
        subject.write(format_args!("write {number}"), numbered_batch(number)).await;
        subject.reopen(format_args!("write {number}")).await;
        subject.expect(format_args!("write {number}, reopened"), &state).await;
    }
    subject.write("emptying the store", replacing(&SortedMap::new())).await;
    reopen_often(&mut subject, REOPENINGS, "an emptied store", &SortedMap::new()).await;
    subject.write("filling it again", replacing(&state)).await;
    openings_fail(&mut subject, &state).await;
    places_are_apart(&subject, &state, &fresh()).await;
}

/// What is written at one place is not at another.
async fn places_are_apart<F: Fixture>(subject: &Subject<'_, F>, state: &SortedMap, elsewhere: &F) {
    let elsewhere = Subject::open("reopening_changes_nothing", elsewhere).await;
    let keys: Vec<_> = state.keys().cloned().collect();
    let nothing = SortedMap::new();
    elsewhere.expect("a second place, beside the first", &nothing).await;
    elsewhere.expect_keys("a second place, beside the first", &keys, &nothing).await;
    let other: SortedMap =
        [(keys[0].clone(), b"elsewhere".to_vec()), (b"elsewhere".to_vec(), Vec::new())].into();
    elsewhere.write("a write at a second place", replacing(&other)).await;
    elsewhere.expect("a write at a second place", &other).await;
    subject.expect("the first place, after a write at a second", state).await;
    let keys: Vec<_> = other.into_keys().collect();
    subject.expect_keys("the first place, after a write at a second", &keys, state).await;
}

async fn reopen_often<F: Fixture>(subject: &mut Subject<'_, F>, times: u32, what: &str, state: &SortedMap) {
    for reopening in 1..=times {
        let step = format!("{what}, reopened {reopening} times");
        subject.reopen(&step).await;
        // The first read after an opening may find what is not ready: let it be one of keys as often as a scan.
        if reopening % 2 == 0 {
            let keys: Vec<_> = state.keys().cloned().collect();
            subject.expect_keys(&step, &keys, state).await;
        }
        subject.expect(&step, state).await;
    }
}

/// An opening that fails changes nothing either, also if it fails in the middle of a recovery.
async fn openings_fail<F: Fixture>(subject: &mut Subject<'_, F>, state: &SortedMap) {
    let mut sweep = Sweep::of(subject.fixture());
    while let Some(fault) = sweep.next_fault() {
        let step = format!("an opening under {fault}");
        subject.close();
        subject.break_medium(fault);
        let opened = subject.try_reopen().await;
        subject.mend_medium();
        sweep.went_well(opened.is_ok());
        subject.reopen(&step).await;
        subject.expect(format_args!("{step}, opened again without"), state).await;
    }
}
