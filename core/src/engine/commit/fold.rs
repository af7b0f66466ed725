//! Folding: the values beside records are merged into them once this version of the app can do so, many records in one
//! write.
//!
//! A value that an earlier version could not merge lies beside its record. Merging it later makes the record what it
//! would be had the app known its model from the start, since merging depends on no order.

use crate::storage::{Key, Value, WriteBatch};
use crate::stored::FormatError;
use crate::stored::keys::{self, RecordKey};
use crate::stored::record::{self, Header, Merged};
use crate::tournament::combine_all;

use super::Pen;
use super::draft::{Before, Draft};
use super::remote::{Arrival, Verdict};

/// The most records that one write folds.
pub(in crate::engine) const FOLD_RECORDS_MAX: usize = 1000;
/// The bytes of values after which a write takes no more of them: only its last value may pass this bound.
pub(in crate::engine) const FOLD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The values that lie beside one record.
#[derive(Debug)]
pub(in crate::engine) struct Besides {
    pub(in crate::engine) record: RecordKey,
    pub(in crate::engine) values: Vec<(Key, Value)>,
    /// Whether these are all values that were not looked at yet.
    pub(in crate::engine) all: bool,
    /// Whether a value that was looked at before stays beside the record.
    pub(in crate::engine) others: bool,
}

/// A value that lies beside a record, or several of them merged.
struct Merging {
    header: Header,
    /// The value, behind its header.
    bytes: Value,
    /// The keys of the rows that it is of.
    besides: Vec<Key>,
}

/// The values after which a write takes no more of them, so that one write stays short.
pub(in crate::engine) const FOLD_VALUES_MAX: usize = 4096;

/// The result of folding.
#[derive(Debug)]
pub(in crate::engine) struct Folded {
    /// The rows to write; none if nothing could be merged.
    pub(in crate::engine) batch: WriteBatch,
    /// The records that something was merged into.
    pub(in crate::engine) records: Vec<RecordKey>,
    /// How many of them have had all their values looked at.
    pub(in crate::engine) completes: usize,
    /// The record of which only a part was looked at, if a value of that stays beside it.
    pub(in crate::engine) leaves_behind: Option<RecordKey>,
}

impl Pen {
    /// Merges into records the values that lie beside them, as far as this version of the app can. `stored` are the
    /// records, in the order of `besides`.
    ///
    /// A record that is missing or damaged is left as it is: the audit names it, and no commit rests on it.
    pub(in crate::engine) fn fold(&mut self, besides: Vec<Besides>, stored: Vec<Option<Value>>) -> Folded {
        let mut draft = Draft::new(self.clock.high_water());
        let (mut folded, mut records) = (Vec::new(), Vec::new());
        let (mut completes, mut leaves_behind) = (0, None);
        for (Besides { record, values, all, others }, stored) in besides.into_iter().zip(stored) {
            let (before, count) = (folded.len(), values.len());
            let Some(stored) = stored else { continue };
            let done = self.fold_one(&mut draft, &record, stored, values, !all || others, &mut folded);
            let merged = folded.len() - before;
            if !all && (others || merged < count) {
                leaves_behind = Some(record.clone());
            }
            if done.is_ok() && merged > 0 {
                completes += usize::from(all);
                records.push(record);
            }
        }
        let mut batch = draft.into_batch();
        folded.into_iter().for_each(|beside| batch.delete(beside));
        Folded { batch, records, completes, leaves_behind }
    }

    /// Merges two values that lie beside the same record, if this version of the app can.
    fn merge_besides(
        &self,
        key: &RecordKey,
        one: Merging,
        other: Merging,
    ) -> Result<Merging, Box<[Merging; 2]>> {
        let epoch = |value: &Merging| value.header.merge.map(|merge| merge.epoch);
        if epoch(&one) != epoch(&other) || one.header.tombstone || other.header.tombstone {
            return Err(Box::new([one, other]));
        }
        let old = Before { header: one.header, bytes: &one.bytes };
        let new = Arrival { header: other.header, value: record::value_of(&other.bytes) };
        let (header, bytes) = match self.verdict(key, old, &new) {
            Verdict::Mix(header, bytes, _) => (header, bytes),
            Verdict::Stay => (one.header, one.bytes),
            Verdict::Replace | Verdict::Beside => return Err(Box::new([one, other])),
        };
        let mut besides = one.besides;
        besides.extend(other.besides);
        Ok(Merging { header, bytes, besides })
    }

