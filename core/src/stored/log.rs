//! A log row as stored: the digest of the stream before a commit, then the log entry: the commit as its author made
//! it, each change as a reference to its value.
//!
//! Every row holds the digest before its commit, so that it can be served and checked without the rows before it.

use super::{Digest, FORMAT, FormatError, Reader, keys::RecordKey, length};
use crate::hlc::Hlc;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::storage::Value;

const WHAT: &str = "a log entry";
/// Flag: the change deletes its record.
pub(crate) const DELETE: u8 = 1;
/// Flag: the model is device-owned.
const OWNED: u8 = 2;
/// Flag: the model brings its own merge.
const MERGE: u8 = 4;
/// Flag: an epoch other than the first one follows.
pub(crate) const EPOCH: u8 = 8;
/// Flag: the change is of the same model as the one before it, whose name is not repeated.
pub(crate) const SAME: u8 = 16;

/// A log entry: a commit as its author made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// The author's device, which owns the device-owned records of the commit.
    pub(crate) device: DeviceId,
    pub(crate) stamp: Hlc,
    /// The causes: the streams of others that moved at the author since its commit before, and up to where.
    pub(crate) after: Vec<Cause>,
    pub(crate) changes: Vec<Reference>,
}

/// A cause: a commit of another stream, with the beginning of the digest there. A stream may have two histories, and a
/// commit rests on one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    pub(crate) check: DigestCheck,
}

impl Cause {
    /// The bytes of a cause in a log entry.
    const BYTES: usize = 16 + 8 + 8;
}

/// The first bytes of a digest: enough to notice another one, and no proof that two are equal.
pub(crate) type DigestCheck = [u8; 8];

pub(crate) fn digest_check(digest: &Digest) -> DigestCheck {
    let (check, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    *check
}

/// A change as logged: the record, and the digest of the value instead of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) record: RecordKey,
    /// The value; `None` for a delete.
    pub(crate) value: Option<ValueRef>,
    /// For a model with its own merge, the epoch of the record that the author knew; a delete opens the epoch of its
    /// own stamp.
    pub(crate) epoch: Option<Hlc>,
}

/// A reference to a value: its schema, its length and its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueRef {
    pub(crate) schema: u16,
    /// The bytes of the value. A reader of many values knows from them how many fit, before it reads any.
    pub(crate) len: u32,
    pub(crate) digest: Digest,
}

impl ValueRef {
    /// Refers to a value of `len` bytes.
    pub(crate) fn new(schema: u16, len: usize, digest: Digest) -> Self {
        Self { schema, len: length(len), digest }
    }

    /// The length of the value in bytes.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }
}

/// The digest of a stream up to and including the commit `entry`: a hash chain, so one digest vouches for all
/// commits before it and, through their digests, for all values.
pub(crate) fn chain(previous: &Digest, entry: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    hasher.update(entry);
    *hasher.finalize().as_bytes()
}

