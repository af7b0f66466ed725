//! One write while it is put together: the records as it leaves them, what they displace, the log and its heads.
//!
//! Commits of this replica and commits of others end in the same rows by the same rules, so both are put together here;
//! what a change does to its record is decided in [`local`](super::local), [`remote`](super::remote) and
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
    /// The records as the write leaves them, in key order: also the order in which stores like to be written.
    pub(super) records: SortedMap<RecordKey, (Header, Value)>,
    /// Log rows, kept values and values beside records.
    pub(super) rest: Vec<(Key, Value)>,
    /// What goes before anything else is put.
    removed: Vec<KeyRange>,
    /// The heads that the write moves.
    pub(super) heads: BTreeMap<ReplicaId, Head>,
    pub(super) decision: Decision,
}

/// The state of a record before a change.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    pub(super) header: &'a Header,
    /// The whole record, header and value.
    pub(super) bytes: &'a [u8],
}

impl<'a> Before<'a> {
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
                settled: Vec::new(),
                waiting: Vec::new(),
                notices: Vec::new(),
                heads: Vec::new(),
                clock,
                members: Vec::new(),
                frame: None,
            },
        }
    }

    /// Makes room for what so many more commits add.
    pub(super) fn reserve(&mut self, commits: usize) {
        self.rest.reserve(commits);
        self.decision.notices.reserve(commits);
    }

    /// The record as this write leaves it so far, or as it is stored.
    pub(super) fn before<'a>(
        &'a self,
        key: &RecordKey,
        stored: Option<&'a (Header, Value)>,
    ) -> Option<Before<'a>> {
        let found = self.records.get(key).or(stored);
        found.map(|(header, bytes)| Before { header, bytes })
    }

    /// Removes everything that lies beside the record: it is of an epoch that has passed.
    pub(super) fn drop_besides(&mut self, record: &RecordKey) {
        let range = keys::besides_of(record);
        self.rest.retain(|(key, _)| !range.contains(key));
        self.removed.push(range);
    }

    /// Adds the log row of a commit, with which its stream gets a new head.
    pub(super) fn log(&mut self, before: &Head, stamp: Hlc, digest: Digest, row: Value) {
        let head = before.next(stamp, digest, &row);
        let replica = stamp.replica();
        self.rest.push((keys::log(replica, head.seq), row));
        self.heads.insert(replica, head);
    }

    /// Removes a kept value that its record holds again.
    pub(super) fn drop_kept(&mut self, key: Key) {
        self.rest.retain(|(other, _)| *other != key);
        self.removed.push(KeyRange { end: Some([&key[..], &[0]].concat()), start: key });
    }

    /// The rows of the draft, without anything that a commit adds.
    pub(super) fn into_batch(self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        put_all(&mut batch, self.removed, self.rest, self.records);
        batch
    }

    /// Takes note of what a commit changed visibly, and leaves `events` to the next one.
    pub(super) fn tell(&mut self, events: &mut Vec<Event>) {
        if !events.is_empty() {
            self.decision.notices.push(events.drain(..).collect());
        }
    }
}

impl Pen {
    /// The head of a stream once the draft is written.
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
            // What comes from a peer was checked before.
            let member = model::decode_bytes(record::value_of(&bytes));
            draft
                .decision
                .members
                .push(member.map_err(|_| FormatError::Damaged { what: "a member record" })?);
        }
        let displaced = draft.records.insert(key.clone(), (header, bytes)).or(stored);
        if let Some((old, mut value)) = displaced {
            // The same dot twice: only what is said of the record has changed.
            let held = !old.tombstone && !old.merge.is_some_and(|merge| merge.mixed);
            if held && !header.holds(old.stamp.replica(), old.seq) {
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

    /// Turns the draft into one batch. The own log is pruned up to `floor` by it.
    pub(super) fn finish(&self, draft: Draft, floor: u64) -> Decision {
        let Draft { records, rest, removed, mut heads, mut decision } = draft;
        if heads.is_empty() {
            return decision;
        }
        let Identity { replica, device, .. } = self.identity();
        let batch = &mut decision.batch;
        if decision.members.iter().any(|member| (member.replica, member.device) == (replica, device)) {
            // Whoever is a member needs nobody to introduce it.
            batch.delete(keys::introducer());
        }
        let durable = self.ledger.own();
        if let Some(head) = heads.get_mut(&replica)
            && floor > durable.floor
        {
            (head.floor, head.floor_digest) = (durable.seq, durable.digest);
            let first = durable.floor + 1;
            let [log, kept] = keys::log_and_kept(replica, first, floor);
            // One entry is the rule: naming it is cheaper for a store than a range.
            if first == floor {
                batch.delete(keys::log(replica, first));
            } else {
                batch.delete_range(log);
            }
            if self.kept_up_to >= first {
                batch.delete_range(kept);
            }
        }
        put_all(batch, removed, rest, records);
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
    // Heads and the clock follow.
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
