//! A chapter of the engine: the install of a snapshot, which is judged, staged, switched to and folded. Whom it is asked of is
//! [a chapter of its own](super::sources).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::Error;
use crate::events::{Event, StreamStop};
use crate::hlc::Hlc;
use crate::ids::ReplicaId;
use crate::projection::Settled;
use crate::storage::{Entry, Key, KeyRange, ReadError, ScanLimit, ScanPage, Value, WriteBatch};
use crate::stored::keys::{self, RecordKey, StoredKey};
use crate::stored::{Counts, Head, InstallRow, Phase, clock_value, forgotten_value, record};

use super::commit::Pair;
use super::install::{NewPart, Work};
use super::judge::{Judge, Judged, Part};
use super::pull::Answers;
use super::stream::Tip;
use super::stream::admission::{Admission, Admitting};
use super::wire::{
    self, Before, Capped, Packed, PageHead, Reach, Rebuilt, Rows, SnapshotHead, SnapshotRefusal, WireHead,
};
use super::writes::Doing;
use super::{Effect, Engine, Mark, Overlay, Pen, Places, Received, lend_keys, take_keys_back};

/// The most records of one step of a fold, and their bytes: as much as a page of a snapshot.
const FOLD: ScanLimit = ScanLimit { entries: 4096, bytes: 1 << 20 };
/// The same with projections, which make rows of their own of each record.
const FOLD_PROJECTED: ScanLimit = ScanLimit { entries: 512, ..FOLD };
/// The most rows that one step clears.
const CLEAR: ScanLimit = ScanLimit { entries: 4096, bytes: 4 << 20 };

/// The write of an install that is under way.
#[derive(Debug)]
pub(super) enum Installing {
    Part(Box<NewPart>),
    /// Reading the staged records that a tail changes.
    ReadingTail(Vec<Received>, Places),
    /// Writing a tail, which moves these heads of the stage.
    Tail(Vec<(ReplicaId, Head)>, Hlc),
    /// The switch, which leaves the row like this, if a fold comes behind it.
    Switch(Vec<(ReplicaId, Head)>, Option<InstallRow>),
    /// Reading the live records of a step.
    ReadingLive,
    /// Reading the staged records beside them.
    ReadingStaged(ScanPage),
    /// Reading staged values that lie beside records, and then these.
    ReadingBesides,
    ReadingTheirs(ScanPage),
    /// Writing a step of a fold.
    Fold(InstallRow),
    /// Reading staged rows to clear.
    ReadingStage,
    /// Writing the row like this, or removing it.
    Row(Option<InstallRow>),
}

impl Engine {
    /// The overlay of reads from the opening on.
    pub(crate) fn overlay(&self) -> Overlay {
        match self.install.stage() {
            Some(_) if self.install.is_in_place() && self.context.rules.staged => Overlay::Hidden,
            Some(stage) if self.install.is_folding() => Overlay::Joined(Arc::new(stage.row.as_of.clone())),
            _ => Overlay::None,
        }
    }

    // --- records ----------------------------------------------------------------------------------------------------

    /// Takes a page of a snapshot.
    pub(super) fn hear_records(&mut self, from: ReplicaId, head: SnapshotHead, rows: Rows) {
        let answers = self.hear_answer(from, head.id);
        if answers == Answers::Records && head.more {
            self.page_was_full(from);
        }
        if answers != Answers::Records || !self.install.is_next(head.id) {
            return;
        }
        if let Some(refusal) = head.refusal {
            self.tell(Event::SnapshotRefused { by: from, reason: format!("{refusal:?}") });
            return match refusal {
                SnapshotRefusal::NotNow => self.install.failed(self.now.mono, &mut self.rng),
                SnapshotRefusal::Damaged | SnapshotRefusal::TooLong => self.snapshot_fails(from),
            };
        }
        self.peers.is_useful(from);
        // Whatever its sender has rests on its heads, and comes without a word on its causes: where a head has another
        // history than the log here, nothing of it may be taken.
        let heads = head.heads.0.iter();
        let heads = heads.map(|head| WireHead { stream: head.stream, seq: head.seq, digest: head.digest });
        self.compare_places(from, &Capped(heads.collect()));
        self.install.hold(from, head, rows);
    }

