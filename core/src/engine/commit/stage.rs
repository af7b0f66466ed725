//! Joining the stage of a snapshot with the live records, from the switch until all of it is folded.
//!
//! A record is the merge of its live state and its staged one. A live record that the snapshot lacks, and whose commit the
//! sender had, was deleted there and its tombstone forgotten: it is no more. Both hold at every moment of the fold: a fold
//! writes the joined record and leaves the staged one, so joining once more changes nothing, and a record that is removed
//! is as good as one that is to be.

use std::collections::BTreeMap;

use crate::ids::ReplicaId;
use crate::member::Member;
use crate::model::Registry;
use crate::storage::{Key, KeyRange, Value, WriteBatch, WriteOp};
use crate::stored::keys::{self, RecordKey};
use crate::stored::record::{self, Header, Merged};
use crate::stored::{FormatError, InstallRow};
use crate::syncable::Syncable;

use super::super::Rules;
use super::draft::{Before, Draft};
use super::remote::{Arrival, Verdict, verdict};
use super::{Decision, Pen};

/// A record as it is joined.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The live record stands, or there is none.
    Live,
    /// The record was deleted, and its tombstone forgotten.
    Gone,
    /// The record has this header and these bytes.
    New(Header, Value),
    /// The staged value cannot be merged into the live one: with this header and these bytes it lies beside it. It is a
    /// state: all that its author had by then, not the value of one commit.
    Beside(Header, Value),
}

/// Joins a record of both states. `as_of` are the heads at which the snapshot began.
pub(crate) fn join(
    (rules, models): (&Rules, &Registry),
    as_of: &BTreeMap<ReplicaId, u64>,
    key: &RecordKey,
    live: Option<&[u8]>,
    staged: Option<&[u8]>,
) -> Result<Joined, FormatError> {
    let live = live.map(|bytes| Ok((record::parse(bytes)?.0, bytes))).transpose()?;
    let staged = staged.map(|bytes| Ok((record::parse(bytes)?, bytes))).transpose()?;
    Ok(match (live, staged) {
        (None, None) => Joined::Live,
        (Some((header, _)), None) => {
            let covered = as_of.get(&header.stamp.replica()).is_some_and(|seq| header.seq <= *seq);
            let gone = covered || !rules.absence_needs_cover;
            // A member never goes: whoever lacks its record lacks the commit that added it. A tombstone goes by itself, once
            // its log is gone here too.
            let stays = header.tombstone || key.model() == Member::SYNC_MODEL;
            if gone && !stays { Joined::Gone } else { Joined::Live }
        }
        (None, Some(((header, _), bytes))) => Joined::New(header, bytes.to_vec()),
        (Some((_, live)), Some((_, bytes))) if live == bytes => Joined::Live,
        (Some((old, live)), Some(((header, value), bytes))) => {
            let before = Before { header: old, bytes: live };
            let beside = |header: Header| header.merge.is_some_and(|merge| merge.beside);
            let epoch = |header: Header| header.merge.map(|merge| merge.epoch);
            let both = epoch(old) == epoch(header) && (beside(old) || beside(header));
            let flagged = |header: Header, bytes: Value| {
                let merge = header.merge.map(|merge| Merged { beside: merge.beside || both, ..merge });
                let (header, mut bytes) = (Header { merge, ..header }, bytes);
                header.write(&mut bytes);
                Joined::New(header, bytes)
            };
            match verdict((rules, models), key, before, &Arrival { header, value }) {
                Verdict::Replace => flagged(header, bytes.to_vec()),
                Verdict::Mix(header, bytes, _) => flagged(header, bytes),
                Verdict::Stay if both && !beside(old) => flagged(old, live.to_vec()),
                Verdict::Stay => Joined::Live,
                Verdict::Beside => {
                    let merge = header.merge.map(|merge| Merged { mixed: true, ..merge });
                    let (header, mut bytes) = (Header { merge, ..header }, bytes.to_vec());
                    header.write(&mut bytes);
                    Joined::Beside(header, bytes)
                }
            }
        }
    })
}

/// The next records of both states, for one step of a fold.
#[derive(Debug, Default)]
pub(in crate::engine) struct Pair {
    pub(in crate::engine) key: Key,
    pub(in crate::engine) live: Option<Value>,
    pub(in crate::engine) staged: Option<Value>,
}

