//! The chain of a log, followed row by row: a row is sound if the row behind it, or the head, names its digest.
//!
//! Owns: the place of the next row, and the last row that nothing vouches for yet. Holds always: that row stands directly
//! before the next one.

use crate::ids::ReplicaId;
use crate::stored::keys::StoredKey;
use crate::stored::{Digest, Point, log};

/// Follows the chain of a log from a place on.
#[derive(Debug)]
pub(super) struct ChainReader {
    stream: ReplicaId,
    head: Point,
    next: u64,
    /// The last row that was read, with its digest, unless something vouches for it.
    open: Option<(u64, Digest)>,
    /// Whether a row must be vouched for.
    checked: bool,
}

/// A row that follows the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChainRow<'a> {
    pub(super) seq: u64,
    pub(super) previous: Digest,
    pub(super) entry: &'a [u8],
    /// The digest of the stream at the row.
    pub(super) digest: Digest,
    /// Whether the head names this digest; `None` if the row is not the last one.
    pub(super) by_head: Option<bool>,
}

impl ChainReader {
    /// Follows the log of `stream`, which ends at `head`, from the row `first` on.
    pub(super) const fn new(stream: ReplicaId, head: Point, first: u64, checked: bool) -> Self {
        Self { stream, head, next: first, open: None, checked }
    }

    pub(super) const fn head(&self) -> Point {
        self.head
    }

    /// The place of the next row.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Takes the next row, which vouches for the one before it.
    ///
    /// # Errors
    /// The row is missing, or does not vouch for the one before it: the damaged place.
    pub(super) fn take<'a>(&mut self, key: &[u8], row: &'a [u8]) -> Result<ChainRow<'a>, u64> {
        let seq = self.next;
        if StoredKey::parse(key) != Some(StoredKey::Log(self.stream, seq)) {
            return Err(self.damaged());
        }
        let Ok((previous, entry)) = log::split_row(row) else { return Err(self.damaged()) };
        if let Some((before, digest)) = self.open
            && self.checked
            && digest != previous
        {
            return Err(before);
        }
        let digest = log::chain(&previous, entry);
        let is_last = seq >= self.head.seq;
        self.open = (!is_last).then_some((seq, digest));
        self.next += 1;
        let by_head = is_last.then_some(!self.checked || digest == self.head.digest);
        Ok(ChainRow { seq, previous, entry, digest, by_head })
    }

    /// The place at which the log ends if the next row is missing: nothing vouches for the row before it then.
    pub(super) fn damaged(&self) -> u64 {
        self.open.map_or(self.next, |(seq, _)| seq)
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{Author, B};
    use super::*;
    use crate::stored::keys;

    #[test]
    fn each_row_vouches_for_the_one_before_it_and_the_head_for_the_last() {
        let mut b = Author::new(B);
        let made: Vec<_> = (0..3).map(|_| b.note(1, "a")).collect();
        let head = b.head.point();
        let rows: Vec<_> = made.iter().map(|made| (keys::log(B, made.seq), made.row.clone())).collect();
        let mut reader = ChainReader::new(B, head, 1, true);
        for (seq, (key, row)) in (1..).zip(&rows) {
            let taken = reader.take(key, row).expect("it follows");
            assert_eq!((taken.seq, taken.by_head), (seq, (seq == 3).then_some(true)));
            assert_eq!(
                (log::row(&taken.previous, taken.entry), reader.open.is_some()),
                (row.clone(), seq < 3)
            );
        }
        // The row behind the changed one, or the head, does not vouch for it.
        let cases = [(1, true, Err(2)), (1, false, Ok(Some(true))), (2, true, Ok(Some(false)))];
        for (changed, checked, last) in cases {
            let mut rows = rows.clone();
            rows[changed].1[40] ^= 1;
            let mut reader = ChainReader::new(B, head, 1, checked);
            let taken = rows.iter().map(|(key, row)| reader.take(key, row).map(|row| row.by_head)).last();
            assert_eq!(taken, Some(last), "row {changed}, checked: {checked}");
        }
        let mut reader = ChainReader::new(B, head, 1, true);
        assert_eq!(reader.take(&rows[1].0, &rows[1].1), Err(1), "the first is missing");
        reader.take(&rows[0].0, &rows[0].1).expect("it is there");
        assert_eq!(reader.take(&rows[2].0, &rows[2].1), Err(1), "nothing vouches for the first");
    }
}