    /// Takes the page whose heads have been compared.
    pub(super) fn go_on_with_held_page(&mut self) {
        if self.install.held_from().is_none_or(|from| self.looks.compares_with(from)) {
            return;
        }
        let Some((from, head, rows)) = self.install.take_held().map(|held| *held) else { return };
        for head in &head.heads.0 {
            let ours = self.ledger.head(head.stream);
            if head.seq == ours.seq && head.digest != ours.digest {
                self.doubt(from, head.stream, head.seq);
            }
        }
        if head.heads.0.iter().any(|head| self.doubts.any(from, head.stream)) {
            return self.install.failed(self.now.mono, &mut self.rng);
        }
        match self.judge_records(from, &head, &rows) {
            Ok(Some(parts)) => self.install.take_page(parts),
            Ok(None) => self.install.give_up(),
            Err(reason) => {
                self.reject(from, reason);
                self.snapshot_fails(from);
            }
        }
    }

    /// Judges a page; `None` if its sender cannot go on with what is staged.
    fn judge_records(
        &mut self,
        from: ReplicaId,
        head: &SnapshotHead,
        rows: &Rows,
    ) -> Result<Option<Vec<NewPart>>, String> {
        let me = self.context.me();
        let entries = rows.entries().map_err(|error| error.to_string())?;
        if head.more && entries.is_empty() {
            return Err("a page of its snapshot is empty, though it has more".into());
        }
        let mut judge = Judge::new(head, &self.context, (&self.ledger, &self.streams, &self.now))?;
        // The own stream is whole here, unless this store was restored.
        let (own, ours) = (judge.heads.get(&me).copied(), self.ledger.own());
        if let Some(own) =
            own.filter(|own| own.seq > ours.seq || own.seq == ours.seq && own.digest != ours.digest)
        {
            self.doubt(from, me, own.seq);
            return Err("its snapshot has another history of this replica's own stream".into());
        }
        let begins = self.install.row().is_none();
        let mut row = match self.install.row() {
            Some(row) => row.clone(),
            None => self.first_row(head, &judge.heads)?,
        };
        let lacks = |(stream, seq): (&ReplicaId, &u64)| {
            *stream != me && judge.heads.get(stream).is_none_or(|head| head.seq < *seq)
        };
        if !begins && self.context.rules.resume_needs_cover && row.need.iter().any(lacks) {
            return Ok(None);
        }
        let judged = judge.rows(entries, row.cursor.as_deref(), row.in_place)?;
        let Judge { heads: named, high, far, .. } = judge;
        if self.context.rules.drift_is_held && !far.is_empty() {
            self.hold_far(from, far, &named, high);
            return Err("its snapshot has a stamp that is too far ahead of the time of day here".into());
        }
        for head in named.values().filter(|_| self.context.rules.need_tail) {
            let need = row.need.entry(head.stream).or_insert(0);
            *need = head.seq.max(*need);
        }
        for forgotten in &head.forgotten.0 {
            let known = row.forgotten.entry(forgotten.model.clone()).or_insert(Hlc::NEVER);
            *known = forgotten.stamp().max(*known);
        }
        row.high = row.high.max(high);
        let Judged { parts, mut members } = judged;
        let mut heads: BTreeMap<_, _> = match begins {
            true => head.before.0.iter().map(|head| (head.stream, head.head())).collect(),
            false => BTreeMap::new(),
        };
        let mut page = Vec::with_capacity(parts.len());
        let last = parts.len().saturating_sub(1);
        for (at, Part { mut batch, last: cursor, rows, bytes }) in parts.into_iter().enumerate() {
            // What the stage begins with is of the first part.
            let (heads, members) = (std::mem::take(&mut heads), std::mem::take(&mut members));
            for (stream, head) in &heads {
                batch.put(keys::staged(&keys::head(*stream)), head.to_value());
            }
            row.cursor = cursor;
            row.counts.records += rows;
            row.counts.bytes += bytes;
            if !head.more && at == last {
                row.phase = Phase::Tail;
            }
            batch.put(keys::install(), row.to_value());
            page.push(NewPart { row: row.clone(), batch, heads, members });
        }
        Ok(Some(page))
    }

