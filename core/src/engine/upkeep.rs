//! Upkeep: the engine's own work, done a step at a time between the writes of the app and of the peers.
//!
//! There are two kinds of upkeep. *Folding*: an update of the app may be able to merge values that lay beside their
//! records; from the opening on they are merged, page by page. *Mending*: a projection that is new, or has another
//! version, is made and filled, and debts of projections are paid.
//!
//! Owns: how far folding is, the page that is being folded, and when projections are mended next. Holds
//! always: a page has at most `FOLD_RECORDS_MAX` records; a page that could not be written is folded again, from its
//! beginning; a page is of records for which a commit waits, or of others, so that no value is read twice; a record of
//! which a value stays beside it never forgets that; folding that fails again and again keeps no call waiting; mending that
//! gets nothing done waits, ever longer, but for one step after a change of a projected record.

use std::collections::{BTreeSet, VecDeque};

use crate::clock::Mono;
use crate::events::RecordKey;
use crate::projection::Next;
use crate::storage::{Entry, Key, KeyRange, ScanPage};
use crate::stored::keys::{self, StoredKey};

use super::Machine;
use super::backoff::{Backoff, after};
use super::commit::{Besides, FOLD_BYTES_MAX, FOLD_RECORDS_MAX, FOLD_VALUES_MAX};
use super::context::Context;

/// The least time between two steps of mending in its pause, if the first got nothing done.
const REST_MS: u64 = 250;
/// The failures in a row after which no call waits for folding any longer.
const FAILURES_MAX: u32 = 3;

/// The engine's own work.
#[derive(Debug)]
pub(super) struct Upkeep {
    fold: Option<Fold>,
    /// The pause after a page could not be read or written.
    backoff: Backoff,
    /// Whether there may be a projection to mend.
    mends: bool,
    /// The pause after mending got nothing done.
    pause: Backoff,
    /// Whether a projected record has changed, so that a step may get something done in spite of the pause.
    changed: bool,
    /// Whether the step under way is one in spite of the pause.
    in_pause: bool,
    /// Until when no other step is done in spite of the pause, since one of these got nothing done: commits that come
    /// one after the other must not each be followed by a try of everything that is owed.
    rests_until: Option<Mono>,
}

/// How far the values beside records are folded.
#[derive(Debug)]
struct Fold {
    ranges: Ranges,
    /// `ranges` as they were when the page began: a page that failed begins there again.
    from: Ranges,
    /// Whether the page is of records for which a commit waits.
    is_urgent: bool,
    page: Vec<Besides>,
    bytes: usize,
    values: usize,
    /// Whether the page takes no more rows.
    full: bool,
    /// How many records the write of the page completes.
    changed: u64,
    /// The record of which the page before had a part, if a value of that part stays beside it.
    left_behind: Option<RecordKey>,
    /// The same of this page, once it is durable.
    leaves_behind: Option<RecordKey>,
    /// How many records folding has changed since the opening.
    records: u64,
    /// Records for which a commit has waited. A commit waits once for a record: a value that could not be merged then
    /// cannot be merged later either.
    hurried: BTreeSet<RecordKey>,
}

/// The ranges of values beside records that were not read yet.
#[derive(Clone, Debug)]
struct Ranges {
    /// Those of records for which a commit waits.
    urgent: VecDeque<KeyRange>,
    rest: KeyRange,
}

/// The next step of folding.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Read these rows.
    Scan(KeyRange),
    /// Read these records, then fold the page.
    Read(Vec<Key>),
    /// No value lies beside a record that this version of the app could merge.
    Done,
}

impl Upkeep {
    /// The upkeep from the opening on; `besides` says whether a value lies beside any record.
    pub(super) fn new(besides: bool, mends: bool) -> Self {
        let fold = besides.then(|| Fold::new(keys::besides()));
        let (backoff, pause) = (Backoff::default(), Backoff::default());
        Self { fold, backoff, mends, pause, changed: false, in_pause: false, rests_until: None }
    }

    /// Whether a record may lack values that lie beside it: a commit that reads it must have it folded first.
    ///
    /// `false` while folding fails again and again: a commit that waited for it might wait for ever.
    pub(super) fn is_folding(&self) -> bool {
        self.fold.is_some() && self.backoff.tries() < FAILURES_MAX
    }

