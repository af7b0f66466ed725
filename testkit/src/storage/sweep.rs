//! Breaks the medium at each of its operations in turn while a store writes.

use crate::sorted_map::{self, SortedMap};
use crate::storage::samples::numbered_batch;
use crate::storage::subject::{Outcome, Subject};
use crate::{Fixture, MediumFault, MediumFaultKind};

/// Enough for a batch of a dozen entries in a store that logs, indexes and syncs; a longer write is swept in part.
const FAULT_AT_MAX: u64 = 256;

/// An act that went well may have hidden a fault (a repeated sync, say), so the sweep ends after several in a row.
const QUIET_ROUNDS: u32 = 4;

/// Every fault, each followed by the verdict of the caller whether the act went as if there were none.
pub(crate) struct Sweep {
    kinds: std::slice::Iter<'static, MediumFaultKind>,
    kind: Option<MediumFaultKind>,
    at: u64,
    quiet_rounds: u32,
}

impl Sweep {
    /// A sweep over all faults. Without any if the fixture cannot break its medium.
    pub(crate) fn of<F: Fixture>(fixture: &F) -> Self {
        let mut kinds = MediumFaultKind::ALL.iter();
        let kind = if fixture.break_medium(None) { kinds.next().copied() } else { None };
        Self { kinds, kind, at: 0, quiet_rounds: 0 }
    }

    /// The next fault.
    pub(crate) fn next_fault(&mut self) -> Option<MediumFault> {
        if self.quiet_rounds == QUIET_ROUNDS || self.at > FAULT_AT_MAX {
            (self.kind, self.at, self.quiet_rounds) = (self.kinds.next().copied(), 0, 0);
        }
        let fault = MediumFault { at: self.at, kind: self.kind? };
        self.at += 1;
        Some(fault)
    }

    /// Says whether the act under the last fault went as if there were none.
    pub(crate) fn went_well(&mut self, well: bool) {
        self.quiet_rounds = if well { self.quiet_rounds + 1 } else { 0 };
    }
}

/// One write under a fault.
pub(crate) struct Round {
    /// What goes into a failure message.
    pub(crate) step: String,
    /// How the write went.
    pub(crate) outcome: Outcome,
    /// The state before it.
    pub(crate) before: SortedMap,
    /// The state that it would leave.
    pub(crate) after: SortedMap,
    /// The number of its batch.
    pub(crate) number: u32,
}

/// Writes under each fault in turn, the medium working again afterwards, and has `judge` look at the store.
///
/// The judge may write and reopen. If the outcome was not `Ok` or `Rejected`, the store may refuse everything until
/// the judge has reopened it.
pub(crate) async fn write_under_faults<F: Fixture>(
    subject: &mut Subject<'_, F>,
    mut judge: impl AsyncFnMut(&mut Subject<'_, F>, &Round),
) {
    let mut sweep = Sweep::of(subject.fixture());
    let mut number = 0;
    while let Some(fault) = sweep.next_fault() {
        // Two batches a round, the second one for the judge.
        number += 2;
        let step = format!("a write under {fault}");
        let before = subject.state(format_args!("before {step}")).await;
        let batch = numbered_batch(number);
        let after = sorted_map::after(&before, &batch);
        subject.break_medium(fault);
        let outcome = subject.try_write(batch).await;
        subject.mend_medium();
        if outcome == Outcome::Fenced {
            subject.fail(step, "the only owner was fenced");
        }
        sweep.went_well(outcome == Outcome::Ok);
        let step = format!("{step}, which ended with {outcome}");
        judge(subject, &Round { step, outcome, before, after, number }).await;
    }
}