impl Pen {
    /// Joins the live and the staged records of a write. What a joined record displaces of the live one is kept with the
    /// write, if the log needs it.
    pub(in crate::engine) fn joins(
        &mut self,
        as_of: &BTreeMap<ReplicaId, u64>,
        keys: &[Key],
        live: Vec<Option<Value>>,
        staged: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>, FormatError> {
        let mut values = Vec::with_capacity(live.len());
        let mut draft = Draft::new(self.clock.high_water());
        for ((key, live), staged) in keys.iter().zip(live).zip(staged) {
            let Some(record) = RecordKey::from_bytes(key) else {
                values.push(live);
                continue;
            };
            let context = (self.rules(), &*self.context.models);
            match join(context, as_of, &record, live.as_deref(), staged.as_deref())? {
                Joined::Live | Joined::Beside(..) => values.push(live),
                Joined::Gone => {
                    self.displace(&mut draft, &record, None, live);
                    values.push(None);
                }
                Joined::New(header, bytes) => {
                    self.displace(&mut draft, &record, Some(header), live);
                    values.push(Some(bytes));
                }
            }
        }
        self.ahead.append(&mut draft.rest);
        Ok(values)
    }

    /// Keeps the value of a live record that a joined one displaces, if the log needs it.
    fn displace(&mut self, draft: &mut Draft, key: &RecordKey, new: Option<Header>, live: Option<Value>) {
        let Some((old, mut value)) = live.and_then(|live| Some((record::parse(&live).ok()?.0, live))) else {
            return;
        };
        let is_logged = !old.tombstone && !old.merge.is_some_and(|merge| merge.mixed);
        if is_logged && !new.is_some_and(|new| new.holds(old.stamp.replica(), old.seq)) {
            value.drain(..record::value_at(&value));
            self.keep(draft, key, old.stamp.replica(), old.seq, value);
        }
    }

    /// Folds records: each becomes what it is joined. A record that is damaged stays as it is, for the audit to name.
    pub(in crate::engine) fn fold_staged(
        &mut self,
        as_of: &BTreeMap<ReplicaId, u64>,
        pairs: Vec<Pair>,
    ) -> (WriteBatch, Vec<RecordKey>) {
        let mut draft = Draft::new(self.clock.high_water());
        let (mut batch, mut changed) = (WriteBatch::new(), Vec::new());
        for Pair { key, live, staged } in pairs {
            let Some(record) = RecordKey::from_bytes(&key) else { continue };
            let context = (self.rules(), &*self.context.models);
            let joined = join(context, as_of, &record, live.as_deref(), staged.as_deref());
            let was_beside = live
                .as_deref()
                .and_then(|live| record::parse(live).ok())
                .and_then(|(header, _)| header.merge)
                .filter(|merge| merge.beside);
            match joined {
                Err(_) | Ok(Joined::Live) => continue,
                Ok(Joined::Gone) => {
                    self.displace(&mut draft, &record, None, live);
                    if was_beside.is_some() {
                        batch.delete_range(keys::besides_of(&record));
                    }
                    batch.delete(key);
                }
                Ok(Joined::New(header, bytes)) => {
                    let passed =
                        was_beside.is_some_and(|was| header.merge.is_some_and(|now| now.epoch != was.epoch));
                    if passed {
                        batch.delete_range(keys::besides_of(&record));
                    }
                    self.displace(&mut draft, &record, Some(header), live);
                    batch.put(key, bytes);
                }
                Ok(Joined::Beside(new, value)) => {
                    let Some((old, mut bytes)) =
                        live.and_then(|live| Some((record::parse(&live).ok()?.0, live)))
                    else {
                        continue;
                    };
                    let merge = old.merge.map(|merge| Merged { beside: true, ..merge });
                    Header { merge, ..old }.write(&mut bytes);
                    batch.put(keys::beside(&record, new.stamp.replica(), new.seq), value);
                    batch.put(key, bytes);
                }
            }
            changed.push(record);
        }
        for (key, value) in draft.rest {
            batch.put(key, value);
        }
        (batch, changed)
    }

    /// The write that applies a decision about the tail to the stage: all but the log is put under the stage, and each value
    /// is kept, since no live record holds it yet.
    pub(in crate::engine) fn stages(
        &self,
        decision: &mut Decision,
        kept: impl IntoIterator<Item = (Key, Value)>,
        row: &InstallRow,
    ) -> WriteBatch {
        let mut batch = WriteBatch::new();
        let place =
            |key: Key| if row.in_place && keys::is_in_snapshot(&key) { key } else { keys::staged(&key) };
        let is_staged = |key: &[u8]| keys::is_in_snapshot(key) || keys::is_head(key);
        for op in std::mem::take(&mut decision.batch) {
            match op {
                WriteOp::Put { key, value } if is_staged(&key) => batch.put(place(key), value),
                WriteOp::Put { key, value } if keys::is_log(&key) || keys::is_kept(&key) => {
                    batch.put(key, value);
                }
                WriteOp::Delete { key } if is_staged(&key) => batch.delete(place(key)),
                WriteOp::DeleteRange { range: KeyRange { start, end: Some(end) } } if is_staged(&start) => {
                    batch.delete_range(KeyRange { start: place(start), end: Some(place(end)) });
                }
                // The clock and the introducer are of the live store, and change with the switch.
                WriteOp::Put { .. } | WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => {}
            }
        }
        kept.into_iter().for_each(|(key, value)| batch.put(key, value));
        batch.put(keys::install(), row.to_value());
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::made::{B, ME, context, note, stamp};
    use super::*;

    const EPOCH: crate::hlc::Hlc = crate::hlc::Hlc::NEVER;

    /// A record whose dot is commit `seq` of `stream`.
    fn row(stream: ReplicaId, seq: u64, merge: Option<Merged>, value: &[u8]) -> Value {
        record::of(&Header { tombstone: false, schema: 1, stamp: stamp(seq, stream), seq, merge }, value)
    }

    fn joined(key: &RecordKey, live: Option<&[u8]>, staged: Option<&[u8]>) -> Joined {
        let (context, as_of) = (context(), BTreeMap::from([(B, 5)]));
        join((&context.rules, &context.models), &as_of, key, live, staged).unwrap()
    }

    #[test]
    fn of_what_a_snapshot_lacks_only_a_value_that_its_sender_had_goes() {
        let live = |seq| row(B, seq, None, b"live");
        assert_eq!(joined(&note(1), Some(&live(5)), None), Joined::Gone);
        assert_eq!(joined(&note(1), Some(&live(6)), None), Joined::Live, "its commit is not covered");
        assert_eq!(
            joined(&note(1), Some(&row(ME, 1, None, b"live")), None),
            Joined::Live,
            "nor is its stream"
        );
        let member = RecordKey::new::<Member>(&B);
        assert_eq!(joined(&member, Some(&live(5)), None), Joined::Live, "a member never goes");
        let header = Header { tombstone: true, schema: 0, stamp: stamp(5, B), seq: 5, merge: None };
        let tombstone = record::of(&header, b"");
        assert_eq!(joined(&note(1), Some(&tombstone), None), Joined::Live, "a tombstone goes by itself");
    }

    /// Only the staged record says that values lie beside it: they come too, and lie beside the one that stays.
    #[test]
    fn a_record_that_stays_takes_over_what_lies_beside_the_staged_one() {
        let merge = |beside| Some(Merged { epoch: EPOCH, mixed: false, beside });
        let (live, staged) = (row(ME, 9, merge(false), b"both"), row(B, 5, merge(true), b"both"));
        let Joined::New(header, value) = joined(&note(1), Some(&live), Some(&staged)) else {
            panic!("it is flagged")
        };
        assert_eq!((header.seq, header.merge), (9, merge(true)));
        assert_eq!(record::value_of(&value), b"both");
        let flagged = row(ME, 9, merge(true), b"both");
        assert_eq!(joined(&note(1), Some(&flagged), Some(&staged)), Joined::Live, "it is flagged already");
    }

    /// The log may have earlier commits of the author of a record, whose values are part of it: beside another one, it stands for
    /// all of them.
    #[test]
    fn a_record_that_lies_beside_another_one_is_a_state() {
        let merge = |mixed| Some(Merged { epoch: EPOCH, mixed, beside: false });
        let (live, staged) = (row(ME, 9, merge(false), b"ours"), row(B, 5, merge(false), b"theirs"));
        let Joined::Beside(header, value) = joined(&note(1), Some(&live), Some(&staged)) else {
            panic!("no app here can merge them")
        };
        assert_eq!((header.seq, header.merge), (5, merge(true)));
        assert_eq!(record::parse(&value).unwrap(), (header, &b"theirs"[..]));
    }
}
