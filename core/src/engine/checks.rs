//! Checks: on demand, the logs here are read and compared with their heads, and what is damaged is fetched of peers.
//!
//! A log is checked from its head down: the digest of a row is the one that the row behind it names, or the head. So the
//! digest of a damaged row is known before the row is, and what a peer shows is taken if it has just that digest, whoever
//! the peer is. Below a damaged row nothing is known, so the walk of its stream goes on once the row is mended.
//!
//! Owns: the walks down the logs, the places that are not mended, the one that a peer is asked for, and the one to write.
//! Holds always: one read, one question and one write at a time; no peer is asked while logs are read; what is written has
//! the digest that the log here names; a peer is asked once for a place until it says hello again, and a silent one once in
//! a run; a place that is damaged again at once is left until the next hello.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::check::LogCheck;
use crate::clock::Mono;
use crate::events::{Damage, DamagedPart};
use crate::ids::ReplicaId;
use crate::storage::{Entry, ScanLimit, ScanPage, Value};
use crate::stored::keys::{self, StoredKey};
use crate::stored::log::{chain, split_row};
use crate::stored::{Digest, Head, LogEntry, Point, Pruned};

use super::Machine;
use super::backoff::after;
use super::ends;
use super::io::{Answer, Query, Ticket};
use super::ledger::Ledger;
use super::reads::{READ, READ_BYTES_MAX, READ_ROWS_MAX};
use super::serve::pick::LogRow;
use super::serve::values::{Care, Values};

/// How long a peer may take to answer. Links of long delay are the reason for so much.
const ANSWER_MS: u64 = 60_000;
/// The most damaged places that are remembered. Further ones are found by the next check.
const PLACES_MAX: usize = 4096;

/// Names a damaged place.
type PlaceId = (ReplicaId, u64);

/// A damaged place that is not mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) part: DamagedPart,
    /// The digest of the stream at the commit, as the row behind it or the head names it.
    pub(super) digest: Digest,
    /// The digest before it; of a damaged row nobody knows it.
    pub(super) previous: Option<Digest>,
    /// The head that the log has, if it is another one than the stored head. A peer that has the same last row decides.
    end: Option<Head>,
    /// The peers that could not help.
    pub(super) tried: BTreeSet<ReplicaId>,
    /// Whether it was mended already, and found damaged again: the medium may be broken there.
    rests: bool,
}

/// A question to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) place: PlaceId,
    pub(super) peer: ReplicaId,
    /// The pull that asks for the commit; a row is asked for by its place.
    pull: Option<u32>,
    deadline: Mono,
}

/// The content that mends a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mend {
    Row {
        previous: Digest,
        entry: Vec<u8>,
    },
    Head(Head),
    /// The place behind which the log begins.
    Floor(Point),
    Values(LogEntry, Vec<Option<Bytes>>),
}

/// The next thing that a check has to do or to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Read(Query),
    /// A damaged place.
    Found(Damage),
    /// These commits are whole.
    Sound(ReplicaId, RangeInclusive<u64>),
    /// The log of a stream begins behind this place, and the head says otherwise.
    Begins(ReplicaId, Point),
}

/// A walk down the log of a stream.
#[derive(Debug)]
struct Walk {
    stream: ReplicaId,
    /// The next row, and the digest that it must have.
    next: Point,
    /// The first row of the read under way.
    first: u64,
    /// How many rows are read at once: as many as fitted the last time, and a few more.
    block: u64,
    /// Rows that are whole, and whose values were not looked at yet, in the order of the log.
    rows: VecDeque<LogRow>,
    /// The values of the rows that were taken of these.
    group: Option<(Vec<LogRow>, Values)>,
    /// The damaged row at which the walk has ended.
    damaged: Option<Point>,
    /// Whether no row is there at all.
    is_missing: bool,
    /// The floor when the walk began: pruning moves it meanwhile.
    floor: u64,
    ended: bool,
}

