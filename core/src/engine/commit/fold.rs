//! Folding: the values beside records are merged into them once this version of the app can do so, many records in one
//! write.
//!
//! A value that an earlier version could not merge lies beside its record. Merging it later makes the record what it
//! would be had the app known its model from the start, since merging depends on no order.

use crate::storage::{Key, Value, WriteBatch};
use crate::stored::FormatError;
use crate::stored::keys::{self, RecordKey};
use crate::stored::record::{self, Header, Merged};

use super::Pen;
use super::draft::Draft;
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
    /// Whether no other value lies beside the record.
    pub(in crate::engine) all: bool,
}

/// The result of folding.
#[derive(Debug)]
pub(in crate::engine) struct Folded {
    /// The rows to write; none if nothing could be merged.
    pub(in crate::engine) batch: WriteBatch,
    /// The records that something was merged into.
    pub(in crate::engine) records: Vec<RecordKey>,
}

impl Pen {
    /// Merges into records the values that lie beside them, as far as this version of the app can. `stored` are the
    /// records, in the order of `besides`.
    ///
    /// A record that is missing or damaged is left as it is: the audit names it, and no commit rests on it.
    pub(in crate::engine) fn fold(&mut self, besides: Vec<Besides>, stored: Vec<Option<Value>>) -> Folded {
        let mut draft = Draft::new(self.clock.high_water());
        let (mut folded, mut records) = (Vec::new(), Vec::new());
        for (Besides { record, values, all }, stored) in besides.into_iter().zip(stored) {
            let Some(stored) = stored else { continue };
            let before = folded.len();
            if self.fold_one(&mut draft, &record, stored, values, all, &mut folded).is_ok()
                && folded.len() > before
            {
                records.push(record);
            }
        }
        let mut batch = draft.into_batch();
        folded.into_iter().for_each(|beside| batch.delete(beside));
        Folded { batch, records }
    }

    /// Merges into one record the values beside it, and adds the keys of the merged values to `folded`.
    fn fold_one(
        &mut self,
        draft: &mut Draft,
        key: &RecordKey,
        stored: Value,
        besides: Vec<(Key, Value)>,
        all: bool,
        folded: &mut Vec<Key>,
    ) -> Result<(), FormatError> {
        let mut stored = Some((record::parse(&stored)?.0, stored));
        let (mut left, before) = (!all, folded.len());
        for (beside, value) in besides {
            let Ok((header, value)) = record::parse(&value) else {
                left = true;
                continue;
            };
            let new = Arrival { header, value };
            let Some(old) = draft.before(key, stored.as_ref()) else { continue };
            match self.verdict(key, old, &new) {
                Verdict::Beside => {
                    left = true;
                    continue;
                }
                Verdict::Stay => {}
                Verdict::Replace => {
                    let bytes = record::of(&header, value);
                    self.replace(draft, key, header, bytes, stored.take())?;
                    draft.drop_kept(keys::kept(header.stamp.replica(), header.seq, key));
                }
                Verdict::Mix(mixed, bytes, unchanged) => {
                    self.replace(draft, key, mixed, bytes, stored.take())?;
                    if unchanged {
                        draft.drop_kept(keys::kept(header.stamp.replica(), header.seq, key));
                    }
                }
            }
            folded.push(beside);
        }
        if folded.len() == before {
            return Ok(());
        }
        if let Some(old) = draft.before(key, stored.as_ref()) {
            let (header, mut bytes) = (*old.header, old.bytes.to_vec());
            let merge = header.merge.map(|merge| Merged { beside: left, ..merge });
            let header = Header { merge, ..header };
            header.write(&mut bytes);
            self.replace(draft, key, header, bytes, None)?;
        }
        Ok(())
    }
}
