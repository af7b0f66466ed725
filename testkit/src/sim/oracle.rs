//! Judges what the stores of a run hold. It reads their logs and records, and asks no engine.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::executor::block_on;
use syncline::internals::history::{self, Logged, StoredProjection, StoredRecord};
use syncline::{Change, ChangeKind, Hlc, RecordKey, ReplicaId, Syncable as _, audit};

use super::deletes::Deletes;
use super::joined::JoinedWrites;
use super::models::{Note, PAIR, Photo, Place, Set, serials_of_set};
use super::store::Image;
use super::tables::{self, Rows};
use super::{Failure, fail};

/// What is known of the commits of all apps.
#[derive(Default)]
pub(super) struct Oracle {
    /// Every commit, as it was in its author's store when it first was there. A store that was put back may begin a second
    /// history, with another commit in the same place.
    truth: BTreeMap<(ReplicaId, u64), Vec<Commit>>,
    /// The last commit of each author that is known.
    known: BTreeMap<ReplicaId, u64>,
    /// How many of its commits each store had that was put back, and whose app went on writing.
    put_back: BTreeMap<ReplicaId, u64>,
    /// What the apps were told of their values.
    told: BTreeMap<u64, Told>,
    /// The deletes of the apps.
    pub(super) deletes: Deletes,
    /// The rows of the apps.
    pub(super) joined: JoinedWrites,
}

/// A commit.
struct Commit {
    logged: Arc<Logged>,
    /// How far its author had seen each stream when it committed, and the beginning of the digest there.
    causes: Causes,
}

/// Streams, up to where, and the beginning of the digest there.
type Causes = BTreeMap<ReplicaId, (u64, [u8; 8])>;

/// Why a replica may stop a stream that others have more of.
#[derive(Default)]
pub(super) struct Excuses {
    /// The replicas that say of a stream that it has two histories, with the stream.
    pub(super) forked: BTreeSet<(ReplicaId, ReplicaId)>,
    /// The largest value that each replica takes.
    pub(super) value_bytes_max: BTreeMap<ReplicaId, usize>,
    /// The joiners that say that they wait to be added, and that a stream has two histories: the commit that adds them
    /// may rest on the other one. Those who have the same history as they do not know them.
    pub(super) waiting: BTreeSet<ReplicaId>,
}

/// What is known of a value that an app puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) author: usize,
    pub(super) outcome: Outcome,
}

/// What an app was told of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing yet, or that the outcome is unknown.
    Open,
    /// That the commit is made.
    Committed,
    /// That the commit is not made.
    Failed,
}

/// What a store holds, as read from an image of its disk.
pub(super) struct View {
    pub(super) replica: ReplicaId,
    pub(super) heads: BTreeMap<ReplicaId, (u64, [u8; 32])>,
    /// The commits of its logs, and before them those that were pruned.
    history: Vec<Arc<Logged>>,
    /// Up to where each log was pruned, and the digest there.
    floors: BTreeMap<ReplicaId, (u64, [u8; 32])>,
    pub(super) records: Vec<StoredRecord>,
    /// The values that lie beside records.
    pub(super) besides: Vec<StoredRecord>,
    pub(super) projections: Vec<StoredProjection>,
    rows: Arc<Rows>,
}

impl View {
    pub(super) fn of(replica: ReplicaId, image: &Image) -> Result<Self, syncline::Error> {
        let heads = block_on(history::heads(image))?;
        let floors = block_on(history::floors(image))?;
        Ok(Self {
            floors: floors.into_iter().map(|(stream, seq, digest)| (stream, (seq, digest))).collect(),
            replica,
            heads: heads.into_iter().map(|(stream, seq, digest)| (stream, (seq, digest))).collect(),
            history: block_on(history::history(image))?.into_iter().map(Arc::new).collect(),
            records: block_on(history::records(image))?,
            besides: block_on(history::besides(image))?,
            projections: block_on(history::projections(image))?,
            rows: Arc::clone(&image.1),
        })
    }

    /// Whether two stores have the same commits.
    pub(super) fn has_as(&self, other: &Self) -> bool {
        let heads = |view: &Self| -> BTreeMap<_, _> {
            view.heads.clone().into_iter().filter(|(_, (seq, _))| *seq > 0).collect()
        };
        heads(self) == heads(other)
    }

