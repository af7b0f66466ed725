//! Flaws that change a batch before it is written.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use syncline::{Key, KeyRange, Value, WriteBatch, WriteOp};

use super::store::is_inside_by_prefix;
use super::{Broken, Flaw, lock};
use crate::sorted_map;

impl Broken {
    /// Returns the batch that the flaw makes of this one.
    pub(super) fn rewrite(&self, batch: WriteBatch) -> WriteBatch {
        match self.flaw {
            Flaw::StaleCache | Flaw::StaleAbsence => {
                let stale_absence = self.flaw == Flaw::StaleAbsence;
                let mut state = lock(&self.state);
                for op in batch.ops() {
                    match op {
                        WriteOp::Put { key, .. } if !stale_absence => drop(state.cache.remove(key)),
                        WriteOp::Delete { key } => drop(state.cache.remove(key)),
                        _ => {}
                    }
                }
                batch
            }
            Flaw::IgnoresCase | Flaw::IgnoresTrailingSpaces | Flaw::ComparesNumbers => {
                let mut spelled = self.spelled();
                let mut spell = |key: Key| spelled.entry(self.fold(&key)).or_insert(key).clone();
                let ops = batch.into_iter().map(|op| match op {
                    WriteOp::Put { key, value } => WriteOp::Put { key: spell(key), value },
                    WriteOp::Delete { key } => WriteOp::Delete { key: spell(key) },
                    range => range,
                });
                ops.collect::<Vec<_>>().into()
            }
            Flaw::LargeFirstPutWins | Flaw::LargeRangeDeletesFirst if batch.ops().len() <= 1_000 => batch,
            Flaw::FirstPutWins | Flaw::LargeFirstPutWins => {
                let mut seen = BTreeSet::new();
                let is_first = |op: &WriteOp| match op {
                    WriteOp::Put { key, .. } => seen.insert(key.clone()),
                    _ => true,
                };
                batch.into_iter().filter(is_first).collect::<Vec<_>>().into()
            }
            Flaw::RangeDeletesFirst | Flaw::LargeRangeDeletesFirst => {
                let mut ops: Vec<_> = batch.into_iter().collect();
                ops.sort_by_key(|op| Reverse(matches!(op, WriteOp::DeleteRange { .. })));
                ops.into()
            }
            Flaw::DeletesLast => {
                let mut ops: Vec<_> = batch.into_iter().collect();
                ops.sort_by_key(|op| matches!(op, WriteOp::Delete { .. }));
                ops.into()
            }
            Flaw::CutsBatches => batch.into_iter().take(1_000).collect::<Vec<_>>().into(),
            Flaw::CutsHugeBatches => batch.into_iter().take(60_000).collect::<Vec<_>>().into(),
            Flaw::CompactionLosesKey => {
                let mut state = lock(&self.state);
                state.writes += 1;
                let last = self.disk.edit(|entries| entries.last_key_value().map(|(key, _)| key.clone()));
                let lost =
                    last.filter(|_| state.writes.is_multiple_of(16)).map(|key| WriteOp::Delete { key });
                batch.into_iter().chain(lost).collect::<Vec<_>>().into()
            }
            _ => batch.into_iter().flat_map(|op| self.rewrite_op(op)).collect::<Vec<_>>().into(),
        }
    }

    /// Returns the operations that the flaw makes of this one.
    fn rewrite_op(&self, op: WriteOp) -> Vec<WriteOp> {
        match (self.flaw, op) {
            (Flaw::RangeDeleteTakesEnd, WriteOp::DeleteRange { range }) => {
                let end = range.end.clone().map(|key| WriteOp::Delete { key });
                [WriteOp::DeleteRange { range }].into_iter().chain(end).collect()
            }
            (Flaw::RangeDeleteSkipsStart, WriteOp::DeleteRange { range }) => {
                let start = range.start.clone();
                vec![WriteOp::DeleteRange { range: range.after(&start) }]
            }
            (Flaw::OpenRangeDeleteIsEmpty, WriteOp::DeleteRange { range: KeyRange { end: None, .. } }) => {
                Vec::new()
            }
            (Flaw::BackwardRangeDeleteTurns, WriteOp::DeleteRange { range }) => match range {
                KeyRange { start, end: Some(end) } if end < start => {
                    vec![WriteOp::DeleteRange { range: KeyRange::new(end, start) }]
                }
                range => vec![WriteOp::DeleteRange { range }],
            },
            (Flaw::RangeDeleteComparesPrefixes, WriteOp::DeleteRange { range }) => {
                self.disk.edit(|entries| {
                    let inside = entries.keys().filter(|key| is_inside_by_prefix(&range, key));
                    inside.map(|key| WriteOp::Delete { key: key.clone() }).collect()
                })
            }
            (
                Flaw::OpenRangeDeleteEndsAtLongRun
                | Flaw::RangeDeleteCutsBoundsAt64
                | Flaw::RangeDeleteCutsBoundsAt255
                | Flaw::RangeDeleteCutsBoundsAt1000,
                WriteOp::DeleteRange { range },
            ) => vec![WriteOp::DeleteRange { range: self.bend(range) }],
            (
                Flaw::RangeDeleteStopsAtPage | Flaw::RangeDeleteStopsAt10000,
                WriteOp::DeleteRange { range },
            ) => {
                let most = if self.flaw == Flaw::RangeDeleteStopsAtPage { 1_000 } else { 10_000 };
                let found = self.disk.edit(|entries| sorted_map::scan(entries, &range, most));
                found.into_iter().map(|entry| WriteOp::Delete { key: entry.key }).collect()
            }
            (Flaw::DeleteCutsKeyAt255, WriteOp::Delete { mut key }) => {
                key.truncate(255);
                vec![WriteOp::Delete { key }]
            }
            (Flaw::CutsValuesOf8Kib | Flaw::CutsValuesOfAPage, WriteOp::Put { key, mut value }) => {
                if value.len() == if self.flaw == Flaw::CutsValuesOf8Kib { 8 << 10 } else { 4_076 } {
                    value.pop();
                }
                vec![WriteOp::Put { key, value }]
            }
            (Flaw::EmptyPutDeletes, WriteOp::Put { key, value }) if value.is_empty() => {
                vec![WriteOp::Delete { key }]
            }
            (Flaw::ThousandthPutIsLost, WriteOp::Put { key, value }) => {
                let mut state = lock(&self.state);
                state.writes += 1;
                if state.writes.is_multiple_of(1_000) {
                    Vec::new()
                } else {
                    vec![WriteOp::Put { key, value }]
                }
            }
            (Flaw::CutsValues, WriteOp::Put { key, mut value }) => {
                value.truncate(64 * 1024);
                vec![WriteOp::Put { key, value }]
            }
            (Flaw::CutsKeys, WriteOp::Put { mut key, value }) => {
                key.truncate(255);
                vec![WriteOp::Put { key, value }]
            }
            (Flaw::DeleteTakesNeighbour, WriteOp::Delete { key }) => {
                let found = self.disk.edit(|entries| entries.range(key..).next().map(|(key, _)| key.clone()));
                found.map(|key| WriteOp::Delete { key }).into_iter().collect()
            }
            (Flaw::DeleteLeavesEmpty, WriteOp::Delete { key }) => {
                vec![WriteOp::Put { key, value: Value::new() }]
            }
            (_, op) => vec![op],
        }
    }
}
