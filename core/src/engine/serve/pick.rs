//! Picking the commits of a page: the next ones of each stream, merged across streams in the order of their stamps.
//!
//! The stamp of a commit is above the stamps of its causes. So a page can be cut anywhere, and is applied front to
//! back.
//!
//! A row is served only if the row behind it, or the head, names its digest. The bytes are read anyway, and a damaged row
//! that is served would look like a second history wherever it meets the real one.
//!
//! Owns: a cursor in the log of each stream, and the picked commits. Holds always: a scan reads no more bytes than its
//! stream's share of the budget, unless it is of one row; but for its first commit, a page is within its budget; every
//! commit in it finds its causes at the puller or before it in the page; the chain vouches for each of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::ReplicaId;
use crate::storage::{Entry, ScanLimit, ScanPage, Value};
use crate::stored::{Cause, Digest, LogEntry, keys};

use super::super::chain::{ChainReader, ChainRow};
use super::super::context::Context;
use super::super::damages::Damages;
use super::super::io::Query;
use super::super::ledger::Ledger;
use super::super::wire::{self, Pull, TooLong};

/// The fewest rows of one scan, in case the next rows are shorter than those before.
const ROWS_MIN: usize = 16;
/// The most rows of one scan.
const ROWS_MAX: usize = 1024;

/// Where a page begins or ends.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Edge {
    /// The longest commit that the puller takes, in bytes.
    commit_max: usize,
    /// The streams of the puller, as they are once it has applied everything before.
    has: BTreeMap<ReplicaId, u64>,
    /// The digests of these streams by the puller's word, until they were compared.
    unchecked: BTreeMap<ReplicaId, Digest>,
    /// The streams that are left out.
    excluded: BTreeSet<ReplicaId>,
}

impl Edge {
    /// Where the answer to a pull begins.
    pub(super) fn of(pull: Pull) -> Self {
        let Pull { frame_bytes, heads, excluded, .. } = pull;
        // Leave out heads at 0: the beginning of a stream has no digest to compare.
        let told = || heads.0.iter().filter(|head| head.seq > 0);
        Self {
            commit_max: wire::commit_max(usize::try_from(frame_bytes).unwrap_or(usize::MAX)),
            has: told().map(|head| (head.stream, head.seq)).collect(),
            unchecked: told().map(|head| (head.stream, head.digest)).collect(),
            excluded: excluded.0.into_iter().collect(),
        }
    }

    /// How far the puller has a stream.
    pub(in crate::engine) fn seq_of(&self, stream: ReplicaId) -> u64 {
        self.has.get(&stream).copied().unwrap_or(0)
    }

    /// Whether other streams than that of the puller are left out.
    pub(super) fn leaves_out_others(&self, puller: ReplicaId) -> bool {
        self.excluded.iter().any(|stream| *stream != puller)
    }

    /// Whether a stream is left out.
    pub(in crate::engine) fn leaves_out(&self, stream: ReplicaId) -> bool {
        self.excluded.contains(&stream)
    }
}

/// Picks the commits of a page.
#[derive(Debug)]
pub(super) struct Picker {
    budget: usize,
    /// The bytes of rows that one scan of a stream may read, unless a single row is longer.
    share: usize,
    /// Where the page ends, as far as it is picked.
    end: Edge,
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
    /// The part of each log here that the puller lacks: its stream, its first and its last commit.
    pub(super) missing: Vec<(ReplicaId, u64, u64)>,
    pub(super) too_long: Option<TooLong>,
    /// The streams of which the puller has another history, each with its place.
    pub(super) forked: Vec<(ReplicaId, u64)>,
    /// The streams that the puller wants and that end for it at a damaged place, each with that place.
    pub(super) damaged: Vec<(ReplicaId, u64)>,
}

/// A commit as it stands in the log.
#[derive(Clone, Debug)]
pub(in crate::engine) struct LogRow {
    pub(in crate::engine) stream: ReplicaId,
    pub(in crate::engine) seq: u64,
    pub(in crate::engine) row: Value,
    pub(in crate::engine) entry: LogEntry,
}

