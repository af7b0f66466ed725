//! Tombstones that no member needs any more: the walk over the records that finds and drops them.
//!
//! A tombstone may go once every member has it, by what is covered, and once its log is gone. A walk reads all records, page by
//! page, so it is made only if a tombstone may be found that can go, and rests much longer than it works.
//!
//! Owns: the lowest place of a tombstone in each stream, the walk under way, how many records a page has. Holds always: a page
//! that failed is read again; a tombstone that stays is known after the walk, as is one that came meanwhile.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::hlc::Hlc;
use crate::ids::ReplicaId;
use crate::member::Member;
use crate::pages;
use crate::storage::{Key, KeyRange, ScanLimit, ScanPage};
use crate::stored::keys::{self, RecordKey};
use crate::stored::record;
use crate::syncable::Syncable;

use super::Machine;
use super::backoff::{Backoff, after};

/// The least time between two walks.
const REST_MS: u64 = 30_000;
/// A walk is followed by a rest of so many times its work.
const REST_TIMES: u64 = 20;
/// The time that a page should take.
const PAGE_MS: (u64, u64) = (20, 50);
/// The records of the first page, and the bounds of a later one.
const FIRST: usize = 256;
const PAGE_RECORDS: (usize, usize) = (64, 8192);
/// The bytes of a page, unless a single record is longer.
const PAGE_BYTES: usize = 2 << 20;

/// The tombstones of this store.
#[derive(Debug)]
pub(super) struct Tombstones {
    /// The lowest sequence number of a tombstone of each stream, as far as is known.
    lowest: BTreeMap<ReplicaId, u64>,
    /// Whether there may be tombstones of which nothing is known, as after an opening.
    unknown: bool,
    walk: Option<Walk>,
    /// Whether the limits may have risen since a walk was last thought of.
    risen: bool,
    /// Whether the walk is in the middle of a page.
    in_page: bool,
    /// How many records a page has.
    records: usize,
    rests_until: Option<Mono>,
    backoff: Backoff,
}

/// A walk over the records.
#[derive(Debug)]
struct Walk {
    /// The records that were not read yet.
    rest: Option<KeyRange>,
    /// The same behind the page that is being written.
    next: Option<KeyRange>,
    /// The sequence number of each stream up to which tombstones go.
    limits: BTreeMap<ReplicaId, u64>,
    /// The stamps that the page under way forgets.
    forgets: BTreeMap<String, Hlc>,
    /// The tombstones that stay, of this page.
    stay: Vec<(ReplicaId, u64)>,
    page_began: Mono,
    busy_ms: u64,
}

/// The tombstones of a page that go, and the stamps that are forgotten with them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) keys: Vec<Key>,
    /// For each model with its own merge, the highest stamp or epoch.
    pub(super) forgets: BTreeMap<String, Hlc>,
}

impl Tombstones {
    /// The tombstones of an opened store; nothing is dropped unless this replica `prunes`.
    pub(super) fn opened(now: Mono, prunes: bool) -> Self {
        Self {
            lowest: BTreeMap::new(),
            unknown: prunes,
            walk: None,
            risen: true,
            in_page: false,
            records: FIRST,
            rests_until: prunes.then(|| after(now, REST_MS)),
            backoff: Backoff::default(),
        }
    }

    /// Takes note of tombstones that were written: the lowest of each stream.
    pub(super) fn came(&mut self, lowest: impl IntoIterator<Item = (ReplicaId, u64)>) {
        for (stream, seq) in lowest {
            let known = self.lowest.entry(stream).or_insert(seq);
            *known = seq.min(*known);
        }
    }

    /// Takes note that there may be other tombstones than those that are known: a snapshot brings some.
    pub(super) fn nothing_is_known(&mut self) {
        (self.unknown, self.risen) = (true, true);
    }

    /// Takes note that tombstones may go that had to stay.
    pub(super) fn limits_rise(&mut self) {
        self.risen = true;
    }

