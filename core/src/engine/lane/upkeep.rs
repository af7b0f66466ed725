//! A chapter of the engine: its own upkeep, which takes turns with the writes of the app and of the peers.

use crate::error::Error;
use crate::events::Event;
use crate::projection::ProjectionStatus;
use crate::storage::{Entry, ReadError, Value};
use crate::stored::keys;

use super::super::commit::Folded;
use super::super::upkeep::Step;
use super::super::writes::{Doing, Source};
use super::super::{Decision, Effect, Engine, JobId};

impl Engine {
    /// Does the next step of the upkeep: folding comes first, then rebuilding projections.
    pub(super) fn begin_upkeep(&mut self) {
        match self.upkeep.fold_step() {
            Some(Step::Scan(range, limit)) => {
                let job = self.writes.begin(Doing::ReadingBesides);
                self.effects.push_back(Effect::Scan(job, range, limit));
            }
            Some(Step::Read(keys)) => {
                let job = self.writes.begin(Doing::ReadingBesides);
                self.effects.push_back(Effect::Read(job, keys));
            }
            Some(Step::Done) => {
                let records = self.upkeep.end_fold();
                self.effects.push_back(Effect::Folded);
                if records > 0 {
                    self.tell(Event::Folding { records, complete: true });
                }
                // A call may have waited for the end of folding, or a projection for its rebuild.
                self.begin_write();
            }
            None => {
                let job = self.writes.begin(Doing::Rebuilding);
                self.effects.push_back(Effect::Rebuild(job));
            }
        }
    }

    /// Takes rows of values beside records. The write lane stays taken until their page is written, so that no record
    /// changes in between.
    pub(in crate::engine) fn besides_read(&mut self, job: JobId, rows: Result<Vec<Entry>, ReadError>) {
        let ended = self.writes.end(job);
        debug_assert!(matches!(ended, Doing::ReadingBesides), "rows were read during {ended:?}");
        match rows {
            Ok(rows) => {
                self.upkeep.take_rows(rows, &self.context);
                self.begin_upkeep();
            }
            Err(_) => self.upkeep.fold_failed(self.now.mono, &mut self.rng),
        }
    }

    /// Folds a page, given its records.
    pub(super) fn decide_fold(&mut self, values: Result<Vec<Option<Value>>, ReadError>) {
        let Ok(values) = values else {
            return self.upkeep.fold_failed(self.now.mono, &mut self.rng);
        };
        let mut pen = self.pen();
        let Folded { mut batch, records, completes, leaves_behind } =
            pen.fold(self.upkeep.take_page(), values);
        self.used(pen);
        let projects = self.upkeep.decided(completes, leaves_behind);
        let projections = self.context.projections_of(&records);
        if batch.is_empty() {
            self.page_is_folded();
        } else if projects && !projections.is_empty() {
            let job = self.writes.begin(Doing::FoldingProjected);
            self.effects.push_back(Effect::WriteProjected(job, batch));
        } else {
            // Reset the projections of these records in the same write: they miss its changes.
            projections.iter().for_each(|name| batch.delete(keys::projection(name)));
            if !projections.is_empty() {
                self.effects.push_back(Effect::Reset(projections));
            }
            let nothing = Decision { batch, ..Decision::nothing(self.ledger.durable_clock()) };
            self.write(nothing, Source::Fold);
        }
    }

    /// Takes the result of a page that was written with its projections: it is durable, or certainly undone.
    pub(in crate::engine) fn fold_projected(&mut self, job: JobId, result: &Result<(), Error>) {
        let ended = self.writes.end(job);
        debug_assert!(matches!(ended, Doing::FoldingProjected), "a page was folded during {ended:?}");
        match result {
            Ok(()) => self.page_is_folded(),
            Err(Error::Rejected(_) | Error::Read(_) | Error::Stopped(_)) => {
                self.upkeep.fold_failed(self.now.mono, &mut self.rng);
            }
            // A projection failed. Go on without the projections: one that always fails would stop folding for ever.
            Err(_) => self.upkeep.fold_without_projections(),
        }
    }

    pub(super) fn page_is_folded(&mut self) {
        if let Some(records) = self.upkeep.page_is_folded() {
            self.tell(Event::Folding { records, complete: false });
        }
    }

    /// Takes the result of rebuilding a page of a projection; `None` if no projection is left to rebuild.
    pub(in crate::engine) fn rebuilt(&mut self, job: JobId, told: Option<Option<ProjectionStatus>>) {
        let ended = self.writes.end(job);
        debug_assert!(matches!(ended, Doing::Rebuilding), "a page was rebuilt during {ended:?}");
        match told {
            Some(Some(status)) => self.tell(Event::Projection(status)),
            Some(None) => {}
            None => self.upkeep.rebuilt(),
        }
    }
}
