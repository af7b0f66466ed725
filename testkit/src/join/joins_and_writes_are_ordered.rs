//! Joins and writes take effect in the order in which they were called.

use std::fmt::Display;

use super::subject::{Both, join_under_faults};
use super::work::Work;
use crate::JoinFixture;
use crate::sorted_map;
use crate::storage::samples::{mark, numbered_batch};
use crate::storage::subject::{Outcome, Subject};

const LENGTH: u32 = 6;

/// Goal: reopening finds a beginning of what was joined and written, without holes or swaps. Method: sequences of up to
/// six joins and writes that overwrite each other; then a join under every fault of the medium and a write after it.
///
/// # Panics
/// If the store breaks the property.
pub async fn joins_and_writes_are_ordered<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("joins_and_writes_are_ordered", fixture).await;
    let mut number = 0;
    let mut state = Both::default();
    for length in 1..=LENGTH {
        // The bits say which operations are joins. In a sequence of more than four, the bits repeat.
        for joins in 0..1_u32 << length.min(4) {
            let first = number;
            for place in 0..length {
                let work = Work::new(number);
                if joins >> (place % 4) & 1 == 1 {
                    state = work.after(&state);
                    subject.join(format_args!("join {number}"), work.job::<F>()).await;
                } else {
                    sorted_map::apply(&mut state.entries, numbered_batch(number).ops());
                    subject.write(format_args!("write {number}"), numbered_batch(number)).await;
                }
                number += 1;
            }
            let step = format!("{length} joins and writes from {first} on, joins by the bits of {joins:#b}");
            expect_all(&subject, &step, &state).await;
            subject.reopen(&step).await;
            expect_all(&subject, format_args!("{step}, reopened"), &state).await;
        }
    }

    join_under_faults(&mut subject, async |subject, round| {
        if !matches!(round.outcome, Outcome::Ok | Outcome::Rejected) {
            subject.reopen(&round.step).await;
        }
        let step = format!("{}, and a write after it", round.step);
        let number = round.work.number;
        let next = numbered_batch(number + 1);
        let outcome = subject.try_write(next.clone()).await;
        subject.reopen(&step).await;
        let found = subject.both(&step).await;
        let (later, earlier) =
            (found.entries.contains_key(&mark(number + 1)), found.entries.contains_key(&mark(number)));
        if round.outcome == Outcome::Ok && later && !earlier {
            subject.fail(&step, "the write is there without the join before it, which had returned Ok");
        }
        let ends = [&round.before, &round.after].map(|start| Both {
            entries: sorted_map::after(&start.entries, &next),
            rows: start.rows.clone(),
        });
        if outcome == Outcome::Ok && !ends.contains(&found) {
            subject.fail(&step, format_args!("against both: {}", found.difference(&ends[1])));
        }
    })
    .await;
}

async fn expect_all<F: JoinFixture>(subject: &Subject<'_, F>, step: impl Display, state: &Both) {
    let found = subject.both(&step).await;
    if found != *state {
        subject.fail(step, format_args!("a hole or a swap: against all: {}", found.difference(state)));
    }
}
