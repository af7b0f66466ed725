//! The values of a page. The log has references; a value lies in the record that still holds it, or in a row of kept
//! values.
//!
//! Kept values are read first. They are exactly those that the page needs, so the page takes as much memory as it has
//! room. A value that was not kept lies in its record, and is as long as its reference says. A write in between may
//! move a value from its record to a kept row, and put a longer one in its place: then the kept rows are read once
//! more. So a page takes few large reads, and no more memory beyond its room than one write puts into records.
//!
//! A value counts as found only with the digest that its commit names; a check of the log wants its record as the commit
//! wrote it, too. A commit whose value is found nowhere, or is damaged, ends its own stream in the page, and with it all
//! that rests on it. Everything else is served.
//!
//! Owns: the commits of the page with their values, and the values that are still to be read. Holds always: each value
//! is asked for at most once in each phase; no commit is served whose value is lost, nor one that rests on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::ReplicaId;
use crate::pages;
use crate::storage::{Entry, Key, KeyRange, ScanLimit, ScanPage, Value};
use crate::stored::keys::{self, StoredKey};
use crate::stored::record::{self, Header};
use crate::stored::{Pruned, Reference, digest};

use super::super::io::{Answer, Query};
use super::super::reads::READ;
use super::pick::LogRow;

/// The most values that are read at once.
const VALUES_MAX: usize = 1024;
/// The most records of deletes that are read at once: a later commit may have put a value there, of any length.
const DELETES_MAX: usize = 16;
/// The most kept values that are read at once.
const KEPT: ScanLimit = ScanLimit { entries: VALUES_MAX, ..READ };

/// Finds the values of commits.
#[derive(Debug)]
pub(in crate::engine) struct Values {
    chosen: Vec<Chosen>,
    phase: Phase,
    care: Care,
    /// The commits of which a value was found nowhere: their indexes among all of them.
    lost: BTreeSet<usize>,
    /// Which records may be absent, since they were deleted and forgotten.
    pruned: Pruned,
}

/// How closely what is found is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Care {
    /// Not at all.
    Nothing,
    /// A value must have the digest that its commit names.
    Values,
    /// The record that holds it must be the one that the commit wrote, too, and that of a delete must be no earlier one.
    Records,
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
pub(in crate::engine) struct Chosen {
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
    pub(in crate::engine) fn new(commits: Vec<LogRow>, own_kept: (ReplicaId, u64), care: Care) -> Self {
        let open = |row: LogRow| Chosen { values: row.entry.changes.iter().map(|_| None).collect(), row };
        let chosen: Vec<_> = commits.into_iter().map(open).collect();
        let phase = Phase::Kept(spans(&chosen, own_kept));
        Self { chosen, phase, care, lost: BTreeSet::new(), pruned: Pruned::default() }
    }

    /// Lets the records of deletes be absent, as far as these may have been forgotten.
    pub(in crate::engine) fn lacking(self, pruned: Pruned) -> Self {
        Self { pruned, ..self }
    }

    /// The next read; `None` once all values are found.
    pub(in crate::engine) fn step(&mut self) -> Option<Query> {
        let chosen = &self.chosen;
        let is_delete = |(commit, change): &Want| {
            let change = chosen.get(*commit).and_then(|chosen| chosen.row.entry.changes.get(*change));
            change.is_some_and(|change| change.value.is_none())
        };
        loop {
            match &mut self.phase {
                Phase::Kept(spans) => match spans.front() {
                    Some(span) => return Some(Query::Scan(span.rest.clone(), KEPT)),
                    None => self.phase = Phase::Records(Wants::new(self.open())),
                },
                Phase::Records(wants) => {
                    if wants.ask(is_delete) {
                        return Some(Query::Get(self.record_keys()));
                    }
                    self.phase = Phase::KeptMeanwhile(Wants::new(std::mem::take(&mut wants.missed)));
                }
                Phase::KeptMeanwhile(wants) => {
                    return wants.ask(is_delete).then(|| Query::Get(self.kept_keys()));
                }
            }
        }
    }

    /// Takes the answer to the read.
    pub(in crate::engine) fn take(&mut self, answer: Answer) {
        match (&self.phase, answer) {
            (Phase::Kept(_), Answer::Page(page)) => self.take_kept(page),
            (Phase::Records(_), Answer::Values(values)) => self.take_records(values),
            (Phase::KeptMeanwhile(_), Answer::Values(values)) => self.take_kept_meanwhile(values),
            (phase, answer) => debug_assert!(false, "{answer:?} while {phase:?}"),
        }
    }

    /// The commits with their values that can be served, and the commits whose values are lost, the first of each stream.
    pub(in crate::engine) fn finish(&mut self) -> (Vec<Chosen>, Vec<(ReplicaId, u64)>) {
        let (lost, chosen) = (std::mem::take(&mut self.lost), std::mem::take(&mut self.chosen));
        let (mut served, mut places) = (Vec::with_capacity(chosen.len()), Vec::new());
        // The first commit of each stream that is left out.
        let mut ends = BTreeMap::<ReplicaId, u64>::new();
        for (at, chosen) in chosen.into_iter().enumerate() {
            let LogRow { stream, seq, entry, .. } = &chosen.row;
            let rests =
                entry.after.iter().any(|cause| ends.get(&cause.stream).is_some_and(|end| *end <= cause.seq));
            if ends.contains_key(stream) {
                continue;
            }
            if !lost.contains(&at) && !rests {
                served.push(chosen);
                continue;
            }
            ends.insert(*stream, *seq);
            if lost.contains(&at) {
                places.push((*stream, *seq));
            }
        }
        (served, places)
    }

