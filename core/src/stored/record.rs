//! A record as stored: a header of fixed length, then the value.
//!
//! The header has a fixed length so that it can be filled in where it stands: a value is encoded once, behind
//! room for the header, and from there on it only moves.

use std::io::Write;

use super::{FORMAT, FormatError, Reader};
use crate::hlc::Hlc;
use crate::ids::ReplicaId;
use crate::storage::Value;

/// Format, flags, schema, time of the stamp, replica and sequence number of the dot.
pub(crate) const HEADER_LEN: usize = 1 + 1 + 2 + 8 + 16 + 8;

const WHAT: &str = "a record";
const TOMBSTONE: u8 = 1;

/// What a record says beside its value.
///
/// The stamp is that of the commit that wrote the record, and the dot names that commit, so both have the same
/// replica and it is stored once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) tombstone: bool,
    /// The schema of the value; 0 for a tombstone.
    pub(crate) schema: u16,
    pub(crate) stamp: Hlc,
    pub(crate) seq: u64,
}

impl Header {
    /// Fills in the header of `record`, which begins with room for it.
    pub(crate) fn write(&self, record: &mut [u8]) {
        let (time, replica, seq) = (self.stamp.time_bytes(), self.stamp.replica(), self.seq.to_be_bytes());
        let flags = if self.tombstone { TOMBSTONE } else { 0 };
        let schema = self.schema.to_be_bytes();
        let fields = [&[FORMAT, flags][..], &schema, &time, replica.as_bytes(), &seq];
        let mut room = record;
        for field in fields {
            // Every record begins with room for all of it.
            let _ = room.write_all(field);
        }
    }
}

/// Room for a header, before a value that is encoded behind it.
pub(crate) fn with_room(value_bytes: usize) -> Value {
    let mut record = Value::with_capacity(HEADER_LEN + value_bytes);
    record.resize(HEADER_LEN, 0);
    record
}

/// The value in a record that begins with a header, or with room for one.
pub(crate) fn value_of(record: &[u8]) -> &[u8] {
    record.get(HEADER_LEN..).unwrap_or_default()
}

/// Reads a stored record.
pub(crate) fn parse(record: &[u8]) -> Result<(Header, &[u8]), FormatError> {
    let mut reader = Reader::new(WHAT, record)?;
    let tombstone = match reader.byte()? {
        0 => false,
        TOMBSTONE => true,
        _ => return Err(reader.damaged()),
    };
    let schema = reader.u16()?;
    let time = reader.array()?;
    let replica = ReplicaId::from_bytes(reader.array()?);
    let seq = reader.u64()?;
    if tombstone && (schema != 0 || reader.remaining() != 0) || seq == 0 {
        return Err(reader.damaged());
    }
    let header = Header { tombstone, schema, stamp: Hlc::from_time_bytes(time, replica), seq };
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
        Header { tombstone, schema: if tombstone { 0 } else { 0x0203 }, stamp, seq: 9 }
    }

    #[test]
    fn golden_bytes() {
        let mut record = with_room(2);
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
    fn damage_is_an_error() {
        let mut record = with_room(0);
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
        assert_eq!(with(1, 2), Err(FormatError::Damaged { what: WHAT }), "an unknown flag");
        assert_eq!(with(3, 1), Err(FormatError::Damaged { what: WHAT }), "a tombstone with a schema");
        assert_eq!(with(35, 0), Err(FormatError::Damaged { what: WHAT }), "a dot before the first commit");
        record.push(0);
        assert_eq!(parse(&record), Err(FormatError::Damaged { what: WHAT }), "a tombstone with a value");
    }
}
