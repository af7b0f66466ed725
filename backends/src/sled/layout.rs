//! Where keys and values lie in sled: in one tree, the keys in their order, large values cut into pieces.
//!
//! sled writes a page that is larger than a quarter of a segment to a file of its own. It never syncs that file, and
//! takes its loss for a row that was never written, so that after a crash half of a batch could be there. No page of
//! this store grows that large: sled splits pages by the number of their rows, so that small rows keep every page
//! small.
//!
//! The key of a row is [`HEAD`] and the key, so that it is never empty. The value of a row is the value and
//! [`WHOLE`]; for a value above [`PIECE_BYTES`] it is the length of the value and [`IN_PIECES`]. The key of a piece is
//! [`PIECE`], the key with its length, and the number of the piece.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::sled::{Batch, Db, IVec};
use syncline::{Key, KeyRange, Value, WriteBatch, WriteOp};

use crate::bounds::bounds;
use crate::shared::closing::Closing;
use crate::shared::errors::NotRead;
use crate::shared::show::Show;
use crate::shared::sizes::SizeLimits;

/// The rows of an open database.
#[derive(Debug)]
pub(super) struct Rows {
    database: Database,
    /// The keys whose values lie in pieces, and the numbers of pieces, so that a write need not look for old pieces.
    in_pieces: Mutex<HashMap<Key, u64>>,
}

/// Hides sled's own `Debug`, which prints every row.
struct Database(Db);

/// Why rows were not read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error(transparent)]
    Sled(#[from] ::sled::Error),
    #[error("a row is not one that this store wrote")]
    Damaged,
}

/// The length of a segment of sled's log. It is part of sled's format, and so the same for every store.
///
/// A page above a quarter of this, 2 MiB, would get a file of its own. A leaf has at most 17 rows before it is split,
/// and a few more while it is merged with a neighbour; an index page has at most 257 keys, and 63 of a neighbour.
pub(super) const SEGMENT_BYTES: usize = 8 << 20;
/// The length of the largest key. A page of keys of this length stays below 2 MiB.
const KEY_BYTES_MAX: usize = 4 << 10;
/// The length of the largest value. Larger ones would work, but do not belong in a store of records.
const VALUE_BYTES_MAX: usize = 1 << 30;
/// The sizes up to which this store keeps keys and values.
pub(super) const SIZES: SizeLimits = SizeLimits {
    key_bytes_max: KEY_BYTES_MAX as u64,
    value_bytes_max: VALUE_BYTES_MAX as u64,
    pair_bytes_max: (KEY_BYTES_MAX + VALUE_BYTES_MAX) as u64,
};

/// The length of the largest value that lies in one row, and of every piece but the last.
const PIECE_BYTES: usize = 16 << 10;

/// How many times more misses it takes to search for a gap again, after a search that was of no use.
const GAP_PATIENCE_GROWTH: u64 = 8;

/// The first byte of the key of a row that holds an entry.
const HEAD: u8 = 0;
/// The first byte of the key of a piece.
const PIECE: u8 = 1;
/// The key of the row that every store begins with.
const FORMAT: [u8; 1] = [2];
/// The value of that row. Rises with every change of this layout that an older version could not read.
const VERSION: &[u8] = &[1];

/// The length of the key's length, which stands before the key in the key of a piece.
const LENGTH_BYTES: usize = size_of::<u64>();
/// The length of the piece's number, which stands after it.
const NUMBER_BYTES: usize = size_of::<u64>();

/// The last byte of a row that holds its whole value.
const WHOLE: u8 = 0;
/// The last byte of a row that holds the length of a value in pieces.
const IN_PIECES: u8 = 1;

impl Rows {
    pub(super) fn new(database: Db) -> Result<Self, RowError> {
        let mut in_pieces = HashMap::new();
        let mut from = vec![PIECE];
        while let Some(row) = database.range(from..vec![PIECE + 1]).keys().next() {
            let row = row?;
            let key = key_of_piece(&row)?;
            // Goes on after the last piece of this value.
            from = piece_key(key, u64::MAX);
            let head = database.get(row_key(key))?.ok_or(RowError::Damaged)?;
            in_pieces.insert(key.to_vec(), pieces(&head)?);
        }
        Ok(Self { database: Database(database), in_pieces: Mutex::new(in_pieces) })
    }

    /// Whether the database has the row that every store begins with.
    pub(super) fn are_ours(&self) -> Result<bool, RowError> {
        Ok(self.database.0.get(FORMAT)?.is_some_and(|version| version == VERSION))
    }

    /// Writes the row that every store begins with. The caller syncs it.
    ///
    /// Refuses a database with other rows: another program wrote them.
    pub(super) fn begin(&self) -> Result<(), RowError> {
        if !self.database.0.is_empty() && !self.are_ours()? {
            return Err(RowError::Damaged);
        }
        self.database.0.insert(FORMAT, VERSION)?;
        self.flush()
    }

