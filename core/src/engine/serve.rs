//! Answering a pull: one page of commits, merged across streams in the order of their stamps.
//!
//! The order of stamps respects what rests on what, so a page can be cut anywhere and is applied front to back. The log
//! holds references; the values come from the records that still hold them, or from what was kept. A record is read
//! before what was kept: a write in between moves a value from the one to the other, never the other way. The sizes of
//! rows and values are known before they are read, so a page takes as much memory as it has room, whatever it finds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::wire::{CommitParts, MessageWriter, PAGE_BYTES, PageHead, Pull, TooLong};
use super::{Effect, Engine, Mark, Side};
use crate::ids::ReplicaId;
use crate::limits::Limits;
use crate::storage::{Entry, Key, ReadError, Value};
use crate::stored::keys::{self, StoredKey};
use crate::stored::{Digest, FormatError, LogEntry, log, record};

/// The fewest rows that are read at once, should the next ones be shorter than those before.
const ROWS_MIN: usize = 16;
/// The most rows that are read at once.
const ROWS_MAX: usize = 1024;
/// The most kept values that are read at once.
const KEPT_MAX: usize = 256;
/// What a commit takes in a page beside its entry and its values, about.
const COMMIT_BYTES: usize = 80;

/// A page that is being put together.
#[derive(Debug)]
pub(super) struct Serving {
    to: ReplicaId,
    id: u32,
    budget: usize,
    /// How long a commit may be at most.
    commit_max: usize,
    /// What the puller will have once it has applied the page.
    has: BTreeMap<ReplicaId, u64>,
    streams: Vec<Cursor>,
    chosen: Vec<Chosen>,
    bytes: usize,
    more: bool,
    pruned: bool,
    too_long: Option<TooLong>,
    step: Step,
    /// The values that the page needs, those that their records do not hold, and those that were asked for.
    wants: VecDeque<Want>,
    kept: VecDeque<Want>,
    asked: Vec<Want>,
    /// Streams of which the puller has another history.
    forked: Vec<(ReplicaId, u64)>,
}

/// What is read next.
#[derive(Debug)]
enum Step {
    /// Rows of the stream at this place of the list.
    Rows(usize),
    /// The records of some values.
    Records,
    /// Values that no record holds.
    Kept,
}

/// A value that a chosen commit needs: the commit, and the change in it.
type Want = (usize, usize);

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

#[derive(Debug)]
struct LogRow {
    seq: u64,
    row: Value,
    entry: LogEntry,
}

/// A commit that goes into the page.
#[derive(Debug)]
struct Chosen {
    stream: ReplicaId,
    row: LogRow,
    /// A value for every change that has one, once it was found.
    values: Vec<Option<Found>>,
}

/// A value, where it lies in what was read.
#[derive(Debug)]
struct Found {
    bytes: Value,
    at: usize,
}

impl Chosen {
    fn value_len(&self, change: usize) -> usize {
        let value = self.row.entry.changes.get(change).and_then(|change| change.value);
        value.map_or(0, |value| usize::try_from(value.len).unwrap_or(usize::MAX))
    }
}

impl LogRow {
    /// What it takes in a page.
    fn bytes(&self) -> usize {
        let values = self.entry.changes.iter().filter_map(|change| change.value);
        let values = values.map(|value| usize::try_from(value.len).unwrap_or(usize::MAX));
        values.fold(self.row.len() + COMMIT_BYTES, usize::saturating_add)
    }
}

impl Engine {
    /// Takes a pull; a later one of the same peer replaces it.
    pub(super) fn handle_pull(&mut self, from: ReplicaId, pull: Pull) {
        // A joiner may not have what it needs to tell others about it.
        if self.is_joining() && self.rules.joiner_waits {
            return;
        }
        self.sync.pulls.retain(|(peer, _)| *peer != from);
        self.sync.pulls.push_back((from, pull));
    }

    pub(super) fn begin_serving(&mut self, to: ReplicaId, pull: Pull) {
        let Pull { id, budget, frame_bytes, heads, excluded } = pull;
        let commit_max = usize::try_from(frame_bytes).unwrap_or(usize::MAX).saturating_sub(PAGE_BYTES);
        let budget = usize::try_from(budget).unwrap_or(usize::MAX);
        let budget = budget.min(self.limits.frame_bytes_max / 2).min(commit_max);
        // The beginning of a stream has no digest to compare.
        let told: BTreeMap<_, _> =
            heads.0.iter().filter(|head| head.seq > 0).map(|head| (head.stream, head.point())).collect();
        let mut excluded: BTreeSet<_> = excluded.0.into_iter().collect();
        // Whoever took it could not take what others have of this stream.
        excluded.extend(self.has_two_histories().then(|| self.me()));
        let mut serving = Serving {
            to,
            id,
            budget,
            commit_max,
            has: told.iter().map(|(stream, point)| (*stream, point.seq)).collect(),
            streams: Vec::new(),
            chosen: Vec::new(),
            bytes: 0,
            more: false,
            pruned: false,
            too_long: None,
            step: Step::Rows(0),
            wants: VecDeque::new(),
            kept: VecDeque::new(),
            asked: Vec::new(),
            forked: Vec::new(),
        };
        let wanted = self.pen.heads.iter().filter(|(stream, head)| {
            told.get(*stream).map_or(0, |point| point.seq) < head.seq && !excluded.contains(*stream)
        });
        // All of them may lie in memory at once.
        let share = budget / wanted.clone().count().max(1);
        for (stream, head) in wanted {
            let has = told.get(stream);
            let seq = has.map_or(0, |point| point.seq);
            if seq < head.floor {
                serving.pruned = true;
                continue;
            }
            let row_bytes = usize::try_from(head.row_bytes_max).unwrap_or(usize::MAX).max(1);
            serving.streams.push(Cursor {
                stream: *stream,
                next: seq + 1,
                last: head.seq,
                unchecked: has.map(|point| point.digest),
                rows: VecDeque::new(),
                rows_max: (share / row_bytes).clamp(1, ROWS_MAX),
                ended: false,
            });
        }
        self.serve(Box::new(serving));
    }

