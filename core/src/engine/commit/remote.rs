//! Deciding commits of other replicas: one write for many of them.
//!
//! A record is the merge of all that was ever put under its key, so it depends neither on the order in which commits
//! arrive nor on the peers that bring them. In a model without a merge of its own the higher stamp wins. In a model
//! with one, values of the same epoch are merged, a higher epoch wins whole, and a value that this version of the app
//! cannot merge lies beside the record until it can. Every value that does not end in its record is kept for the log.

use bytes::Bytes;

use crate::error::Error;
use crate::events::{Change, ChangeKind, Event};
use crate::ids::ReplicaId;
use crate::model::Registry;
use crate::storage::Value;
use crate::stored::keys::{self, RecordKey};
use crate::stored::record::{self, Header, Merged};
use crate::stored::{Digest, Head, LogEntry, Reference, log};

use super::super::rules::{Mark, Marks, Rules};
use super::draft::{Before, Draft};
use super::touched::Stored;
use super::{Current, Decision, NewValue, Pen, Places, causes};

/// A commit of another replica that admission let through: it may be applied after those before it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// The peer that sent the commit.
    pub(crate) from: ReplicaId,
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    /// The digest of its stream before the commit.
    pub(crate) previous: Digest,
    /// The digest of its stream with the commit.
    pub(crate) digest: Digest,
    pub(crate) entry: LogEntry,
    /// The entry as its author wrote it.
    pub(crate) raw: Bytes,
    /// A value for every change; `None` for a delete.
    pub(crate) values: Vec<Option<Bytes>>,
}

impl Received {
    /// The bytes that the commit occupies while it waits.
    pub(crate) fn weight(&self) -> usize {
        crate::limits::weight(self.shared_bytes(), 1 + self.values.len())
    }

    /// The bytes of its frame that the commit keeps in memory.
    pub(in crate::engine) fn shared_bytes(&self) -> usize {
        self.raw.len() + self.values.iter().flatten().map(Bytes::len).sum::<usize>()
    }

    /// Copies the bytes of the commit, so that they do not keep its frame in memory.
    pub(in crate::engine) fn detach(&mut self) {
        self.raw = Bytes::copy_from_slice(&self.raw);
        for value in self.values.iter_mut().flatten() {
            *value = Bytes::copy_from_slice(value);
        }
    }
}

/// A record as a received commit makes it.
pub(super) struct Arrival<'a> {
    pub(super) header: Header,
    pub(super) value: &'a [u8],
}

/// The fate of a record and of the value that arrives for it.
pub(super) enum Verdict {
    /// The arrival takes the record's place.
    Replace,
    /// The record stays as it is.
    Stay,
    /// Both make a new value. The flag says whether that is the value of the arrival, unchanged.
    Mix(Header, Value, bool),
    /// The arrival lies beside the record.
    Beside,
}

impl Pen {
    /// Applies `commits`, in their order, given the values of the records that they name. A commit that rests on another
    /// history ends what is applied.
    ///
    /// # Errors
    /// [`Error::Format`] or [`Error::Decode`] if a stored record cannot be read. Nothing is decided.
    pub(crate) fn receive(
        &mut self,
        commits: &[Received],
        values: Vec<Option<Value>>,
        places: &Places,
    ) -> Result<Decision, Error> {
        let elsewhere = causes::first_elsewhere(&self.context, &self.ledger, commits, &self.digests);
        let commits = elsewhere.as_ref().and_then(|elsewhere| commits.get(..elsewhere.at)).unwrap_or(commits);
        let mut draft = Draft::new(self.clock.high_water());
        draft.decision.elsewhere = elsewhere;
        draft.reserve(commits.len());
        let (mut stored, mut at) = (Stored::new(values, places), 0..);
        let mut events = Vec::new();
        for commit in commits {
            for ((change, value), at) in commit.entry.changes.iter().zip(&commit.values).zip(at.by_ref()) {
                if let Some(kind) =
                    self.change(&mut draft, commit, (change, value.as_deref()), (&mut stored, at))?
                {
                    events.push(Event::Changed(Change {
                        record: change.record.clone(),
                        kind,
                        origin: commit.entry.device,
                        stamp: commit.entry.stamp,
                        seq: commit.seq,
                    }));
                }
            }
            // Admission lets a commit through only as the next one of its stream.
            let head = Head { seq: commit.seq.saturating_sub(1), ..self.head_in(&draft, commit.stream) };
            let row = log::row(&commit.previous, &commit.raw);
            draft.log(&head, commit.entry.stamp, commit.digest, row);
            draft.tell(&mut events);
            if self.rules().clock_follows {
                self.clock.follow(commit.entry.stamp);
            }
        }
        Ok(self.finish(draft, 0))
    }

