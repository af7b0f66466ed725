//! The draft of one write: the records as the write leaves them, the values that they displace, the log and its heads.
//!
//! Commits of this replica and commits of others end in the same rows by the same rules, so both are put together here.
//! The effect of a change on its record is decided in [`local`](super::local), [`remote`](super::remote) and
//! [`fold`](super::fold).

use std::collections::BTreeMap;

use crate::events::Event;
use crate::hlc::Hlc;
use crate::ids::ReplicaId;
use crate::member::Member;
use crate::model;
use crate::sorted::SortedMap;
use crate::storage::{Key, KeyRange, Value, WriteBatch};
use crate::stored::keys::{self, RecordKey};
use crate::stored::record::{self, Header};
use crate::stored::{Digest, FormatError, Head, Identity, clock_value};
use crate::syncable::Syncable;

use super::{Decision, Pen};

/// A write that is being put together.
pub(super) struct Draft {
    /// The records as the write leaves them, in key order, which stores write fastest.
    pub(super) records: SortedMap<RecordKey, (Header, Value)>,
    /// Log rows, kept values and values beside records.
    pub(super) rest: Vec<(Key, Value)>,
    /// The ranges to delete before any row is put.
    removed: Vec<KeyRange>,
    /// The heads that the write moves.
    pub(super) heads: BTreeMap<ReplicaId, Head>,
    pub(super) decision: Decision,
}

/// The state of a record before a change.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    pub(super) header: Header,
    /// The whole record, header and value.
    pub(super) bytes: &'a [u8],
}

impl<'a> Before<'a> {
    pub(super) fn of((header, bytes): &'a (Header, Value)) -> Self {
        Self { header: *header, bytes }
    }

    pub(super) fn value(self) -> &'a [u8] {
        record::value_of(self.bytes)
    }
}

impl Draft {
    pub(super) fn new(clock: Hlc) -> Self {
        Self {
            records: SortedMap::new(),
            rest: Vec::new(),
            removed: Vec::new(),
            heads: BTreeMap::new(),
            decision: Decision {
                batch: WriteBatch::new(),
                undecided: Vec::new(),
                settled: Vec::new(),
                waiting: Vec::new(),
                notices: Vec::new(),
                heads: Vec::new(),
                clock,
                members: Vec::new(),
                logged_bytes: 0,
                tombstones: BTreeMap::new(),
                frame: None,
                owes: false,
                elsewhere: None,
            },
        }
    }

    /// Makes room for `commits` more commits.
    pub(super) fn reserve(&mut self, commits: usize) {
        self.rest.reserve(commits);
        self.decision.notices.reserve(commits);
    }

    /// The record as this write leaves it so far, or as it is stored.
    pub(super) fn before<'a>(&'a self, key: &RecordKey, stored: Option<Before<'a>>) -> Option<Before<'a>> {
        self.records.get(key).map(Before::of).or(stored)
    }

    /// Removes all values beside the record, since they are of an epoch that has passed.
    pub(super) fn drop_besides(&mut self, record: &RecordKey) {
        let range = keys::besides_of(record);
        self.rest.retain(|(key, _)| !range.contains(key));
        self.removed.push(range);
    }

    /// Adds the log row of a commit, with which its stream gets a new head.
    pub(super) fn log(&mut self, before: &Head, stamp: Hlc, digest: Digest, row: Value) {
        let head = before.next(stamp, digest);
        let replica = stamp.replica();
        self.rest.push((keys::log(replica, head.seq), row));
        self.heads.insert(replica, head);
    }

    /// Removes a kept value that its record holds again.
    pub(super) fn drop_kept(&mut self, key: Key) {
        self.rest.retain(|(other, _)| *other != key);
        self.removed.push(KeyRange { end: Some([&key[..], &[0]].concat()), start: key });
    }

    /// The rows of the draft alone, without the head and the clock that a commit adds.
    pub(super) fn into_batch(self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        put_all(&mut batch, self.removed, self.rest, self.records);
        batch
    }

    /// Takes the events of a commit as one notice, and leaves `events` empty for the next commit.
    pub(super) fn tell(&mut self, events: &mut Vec<Event>) {
        if !events.is_empty() {
            self.decision.notices.push(events.drain(..).collect());
        }
    }
}