/// The checks of the logs here.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// The calls that wait for the next run, and those that wait for the one under way.
    waiting: Vec<Ticket>,
    callers: Vec<Ticket>,
    result: LogCheck,
    ends: VecDeque<ends::Search>,
    walks: VecDeque<Walk>,
    reads: bool,
    places: BTreeMap<PlaceId, Place>,
    /// The places that were mended since a peer said hello.
    mended: BTreeSet<PlaceId>,
    /// Whether a place may have a peer that was not asked for it.
    may_ask: bool,
    asked: Option<Asked>,
    /// The peers that did not answer since the run began.
    silent: BTreeSet<ReplicaId>,
    /// The place to write, the peer that brought what mends it, if one did, and that.
    mend: Option<(PlaceId, Option<ReplicaId>, Mend)>,
    writes: bool,
    /// Whether a place was mended since peers were told.
    news: bool,
}

impl Checks {
    /// Takes a call that wants all logs checked from now on.
    pub(super) fn call(&mut self, ticket: Ticket) {
        self.waiting.push(ticket);
    }

    /// Whether calls wait for a run that may begin now, since nothing is under way.
    pub(super) fn may_begin(&self) -> bool {
        let asks = self.asked.is_some() || self.mend.is_some();
        !self.waiting.is_empty() && self.callers.is_empty() && !self.is_reading() && !asks
    }

    /// Begins a run for the calls that wait, if it may begin.
    pub(super) fn begin(&mut self, ledger: &Ledger, head_is_whole: impl Fn(ReplicaId) -> bool) {
        if !self.may_begin() {
            return;
        }
        self.callers = std::mem::take(&mut self.waiting);
        self.result = LogCheck::default();
        self.silent.clear();
        self.places.retain(|_, place| place.part != DamagedPart::Floor);
        self.forget_tried();
        for (stream, head) in ledger.heads() {
            if head_is_whole(*stream) {
                self.walks.push_back(Walk::new(*stream, head.point(), head.floor));
            } else {
                self.ends.push_back(ends::Search::new(*stream, head));
            }
        }
    }

    /// Whether logs are being read.
    fn is_reading(&self) -> bool {
        !self.ends.is_empty() || !self.walks.is_empty()
    }

    /// Asks all peers again for what is not mended.
    fn forget_tried(&mut self) {
        self.mended.clear();
        for place in self.places.values_mut() {
            place.tried.clear();
            place.rests = false;
        }
        self.may_ask = !self.places.is_empty();
    }

    /// The next step, if no read is under way.
    pub(super) fn step(&mut self, ledger: &Ledger, kept_of: ReplicaId) -> Option<Step> {
        // The walks go on once the mend is written: behind it they read what it has written.
        if self.reads || self.mend.is_some() {
            return None;
        }
        if let Some(search) = self.ends.front_mut() {
            return match search.step() {
                Some(query) => {
                    self.reads = true;
                    Some(Step::Read(query))
                }
                None => self.end_search(ledger, kept_of),
            };
        }
        let walk = self.walks.front_mut()?;
        let step = walk.step(ledger, kept_of);
        match &step {
            Some(Step::Read(_)) => self.reads = true,
            Some(Step::Sound(_, seqs)) => {
                self.result.commits += (seqs.end() + 1).saturating_sub(*seqs.start());
                let stream = walk.stream;
                for seq in seqs.clone() {
                    self.places.remove(&(stream, seq));
                }
            }
            Some(Step::Found(damage)) => {
                let found = match damage.part {
                    DamagedPart::Value => walk.lost_at(damage.seq),
                    _ => walk.damaged.map(|point| (point.digest, None)),
                };
                if let Some((digest, previous)) = found {
                    self.add(*damage, digest, previous);
                }
            }
            Some(Step::Begins(stream, point)) => {
                let damage = Damage { stream: *stream, seq: point.seq, part: DamagedPart::Floor };
                self.add(damage, point.digest, None);
                self.mend = Some(((*stream, point.seq), None, Mend::Floor(*point)));
            }
            None => {}
        }
        match step {
            None => {
                self.walks.pop_front();
                self.step(ledger, kept_of)
            }
            step => step,
        }
    }

