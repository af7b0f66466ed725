//! A page of a snapshot: the records behind a key, as they stand here, and the heads on which they rest.
//!
//! The heads are taken twice. Those of *before* the rows were read say what certainly is in the snapshot. Those of *after*
//! it, once a write that was under way meanwhile has ended too, say what may be in it: a commit of which only a part was
//! read is among them, so the puller knows that it needs the rest of it.
//!
//! The values that lie beside a record come with it, in the same page. An app that can merge them takes them into the record,
//! and that is no commit: a record from before it, and the values beside it from after it, would lack what was merged.
//!
//! Owns: the rows of the page, and the heads of before. Holds always: the heads of after cover whatever a row shows; a page
//! has a record and all that lies beside it, or neither; a row that cannot be read ends the snapshot, since a puller would
//! take a missing row for a deleted one.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ids::ReplicaId;
use crate::storage::{Entry, KeyRange, ScanLimit};
use crate::stored::keys::{self, StoredKey};
use crate::stored::record;

use super::super::context::Context;
use super::super::io::{Answer, Query};
use super::super::ledger::Ledger;
use super::super::wire::{
    Capped, RowsWriter, SnapshotHead, SnapshotPull, SnapshotRefusal, WireForgotten, WireStamped,
};

/// The most rows of one read.
const ROWS_MAX: usize = 4096;

/// A page of a snapshot that is being put together.
#[derive(Debug)]
pub(in crate::engine) struct RecordsPage {
    to: ReplicaId,
    pull: SnapshotPull,
    /// The heads of before, if the snapshot begins with this page.
    before: Vec<WireStamped>,
    /// The records that were not read yet; `None` once there are none.
    rest: Option<KeyRange>,
    /// The records that were read, and are not in the page yet.
    read: VecDeque<Entry>,
    /// The next record and what lies beside it, as far as that was read, and its bytes.
    group: Vec<Entry>,
    group_bytes: usize,
    /// The values beside the next record that were not read yet.
    besides: Option<KeyRange>,
    /// The ranges that are still to be counted, and what was counted.
    counting: VecDeque<KeyRange>,
    counted: Option<(u64, u64)>,
    entries: Vec<Entry>,
    bytes: usize,
    full: bool,
    refusal: Option<SnapshotRefusal>,
}

/// The heads here with their stamps, as a page names them.
fn stamped(ledger: &Ledger) -> Vec<WireStamped> {
    let heads = ledger.heads().iter().filter(|(_, head)| head.seq > 0);
    heads.map(|(stream, head)| WireStamped::of(*stream, head)).collect()
}

impl RecordsPage {
    /// Begins the page that answers a pull; `refusal` says why there can be none.
    pub(in crate::engine) fn new(
        to: ReplicaId,
        pull: SnapshotPull,
        refusal: Option<SnapshotRefusal>,
        ledger: &Ledger,
    ) -> Self {
        let begins = pull.after.is_empty();
        let all = [keys::records(), keys::besides()];
        let rest = if begins { keys::records() } else { keys::records().after(&pull.after) };
        Self {
            to,
            before: if begins { stamped(ledger) } else { Vec::new() },
            rest: Some(rest),
            read: VecDeque::new(),
            group: Vec::new(),
            group_bytes: 0,
            besides: None,
            counting: if begins { all.into() } else { VecDeque::new() },
            counted: begins.then_some((0, 0)),
            entries: Vec::new(),
            bytes: 0,
            full: false,
            refusal,
            pull,
        }
    }

    /// Where the snapshot begins, if it does so with this page: as long as it is served, the log is needed from there on.
    pub(in crate::engine) fn begins_at(&self) -> Option<(ReplicaId, Vec<(ReplicaId, u64)>)> {
        let begins = self.pull.after.is_empty() && self.refusal.is_none();
        begins.then(|| (self.to, self.before.iter().map(|head| (head.stream, head.seq)).collect()))
    }

    /// The next read; `None` once all rows of the page were read.
    pub(in crate::engine) fn step(&self) -> Option<Query> {
        if self.refusal.is_some() || self.full {
            return None;
        }
        if let Some(range) = self.counting.front() {
            return Some(Query::Count(range.clone()));
        }
        let range = self.besides.as_ref().or(self.rest.as_ref())?;
        Some(Query::Scan(range.clone(), ScanLimit { entries: ROWS_MAX, bytes: self.left().max(1) }))
    }

