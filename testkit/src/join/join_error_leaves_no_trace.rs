//! A job that failed leaves nothing behind, and the join returns its error.

use syncline::{JoinJob, JoinTx as _, WriteBatch, WriteError};

use super::subject::{Both, join_under_faults};
use super::work::{Refused, STEPS, Stop, Work};
use crate::storage::samples::numbered_batch;
use crate::storage::subject::{Outcome, Subject};
use crate::{JoinFixture, sorted_map};

const MIB: usize = 1024 * 1024;

/// Goal: after a job that failed the store goes on as if the join had not been called. Method: jobs that return an
/// error or panic at each of their steps, jobs that return the refusal of an oversized key or value, and every fault of
/// the medium; look at once, after the next write or the next join, and reopened.
///
/// # Panics
/// If the store breaks the property.
pub async fn join_error_leaves_no_trace<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("join_error_leaves_no_trace", fixture).await;
    let mut number = 3;
    let mut state = Both::default();
    for step in 0..=STEPS {
        for how in [Stop::Error, Stop::Panic] {
            let name = format!("a job that ends with {how:?} before step {step}");
            number += 2;
            let (outcome, error) = subject.try_join(Work::stopping(number, step, how).job::<F>()).await;
            if outcome != Outcome::Rejected {
                subject.fail(name, format_args!("the join ended with {outcome}, not with Rejected"));
            }
            if let (Stop::Error, Some(WriteError::Rejected(error))) = (how, &error)
                && error.downcast_ref() != Some(&Refused(number))
            {
                subject.fail(name, format_args!("the join returned another error than the job: {error}"));
            }
            expect_no_trace(&mut subject, &name, &mut state, number + 1).await;
        }
    }
    for (key_bytes, value_bytes) in [(64 * 1024 + 1, 1), (MIB, 1), (1, 16 * MIB + 1)] {
        let name = format!("a job that applies a key of {key_bytes} and a value of {value_bytes} bytes");
        number += 2;
        let work = Work::new(number);
        let inner = work.job::<F>();
        let job: JoinJob<F::Store> = Box::new(move |tx| {
            inner(tx)?;
            let mut large = WriteBatch::new();
            large.put(vec![b'k'; key_bytes], vec![b'v'; value_bytes]);
            tx.apply(&large)
        });
        match subject.try_join(job).await.0 {
            Outcome::Ok => {
                state = work.after(&state);
                state.entries.insert(vec![b'k'; key_bytes], vec![b'v'; value_bytes]);
                subject.expect_both(&name, &state).await;
            }
            Outcome::Rejected => expect_no_trace(&mut subject, &name, &mut state, number + 1).await,
            other => subject.fail(name, format_args!("a size that is not accepted is Rejected, not {other}")),
        }
    }

    join_under_faults(&mut subject, async |subject, round| match round.outcome {
        Outcome::Ok => {}
        Outcome::Rejected => {
            expect_no_trace(subject, &round.step, &mut round.before.clone(), round.work.number + 1).await;
        }
        _ => subject.reopen(&round.step).await,
    })
    .await;
}

async fn expect_no_trace<F: JoinFixture>(
    subject: &mut Subject<'_, F>,
    step: &str,
    state: &mut Both,
    number: u32,
) {
    subject.expect_both(step, state).await;
    // By turns a write and a join, so that either is the first one after a failure.
    let step = if number.is_multiple_of(4) {
        sorted_map::apply(&mut state.entries, numbered_batch(number).ops());
        let step = format!("{step}, the next write");
        subject.write(&step, numbered_batch(number)).await;
        step
    } else {
        let work = Work::new(number);
        *state = work.after(state);
        let step = format!("{step}, the next join");
        subject.join(&step, work.job::<F>()).await;
        step
    };
    subject.expect_both(&step, state).await;
    subject.reopen(&step).await;
    subject.expect_both(format_args!("{step}, reopened"), state).await;
}