    /// Takes the end of a log whose head is damaged. Where the log does not prove the head, a peer is asked.
    fn end_search(&mut self, ledger: &Ledger, kept_of: ReplicaId) -> Option<Step> {
        if self.asked.is_some() {
            return None;
        }
        if let Some(search) = self.ends.pop_front() {
            let (stream, head) = (search.stream(), ledger.head(search.stream()));
            let found = search.end(&head);
            let place = (stream, head.seq);
            self.add(Damage { stream, seq: head.seq, part: DamagedPart::Head }, head.digest, None);
            if let Some(place) = self.places.get_mut(&place) {
                place.end = found.map(|(end, _)| end);
            }
            if let Some((end, true)) = found {
                self.mend = Some((place, None, Mend::Head(end)));
            }
        }
        self.step(ledger, kept_of)
    }

    /// Takes note of a place to mend.
    fn add(&mut self, damage: Damage, digest: Digest, previous: Option<Digest>) {
        let id = (damage.stream, damage.seq);
        if self.places.len() < PLACES_MAX || self.places.contains_key(&id) {
            let rests = self.mended.contains(&id);
            let (part, tried) = (damage.part, self.silent.clone());
            self.places.insert(id, Place { part, digest, previous, end: None, tried, rests });
            self.may_ask |= !rests;
        }
    }

    /// Takes the answer to the read.
    pub(super) fn take(&mut self, answer: Answer) {
        self.reads = false;
        if let Some(search) = self.ends.front_mut() {
            search.take(answer);
        } else if let Some(walk) = self.walks.front_mut() {
            walk.take(answer);
        }
    }

    /// Gives up the run, since the store could not be read. Returns the calls that waited for it.
    pub(super) fn fail(&mut self) -> Vec<Ticket> {
        self.reads = false;
        self.ends.clear();
        self.walks.clear();
        std::mem::take(&mut self.callers)
    }

    // --- asking peers -------------------------------------------------------------------------------------------------

    /// The next place to ask a peer for: one that `able` names as the best of those that were not tried. Places whose
    /// values are missing wait while nothing can be pulled, and all wait while logs are read: what was read before a
    /// place is mended is no longer so behind it.
    pub(super) fn choose(
        &mut self,
        can_pull: bool,
        able: impl Fn(PlaceId, &Place) -> Option<ReplicaId>,
    ) -> Option<(PlaceId, Place, ReplicaId)> {
        if !self.may_ask || self.is_reading() || self.asked.is_some() || self.mend.is_some() {
            return None;
        }
        let mut waits = false;
        let asks = |place: &Place| !place.rests && place.part != DamagedPart::Floor;
        for (id, place) in self.places.iter().filter(|(_, place)| asks(place)) {
            let pulls = place.part == DamagedPart::Value && !can_pull;
            if pulls && waits {
                continue;
            }
            match able(*id, place) {
                Some(_) if pulls => waits = true,
                Some(peer) => return Some((*id, place.clone(), peer)),
                None => {}
            }
        }
        self.may_ask = waits;
        None
    }

    /// Takes note that a peer is asked.
    pub(super) fn asks(&mut self, place: PlaceId, peer: ReplicaId, pull: Option<u32>, now: Mono) {
        self.asked = Some(Asked { place, peer, pull, deadline: after(now, ANSWER_MS) });
    }