    fn left(&self) -> usize {
        usize::try_from(self.pull.budget).unwrap_or(usize::MAX).saturating_sub(self.bytes)
    }

    /// Takes the answer to the read.
    pub(in crate::engine) fn take(&mut self, answer: Answer, room: usize) {
        let page = match answer {
            Answer::Page(page) => page,
            Answer::Count(rows, bytes) => {
                self.counting.pop_front();
                self.counted = self.counted.map(|(before, more)| (before + rows, more + bytes));
                return;
            }
            Answer::Values(_) => return debug_assert!(false, "no keys were read"),
        };
        let last = page.entries.last().map(|entry| entry.key.clone());
        let behind = |range: KeyRange| match last {
            Some(last) => range.after(&last),
            None => range,
        };
        if let Some(range) = self.besides.take() {
            self.besides = page.more.then(|| behind(range));
            page.entries.into_iter().for_each(|entry| self.add(entry, room));
        } else if let Some(range) = self.rest.take() {
            self.rest = page.more.then(|| behind(range));
            self.read = page.entries.into();
        }
        self.fill(room);
    }

    /// Puts the records that were read into the page, up to the first one whose values beside it are to be read.
    fn fill(&mut self, room: usize) {
        while self.besides.is_none() && self.refusal.is_none() && !self.full {
            if !self.group.is_empty() {
                if !self.entries.is_empty()
                    && (self.group_bytes > self.left() || self.bytes + self.group_bytes > room)
                {
                    self.full = true;
                    return;
                }
                self.bytes += std::mem::take(&mut self.group_bytes);
                self.entries.append(&mut self.group);
            }
            let Some(entry) = self.read.pop_front() else { break };
            self.add(entry, room);
        }
        self.full |= self.left() == 0;
    }

    /// Adds a row to the next group.
    fn add(&mut self, Entry { key, value }: Entry, room: usize) {
        let beside = match (StoredKey::parse(&key), record::parse(&value)) {
            (Some(StoredKey::Record(record)), Ok((header, _))) => {
                header.merge.is_some_and(|merge| merge.beside).then(|| keys::besides_of(&record))
            }
            (Some(StoredKey::Beside(..)), Ok(_)) => self.besides.take(),
            _ => return self.refusal = Some(SnapshotRefusal::Damaged),
        };
        self.besides = beside;
        self.group_bytes += RowsWriter::bytes_of(key.len(), value.len());
        if self.group_bytes > room {
            self.refusal = Some(SnapshotRefusal::TooLong);
        }
        self.group.push(Entry { key, value });
    }

    /// Takes note that the store could not be read.
    pub(in crate::engine) fn fail(&mut self) {
        self.refusal = Some(SnapshotRefusal::NotNow);
    }

    pub(in crate::engine) fn room(pull: &SnapshotPull, ledger: &Ledger) -> usize {
        let frame = usize::try_from(pull.frame_bytes).unwrap_or(usize::MAX);
        RowsWriter::room(frame, ledger.heads().len().saturating_mul(2), ledger.all_forgotten().len())
    }

    pub(in crate::engine) fn pull(&self) -> &SnapshotPull {
        &self.pull
    }

    /// The page as it is sent, with the heads of now: no write is under way that began before the rows were read.
    pub(in crate::engine) fn finish(self, ledger: &Ledger, context: &Context) -> (ReplicaId, u32, Bytes) {
        let Self { to, pull, before, rest, read, group, counted, entries, refusal, .. } = self;
        let mut rows = RowsWriter::default();
        if refusal.is_none() {
            entries.iter().for_each(|entry| rows.push(&entry.key, &entry.value));
        }
        let forgotten = ledger.all_forgotten().iter();
        let head = SnapshotHead {
            id: pull.id,
            refusal,
            before: Capped(before),
            heads: Capped(stamped(ledger)),
            forgotten: Capped(forgotten.map(|(model, stamp)| WireForgotten::of(model, *stamp)).collect()),
            of: counted,
            more: rest.is_some() || !read.is_empty() || !group.is_empty(),
        };
        (to, pull.id, rows.finish(context.group(), &head))
    }
}
