//! Faults of a store, for tests of the code above it, which has to survive one at each operation.

mod faulty;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use faulty::Faulty;

/// When and how a [`Faulty`] store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The operation that fails first, counted from zero since the fault was armed, among those that can fail this
    /// way.
    pub at: u64,
    /// How it fails.
    pub kind: FaultKind,
    /// Whether all later operations that can fail this way fail too.
    pub sticky: bool,
}

impl Fault {
    /// A fault of the operation `at` alone.
    #[must_use]
    pub const fn once(at: u64, kind: FaultKind) -> Self {
        Self { at, kind, sticky: false }
    }

    /// A fault of the operation `at` and of all after it.
    #[must_use]
    pub const fn sticky(at: u64, kind: FaultKind) -> Self {
        Self { at, kind, sticky: true }
    }
}

/// How an operation fails. A joined write is a write; where its job matters, the kind says what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A read returns an error.
    ReadError,
    /// A write is rejected, and was not applied. The job of a joined write was not run.
    Rejected,
    /// A joined write is rejected after its job has run, and is undone. A plain write cannot fail this way.
    Undone,
    /// A write has an unknown outcome, and was applied. The store stops.
    UnknownApplied,
    /// A write has an unknown outcome, and was not applied: the job of a joined write ran, and was undone. The store
    /// stops.
    UnknownLost,
    /// A read or write panics before it does anything. The store stops.
    PanicBefore,
    /// A read or write panics after it was done. The store stops.
    PanicAfter,
    /// A write finds that another owner took over, and was not applied. All later writes of the store find so too.
    Fenced,
}

impl FaultKind {
    /// All kinds, for sweeps.
    pub const ALL: [Self; 8] = [
        Self::ReadError,
        Self::Rejected,
        Self::Undone,
        Self::UnknownApplied,
        Self::UnknownLost,
        Self::PanicBefore,
        Self::PanicAfter,
        Self::Fenced,
    ];

    const fn fits(self, operation: Operation) -> bool {
        match self {
            Self::PanicBefore | Self::PanicAfter => true,
            Self::ReadError => matches!(operation, Operation::Read),
            Self::Undone => matches!(operation, Operation::Join),
            Self::Rejected | Self::UnknownApplied | Self::UnknownLost | Self::Fenced => {
                matches!(operation, Operation::Write | Operation::Join)
            }
        }
    }
}

/// The handle by which a test arms faults and counts operations. Clones share one plan.
///
/// It outlives the stores that it is given to, so a sweep looks like this:
/// ```
/// use syncline_testkit::{Disk, Fault, FaultKind, Faults, Faulty, Fixture as _, block_on};
/// use syncline::{Storage as _, WriteBatch};
///
/// let (disk, faults) = (Disk::new(), Faults::new());
/// for at in 0.. {
///     // Reopening makes a stopped store work again.
///     let store = Faulty::new(block_on(disk.open()).unwrap(), faults.clone());
///     faults.arm(Fault::once(at, FaultKind::UnknownApplied));
///     for _ in 0..3 {
///         let _ = block_on(store.write(WriteBatch::new()));
///     }
///     if !faults.fired() {
///         assert_eq!(at, 3);
///         break;
///     }
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    fault: Option<Fault>,
    fitting: u64,
    fired: bool,
    reads: u64,
    writes: u64,
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Arms `fault` instead of whatever was armed, and counts from zero.
    pub fn arm(&self, fault: Fault) {
        *self.plan() = Plan { fault: Some(fault), ..Plan::default() };
    }

    /// Arms nothing, and counts from zero. A store that has stopped does not go on.
    pub fn disarm(&self) {
        *self.plan() = Plan::default();
    }

    /// Whether the fault has happened since it was armed. If it has not, a sweep over all operations is at its end.
    #[must_use]
    pub fn fired(&self) -> bool {
        self.plan().fired
    }

    /// How many reads have started since the plan last changed.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.plan().reads
    }

    /// How many writes have started, joined or not, since the plan last changed.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.plan().writes
    }

    /// How many operations have started since the plan last changed.
    #[must_use]
    pub fn operations(&self) -> u64 {
        let plan = self.plan();
        plan.reads + plan.writes
    }

    /// Counts an operation and says how it must fail.
    fn next(&self, operation: Operation) -> Option<FaultKind> {
        let mut plan = self.plan();
        match operation {
            Operation::Read => plan.reads += 1,
            Operation::Write | Operation::Join => plan.writes += 1,
        }
        let fault = plan.fault.filter(|fault| fault.kind.fits(operation))?;
        let seen = plan.fitting;
        plan.fitting += 1;
        let fires = if fault.sticky { seen >= fault.at } else { seen == fault.at };
        plan.fired |= fires;
        fires.then_some(fault.kind)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy)]
enum Operation {
    Read,
    Write,
    Join,
}
