//! If a statement of the app ends the transaction, all of it is undone, and the join returns that it was ended.

use syncline::{TransactionEnded, WriteError};

use super::subject::Both;
use super::work::{Runs, STEPS, Then, Work};
use crate::JoinFixture;
use crate::storage::samples::numbered_batch;
use crate::storage::subject::{Outcome, Subject};

/// Goal: only the store ends a transaction. Method: run each ending of the fixture before each step of a job, which
/// then goes on as if nothing had happened, and returns `Ok`, the first error that it meets, or an error of its own;
/// look at once, after the next write and the next join, and reopened.
///
/// If the ending itself returns an error, it may have undone everything or nothing. Then the join of a job that fails
/// may return the job's error, and that of a job that does not fail may commit, whole. A fixture that knows no endings
/// has nothing to check.
///
/// # Panics
/// If the store breaks the property.
pub async fn join_cannot_be_ended_from_inside<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("join_cannot_be_ended_from_inside", fixture).await;
    let mut state = Both::default();
    let mut number = 3;
    for ending in F::endings() {
        for at in 0..=STEPS {
            for then in [Then::Ok, Then::FirstError, Then::OwnError] {
                number += 3;
                let step = format!("{} before step {at}, then {then:?}", ending.name);
                let (work, refused) = (Work::new(number), Runs::default());
                let (outcome, error) = subject.try_join(work.ending::<F>(&ending, at, then, &refused)).await;
                let refused = refused.count() > 0;
                match (&outcome, error) {
                    (Outcome::Ok, _) if then == Then::Ok && refused => state = work.after(&state),
                    (Outcome::Rejected, Some(WriteError::Rejected(error)))
                        if error.is::<TransactionEnded>() || (refused && then != Then::Ok) => {}
                    (Outcome::Rejected, Some(error)) => {
                        subject.fail(step, format_args!("Rejected, but not of `TransactionEnded`: {error}"))
                    }
                    _ => subject.fail(step, format_args!("the join ended with {outcome}")),
                }
                subject.expect_both(&step, &state).await;

                let step = format!("{step}, the next write and join");
                let (batch, next) = (numbered_batch(number + 1), Work::new(number + 2));
                crate::sorted_map::apply(&mut state.entries, batch.ops());
                state = next.after(&state);
                subject.write(&step, batch).await;
                subject.join(&step, next.job::<F>()).await;
                subject.expect_both(&step, &state).await;
                subject.reopen(&step).await;
                subject.expect_both(format_args!("{step}, reopened"), &state).await;
            }
        }
    }
}
