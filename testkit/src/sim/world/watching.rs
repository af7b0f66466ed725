//! What the tasks of a run find wrong. A task cannot end the run, so it reports the failure and the world takes it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use syncline::{Event, Events, ReplicaId};

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

/// Follows the events of one life of a replica: the changes of a stream come in the order of its commits, and none of
/// them comes twice (C4).
pub(super) async fn watch(mut events: Events, findings: Findings) {
    let mut last = BTreeMap::<ReplicaId, (u64, BTreeSet<String>)>::new();
    while let Some(event) = events.next().await {
        let Ok(Event::Changed(change)) = event else { continue };
        let seen = last.entry(change.stamp.replica()).or_default();
        if change.seq > seen.0 {
            *seen = (change.seq, BTreeSet::new());
        }
        if change.seq < seen.0 || !seen.1.insert(change.record.to_string()) {
            let detail = format!("commit {} of {} is told again", change.seq, change.stamp.replica());
            findings.report(Failure { property: "C4 events come once, in order", detail, at_ms: 0 });
        }
    }
}
