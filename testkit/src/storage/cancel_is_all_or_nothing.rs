//! A dropped future leaves all of its batch or nothing of it, and the store goes on.

use std::ops::ControlFlow;

use syncline::{KeyRange, ScanLimit, Storage as _};

use super::samples::{mark, numbered_batch};
use super::subject::Subject;
use crate::poll::{poll_at_most, poll_at_most_until_woken};
use crate::sorted_map::{self, SortedMap};
use crate::{Fixture, watchdog};

const POLLS_MAX: usize = 64;
const DROPPED_IN_A_ROW: u32 = 3;

/// Goal: dropping is safe at every point. Method: drop writes and reads after every number of polls, at once and when
/// they could have gone on; each time the state is whole, and the next write works and comes after, also when reopened.
///
/// # Panics
/// If the store breaks the property.
pub async fn cancel_is_all_or_nothing<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("cancel_is_all_or_nothing", fixture).await;
    let mut number = 0;
    subject.write("filling the store", numbered_batch(number)).await;
    for until_woken in [false, true] {
        for polls in 0..=POLLS_MAX {
            if dropped_write(&mut subject, &mut number, polls, until_woken).await {
                break;
            }
        }
    }
    for polls in 0..=POLLS_MAX {
        if dropped_writes_in_a_row(&mut subject, &mut number, polls).await {
            break;
        }
    }
    many_dropped_writes(&mut subject, &mut number).await;
    for polls in 0..=POLLS_MAX {
        if dropped_reads(&mut subject, &mut number, polls).await {
            break;
        }
    }
}

/// Drops one write and makes another. Returns whether the first one had finished.
async fn dropped_write<F: Fixture>(
    subject: &mut Subject<'_, F>,
    number: &mut u32,
    polls: usize,
    until_woken: bool,
) -> bool {
    let (dropped, next) = (numbered_batch(*number + 1), numbered_batch(*number + 2));
    *number += 2;
    let step = format!(
        "a write dropped after {polls} polls{}",
        if until_woken { ", when it could have gone on" } else { "" }
    );
    let before = subject.state(format_args!("before {step}")).await;
    let after = sorted_map::after(&before, &dropped);

    let write = subject.store().write(dropped);
    let finished =
        if until_woken { poll_at_most_until_woken(polls, write) } else { poll_at_most(polls, write) };
    // The dropped write may still be under way, so its batch may appear between these two reads. It may not disappear.
    let mut applied = false;
    for _ in 0..2 {
        let found = subject.expect_either(&step, &before, &after).await;
        if applied && !found {
            subject.fail(step, "a read saw its batch, a later one did not");
        }
        applied = found;
    }
    match &finished {
        Some(Err(error)) => subject.fail(step, format_args!("the write failed: {error}")),
        Some(Ok(())) if !applied => subject.fail(step, "it returned Ok, but its batch is not there"),
        _ => {}
    }

    let step = format!("{step}, the next write");
    subject.write(&step, next.clone()).await;
    let without = sorted_map::after(&before, &next);
    let with = sorted_map::after(&after, &next);
    let found = subject.state(&step).await;
    if applied && found != with {
        subject.fail(step, "the dropped batch was there before and is not there whole now");
    }
    if found != without && found != with {
        let difference = sorted_map::difference(&found, &with);
        subject.fail(
            step,
            format_args!(
                "the dropped batch is not whole, or came after this one: against both: {difference}"
            ),
        );
    }
    subject.expect(format_args!("{step}, once more"), &found).await;
    subject.reopen(&step).await;
    subject.expect(format_args!("{step}, reopened"), &found).await;
    finished.is_some()
}

/// Drops several writes one after the other, then makes one. Returns whether the dropped ones had finished.
async fn dropped_writes_in_a_row<F: Fixture>(
    subject: &mut Subject<'_, F>,
    number: &mut u32,
    polls: usize,
) -> bool {
    let step = format!("{DROPPED_IN_A_ROW} writes, each dropped after {polls} polls, and one more");
    let mut states: Vec<SortedMap> = vec![subject.state(format_args!("before {step}")).await];
    let mut finished = true;
    for _ in 0..DROPPED_IN_A_ROW {
        *number += 1;
        let batch = numbered_batch(*number);
        let with: Vec<_> = states.iter().map(|state| sorted_map::after(state, &batch)).collect();
        states.extend(with);
        finished &= poll_at_most(polls, subject.store().write(batch)).is_some();
    }
    *number += 1;
    let last = numbered_batch(*number);
    subject.write(&step, last.clone()).await;
    let found = subject.state(&step).await;
    if !states.iter().any(|state| sorted_map::after(state, &last) == found) {
        let difference = sorted_map::difference(&found, &sorted_map::after(&states[states.len() - 1], &last));
        subject.fail(
            step,
            format_args!("no choice of the dropped batches leaves this: against all of them: {difference}"),
        );
    }
    subject.reopen(&step).await;
    subject.expect(format_args!("{step}, reopened"), &found).await;
    finished
}

/// Drops so many writes that a store runs out of what each of them keeps.
async fn many_dropped_writes<F: Fixture>(subject: &mut Subject<'_, F>, number: &mut u32) {
    const DROPPED: u32 = 150;
    let step = format!("{DROPPED} writes, each dropped after a poll, and one more");
    for _ in 0..DROPPED {
        *number += 1;
        watchdog::step(&step);
        let _ = poll_at_most(1, subject.store().write(numbered_batch(*number)));
    }
    *number += 1;
    subject.write(&step, numbered_batch(*number)).await;
    if subject.get(&step, &mark(*number)).await.is_none() {
        subject.fail(step, "it returned Ok, but its batch is not there");
    }
}

/// Drops reads of each kind, then writes. Returns whether the reads had finished.
async fn dropped_reads<F: Fixture>(subject: &mut Subject<'_, F>, number: &mut u32, polls: usize) -> bool {
    let step = format!("reads dropped after {polls} polls");
    let mut state = subject.state(format_args!("before {step}")).await;
    let keys: Vec<_> = state.keys().cloned().collect();
    let mut each = |_: &[u8], _: &[u8]| ControlFlow::Continue(());
    let finished = [
        poll_at_most(polls, subject.store().get_many(&keys)).is_some(),
        poll_at_most(polls, subject.store().scan(KeyRange::all(), ScanLimit::NONE)).is_some(),
        poll_at_most(polls, subject.store().visit(KeyRange::all(), ScanLimit::NONE, &mut each)).is_some(),
    ];
    subject.expect(&step, &state).await;
    *number += 1;
    let batch = numbered_batch(*number);
    sorted_map::apply(&mut state, batch.ops());
    let step = format!("{step}, the next write");
    subject.write(&step, batch).await;
    subject.expect(&step, &state).await;
    subject.reopen(&step).await;
    subject.expect(format_args!("{step}, reopened"), &state).await;
    finished == [true; 3]
}
