//! A part of a job that failed is undone alone, or spoils the job.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use syncline::{Attempt, BoxError, JoinJob, JoinTx as _, WriteBatch};

use super::subject::Both;
use super::work::{Refused, Work};
use crate::JoinFixture;
use crate::storage::samples::numbered_batch;
use crate::storage::subject::{Outcome, Subject};

/// How the parts of a job end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parts {
    /// One succeeds.
    Succeeds,
    /// One fails.
    Fails,
    /// One fails, and then one succeeds.
    FailsThenSucceeds,
    /// A part inside a part fails, and the outer one succeeds without it.
    InnerFails,
    /// A part inside a part succeeds, and the outer one fails.
    OuterFails,
}

/// What a job saw.
#[derive(Debug, Default)]
struct Seen {
    spoiled: bool,
    /// The first fault that the job noticed itself.
    fault: Option<String>,
}

/// Goal: a part that failed leaves no trace, what the job did before and after it stays, and a store that cannot do
/// that says so. Method: jobs with a step, parts that change rows and entries of the step and of earlier joins and then
/// fail or succeed, also inside each other, and another step; the job looks at once, then the state after the join is
/// compared. If a part is spoiled, the job fails, and nothing of it may be there.
///
/// # Panics
/// If the store breaks the property.
pub async fn join_undoes_a_part<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("join_undoes_a_part", fixture).await;
    let mut state = Both::default();
    let mut number = 0;
    for parts in
        [Parts::Succeeds, Parts::Fails, Parts::FailsThenSucceeds, Parts::InnerFails, Parts::OuterFails]
    {
        for round in 0..3 {
            let step = format!("a job whose part ends so: {parts:?}, round {round}");
            number += 10;
            let seen = Arc::new(Mutex::new(Seen::default()));
            let (outcome, error) = subject.try_join(job::<F>(number, parts, Arc::clone(&seen))).await;
            let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(fault) = seen.fault {
                subject.fail(step, fault);
            }
            match (outcome, seen.spoiled) {
                (Outcome::Ok, false) => state = after(number, parts, &state),
                (Outcome::Rejected, true) if parts != Parts::Succeeds => {}
                (outcome, spoiled) => subject.fail(
                    step,
                    format_args!("the join ended with {outcome} ({error:?}), spoiled: {spoiled}"),
                ),
            }
            subject.expect_both(&step, &state).await;
            subject.reopen(&step).await;
            subject.expect_both(format_args!("{step}, reopened"), &state).await;
        }
    }
}

/// The numbers of the works that are left of a job, in their order.
fn kept(number: u32, parts: Parts) -> Vec<u32> {
    match parts {
        Parts::Succeeds | Parts::InnerFails => vec![number, number + 1, number + 4],
        Parts::Fails | Parts::OuterFails => vec![number, number + 4],
        Parts::FailsThenSucceeds => vec![number, number + 3, number + 4],
    }
}

fn after(number: u32, parts: Parts, state: &Both) -> Both {
    kept(number, parts).into_iter().fold(state.clone(), |state, number| Work::new(number).after(&state))
}

fn job<F: JoinFixture>(number: u32, parts: Parts, seen: Arc<Mutex<Seen>>) -> JoinJob<F::Store> {
    Box::new(move |tx| {
        let spoiled = Cell::new(false);
        let mut fault = None;
        let whole = |number: u32| -> Result<(), BoxError> { Work::new(number).job::<F>()(tx) };
        whole(number)?;
        let outcomes = match parts {
            Parts::Succeeds => vec![(true, tx.attempt(&mut || whole(number + 1)))],
            Parts::Fails => vec![(false, tx.attempt(&mut || failing::<F>(tx, number + 1)))],
            Parts::FailsThenSucceeds => {
                let first = tx.attempt(&mut || failing::<F>(tx, number + 1));
                if matches!(first, Attempt::Undone(_)) {
                    vec![(false, first), (true, tx.attempt(&mut || whole(number + 3)))]
                } else {
                    vec![(false, first)]
                }
            }
            Parts::InnerFails => {
                let outer = tx.attempt(&mut || {
                    whole(number + 1)?;
                    match tx.attempt(&mut || failing::<F>(tx, number + 2)) {
                        Attempt::Undone(_) => Ok(()),
                        Attempt::Done => Err("a part that failed is said to be done".into()),
                        Attempt::Spoiled(error) => {
                            spoiled.set(true);
                            Err(error)
                        }
                    }
                });
                vec![(!spoiled.get(), outer)]
            }
            Parts::OuterFails => {
                let outer = tx.attempt(&mut || {
                    tx.attempt(&mut || whole(number + 1));
                    Err(Refused(number).into())
                });
                vec![(false, outer)]
            }
        };
        for (succeeds, outcome) in outcomes {
            match outcome {
                Attempt::Done if succeeds => {}
                Attempt::Undone(error) | Attempt::Spoiled(error) if succeeds => {
                    fault = Some(format!("a part that succeeded is said to have failed: {error}"));
                }
                Attempt::Done => fault = Some("a part that failed is said to be done".into()),
                Attempt::Undone(_) => {}
                Attempt::Spoiled(_) => spoiled.set(true),
            }
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.spoiled, seen.fault) = (spoiled.get(), fault);
        drop(seen);
        if spoiled.get() {
            return Err(Refused(number).into());
        }
        whole(number + 4)
    })
}

/// Does all of a work, and more that no work does, and fails.
fn failing<F: JoinFixture>(
    tx: &<F::Store as syncline::JoinStorage>::Tx<'_>,
    number: u32,
) -> Result<(), BoxError> {
    Work::new(number).job::<F>()(tx)?;
    // Take away what the job did before the part.
    let mut batch = WriteBatch::new();
    for op in numbered_batch(number.saturating_sub(1)).ops() {
        if let syncline::WriteOp::Put { key, .. } = op {
            batch.delete(key.clone());
        }
    }
    tx.apply(&batch)?;
    F::delete_row(tx.native(), u64::from(number - 1))?;
    Err(Refused(number).into())
}
