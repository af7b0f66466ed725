//! How keys and values lie in sled's tree: the keys in their order, and large values cut into pieces.
//!
//! sled gives a page that outgrows a quarter of its segment a file of its own, which it never syncs and whose loss
//! it takes for a row that was never written, so that half of a batch could come back. No page of this store grows
//! that large: sled splits pages by the number of their rows, so rows that are small enough keep every page small.
//!
//! A row is a key behind [`HEAD`], so that the empty key is none to sled, and its value before [`WHOLE`]; or, for a
//! value above [`PIECE_BYTES`], its length before [`IN_PIECES`]. The pieces lie behind [`PIECE`], under the
//! key and their number.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::sled::{Batch, Db, IVec};
use syncline::{Entry, Key, KeyRange, Value, WriteBatch, WriteOp};

use crate::bounds::bounds;
use crate::shared::closing::Closing;
use crate::shared::errors::NotRead;
use crate::shared::sizes::SizeLimits;

/// The rows of an open database.
#[derive(Debug)]
pub(super) struct Rows {
    database: Database,
    /// The keys whose values lie in pieces, and in how many, so that a write need not look for old ones.
    in_pieces: Mutex<HashMap<Key, u64>>,
}

/// sled's own `Debug` prints every row.
struct Database(Db);

/// What reading or writing rows may end with.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error(transparent)]
    Sled(#[from] ::sled::Error),
    #[error("a row is not one that this store wrote")]
    Damaged,
}

/// Fixed for every store: it is part of sled's format.
///
/// A page spills into a file of its own above a quarter of this, 2 MiB. A leaf has at most 17 rows before it is split,
/// and a few more while it takes in a neighbour; an index has at most 257 keys, and 63 of a neighbour.
pub(super) const SEGMENT_BYTES: usize = 8 << 20;
/// The largest key.
const KEY_BYTES_MAX: usize = 4 << 10;
/// The largest value. Nothing breaks above; a store of rows is no place for it.
const VALUE_BYTES_MAX: usize = 1 << 30;
/// The largest sizes that this store keeps.
pub(super) const SIZES: SizeLimits = SizeLimits {
    key_bytes_max: KEY_BYTES_MAX as u64,
    value_bytes_max: VALUE_BYTES_MAX as u64,
    pair_bytes_max: (KEY_BYTES_MAX + VALUE_BYTES_MAX) as u64,
};

/// The largest value that lies in one row, and the length of every piece but the last.
const PIECE_BYTES: usize = 16 << 10;

/// How many times longer to wait after a search for a gap that was of no use.
const GAP_PATIENCE_GROWTH: u64 = 8;

/// The first byte of a row's key.
const HEAD: u8 = 0;
const PIECE: u8 = 1;
/// The key of the row that every store begins with.
const FORMAT: [u8; 1] = [2];
/// Raised with every change that an older version could not read.
const VERSION: &[u8] = &[1];

/// What surrounds the key of a piece.
const LENGTH_BYTES: usize = size_of::<u64>();
const NUMBER_BYTES: usize = size_of::<u64>();

/// The last byte of a row's value.
const WHOLE: u8 = 0;
const IN_PIECES: u8 = 1;

impl Rows {
    pub(super) fn new(database: Db) -> Result<Self, RowError> {
        let mut in_pieces = HashMap::new();
        let mut from = vec![PIECE];
        while let Some(row) = database.range(from..vec![PIECE + 1]).keys().next() {
            let row = row?;
            let key = key_of_piece(&row)?;
            // Behind the last piece of this value.
            from = piece_key(key, u64::MAX);
            let head = database.get(row_key(key))?.ok_or(RowError::Damaged)?;
            in_pieces.insert(key.to_vec(), pieces(&head)?);
        }
        Ok(Self { database: Database(database), in_pieces: Mutex::new(in_pieces) })
    }

    /// Whether the first row of a store is there.
    pub(super) fn are_ours(&self) -> Result<bool, RowError> {
        Ok(self.database.0.get(FORMAT)?.is_some_and(|version| version == VERSION))
    }

    /// Writes the first row of a store. The caller syncs it.
    ///
    /// Refuses a database in which there are other rows: this store would not know what they are.
    pub(super) fn begin(&self) -> Result<(), RowError> {
        if !self.database.0.is_empty() && !self.are_ours()? {
            return Err(RowError::Damaged);
        }
        self.database.0.insert(FORMAT, VERSION)?;
        self.flush()
    }