    /// The commits that the store lacks, or has others in the place of, of those that are named.
    fn lacks(&self, causes: &Causes) -> impl Iterator<Item = (ReplicaId, u64)> {
        let has = |stream: &ReplicaId, seq: u64, check: &[u8; 8]| {
            let (head, digest) = self.head(*stream);
            match head.cmp(&seq) {
                Ordering::Less => false,
                Ordering::Equal => seq == 0 || digest.starts_with(check),
                Ordering::Greater => {
                    self.logged(*stream, seq).is_some_and(|commit| commit.digest.starts_with(check))
                }
            }
        };
        let lacked = causes.iter().filter(move |(stream, (seq, check))| !has(stream, *seq, check));
        lacked.map(|(stream, (seq, _))| (*stream, *seq))
    }

    fn head(&self, stream: ReplicaId) -> (u64, [u8; 32]) {
        self.heads.get(&stream).copied().unwrap_or_default()
    }

    /// A commit of the store. They stand by stream and number.
    fn logged(&self, stream: ReplicaId, seq: u64) -> Option<&Logged> {
        let at =
            self.history.binary_search_by_key(&(stream, seq), |commit| (commit.stream, commit.seq)).ok()?;
        self.history.get(at).map(|commit| &**commit)
    }

    pub(super) fn serials(&self) -> BTreeSet<u64> {
        self.history.iter().flat_map(|commit| serials_of(commit)).collect()
    }

    /// The serial numbers that the replica's own commits put.
    fn own_serials(&self) -> BTreeSet<u64> {
        let own = self.history.iter().filter(|commit| commit.stream == self.replica);
        own.flat_map(|commit| serials_of(commit)).collect()
    }

    /// The serial numbers of the sets that lie beside a record; `None` if one is of another epoch than the record, or is
    /// not of the schema that it says.
    fn beside(&self, record: &StoredRecord) -> Option<BTreeSet<u64>> {
        let mut serials = BTreeSet::new();
        for beside in self.besides.iter().filter(|beside| beside.record == record.record) {
            let value = beside.value.as_deref().filter(|_| beside.epoch == record.epoch)?;
            serials.extend(serials_of_set(beside.schema, value)?);
        }
        Some(serials)
    }
}

/// The values of all records, as a reader sees them: a set by its numbers, whatever version of the app wrote it.
fn state(view: &View) -> BTreeMap<&RecordKey, Option<Vec<u8>>> {
    let value = |record: &StoredRecord| {
        let value = record.value.clone()?;
        let set = (record.record.model() == Set::SYNC_MODEL).then(|| serials_of_set(record.schema, &value));
        Some(set.flatten().map_or(value, |set| set.into_iter().flat_map(u64::to_be_bytes).collect()))
    };
    // A tombstone may be here and forgotten there.
    let there = view.records.iter().filter(|record| record.value.is_some());
    there.map(|record| (&record.record, value(record))).collect()
}

/// The serial numbers that a commit puts.
fn serials_of(commit: &Logged) -> impl Iterator<Item = u64> + use<'_> {
    let values = commit.changes.iter().filter_map(|change| Some((change, change.value.as_deref()?)));
    values.flat_map(|(change, value)| serials_in(&change.record, change.schema, value))
}

fn serials_in(record: &RecordKey, schema: u16, value: &[u8]) -> BTreeSet<u64> {
    match record.model() {
        Note::SYNC_MODEL => decode::<Note>(value).map(|note| [note.serial].into()).unwrap_or_default(),
        Place::SYNC_MODEL => decode::<Place>(value).map(|place| [place.serial].into()).unwrap_or_default(),
        // The pixels come last, and are not read: they are large.
        Photo::SYNC_MODEL => {
            decode::<(u32, u64)>(value).map(|(_, serial)| [serial].into()).unwrap_or_default()
        }
        Set::SYNC_MODEL => serials_of_set(schema, value).unwrap_or_default(),
        _ => BTreeSet::new(),
    }
}

fn decode<T: serde::de::DeserializeOwned>(value: &[u8]) -> Option<T> {
    postcard::from_bytes(value).ok()
}

impl Oracle {
    pub(super) fn expect(&mut self, serial: u64, told: Told) {
        self.told.insert(serial, told);
    }

    pub(super) fn tell(&mut self, serial: u64, outcome: Outcome) {
        if let Some(told) = self.told.get_mut(&serial) {
            told.outcome = outcome;
        }
    }

