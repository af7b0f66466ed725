//! Picking the commits of a page: the next ones of each stream, merged across streams in the order of their stamps.
//!
//! The stamp of a commit is above the stamps of its causes. So a page can be cut anywhere, and is applied front to
//! back.
//!
//! Owns: a cursor in the log of each stream, and the picked commits. Holds always: a scan reads no more bytes than its
//! stream's share of the budget, unless it is of one row; but for its first commit, a page is within its budget; every commit in it finds its causes at the puller or before it in the page.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::ReplicaId;
use crate::storage::{Entry, Value};
use crate::stored::keys::{self, StoredKey};
use crate::stored::{Cause, Digest, LogEntry, log};

use super::super::context::Context;
use super::super::io::Query;
use super::super::ledger::Ledger;
use super::super::wire::{self, Pull, TooLong};

/// The fewest rows of one scan, in case the next rows are shorter than those before.
const ROWS_MIN: usize = 16;
/// The most rows of one scan.
const ROWS_MAX: usize = 1024;

/// Picks the commits of a page.
#[derive(Debug)]
pub(super) struct Picker {
    budget: usize,
    /// The longest commit that the puller takes, in bytes.
    commit_max: usize,
    /// The streams of the puller, as they are once it has applied the page.
    has: BTreeMap<ReplicaId, u64>,
    /// The bytes of rows that one scan of a stream may read, unless a single row is longer.
    share: usize,
    streams: Vec<Cursor>,
    /// The index of the stream whose rows are read.
    reading: usize,
    picked: Picked,
}

/// The picked commits, and what the head of their page says.
#[derive(Debug, Default)]
pub(super) struct Picked {
    pub(super) commits: Vec<LogRow>,
    /// The bytes of the commits in the page.
    pub(super) bytes: usize,
    /// Whether there were more commits than fit.
    pub(super) more: bool,
    /// Whether a log here begins behind what the puller has.
    pub(super) pruned: bool,
    pub(super) too_long: Option<TooLong>,
    /// The streams of which the puller has another history, each with its place.
    pub(super) forked: Vec<(ReplicaId, u64)>,
}

/// A commit as it stands in the log.
#[derive(Debug)]
pub(super) struct LogRow {
    pub(super) stream: ReplicaId,
    pub(super) seq: u64,
    pub(super) row: Value,
    pub(super) entry: LogEntry,
}

/// A cursor in the log of a stream.
#[derive(Debug)]
struct Cursor {
    stream: ReplicaId,
    next: u64,
    last: u64,
    /// The digest before `next` by the puller's word, until it was compared.
    unchecked: Option<Digest>,
    rows: VecDeque<LogRow>,
    /// Whether nothing more of the stream goes into this page.
    ended: bool,
}

impl LogRow {
    /// The bytes that the commit counts for in a page.
    fn bytes(&self) -> usize {
        let values = self.entry.changes.iter().filter_map(|change| change.value);
        let values = values.map(|value| value.len()).fold(0, usize::saturating_add);
        let entry = self.row.len().saturating_sub(size_of::<Digest>());
        wire::commit_bytes(entry, values)
    }
}

impl Picker {
    /// Begins to answer a pull. Nothing of the stream `hidden` is served.
    pub(super) fn new(pull: Pull, hidden: Option<ReplicaId>, ledger: &Ledger, context: &Context) -> Self {
        let Pull { budget, frame_bytes, heads, excluded, .. } = pull;
        let commit_max = wire::commit_max(usize::try_from(frame_bytes).unwrap_or(usize::MAX));
        let budget = usize::try_from(budget).unwrap_or(usize::MAX);
        let budget = budget.min(context.limits.frame_bytes_max / 2).min(commit_max);
        // Leave out heads at 0: the beginning of a stream has no digest to compare.
        let told: BTreeMap<_, _> =
            heads.0.iter().filter(|head| head.seq > 0).map(|head| (head.stream, head.point())).collect();
        let mut excluded: BTreeSet<_> = excluded.0.into_iter().collect();
        excluded.extend(hidden);
        let mut picker = Self {
            budget,
            commit_max,
            has: told.iter().map(|(stream, point)| (*stream, point.seq)).collect(),
            share: 0,
            streams: Vec::new(),
            reading: 0,
            picked: Picked::default(),
        };
        let wanted = ledger.heads().iter().filter(|(stream, head)| {
            told.get(*stream).map_or(0, |point| point.seq) < head.seq && !excluded.contains(*stream)
        });
        // The rows of all streams may lie in memory at once, so the streams share the budget.
        picker.share = budget / wanted.clone().count().max(1);
        for (stream, head) in wanted {
            let has = told.get(stream);
            let seq = has.map_or(0, |point| point.seq);
            if seq < head.floor {
                picker.picked.pruned = true;
                continue;
            }
            picker.streams.push(Cursor {
                stream: *stream,
                next: seq + 1,
                last: head.seq,
                unchecked: has.map(|point| point.digest),
                rows: VecDeque::new(),
                ended: false,
            });
        }
        picker
    }