    /// Takes the row that a peer shows.
    pub(super) fn shown(&mut self, from: ReplicaId, place: PlaceId, row: Option<(Digest, &[u8])>) {
        let waits = |asked: &mut Asked| (asked.peer, asked.place, asked.pull) == (from, place, None);
        let Some(asked) = self.asked.take_if(waits) else { return };
        let here = self.places.get(&place);
        let mend = row.zip(here).and_then(|((previous, entry), here)| {
            let theirs = chain(&previous, entry);
            let row = (theirs == here.digest).then(|| Mend::Row { previous, entry: entry.to_vec() });
            row.or_else(|| here.end.filter(|end| end.digest == theirs).map(Mend::Head))
        });
        match mend {
            Some(mend) => self.mend = Some((place, Some(from), mend)),
            None => self.was_tried(asked.place, asked.peer),
        }
    }

    /// The place for which a page was asked, if it is this one.
    pub(super) fn is_page(&self, from: ReplicaId, pull: u32) -> Option<(PlaceId, Digest)> {
        let asked = self.asked.filter(|asked| (asked.peer, asked.pull) == (from, Some(pull)))?;
        Some((asked.place, self.places.get(&asked.place)?.digest))
    }

    /// Takes the values that the page of a peer has; `None` if it has not the commit.
    pub(super) fn brought(&mut self, values: Option<(LogEntry, Vec<Option<Bytes>>)>) {
        let Some(asked) = self.asked.take() else { return };
        match values {
            Some((entry, values)) => {
                self.mend = Some((asked.place, Some(asked.peer), Mend::Values(entry, values)));
            }
            None => self.was_tried(asked.place, asked.peer),
        }
    }

    fn was_tried(&mut self, place: PlaceId, peer: ReplicaId) {
        if let Some(place) = self.places.get_mut(&place) {
            place.tried.insert(peer);
        }
        self.may_ask = true;
    }

    /// Takes note that a peer said hello: it may have by now what it had not. A peer that is silent but for its hellos keeps
    /// no run from its end.
    pub(super) fn greeted(&mut self, peer: ReplicaId) {
        if !self.callers.is_empty() && self.silent.contains(&peer) {
            return;
        }
        self.silent.remove(&peer);
        self.mended.clear();
        for place in self.places.values_mut() {
            place.tried.remove(&peer);
            place.rests = false;
        }
        self.may_ask = !self.places.is_empty();
    }

    pub(super) fn went_down(&mut self, peer: ReplicaId) {
        if let Some(asked) = self.asked.take_if(|asked| asked.peer == peer) {
            self.was_tried(asked.place, asked.peer);
        }
    }

    // --- writing ------------------------------------------------------------------------------------------------------

    /// Whether a place waits to be written.
    pub(super) fn has_mend(&self) -> bool {
        self.mend.is_some() && !self.writes
    }

    /// Takes note that the place is being written.
    pub(super) fn begin_write(&mut self) {
        self.writes = self.mend.is_some();
    }

    /// The place that is written, and what mends it.
    pub(super) fn mend(&self) -> Option<(PlaceId, &Mend)> {
        self.mend.as_ref().map(|(place, _, mend)| (*place, mend))
    }

    /// Takes note of how the write ended; returns what was mended. The walk of a stream goes on behind its mended row.
    pub(super) fn written(&mut self, ok: bool, floor: impl Fn(ReplicaId) -> u64) -> Option<(Damage, Mend)> {
        self.writes = false;
        let ((stream, seq), peer, mend) = self.mend.take()?;
        if !ok {
            // A store that refuses is not asked again and again.
            peer.into_iter().for_each(|peer| self.was_tried((stream, seq), peer));
            return None;
        }
        let place = self.places.remove(&(stream, seq))?;
        match &mend {
            Mend::Row { .. } => {
                self.walks.push_back(Walk::new(stream, Point { seq, digest: place.digest }, floor(stream)));
            }
            Mend::Head(head) => self.walks.push_back(Walk::new(stream, head.point(), head.floor)),
            Mend::Floor(_) | Mend::Values(..) => {}
        }
        self.mended.insert((stream, seq));
        self.result.mended += 1;
        (self.news, self.may_ask) = (true, !self.places.is_empty());
        Some((Damage { stream, seq, part: place.part }, mend))
    }

    // --- the end ------------------------------------------------------------------------------------------------------

