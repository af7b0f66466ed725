//! A log entry as stored: the commit as its author made it, each change as a reference to its value.

use super::{Digest, FORMAT, FormatError, Reader, keys::RecordKey};
use crate::hlc::Hlc;
use crate::ids::{DeviceId, ReplicaId};
use crate::storage::Value;

const WHAT: &str = "a log entry";
const DELETE: u8 = 1;
const OWNED: u8 = 2;

/// A commit as logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// The author's device, which owns the device-owned records of the commit.
    pub(crate) device: DeviceId,
    pub(crate) stamp: Hlc,
    pub(crate) changes: Vec<Reference>,
}

/// A change as logged: where its value belongs and what it must hash to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) record: RecordKey,
    /// The schema and the digest of the value; `None` for a delete.
    pub(crate) value: Option<(u16, Digest)>,
}

/// The digest of a stream up to and including the commit `entry`: a hash chain, so one digest vouches for all
/// commits before it and, through their digests, for all values.
pub(crate) fn chain(previous: &Digest, entry: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    hasher.update(entry);
    *hasher.finalize().as_bytes()
}

/// The digest of a stream before its first commit.
pub(crate) const CHAIN_START: Digest = [0; 32];

/// Writes a log entry change by change.
pub(crate) struct LogEntryWriter(Value);

impl LogEntryWriter {
    pub(crate) fn new(device: DeviceId, stamp: Hlc, changes: u32) -> Self {
        let mut out = Value::with_capacity(64 * (1 + usize::try_from(changes).unwrap_or(0)));
        out.push(FORMAT);
        out.extend_from_slice(device.as_bytes());
        out.extend_from_slice(&stamp.time_bytes());
        out.extend_from_slice(&changes.to_be_bytes());
        Self(out)
    }

    /// Appends a change. An owned record goes without its owner: that is the author's device.
    pub(crate) fn push(&mut self, record: &RecordKey, value: Option<(u16, &Digest)>) {
        let (model, id) = (record.model().as_bytes(), record.id_bytes());
        let delete = if value.is_none() { DELETE } else { 0 };
        let owned = if record.owner().is_some() { OWNED } else { 0 };
        let out = &mut self.0;
        out.push(delete | owned);
        // Both fit: names and ids are checked against their limits before anything is staged.
        out.push(u8::try_from(model.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(model);
        out.extend_from_slice(&u16::try_from(id.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(id);
        if let Some((schema, digest)) = value {
            out.extend_from_slice(&schema.to_be_bytes());
            out.extend_from_slice(digest);
        }
    }

    pub(crate) fn finish(self) -> Value {
        self.0
    }
}

impl LogEntry {
    /// Reads the entry of the stream of `replica`.
    pub(crate) fn parse(replica: ReplicaId, bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes)?;
        let device = DeviceId::from_bytes(reader.array()?);
        let stamp = Hlc::from_time_bytes(reader.array()?, replica);
        let count = reader.u32()?;
        // The shortest change has four bytes: a count beyond what can follow must not reserve memory.
        let count = usize::try_from(count).ok().filter(|count| *count <= reader.remaining() / 4);
        let count = count.ok_or_else(|| reader.damaged())?;
        let mut changes = Vec::with_capacity(count);
        for _ in 0..count {
            changes.push(Reference::parse(device, &mut reader)?);
        }
        reader.end()?;
        Ok(Self { device, stamp, changes })
    }
}

impl Reference {
    fn parse(device: DeviceId, reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let flags = reader.byte()?;
        if flags & !(DELETE | OWNED) != 0 {
            return Err(reader.damaged());
        }
        let model_len = reader.byte()?;
        let model = std::str::from_utf8(reader.slice(model_len.into())?).map_err(|_| reader.damaged())?;
        let id_len = reader.u16()?;
        let id = reader.slice(id_len.into())?;
        let record = RecordKey::from_parts(model, (flags & OWNED != 0).then_some(device), id);
        // An empty or overlong model name makes no record key.
        let record = RecordKey::from_bytes(record.as_bytes()).ok_or_else(|| reader.damaged())?;
        let value = match flags & DELETE {
            0 => Some((reader.u16()?, reader.array()?)),
            _ => None,
        };
        Ok(Self { record, value })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::clock::WallMs;

    fn replica() -> ReplicaId {
        ReplicaId(Uuid::from_u128(7))
    }

    fn encode(entry: &LogEntry) -> Value {
        let count = u32::try_from(entry.changes.len()).unwrap();
        let mut writer = LogEntryWriter::new(entry.device, entry.stamp, count);
        for change in &entry.changes {
            writer.push(&change.record, change.value.as_ref().map(|(schema, digest)| (*schema, digest)));
        }
        writer.finish()
    }

    fn example() -> LogEntry {
        let device = DeviceId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
        let stamp = Hlc::new(WallMs::new(0x1122_3344_5566).unwrap(), 0x7788, replica());
        let put = Reference {
            record: RecordKey::from_parts("tag", None, b"id"),
            value: Some((0x0102, [0xaa; 32])),
        };
        let delete = Reference { record: RecordKey::from_parts("spot", Some(device), b"x"), value: None };
        LogEntry { device, stamp, changes: vec![put, delete] }
    }

    #[test]
    fn golden_bytes() {
        let mut golden: Vec<u8> = vec![1];
        golden.extend(1..=16);
        golden.extend([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 2]);
        golden.extend(b"\x00\x03tag\x00\x02id\x01\x02");
        golden.extend([0xaa; 32]);
        golden.extend(b"\x03\x04spot\x00\x01x");
        assert_eq!(encode(&example()), golden);
        assert_eq!(LogEntry::parse(replica(), &golden).unwrap(), example());
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_before_anything_is_reserved() {
        let mut bytes = encode(&LogEntry { changes: vec![], ..example() });
        let count = bytes.len() - 4..;
        bytes[count].copy_from_slice(&u32::MAX.to_be_bytes());
        bytes.extend([0; 100]);
        assert_eq!(LogEntry::parse(replica(), &bytes), Err(FormatError::Damaged { what: WHAT }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(cut in 0..200usize, at in 0..200usize, byte: u8, garbage: Vec<u8>) {
            let mut bytes = encode(&example());
            bytes.truncate(cut);
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
            // What can be read is what was written: no two byte strings mean the same entry.
            for bytes in [bytes, garbage] {
                if let Ok(entry) = LogEntry::parse(replica(), &bytes) {
                    prop_assert_eq!(encode(&entry), bytes);
                }
            }
        }
    }

    #[test]
    fn the_chain_covers_every_commit_before() {
        let one = chain(&CHAIN_START, b"one");
        assert_ne!(one, chain(&CHAIN_START, b"eno"));
        assert_ne!(chain(&one, b"two"), chain(&chain(&CHAIN_START, b"eno"), b"two"));
    }
}