    /// Takes note of the commits of others that have reached a replica between two looks at its heads.
    pub(super) fn has_reached(
        &mut self,
        replica: ReplicaId,
        before: &BTreeMap<ReplicaId, u64>,
        after: &BTreeMap<ReplicaId, u64>,
    ) {
        for (stream, seq) in after.iter().filter(|(stream, _)| **stream != replica) {
            let first = before.get(stream).copied().unwrap_or(0) + 1;
            let reached = self.truth.range((*stream, first)..(*stream, seq + 1));
            for commit in reached.flat_map(|(_, commits)| commits) {
                self.deletes.reached(replica, &commit.logged);
            }
        }
    }

    /// Judges one store at any moment: it is whole (I1), it holds nothing that was not committed (I3, Y3, C12), its
    /// records are what its commits make of them (Y2), it has the causes of every commit (I7), and no commit in part
    /// (C13). The rows of its app are there with the commits that were made beside them (C1), and those of projections are
    /// what its records come to (C18).
    ///
    /// The values of sets that an app cannot merge yet lie beside each other: all of them together are what was put.
    pub(super) fn judge(&self, replica: ReplicaId, image: &Image) -> Result<View, Failure> {
        let view = image.settled().and_then(|image| {
            let whole = check_whole(replica, &image);
            Ok((whole, View::of(replica, &image)?))
        });
        let mut view = match view {
            Ok((whole, view)) => {
                whole?;
                view
            }
            Err(error) => return fail("I1 a store is whole", format!("{replica}: {error}")),
        };
        self.compare_with_truth(&view)?;
        self.add_pruned(&mut view)?;
        for (stream, (seq, digest)) in &view.heads {
            let Some(commit) = self.commit(*stream, *seq, digest) else { continue };
            // Below a floor only its digest is left, so a cause there may be of the other history of a store that was put back
            // and went on writing.
            let cannot_be_told = |(cause, needed): &(ReplicaId, u64)| {
                let below = view.floors.get(cause).is_some_and(|(floor, _)| needed < floor);
                below && self.fork_of(*cause).is_some_and(|fork| *needed >= fork)
            };
            if let Some((cause, needed)) = view.lacks(&commit.causes).find(|lacked| !cannot_be_told(lacked)) {
                let here = view.heads.get(&cause).map_or(0, |(seq, _)| *seq);
                return fail(
                    "I7 causes come before effects",
                    format!(
                        "{replica} has {stream} up to {seq}, which saw {cause} up to {needed}, but that up to {here} only, or \
                         another history of it"
                    ),
                );
            }
        }
        check_fold(&view)?;
        check_pair(&view)?;
        // Tables follow what is live, also while reads show the snapshot that is being folded into it.
        let live = match block_on(history::records(image)) {
            Ok(records) => records,
            Err(error) => return fail("I1 a store is whole", format!("{replica}: {error}")),
        };
        check_tables(replica, &view.projections, &live, &view.rows)?;
        if let Err(detail) = self.joined.check(replica, &view.rows, &view.own_serials()) {
            let property = "C1 a row of the app and its commit are there together";
            return fail(property, format!("{replica}: {detail}"));
        }
        for serial in view.serials() {
            if self.told.get(&serial).is_some_and(|told| told.outcome == Outcome::Failed) {
                return fail("C12 a failed commit is nowhere", format!("{replica} has serial {serial}"));
            }
        }
        Ok(view)
    }

    /// Learns from a replica's own store which commits it has made. Has to come before any other store is judged, since
    /// the commit may be there already.
    pub(super) fn learn(&mut self, replica: ReplicaId, image: &Image) -> Result<(), Failure> {
        let known = self.known.entry(replica).or_default();
        let made = match block_on(history::commits_from(image, replica, *known + 1)) {
            Ok(made) => made,
            Err(error) => return fail("I1 a store is whole", format!("{replica}: {error}")),
        };
        for commit in made {
            *known = commit.seq;
            let mut before = self.truth.get(&(replica, commit.seq - 1)).into_iter().flatten();
            let before = before.find(|before| before.logged.digest == commit.previous);
            let mut causes = before.map_or_else(BTreeMap::new, |before| before.causes.clone());
            for (stream, seq, check) in &commit.after {
                let known = causes.entry(*stream).or_insert((0, [0; 8]));
                if *seq > known.0 {
                    *known = (*seq, *check);
                }
            }
            self.deletes.learn(&commit);
            self.truth
                .entry((replica, commit.seq))
                .or_default()
                .push(Commit { logged: Arc::new(commit), causes });
        }
        Ok(())
    }