    /// Whether nothing is under way and no peer is left to be asked.
    fn is_at_rest(&self) -> bool {
        !self.is_reading() && !self.may_ask && self.asked.is_none() && self.mend.is_none()
    }

    /// Whether peers are to be told that something was mended.
    pub(super) fn poll_news(&mut self) -> bool {
        self.is_at_rest() && std::mem::take(&mut self.news)
    }

    /// The result of the run that has ended, and the calls that wait for it.
    pub(super) fn poll_end(&mut self) -> Option<(Vec<Ticket>, LogCheck)> {
        if self.callers.is_empty() || !self.is_at_rest() {
            return None;
        }
        let left = self.places.iter().map(|((stream, seq), place)| (*stream, *seq, place.part));
        self.result.damaged = left.map(|(stream, seq, part)| Damage { stream, seq, part }).collect();
        Some((std::mem::take(&mut self.callers), std::mem::take(&mut self.result)))
    }
}

impl Walk {
    fn new(stream: ReplicaId, next: Point, floor: u64) -> Self {
        Self {
            stream,
            next,
            first: 0,
            block: READ_ROWS_MAX as u64,
            rows: VecDeque::new(),
            group: None,
            damaged: None,
            is_missing: false,
            floor,
            ended: false,
        }
    }

    fn step(&mut self, ledger: &Ledger, kept_of: ReplicaId) -> Option<Step> {
        loop {
            if let Some((_, values)) = &mut self.group {
                if let Some(query) = values.step() {
                    return Some(Step::Read(query));
                }
                return self.end_group(ledger);
            }
            if self.rows.is_empty() {
                break;
            }
            self.begin_group(ledger, (kept_of, ledger.kept_up_to()));
        }
        let Head { floor, floor_digest, .. } = ledger.head(self.stream);
        if self.ended {
            return None;
        }
        if let Some(point) = self.damaged {
            self.ended = true;
            if self.is_missing && (point.seq <= self.floor || point.digest == floor_digest) {
                return self.begins_at(point, floor);
            }
            let damage = Damage { stream: self.stream, seq: point.seq, part: DamagedPart::Row };
            return (point.seq > floor || floor == self.floor).then_some(Step::Found(damage));
        }
        if self.next.seq <= floor {
            // Below a wrong floor the log goes on.
            let is_floor = self.next.digest == floor_digest;
            if is_floor || self.next.seq == 0 || floor != self.floor {
                self.ended = true;
                return self.begins_at(self.next, floor).filter(|_| !is_floor || self.next.seq != floor);
            }
        }
        let floor = if self.next.seq > floor { floor } else { 0 };
        let rows = self.block.clamp(1, self.next.seq - floor);
        self.first = self.next.seq + 1 - rows;
        let limit = ScanLimit { entries: usize::try_from(rows).unwrap_or(usize::MAX), ..READ };
        Some(Step::Read(Query::Scan(keys::logs_from(self.stream, self.first), limit)))
    }

    /// The log begins behind this place, unless the floor is another one by now: then it was pruned meanwhile.
    fn begins_at(&self, point: Point, floor: u64) -> Option<Step> {
        (floor == self.floor).then_some(Step::Begins(self.stream, point))
    }

    fn take(&mut self, answer: Answer) {
        match (&mut self.group, answer) {
            (Some((_, values)), answer) => values.take(answer),
            (None, Answer::Page(page)) => self.take_rows(page),
            (None, answer) => debug_assert!(false, "{answer:?} while rows are read"),
        }
    }

