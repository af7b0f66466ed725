//! A batch is there whole, or not at all.

use syncline::{Storage as _, WriteBatch};

use super::samples::{nasty_state, numbered_batch, replacing};
use super::subject::Subject;
use super::sweep::write_under_faults;
use crate::Fixture;
use crate::poll::{poll_at_most, poll_at_most_until_woken};
use crate::sorted_map::{self, SortedMap};

const POLLS_MAX: usize = 64;

/// Goal: however a write ends, no part of it is left. Method: large and mixed batches; the store dropped at every poll
/// of a write; an error, lasting errors and a panic at every operation of the medium; each time the state is the one
/// before or the one after, there and then, reopened, and reopened again.
///
/// # Panics
/// If the store breaks the property.
pub async fn write_is_atomic<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("write_is_atomic", fixture).await;
    batches_land_whole(&mut subject).await;
    for filler in [0, 100, 2_000] {
        dropped_stores_hold_whole_batches(&mut subject, filler).await;
    }
    write_under_faults(&mut subject, async |subject, round| {
        let step = &round.step;
        // After an unknown outcome the store may refuse to read. If it reads, the state must be whole.
        if let Some(found) = subject.try_state().await {
            subject.whole(step, &found, &round.before, &round.after);
        }
        subject.reopen(step).await;
        let applied =
            subject.expect_either(format_args!("{step}, reopened"), &round.before, &round.after).await;
        subject.reopen(step).await;
        let settled = if applied { &round.after } else { &round.before };
        subject.expect(format_args!("{step}, reopened twice"), settled).await;
    })
    .await;
}

async fn batches_land_whole<F: Fixture>(subject: &mut Subject<'_, F>) {
    let mut state = nasty_state();
    subject.write("filling the store", replacing(&state)).await;
    let mut large = WriteBatch::new();
    for number in 0..u32::try_from(subject.ops_of_a_batch(4_000) / 2).unwrap_or(u32::MAX) {
        large.put([&b"large/"[..], &number.to_be_bytes()].concat(), number.to_be_bytes());
        large.delete([&b"large/"[..], &(number / 2).to_be_bytes()].concat());
    }
    for (step, batch) in [("a large batch", large), ("a mixed batch", numbered_batch(1))] {
        sorted_map::apply(&mut state, batch.ops());
        subject.write(step, batch).await;
        subject.expect(step, &state).await;
        subject.reopen(step).await;
        subject.expect(format_args!("{step}, reopened"), &state).await;
    }
    subject.write("clearing the store", replacing(&SortedMap::new())).await;
}

/// Drops a write together with its store, at every poll. Nothing else that every fixture can do is so near to a crash.
/// The batch has so many puts more, since a store may take another way for a large one.
async fn dropped_stores_hold_whole_batches<F: Fixture>(subject: &mut Subject<'_, F>, filler: usize) {
    let filler = u32::try_from(subject.ops_of_a_batch(filler + 10) - 10).unwrap_or(0);
    let mut number = 2;
    for until_woken in [false, true] {
        for polls in 0..=POLLS_MAX {
            number += 1;
            let mut batch = numbered_batch(number);
            for at in 0..filler {
                batch.put([&b"filler/"[..], &at.to_be_bytes()].concat(), number.to_be_bytes());
            }
            let before = subject.state("before a dropped write").await;
            let after = sorted_map::after(&before, &batch);
            let batch_ops = batch.ops().len();
            let write = subject.store().write(batch);
            let finished =
                if until_woken { poll_at_most_until_woken(polls, write) } else { poll_at_most(polls, write) };
            let step = format!("store and write of {batch_ops} operations dropped after {polls} polls");
            subject.reopen(&step).await;
            let applied = subject.expect_either(&step, &before, &after).await;
            match finished {
                None => {}
                Some(Ok(())) if applied => break,
                Some(result) => {
                    subject.fail(step, format_args!("the write ended with {result:?}, applied: {applied}"))
                }
            }
        }
    }
}