/// The digest of a stream before its first commit. It is made of the group and the stream, so that no commit of one
/// stream can stand in another one: what follows would have another digest.
pub(crate) fn chain_start(group: GroupId, stream: ReplicaId) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(group.as_bytes());
    hasher.update(stream.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Splits a log row into the digest before the commit and the log entry.
pub(crate) fn split_row(row: &[u8]) -> Result<(Digest, &[u8]), FormatError> {
    let (previous, entry) = row.split_first_chunk().ok_or(FormatError::Damaged { what: WHAT })?;
    Ok((*previous, entry))
}

/// Makes the log row of the log entry `entry`.
pub(crate) fn row(previous: &Digest, entry: &[u8]) -> Value {
    [previous, entry].concat()
}

/// Writes a log row change by change.
pub(crate) struct LogRowWriter {
    out: Value,
    /// The model of the change before, and its flags for `OWNED` and `MERGE`.
    last: Option<(Vec<u8>, u8)>,
}

impl LogRowWriter {
    pub(crate) fn new(
        previous: &Digest,
        device: DeviceId,
        stamp: Hlc,
        after: &[Cause],
        changes: usize,
    ) -> Self {
        let mut out = Value::with_capacity(80 + Cause::BYTES * after.len() + 64 * changes);
        out.extend_from_slice(previous);
        out.push(FORMAT);
        out.extend_from_slice(device.as_bytes());
        out.extend_from_slice(&stamp.time_bytes());
        out.extend_from_slice(&length::<u16>(after.len()).to_be_bytes());
        for Cause { stream, seq, check } in after {
            out.extend_from_slice(stream.as_bytes());
            out.extend_from_slice(&seq.to_be_bytes());
            out.extend_from_slice(check);
        }
        out.extend_from_slice(&length::<u32>(changes).to_be_bytes());
        Self { out, last: None }
    }

    /// Appends a change; records ascend. The owner of an owned record is not written: it is the author's device.
    pub(crate) fn push(&mut self, record: &RecordKey, value: Option<ValueRef>, epoch: Option<Hlc>) {
        let (model, id) = (record.model().as_bytes(), record.id_bytes());
        let owned = if record.owner().is_some() { OWNED } else { 0 };
        let kind = owned | if epoch.is_some() { MERGE } else { 0 };
        let delete = if value.is_none() { DELETE } else { 0 };
        let epoch = epoch.filter(|epoch| *epoch != Hlc::NEVER && value.is_some());
        let later = if epoch.is_some() { EPOCH } else { 0 };
        let same = self.last.as_ref().is_some_and(|(last, flags)| last == model && *flags == kind);
        let out = &mut self.out;
        out.push(kind | delete | later | if same { SAME } else { 0 });
        if !same {
            out.push(length(model.len()));
            out.extend_from_slice(model);
            self.last = Some((model.to_vec(), kind));
        }
        let out = &mut self.out;
        out.extend_from_slice(&length::<u16>(id.len()).to_be_bytes());
        out.extend_from_slice(id);
        if let Some(epoch) = epoch {
            out.extend_from_slice(&epoch.to_bytes());
        }
        if let Some(ValueRef { schema, len, digest }) = value {
            out.extend_from_slice(&schema.to_be_bytes());
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&digest);
        }
    }

    pub(crate) fn finish(self) -> Value {
        self.out
    }
}

impl LogEntry {
    /// Reads an entry of the stream of `replica`. No two byte strings are the same entry, so an entry has one digest.
    pub(crate) fn parse(replica: ReplicaId, bytes: &[u8]) -> Result<Self, FormatError> {
        Self::parse_capped(replica, bytes, usize::MAX)
    }

    /// As [`parse`](LogEntry::parse), for bytes of a peer: an entry with more changes than `changes_max` is refused
    /// before any memory is taken for them.
    pub(crate) fn parse_capped(
        replica: ReplicaId,
        bytes: &[u8],
        changes_max: usize,
    ) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes)?;
        let device = DeviceId::from_bytes(reader.array()?);
        let stamp = Hlc::from_time_bytes(reader.array()?, replica);
        let count = usize::from(reader.u16()?);
        // Compare the count with the bytes that follow: a made-up count must not reserve memory.
        if count > reader.remaining() / Cause::BYTES {
            return Err(reader.damaged());
        }
        let mut after = Vec::<Cause>::with_capacity(count);
        for _ in 0..count {
            let (stream, seq) = (ReplicaId::from_bytes(reader.array()?), reader.u64()?);
            let rises = after.last().is_none_or(|before| before.stream < stream);
            if !rises || stream == replica || seq == 0 {
                return Err(reader.damaged());
            }
            after.push(Cause { stream, seq, check: reader.array()? });
        }
        let count = usize::try_from(reader.u32()?).ok();
        // The shortest change has three bytes: flags and the length of the id.
        let max = changes_max.min(reader.remaining() / 3);
        let count = count.filter(|count| *count <= max).ok_or_else(|| reader.damaged())?;
        let mut changes = Vec::<Reference>::with_capacity(count);
        let mut model = None;
        for _ in 0..count {
            let change = Reference::parse(device, stamp, &mut model, &mut reader)?;
            // Each record comes once, and records ascend.
            if changes.last().is_some_and(|before| before.record >= change.record) {
                return Err(reader.damaged());
            }
            changes.push(change);
        }
        reader.end()?;
        Ok(Self { device, stamp, after, changes })
    }
}