    /// Takes the rows of a read, the last one first.
    fn take_rows(&mut self, page: ScanPage) {
        let mut found: BTreeMap<u64, Value> = BTreeMap::new();
        for Entry { key, value } in page.entries {
            if let Some(StoredKey::Log(stream, seq)) = StoredKey::parse(&key)
                && stream == self.stream
            {
                found.insert(seq, value);
            }
        }
        if let Some(last) = found.keys().last().filter(|last| page.more && **last < self.next.seq) {
            // The read was cut off before the row to begin with: read fewer, so that they fit.
            self.block = self.next.seq - last;
            return;
        }
        self.block = (READ_ROWS_MAX as u64).min(self.block * 2);
        for seq in (self.first..=self.next.seq).rev() {
            let row = found.remove(&seq).unwrap_or_default();
            let whole =
                split_row(&row).ok().filter(|(before, entry)| chain(before, entry) == self.next.digest);
            let Some((previous, entry)) = whole else {
                self.damaged = Some(self.next);
                self.is_missing = row.is_empty();
                return;
            };
            // An entry that only a later version can read is whole all the same; its values are left.
            if let Ok(entry) = LogEntry::parse(self.stream, entry) {
                self.rows.push_front(LogRow { stream: self.stream, seq, row, entry });
            }
            self.next = Point { seq: seq - 1, digest: previous };
        }
    }

    /// Looks for the values of the next rows, as many as fit into memory.
    fn begin_group(&mut self, ledger: &Ledger, own_kept: (ReplicaId, u64)) {
        let (mut group, mut bytes) = (Vec::new(), 0_usize);
        while let Some(row) = self.rows.front() {
            bytes = bytes.saturating_add(row.bytes());
            if bytes > READ_BYTES_MAX && !group.is_empty() {
                break;
            }
            group.extend(self.rows.pop_front());
        }
        let pruned = Pruned::of(ledger.heads());
        let values = Values::new(group.clone(), own_kept, Care::Records).lacking(pruned);
        self.group = Some((group, values));
    }

    /// Takes the result for a group: its commits are whole, up to the first one of which a value is lost. Those behind
    /// that one are looked at again.
    fn end_group(&mut self, ledger: &Ledger) -> Option<Step> {
        let (group, values) = self.group.as_mut()?;
        let (first, last) = (group.first()?.seq, group.last()?.seq);
        let floor = ledger.head(self.stream).floor;
        let (_, lost) = values.finish();
        match lost.first().map(|(_, seq)| *seq).filter(|seq| *seq > floor) {
            None => {
                self.group = None;
                Some(Step::Sound(self.stream, first..=last))
            }
            Some(seq) if seq > first => {
                // Look at the lost one alone next.
                let behind = group.split_off(group.iter().position(|row| row.seq == seq)?);
                behind.into_iter().rev().for_each(|row| self.rows.push_front(row));
                self.group = None;
                Some(Step::Sound(self.stream, first..=seq - 1))
            }
            Some(seq) => Some(Step::Found(Damage { stream: self.stream, seq, part: DamagedPart::Value })),
        }
    }

    /// The digests at and before the first commit of the group, whose value is lost. Ends the group.
    fn lost_at(&mut self, seq: u64) -> Option<(Digest, Option<Digest>)> {
        let (mut group, _) = self.group.take()?;
        let behind = group.split_off(1);
        behind.into_iter().rev().for_each(|row| self.rows.push_front(row));
        let lost = group.pop().filter(|row| row.seq == seq)?;
        let (previous, entry) = split_row(&lost.row).ok()?;
        Some((chain(&previous, entry), Some(previous)))
    }
}

impl Machine for Checks {
    fn next_timeout(&self) -> Option<Mono> {
        self.asked.map(|asked| asked.deadline)
    }

    fn expire(&mut self, now: Mono) {
        if let Some(asked) = self.asked.take_if(|asked| asked.deadline <= now) {
            self.silent.insert(asked.peer);
            self.places.values_mut().for_each(|place| _ = place.tried.insert(asked.peer));
            self.may_ask = true;
        }
    }

    fn check(&self) {
        assert!(self.asked.is_none() || self.mend.is_none(), "one place at a time: {self:?}");
        assert!(!self.writes || self.mend.is_some(), "{self:?}");
        assert!(self.places.len() <= PLACES_MAX, "{} places", self.places.len());
    }
}