    /// Goes on with a page: asks for what is missing, or sends it.
    fn serve(&mut self, mut serving: Box<Serving>) {
        let effect = match serving.choose() {
            Some(effect) => Some(effect),
            None => serving.look_up(&self.limits),
        };
        match effect {
            Some(effect) => {
                self.effects.push_back(effect);
                self.sync.side = Side::Serving(serving);
            }
            None => self.send_page(*serving),
        }
    }

    fn send_page(&mut self, serving: Serving) {
        self.sync.side = Side::Idle;
        let Serving { to, id, chosen, bytes, more, pruned, too_long, forked, .. } = serving;
        for (stream, seq) in forked {
            self.note_two_histories(stream, seq);
        }
        let (group, head) = (self.pen.identity.group, PageHead { id, more, pruned, too_long });
        let mut page = MessageWriter::page(group, &head, bytes);
        if chosen.iter().any(|chosen| chosen.stream != self.me()) {
            self.mark(Mark::Relayed);
        }
        if more {
            self.mark(Mark::MorePages);
        }
        let mut values = Vec::new();
        for Chosen { stream, row, values: found } in &chosen {
            let Ok((previous, entry)) = log::split_row(&row.row) else { break };
            values.clear();
            for Found { bytes, at } in found.iter().flatten() {
                values.extend_from_slice(bytes.get(*at..).unwrap_or_default());
            }
            page.push(&CommitParts {
                stream: *stream,
                seq: row.seq,
                previous: &previous,
                entry,
                values: &values,
            });
        }
        self.send(to, page.finish());
    }

    /// The log rows that were asked for.
    pub(super) fn handle_scanned(&mut self, rows: Result<Vec<Entry>, ReadError>) {
        let Side::Serving(mut serving) = std::mem::replace(&mut self.sync.side, Side::Idle) else { return };
        match rows {
            Ok(rows) => {
                serving.take_rows(rows);
                self.serve(serving);
            }
            Err(_) => self.serve_what_there_is(*serving),
        }
    }

    /// The records or kept values that were asked for.
    pub(super) fn handle_peeked(&mut self, values: Result<Vec<Option<Value>>, ReadError>) {
        match std::mem::replace(&mut self.sync.side, Side::Idle) {
            Side::Idle => {}
            Side::Checking(check) => self.handle_checked(check, values),
            Side::Serving(mut serving) => match values.map(|values| serving.take_values(values)) {
                Ok(Ok(())) => self.serve(serving),
                Ok(Err(_)) | Err(_) => self.serve_what_there_is(*serving),
            },
        }
    }

    /// The store could not be read: an empty page says at once that there is nothing to wait for.
    fn serve_what_there_is(&mut self, serving: Serving) {
        self.send_page(Serving { chosen: Vec::new(), more: false, ..serving });
    }
}

