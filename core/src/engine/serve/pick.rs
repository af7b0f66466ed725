//! Which commits a page has: the next ones of each stream, merged across streams in the order of their stamps.
//!
//! The order of stamps respects what rests on what, so a page can be cut anywhere and is applied front to back.
//!
//! Owns: how far the log of each stream was looked at, and the commits that were chosen. Holds always: but for its first
//! commit, a page is within its budget.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::ReplicaId;
use crate::storage::{Entry, Value};
use crate::stored::keys::{self, StoredKey};
use crate::stored::{Digest, LogEntry, log};

use super::super::context::Context;
use super::super::io::Query;
use super::super::ledger::Ledger;
use super::super::wire::{PAGE_BYTES, Pull, TooLong};

/// The fewest rows that are read at once, should the next ones be shorter than those before.
const ROWS_MIN: usize = 16;
/// The most rows that are read at once.
const ROWS_MAX: usize = 1024;
/// What a commit takes in a page beside its entry and its values, about.
const COMMIT_BYTES: usize = 80;

/// Chooses the commits of a page.
#[derive(Debug)]
pub(super) struct Picker {
    budget: usize,
    /// How long a commit may be at most.
    commit_max: usize,
    /// What the puller will have once it has applied the page.
    has: BTreeMap<ReplicaId, u64>,
    streams: Vec<Cursor>,
    /// The stream whose rows are read.
    reading: usize,
    picked: Picked,
}

/// What was chosen.
#[derive(Debug, Default)]
pub(super) struct Picked {
    pub(super) commits: Vec<LogRow>,
    /// The bytes that they take in the page.
    pub(super) bytes: usize,
    /// Whether there was more than fitted.
    pub(super) more: bool,
    /// Whether a log here begins behind what the puller has.
    pub(super) pruned: bool,
    pub(super) too_long: Option<TooLong>,
    /// Streams of which the puller has another history, and where.
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

/// How far the log of a stream was looked at.
#[derive(Debug)]
struct Cursor {
    stream: ReplicaId,
    next: u64,
    last: u64,
    /// What the puller says is the digest before `next`, until it was compared.
    unchecked: Option<Digest>,
    rows: VecDeque<LogRow>,
    rows_max: usize,
    /// Nothing more of it goes into this page.
    ended: bool,
}

impl LogRow {
    /// The bytes that it takes in a page.
    fn bytes(&self) -> usize {
        let values = self.entry.changes.iter().filter_map(|change| change.value);
        values.map(|value| value.len()).fold(self.row.len() + COMMIT_BYTES, usize::saturating_add)
    }
}

impl Picker {
    /// Begins to answer a pull. Of the stream `hidden` nothing is served.
    pub(super) fn new(pull: Pull, hidden: Option<ReplicaId>, ledger: &Ledger, context: &Context) -> Self {
        let Pull { budget, frame_bytes, heads, excluded, .. } = pull;
        let commit_max = usize::try_from(frame_bytes).unwrap_or(usize::MAX).saturating_sub(PAGE_BYTES);
        let budget = usize::try_from(budget).unwrap_or(usize::MAX);
        let budget = budget.min(context.limits.frame_bytes_max / 2).min(commit_max);
        // The beginning of a stream has no digest to compare.
        let told: BTreeMap<_, _> =
            heads.0.iter().filter(|head| head.seq > 0).map(|head| (head.stream, head.point())).collect();
        let mut excluded: BTreeSet<_> = excluded.0.into_iter().collect();
        excluded.extend(hidden);
        let mut picker = Self {
            budget,
            commit_max,
            has: told.iter().map(|(stream, point)| (*stream, point.seq)).collect(),
            streams: Vec::new(),
            reading: 0,
            picked: Picked::default(),
        };
        let wanted = ledger.heads().iter().filter(|(stream, head)| {
            told.get(*stream).map_or(0, |point| point.seq) < head.seq && !excluded.contains(*stream)
        });
        // All of them may lie in memory at once.
        let share = budget / wanted.clone().count().max(1);
        for (stream, head) in wanted {
            let has = told.get(stream);
            let seq = has.map_or(0, |point| point.seq);
            if seq < head.floor {
                picker.picked.pruned = true;
                continue;
            }
            let row_bytes = usize::try_from(head.row_bytes_max).unwrap_or(usize::MAX).max(1);
            picker.streams.push(Cursor {
                stream: *stream,
                next: seq + 1,
                last: head.seq,
                unchecked: has.map(|point| point.digest),
                rows: VecDeque::new(),
                rows_max: (share / row_bytes).clamp(1, ROWS_MAX),
                ended: false,
            });
        }
        picker
    }

    /// Chooses commits until the page is full or there are no more; says which rows must be read to go on.
    pub(super) fn step(&mut self) -> Option<Query> {
        loop {
            let unread =
                |cursor: &Cursor| !cursor.ended && cursor.rows.is_empty() && cursor.next <= cursor.last;
            if let Some(at) = self.streams.iter().position(unread) {
                self.reading = at;
                let cursor = self.streams.get(at)?;
                let left = usize::try_from(cursor.last - cursor.next + 1).unwrap_or(usize::MAX);
                let range = keys::logs_from(cursor.stream, cursor.next);
                return Some(Query::Scan(range, cursor.rows_max.min(left).min(self.rows_left())));
            }
            let waiting = self.streams.iter_mut().filter(|cursor| !cursor.ended && !cursor.rows.is_empty());
            let first = waiting.min_by_key(|cursor| cursor.rows.front().map(|row| row.entry.stamp));
            let Some(cursor) = first else { break };
            let Some(row) = cursor.rows.pop_front() else { break };
            let rests = |(cause, seq): &(ReplicaId, u64)| self.has.get(cause).copied().unwrap_or(0) >= *seq;
            if !row.entry.after.iter().all(rests) {
                // It rests on a stream that was left out, and so does everything after it.
                cursor.ended = true;
                continue;
            }
            let bytes = row.bytes();
            if bytes > self.commit_max {
                // The puller would refuse any page that has it, and hear of nothing else.
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

    /// How many more rows the page has room for if they are like those that it has, and the one that has none.
    fn rows_left(&self) -> usize {
        let row_bytes = self.picked.bytes / self.picked.commits.len().max(1);
        let rows = self.budget.saturating_sub(self.picked.bytes) / row_bytes.max(1);
        rows.saturating_add(1).max(ROWS_MIN)
    }

    /// Takes the rows of the stream that was asked for.
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
            if cursor.unchecked.take().is_some_and(|theirs| theirs != previous) {
                // The puller sees it from this row, and nothing behind it is of use.
                self.picked.forked.push((cursor.stream, seq - 1));
                cursor.last = seq;
            }
            cursor.rows.push_back(LogRow { stream: cursor.stream, seq, row: value, entry });
        }
        // A row that is missing, damaged or of another history ends what can be served of the stream.
        if cursor.rows.is_empty() {
            cursor.ended = true;
        }
    }

    /// The commits that were chosen.
    pub(super) fn finish(&mut self) -> Picked {
        std::mem::take(&mut self.picked)
    }
}