    /// Holds the streams of replicas whose stamps are too far ahead, as they are held by log: their app may release them.
    fn hold_far(
        &mut self,
        from: ReplicaId,
        far: BTreeSet<ReplicaId>,
        named: &BTreeMap<ReplicaId, wire::WireStamped>,
        high: Hlc,
    ) {
        // Without the wall clock no stamp can be checked.
        let (me, known) = (self.context.me(), self.now.wall.is_ok());
        for stream in far.into_iter().filter(|stream| *stream != me && known) {
            let stamp = named.get(&stream).map_or(high, wire::WireStamped::stamp);
            let seq = self.streams.tip(stream).seq + 1;
            self.stop_stream(stream, from, StreamStop::Held { seq, stamp });
        }
    }

    /// Whether a snapshot that began now would be put in its place: nothing is here that it could be beside.
    pub(super) fn installs_in_place(&self) -> bool {
        let empty = self.ledger.heads().values().all(|head| head.seq == 0) && self.inbox.is_empty();
        empty && self.context.projected.is_empty()
    }

    /// The row of a snapshot that begins.
    fn first_row(
        &self,
        head: &SnapshotHead,
        named: &BTreeMap<ReplicaId, wire::WireStamped>,
    ) -> Result<InstallRow, String> {
        let as_of: BTreeMap<_, _> = head.before.0.iter().map(|head| (head.stream, head.seq)).collect();
        let rests = |head: &wire::WireStamped| {
            named.get(&head.stream).is_some_and(|after| {
                after.seq > head.seq || after.seq == head.seq && after.digest == head.digest
            })
        };
        if as_of.is_empty() || as_of.len() != head.before.0.len() || !head.before.0.iter().all(rests) {
            return Err("its snapshot begins with heads that cannot be".into());
        }
        let (of_records, of_bytes) = head.of.unwrap_or_default();
        Ok(InstallRow {
            phase: Phase::Records,
            in_place: self.installs_in_place() || !self.context.rules.staged,
            need: if self.context.rules.need_tail { BTreeMap::new() } else { as_of.clone() },
            as_of,
            forgotten: BTreeMap::new(),
            high: Hlc::NEVER,
            cursor: None,
            counts: Counts { of_records, of_bytes, ..Counts::default() },
        })
    }

    // --- the tail ---------------------------------------------------------------------------------------------------

