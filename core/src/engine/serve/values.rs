//! The values of a page. The log has references; a value lies in the record that still holds it, or in a row of kept
//! values.
//!
//! Kept values are read first. They are exactly those that the page needs, so the page takes as much memory as it has
//! room. A value that was not kept lies in its record, and is as long as its reference says. A write in between may
//! move a value from its record to a kept row, and put a longer one in its place: then the kept rows are read once
//! more. So a page takes few large reads, and no more memory beyond its room than one write puts into records.
//!
//! Owns: the commits of the page with their values, and the values that are still to be read. Holds always: each value
//! is asked for at most once in each phase; from the first commit with a lost value on, no commit is served.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::ReplicaId;
use crate::storage::{Entry, Key, KeyRange, Value};
use crate::stored::keys::{self, StoredKey};
use crate::stored::record;

use super::super::io::{Answer, Query};
use super::pick::LogRow;

/// The most values that are read at once.
const VALUES_MAX: usize = 1024;

/// Finds the values of commits.
#[derive(Debug)]
pub(super) struct Values {
    chosen: Vec<Chosen>,
    phase: Phase,
    /// Whether a value was found nowhere, so that commits were left out.
    lost: bool,
}

/// The kind of the next read.
#[derive(Debug)]
enum Phase {
    /// Kept values of these streams.
    Kept(VecDeque<Span>),
    /// The records of the values that were not kept.
    Records(Wants),
    /// Values that were kept meanwhile.
    KeptMeanwhile(Wants),
}

/// A commit of the page.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) row: LogRow,
    /// A value for every change that has one, once the value is found.
    pub(super) values: Vec<Option<Located>>,
}

/// A value: its bytes begin at `at` in what was read.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) bytes: Value,
    pub(super) at: usize,
}

/// The values that are still to be read, and those that were asked for.
#[derive(Debug, Default)]
struct Wants {
    waiting: VecDeque<Want>,
    asked: Vec<Want>,
    /// The values that were not where they were looked for.
    missed: VecDeque<Want>,
}

/// A value that a commit of the page needs: the index of the commit, and of the change in it.
type Want = (usize, usize);

/// The commits of the page of one stream: their indexes among all of them, from the commit `first` on.
#[derive(Debug)]
struct Span {
    stream: ReplicaId,
    first: u64,
    chosen: Vec<usize>,
    /// The range of their kept values that was not read yet.
    rest: KeyRange,
}

impl Values {
    /// Begins to look for the values of `commits`. `own_kept` is this replica, and the highest of its commits with a
    /// kept value: the own stream mostly has none, and then needs no scan.
    pub(super) fn new(commits: Vec<LogRow>, own_kept: (ReplicaId, u64)) -> Self {
        let open = |row: LogRow| Chosen { values: row.entry.changes.iter().map(|_| None).collect(), row };
        let chosen: Vec<_> = commits.into_iter().map(open).collect();
        let phase = Phase::Kept(spans(&chosen, own_kept));
        Self { chosen, phase, lost: false }
    }

    /// The next read; `None` once all values are found.
    pub(super) fn step(&mut self) -> Option<Query> {
        loop {
            match &mut self.phase {
                Phase::Kept(spans) => match spans.front() {
                    Some(span) => return Some(Query::Scan(span.rest.clone(), VALUES_MAX)),
                    None => self.phase = Phase::Records(Wants::new(self.open())),
                },
                Phase::Records(wants) => {
                    if wants.ask() {
                        return Some(Query::Get(self.record_keys()));
                    }
                    self.phase = Phase::KeptMeanwhile(Wants::new(std::mem::take(&mut wants.missed)));
                }
                Phase::KeptMeanwhile(wants) => return wants.ask().then(|| Query::Get(self.kept_keys())),
            }
        }
    }

    /// Takes the answer to the read.
    pub(super) fn take(&mut self, answer: Answer) {
        match (&self.phase, answer) {
            (Phase::Kept(_), Answer::Entries(kept)) => self.take_kept(kept),
            (Phase::Records(_), Answer::Values(values)) => self.take_records(values),
            (Phase::KeptMeanwhile(_), Answer::Values(values)) => self.take_kept_meanwhile(values),
            (phase, answer) => debug_assert!(false, "{answer:?} while {phase:?}"),
        }
    }

    /// The commits with their values, and whether any had to be left out.
    pub(super) fn finish(&mut self) -> (Vec<Chosen>, bool) {
        (std::mem::take(&mut self.chosen), self.lost)
    }

    /// Takes kept values of the first span.
    fn take_kept(&mut self, kept: Vec<Entry>) {
        let Phase::Kept(spans) = &mut self.phase else { return };
        let Some(span) = spans.front_mut() else { return };
        let last = kept.last().filter(|_| kept.len() >= VALUES_MAX).map(|entry| entry.key.clone());
        for Entry { key, value } in kept {
            let Some(StoredKey::Kept(_, seq, record)) = StoredKey::parse(&key) else { continue };
            let offset = usize::try_from(seq.saturating_sub(span.first)).unwrap_or(usize::MAX);
            let chosen = span.chosen.get(offset).and_then(|at| self.chosen.get_mut(*at));
            let Some(chosen) = chosen else { continue };
            let changes = &chosen.row.entry.changes;
            let change = changes.binary_search_by(|change| change.record.cmp(&record));
            let slot = change.ok().and_then(|change| chosen.values.get_mut(change));
            if let Some(slot) = slot {
                *slot = Some(Located { bytes: value, at: 0 });
            }
        }
        match last {
            Some(last) => span.rest = std::mem::replace(&mut span.rest, KeyRange::all()).after(&last),
            None => {
                spans.pop_front();
            }
        }
    }

