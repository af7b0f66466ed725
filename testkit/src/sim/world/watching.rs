//! What the tasks of a run find wrong. A task cannot end the run, so it reports the failure and the world takes it.

use std::cell::RefCell;
use std::rc::Rc;

use crate::sim::Failure;

/// The failure that a task has reported, until the world takes it. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Findings(Rc<RefCell<Option<Failure>>>);

impl Findings {
    pub(super) fn report(&self, failure: Failure) {
        *self.0.borrow_mut() = Some(failure);
    }

    pub(super) fn take(&self) -> Option<Failure> {
        self.0.borrow_mut().take()
    }
}