    /// Applies one change; returns the kind of change that a reader sees, if any.
    fn change(
        &mut self,
        draft: &mut Draft,
        commit: &Received,
        (change, value): (&Reference, Option<&[u8]>),
        (stored, at): (&mut Stored<'_>, usize),
    ) -> Result<Option<ChangeKind>, Error> {
        let key = &change.record;
        let header = Header::of(change, commit.entry.stamp, commit.seq);
        let new = Arrival { header, value: value.unwrap_or_default() };
        let before = draft.before(key, stored.before(at)?);
        let visible = before.filter(|old| !old.header.tombstone);
        let verdict = before.map_or(Verdict::Replace, |old| self.verdict(key, old, &new));
        if let Some(old) = before {
            self.marks.add(marks_of(&old.header, &new.header, &verdict));
        }
        let kind = match (&verdict, visible) {
            (Verdict::Stay | Verdict::Beside, _) => None,
            (Verdict::Replace, old) => {
                let live = (!new.header.tombstone).then_some((new.header.schema, new.value));
                kind(old.map(|old| (old.header.schema, old.value())), live)
            }
            (Verdict::Mix(header, bytes, _), old) => kind(
                old.map(|old| (old.header.schema, old.value())),
                Some((header.schema, record::value_of(bytes))),
            ),
        };
        match verdict {
            Verdict::Replace => {
                if before.and_then(|old| old.header.merge).is_some_and(|merge| merge.beside) {
                    draft.drop_besides(key);
                }
                let bytes = record::of(&new.header, new.value);
                self.replace(draft, key, new.header, bytes, stored.take(at)?)?;
            }
            Verdict::Stay => self.keep_arrival(draft, key, &new),
            Verdict::Mix(header, bytes, unchanged) => {
                if !unchanged {
                    self.keep_arrival(draft, key, &new);
                }
                self.replace(draft, key, header, bytes, stored.take(at)?)?;
            }
            Verdict::Beside => {
                if self.rules().unmerged_lies_beside {
                    let old = before.map(|old| (old.header, old.bytes.to_vec()));
                    let beside = keys::beside(key, commit.stream, commit.seq);
                    draft.rest.push((beside, record::of(&new.header, new.value)));
                    if let Some((header, mut bytes)) = old
                        && let Some(merge) = header.merge.filter(|merge| !merge.beside)
                    {
                        let header = Header { merge: Some(Merged { beside: true, ..merge }), ..header };
                        header.write(&mut bytes);
                        self.replace(draft, key, header, bytes, None)?;
                    }
                }
                self.keep_arrival(draft, key, &new);
            }
        }
        Ok(kind)
    }

    /// Keeps the value of an arrival, which does not end in its record.
    fn keep_arrival(&mut self, draft: &mut Draft, key: &RecordKey, new: &Arrival<'_>) {
        if !new.header.tombstone {
            self.keep(draft, key, new.header.stamp.replica(), new.header.seq, new.value.to_vec());
        }
    }

    /// Decides between a record and the value that arrives for it.
    pub(super) fn verdict(&self, key: &RecordKey, old: Before<'_>, new: &Arrival<'_>) -> Verdict {
        verdict((self.rules(), &self.context.models), key, old, new)
    }
}

/// Decides between a record and the value that arrives for it.
pub(super) fn verdict(
    (rules, models): (&Rules, &Registry),
    key: &RecordKey,
    old: Before<'_>,
    new: &Arrival<'_>,
) -> Verdict {
    let newer = new.header.rank() > old.header.rank() || !rules.higher_stamp_wins;
    let by_rank = if newer { Verdict::Replace } else { Verdict::Stay };
    let (Some(mine), Some(theirs)) = (old.header.merge, new.header.merge) else { return by_rank };
    if mine.epoch != theirs.epoch && rules.epochs_are_kept_apart {
        return by_rank;
    }
    match (old.header.tombstone, new.header.tombstone) {
        (true, true) => by_rank,
        // A tombstone of the same epoch has no value, so the value that arrives is the merged one.
        (true, false) if newer => Verdict::Replace,
        (true, false) => Verdict::Mix(
            Header { schema: new.header.schema, tombstone: false, ..mixed(&old.header, mine) },
            with_header_room(new.value),
            false,
        )
        .written(),
        (false, true) if newer => {
            let merge = Some(Merged { mixed: true, ..mine });
            let header = Header { schema: old.header.schema, tombstone: false, merge, ..new.header };
            Verdict::Mix(header, old.bytes.to_vec(), true).written()
        }
        (false, true) => Verdict::Stay,
        (false, false) => merge(models, key, old, mine, new, newer),
    }
}

/// Merges two values into one, if this version of the app can.
fn merge(
    models: &Registry,
    key: &RecordKey,
    old: Before<'_>,
    mine: Merged,
    new: &Arrival<'_>,
    newer: bool,
) -> Verdict {
    let value_of_old = old.value();
    // The value of a mixed arrival is in no log entry.
    let new_is_mixed = new.header.merge.is_some_and(|merge| merge.mixed);
    if value_of_old == new.value && old.header.schema == new.header.schema {
        // Equal values merge to the same value, so no merge of the app is needed.
        return if newer {
            Verdict::Mix(
                Header { merge: Some(Merged { mixed: new_is_mixed, ..mine }), ..new.header },
                old.bytes.to_vec(),
                !new_is_mixed,
            )
            .written()
        } else {
            Verdict::Stay
        };
    }
    let merged = models.merge_of(key.model()).and_then(|merge| {
        let one = Current { schema: old.header.schema, value: value_of_old };
        merge(one, Current { schema: new.header.schema, value: new.value }).ok()
    });
    // A merged value may have any length: it is never logged, so it need not fit a commit, and every replica must
    // have it.
    let Some(NewValue { schema, record, .. }) = merged else { return Verdict::Beside };
    let value = record::value_of(&record);
    let is_old = value == value_of_old && schema == old.header.schema;
    let is_new = value == new.value && schema == new.header.schema && !new_is_mixed;
    if is_old && !newer {
        return Verdict::Stay;
    }
    let (source, unchanged) = if newer { (&new.header, is_new) } else { (&old.header, false) };
    let merge = Some(Merged { mixed: !unchanged, ..mine });
    Verdict::Mix(Header { schema, merge, ..*source }, record, unchanged).written()
}

/// The marks that a verdict sets.
fn marks_of(old: &Header, new: &Header, verdict: &Verdict) -> Marks {
    let mut marks = Marks::default();
    match verdict {
        Verdict::Replace => {}
        Verdict::Stay => {
            marks.note(Mark::Beaten);
            if old.tombstone && !new.tombstone {
                marks.note(Mark::LatePut);
            }
        }
        Verdict::Mix(..) => marks.note(Mark::Mixed),
        Verdict::Beside => marks.note(Mark::Beside),
    }
    if old.merge.map(|merge| merge.epoch) != new.merge.map(|merge| merge.epoch) {
        marks.note(Mark::OtherEpoch);
    }
    if old.stamp.wall() == new.stamp.wall() && old.stamp.replica() != new.stamp.replica() {
        marks.note(Mark::TieOnWall);
        if old.stamp.counter() == new.stamp.counter() {
            marks.note(Mark::TieOnCounter);
        }
    }
    marks
}

/// The header of a record that keeps its dot, with a value that is no more only the one of that dot.
fn mixed(header: &Header, merge: Merged) -> Header {
    Header { merge: Some(Merged { mixed: true, ..merge }), ..*header }
}

/// A value behind room for the header of a model with its own merge.
fn with_header_room(value: &[u8]) -> Value {
    let mut record = record::with_room(true, value.len());
    record.extend_from_slice(value);
    record
}

impl Verdict {
    /// Fills in the header of a mixed record.
    fn written(mut self) -> Self {
        if let Self::Mix(header, bytes, _) = &mut self {
            header.write(bytes);
        }
        self
    }
}

/// The kind of change that a reader sees, given schema and value before and after.
fn kind(before: Option<(u16, &[u8])>, after: Option<(u16, &[u8])>) -> Option<ChangeKind> {
    match (before, after) {
        (None, Some(_)) => Some(ChangeKind::Insert),
        (Some(_), None) => Some(ChangeKind::Delete),
        (Some(before), Some(after)) if before != after => Some(ChangeKind::Update),
        _ => None,
    }
}