    /// Whether a commit waits for records to be folded.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_folding() && self.fold.as_ref().is_some_and(|fold| !fold.ranges.urgent.is_empty())
    }

    /// How many records folding has changed; `None` once it has ended.
    pub(super) fn folded(&self) -> Option<u64> {
        self.fold.as_ref().map(|fold| fold.records)
    }

    /// Whether a projection may be incomplete, or owe a record.
    pub(super) fn mends(&self) -> bool {
        self.mends
    }

    /// Whether there is a step to do now.
    pub(super) fn waits(&self) -> bool {
        let folds = self.fold.is_some() && self.backoff.is_over();
        folds
            || self.mends
                && !self.is_folding()
                && (self.pause.is_over() || self.changed && self.rests_until.is_none())
    }

    /// Folds these records first, since a commit waits for them. Returns whether it has to wait.
    pub(super) fn hurry(&mut self, records: impl IntoIterator<Item = RecordKey>) -> bool {
        let Some(fold) = &mut self.fold else { return false };
        debug_assert!(fold.page.is_empty(), "a page that has begun is ended first");
        let before = fold.ranges.urgent.len();
        for record in records {
            let range = keys::besides_of(&record);
            if fold.hurried.insert(record) {
                fold.ranges.urgent.push_back(range);
            }
        }
        let waits = fold.ranges.urgent.len() > before;
        fold.from.clone_from(&fold.ranges);
        fold.begin_page();
        waits
    }

    /// The next step of folding; `None` once it has ended, and in a pause.
    pub(super) fn fold_step(&mut self) -> Option<Step> {
        self.fold.as_mut().filter(|_| self.backoff.is_over()).map(Fold::step)
    }

    /// Takes the rows of a [`Step::Scan`].
    pub(super) fn take_rows(&mut self, page: ScanPage, context: &Context) {
        if let Some(fold) = &mut self.fold {
            fold.take(page, context);
        }
    }

    /// Takes the page to fold.
    pub(super) fn take_page(&mut self) -> Vec<Besides> {
        self.fold.as_mut().map_or_else(Vec::new, |fold| std::mem::take(&mut fold.page))
    }

    /// Takes note of how many records the write of the page completes, and of the last one, if the page has a part of it
    /// and a value of that stays beside it.
    pub(super) fn decided(&mut self, completes: usize, leaves_behind: Option<RecordKey>) {
        if let Some(fold) = &mut self.fold {
            fold.changed = completes as u64;
            fold.leaves_behind = leaves_behind;
        }
    }

    /// Takes note that the page is durable, or had nothing to write. Returns how many records folding has changed, if
    /// that is news.
    pub(super) fn page_is_folded(&mut self) -> Option<u64> {
        self.backoff.reset();
        let fold = self.fold.as_mut()?;
        let changed = std::mem::take(&mut fold.changed);
        fold.records += changed;
        fold.left_behind = fold.leaves_behind.take();
        fold.from.clone_from(&fold.ranges);
        fold.begin_page();
        (changed > 0).then_some(fold.records)
    }

    /// Takes note that the page could not be read or written: it is folded again after a pause.
    pub(super) fn fold_failed(&mut self, now: Mono, rng: &mut fastrand::Rng) {
        self.backoff.again(now, rng);
        if let Some(fold) = &mut self.fold {
            fold.begin_page();
        }
    }

    /// Begins to fold anew, since a snapshot may have brought values that lie beside records.
    pub(super) fn begins_fold(&mut self) {
        if self.fold.is_none() {
            self.fold = Some(Fold::new(keys::besides()));
        }
    }

    /// Ends folding. Returns how many records it has changed.
    pub(super) fn end_fold(&mut self) -> u64 {
        self.fold.take().map_or(0, |fold| fold.records)
    }

    /// Takes note that projected records may have changed, and whether a projection owes one of them.
    pub(super) fn projected(&mut self, owes: bool) {
        self.mends |= owes;
        self.changed |= self.mends;
    }

    /// Takes note that a step of mending begins.
    pub(super) fn begin_mending(&mut self) {
        self.in_pause = !self.pause.is_over();
        self.changed = false;
    }

    /// Takes note of how the step ended.
    pub(super) fn mended(&mut self, next: Next, now: Mono, rng: &mut fastrand::Rng) {
        match next {
            Next::Again => self.pause.reset(),
            // A step in the pause makes it no longer: changes may come often.
            Next::Other | Next::Later if self.in_pause => self.rests_until = Some(after(now, REST_MS)),
            Next::Other => {}
            Next::Later => self.pause.again(now, rng),
            Next::Done => {
                self.mends = false;
                self.pause.reset();
            }
        }
    }
}

