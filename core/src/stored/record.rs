//! A record as stored: a header, then the value.
//!
//! The length of the header is known before its fields are, so a value is encoded once, behind room for the header,
//! and is never copied to make that room.

use std::io::Write;

use super::{FORMAT, FormatError, Reader, Reference};
use crate::hlc::Hlc;
use crate::ids::ReplicaId;
use crate::storage::Value;

/// The bytes of the header: format, flags, schema, time of the stamp, replica and sequence number of the dot.
pub(crate) const HEADER_LEN: usize = 1 + 1 + 2 + 8 + 16 + 8;

const WHAT: &str = "a record";
/// Flag: the record is deleted.
const TOMBSTONE: u8 = 1;
/// Flag: the model brings its own merge, and the epoch follows the header.
const MERGE: u8 = 2;
/// Flag: the value was merged of several, so it is not the one that the dot put.
const MIXED: u8 = 4;
/// Flag: values that could not be merged yet lie beside the record.
const BESIDE: u8 = 8;

/// The header of a record: all that is stored in front of its value.
///
/// The stamp is that of the commit that wrote the record, and the dot names that commit. Both have the same replica,
/// so it is stored once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) tombstone: bool,
    /// The schema of the value; 0 for a tombstone.
    pub(crate) schema: u16,
    pub(crate) stamp: Hlc,
    pub(crate) seq: u64,
    /// The fields that only a record of a model with its own merge has.
    pub(crate) merge: Option<Merged>,
}

/// The fields of the header that only a record of a model with its own merge has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// The stamp of the delete after which the record was put again; values of different epochs are never merged.
    pub(crate) epoch: Hlc,
    /// Whether the value was merged of several, so that it is not the one that the dot put.
    pub(crate) mixed: bool,
    /// Whether values that could not be merged yet lie beside the record.
    pub(crate) beside: bool,
}

impl Merged {
    /// The fields of a record of `epoch` that holds the value of its dot.
    pub(crate) const fn plain(epoch: Hlc) -> Self {
        Self { epoch, mixed: false, beside: false }
    }
}

impl Header {
    /// Fills in the header of `record`, which begins with room for it.
    pub(crate) fn write(&self, record: &mut [u8]) {
        let (time, replica, seq) = (self.stamp.time_bytes(), self.stamp.replica(), self.seq.to_be_bytes());
        let mut flags = if self.tombstone { TOMBSTONE } else { 0 };
        let mut epoch = Vec::new();
        if let Some(merge) = self.merge {
            flags |= MERGE | if merge.mixed { MIXED } else { 0 } | if merge.beside { BESIDE } else { 0 };
            epoch.extend_from_slice(&merge.epoch.to_bytes());
        }
        let schema = self.schema.to_be_bytes();
        let fields = [&[FORMAT, flags][..], &schema, &time, replica.as_bytes(), &seq, &epoch];
        let mut room = record;
        for field in fields {
            // Writing cannot fail: every record begins with room for the whole header.
            let _ = room.write_all(field);
        }
    }

    /// The header of a record that has nothing but one change, of the commit `seq`.
    pub(crate) fn of(change: &Reference, stamp: Hlc, seq: u64) -> Self {
        let Reference { value, epoch, .. } = change;
        let (tombstone, schema) = (value.is_none(), value.map_or(0, |value| value.schema));
        Self { tombstone, schema, stamp, seq, merge: epoch.map(Merged::plain) }
    }

    /// Whether a record that knows of the change of which `change` is the header can have this header: it is that one, or
    /// the record is of a later change. A put that its record does not hold is kept, so it has no record.
    pub(crate) fn fits(&self, change: &Self) -> bool {
        if (self.stamp.replica(), self.seq) != (change.stamp.replica(), change.seq) {
            return change.tombstone && self.rank() > change.rank();
        }
        if self.merge.is_some_and(|merge| merge.mixed) {
            return change.tombstone && self.rank() == change.rank();
        }
        let merge = self.merge.map(|merge| Merged { beside: false, ..merge });
        Self { merge, ..*self } == *change
    }

    /// Whether the record holds the value that the commit `seq` of `replica` put.
    pub(crate) fn holds(&self, replica: ReplicaId, seq: u64) -> bool {
        self.seq == seq && self.stamp.replica() == replica && !self.merge.is_some_and(|merge| merge.mixed)
    }

    /// The rank of a record: its epoch, if the model brings its own merge, then its stamp. Of two states of a record
    /// the one with the higher rank wins.
    pub(crate) fn rank(&self) -> (Option<Hlc>, Hlc) {
        (self.merge.map(|merge| merge.epoch), self.stamp)
    }
}

/// Makes room for the header of a record; the value is encoded behind it.
pub(crate) fn with_room(merge: bool, value_bytes: usize) -> Value {
    let len = HEADER_LEN + if merge { Hlc::LEN } else { 0 };
    let mut record = Value::with_capacity(len + value_bytes);
    record.extend_from_slice(&[FORMAT, if merge { MERGE } else { 0 }]);
    record.resize(len, 0);
    record
}

/// Makes a record of `header` with `value`.
pub(crate) fn of(header: &Header, value: &[u8]) -> Value {
    let mut record = with_room(header.merge.is_some(), value.len());
    record.extend_from_slice(value);
    header.write(&mut record);
    record
}

