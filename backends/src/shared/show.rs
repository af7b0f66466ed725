//! Entries that an engine lends, shown to whoever reads them.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use syncline::{Entry, ScanLimit, ScanMeter, ScanPage, Visitor};

/// Shows entries up to a limit. A panic of the visitor is kept until the engine is left: it is none of the engine's, and
/// must not end the store.
pub(crate) struct Show<'v> {
    meter: ScanMeter,
    each: Visitor<'v>,
    panic: Option<Box<dyn Any + Send>>,
}

impl<'v> Show<'v> {
    pub(crate) fn new(limit: ScanLimit, each: Visitor<'v>) -> Self {
        Self { meter: ScanMeter::new(limit), each, panic: None }
    }

    /// Shows the next entry; says whether to go on. A read that is told to break has more to come, perhaps.
    pub(crate) fn entry(&mut self, key: &[u8], value: &[u8]) -> ControlFlow<()> {
        if !self.meter.takes(key, value) {
            return ControlFlow::Break(());
        }
        match catch_unwind(AssertUnwindSafe(|| (self.each)(key, value))) {
            Ok(ControlFlow::Continue(())) if self.meter.is_full() => ControlFlow::Break(()),
            Ok(flow) => flow,
            Err(panic) => {
                self.panic = Some(panic);
                ControlFlow::Break(())
            }
        }
    }

    /// Panics if the visitor did.
    pub(crate) fn end(self) {
        if let Some(panic) = self.panic {
            resume_unwind(panic);
        }
    }
}

/// Returns the page that `read` shows.
pub(crate) fn page<E>(
    limit: ScanLimit,
    read: impl FnOnce(&mut Show<'_>) -> Result<bool, E>,
) -> Result<ScanPage, E> {
    let mut entries = Vec::new();
    let mut each = |key: &[u8], value: &[u8]| {
        entries.push(Entry { key: key.to_vec(), value: value.to_vec() });
        ControlFlow::Continue(())
    };
    let more = read(&mut Show::new(limit, &mut each))?;
    Ok(ScanPage { entries, more })
}