    /// Takes note that the store of a replica was put back, and has so many of its commits: whatever comes behind them is
    /// learned anew. If its app `writes`, its stream may get a second history.
    pub(super) fn forget(&mut self, replica: ReplicaId, commits: u64, writes: bool) {
        self.known.insert(replica, commits);
        self.joined.put_back(replica);
        if writes {
            self.put_back.insert(replica, commits);
        }
    }

    /// Adds the commits that a store has pruned to those of its logs.
    fn add_pruned(&self, view: &mut View) -> Result<(), Failure> {
        let mut pruned = Vec::new();
        for (stream, (seq, digest)) in &view.floors {
            let mut digest = *digest;
            for seq in (1..=*seq).rev() {
                let Some(commit) = self.commit(*stream, seq, &digest) else {
                    let detail = format!("{} has pruned {seq} of {stream}, which nobody made", view.replica);
                    return fail("I3 nothing is told before it is durable", detail);
                };
                digest = commit.logged.previous;
                pruned.push(Arc::clone(&commit.logged));
            }
        }
        view.history.extend(pruned);
        view.history.sort_by_key(|commit| (commit.stream, commit.seq));
        Ok(())
    }

    /// The commit of a stream after which the stream has this digest.
    fn commit(&self, stream: ReplicaId, seq: u64, digest: &[u8; 32]) -> Option<&Commit> {
        self.truth.get(&(stream, seq))?.iter().find(|commit| commit.logged.digest == *digest)
    }

    /// Whether a commit of this stream and place rests on a commit that is of one of two histories.
    pub(super) fn rests_on_fork(&self, stream: ReplicaId, seq: u64) -> bool {
        let is_forked = |(cause, (seq, _)): (&ReplicaId, &(u64, [u8; 8]))| {
            self.fork_of(*cause).is_some_and(|fork| *seq >= fork)
        };
        let mut commits = self.truth.get(&(stream, seq)).into_iter().flatten();
        commits.any(|commit| commit.causes.iter().any(is_forked))
    }

    /// The first place at which a stream may have two histories, since its store was put back and its app went on writing.
    pub(super) fn fork_of(&self, stream: ReplicaId) -> Option<u64> {
        self.put_back.get(&stream).map(|commits| commits + 1)
    }

    /// Whether a commit of this stream and place has a larger value than this.
    pub(super) fn is_larger(&self, stream: ReplicaId, seq: u64, value_bytes_max: usize) -> bool {
        self.truth
            .get(&(stream, seq))
            .into_iter()
            .flatten()
            .any(|commit| largest(&commit.logged) > value_bytes_max)
    }

    /// Whether a store may lack what another one has of a stream: its next commit is too large for it, or of another history
    /// than what is here, or rests on what it may lack.
    pub(super) fn may_lack(&self, view: &View, other: &View, stream: ReplicaId, excuses: &Excuses) -> bool {
        excuses.waiting.contains(&view.replica)
            || self.may_stop(view, other, stream, excuses, &mut BTreeSet::new())
    }

    fn may_stop(
        &self,
        view: &View,
        other: &View,
        stream: ReplicaId,
        excuses: &Excuses,
        seen: &mut BTreeSet<ReplicaId>,
    ) -> bool {
        if !seen.insert(stream) {
            return false;
        }
        let has_fork = self.fork_of(stream).is_some();
        let (seq, digest) = view.head(stream);
        let limit = excuses.value_bytes_max.get(&view.replica);
        let is_large =
            |max: &usize| self.truth.values().flatten().any(|commit| largest(&commit.logged) > *max);
        if limit.is_some_and(is_large) {
            // The log of whoever it may ask may be pruned, and a snapshot has a record that is too large.
            return true;
        }
        // A head here that is as long is of another history.
        let Some(next) = other.logged(stream, seq + 1) else { return has_fork };
        if has_fork
            && (excuses.forked.contains(&(view.replica, stream)) || seq > 0 && next.previous != digest)
        {
            return true;
        }
        if excuses.value_bytes_max.get(&view.replica).is_some_and(|max| largest(next) > *max) {
            return true;
        }
        let Some(next) = self.commit(stream, seq + 1, &next.digest) else { return false };
        view.lacks(&next.causes).any(|(cause, _)| self.may_stop(view, other, cause, excuses, seen))
    }