impl Reference {
    fn parse<'a>(
        device: DeviceId,
        stamp: Hlc,
        last: &mut Option<(&'a str, u8)>,
        reader: &mut Reader<'a>,
    ) -> Result<Self, FormatError> {
        let flags = reader.byte()?;
        let kind = flags & (OWNED | MERGE);
        // Only a shared model brings its own merge, and only a put of such a model has an epoch: a delete opens its
        // own.
        let unknown = flags & !(DELETE | OWNED | MERGE | EPOCH | SAME) != 0;
        if unknown || kind == OWNED | MERGE || flags & EPOCH != 0 && flags & (MERGE | DELETE) != MERGE {
            return Err(reader.damaged());
        }
        let model = if flags & SAME == 0 {
            let len = reader.byte()?;
            let model = std::str::from_utf8(reader.slice(len.into())?).map_err(|_| reader.damaged())?;
            if *last == Some((model, kind)) {
                return Err(reader.damaged());
            }
            *last = Some((model, kind));
            model
        } else {
            last.filter(|(_, before)| *before == kind).ok_or_else(|| reader.damaged())?.0
        };
        let id_len = reader.u16()?;
        let id = reader.slice(id_len.into())?;
        let owner = (flags & OWNED != 0).then_some(device);
        // Refuse an empty or overlong model name: it makes no record key.
        let record = RecordKey::checked(model, owner, id).ok_or_else(|| reader.damaged())?;
        let mut epoch = (flags & MERGE != 0).then_some(Hlc::NEVER);
        if flags & EPOCH != 0 {
            let bytes: [u8; Hlc::LEN] = reader.array()?;
            epoch = Hlc::from_bytes(&bytes).ok().filter(|epoch| *epoch != Hlc::NEVER);
            if epoch.is_none() {
                return Err(reader.damaged());
            }
        }
        if flags & DELETE != 0 {
            return Ok(Self { record, value: None, epoch: epoch.map(|_| stamp) });
        }
        let value = ValueRef { schema: reader.u16()?, len: reader.u32()?, digest: reader.array()? };
        Ok(Self { record, value: Some(value), epoch })
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
        let LogEntry { device, stamp, after, changes } = entry;
        let mut writer = LogRowWriter::new(&[0; 32], *device, *stamp, after, changes.len());
        for change in changes {
            writer.push(&change.record, change.value, change.epoch);
        }
        split_row(&writer.finish()).unwrap().1.to_vec()
    }

    fn example() -> LogEntry {
        let device = DeviceId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
        let stamp = Hlc::new(WallMs::new(0x1122_3344_5566).unwrap(), 0x7788, replica());
        let value = Some(ValueRef { schema: 0x0102, len: 0x0304, digest: [0xaa; 32] });
        let change = |record, value, epoch| Reference { record, value, epoch };
        let other = Hlc::new(WallMs::new(9).unwrap(), 8, ReplicaId(Uuid::from_u128(6)));
        let changes = vec![
            change(RecordKey::from_parts("set", None, b"a"), value, Some(Hlc::NEVER)),
            change(RecordKey::from_parts("set", None, b"b"), value, Some(other)),
            change(RecordKey::from_parts("set", None, b"c"), None, Some(stamp)),
            change(RecordKey::from_parts("tag", None, b"id"), value, None),
            change(RecordKey::from_parts("spot", Some(device), b"x"), None, None),
        ];
        LogEntry {
            device,
            stamp,
            after: vec![Cause { stream: ReplicaId(Uuid::from_u128(8)), seq: 5, check: *b"beginnin" }],
            changes,
        }
    }

