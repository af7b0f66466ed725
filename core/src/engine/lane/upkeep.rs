//! A chapter of the engine: its own upkeep, which takes turns with the writes of the app and of the peers.

use crate::error::Error;
use crate::events::Event;
use crate::pages::PAGE;
use crate::projection::{Mended, Settled};
use crate::storage::{ReadError, ScanPage, Value};

use super::super::commit::Folded;
use super::super::upkeep::Step;
use super::super::writes::{Doing, Source};
use super::super::{Decision, Effect, Engine, JobId};

impl Engine {
    /// Does the next step of the upkeep: folding comes first, then mending projections.
    pub(super) fn begin_upkeep(&mut self) {
        match self.upkeep.fold_step() {
            Some(Step::Scan(range)) => {
                let job = self.writes.begin(Doing::ReadingBesides);
                self.effects.push_back(Effect::Scan(job, range, PAGE));
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
            }
            None => {
                self.upkeep.begin_mending();
                let job = self.writes.begin(Doing::Mending);
                self.effects.push_back(Effect::Mend(job));
            }
        }
    }

    /// Takes rows of values beside records. The write lane stays taken until their page is written, so that no record
    /// changes in between.
    pub(super) fn besides_read(&mut self, page: Result<ScanPage, ReadError>) {
        match page {
            Ok(page) => {
                self.upkeep.take_rows(page, &self.context);
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
        let Folded { batch, records, completes, leaves_behind } = pen.fold(self.upkeep.take_page(), values);
        self.used(pen);
        self.upkeep.decided(completes, leaves_behind);
        if batch.is_empty() {
            self.page_is_folded();
        } else if records.iter().any(|record| self.context.is_projected(record)) {
            let job = self.writes.begin(Doing::FoldingProjected);
            self.effects.push_back(Effect::WriteProjected(job, batch));
        } else {
            let nothing = Decision { batch, ..Decision::nothing(self.ledger.durable_clock()) };
            self.write(nothing, Source::Fold);
        }
    }

    /// Takes the result of a write that was made with its projections: it is durable, or certainly undone.
    pub(in crate::engine) fn projected(&mut self, job: JobId, result: Result<Settled, Error>) {
        let ended = match self.writes.end(job) {
            Doing::Installing(installing) => {
                self.install_projected(installing, &result);
                Doing::Nothing
            }
            ended => ended,
        };
        let ok = result.is_ok();
        if let Ok(settled) = result {
            self.effects.extend(settled.notices.into_iter().map(Effect::Notify));
            self.upkeep.projected(settled.owes);
        }
        match ended {
            Doing::Nothing => {}
            Doing::MendingProjected => self.mend_written(ok),
            Doing::FoldingProjected if ok => self.page_is_folded(),
            Doing::FoldingProjected => self.upkeep.fold_failed(self.now.mono, &mut self.rng),
            other => debug_assert!(false, "a write with projections ended during {other:?}"),
        }
    }

    pub(super) fn page_is_folded(&mut self) {
        if let Some(records) = self.upkeep.page_is_folded() {
            self.tell(Event::Folding { records, complete: false });
        }
    }

    /// Takes the result of a step of mending.
    pub(in crate::engine) fn mended(&mut self, job: JobId, mended: Mended) {
        let ended = self.writes.end(job);
        debug_assert!(matches!(ended, Doing::Mending), "projections were mended during {ended:?}");
        if let Some(status) = mended.told {
            self.tell(Event::Projection(status));
        }
        self.upkeep.mended(mended.next, self.now.mono, &mut self.rng);
    }
}
