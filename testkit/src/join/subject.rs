//! The store under test, with methods for joins and for the rows of the app.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use syncline::{JoinJob, JoinStorage as _, JoinTx as _, WriteError};

use super::work::Work;
use crate::JoinFixture;
use crate::sorted_map::{self, SortedMap};
use crate::storage::subject::{Outcome, Subject};
use crate::storage::sweep::Sweep;

/// The entries of the store and the rows of the app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Both {
    pub(super) entries: SortedMap,
    pub(super) rows: BTreeMap<u64, String>,
}

impl Both {
    /// Where `self` differs from `expected`, for a message.
    pub(super) fn difference(&self, expected: &Self) -> String {
        let entries = sorted_map::difference(&self.entries, &expected.entries);
        let rows = |both: &Self| {
            let rows = both.rows.iter();
            rows.map(|(key, text)| (key.to_be_bytes().to_vec(), text.clone().into_bytes())).collect()
        };
        let rows = sorted_map::difference(&rows(self), &rows(expected));
        format!("entries: {entries}; rows: {rows}")
    }
}

impl<F: JoinFixture> Subject<'_, F> {
    /// Joins `job`, which must work.
    pub(super) async fn join(&self, step: impl Display, job: JoinJob<F::Store>) {
        if let Err(error) = self.store().join(job).await {
            self.fail(step, format_args!("the join failed: {error}"));
        }
    }

    /// Joins `job` and returns how the join ended, also if it panicked.
    pub(super) async fn try_join(&self, job: JoinJob<F::Store>) -> (Outcome, Option<WriteError>) {
        match AssertUnwindSafe(self.store().join(job)).catch_unwind().await {
            Ok(result) => (Outcome::of(&result), result.err()),
            Err(_) => (Outcome::Panicked, None),
        }
    }

    /// Returns the rows of the app.
    pub(super) async fn rows(&self, step: impl Display) -> BTreeMap<u64, String> {
        match self.try_rows().await {
            Ok(rows) => rows,
            Err(error) => self.fail(step, format_args!("the rows could not be read: {error}")),
        }
    }

    async fn try_rows(&self) -> Result<BTreeMap<u64, String>, String> {
        let found = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&found);
        let read = self.store().join(Box::new(move |tx| {
            let rows = F::rows(tx.native())?;
            *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
            Ok(())
        }));
        match AssertUnwindSafe(read).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("a panic".into()),
        }
        let rows = found.lock().unwrap_or_else(PoisonError::into_inner).take();
        let rows = rows.ok_or("the job was not run")?;
        if !rows.is_sorted_by(|before, after| before.0 < after.0) {
            return Err(format!("they are not in the order of their keys: {rows:?}"));
        }
        Ok(rows.into_iter().collect())
    }

    /// Returns entries and rows. Reads the rows first: that is a join, which waits for a write that is still under way.
    pub(super) async fn both(&self, step: impl Display) -> Both {
        let rows = self.rows(&step).await;
        Both { entries: self.state(&step).await, rows }
    }

    /// Returns entries and rows, or `None` if the store refuses, as it may after an unknown outcome.
    pub(super) async fn try_both(&self) -> Option<Both> {
        let rows = self.try_rows().await.ok()?;
        Some(Both { entries: self.try_state().await?, rows })
    }

    /// Compares entries and rows with `expected`.
    pub(super) async fn expect_both(&self, step: impl Display, expected: &Both) {
        let found = self.both(&step).await;
        if found != *expected {
            self.fail(step, format_args!("the state differs: {}", found.difference(expected)));
        }
        self.expect(step, &expected.entries).await;
    }

    /// Whether the store is in the state after a join. If it is in neither that nor the state before, the property
    /// fails.
    pub(super) async fn expect_either_both(&self, step: impl Display, before: &Both, after: &Both) -> bool {
        let found = self.both(&step).await;
        self.whole_both(step, &found, before, after)
    }

    /// Whether `found` is the state after a join. If it is neither that nor the state before, the property fails.
    pub(super) fn whole_both(&self, step: impl Display, found: &Both, before: &Both, after: &Both) -> bool {
        if found != before && found != after {
            let (part, whole) = (found.difference(before), after.difference(before));
            self.fail(
                step,
                format_args!(
                    "part of a join is there: against the state before it: {part}; all of it: {whole}"
                ),
            );
        }
        found == after
    }
}

/// One join under a fault.
pub(super) struct Round {
    /// The step, for a failure message.
    pub(super) step: String,
    /// How the join ended.
    pub(super) outcome: Outcome,
    /// The job that was joined.
    pub(super) work: Work,
    /// The state before it.
    pub(super) before: Both,
    /// The state that it would leave.
    pub(super) after: Both,
}

/// Joins once under each fault, mends the medium, and calls `judge` to look at the store.
///
/// The judge may write and reopen. If the outcome was not `Ok` or `Rejected`, the store may refuse everything until
/// the judge has reopened it.
pub(super) async fn join_under_faults<F: JoinFixture>(
    subject: &mut Subject<'_, F>,
    mut judge: impl AsyncFnMut(&mut Subject<'_, F>, &Round),
) {
    let mut sweep = Sweep::of(subject.fixture());
    let mut number = 100;
    while let Some(fault) = sweep.next_fault() {
        // Each round has the numbers of two works: the second one is for the judge.
        number += 2;
        let step = format!("a join under {fault}");
        let before = subject.both(format_args!("before {step}")).await;
        let work = Work::new(number);
        let after = work.after(&before);
        subject.break_medium(fault);
        let (outcome, _) = subject.try_join(work.job::<F>()).await;
        subject.mend_medium();
        if outcome == Outcome::Fenced {
            subject.fail(step, "the only owner was fenced");
        }
        sweep.went_well(outcome == Outcome::Ok);
        let step = format!("{step}, which ended with {outcome}");
        judge(subject, &Round { step, outcome, work, before, after }).await;
    }
}