/// A cursor in the log of a stream.
#[derive(Debug)]
struct Cursor {
    stream: ReplicaId,
    chain: ChainReader,
    /// The last row to serve.
    last: u64,
    /// The digest before the first row by the puller's word, until it was compared.
    unchecked: Option<Digest>,
    /// Whether the first row shows that the puller has another history.
    forks: bool,
    rows: VecDeque<LogRow>,
    /// The row behind `rows`, which the row behind it does not vouch for yet.
    open: Option<LogRow>,
    /// Whether nothing more of the stream goes into this page.
    ended: bool,
}

impl LogRow {
    /// The bytes that the commit counts for in a page.
    pub(in crate::engine) fn bytes(&self) -> usize {
        let values = self.entry.changes.iter().filter_map(|change| change.value);
        let values = values.map(|value| value.len()).fold(0, usize::saturating_add);
        let entry = self.row.len().saturating_sub(size_of::<Digest>());
        wire::commit_bytes(entry, values)
    }
}

impl Cursor {
    /// The first row that was not picked yet.
    fn front(&self) -> Option<&LogRow> {
        self.rows.front().or(self.open.as_ref())
    }

    /// How many rows are left to read: those to serve, and the one that vouches for the last of them.
    fn left(&self) -> usize {
        let end = self.chain.head().seq.min(self.last.saturating_add(1));
        usize::try_from((end + 1).saturating_sub(self.chain.next())).unwrap_or(usize::MAX)
    }

    /// Takes the next row of the log; fails with the place that is damaged.
    fn add(&mut self, Entry { key, value }: Entry) -> Result<(), u64> {
        let ChainRow { seq, previous, entry, by_head, .. } = self.chain.take(&key, &value)?;
        if let Some(row) = self.open.take() {
            self.vouched(row);
        }
        if seq > self.last {
            return Ok(());
        }
        if let Some(theirs) = self.unchecked.take() {
            self.forks = theirs != previous;
        }
        let entry = LogEntry::parse(self.stream, entry).map_err(|_| seq)?;
        let row = LogRow { stream: self.stream, seq, row: value, entry };
        match by_head {
            None => self.open = Some(row),
            Some(true) => self.vouched(row),
            Some(false) => return Err(seq),
        }
        Ok(())
    }

    /// Whether all rows to serve were read, and vouched for.
    fn is_read(&self) -> bool {
        self.chain.next() > self.last && self.open.is_none()
    }

    /// Ends the stream at a damaged place.
    fn ends_at(&mut self, damaged: u64) {
        self.open = None;
        self.last = damaged.saturating_sub(1);
    }

    /// Takes a row that the chain vouches for.
    fn vouched(&mut self, row: LogRow) {
        if self.forks {
            // The puller sees the fork from this row, and no row behind it is of use.
            self.last = row.seq;
        }
        self.rows.push_back(row);
    }
}

impl Picker {
    /// Begins to answer a pull. Nothing of the stream `hidden` is served, and nothing from a damaged place on.
    pub(super) fn new(
        mut begin: Edge,
        budget: u32,
        hidden: Option<ReplicaId>,
        ledger: &Ledger,
        damages: &Damages,
        context: &Context,
    ) -> Self {
        let budget = usize::try_from(budget).unwrap_or(usize::MAX);
        let budget = budget.min(context.limits.frame_bytes_max / 2).min(begin.commit_max);
        begin.excluded.extend(hidden);
        let mut unchecked = std::mem::take(&mut begin.unchecked);
        let mut picker = Self {
            budget,
            share: 0,
            end: begin.clone(),
            streams: Vec::new(),
            reading: 0,
            picked: Picked::default(),
        };
        let wanted = ledger
            .heads()
            .iter()
            .filter(|(stream, head)| begin.seq_of(**stream) < head.seq && !begin.leaves_out(**stream));
        // The rows of all streams may lie in memory at once, so the streams share the budget.
        picker.share = budget / wanted.clone().count().max(1);
        for (stream, head) in wanted {
            let seq = begin.seq_of(*stream);
            if seq < head.floor {
                picker.picked.pruned = true;
                continue;
            }
            picker.picked.missing.push((*stream, seq + 1, head.seq));
            let damaged = damages.first_behind(*stream, seq);
            picker.picked.damaged.extend(damaged.map(|damaged| (*stream, damaged)));
            picker.streams.push(Cursor {
                stream: *stream,
                chain: ChainReader::new(
                    *stream,
                    head.point(),
                    seq + 1,
                    context.rules.served_rows_are_checked,
                ),
                last: damaged.map_or(head.seq, |damaged| damaged - 1),
                unchecked: unchecked.remove(stream),
                forks: false,
                rows: VecDeque::new(),
                open: None,
                ended: false,
            });
        }
        picker
    }

