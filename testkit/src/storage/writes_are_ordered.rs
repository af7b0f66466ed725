//! A batch is never there without the ones before it.

use std::fmt::Display;

use super::samples::{mark, numbered_batch};
use super::subject::{Outcome, Subject};
use super::sweep::write_under_faults;
use crate::Fixture;
use crate::sorted_map::{self, SortedMap};

const WRITES: u32 = 6;

/// Goal: reopening finds a beginning of what was written, without holes or swaps. Method: batches that overwrite each
/// other and leave marks, more and more of them between openings; then one batch under every fault of the medium and
/// one after it, which is refused until the store is reopened if the outcome of the first is unknown.
///
/// # Panics
/// If the store breaks the property.
pub async fn writes_are_ordered<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("writes_are_ordered", fixture).await;
    let mut number = 0;
    for writes in 1..=WRITES {
        let mut states = vec![subject.state("before the writes").await];
        let first = number;
        for _ in 0..writes {
            states.push(sorted_map::after(&states[states.len() - 1], &numbered_batch(number)));
            subject.write(format_args!("batch {number}"), numbered_batch(number)).await;
            number += 1;
        }
        let step = format!("batches {first} to {}, reopened", number - 1);
        subject.reopen(&step).await;
        expect_beginning(&subject, step, &states).await;
    }

    write_under_faults(&mut subject, async |subject, round| {
        let step = format!("{}, and a write after it", round.step);
        let next = numbered_batch(round.number + 1);
        if round.outcome == Outcome::Unknown && subject.try_write(next.clone()).await == Outcome::Ok {
            subject.fail(step, "the handle accepted it: after Unknown the store must be reopened first");
        }
        if !matches!(round.outcome, Outcome::Ok | Outcome::Rejected) {
            subject.reopen(&round.step).await;
        }
        let outcome = subject.try_write(next.clone()).await;
        subject.reopen(&step).await;
        let found = subject.state(&step).await;
        if round.outcome == Outcome::Ok
            && found.contains_key(&mark(round.number + 1))
            && !found.contains_key(&mark(round.number))
        {
            subject.fail(&step, "the later batch is there without the earlier one, which had returned Ok");
        }
        let ends = [&round.before, &round.after].map(|start| sorted_map::after(start, &next));
        if outcome == Outcome::Ok && !ends.contains(&found) {
            subject.fail(
                &step,
                format_args!("against both batches: {}", sorted_map::difference(&found, &ends[1])),
            );
        }
    })
    .await;
}

/// Fails unless the store holds one of `states`, each of which is one batch further than the one before.
async fn expect_beginning<F: Fixture>(subject: &Subject<'_, F>, step: impl Display, states: &[SortedMap]) {
    let found = subject.state(&step).await;
    if !states.contains(&found) {
        let difference = sorted_map::difference(&found, &states[states.len() - 1]);
        subject.fail(step, format_args!("a hole or a swap: against all batches: {difference}"));
    }
}