impl Pen {
    /// The head of a stream as the draft leaves it.
    pub(super) fn head_in(&self, draft: &Draft, replica: ReplicaId) -> Head {
        draft.heads.get(&replica).copied().unwrap_or_else(|| self.ledger.head(replica))
    }

    /// Sets a record, and keeps the value that it displaces if a log entry here still needs it.
    pub(super) fn replace(
        &mut self,
        draft: &mut Draft,
        key: &RecordKey,
        header: Header,
        bytes: Value,
        stored: Option<(Header, Value)>,
    ) -> Result<(), FormatError> {
        if key.model() == Member::SYNC_MODEL && !header.tombstone {
            // Admission has checked the member records of peers, so this one can only be damaged here.
            let member = model::decode_bytes(record::value_of(&bytes));
            draft
                .decision
                .members
                .push(member.map_err(|_| FormatError::Damaged { what: "a member record" })?);
        }
        if header.tombstone {
            let lowest = draft.decision.tombstones.entry(header.stamp.replica()).or_insert(header.seq);
            *lowest = header.seq.min(*lowest);
        }
        let displaced = draft.records.insert(key.clone(), (header, bytes)).or(stored);
        if let Some((old, mut value)) = displaced {
            // A record with the same dot keeps its value, and only its header has changed. A tombstone has no value,
            // and a mixed one is in no log entry: neither is displaced.
            let is_logged = !old.tombstone && !old.merge.is_some_and(|merge| merge.mixed);
            if is_logged && !header.holds(old.stamp.replica(), old.seq) {
                value.drain(..record::value_at(&value));
                self.keep(draft, key, old.stamp.replica(), old.seq, value);
            }
        }
        Ok(())
    }

    /// Keeps a value that no record holds if a log entry here still needs it.
    pub(super) fn keep(
        &mut self,
        draft: &mut Draft,
        key: &RecordKey,
        author: ReplicaId,
        seq: u64,
        value: Value,
    ) {
        let floor = self.head_in(draft, author).floor;
        if seq <= floor || !self.rules().values_are_kept {
            return;
        }
        if author == self.identity().replica {
            self.kept_up_to = self.kept_up_to.max(seq);
        }
        draft.rest.push((keys::kept(author, seq, key), value));
    }

    /// Turns the draft into one batch, which also prunes the own log up to `floor`.
    pub(super) fn finish(&self, draft: Draft, floor: u64) -> Decision {
        let Draft { records, rest, removed, mut heads, mut decision } = draft;
        if heads.is_empty() {
            return decision;
        }
        let Identity { replica, device, .. } = self.identity();
        let batch = &mut decision.batch;
        if decision.members.iter().any(|member| (member.replica, member.device) == (replica, device)) {
            // A member needs no introducer.
            batch.delete(keys::introducer());
        }
        let durable = self.ledger.own();
        if let Some(head) = heads.get_mut(&replica)
            && floor > durable.floor
        {
            (head.floor, head.floor_digest) = (durable.seq, durable.digest);
            let first = durable.floor + 1;
            let [log, kept] = keys::log_and_kept(replica, first, floor);
            // Most writes prune one entry, and a store deletes one key more cheaply than a range.
            if first == floor {
                batch.delete(keys::log(replica, first));
            } else {
                batch.delete_range(log);
            }
            if self.kept_up_to >= first {
                batch.delete_range(kept);
            }
        }
        let bytes = rest.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        decision.logged_bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        put_all(batch, removed, rest, records);
        for (key, value) in &self.ahead {
            batch.put(key.clone(), value.clone());
        }
        for (replica, head) in &heads {
            batch.put(keys::head(*replica), head.to_value());
        }
        batch.put(keys::clock(), clock_value(self.clock.high_water()));
        decision.heads = heads.into_iter().collect();
        decision.clock = self.clock.high_water();
        decision
    }
}

fn put_all(
    batch: &mut WriteBatch,
    removed: Vec<KeyRange>,
    rest: Vec<(Key, Value)>,
    records: SortedMap<RecordKey, (Header, Value)>,
) {
    // Room for 8 more rows: the heads and the clock are put after these.
    batch.reserve(removed.len() + rest.len() + records.len() + 8);
    for range in removed {
        batch.delete_range(range);
    }
    for (key, value) in rest {
        batch.put(key, value);
    }
    for (key, (_, value)) in records {
        batch.put(key.into_bytes(), value);
    }
}