    pub(super) fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, RowError> {
        let mut gap: Option<KeyRange> = None;
        // Where one new record belongs, all of them do if their ids are time-ordered: then the first search for a gap
        // is the last one of all. If they are not, a search costs as much as a few lookups, so each one that was of no
        // use makes the next one later.
        let (mut misses, mut patience) = (0, 1);
        let mut values = vec![None; keys.len()];
        // In their order, neighbours are found where the last one was, while that is still in the processor's caches.
        let mut in_order: Vec<_> = keys.iter().zip(&mut values).collect();
        in_order.sort_unstable_by_key(|(key, _)| *key);
        for (key, value) in in_order {
            if gap.as_ref().is_some_and(|gap| gap.contains(key)) {
                continue;
            }
            *value = self.get(key)?;
            if value.is_none() && keys.len() > 1 {
                misses += 1;
                if misses >= patience {
                    gap = Some(self.gap(key)?);
                    (misses, patience) = (0, patience * GAP_PATIENCE_GROWTH);
                }
            }
        }
        Ok(values)
    }

    /// The range from `key`, which is not there, up to the first key that is.
    fn gap(&self, key: &[u8]) -> Result<KeyRange, RowError> {
        let range = KeyRange { start: key.to_vec(), end: None };
        let next = self.database.0.range(row_keys(&range)).keys().next().transpose()?;
        let end = next.map(|row| key_of(&row).map(<[u8]>::to_vec)).transpose()?;
        Ok(KeyRange { end, ..range })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>, RowError> {
        let row = self.database.0.get(row_key(key))?;
        row.map(|row| self.value(key, &row)).transpose()
    }

    /// The first `limit` entries of `range`.
    pub(super) fn scan(
        &self,
        range: &KeyRange,
        limit: usize,
        closing: &Closing,
    ) -> Result<Vec<Entry>, NotRead> {
        let mut entries = Vec::new();
        if range.is_empty() {
            return Ok(entries);
        }
        for row in self.database.0.range(row_keys(range)).take(limit) {
            if closing.has_begun() {
                return Err(NotRead::Closing);
            }
            let (key, row) = row.map_err(RowError::from)?;
            let key = key_of(&key)?;
            entries.push(Entry { value: self.value(key, &row)?, key: key.to_vec() });
        }
        Ok(entries)
    }

    /// The rows that `batch` changes. Only the one writer may call it, and what it staged must then be applied.
    pub(super) fn stage(&self, batch: WriteBatch) -> Result<Batch, RowError> {
        // If it was poisoned, the store has refused everything since.
        let in_pieces = self.in_pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut staging = Staging { rows: Batch::default(), row: Vec::new(), in_pieces };
        // sled does not tell what a batch already holds, and only a deletion of a range asks for that.
        let has_ranges = batch.ops().iter().any(|op| matches!(op, WriteOp::DeleteRange { .. }));
        let mut earlier: BTreeSet<Key> = BTreeSet::new();
        for op in batch {
            match op {
                WriteOp::Put { key, value } => {
                    if has_ranges {
                        earlier.insert(key.clone());
                    }
                    staging.put(key, &value);
                }
                WriteOp::Delete { key } => staging.delete(&key),
                WriteOp::DeleteRange { range } if range.is_empty() => {}
                WriteOp::DeleteRange { range } => {
                    earlier.range::<[u8], _>(bounds(&range)).for_each(|key| staging.delete(key));
                    // sled has no deletion of a range, and one batch must hold all of it.
                    for row in self.database.0.range(row_keys(&range)).keys() {
                        staging.delete(key_of(&row?)?);
                    }
                }
            }
        }
        Ok(staging.rows)
    }

    /// Applies what was staged, and returns once the system has all of it. The caller syncs the file.
    pub(super) fn apply(&self, rows: Batch) -> Result<(), RowError> {
        self.database.0.apply_batch(rows)?;
        self.flush()
    }

    fn flush(&self) -> Result<(), RowError> {
        self.database.0.flush()?;
        Ok(())
    }

    /// The value that `row` of `key` stands for.
    fn value(&self, key: &[u8], row: &IVec) -> Result<Value, RowError> {
        let (tag, value) = row.split_last().ok_or(RowError::Damaged)?;
        if *tag == WHOLE {
            return Ok(value.to_vec());
        }
        let mut value = Vec::new();
        for number in 0..pieces(row)? {
            let piece = self.database.0.get(piece_key(key, number))?;
            value.extend_from_slice(&piece.ok_or(RowError::Damaged)?);
        }
        if length_in_pieces(row)? == Some(value.len() as u64) { Ok(value) } else { Err(RowError::Damaged) }
    }
}

/// A batch that is put together. Of several changes of one row, sled keeps the last.
struct Staging<'a> {
    rows: Batch,
    /// Where a row is put together: sled copies it.
    row: Vec<u8>,
    in_pieces: MutexGuard<'a, HashMap<Key, u64>>,
}