    fn may_find(&self) -> bool {
        self.walk.is_none() && self.risen && (self.unknown || !self.lowest.is_empty())
    }

    /// Whether a walk may begin, if it finds anything.
    pub(super) fn may_begin(&self) -> bool {
        self.may_find() && self.rests_until.is_none()
    }

    /// Begins a walk, if a tombstone may be at or below these limits.
    pub(super) fn begin(&mut self, limits: BTreeMap<ReplicaId, u64>) {
        let goes = |(stream, limit): (&ReplicaId, &u64)| {
            let lowest = self.lowest.get(stream);
            *limit > 0 && (self.unknown || lowest.is_some_and(|lowest| lowest <= limit))
        };
        let finds = self.may_begin() && limits.iter().any(goes);
        self.risen = false;
        if !finds {
            return;
        }
        (self.unknown, self.lowest) = (false, BTreeMap::new());
        self.walk = Some(Walk {
            rest: Some(keys::records()),
            next: None,
            limits,
            forgets: BTreeMap::new(),
            stay: Vec::new(),
            page_began: Mono(0),
            busy_ms: 0,
        });
    }

    /// Whether a page waits for the write lane.
    pub(super) fn waits(&self) -> bool {
        self.walk.is_some() && !self.in_page && self.backoff.is_over()
    }

    /// Whether the write under way is one of a page.
    pub(super) fn is_in_page(&self) -> bool {
        self.in_page
    }

    /// Begins the page that waits: the records to read, no more than a write may delete.
    pub(super) fn read(&mut self, deletes_max: usize, now: Mono) -> Option<(KeyRange, ScanLimit)> {
        let walk = self.walk.as_mut()?;
        walk.page_began = now;
        let range = walk.rest.clone()?;
        self.in_page = true;
        Some((range, ScanLimit { entries: self.records.min(deletes_max), bytes: PAGE_BYTES }))
    }

    /// Takes the records of a page. `may_go` has the last word on each tombstone that may go.
    pub(super) fn take(&mut self, page: &ScanPage, may_go: impl Fn(&RecordKey) -> bool) -> Dropped {
        let mut dropped = Dropped::default();
        let Some(walk) = &mut self.walk else { return dropped };
        walk.next = walk.rest.clone().and_then(|range| pages::rest(range, page));
        walk.stay.clear();
        for entry in &page.entries {
            let Ok((header, _)) = record::parse(&entry.value) else { continue };
            if !header.tombstone {
                continue;
            }
            let (stream, seq) = (header.stamp.replica(), header.seq);
            let key = RecordKey::from_bytes(&entry.key)
                .filter(|key| key.model() != Member::SYNC_MODEL && may_go(key));
            let goes = walk.limits.get(&stream).is_some_and(|limit| seq <= *limit);
            let Some(key) = key.filter(|_| goes) else {
                walk.stay.push((stream, seq));
                continue;
            };
            if let Some(merge) = header.merge {
                let stamp = header.stamp.max(merge.epoch);
                let known = dropped.forgets.entry(key.model().to_owned()).or_insert(stamp);
                *known = stamp.max(*known);
            }
            dropped.keys.push(key.into_bytes());
        }
        walk.forgets.clone_from(&dropped.forgets);
        dropped
    }

    /// Takes note that the page is durable, or had nothing to write. Returns the stamps that are forgotten.
    pub(super) fn page_ended(&mut self, now: Mono) -> BTreeMap<String, Hlc> {
        self.in_page = false;
        self.backoff.reset();
        let Some(walk) = &mut self.walk else { return BTreeMap::new() };
        let ms = now.since(walk.page_began);
        walk.busy_ms += ms;
        let (least, most) = PAGE_RECORDS;
        self.records = match ms {
            _ if ms > PAGE_MS.1 => (self.records / 2).max(least),
            _ if ms < PAGE_MS.0 => (self.records * 2).min(most),
            _ => self.records,
        };
        let (stay, forgets) = (std::mem::take(&mut walk.stay), std::mem::take(&mut walk.forgets));
        walk.rest = walk.next.take();
        if walk.rest.is_none() {
            let rest_ms = REST_MS.max(walk.busy_ms.saturating_mul(REST_TIMES));
            self.rests_until = Some(after(now, rest_ms));
            self.walk = None;
        }
        self.came(stay);
        forgets
    }