    /// Every commit was durable in its author's store first, and is what it was there.
    fn compare_with_truth(&self, view: &View) -> Result<(), Failure> {
        for commit in &view.history {
            let truth = self.truth.get(&(commit.stream, commit.seq)).and_then(|commits| {
                commits.iter().find(|one| one.logged.digest == commit.digest).or(commits.first())
            });
            let Some(truth) = truth else {
                return fail(
                    "I3 nothing is told before it is durable",
                    format!(
                        "{} has commit {} of {}, whose author's store has it not",
                        view.replica, commit.seq, commit.stream
                    ),
                );
            };
            if *truth.logged != **commit {
                return fail(
                    "Y3 nothing is invented",
                    format!("{}: {commit:?} is not {:?}", view.replica, truth.logged),
                );
            }
        }
        Ok(())
    }

    /// A change that a subscriber was told of is one of the commit that it names, and from that commit's device (C4).
    pub(super) fn check_told(&self, replica: ReplicaId, told: &Change) -> Result<(), Failure> {
        // A store that was put back may write another commit at the same place, with the same stamp.
        let commits = self.truth.get(&(told.stamp.replica(), told.seq)).into_iter().flatten();
        let delete = told.kind == ChangeKind::Delete;
        let is_so = commits.clone().any(|commit| {
            let Logged { stamp, device, changes, .. } = &*commit.logged;
            let is_made =
                changes.iter().any(|change| change.record == told.record && change.delete == delete);
            (*stamp, *device) == (told.stamp, told.origin) && is_made
        });
        if is_so {
            return Ok(());
        }
        let there: Vec<_> = commits.map(|commit| &commit.logged).collect();
        fail("C4 what is told is so", format!("{replica}: {told:?}, where there is {there:?}"))
    }

    /// The highest time that a commit is stamped with, of those before `far`.
    pub(super) fn latest_wall(&self, far: u64) -> u64 {
        let walls = self.truth.values().flatten().map(|commit| commit.logged.stamp.wall().get());
        walls.filter(|wall| *wall < far).max().unwrap_or(0)
    }

    /// Judges stores that have converged: those that have the same commits must have the same records (I6), and no value
    /// may be missing of which an app was told that it is committed (I12), but where `excuses` allow it. That holds only for
    /// authors that are `trusted`, with the place of their view: of a lost or restored replica, commits may have been lost
    /// with its disk.
    pub(super) fn judge_all(
        &self,
        views: &[View],
        excuses: &Excuses,
        trusted: impl Fn(usize) -> Option<ReplicaId>,
    ) -> Result<(), Failure> {
        for view in views {
            let Some(first) = views.iter().find(|first| first.has_as(view)) else { continue };
            let (one, other) = (state(view), state(first));
            if let Some((record, value)) =
                one.iter().chain(&other).find(|(record, _)| one.get(*record) != other.get(*record))
            {
                return fail(
                    "I6 the same commits make the same state",
                    format!("{} and {} differ in {record}: {value:?}", view.replica, first.replica),
                );
            }
        }
        let there: BTreeMap<_, _> = views.iter().map(|view| (view.replica, view.serials())).collect();
        for (serial, told) in self.told.iter().filter(|(_, told)| told.outcome == Outcome::Committed) {
            let Some(author) = trusted(told.author) else { continue };
            let of = views.iter().find(|view| view.replica == author);
            let lacks = |view: &&View| !there.get(&view.replica).is_some_and(|there| there.contains(serial));
            let without = views.iter().find(|view| {
                let is_excused =
                    |of: &View| of.replica != view.replica && self.may_lack(view, of, author, excuses);
                lacks(view) && !of.is_some_and(is_excused)
            });
            if let Some(view) = without {
                let detail = format!("{} lacks serial {serial} of {author}", view.replica);
                return fail("I12 what was committed is everywhere", detail);
            }
        }
        Ok(())
    }
}

/// The bytes of the largest value of a commit.
fn largest(commit: &Logged) -> usize {
    commit.changes.iter().filter_map(|change| Some(change.value.as_ref()?.len())).max().unwrap_or(0)
}

/// A store passes the audit, whatever it holds (I1).
fn check_whole(replica: ReplicaId, image: &Image) -> Result<(), Failure> {
    match block_on(audit(image)).first() {
        Some(violation) => fail("I1 a store is whole", format!("{replica}: {violation}")),
        None => Ok(()),
    }
}