    /// The values that were not found yet.
    fn open(&self) -> VecDeque<Want> {
        let places = self.chosen.iter().enumerate().flat_map(|(at, chosen)| {
            let changes = chosen.row.entry.changes.iter().zip(&chosen.values).enumerate();
            let open = changes.filter(|(_, (change, value))| change.value.is_some() && value.is_none());
            open.map(move |(change, _)| (at, change))
        });
        places.collect()
    }

    fn record_keys(&self) -> Vec<Key> {
        self.asked_keys(|chosen, change| {
            Some(chosen.row.entry.changes.get(change)?.record.as_bytes().to_vec())
        })
    }

    fn kept_keys(&self) -> Vec<Key> {
        self.asked_keys(|chosen, change| {
            let record = &chosen.row.entry.changes.get(change)?.record;
            Some(keys::kept(chosen.row.stream, chosen.row.seq, record))
        })
    }

    /// The keys of the values that are asked for.
    fn asked_keys(&self, key: impl Fn(&Chosen, usize) -> Option<Key>) -> Vec<Key> {
        let (Phase::Records(wants) | Phase::KeptMeanwhile(wants)) = &self.phase else { return Vec::new() };
        let keys = wants.asked.iter().map(|(commit, change)| key(self.chosen.get(*commit)?, *change));
        keys.map(Option::unwrap_or_default).collect()
    }

    /// Takes the records that may still hold what their commits put.
    fn take_records(&mut self, values: Vec<Option<Value>>) {
        let Phase::Records(wants) = &mut self.phase else { return };
        for ((commit, change), value) in std::mem::take(&mut wants.asked).into_iter().zip(values) {
            let Some(chosen) = self.chosen.get_mut(commit) else { continue };
            let holds = |bytes: &Value| {
                record::parse(bytes).is_ok_and(|(header, _)| header.holds(chosen.row.stream, chosen.row.seq))
            };
            match (value.filter(holds), chosen.values.get_mut(change)) {
                (Some(bytes), Some(slot)) => *slot = Some(Located { at: record::value_at(&bytes), bytes }),
                _ => wants.missed.push_back((commit, change)),
            }
        }
    }

    /// Takes the values that were kept meanwhile. A value that is found nowhere was pruned meanwhile, or is damaged:
    /// nothing from its commit on can be served.
    fn take_kept_meanwhile(&mut self, values: Vec<Option<Value>>) {
        let Phase::KeptMeanwhile(wants) = &mut self.phase else { return };
        for ((commit, change), value) in std::mem::take(&mut wants.asked).into_iter().zip(values) {
            let Some(chosen) = self.chosen.get_mut(commit) else { continue };
            match (value, chosen.values.get_mut(change)) {
                (Some(bytes), Some(slot)) => *slot = Some(Located { bytes, at: 0 }),
                _ => {
                    self.chosen.truncate(commit);
                    wants.waiting.retain(|(other, _)| *other < commit);
                    self.lost = true;
                }
            }
        }
    }
}

impl Wants {
    fn new(waiting: VecDeque<Want>) -> Self {
        Self { waiting, ..Self::default() }
    }

    /// Asks for as many values as one read may have; `false` if none is left.
    fn ask(&mut self) -> bool {
        let count = self.waiting.len().min(VALUES_MAX);
        self.asked = self.waiting.drain(..count).collect();
        count > 0
    }
}

/// The commits of the page by their streams. Those of one stream have no holes.
fn spans(chosen: &[Chosen], (me, kept_up_to): (ReplicaId, u64)) -> VecDeque<Span> {
    let mut spans = BTreeMap::new();
    for (at, Chosen { row, .. }) in chosen.iter().enumerate() {
        if row.entry.changes.iter().any(|change| change.value.is_some()) {
            let (stream, first) = (row.stream, row.seq);
            let new = || Span { stream, first, chosen: Vec::new(), rest: KeyRange::all() };
            let span = spans.entry(stream).or_insert_with(new);
            let offset = usize::try_from(row.seq - span.first).unwrap_or(usize::MAX);
            // A commit that only deletes needs no value: the filler at its place is never looked up.
            span.chosen.resize(offset, usize::MAX);
            span.chosen.push(at);
        }
    }
    for span in spans.values_mut() {
        let last = span.first + span.chosen.len() as u64 - 1;
        let [_, kept] = keys::log_and_kept(span.stream, span.first, last);
        span.rest = kept;
    }
    spans.into_values().filter(|span| span.stream != me || span.first <= kept_up_to).collect()
}

#[cfg(test)]
mod tests;