    /// Takes kept values of the first span.
    fn take_kept(&mut self, page: ScanPage) {
        let Phase::Kept(spans) = &mut self.phase else { return };
        let Some(span) = spans.front_mut() else { return };
        let rest = pages::rest(std::mem::replace(&mut span.rest, KeyRange::all()), &page);
        for Entry { key, value } in page.entries {
            let Some(StoredKey::Kept(_, seq, record)) = StoredKey::parse(&key) else { continue };
            let offset = usize::try_from(seq.saturating_sub(span.first)).unwrap_or(usize::MAX);
            let chosen = span.chosen.get(offset).and_then(|at| self.chosen.get_mut(*at));
            let Some(chosen) = chosen else { continue };
            let changes = &chosen.row.entry.changes;
            let Ok(change) = changes.binary_search_by(|change| change.record.cmp(&record)) else { continue };
            chosen.take(change, Located { bytes: value, at: 0 }, self.care);
        }
        match rest {
            Some(rest) => span.rest = rest,
            None => {
                spans.pop_front();
            }
        }
    }

    /// The values that were not found yet.
    fn open(&self) -> VecDeque<Want> {
        let places = self.chosen.iter().enumerate().flat_map(|(at, chosen)| {
            let changes = chosen.row.entry.changes.iter().zip(&chosen.values).enumerate();
            let deletes = self.care == Care::Records;
            let open = changes
                .filter(move |(_, (change, value))| (deletes || change.value.is_some()) && value.is_none());
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
            let LogRow { stream, seq, entry, .. } = &chosen.row;
            let Some(named) = entry.changes.get(change) else { continue };
            let fits = |header: &Header| match self.care {
                Care::Records => header.fits(&Header::of(named, entry.stamp, *seq)),
                Care::Nothing | Care::Values => header.holds(*stream, *seq),
            };
            if value.is_none() && named.value.is_none() && self.pruned.may_lack(entry.stamp, named.epoch) {
                continue;
            }
            let value = value.filter(|bytes| record::parse(bytes).is_ok_and(|(header, _)| fits(&header)));
            if let (Reference { value: None, .. }, Some(_)) = (named, &value) {
                // A delete has no value to look for in its record.
                continue;
            }
            let located = value.map(|bytes| Located { at: record::value_at(&bytes), bytes });
            if !located.is_some_and(|located| chosen.take(change, located, self.care)) {
                wants.missed.push_back((commit, change));
            }
        }
    }

    /// Takes the values that were kept meanwhile. A value that is found nowhere was pruned meanwhile, or is damaged: its
    /// commit cannot be served.
    fn take_kept_meanwhile(&mut self, values: Vec<Option<Value>>) {
        let Phase::KeptMeanwhile(wants) = &mut self.phase else { return };
        for ((commit, change), value) in std::mem::take(&mut wants.asked).into_iter().zip(values) {
            let Some(chosen) = self.chosen.get_mut(commit) else { continue };
            let located = value.map(|bytes| Located { bytes, at: 0 });
            if !located.is_some_and(|located| chosen.take(change, located, self.care)) {
                self.lost.insert(commit);
                // No later commit of its stream is served, so none of their values is needed.
                let stream = chosen.row.stream;
                let is_served = |at: usize| {
                    at < commit || self.chosen.get(at).is_some_and(|chosen| chosen.row.stream != stream)
                };
                wants.waiting.retain(|(other, _)| is_served(*other));
            }
        }
    }
}

impl Chosen {
    /// Takes a value of one of its changes; returns whether it is the one that the commit names.
    fn take(&mut self, change: usize, located: Located, care: Care) -> bool {
        let named = self.row.entry.changes.get(change).and_then(|change| change.value);
        let (Some(named), Some(slot)) = (named, self.values.get_mut(change)) else { return false };
        let bytes = located.bytes.get(located.at..).unwrap_or_default();
        let is_named = care == Care::Nothing || bytes.len() == named.len() && digest(bytes) == named.digest;
        if is_named {
            *slot = Some(located);
        }
        is_named
    }
}

impl Wants {
    fn new(waiting: VecDeque<Want>) -> Self {
        Self { waiting, ..Self::default() }
    }

    /// Asks for as many values as one read may have; `false` if none is left.
    fn ask(&mut self, is_delete: impl Fn(&Want) -> bool) -> bool {
        let mut deletes = 0;
        let fitting = self.waiting.iter().take(VALUES_MAX).take_while(|want| {
            deletes += usize::from(is_delete(want));
            deletes <= DELETES_MAX
        });
        let count = fitting.count();
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