    pub(super) fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, RowError> {
        let mut gap: Option<KeyRange> = None;
        // New records with time-ordered ids lie in the same gap between the keys: then one search for a gap answers for
        // all of them. For other ids a search costs as much as a few lookups and is of no use, so each search makes the
        // next one come later.
        let (mut misses, mut patience) = (0, 1);
        let mut values = vec![None; keys.len()];
        // Looked up in the order of keys, the next key mostly lies in the page of the last one, which is still in the
        // processor's caches.
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

    /// The range from `key`, which the database does not have, up to the next key that it has.
    fn gap(&self, key: &[u8]) -> Result<KeyRange, RowError> {
        let range = KeyRange { start: key.to_vec(), end: None };
        let next = self.database.0.range(row_keys(&range)).keys().next().transpose()?;
        let end = next.map(|row| key_of(&row).map(<[u8]>::to_vec)).transpose()?;
        Ok(KeyRange { end, ..range })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>, RowError> {
        let row = self.database.0.get(row_key(key))?;
        row.map(|row| Ok(self.value(key, &row)?.into_owned())).transpose()
    }

    /// Shows the entries of `range`; returns whether there may be more than were shown.
    pub(super) fn visit(
        &self,
        range: &KeyRange,
        show: &mut Show<'_>,
        closing: &Closing,
    ) -> Result<bool, NotRead> {
        if range.is_empty() {
            return Ok(false);
        }
        for row in self.database.0.range(row_keys(range)) {
            if closing.has_begun() {
                return Err(NotRead::Closing);
            }
            let (key, row) = row.map_err(RowError::from)?;
            let key = key_of(&key)?;
            if show.entry(key, &self.value(key, &row)?).is_break() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the rows that `batch` changes. Only the writing thread calls this, and must then apply the rows:
    /// `in_pieces` already counts them.
    pub(super) fn stage(&self, batch: WriteBatch) -> Result<Batch, RowError> {
        // Poison is ignored: the panic was inside a write, which ended the store.
        let in_pieces = self.in_pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut staging = Staging { rows: Batch::default(), row: Vec::new(), in_pieces };
        // A deletion of a range also deletes the keys that the batch has put before. sled does not tell which those
        // are.
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
                    // sled has no deletion of a range. All its rows must be in this batch, so that the write is atomic.
                    for row in self.database.0.range(row_keys(&range)).keys() {
                        staging.delete(key_of(&row?)?);
                    }
                }
            }
        }
        Ok(staging.rows)
    }

    /// Applies staged rows, and returns once the system has all of them. The caller syncs the file.
    pub(super) fn apply(&self, rows: Batch) -> Result<(), RowError> {
        self.database.0.apply_batch(rows)?;
        self.flush()
    }

    fn flush(&self) -> Result<(), RowError> {
        self.database.0.flush()?;
        Ok(())
    }

    /// The value of `key`, whose row is `row`.
    fn value<'r>(&self, key: &[u8], row: &'r IVec) -> Result<Cow<'r, [u8]>, RowError> {
        let (tag, value) = row.split_last().ok_or(RowError::Damaged)?;
        if *tag == WHOLE {
            return Ok(value.into());
        }
        let mut value = Vec::new();
        for number in 0..pieces(row)? {
            let piece = self.database.0.get(piece_key(key, number))?;
            value.extend_from_slice(&piece.ok_or(RowError::Damaged)?);
        }
        if length_in_pieces(row)? == Some(value.len() as u64) {
            Ok(value.into())
        } else {
            Err(RowError::Damaged)
        }
    }
}

/// The rows of a batch. If a row is changed several times, sled keeps the last change.
struct Staging<'a> {
    rows: Batch,
    /// The buffer in which a key or value is built. sled copies it.
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

    /// Deletes the pieces of `key` from number `from` on.
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

/// Joins `parts` to a key or value, in the buffer `row`.
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

/// The length stands before the key: otherwise the pieces of a key would lie among those of a longer key that begins
/// with it, and opening the store could not skip from one key to the next.
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

/// How many pieces `value` is cut into. Zero if it lies in its row.
const fn pieces_needed(value: &[u8]) -> u64 {
    if value.len() <= PIECE_BYTES { 0 } else { piece_count(value.len() as u64) }
}

/// How many pieces the value of `row` lies in. Zero if it lies in the row.
fn pieces(row: &[u8]) -> Result<u64, RowError> {
    Ok(length_in_pieces(row)?.map_or(0, piece_count))
}

/// The length of the value of `row`, if it lies in pieces.
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