impl Staging<'_> {
    fn put(&mut self, key: Key, value: &[u8]) {
        let pieces = pieces_needed(value);
        self.delete_pieces(&key, pieces);
        if pieces == 0 {
            let head = row_of(&[&[HEAD], &key], &mut self.row);
            let value = row_of(&[value, &[WHOLE]], &mut self.row);
            self.rows.insert(head, value);
            return;
        }
        let head = row_key(&key);
        let mut row = (value.len() as u64).to_be_bytes().to_vec();
        row.push(IN_PIECES);
        self.rows.insert(head, row);
        for (number, piece) in (0..).zip(value.chunks(PIECE_BYTES)) {
            self.rows.insert(piece_key(&key, number), piece);
        }
        self.in_pieces.insert(key, pieces);
    }

    fn delete(&mut self, key: &[u8]) {
        self.rows.remove(row_key(key));
        self.delete_pieces(key, 0);
    }

    /// Deletes the pieces that `key` has from number `from` on.
    fn delete_pieces(&mut self, key: &[u8], from: u64) {
        let pieces = self.in_pieces.remove(key).unwrap_or(0);
        for number in from..pieces {
            self.rows.remove(piece_key(key, number));
        }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Db")
    }
}

/// A row's key or value, put together from `parts` in `row`.
fn row_of(parts: &[&[u8]], row: &mut Vec<u8>) -> IVec {
    row.clear();
    parts.iter().for_each(|part| row.extend_from_slice(part));
    IVec::from(row.as_slice())
}

fn row_key(key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + key.len());
    row.push(HEAD);
    row.extend_from_slice(key);
    row
}

fn key_of(row: &[u8]) -> Result<&[u8], RowError> {
    row.strip_prefix(&[HEAD]).ok_or(RowError::Damaged)
}

fn row_keys(range: &KeyRange) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let end = range.end.as_deref().map_or_else(|| vec![HEAD + 1], row_key);
    (Bound::Included(row_key(&range.start)), Bound::Excluded(end))
}

/// Begins with the length of the key: otherwise the pieces of a key that another one begins with would lie among that
/// one's, and finding every key would mean reading every piece.
fn piece_key(key: &[u8], number: u64) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + LENGTH_BYTES + key.len() + NUMBER_BYTES);
    row.push(PIECE);
    row.extend_from_slice(&(key.len() as u64).to_be_bytes());
    row.extend_from_slice(key);
    row.extend_from_slice(&number.to_be_bytes());
    row
}

fn key_of_piece(row: &[u8]) -> Result<&[u8], RowError> {
    let key = row.get(1 + LENGTH_BYTES..).and_then(|rest| rest.split_last_chunk::<NUMBER_BYTES>());
    key.map(|(key, _number)| key).ok_or(RowError::Damaged)
}

const fn piece_count(value_bytes: u64) -> u64 {
    value_bytes.div_ceil(PIECE_BYTES as u64)
}

/// How many pieces `value` is cut into; none if it lies in its row.
const fn pieces_needed(value: &[u8]) -> u64 {
    if value.len() <= PIECE_BYTES { 0 } else { piece_count(value.len() as u64) }
}

/// How many pieces the value of `row` lies in.
fn pieces(row: &[u8]) -> Result<u64, RowError> {
    Ok(length_in_pieces(row)?.map_or(0, piece_count))
}

/// The length of a value that lies in pieces.
fn length_in_pieces(row: &[u8]) -> Result<Option<u64>, RowError> {
    match row.split_last() {
        Some((&WHOLE, _)) => Ok(None),
        Some((&IN_PIECES, length)) => {
            Ok(Some(u64::from_be_bytes(length.try_into().map_err(|_| RowError::Damaged)?)))
        }
        _ => Err(RowError::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_refused_above_what_the_store_promises() {
        let fits = |key_bytes, value_bytes| SIZES.check_pair(key_bytes as u64, value_bytes as u64).is_ok();
        assert!(fits(KEY_BYTES_MAX, VALUE_BYTES_MAX));
        assert!(!fits(KEY_BYTES_MAX + 1, 0) && !fits(0, VALUE_BYTES_MAX + 1));
    }
}
