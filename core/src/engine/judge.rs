//! Judging a page of a snapshot: it only reads, and a page that cannot be changes nothing.
//!
//! A snapshot has no digests, so what can be said of a page is that it is well made, that it goes on where the one before it
//! ended, that its records rest on commits that its sender had, and that no stamp of it is far ahead of physical time.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Now;
use crate::hlc::Hlc;
use crate::ids::ReplicaId;
use crate::member::Member;
use crate::model;
use crate::storage::{Entry, Key, KeyRange, WriteBatch};
use crate::stored::keys::{self, RecordKey, StoredKey};
use crate::stored::record;
use crate::syncable::{MODEL_BYTES_MAX, Syncable};

use super::context::Context;
use super::ledger::Ledger;
use super::stream::Streams;
use super::wire::{SnapshotHead, WireStamped};

/// Judges the page of one sender.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    context: &'a Context,
    ledger: &'a Ledger,
    streams: &'a Streams,
    now: &'a Now,
    /// The heads on which the page rests.
    pub(super) heads: BTreeMap<ReplicaId, WireStamped>,
    /// The highest stamp of the page.
    pub(super) high: Hlc,
    /// The replicas that have stamps too far ahead, and whose streams were not released.
    pub(super) far: BTreeSet<ReplicaId>,
}

/// The rows of a page that can be.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// The rows, under the keys under which they are to stand, in writes that a store takes.
    pub(super) parts: Vec<Part>,
    /// The members among them.
    pub(super) members: Vec<Member>,
}

/// The rows of one write.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) batch: WriteBatch,
    /// The last record among them, or before them.
    pub(super) last: Option<Key>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// A row of a page.
enum Row {
    /// A record; if values lie beside it, the keys that these may have, and if it is of a member, that.
    Record { besides: Option<KeyRange>, member: Option<Member> },
    /// A value that lies beside a record.
    Beside,
}

impl<'a> Judge<'a> {
    /// Judges the head of a page.
    pub(super) fn new(
        head: &SnapshotHead,
        context: &'a Context,
        (ledger, streams, now): (&'a Ledger, &'a Streams, &'a Now),
    ) -> Result<Self, String> {
        let mut heads = BTreeMap::new();
        for head in &head.heads.0 {
            if head.seq == 0 || head.seq == u64::MAX || heads.insert(head.stream, *head).is_some() {
                return Err("its snapshot names a head twice, or one that cannot be".into());
            }
        }
        let (high, far) = (Hlc::NEVER, BTreeSet::new());
        let mut judge = Self { context, ledger, streams, now, heads, high, far };
        for head in head.heads.0.iter().chain(&head.before.0) {
            judge.sees(head.stamp());
        }
        for forgotten in &head.forgotten.0 {
            if forgotten.model.is_empty() || forgotten.model.len() > MODEL_BYTES_MAX {
                return Err("its snapshot names a model that cannot be".into());
            }
            judge.sees(forgotten.stamp());
        }
        Ok(judge)
    }

    fn sees(&mut self, stamp: Hlc) {
        self.high = self.high.max(stamp);
        let (author, near) = (stamp.replica(), self.ledger.is_within_drift(stamp, self.now));
        if stamp > Hlc::NEVER && !near && !self.streams.is_released(author) {
            self.far.insert(author);
        }
    }

    /// Judges the rows of the page, which come behind the key `after`, and are put `in_place` or staged. A part has as many
    /// rows as a commit of this replica may have changes, and what lies beside a record is in the part of that.
    pub(super) fn rows(
        &mut self,
        entries: Vec<Entry>,
        after: Option<&[u8]>,
        in_place: bool,
    ) -> Result<Judged, String> {
        let (rows_max, bytes_max) =
            (self.context.limits.commit_changes_max, self.context.limits.commit_bytes_max);
        let is_full = |part: &Part| part.rows >= rows_max as u64 || part.bytes >= bytes_max as u64;
        let mut judged = Judged::default();
        let mut part = Part { last: after.map(<[u8]>::to_vec), ..Part::default() };
        // Behind each record come the values that lie beside it.
        let (mut besides, mut beside) = (None, None);
        for Entry { key, value } in entries {
            let row = self.row(&key, &value)?;
            if is_full(&part) && matches!(row, Row::Record { .. }) {
                let next = Part { last: part.last.clone(), ..Part::default() };
                judged.parts.push(std::mem::replace(&mut part, next));
            }
            part.rows += 1;
            part.bytes += (key.len() + value.len()) as u64;
            let last = match &row {
                Row::Beside => &mut beside,
                Row::Record { .. } => &mut part.last,
            };
            if last.as_ref().is_some_and(|last| *last >= key) {
                return Err("the keys of its snapshot do not rise".into());
            }
            *last = Some(key.clone());
            match row {
                Row::Record { besides: of_record, member } => {
                    (besides, beside) = (of_record, None);
                    judged.members.extend(member);
                }
                Row::Beside if besides.as_ref().is_some_and(|range: &KeyRange| range.contains(&key)) => {}
                Row::Beside => return Err("a value of its snapshot lies beside no record".into()),
            }
            part.batch.put(if in_place { key } else { keys::staged(&key) }, value);
        }
        judged.parts.push(part);
        Ok(judged)
    }

    /// Judges a row.
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<Row, String> {
        let (record, beside) = match StoredKey::parse(key) {
            Some(StoredKey::Record(record)) => (record, None),
            Some(StoredKey::Beside(record, replica, seq)) => (record, Some((replica, seq))),
            _ => return Err("its snapshot has a row that is no record".into()),
        };
        let Ok((header, bare)) = record::parse(value) else {
            return Err(format!("the record {record} of its snapshot cannot be read"));
        };
        let known = self.context.models.kind_of(record.model());
        if known.is_some_and(|own_merge| own_merge != header.merge.is_some()) {
            return Err(format!("its app merges {record} in another way"));
        }
        let dot = (header.stamp.replica(), header.seq);
        let is_named = self.heads.get(&dot.0).is_some_and(|head| head.seq >= dot.1);
        if !is_named || beside.is_some_and(|named| named != dot) {
            return Err(format!(
                "the record {record} of its snapshot rests on a commit that it does not have"
            ));
        }
        self.sees(header.stamp);
        header.merge.into_iter().for_each(|merge| self.sees(merge.epoch));
        if beside.is_some() {
            return Ok(Row::Beside);
        }
        let besides = header.merge.is_some_and(|merge| merge.beside).then(|| keys::besides_of(&record));
        if record.model() != Member::SYNC_MODEL || header.tombstone {
            return Ok(Row::Record { besides, member: None });
        }
        let member: Member = model::decode_bytes(bare)
            .map_err(|_| "a member record of its snapshot cannot be read".to_owned())?;
        if RecordKey::new::<Member>(&member.replica) != record {
            return Err("a member record of its snapshot is under another replica's key".into());
        }
        Ok(Row::Record { besides, member: Some(member) })
    }
}