    /// The machines that the admission of a tail reads.
    fn admitting_tail(&self) -> Option<Admitting<'_>> {
        let stage = self.install.stage()?;
        Some(Admitting {
            context: &self.context,
            now: &self.now,
            ledger: &stage.ledger,
            members: &stage.members,
            streams: &stage.streams,
            inbox: &stage.inbox,
            damages: &self.damages,
            doubts: &self.doubts,
        })
    }

    /// Takes a page of the log behind the records of a snapshot.
    pub(super) fn hear_tail(&mut self, from: ReplicaId, head: &PageHead, packed: &Packed) {
        if self.install.stage().is_none_or(|stage| stage.row.phase != Phase::Tail || !stage.inbox.is_empty())
        {
            return;
        }
        let most = self.context.limits.frame_bytes_max;
        let base = |run: &wire::Run, _| match (run.device, run.before) {
            (Some(device), Before::Full(digest)) => Some((device, digest)),
            _ => None,
        };
        let commits = match packed.rebuild(from, most, true, base) {
            Ok(commits) => commits,
            Err(error) => {
                self.reject(from, error.to_string());
                return self.install.failed(self.now.mono, &mut self.rng);
            }
        };
        let mut taken = 0;
        for commit in commits {
            let Rebuilt::Commit(commit) = commit else { continue };
            let (stream, released) = (commit.stream, self.streams.is_released(commit.stream));
            if let Some(stage) = self.install.stage_mut() {
                stage.streams.follow_release(stream, released);
            }
            let admission = self.admitting_tail().map(|tail| tail.admit(from, &commit));
            let (commit, members) = match admission {
                Some(Admission::Next { commit, members, .. }) => (commit, members),
                Some(Admission::Stops(stop)) => {
                    self.tail_stops(from, stream, stop);
                    continue;
                }
                _ => continue,
            };
            let Some(stage) = self.install.stage_mut() else { return };
            let tip = Tip { seq: commit.seq, stamp: commit.entry.stamp, digest: commit.digest };
            stage.streams.advance(commit.stream, tip);
            stage.inbox.push(*commit, members);
            taken += 1;
        }
        if taken > 0 {
            self.peers.is_useful(from);
        } else if head.reach == Reach::Pruned {
            // The log does not reach back to where the snapshot began.
            self.marks.note(Mark::TailPruned);
            self.install.give_up();
        } else {
            self.install.failed(self.now.mono, &mut self.rng);
        }
    }

    /// Stops a stream whose commit in a tail cannot be taken: the app hears of it, and may release it.
    fn tail_stops(&mut self, from: ReplicaId, stream: ReplicaId, stop: StreamStop) {
        let seq = self.streams.tip(stream).seq + 1;
        let stop = match stop {
            StreamStop::Held { stamp, .. } => StreamStop::Held { seq, stamp },
            StreamStop::Refused { reason, .. } => StreamStop::Refused { seq, reason },
            other => other,
        };
        if !self.streams.is_stopped_for(stream, from) {
            self.stop_stream(stream, from, stop);
        }
    }

    /// Reads the staged records that the tail changes.
    fn read_tail(&mut self) {
        let limits = Arc::clone(&self.context.limits);
        let Some(stage) = self.install.stage_mut() else { return };
        let mut commits = stage.inbox.take(&limits, usize::MAX);
        let in_place = stage.row.in_place;
        let (mut keys, places) = lend_keys(&mut commits);
        if !in_place {
            keys.iter_mut().for_each(|key| *key = keys::staged(key));
        }
        let job = self.writes.begin(Doing::Installing(Installing::ReadingTail(commits, places)));
        self.effects.push_back(Effect::Read(job, keys));
    }

    fn decide_tail(
        &mut self,
        mut commits: Vec<Received>,
        places: &Places,
        mut keys: Vec<Key>,
        values: Result<Vec<Option<Value>>, ReadError>,
    ) {
        let Some(stage) = self.install.stage() else { return };
        if !stage.row.in_place {
            keys.iter_mut().for_each(|key| *key = keys::unstaged(key).unwrap_or_default().to_vec());
        }
        take_keys_back(&mut commits, keys, places);
        let mut pen = Pen::new(&self.context, &stage.ledger, self.now.wall.clone(), 0, false);
        let decided = values.map_err(Error::from).and_then(|values| pen.receive(&commits, values, places));
        let Ok(mut decision) = decided else { return self.install_failed() };
        let mut row = stage.row.clone();
        row.high = row.high.max(decision.clock);
        let kept = commits.iter().flat_map(|commit| {
            let values = commit.entry.changes.iter().zip(&commit.values);
            values.filter_map(|(change, value)| {
                let key = keys::kept(commit.stream, commit.seq, &change.record);
                value.as_ref().map(|value| (key, value.to_vec()))
            })
        });
        let batch = pen.stages(&mut decision, kept, &row);
        if let Some(stage) = self.install.stage_mut() {
            stage.row = row;
            stage.add_members(std::mem::take(&mut decision.members));
        }
        let job = self.writes.begin(Doing::Installing(Installing::Tail(decision.heads, decision.clock)));
        self.effects.push_back(Effect::Write(job, batch));
    }

    // --- writing ----------------------------------------------------------------------------------------------------

    /// Begins the next write of an install.
    pub(super) fn begin_install(&mut self) {
        match self.install.work() {
            None => {}
            Some(Work::Part(mut part)) => {
                let batch = std::mem::take(&mut part.batch);
                self.write_install(batch, Installing::Part(part));
            }
            Some(Work::Tail) => self.read_tail(),
            Some(Work::Switch) => self.begin_switch(),
            Some(Work::Fold) => self.begin_fold_step(),
            Some(Work::Clear) => {
                let job = self.writes.begin(Doing::Installing(Installing::ReadingStage));
                self.effects.push_back(Effect::Scan(job, keys::stage(), CLEAR));
            }
            Some(Work::GiveUp) => {
                let Some(stage) = self.install.stage() else {
                    return self.install.written(None);
                };
                let mut row = stage.row.clone();
                let mut batch = WriteBatch::new();
                if row.in_place {
                    batch.delete_range(keys::records());
                    batch.delete_range(keys::besides());
                }
                // Rows of the tail stand in the logs behind their heads: without the stage nothing refers to them.
                for (stream, head) in stage.ledger.heads() {
                    let ours = self.ledger.head(*stream).seq;
                    if head.seq > ours {
                        for range in keys::log_and_kept(*stream, ours + 1, head.seq) {
                            batch.delete_range(range);
                        }
                    }
                }
                row.phase = Phase::Clear;
                row.in_place = false;
                batch.put(keys::install(), row.to_value());
                self.marks.note(Mark::InstallBeganAnew);
                self.write_install(batch, Installing::Row(Some(row)));
            }
        }
    }

    fn write_install(&mut self, batch: WriteBatch, installing: Installing) {
        let job = self.writes.begin(Doing::Installing(installing));
        self.effects.push_back(Effect::Write(job, batch));
    }

    /// The switch: from now on the snapshot counts.
    fn begin_switch(&mut self) {
        let Some(stage) = self.install.stage() else { return };
        let (row, me) = (&stage.row, self.context.me());
        let mut batch = WriteBatch::new();
        let mut moved = Vec::new();
        let mut pen = self.pen();
        pen.follows(row.high);
        for (stream, head) in stage.ledger.heads() {
            let ours = self.ledger.head(*stream);
            if *stream == me || head.seq <= ours.seq || self.streams.is_forked(*stream) {
                continue;
            }
            pen.follows(head.stamp);
            if head.floor > ours.floor {
                for range in keys::log_and_kept(*stream, ours.floor + 1, head.floor) {
                    batch.delete_range(range);
                }
            }
            batch.put(keys::head(*stream), head.to_value());
            moved.push((*stream, *head));
        }
        if self.context.rules.takes_forgotten {
            for (model, stamp) in &row.forgotten {
                if *stamp > self.ledger.forgotten(model) {
                    batch.put(keys::forgotten(model), forgotten_value(*stamp));
                }
            }
        }
        if stage.members.is_member() {
            batch.delete(keys::introducer());
        }
        batch.put(keys::clock(), clock_value(pen.high_water()));
        batch.delete_range(keys::staged_range(&keys::heads()));
        let next = (!row.in_place).then(|| InstallRow { phase: Phase::Fold, cursor: None, ..row.clone() });
        match &next {
            Some(next) => batch.put(keys::install(), next.to_value()),
            None => batch.delete(keys::install()),
        }
        self.used(pen);
        self.write_install(batch, Installing::Switch(moved, next));
    }

    /// Takes note that the switch is durable.
    fn switched(&mut self, moved: Vec<(ReplicaId, Head)>, next: Option<InstallRow>) {
        self.marks.note(Mark::Installed);
        // Received commits go on from heads that the switch passes, also those that came during its write: they are asked for
        // again, if they are missing now.
        self.let_go(0);
        let Some(stage) = self.install.stage() else { return };
        let members: Vec<_> = stage.members.ids().filter_map(|id| stage.members.get(id).cloned()).collect();
        let row = stage.row.clone();
        let clock = self.ledger.clock().high_water();
        let takes_forgotten = self.context.rules.takes_forgotten;
        let ledger = self.ledger_mut();
        for (model, stamp) in row.forgotten.iter().filter(|_| takes_forgotten) {
            ledger.forget(model, *stamp);
        }
        ledger.apply(moved.clone(), clock);
        for (stream, head) in &moved {
            let told = self.streams.installed(*stream, head);
            self.peers.tip_rose(*stream, head.seq);
            self.tell_of_streams(told);
        }
        self.peers.all_logs_may_reach();
        self.peers.all_are_useful();
        let overlay = next.as_ref().map_or(Overlay::None, |row| Overlay::Joined(Arc::new(row.as_of.clone())));
        if next.is_none() {
            self.fold_besides_anew();
        }
        self.effects.push_back(Effect::Overlay(overlay));
        self.install.written(next);
        self.tell(Event::Installed { records: row.counts.records, bytes: row.counts.bytes });
        self.acks.later(moved.into_iter().map(|(stream, _)| stream), self.peers.up(), self.now.mono);
        let news =
            members.into_iter().filter(|member| self.members.get(member.replica) != Some(member)).collect();
        self.take_members(news);
        self.hellos.now();
    }

    // --- the fold ---------------------------------------------------------------------------------------------------

    /// The part of a range behind the cursor of the fold.
    fn behind_cursor(&self, range: KeyRange) -> KeyRange {
        let cursor = self.install.stage().and_then(|stage| stage.row.cursor.as_ref());
        match cursor.filter(|cursor| range.contains(cursor)) {
            Some(cursor) => range.after(cursor),
            None => range,
        }
    }

    fn begin_fold_step(&mut self) {
        let cursor = self.install.stage().and_then(|stage| stage.row.cursor.as_deref());
        let (doing, range) = if cursor.is_some_and(|cursor| keys::besides().contains(cursor)) {
            (Installing::ReadingBesides, keys::staged_range(&self.behind_cursor(keys::besides())))
        } else {
            (Installing::ReadingLive, self.behind_cursor(keys::records()))
        };
        let job = self.writes.begin(Doing::Installing(doing));
        self.effects.push_back(Effect::Scan(job, range, self.fold_limit()));
    }

    /// The most records of either state in one step of a fold: a write has those of both.
    fn fold_limit(&self) -> ScanLimit {
        let ScanLimit { entries, bytes } =
            if self.context.projected.is_empty() { FOLD } else { FOLD_PROJECTED };
        let (changes_max, bytes_max) =
            (self.context.limits.commit_changes_max, self.context.limits.commit_bytes_max);
        ScanLimit { entries: entries.min(changes_max / 2).max(1), bytes: bytes.min(bytes_max / 2).max(1) }
    }

    /// Takes rows that an install has read.
    pub(super) fn install_scanned(&mut self, installing: Installing, page: Result<ScanPage, ReadError>) {
        let Ok(page) = page else { return self.install_failed() };
        match installing {
            Installing::ReadingLive => {
                let range = keys::staged_range(&self.behind_cursor(keys::records()));
                let job = self.writes.begin(Doing::Installing(Installing::ReadingStaged(page)));
                self.effects.push_back(Effect::Scan(job, range, self.fold_limit()));
            }
            Installing::ReadingStaged(live) => self.fold_records(live, page),
            Installing::ReadingBesides if page.entries.is_empty() => self.end_fold(WriteBatch::new()),
            Installing::ReadingBesides => {
                let keys =
                    page.entries.iter().map(|entry| record_beside(&entry.key).unwrap_or_default()).collect();
                let job = self.writes.begin(Doing::Installing(Installing::ReadingTheirs(page)));
                self.effects.push_back(Effect::Read(job, keys));
            }
            Installing::ReadingStage => {
                let mut batch = WriteBatch::new();
                let (first, last) = (page.entries.first(), page.entries.last());
                if let (Some(first), Some(last)) = (first, last) {
                    batch.delete_range(KeyRange::new(first.key.clone(), [&last.key[..], &[0]].concat()));
                }
                let row = if page.more { self.install.stage().map(|stage| stage.row.clone()) } else { None };
                if row.is_none() {
                    batch.delete(keys::install());
                }
                self.write_install(batch, Installing::Row(row));
            }
            other => debug_assert!(false, "rows were read during {other:?}"),
        }
    }

    /// Takes records that an install has read.
    pub(super) fn install_read(
        &mut self,
        installing: Installing,
        keys: Vec<Key>,
        values: Result<Vec<Option<Value>>, ReadError>,
    ) {
        match (installing, values) {
            (Installing::ReadingTail(commits, places), values) => {
                self.decide_tail(commits, &places, keys, values);
            }
            (Installing::ReadingTheirs(page), Ok(values)) => self.fold_besides(&page, values),
            (Installing::ReadingTheirs(_), Err(_)) => self.install_failed(),
            (other, _) => debug_assert!(false, "records were read during {other:?}"),
        }
    }

    /// Folds the next records, of which pages of both states were read.
    fn fold_records(&mut self, live: ScanPage, staged: ScanPage) {
        let Some(stage) = self.install.stage() else { return };
        let mut row = stage.row.clone();
        let last = |page: &ScanPage| page.entries.last().filter(|_| page.more).map(|entry| entry.key.clone());
        let staged_last = last(&staged).and_then(|key| keys::unstaged(&key).map(<[u8]>::to_vec));
        let bound = [last(&live), staged_last].into_iter().flatten().min();
        let mut pairs: BTreeMap<Key, Pair> = BTreeMap::new();
        let is_within = |key: &[u8]| bound.as_deref().is_none_or(|bound| key <= bound);
        for Entry { key, value } in live.entries.into_iter().filter(|entry| is_within(&entry.key)) {
            let pair = pairs.entry(key.clone()).or_default();
            (pair.key, pair.live) = (key, Some(value));
        }
        for Entry { key, value } in staged.entries {
            let Some(key) = keys::unstaged(&key).filter(|key| is_within(key)).map(<[u8]>::to_vec) else {
                continue;
            };
            let pair = pairs.entry(key.clone()).or_default();
            (pair.key, pair.staged) = (key, Some(value));
        }
        // Behind the last record come the values beside records; a cursor at their beginning says so.
        row.cursor = Some(bound.unwrap_or_else(|| keys::besides().start));
        let mut pen = self.pen();
        let (batch, changed) = pen.fold_staged(&row.as_of, pairs.into_values().collect());
        self.used(pen);
        self.write_fold(batch, &changed, row);
    }

    /// Folds staged values that lie beside records: each lies beside the live record too, if that is of the same epoch.
    fn fold_besides(&mut self, page: &ScanPage, records: Vec<Option<Value>>) {
        let Some(stage) = self.install.stage() else { return };
        let mut row = stage.row.clone();
        let mut batch = WriteBatch::new();
        for (Entry { key, value }, record) in page.entries.iter().zip(records) {
            let Some(place) = keys::unstaged(key) else { continue };
            let header = |bytes: &[u8]| record::parse(bytes).ok().and_then(|(header, _)| header.merge);
            let (theirs, ours) = (header(value), record.as_deref().and_then(header));
            if let (Some(theirs), Some(ours)) = (theirs, ours)
                && theirs.epoch == ours.epoch
                && ours.beside
            {
                batch.put(place.to_vec(), value.clone());
            }
            row.cursor = Some(place.to_vec());
        }
        if !page.more {
            return self.end_fold(batch);
        }
        self.write_fold(batch, &[], row);
    }

    /// Ends the fold with this batch.
    fn end_fold(&mut self, batch: WriteBatch) {
        let Some(stage) = self.install.stage() else { return };
        let row = InstallRow { phase: Phase::Clear, ..stage.row.clone() };
        self.write_fold(batch, &[], row);
    }

    /// Writes a step of a fold.
    fn write_fold(&mut self, mut batch: WriteBatch, changed: &[RecordKey], row: InstallRow) {
        batch.put(keys::install(), row.to_value());
        let job = self.writes.begin(Doing::Installing(Installing::Fold(row)));
        let projected = changed.iter().any(|record| self.context.is_projected(record));
        self.effects.push_back(if projected {
            Effect::WriteProjected(job, batch)
        } else {
            Effect::Write(job, batch)
        });
    }

    // --- results ----------------------------------------------------------------------------------------------------

    /// Takes the result of a write of an install.
    pub(super) fn install_written(&mut self, installing: Installing, written: bool) {
        if !written {
            if let (Installing::Tail(..), Some(stage)) = (&installing, self.install.stage_mut()) {
                stage.inbox.fail(1);
                let ledger = Arc::clone(&stage.ledger);
                stage.streams.fall_back(&ledger);
            }
            if matches!(installing, Installing::Row(_)) {
                self.install.give_up();
            }
            return self.install_failed();
        }
        match installing {
            Installing::Part(part) => {
                let here = (&*self.ledger, &self.members);
                self.install.part_written(*part, &self.context, here);
                if self.install.is_in_place() && self.context.rules.staged {
                    self.effects.push_back(Effect::Overlay(Overlay::Hidden));
                }
                self.tell_of_install();
            }
            Installing::Tail(heads, clock) => {
                if let Some(stage) = self.install.stage_mut() {
                    Arc::make_mut(&mut stage.ledger).apply(heads, clock);
                    stage.inbox.settle();
                    if stage.inbox.is_empty() {
                        stage.streams.settled();
                    }
                    let row = stage.row.clone();
                    self.install.written(Some(row));
                }
            }
            Installing::Switch(moved, next) => self.switched(moved, next),
            Installing::Fold(row) => {
                let ends = row.phase == Phase::Clear;
                self.install.written(Some(row));
                if ends {
                    self.fold_besides_anew();
                    self.effects.push_back(Effect::Overlay(Overlay::None));
                }
            }
            Installing::Row(row) => {
                if self.install.is_in_place() {
                    self.effects.push_back(Effect::Overlay(Overlay::None));
                }
                self.install.written(row);
            }
            other => debug_assert!(false, "{other:?} is no write"),
        }
    }

    /// Takes the result of a step of a fold that was written with its projections.
    pub(super) fn install_projected(&mut self, installing: Installing, result: &Result<Settled, Error>) {
        self.install_written(installing, result.is_ok());
    }

    /// Lets values be merged that lay beside records of the snapshot: this version of the app may be able to.
    fn fold_besides_anew(&mut self) {
        self.upkeep.begins_fold();
        self.effects.push_back(Effect::Folding);
    }

    fn install_failed(&mut self) {
        self.install.not_written(self.now.mono, &mut self.rng);
    }

    fn tell_of_install(&mut self) {
        if let Some(progress) = self.install_status() {
            self.tell(Event::Installing(progress));
        }
    }
}

/// The key of the record beside which a staged value lies.
fn record_beside(key: &[u8]) -> Option<Key> {
    match StoredKey::parse(keys::unstaged(key)?)? {
        StoredKey::Beside(record, ..) => Some(record.into_bytes()),
        _ => None,
    }
}