    /// Picks commits until the page is full or no more are left; returns the next read, if one is needed to go on.
    pub(super) fn step(&mut self, ledger: &Ledger) -> Option<Query> {
        loop {
            let unread =
                |cursor: &Cursor| !cursor.ended && cursor.rows.is_empty() && cursor.next <= cursor.last;
            if let Some(at) = self.streams.iter().position(unread) {
                self.reading = at;
                let cursor = self.streams.get(at)?;
                let left = usize::try_from(cursor.last - cursor.next + 1).unwrap_or(usize::MAX);
                let range = keys::logs_from(cursor.stream, cursor.next);
                let fit = ledger.rows_within(cursor.stream, cursor.next, self.share).min(ROWS_MAX);
                return Some(Query::Scan(range, fit.min(left).min(self.rows_left())));
            }
            let waiting = self.streams.iter_mut().filter(|cursor| !cursor.ended && !cursor.rows.is_empty());
            let first = waiting.min_by_key(|cursor| cursor.rows.front().map(|row| row.entry.stamp));
            let Some(cursor) = first else { break };
            let Some(row) = cursor.rows.pop_front() else { break };
            let rests = |cause: &Cause| self.has.get(&cause.stream).copied().unwrap_or(0) >= cause.seq;
            if !row.entry.after.iter().all(rests) {
                // The commit rests on a stream that was left out, and so do all later commits of its stream.
                cursor.ended = true;
                continue;
            }
            let bytes = row.bytes();
            if bytes > self.commit_max {
                // The puller would refuse any page that has this commit, and get no other one.
                let bytes = bytes.try_into().unwrap_or(u64::MAX);
                self.picked.too_long.get_or_insert(TooLong { stream: cursor.stream, seq: row.seq, bytes });
                cursor.ended = true;
                continue;
            }
            if !self.picked.commits.is_empty() && self.picked.bytes.saturating_add(bytes) > self.budget {
                self.picked.more = true;
                break;
            }
            self.picked.bytes += bytes;
            self.has.insert(cursor.stream, row.seq);
            self.picked.commits.push(row);
        }
        self.streams.clear();
        None
    }

    /// How many more rows the page has room for, if they are like those that it has, and the one that shows that there
    /// is more.
    fn rows_left(&self) -> usize {
        let row_bytes = self.picked.bytes / self.picked.commits.len().max(1);
        let rows = self.budget.saturating_sub(self.picked.bytes) / row_bytes.max(1);
        rows.saturating_add(1).max(ROWS_MIN)
    }

    /// Takes the rows of a scan.
    pub(super) fn take(&mut self, rows: Vec<Entry>) {
        let Some(cursor) = self.streams.get_mut(self.reading) else { return };
        for Entry { key, value } in rows {
            let seq = match StoredKey::parse(&key) {
                Some(StoredKey::Log(stream, seq)) if stream == cursor.stream && seq == cursor.next => seq,
                _ => break,
            };
            let parsed = log::split_row(&value)
                .and_then(|(previous, entry)| Ok((previous, LogEntry::parse(cursor.stream, entry)?)));
            let Ok((previous, entry)) = parsed else { break };
            cursor.next += 1;
            let forks = cursor.unchecked.take().is_some_and(|theirs| theirs != previous);
            cursor.rows.push_back(LogRow { stream: cursor.stream, seq, row: value, entry });
            if forks {
                // The puller sees the fork from this row, and no row behind it is of use.
                self.picked.forked.push((cursor.stream, seq - 1));
                cursor.last = seq;
                break;
            }
        }
        // A row that is missing, damaged or of another history ends what can be served of the stream.
        if cursor.rows.is_empty() {
            cursor.ended = true;
        }
    }

    /// The picked commits.
    pub(super) fn finish(&mut self) -> Picked {
        std::mem::take(&mut self.picked)
    }
}

#[cfg(test)]
mod tests;