    /// Merges into one record the values beside it, and adds the keys of the merged values to `folded`.
    fn fold_one(
        &mut self,
        draft: &mut Draft,
        key: &RecordKey,
        stored: Value,
        besides: Vec<(Key, Value)>,
        others: bool,
        folded: &mut Vec<Key>,
    ) -> Result<(), FormatError> {
        let mut stored = Some((record::parse(&stored)?.0, stored));
        let (mut left, before) = (others, folded.len());
        let mut besides = besides.into_iter();
        let values = std::iter::from_fn(|| {
            let (beside, value) = besides.find(|(_, value)| {
                let is_damaged = record::parse(value).is_err();
                left |= is_damaged;
                !is_damaged
            })?;
            let (header, _) = record::parse(&value).ok()?;
            Some(Merging { header, bytes: value, besides: vec![beside] })
        });
        // Merge the values with each other first: the record, which grows with each of them, is then merged once.
        let values = combine_all(values, |one, other| self.merge_besides(key, one, other));
        for Merging { header, bytes, besides } in values {
            let value = record::value_of(&bytes);
            let new = Arrival { header, value };
            let is_mixed = header.merge.is_some_and(|merge| merge.mixed);
            let Some(old) = draft.before(key, stored.as_ref().map(Before::of)) else { continue };
            match self.verdict(key, old, &new) {
                Verdict::Beside => {
                    left = true;
                    continue;
                }
                Verdict::Stay => {}
                Verdict::Replace => {
                    let bytes = record::of(&header, value);
                    self.replace(draft, key, header, bytes, stored.take())?;
                    if !is_mixed {
                        draft.drop_kept(keys::kept(header.stamp.replica(), header.seq, key));
                    }
                }
                Verdict::Mix(mixed, bytes, unchanged) => {
                    self.replace(draft, key, mixed, bytes, stored.take())?;
                    if unchanged {
                        draft.drop_kept(keys::kept(header.stamp.replica(), header.seq, key));
                    }
                }
            }
            folded.extend(besides);
        }
        if folded.len() == before {
            return Ok(());
        }
        if let Some(old) = draft.before(key, stored.as_ref().map(Before::of)) {
            let (header, mut bytes) = (old.header, old.bytes.to_vec());
            let merge = header.merge.map(|merge| Merged { beside: left, ..merge });
            let header = Header { merge, ..header };
            header.write(&mut bytes);
            self.replace(draft, key, header, bytes, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use serde::{Deserialize, Serialize};

    use super::super::super::context::Context;
    use super::super::super::made::{B, Bag, C, ME, context, head, ledger, now, stamp};
    use super::*;
    use crate::hlc::Hlc;
    use crate::ids::ReplicaId;
    use crate::model::Registry;
    use crate::storage::WriteOp;
    use crate::syncable::{Shared, Syncable};

    /// A value of bag 1 that a commit at `seq` of `stream` put, in the first epoch.
    fn of_commit(stream: ReplicaId, seq: u64, items: &[u32]) -> Value {
        let bag = Bag { id: 1, items: items.iter().copied().collect() };
        let merge = Some(Merged { beside: stream == B, ..Merged::plain(Hlc::NEVER) });
        let header = Header { tombstone: false, schema: 1, stamp: stamp(seq, stream), seq, merge };
        record::of(&header, &postcard::to_allocvec(&bag).unwrap())
    }

    /// The values of commits of `C` beside bag 1, by their sequence numbers.
    fn besides(values: &[(u64, Value)], all: bool) -> Besides {
        let record = RecordKey::new::<Bag>(&1);
        let beside = |(seq, value): &(u64, Value)| (keys::beside(&record, C, *seq), value.clone());
        Besides { values: values.iter().map(beside).collect(), record, all, others: false }
    }

    /// What folding these makes of the record that `B` wrote, if anything: its items, whether values still lie beside it,
    /// and the sequence numbers of those that do no longer.
    type After = Option<(BTreeSet<u32>, bool, Vec<u64>)>;

    /// Folds one record, as an app that knows bags does.
    fn folded(besides: Besides, stored: Option<Value>) -> Folded {
        let mut models = Registry::new();
        models.add::<Bag>().unwrap();
        let context = Arc::new(Context { models: Arc::new(models), ..context() });
        let ledger = Arc::new(ledger([(ME, head(ME, 1)), (B, head(B, 9)), (C, head(C, 9))]));
        Pen::new(&context, &ledger, now(9).wall, 0, false).fold(vec![besides], vec![stored])
    }

    fn fold(besides: Besides, stored: Option<Value>) -> After {
        let record = besides.record.clone();
        let Folded { batch, records, .. } = folded(besides, stored);
        assert_eq!(records.is_empty(), batch.is_empty());
        let (mut left, mut folded) = (None, Vec::new());
        for op in batch {
            match op {
                WriteOp::Put { key, value } if key == record.as_bytes() => left = Some(value),
                WriteOp::Delete { key } => {
                    let seq = (1..9).find(|seq| keys::beside(&record, C, *seq) == key);
                    folded.push(seq.expect("only what lay beside is deleted"));
                }
                // The log still needs the value that was displaced.
                WriteOp::Put { key, .. } => assert_eq!(key, keys::kept(B, 1, &record)),
                WriteOp::DeleteRange { .. } => {}
            }
        }
        let left = left?;
        let (header, value) = record::parse(&left).unwrap();
        let bag: Bag = crate::model::decode_bytes(value).unwrap();
        Some((bag.items, header.merge.unwrap().beside, folded))
    }

    fn stored() -> Option<Value> {
        Some(of_commit(B, 1, &[1]))
    }

    /// A value whose schema only a newer version of the app can read.
    fn newer(seq: u64) -> (u64, Value) {
        newer_of(seq, &[9])
    }

    fn newer_of(seq: u64, items: &[u32]) -> (u64, Value) {
        let value = of_commit(C, seq, items);
        let (header, content) = record::parse(&value).unwrap();
        (seq, record::of(&Header { schema: 9, ..header }, content))
    }

    fn items(items: &[u32]) -> BTreeSet<u32> {
        items.iter().copied().collect()
    }

    #[test]
    fn all_that_lies_beside_a_record_is_merged_into_it() {
        let values = [(2, of_commit(C, 2, &[2])), (3, of_commit(C, 3, &[3])), (4, of_commit(C, 4, &[1]))];
        let after = fold(besides(&values, true), stored());
        assert_eq!(after, Some((items(&[1, 2, 3]), false, vec![2, 3, 4])));
    }

    /// A record that says otherwise is taken by no reader for what it is.
    #[test]
    fn a_record_says_that_values_lie_beside_it_exactly_as_long_as_any_do() {
        let one = (2, of_commit(C, 2, &[2]));
        let cases = [
            ("more of them follow", vec![one.clone()], false, Some((items(&[1, 2]), true, vec![2]))),
            ("one is newer", vec![one.clone(), newer(3)], true, Some((items(&[1, 2]), true, vec![2]))),
            (
                "one is damaged",
                vec![(1, vec![7; 9]), one.clone()],
                true,
                Some((items(&[1, 2]), true, vec![2])),
            ),
            (
                "one changes nothing",
                vec![(2, of_commit(C, 2, &[1]))],
                true,
                Some((items(&[1]), false, vec![2])),
            ),
            ("none can be merged", vec![newer(3)], true, None),
            ("one is newer and has the bytes of the record", vec![newer_of(3, &[1])], true, None),
            ("there are none", vec![], true, None),
        ];
        for (name, values, all, after) in cases {
            assert_eq!(fold(besides(&values, all), stored()), after, "{name}");
        }
    }

    /// A record of which a page has a part counts when its last part is folded. A part whose values can all be merged
    /// forgets nothing that an earlier part left beside the record.
    #[test]
    fn a_record_in_parts_counts_once_and_remembers_what_stays_beside_it() {
        let one = || (2, of_commit(C, 2, &[2]));
        let cases = [
            ("whole", true, false, vec![one()], 1, false),
            ("whole, and one stays", true, false, vec![one(), newer(3)], 1, false),
            ("the first part", false, false, vec![one()], 0, false),
            ("a part of which one stays", false, false, vec![one(), newer(3)], 0, true),
            ("a part behind one of which one stays", false, true, vec![one()], 0, true),
            ("the last part", true, true, vec![one()], 1, false),
        ];
        for (name, all, others, values, completes, leaves_behind) in cases {
            let folded = folded(Besides { others, ..besides(&values, all) }, stored());
            assert_eq!(
                (folded.completes, folded.leaves_behind.is_some()),
                (completes, leaves_behind),
                "{name}"
            );
        }
    }

    /// A record that grows with each value is not merged with each of them.
    #[test]
    fn folding_many_values_takes_hardly_more_than_reading_them() {
        /// A set whose merges are counted by what they read.
        #[derive(Clone, Serialize, Deserialize)]
        struct Counted {
            id: u32,
            items: BTreeSet<u32>,
        }
        static READ: AtomicUsize = AtomicUsize::new(0);
        impl Syncable for Counted {
            const SYNC_MODEL: &'static str = "bag";
            type Id = u32;
            type Ownership = Shared;
            const OWN_MERGE: bool = true;
            fn sync_id(&self) -> u32 {
                self.id
            }
            fn merge(mut self, other: Self) -> Self {
                READ.fetch_add(self.items.len() + other.items.len(), Relaxed);
                self.items.extend(other.items);
                self
            }
        }
        const VALUES: usize = 1024;
        let mut models = Registry::new();
        models.add::<Counted>().unwrap();
        let context = Arc::new(Context { models: Arc::new(models), ..context() });
        let ledger = Arc::new(ledger([(ME, head(ME, 1)), (B, head(B, 9)), (C, head(C, 9999))]));
        let values: Vec<_> =
            (2..).take(VALUES).map(|n: u32| (u64::from(n), of_commit(C, n.into(), &[n]))).collect();
        let mut pen = Pen::new(&context, &ledger, now(9).wall, 0, false);
        let folded = pen.fold(vec![besides(&values, true)], vec![stored()]);
        assert_eq!((folded.records.len(), folded.completes), (1, 1));
        let read = READ.load(Relaxed);
        assert!(read <= VALUES * 12, "{read} items of {VALUES}");
    }

    /// A record that holds what no commit put says so: else the value of its commit would be taken to be in it.
    #[test]
    fn a_record_holds_the_value_of_its_commit_only_if_that_has_all_the_others() {
        for (last, mixed) in [(&[1, 2, 3, 4][..], false), (&[4], true)] {
            let values = [(2, of_commit(C, 2, &[2])), (3, of_commit(C, 3, &[3])), (4, of_commit(C, 4, last))];
            let Folded { batch, .. } = folded(besides(&values, true), stored());
            let record = RecordKey::new::<Bag>(&1);
            let ops = batch.ops();
            let header = ops.iter().find_map(|op| match op {
                WriteOp::Put { key, value } if key == record.as_bytes() => {
                    Some(record::parse(value).unwrap().0)
                }
                _ => None,
            });
            let header = header.expect("the record is written");
            assert_eq!((header.seq, header.merge.unwrap().mixed), (4, mixed));
            let kept = keys::kept(C, 4, &record);
            let drops = |op: &WriteOp| matches!(op, WriteOp::DeleteRange { range } if range.contains(&kept));
            assert_eq!(ops.iter().any(drops), !mixed, "its kept value goes only if the record holds it");
        }
    }

    /// The audit names it, and nothing rests on it.
    #[test]
    fn a_record_that_is_missing_or_damaged_is_left_as_it_is() {
        for stored in [None, Some(vec![7; 9]), Some(Vec::new())] {
            assert_eq!(fold(besides(&[(2, of_commit(C, 2, &[2]))], true), stored), None);
        }
    }
}