/// The projections of a store have its records, whatever those are (C18).
fn check_tables(
    replica: ReplicaId,
    projections: &[StoredProjection],
    records: &[StoredRecord],
    rows: &Rows,
) -> Result<(), Failure> {
    let checked = projections.iter().try_for_each(|projection| tables::check(projection, records, rows));
    let property = "C18 a projection is its records less its debts";
    checked.or_else(|detail| fail(property, format!("{replica}: {detail}")))
}

/// What the commits of a log make of one record.
#[derive(Default)]
struct Folded {
    /// The highest stamp and its value, if the model has no merge of its own.
    latest: Option<(Hlc, Option<Vec<u8>>)>,
    /// The highest epoch and the union of what was put in it, if the model has a merge of its own.
    united: Option<(Hlc, Option<BTreeSet<u64>>)>,
}

/// The records are what the commits in the log make of them (Y2), by the definitions of last-writer-wins and of a
/// union.
///
/// The fold is written down a second time here, so that a mistake of the engine is not repeated by the oracle.
fn check_fold(view: &View) -> Result<(), Failure> {
    let models = [Note::SYNC_MODEL, Place::SYNC_MODEL, Photo::SYNC_MODEL, Set::SYNC_MODEL];
    let judged = |model: &str| models.contains(&model);
    let mut folded = BTreeMap::<RecordKey, Folded>::new();
    for commit in &view.history {
        for change in &commit.changes {
            if !judged(change.record.model()) {
                continue;
            }
            let fold = folded.entry(change.record.clone()).or_default();
            match change.epoch {
                None => {
                    if fold.latest.as_ref().is_none_or(|(stamp, _)| *stamp < commit.stamp) {
                        fold.latest = Some((commit.stamp, change.value.clone()));
                    }
                }
                Some(epoch) => {
                    let set = change.value.as_deref();
                    let set = set.and_then(|set| serials_of_set(change.schema, set));
                    match &mut fold.united {
                        Some((highest, _)) if *highest > epoch => {}
                        Some((highest, known)) if *highest == epoch => match (known, set) {
                            (Some(known), Some(set)) => known.extend(set),
                            (known @ None, set) => *known = set,
                            (Some(_), None) => {}
                        },
                        _ => fold.united = Some((epoch, set)),
                    }
                }
            }
        }
    }
    let held: BTreeMap<_, _> = view.records.iter().map(|record| (&record.record, record)).collect();
    for (key, fold) in &folded {
        let record = held.get(key);
        let differs = |expected: String| {
            let property = "Y2 a store is what its commits come to";
            fail(property, format!("{}: {key} is {record:?}, its commits come to {expected}", view.replica))
        };
        // A deleted record may have been forgotten.
        let is_forgotten = record.is_none();
        if let Some((stamp, value)) = &fold.latest
            && !(is_forgotten && value.is_none())
            && !record.is_some_and(|record| record.stamp == *stamp && record.value == *value)
        {
            return differs(format!("{value:?} of {stamp}"));
        }
        if let Some((epoch, set)) = &fold.united {
            let found = record.filter(|record| record.epoch == Some(*epoch)).and_then(|record| {
                let own = record.value.as_deref().map(|value| serials_of_set(record.schema, value));
                let (own, beside) = (own.map_or(Some(None), |own| own.map(Some))?, view.beside(record)?);
                // A tombstone has nothing beside it.
                Some(own.map(|own| &own | &beside).or(Some(beside).filter(|beside| !beside.is_empty())))
            });
            if found.as_ref() != Some(set) && !(is_forgotten && set.is_none()) {
                return differs(format!("{set:?} of epoch {epoch}"));
            }
        }
    }
    for record in &view.records {
        if judged(record.record.model()) && !folded.contains_key(&record.record) {
            return fail(
                "Y2 a store is what its commits come to",
                format!("{} is of no commit", record.record),
            );
        }
    }
    Ok(())
}

/// Both notes of the pair have the same serial number (C13).
fn check_pair(view: &View) -> Result<(), Failure> {
    let serial = |id: u32| {
        let record = view.records.iter().find(|record| record.record.id::<Note>() == Some(id))?;
        decode::<Note>(record.value.as_deref()?).map(|note| note.serial)
    };
    let [one, other] = PAIR.map(serial);
    if one != other {
        return fail("C13 a commit is seen whole", format!("{}: {one:?} and {other:?}", view.replica));
    }
    Ok(())
}
