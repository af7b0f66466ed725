//! Rows and entries of a join that returned `Ok` are there after reopening.

use super::subject::{Both, join_under_faults};
use super::work::Work;
use crate::JoinFixture;
use crate::storage::samples::numbered_batch;
use crate::storage::subject::{Outcome, Subject};

const JOINS: u32 = 12;

/// Goal: `Ok` is a promise. Method: reopen right after a join, with and without joins and writes before it; then under
/// every fault of the medium, since a fault that a store hides must not cost the join. A loss of power is a
/// matter of each store's own tests.
///
/// # Panics
/// If the store breaks the property.
pub async fn join_survives_reopening<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("join_survives_reopening", fixture).await;
    let mut state = Both::default();
    for number in 0..JOINS {
        let step = format!("join {number}");
        // The join is the first operation since the opening, or it comes after one or two writes.
        for part in 0..number % 3 {
            let batch = numbered_batch(number * 3 + part);
            crate::sorted_map::apply(&mut state.entries, batch.ops());
            subject.write(format_args!("{step}, write {part} before it"), batch).await;
        }
        let work = Work::new(number * 3 + 2);
        state = work.after(&state);
        subject.join(&step, work.job::<F>()).await;
        subject.reopen(&step).await;
        subject.expect_both(format_args!("{step}, reopened"), &state).await;
    }

    join_under_faults(&mut subject, async |subject, round| {
        subject.reopen(&round.step).await;
        let step = format!("{}, reopened", round.step);
        let applied = subject.both(&step).await == round.after;
        if round.outcome == Outcome::Ok && !applied {
            subject.fail(step, "the join had returned Ok, but it is gone");
        }
    })
    .await;
}