impl Serving {
    /// Chooses commits until the page is full or there are no more; says what must be read to go on.
    fn choose(&mut self) -> Option<Effect> {
        let Step::Rows(_) = self.step else { return None };
        loop {
            let unread =
                |cursor: &Cursor| !cursor.ended && cursor.rows.is_empty() && cursor.next <= cursor.last;
            if let Some(at) = self.streams.iter().position(unread) {
                self.step = Step::Rows(at);
                let cursor = self.streams.get(at)?;
                let left = usize::try_from(cursor.last - cursor.next + 1).unwrap_or(usize::MAX);
                let range = keys::logs_from(cursor.stream, cursor.next);
                return Some(Effect::Scan(range, cursor.rows_max.min(left).min(self.rows_left())));
            }
            let waiting = self.streams.iter_mut().filter(|cursor| !cursor.ended && !cursor.rows.is_empty());
            let first = waiting.min_by_key(|cursor| cursor.rows.front().map(|row| row.entry.stamp));
            let Some(cursor) = first else { break };
            let Some(row) = cursor.rows.pop_front() else { break };
            let rests = |(cause, seq): &(ReplicaId, u64)| self.has.get(cause).copied().unwrap_or(0) >= *seq;
            if !row.entry.after.iter().all(rests) {
                // It rests on what was left out, and so does everything after it.
                cursor.ended = true;
                continue;
            }
            let bytes = row.bytes();
            if bytes > self.commit_max {
                // The puller would refuse any page that has it, and hear of nothing else.
                let bytes = bytes.try_into().unwrap_or(u64::MAX);
                self.too_long.get_or_insert(TooLong { stream: cursor.stream, seq: row.seq, bytes });
                cursor.ended = true;
                continue;
            }
            if !self.chosen.is_empty() && self.bytes.saturating_add(bytes) > self.budget {
                self.more = true;
                break;
            }
            self.bytes += bytes;
            self.has.insert(cursor.stream, row.seq);
            let puts = row.entry.changes.iter().enumerate().filter(|(_, change)| change.value.is_some());
            self.wants.extend(puts.map(|(change, _)| (self.chosen.len(), change)));
            let values = row.entry.changes.iter().map(|_| None).collect();
            self.chosen.push(Chosen { stream: cursor.stream, row, values });
        }
        self.streams.clear();
        self.step = Step::Records;
        None
    }

    /// How many more rows the page has room for if they are like those that it has, and the one that has none.
    fn rows_left(&self) -> usize {
        let row_bytes = self.bytes / self.chosen.len().max(1);
        let rows = self.budget.saturating_sub(self.bytes) / row_bytes.max(1);
        rows.saturating_add(1).max(ROWS_MIN)
    }

    /// Takes the rows of the stream that was asked for.
    fn take_rows(&mut self, rows: Vec<Entry>) {
        let Step::Rows(at) = self.step else { return };
        let Some(cursor) = self.streams.get_mut(at) else { return };
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
                self.forked.push((cursor.stream, seq - 1));
                cursor.last = seq;
            }
            cursor.rows.push_back(LogRow { seq, row: value, entry });
        }
        // A row that is missing, damaged or of another history ends what can be served of the stream.
        if cursor.rows.is_empty() {
            cursor.ended = true;
        }
    }

    /// Says which values must be read next; nothing once all are there.
    fn look_up(&mut self, limits: &Limits) -> Option<Effect> {
        if !self.wants.is_empty() {
            // Whatever lies in the records now may be as long as a value may be.
            let at_once = limits.commit_bytes_max.saturating_mul(2) / limits.value_bytes_max.max(1);
            let at_once = at_once.clamp(16, 256).min(self.wants.len());
            self.asked = self.wants.drain(..at_once).collect();
            self.step = Step::Records;
            return Some(Effect::Peek(self.keys(|chosen, change| {
                Some(chosen.row.entry.changes.get(change)?.record.as_bytes().to_vec())
            })));
        }
        let mut bytes = 0;
        self.asked.clear();
        while let Some((commit, change)) = self.kept.front().copied() {
            bytes += self.chosen.get(commit).map_or(0, |chosen| chosen.value_len(change));
            if !self.asked.is_empty() && (bytes > limits.commit_bytes_max || self.asked.len() == KEPT_MAX) {
                break;
            }
            self.kept.pop_front();
            self.asked.push((commit, change));
        }
        if self.asked.is_empty() {
            return None;
        }
        self.step = Step::Kept;
        Some(Effect::Peek(self.keys(|chosen, change| {
            let record = &chosen.row.entry.changes.get(change)?.record;
            Some(keys::kept(chosen.stream, chosen.row.seq, record))
        })))
    }

    /// The keys of what is asked for.
    fn keys(&self, key: impl Fn(&Chosen, usize) -> Option<Key>) -> Vec<Key> {
        self.asked.iter().filter_map(|(commit, change)| key(self.chosen.get(*commit)?, *change)).collect()
    }

    /// Takes the values of what was asked for.
    fn take_values(&mut self, values: Vec<Option<Value>>) -> Result<(), FormatError> {
        for ((commit, change), value) in std::mem::take(&mut self.asked).into_iter().zip(values) {
            let Some(chosen) = self.chosen.get_mut(commit) else { continue };
            let found = match (&self.step, value) {
                (Step::Kept, Some(bytes)) => Some(Found { bytes, at: 0 }),
                (Step::Kept, None) => {
                    // Pruned meanwhile, or damaged: nothing from here on can be served.
                    self.chosen.truncate(commit);
                    self.kept.retain(|(other, _)| *other < commit);
                    self.more = false;
                    return Ok(());
                }
                (_, Some(bytes)) if record::parse(&bytes)?.0.holds(chosen.stream, chosen.row.seq) => {
                    Some(Found { at: record::value_at(&bytes), bytes })
                }
                _ => None,
            };
            match found {
                Some(found) => {
                    if let Some(slot) = chosen.values.get_mut(change) {
                        *slot = Some(found);
                    }
                }
                None => self.kept.push_back((commit, change)),
            }
        }
        Ok(())
    }
}