/// A record that was deleted, for those who look at the record alone.
pub(crate) fn gone() -> Value {
    of(&Header { tombstone: true, schema: 0, stamp: Hlc::NEVER, seq: 1, merge: None }, &[])
}

/// The place of the value in a record that begins with a header, or with room for one.
pub(crate) fn value_at(record: &[u8]) -> usize {
    let merge = record.get(1).is_some_and(|flags| flags & MERGE != 0);
    HEADER_LEN + if merge { Hlc::LEN } else { 0 }
}

/// The value in a record that begins with a header, or with room for one.
pub(crate) fn value_of(record: &[u8]) -> &[u8] {
    record.get(value_at(record)..).unwrap_or_default()
}

/// Reads a stored record. Inline: readers of values use few of the fields.
#[inline]
pub(crate) fn parse(record: &[u8]) -> Result<(Header, &[u8]), FormatError> {
    let mut reader = Reader::new(WHAT, record)?;
    let flags = reader.byte()?;
    let tombstone = flags & TOMBSTONE != 0;
    if flags & !(TOMBSTONE | MERGE | MIXED | BESIDE) != 0 {
        return Err(reader.damaged());
    }
    let schema = reader.u16()?;
    let time = reader.array()?;
    let replica = ReplicaId::from_bytes(reader.array()?);
    let seq = reader.u64()?;
    let mut merge = None;
    if flags & MERGE != 0 {
        let bytes: [u8; Hlc::LEN] = reader.array()?;
        let epoch = Hlc::from_bytes(&bytes).map_err(|_| reader.damaged())?;
        merge = Some(Merged { epoch, mixed: flags & MIXED != 0, beside: flags & BESIDE != 0 });
    } else if flags & (MIXED | BESIDE) != 0 {
        return Err(reader.damaged());
    }
    let empty = schema == 0 && reader.remaining() == 0 && flags & (MIXED | BESIDE) == 0;
    if tombstone && !empty || seq == 0 {
        return Err(reader.damaged());
    }
    let header = Header { tombstone, schema, stamp: Hlc::from_time_bytes(time, replica), seq, merge };
    Ok((header, reader.rest()))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::clock::WallMs;

    fn header(tombstone: bool) -> Header {
        let replica = ReplicaId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
        let stamp = Hlc::new(WallMs::new(0x1122_3344_5566).unwrap(), 0x7788, replica);
        Header { tombstone, schema: if tombstone { 0 } else { 0x0203 }, stamp, seq: 9, merge: None }
    }

    #[test]
    fn golden_bytes() {
        let mut record = with_room(false, 2);
        record.extend_from_slice(b"hi");
        header(false).write(&mut record);
        let mut golden = vec![1, 0, 2, 3, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
        golden.extend(1..=16);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 9]);
        golden.extend(b"hi");
        assert_eq!(record, golden);
        assert_eq!(parse(&record).unwrap(), (header(false), b"hi".as_slice()));
    }

    #[test]
    fn golden_bytes_of_a_model_with_its_own_merge() {
        let epoch = Hlc::new(WallMs::new(7).unwrap(), 8, ReplicaId(Uuid::from_u128(9)));
        let merge = Some(Merged { epoch, mixed: true, beside: true });
        let header = Header { merge, ..header(false) };
        let record = of(&header, b"hi");
        let mut golden = vec![1, 0x0e, 2, 3, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
        golden.extend(1..=16);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 7, 0, 8]);
        golden.extend(9u128.to_be_bytes());
        golden.extend(b"hi");
        assert_eq!(record, golden);
        assert_eq!(parse(&record).unwrap(), (header, b"hi".as_slice()));
        assert_eq!(value_of(&record), b"hi");
        let (holding, other) = (header.stamp.replica(), ReplicaId(Uuid::nil()));
        assert!(!header.holds(holding, 9), "a mixed value is not the one of the dot");
        let plain = Header { merge: Some(Merged::plain(epoch)), ..header };
        assert!(plain.holds(holding, 9) && !plain.holds(holding, 8) && !plain.holds(other, 9));
    }

    #[test]
    fn damage_is_an_error() {
        let mut record = with_room(false, 0);
        header(true).write(&mut record);
        assert_eq!(parse(&record).unwrap(), (header(true), b"".as_slice()));
        for len in 0..HEADER_LEN {
            assert_eq!(parse(&record[..len]), Err(FormatError::Damaged { what: WHAT }), "{len}");
        }
        let with = |at: usize, byte: u8| {
            let mut record = record.clone();
            record[at] = byte;
            parse(&record).map(|_| ())
        };
        assert_eq!(with(0, 2), Err(FormatError::Version { what: WHAT, found: 2, known: 1 }));
        assert_eq!(with(1, 17), Err(FormatError::Damaged { what: WHAT }), "an unknown flag");
        assert_eq!(with(1, 3), Err(FormatError::Damaged { what: WHAT }), "an epoch is missing");
        assert_eq!(with(1, 5), Err(FormatError::Damaged { what: WHAT }), "mixed without a merge");
        assert_eq!(with(3, 1), Err(FormatError::Damaged { what: WHAT }), "a tombstone with a schema");
        assert_eq!(with(35, 0), Err(FormatError::Damaged { what: WHAT }), "a dot before the first commit");
        record.push(0);
        assert_eq!(parse(&record), Err(FormatError::Damaged { what: WHAT }), "a tombstone with a value");
    }
}