    /// Picks commits until the page is full or no more are left; returns the next read, if one is needed to go on.
    pub(super) fn step(&mut self) -> Option<Query> {
        loop {
            let unread = |cursor: &Cursor| !cursor.ended && cursor.front().is_none() && !cursor.is_read();
            if let Some(at) = self.streams.iter().position(unread) {
                return self.read(at);
            }
            let waiting = self
                .streams
                .iter()
                .enumerate()
                .filter(|(_, cursor)| !cursor.ended && cursor.front().is_some());
            let first = waiting.min_by_key(|(_, cursor)| cursor.front().map(|row| row.entry.stamp));
            let Some((at, _)) = first else { break };
            let Some(cursor) = self.streams.get_mut(at) else { break };
            let Some(row) = cursor.front() else { break };
            let rests = |cause: &Cause| self.end.seq_of(cause.stream) >= cause.seq;
            if !row.entry.after.iter().all(rests) {
                if cursor.rows.is_empty() {
                    // The row behind it must vouch for it first: the cause may be what is damaged.
                    return self.read(at);
                }
                // The commit rests on a stream that was left out, and so do all later commits of its stream.
                cursor.ended = true;
                continue;
            }
            let bytes = row.bytes();
            let fits =
                self.picked.commits.is_empty() || self.picked.bytes.saturating_add(bytes) <= self.budget;
            if !fits && bytes <= self.end.commit_max {
                self.picked.more = true;
                break;
            }
            let Some(row) = cursor.rows.pop_front() else {
                // The row behind it must vouch for it first.
                return self.read(at);
            };
            if bytes > self.end.commit_max {
                // The puller would refuse any page that has this commit, and get no other one.
                let bytes = bytes.try_into().unwrap_or(u64::MAX);
                self.picked.too_long.get_or_insert(TooLong { stream: cursor.stream, seq: row.seq, bytes });
                cursor.ended = true;
                continue;
            }
            if cursor.forks {
                self.picked.forked.push((cursor.stream, row.seq - 1));
            }
            self.picked.bytes += bytes;
            self.end.has.insert(cursor.stream, row.seq);
            self.picked.commits.push(row);
        }
        self.streams.clear();
        None
    }

    /// Reads the next rows of a stream.
    fn read(&mut self, at: usize) -> Option<Query> {
        let cursor = self.streams.get(at)?;
        let rows_left = self.rows_left(usize::from(cursor.open.is_some()));
        let next = cursor.chain.next();
        let entries = ROWS_MAX.min(cursor.left()).min(rows_left);
        self.reading = at;
        Some(Query::Scan(keys::logs_from(cursor.stream, next), ScanLimit { entries, bytes: self.share }))
    }

    /// How many more rows the page has room for, if they are like those that it has, and the one that shows that there
    /// is more.
    fn rows_left(&self, open: usize) -> usize {
        let row_bytes = self.picked.bytes / self.picked.commits.len().max(1);
        let rows = self.budget.saturating_sub(self.picked.bytes) / row_bytes.max(1);
        rows.saturating_add(1).saturating_sub(open).max(ROWS_MIN)
    }

    /// Takes the rows of a scan.
    pub(super) fn take(&mut self, page: ScanPage) {
        let Some(cursor) = self.streams.get_mut(self.reading) else { return };
        let mut added = Ok(());
        for row in page.entries {
            added = cursor.add(row);
            if added.is_err() || cursor.is_read() {
                break;
            }
        }
        if !page.more && added.is_ok() && !cursor.is_read() {
            // The log ends before its head.
            added = Err(cursor.chain.damaged());
        }
        // A row that is missing or damaged ends what can be served of the stream.
        if let Err(damaged) = added {
            cursor.ends_at(damaged);
            self.picked.damaged.retain(|(stream, _)| *stream != cursor.stream);
            self.picked.damaged.push((cursor.stream, damaged));
        }
        if cursor.front().is_none() {
            cursor.ended = true;
        }
    }

    /// The picked commits.
    pub(super) fn finish(&mut self) -> Picked {
        std::mem::take(&mut self.picked)
    }

    /// Where the page ends.
    pub(super) fn end(&self) -> Edge {
        self.end.clone()
    }
}

#[cfg(test)]
mod tests;
