//! The apps of replicas at rest: their projections are whole and owe nothing, and no value waits to be merged.

use std::cell::RefCell;
use std::rc::Rc;

use syncline::internals::history::StoredRecord;
use syncline::{ProjectionState, Syncable as _};

use super::World;
use crate::sim::app::{Kind, with_set};
use crate::sim::models::{AnySet as _, Set, serials_of_set};
use crate::sim::oracle::View;
use crate::sim::{Failure, fail};

impl World {
    /// Takes note of what the app of a process has met, as its store shows it.
    pub(super) fn note_kinds(&mut self, at: usize, view: &View) {
        let process = &mut self.processes[at];
        let debts = view.projections.iter().map(|projection| projection.debts.len()).sum();
        let before = std::mem::replace(&mut process.debts, debts);
        let (schema, knows_sets) = (process.app.version.schema, process.knows_sets.get());
        let is_older = |record: &StoredRecord| {
            record.record.model() == Set::SYNC_MODEL && record.value.is_some() && record.schema < schema
        };
        let met = [
            (Kind::Debt, debts > 0),
            (Kind::DebtPaid, debts < before),
            (Kind::Rebuilding, view.projections.iter().any(|projection| !projection.is_complete())),
            (Kind::MergeFailed, knows_sets && view.besides.iter().any(|beside| beside.schema <= schema)),
            (Kind::Newer, knows_sets && view.besides.iter().any(|beside| beside.schema > schema)),
            (Kind::Older, view.records.iter().any(is_older)),
        ];
        met.into_iter().filter(|(_, met)| *met).for_each(|(kind, _)| self.kinds.note(kind));
    }

    /// Checks the app of a replica at rest (C8, C18): it has merged every value, reads every set whatever version wrote
    /// it, and its projections have all records.
    pub(super) fn check_app(&mut self, at: usize) -> Result<(), Failure> {
        let Some(manager) = self.manager(at) else { return Ok(()) };
        let process = &self.processes[at];
        let (id, version) = (process.id, process.app.version);
        let view = process.disk.image().settled().and_then(|image| View::of(id, &image));
        let Ok(view) = view else { return fail("I1 a store is whole", format!("{id} cannot be read")) };
        if let Some(beside) = view.besides.first() {
            return fail("C8 what could not be merged waits", format!("{id} has not merged {beside:?}"));
        }
        let Some(status) = self.status_of(at)? else { return Ok(()) };
        let owes = status.projections.iter().find(|projection| {
            projection.debts > 0
                || projection.first_debt.is_some()
                || projection.state != ProjectionState::Complete
        });
        if let Some(owes) = owes {
            return fail("C18 debts are paid", format!("{id} says {owes:?}"));
        }
        let unpaid = view
            .projections
            .iter()
            .find(|projection| !projection.is_complete() || !projection.debts.is_empty());
        if let Some(unpaid) = unpaid {
            return fail("C18 debts are paid", format!("{id} has {unpaid:?}"));
        }
        let expected = if version.projects == 0 { 0 } else { 2 };
        if (view.projections.len(), status.projections.len()) != (expected, expected) {
            return fail("C18 debts are paid", format!("{id} has {:?}", view.projections));
        }
        let sets = view.records.iter().filter_map(|record| Some((record.record.id::<Set>()?, record)));
        for (set, record) in sets {
            let stored = record.value.as_deref().and_then(|value| serials_of_set(record.schema, value));
            let (read, manager) = (Rc::new(RefCell::new(None)), manager.clone());
            let told = Rc::clone(&read);
            self.executor.spawn(Some(at), async move {
                let found = with_set!(version, S => {
                    manager.get::<S>(set).await.map(|found| found.map(|found| found.serials()))
                });
                *told.borrow_mut() = Some(found);
            });
            self.settle()?;
            let read = read.take();
            if !matches!(&read, Some(Ok(found)) if *found == stored) {
                let detail = format!("{id} has {stored:?} in set {set}, and reads {read:?}");
                return fail("C17 what was committed reads back", detail);
            }
        }
        Ok(())
    }
}
