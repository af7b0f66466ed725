//! Jobs of several steps, which stop at any of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use syncline::{BoxError, JoinJob, JoinTx as _, Native, WriteBatch};

use super::subject::Both;
use crate::storage::samples::numbered_batch;
use crate::{Ending, JoinFixture, panic_quietly, sorted_map};

/// The row that every job of the sequence overwrites.
const FIRST_ROW: u64 = u64::MAX >> 1;

/// Counts something, such as the runs of a job. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(Arc<AtomicU32>);

impl Runs {
    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn note(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// How a job stops.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// It returns [`Refused`].
    Error,
    /// It panics.
    Panic,
}

/// How a job goes on after an ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// As if nothing had happened; it returns `Ok`.
    Ok,
    /// It returns the first error that it meets, `Ok` if there is none.
    FirstError,
    /// As if nothing had happened; it returns an error of its own.
    OwnError,
}

/// The error of a job that fails on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u32);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "job {} fails on purpose", self.0)
    }
}

impl std::error::Error for Refused {}

/// The job `number` of a sequence. Its steps change the rows of the app and apply the halves of a [`numbered_batch`],
/// by turns. Like those batches, each job changes what the ones before have left, and leaves a mark of its own in the
/// rows and in the entries.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) number: u32,
    /// Where it stops, before a step, and how; nowhere, if this is `None`.
    pub(super) stop: Option<(usize, Stop)>,
    pub(super) runs: Runs,
}

/// How many steps a [`Work`] has.
pub(super) const STEPS: usize = 5;

impl Work {
    pub(super) fn new(number: u32) -> Self {
        Self { number, stop: None, runs: Runs::default() }
    }

    pub(super) fn stopping(number: u32, step: usize, how: Stop) -> Self {
        Self { stop: Some((step, how)), ..Self::new(number) }
    }

    /// The state that it leaves if it begins with `state` and does not stop.
    pub(super) fn after(&self, state: &Both) -> Both {
        let Both { mut entries, mut rows } = state.clone();
        sorted_map::apply(&mut entries, numbered_batch(self.number).ops());
        rows.insert(u64::from(self.number), self.text());
        rows.insert(FIRST_ROW, self.text());
        rows.remove(&u64::from(self.number.wrapping_sub(3)));
        Both { entries, rows }
    }

    pub(super) fn job<F: JoinFixture>(&self) -> JoinJob<F::Store> {
        let work = self.clone();
        Box::new(move |tx| {
            work.runs.note();
            for step in 0..=STEPS {
                match work.stop {
                    Some((at, Stop::Error)) if at == step => return Err(Refused(work.number).into()),
                    Some((at, Stop::Panic)) if at == step => panic_quietly(Refused(work.number).to_string()),
                    _ => {}
                }
                match work.part(step) {
                    Some(batch) => tx.apply(&batch)?,
                    None => work.rows::<F>(step, tx.native())?,
                }
            }
            Ok(())
        })
    }

    /// A job that runs `ending` before step `at`, and then goes on as `then` says. Counts in `refused` if the ending
    /// has returned an error.
    pub(super) fn ending<F: JoinFixture>(
        &self,
        ending: &Ending<F::Store>,
        at: usize,
        then: Then,
        refused: &Runs,
    ) -> JoinJob<F::Store> {
        let (work, end, refused) = (self.clone(), ending.end, refused.clone());
        Box::new(move |tx| {
            for step in 0..=STEPS {
                if at == step {
                    let ended = end(tx.native());
                    if ended.is_err() {
                        refused.note();
                    }
                    if then == Then::FirstError {
                        ended?;
                    }
                }
                let done = match work.part(step) {
                    Some(batch) => tx.apply(&batch),
                    None => work.rows::<F>(step, tx.native()),
                };
                if then == Then::FirstError {
                    done?;
                }
            }
            if then == Then::OwnError { Err(Refused(work.number).into()) } else { Ok(()) }
        })
    }

    fn text(&self) -> String {
        format!("job {}", self.number)
    }

    /// The part of the batch that a step applies, if it applies one.
    fn part(&self, step: usize) -> Option<WriteBatch> {
        let ops = numbered_batch(self.number).into_iter().collect::<Vec<_>>();
        let half = ops.len() / 2;
        match step {
            1 => Some(ops[..half].to_vec().into()),
            3 => Some(ops[half..].to_vec().into()),
            _ => None,
        }
    }

    fn rows<F: JoinFixture>(&self, step: usize, tx: &Native<'_, F::Store>) -> Result<(), BoxError> {
        match step {
            0 => F::put_row(tx, u64::from(self.number), &self.text()),
            2 => F::put_row(tx, FIRST_ROW, &self.text()),
            4 => F::delete_row(tx, u64::from(self.number.wrapping_sub(3))),
            _ => Ok(()),
        }
    }
}
