//! A sweep: the medium fails at each of its operations in turn while a store works.

use crate::sorted_map::{self, SortedMap};
use crate::storage::samples::numbered_batch;
use crate::storage::subject::{Outcome, Subject};
use crate::{Fixture, MediumFault, MediumFaultKind, watchdog};

/// The last operation at which the medium fails. It is enough for a batch of a dozen entries in a store that logs,
/// indexes and syncs; a longer write is swept in part.
const FAULT_AT_MAX: u64 = 256;

/// How many acts in a row must go well until a sweep ends. A single one may have hidden its fault, for instance with a
/// repeated sync.
const QUIET_ROUNDS: u32 = 4;

/// All faults of a medium, one after the other. The caller says after each whether its act went well in spite of it.
pub(crate) struct Sweep {
    kinds: std::slice::Iter<'static, MediumFaultKind>,
    kind: Option<MediumFaultKind>,
    at: u64,
    quiet_rounds: u32,
}

impl Sweep {
    /// A sweep over all faults; over none, if the fixture cannot break its medium.
    pub(crate) fn of<F: Fixture>(fixture: &F) -> Self {
        let mut kinds = MediumFaultKind::ALL.iter();
        let kind = if fixture.break_medium(None) { kinds.next().copied() } else { None };
        Self { kinds, kind, at: 0, quiet_rounds: 0 }
    }

    /// Returns the next fault.
    pub(crate) fn next_fault(&mut self) -> Option<MediumFault> {
        if self.quiet_rounds == QUIET_ROUNDS || self.at > FAULT_AT_MAX {
            (self.kind, self.at, self.quiet_rounds) = (self.kinds.next().copied(), 0, 0);
        }
        let fault = MediumFault { at: self.at, kind: self.kind? };
        self.at += 1;
        Some(fault)
    }

    /// Takes note whether the act under the last fault went as if there were none.
    pub(crate) fn went_well(&mut self, well: bool) {
        self.quiet_rounds = if well { self.quiet_rounds + 1 } else { 0 };
    }
}

/// One write under a fault.
pub(crate) struct Round {
    /// The step, for a failure message.
    pub(crate) step: String,
    /// How the write ended.
    pub(crate) outcome: Outcome,
    /// The state before it.
    pub(crate) before: SortedMap,
    /// The state that it would leave.
    pub(crate) after: SortedMap,
    /// The number of its batch.
    pub(crate) number: u32,
}

/// Writes once under each fault, mends the medium, and calls `judge` to look at the store.
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
        // Each round has the numbers of two batches: the second one is for the judge.
        number += 2;
        let step = format!("a write under {fault}");
        let before = subject.state(format_args!("before {step}")).await;
        watchdog::step(&step);
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