    #[test]
    fn golden_bytes() {
        let value = [&b"\x01\x02\0\0\x03\x04"[..], &[0xaa; 32]].concat();
        let mut golden: Vec<u8> = vec![1];
        golden.extend(1..=16);
        golden.extend([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 1]);
        golden.extend(8u128.to_be_bytes());
        golden.extend(5u64.to_be_bytes());
        golden.extend(b"beginnin");
        golden.extend([0, 0, 0, 5]);
        golden.extend([b"\x04\x03set\x00\x01a", &value[..]].concat());
        golden.extend(b"\x1c\x00\x01b\0\0\0\0\0\x09\0\x08");
        golden.extend(6u128.to_be_bytes());
        golden.extend(&value);
        golden.extend(b"\x15\x00\x01c");
        golden.extend([b"\x00\x03tag\x00\x02id", &value[..]].concat());
        golden.extend(b"\x03\x04spot\x00\x01x");
        assert_eq!(encode(&example()), golden);
        assert_eq!(LogEntry::parse(replica(), &golden).unwrap(), example());
        let row = row(&[7; 32], &golden);
        assert_eq!(split_row(&row).unwrap(), ([7; 32], &golden[..]));
        assert!(split_row(&row[..31]).is_err());
    }

    #[test]
    fn an_entry_is_written_in_one_way_only() {
        let swap = |change: fn(&mut LogEntry)| {
            let mut entry = example();
            change(&mut entry);
            LogEntry::parse(replica(), &encode(&entry))
        };
        let damaged = Err(FormatError::Damaged { what: WHAT });
        assert_eq!(swap(|entry| entry.changes.swap(0, 1)), damaged, "records ascend");
        assert_eq!(swap(|entry| entry.changes.push(entry.changes[4].clone())), damaged, "each record once");
        assert_eq!(swap(|entry| entry.after.push(entry.after[0])), damaged, "each cause once");
        let earlier = |entry: &mut LogEntry| {
            entry.after.push(Cause { stream: ReplicaId(Uuid::from_u128(6)), ..entry.after[0] });
        };
        assert_eq!(swap(earlier), damaged, "causes ascend");
        assert_eq!(swap(|entry| entry.after[0].stream = replica()), damaged, "no cause is its own");
        assert_eq!(swap(|entry| entry.after[0].seq = 0), damaged, "no stream begins at 0");
        let many = LogEntry::parse_capped(replica(), &encode(&example()), 4);
        assert_eq!(many, damaged, "more changes than are allowed");
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
        fn no_bytes_panic(cut in 0..400usize, at in 0..400usize, byte: u8, garbage: Vec<u8>) {
            let mut bytes = encode(&example());
            bytes.truncate(cut);
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
            // An entry that can be read is encoded as the same bytes: no two byte strings mean the same entry.
            for bytes in [bytes, garbage] {
                if let Ok(entry) = LogEntry::parse(replica(), &bytes) {
                    prop_assert_eq!(encode(&entry), bytes);
                }
            }
        }
    }

    #[test]
    fn the_chain_covers_every_commit_before() {
        let start = chain_start(GroupId(Uuid::from_u128(1)), replica());
        let one = chain(&start, b"one");
        assert_ne!(one, chain(&start, b"eno"));
        assert_ne!(chain(&one, b"two"), chain(&chain(&start, b"eno"), b"two"));
    }

    /// A commit that was copied into another stream, or into the stream of the same id in another group, would have
    /// the digest of the original otherwise.
    #[test]
    fn each_stream_of_each_group_begins_with_a_digest_of_its_own() {
        let [one, other] = [1, 2].map(|n| GroupId(Uuid::from_u128(n)));
        let start = chain_start(one, replica());
        assert_ne!(start, chain_start(other, replica()));
        assert_ne!(start, chain_start(one, ReplicaId(Uuid::from_u128(8))));
        assert_ne!(
            chain_start(one, ReplicaId(Uuid::from_u128(2))),
            chain_start(other, ReplicaId(Uuid::from_u128(1)))
        );
        assert_eq!(digest_check(&start), start[..8]);
        let golden = [&1u128.to_be_bytes()[..], &7u128.to_be_bytes()].concat();
        assert_eq!(start, *blake3::hash(&golden).as_bytes());
    }
}
