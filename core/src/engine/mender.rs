//! Mending the values of a commit: where each of them belongs, and which records must be made again.
//!
//! A value lies in the record that its commit wrote last, or beside the log. If a record does not say that it is of the
//! commit, it may be of a later one, or it may be damaged itself. It is of the commit that it names if the log row of that
//! one says so too.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::ReplicaId;
use crate::storage::{Value, WriteBatch};
use crate::stored::keys;
use crate::stored::log::split_row;
use crate::stored::record::{self, Header, Merged};
use crate::stored::{LogEntry, Pruned, Reference};

use super::ledger::Ledger;

/// Names a commit.
type Dot = (ReplicaId, u64);

/// A commit whose values are mended, with all that is here of them.
pub(super) struct Mender<'a> {
    pub(super) stream: ReplicaId,
    pub(super) seq: u64,
    pub(super) entry: &'a LogEntry,
    /// The value of each change, as a peer brought it.
    pub(super) brought: &'a [Option<Bytes>],
    /// The record of each change, and then the kept value of each.
    pub(super) found: &'a [Option<Value>],
    pub(super) ledger: &'a Ledger,
}

/// A change, with what is here of it.
struct Change<'a> {
    change: &'a Reference,
    /// The header of its record, if nothing but the change is in it.
    alone: Header,
    value: Option<&'a Bytes>,
    held: Option<&'a Value>,
    /// The header of the record, if it can be read.
    header: Option<Header>,
    kept: Option<&'a Value>,
}

impl<'a> Mender<'a> {
    fn changes(&self) -> impl Iterator<Item = Change<'a>> {
        let (entry, seq) = (self.entry, self.seq);
        let (records, kept) = self.found.split_at(self.found.len().min(entry.changes.len()));
        let all = entry.changes.iter().zip(self.brought).zip(records.iter().zip(kept));
        all.map(move |((change, value), (held, kept))| {
            let held = held.as_ref();
            let header = held.and_then(|held| record::parse(held).ok()).map(|(header, _)| header);
            let alone = Header::of(change, entry.stamp, seq);
            Change { change, alone, value: value.as_ref(), held, header, kept: kept.as_ref() }
        })
    }

    /// The commits whose log rows say whether the records of this one are of them.
    pub(super) fn dots(&self) -> Vec<Dot> {
        let mut dots: Vec<_> = self.changes().filter_map(|change| self.doubtful(&change)).collect();
        dots.sort_unstable();
        dots.dedup();
        dots
    }

    /// The commit that the record of a put names, if it is another one, and the value was not kept as it should be then.
    fn doubtful(&self, change: &Change<'_>) -> Option<Dot> {
        let header = change.header.filter(|header| !header.holds(self.stream, self.seq))?;
        let (stream, seq) = (header.stamp.replica(), header.seq);
        let head = self.ledger.head(stream);
        let is_logged = (head.floor + 1..=head.seq).contains(&seq);
        (change.value.is_some() && change.kept.is_none() && is_logged).then_some((stream, seq))
    }

    /// The rows to write, given the log rows of [`dots`](Mender::dots).
    pub(super) fn batch(&self, rows: BTreeMap<Dot, Option<Value>>) -> WriteBatch {
        let entry = |((stream, seq), row): (Dot, Option<Value>)| {
            let entry = LogEntry::parse(stream, split_row(&row?).ok()?.1).ok()?;
            Some(((stream, seq), entry))
        };
        let rows: BTreeMap<Dot, LogEntry> = rows.into_iter().filter_map(entry).collect();
        let mut batch = WriteBatch::new();
        for change in self.changes() {
            let (key, value) = (change.change.record.as_bytes(), change.value.map_or(&[][..], |value| value));
            if self.is_of_another(&change, &rows) {
                if change.value.is_some() && change.kept.is_none_or(|kept| kept != value) {
                    batch.put(keys::kept(self.stream, self.seq, &change.change.record), value.to_vec());
                }
                continue;
            }
            let beside = |header: Header| header.merge.is_some_and(|merge| merge.beside);
            let beside = change.header.is_some_and(beside);
            let merge = change.alone.merge.map(|merge| Merged { beside, ..merge });
            let record = record::of(&Header { merge, ..change.alone }, value);
            if change.held != Some(&record) {
                batch.put(key.to_vec(), record);
            }
        }
        batch
    }

    /// Whether the record of a change is of another commit, so that it stays as it is.
    fn is_of_another(&self, change: &Change<'_>, rows: &BTreeMap<Dot, LogEntry>) -> bool {
        // A put that is kept is not in its record; if that cannot be read, it is another damage.
        if change.value.is_some() && change.kept.is_some() {
            return change.header.is_none_or(|header| !header.holds(self.stream, self.seq));
        }
        let epoch = change.alone.merge.map(|merge| merge.epoch);
        if change.held.is_none() && Pruned::of(self.ledger.heads()).may_lack(self.entry.stamp, epoch) {
            // The record may have been deleted and forgotten: it must not come back.
            return true;
        }
        let Some(header) = change.header.filter(|header| !header.holds(self.stream, self.seq)) else {
            return false;
        };
        if change.value.is_none() {
            return header.fits(&change.alone);
        }
        let (stream, seq) = (header.stamp.replica(), header.seq);
        // Below the floor no row is left that could say so.
        let head = self.ledger.head(stream);
        seq <= head.floor
            || rows.get(&(stream, seq)).is_some_and(|entry| is_of(&header, entry, change.change))
    }
}

/// Whether a commit made the record with this header.
fn is_of(header: &Header, entry: &LogEntry, change: &Reference) -> bool {
    let named = entry.changes.binary_search_by(|named| named.record.cmp(&change.record)).ok();
    let Some(named) = named.and_then(|at| entry.changes.get(at)) else { return false };
    let alone = Header::of(named, entry.stamp, header.seq);
    match header.merge {
        // A record that was merged of several values has the stamp of the last of them.
        Some(merge) if merge.mixed => alone.stamp == header.stamp,
        _ => header.fits(&alone),
    }
}