    /// Takes note that the page could not be read or written.
    pub(super) fn failed(&mut self, now: Mono, rng: &mut fastrand::Rng) {
        self.in_page = false;
        self.backoff.again(now, rng);
    }
}

impl Machine for Tombstones {
    fn next_timeout(&self) -> Option<Mono> {
        let rests_until = self.rests_until.filter(|_| self.may_find());
        [rests_until, self.backoff.until()].into_iter().flatten().min()
    }

    fn expire(&mut self, now: Mono) {
        self.rests_until.take_if(|until| *until <= now);
        self.backoff.expire(now);
    }

    fn check(&self) {
        assert!(self.walk.is_some() || !self.in_page, "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{B, C, note, stamp};
    use super::*;
    use crate::storage::Entry;
    use crate::stored::record::{Header, Merged};

    fn row(key: &RecordKey, header: &Header) -> Entry {
        let value: &[u8] = if header.tombstone { b"" } else { b"value" };
        Entry { key: key.as_bytes().to_vec(), value: record::of(header, value) }
    }

    fn header(stream: ReplicaId, seq: u64) -> Header {
        Header { tombstone: true, schema: 0, stamp: stamp(seq, stream), seq, merge: None }
    }

    /// Some records: those that are deleted, by the commits of `B` with these numbers.
    fn rows() -> Vec<Entry> {
        let live = Header { tombstone: false, schema: 1, ..header(B, 2) };
        let mut rows: Vec<_> =
            (1..=4).map(|seq| row(&note(u8::try_from(seq).unwrap()), &header(B, seq))).collect();
        rows.push(row(&note(9), &live));
        rows.push(row(&note(10), &header(C, 1)));
        rows.sort_by(|one, other| one.key.cmp(&other.key));
        rows
    }

    fn limits(b: u64) -> BTreeMap<ReplicaId, u64> {
        BTreeMap::from([(B, b), (C, 0)])
    }

    /// A walk over the rows, two at a time; returns the keys that go.
    fn walk(
        tombstones: &mut Tombstones,
        rows: &mut Vec<Entry>,
        limits: BTreeMap<ReplicaId, u64>,
    ) -> Vec<Key> {
        tombstones.expire(Mono(1 << 40));
        tombstones.limits_rise();
        tombstones.begin(limits);
        let mut gone = Vec::new();
        while tombstones.waits() {
            let (range, _) = tombstones.read(9_999, Mono(0)).unwrap();
            let entries =
                rows.iter().filter(|row| range.contains(&row.key)).map(|row| (&row.key, &row.value));
            let page = ScanPage::of(entries, ScanLimit::entries(2));
            let dropped = tombstones.take(&page, |_| true);
            rows.retain(|row| !dropped.keys.contains(&row.key));
            gone.extend(dropped.keys);
            tombstones.page_ended(Mono(1));
            tombstones.check();
        }
        gone
    }

    #[test]
    fn what_is_at_or_below_the_limit_of_its_stream_goes() {
        let (mut tombstones, mut rows) = (Tombstones::opened(Mono(0), true), rows());
        let gone = walk(&mut tombstones, &mut rows, limits(3));
        assert_eq!(gone, [1, 2, 3].map(|id| note(id).into_bytes()));
        assert_eq!(rows.len(), 3, "a live record and the tombstones above the limits stay");
    }

    #[test]
    fn a_walk_is_made_only_if_it_finds_something() {
        let (mut tombstones, mut rows) = (Tombstones::opened(Mono(0), true), rows());
        assert!(
            walk(&mut tombstones, &mut rows, limits(0)).is_empty() && tombstones.unknown,
            "there was none"
        );
        assert_eq!(walk(&mut tombstones, &mut rows, limits(2)).len(), 2);
        tombstones.expire(Mono(1 << 40));
        for (limit, begins) in [(2, false), (3, true)] {
            assert!(!tombstones.may_begin(), "nothing has moved");
            tombstones.limits_rise();
            tombstones.begin(limits(limit));
            assert_eq!(tombstones.waits(), begins, "the lowest is of commit 3: {limit}");
        }
    }

    #[test]
    fn a_tombstone_that_comes_during_a_walk_is_not_forgotten() {
        let (mut tombstones, mut none) = (Tombstones::opened(Mono(0), true), Vec::new());
        walk(&mut tombstones, &mut none, limits(2));
        tombstones.came([(B, 7), (B, 9)]);
        assert_eq!(tombstones.lowest, BTreeMap::from([(B, 7)]));
    }

    #[test]
    fn a_walk_is_followed_by_a_rest() {
        let mut tombstones = Tombstones::opened(Mono(0), true);
        assert_eq!(tombstones.next_timeout(), Some(Mono(REST_MS)));
        tombstones.expire(Mono(REST_MS));
        tombstones.begin(limits(2));
        let (range, limit) = tombstones.read(9_999, Mono(100_000)).unwrap();
        assert_eq!((range, limit.entries), (keys::records(), FIRST));
        tombstones.take(&ScanPage { entries: Vec::new(), more: false }, |_| true);
        tombstones.page_ended(Mono(110_000));
        assert_eq!((tombstones.rests_until, tombstones.records), (Some(Mono(310_000)), FIRST / 2));
        assert_eq!(tombstones.next_timeout(), None, "there is none to wait for");
    }

    #[test]
    fn a_page_that_failed_is_read_again_after_a_pause() {
        let (mut tombstones, mut rng) = (Tombstones::opened(Mono(0), true), fastrand::Rng::with_seed(1));
        tombstones.expire(Mono(REST_MS));
        tombstones.begin(limits(2));
        let first = tombstones.read(9_999, Mono(0));
        tombstones.failed(Mono(0), &mut rng);
        assert!(!tombstones.waits());
        let at = tombstones.next_timeout().unwrap();
        tombstones.expire(at);
        assert!(tombstones.waits() && tombstones.read(9_999, at) == first);
    }

    /// The epoch of a tombstone may be above its stamp, if two deletes were made at once.
    #[test]
    fn the_highest_stamp_or_epoch_of_a_model_is_forgotten() {
        let bag = |id: u8| RecordKey::from_parts("bag", None, &[id]);
        let merged = |seq, epoch| Header { merge: Some(Merged::plain(stamp(epoch, C))), ..header(B, seq) };
        let beside = Merged { beside: true, ..Merged::plain(stamp(9, C)) };
        let rows = [
            row(&bag(1), &merged(1, 1)),
            row(&bag(2), &merged(2, 5)),
            row(&bag(3), &merged(3, 3)),
            row(&bag(4), &Header { tombstone: false, schema: 1, merge: Some(beside), ..header(B, 1) }),
        ];
        let mut tombstones = Tombstones::opened(Mono(0), true);
        tombstones.expire(Mono(REST_MS));
        tombstones.begin(limits(3));
        tombstones.read(9_999, Mono(0));
        let page = ScanPage { entries: rows.to_vec(), more: false };
        let dropped = tombstones.take(&page, |key| *key != bag(3));
        assert_eq!(dropped.keys, [bag(1), bag(2)].map(RecordKey::into_bytes));
        let forgets = BTreeMap::from([("bag".to_owned(), stamp(5, C))]);
        assert_eq!((&dropped.forgets, tombstones.page_ended(Mono(1))), (&forgets, forgets.clone()));
        assert_eq!(tombstones.lowest, BTreeMap::from([(B, 3)]), "one has the last word on it");
    }
}