impl Fold {
    fn new(rest: KeyRange) -> Self {
        let ranges = Ranges { urgent: VecDeque::new(), rest };
        Self {
            from: ranges.clone(),
            ranges,
            is_urgent: false,
            page: Vec::new(),
            bytes: 0,
            values: 0,
            full: false,
            changed: 0,
            left_behind: None,
            leaves_behind: None,
            records: 0,
            hurried: BTreeSet::new(),
        }
    }

    /// Begins the page at `from`.
    fn begin_page(&mut self) {
        self.ranges.clone_from(&self.from);
        self.is_urgent = !self.ranges.urgent.is_empty();
        self.page.clear();
        (self.bytes, self.values, self.full, self.changed) = (0, 0, false, 0);
        self.leaves_behind = None;
    }

    fn step(&mut self) -> Step {
        if self.is_urgent && self.ranges.urgent.is_empty() && self.page.is_empty() {
            self.is_urgent = false;
        }
        if let Some(range) = self.range().filter(|range| !range.is_empty()) {
            return Step::Scan(range.clone());
        }
        if self.page.is_empty() {
            return Step::Done;
        }
        Step::Read(self.page.iter().map(|besides| besides.record.as_bytes().to_vec()).collect())
    }

    /// The range to read next, unless the page takes no more rows.
    fn range(&mut self) -> Option<&mut KeyRange> {
        match (self.full, self.is_urgent) {
            (true, _) => None,
            (false, true) => self.ranges.urgent.front_mut(),
            (false, false) => Some(&mut self.ranges.rest),
        }
    }

    /// Takes note that a range was read to its end.
    fn end_range(&mut self) {
        if self.is_urgent {
            self.ranges.urgent.pop_front();
        } else {
            self.ranges.rest.end = Some(self.ranges.rest.start.clone());
        }
    }

    /// Takes the rows of a scan. A value that cannot be merged, or is damaged, stays where it lies.
    fn take(&mut self, page: ScanPage, context: &Context) {
        for Entry { key, value } in page.entries {
            let Some(StoredKey::Beside(record, ..)) = StoredKey::parse(&key) else {
                self.go_on_after(&key);
                continue;
            };
            if context.models.merge_of(record.model()).is_none() {
                // Skip all values of the model at once: an app that knows no merge of it must not read them one by one.
                return self.skip_to(keys::besides_like(&record).end);
            }
            let same = self.page.last().is_some_and(|besides| besides.record == record);
            // Only the next row tells whether the last record has more values.
            let full = self.bytes >= FOLD_BYTES_MAX || self.values >= FOLD_VALUES_MAX;
            if full || !same && self.page.len() == FOLD_RECORDS_MAX {
                if let Some(last) = self.page.last_mut().filter(|_| same) {
                    last.all = false;
                }
                self.full = true;
                return;
            }
            self.bytes += key.len() + value.len();
            self.values += 1;
            self.go_on_after(&key);
            match self.page.last_mut().filter(|_| same) {
                Some(besides) => besides.values.push((key, value)),
                None => {
                    let others = self.left_behind.as_ref() == Some(&record);
                    self.page.push(Besides { record, values: vec![(key, value)], all: true, others });
                }
            }
        }
        if !page.more {
            self.end_range();
        }
    }

    /// Takes note that the range was read up to `key`.
    fn go_on_after(&mut self, key: &[u8]) {
        if let Some(range) = self.range() {
            *range = std::mem::replace(range, KeyRange::all()).after(key);
        }
    }

    /// Skips the range up to `end`.
    fn skip_to(&mut self, end: Option<Key>) {
        match (self.range(), end) {
            (Some(range), Some(end)) if range.end.as_ref().is_none_or(|last| end < *last) => {
                range.start = end;
            }
            _ => self.end_range(),
        }
    }
}

impl Machine for Upkeep {
    fn next_timeout(&self) -> Option<Mono> {
        let rests_until = self.rests_until.filter(|_| self.changed);
        [self.backoff.until(), self.pause.until(), rests_until].into_iter().flatten().min()
    }

    fn expire(&mut self, now: Mono) {
        self.backoff.expire(now);
        self.pause.expire(now);
        self.rests_until.take_if(|until| *until <= now);
    }

    fn check(&self) {
        if let Some(fold) = &self.fold {
            assert!(fold.page.len() <= FOLD_RECORDS_MAX, "{} records in a page", fold.page.len());
        }
    }
}

#[cfg(test)]
mod tests;
