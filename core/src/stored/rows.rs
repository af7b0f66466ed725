//! The small rows: identity, clock, models seen, forgotten stamps, projections, peers, forks, introducer, heads.

use std::collections::BTreeMap;

use super::log::{DigestCheck, chain_start, digest_check};
use super::{Digest, FORMAT, FormatError, Reader, digest};
use crate::clock::WallMs;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::storage::{Key, Value};

/// The identity of a store. It is written when the store is created and never changes. Nothing else in the store says the
/// same, so the row has a check of its own: one flipped bit would make a member of another group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) group: GroupId,
    pub(crate) device: DeviceId,
    pub(crate) replica: ReplicaId,
}

impl Identity {
    const WHAT: &str = "the store";

    pub(crate) fn to_value(self) -> Value {
        let row =
            [&[FORMAT], &self.group.as_bytes()[..], self.device.as_bytes(), self.replica.as_bytes()].concat();
        let check = digest_check(&digest(&row));
        [row, check.to_vec()].concat()
    }

    pub(crate) fn parse(value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(Self::WHAT, value)?;
        let group = GroupId::from_bytes(reader.array()?);
        let device = DeviceId::from_bytes(reader.array()?);
        let replica = ReplicaId::from_bytes(reader.array()?);
        let _check: DigestCheck = reader.array()?;
        reader.end()?;
        let identity = Self { group, device, replica };
        if identity.to_value() != value {
            return Err(FormatError::Damaged { what: Self::WHAT });
        }
        Ok(identity)
    }
}

/// Makes the clock's row: the highest stamp that this replica issued or saw.
pub(crate) fn clock_value(high_water: Hlc) -> Value {
    [&[FORMAT], &high_water.time_bytes()[..]].concat()
}

/// Reads the clock's row.
pub(crate) fn clock_from_value(replica: ReplicaId, value: &[u8]) -> Result<Hlc, FormatError> {
    let mut reader = Reader::new("the clock", value)?;
    let stamp = Hlc::from_time_bytes(reader.array()?, replica);
    reader.end()?;
    Ok(stamp)
}

/// A model as this store has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelSeen {
    pub(crate) device_owned: bool,
    /// Whether the model brings its own merge.
    pub(crate) own_merge: bool,
    /// The newest schema that an app opened this store with.
    pub(crate) schema: u16,
}

impl ModelSeen {
    pub(crate) fn to_value(self) -> Value {
        let flags = u8::from(self.device_owned) | u8::from(self.own_merge) << 1;
        [&[FORMAT, flags], &self.schema.to_be_bytes()[..]].concat()
    }

    pub(crate) fn parse(value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("a model's row", value)?;
        let (device_owned, own_merge) = match reader.byte()? {
            0 => (false, false),
            1 => (true, false),
            2 => (false, true),
            _ => return Err(reader.damaged()),
        };
        let schema = reader.u16()?;
        reader.end()?;
        Ok(Self { device_owned, own_merge, schema })
    }
}

/// Makes the row of a model's forgotten stamp: the highest one of a tombstone that was dropped here. Nothing else in the store
/// says the same, so the row has a check of its own: a flipped bit would put new records into an epoch that never was.
pub(crate) fn forgotten_value(stamp: Hlc) -> Value {
    let row = [&[FORMAT], &stamp.to_bytes()[..]].concat();
    let check = digest_check(&digest(&row));
    [row, check.to_vec()].concat()
}

/// Reads the row of a model's forgotten stamp.
pub(crate) fn forgotten_from_value(value: &[u8]) -> Result<Hlc, FormatError> {
    let what = "a forgotten stamp";
    let mut reader = Reader::new(what, value)?;
    let time = reader.array()?;
    let stamp = Hlc::from_time_bytes(time, ReplicaId::from_bytes(reader.array()?));
    let _check: DigestCheck = reader.array()?;
    reader.end()?;
    if forgotten_value(stamp) != value {
        return Err(FormatError::Damaged { what });
    }
    Ok(stamp)
}

/// The row of a projection: how far it is. A projection without a row has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProjectionRow {
    pub(crate) version: u32,
    /// The schema of the model when the projection was built.
    pub(crate) schema: u16,
    pub(crate) progress: Progress,
}

/// The progress of a projection: which records it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The projection has the records up to this key, which is included.
    Until(Key),
    /// The projection has all records.
    Complete,
}

impl Progress {
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        match self {
            Self::Until(last) => key <= last.as_slice(),
            Self::Complete => true,
        }
    }
}

impl ProjectionRow {
    pub(crate) fn to_value(&self) -> Value {
        let (complete, until) = match &self.progress {
            Progress::Until(key) => (0, key.as_slice()),
            Progress::Complete => (1, &[][..]),
        };
        let (version, schema) = (self.version.to_be_bytes(), self.schema.to_be_bytes());
        [&[FORMAT], &version[..], &schema, &[complete], until].concat()
    }

    pub(crate) fn parse(value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("a projection's row", value)?;
        let version = reader.array().map(u32::from_be_bytes)?;
        let schema = reader.u16()?;
        let progress = match reader.byte()? {
            0 => Progress::Until(reader.rest().to_vec()),
            1 => {
                reader.end()?;
                Progress::Complete
            }
            _ => return Err(reader.damaged()),
        };
        Ok(Self { version, schema, progress })
    }
}

/// A place in a stream: a sequence number and the digest of the stream there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) seq: u64,
    pub(crate) digest: Digest,
}

/// Makes the row of a peer: how far it has acknowledged each stream, and how far with hellos that are covered.
pub(crate) fn peer_value(acked: &BTreeMap<ReplicaId, Point>, covered: impl Fn(ReplicaId) -> u64) -> Value {
    let mut out = vec![FORMAT];
    for (replica, Point { seq, digest }) in acked {
        out.extend_from_slice(replica.as_bytes());
        out.extend_from_slice(&seq.to_be_bytes());
        out.extend_from_slice(digest);
        out.extend_from_slice(&covered(*replica).min(*seq).to_be_bytes());
    }
    out
}

/// The row of a peer: how far it has acknowledged each stream, and how far with hellos that are covered.
pub(crate) type PeerRow = (BTreeMap<ReplicaId, Point>, BTreeMap<ReplicaId, u64>);

/// Reads the row of a peer.
pub(crate) fn peer_from_value(value: &[u8]) -> Result<PeerRow, FormatError> {
    let mut reader = Reader::new("a peer's row", value)?;
    let (mut acked, mut covered) = PeerRow::default();
    while reader.remaining() > 0 {
        let replica = ReplicaId::from_bytes(reader.array()?);
        let point = Point { seq: reader.u64()?, digest: reader.array()? };
        let covers = reader.u64()?;
        let is_next = acked.last_key_value().is_none_or(|(last, _)| *last < replica);
        if !is_next || point.seq == 0 || covers > point.seq {
            return Err(reader.damaged());
        }
        acked.insert(replica, point);
        covered.insert(replica, covers);
    }
    Ok((acked, covered))
}

/// The row of a fork: what proves that a stream has two histories, or for the own stream that this store was restored. The
/// key says which stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForkRow {
    /// The stream that proves it.
    pub(crate) stream: ReplicaId,
    /// The commit at which the histories part.
    pub(crate) seq: u64,
    /// The replica that showed it.
    pub(crate) by: ReplicaId,
    /// The digest there.
    pub(crate) there: Digest,
    /// The digest here; `None` if the commit is not here.
    pub(crate) here: Option<Digest>,
}

impl ForkRow {
    pub(crate) fn to_value(self) -> Value {
        let Self { stream, seq, by, there, here } = self;
        let here = here.as_ref().map_or(&[][..], |here| &here[..]);
        [&[FORMAT], &stream.as_bytes()[..], &seq.to_be_bytes(), by.as_bytes(), &there, here].concat()
    }

    pub(crate) fn parse(value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("a fork's row", value)?;
        let (stream, seq) = (ReplicaId::from_bytes(reader.array()?), reader.u64()?);
        let (by, there) = (ReplicaId::from_bytes(reader.array()?), reader.array()?);
        let here = if reader.remaining() > 0 { Some(reader.array()?) } else { None };
        reader.end()?;
        Ok(Self { stream, seq, by, there, here })
    }
}

/// Makes the introducer's row, which a joiner has until its own member record arrives.
pub(crate) fn introducer_value(replica: ReplicaId) -> Value {
    [&[FORMAT], &replica.as_bytes()[..]].concat()
}

/// Reads the introducer's row.
pub(crate) fn introducer_from_value(value: &[u8]) -> Result<ReplicaId, FormatError> {
    let mut reader = Reader::new("the introducer's row", value)?;
    let replica = ReplicaId::from_bytes(reader.array()?);
    reader.end()?;
    Ok(replica)
}

/// The longest text of an error that a debt keeps, in bytes.
const DEBT_BYTES_MAX: usize = 1024;

/// Makes the row of a debt: the error with which the projection could not take the record, cut off if it is long.
pub(crate) fn debt_value(error: &str) -> Value {
    let end = (0..=error.len().min(DEBT_BYTES_MAX)).rev().find(|end| error.is_char_boundary(*end));
    let (error, _) = error.split_at(end.unwrap_or(0));
    [&[FORMAT], error.as_bytes()].concat()
}

/// Reads the row of a debt.
pub(crate) fn debt_from_value(value: &[u8]) -> Result<String, FormatError> {
    let what = "a debt";
    let error = Reader::new(what, value)?.rest().to_vec();
    String::from_utf8(error).map_err(|_| FormatError::Damaged { what })
}

/// The head of a stream: its last commit here, and how far its log has been pruned here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The sequence number of the last commit; 0 before the first.
    pub(crate) seq: u64,
    pub(crate) stamp: Hlc,
    pub(crate) digest: Digest,
    /// The floor: the log holds the commits above it.
    pub(crate) floor: u64,
    /// The digest of the stream at the floor.
    pub(crate) floor_digest: Digest,
}

impl Head {
    const WHAT: &str = "a head";

    /// The head of a stream of `group` without commits.
    pub(crate) fn start(group: GroupId, replica: ReplicaId) -> Self {
        let (stamp, digest) = (Hlc::new(WallMs::MIN, 0, replica), chain_start(group, replica));
        Self { seq: 0, stamp, digest, floor: 0, floor_digest: digest }
    }

    /// The place of the last commit in the stream.
    pub(crate) const fn point(&self) -> Point {
        Point { seq: self.seq, digest: self.digest }
    }

    /// The head after the next commit.
    pub(crate) fn next(&self, stamp: Hlc, digest: Digest) -> Self {
        Self { seq: self.seq + 1, stamp, digest, ..*self }
    }

    pub(crate) fn to_value(self) -> Value {
        [
            &[FORMAT],
            &self.seq.to_be_bytes()[..],
            &self.stamp.time_bytes(),
            &self.digest,
            &self.floor.to_be_bytes(),
            &self.floor_digest,
        ]
        .concat()
    }

    /// Reads the head of the stream of `replica`.
    pub(crate) fn parse(replica: ReplicaId, value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(Self::WHAT, value)?;
        let seq = reader.u64()?;
        let stamp = Hlc::from_time_bytes(reader.array()?, replica);
        let digest = reader.array()?;
        let floor = reader.u64()?;
        let floor_digest = reader.array()?;
        // Refuse the highest number: no commit could follow it, so no stream ever reaches it.
        if floor > seq || seq == u64::MAX {
            return Err(reader.damaged());
        }
        reader.end()?;
        Ok(Self { seq, stamp, digest, floor, floor_digest })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn replica() -> ReplicaId {
        ReplicaId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10))
    }

    fn stamp() -> Hlc {
        Hlc::new(WallMs::new(0x1122_3344_5566).unwrap(), 0x7788, replica())
    }

    #[test]
    fn golden_rows() {
        let identity = Identity {
            group: GroupId(Uuid::from_u128(1)),
            device: DeviceId(Uuid::from_u128(2)),
            replica: replica(),
        };
        let mut golden = vec![1];
        golden.extend(1u128.to_be_bytes());
        golden.extend(2u128.to_be_bytes());
        golden.extend(1..=16);
        golden.extend(&blake3::hash(&golden).as_bytes()[..8]);
        assert_eq!(identity.to_value(), golden);
        assert_eq!(Identity::parse(&golden).unwrap(), identity);
        for bit in 0..golden.len() * 8 {
            let mut flipped = golden.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::parse(&flipped).is_err(), "bit {bit}");
        }

        let golden = [1, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
        assert_eq!(clock_value(stamp()), golden);
        assert_eq!(clock_from_value(replica(), &golden).unwrap(), stamp());

        for (flags, device_owned, own_merge) in [(0, false, false), (1, true, false), (2, false, true)] {
            let model = ModelSeen { device_owned, own_merge, schema: 0x0203 };
            assert_eq!(model.to_value(), [1, flags, 2, 3]);
            assert_eq!(ModelSeen::parse(&[1, flags, 2, 3]).unwrap(), model);
        }
        assert!(ModelSeen::parse(&[1, 3, 2, 3]).is_err(), "a device-owned model has no merge of its own");

        let mut golden = vec![1, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
        golden.extend(1..=16);
        golden.extend(&blake3::hash(&golden).as_bytes()[..8]);
        assert_eq!(forgotten_value(stamp()), golden);
        assert_eq!(forgotten_from_value(&golden).unwrap(), stamp());
        for bit in 0..golden.len() * 8 {
            let mut flipped = golden.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(forgotten_from_value(&flipped).is_err(), "bit {bit}");
        }

        let acked = BTreeMap::from([(replica(), Point { seq: 9, digest: [0xcc; 32] })]);
        let mut golden = vec![1];
        golden.extend(1..=16);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 9]);
        golden.extend([0xcc; 32]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(peer_value(&acked, |_| 7), golden);
        assert_eq!(peer_from_value(&golden).unwrap(), (acked.clone(), BTreeMap::from([(replica(), 7)])));
        assert_eq!(
            peer_from_value(&peer_value(&acked, |_| 10)).unwrap().1[&replica()],
            9,
            "no more than all"
        );
        assert!(peer_from_value(&[&golden[..golden.len() - 1], &[10]].concat()).is_err());
        assert!(peer_from_value(&[&golden[..], &golden[1..]].concat()).is_err(), "each stream once");

        let by = ReplicaId(Uuid::from_u128(2));
        let mut golden: Vec<u8> = (1..=1).chain(1..=16).chain([0, 0, 0, 0, 0, 0, 0, 9]).collect();
        golden.extend(2u128.to_be_bytes());
        golden.extend([0xaa; 32]);
        let fork = ForkRow { stream: replica(), seq: 9, by, there: [0xaa; 32], here: None };
        assert_eq!((fork.to_value(), ForkRow::parse(&golden).unwrap()), (golden.clone(), fork));
        golden.extend([0xbb; 32]);
        let fork = ForkRow { here: Some([0xbb; 32]), ..fork };
        assert_eq!((fork.to_value(), ForkRow::parse(&golden).unwrap()), (golden, fork));
        let golden: Vec<u8> = (1..=1).chain(1..=16).collect();
        assert_eq!(introducer_value(replica()), golden);
        assert_eq!(introducer_from_value(&golden).unwrap(), replica());
        assert_eq!(debt_value("no parent"), b"\x01no parent");
        assert_eq!(debt_from_value(b"\x01no parent").unwrap(), "no parent");

        let golden = b"\x01\x00\x00\x00\x07\x02\x03\x00key";
        let row = ProjectionRow { version: 7, schema: 0x0203, progress: Progress::Until(b"key".to_vec()) };
        assert_eq!(row.to_value(), golden);
        assert_eq!(ProjectionRow::parse(golden).unwrap(), row);
        let golden = b"\x01\x00\x00\x00\x07\x02\x03\x01";
        let row = ProjectionRow { progress: Progress::Complete, ..row };
        assert_eq!(row.to_value(), golden);
        assert_eq!(ProjectionRow::parse(golden).unwrap(), row);

        let (digest, floor_digest) = ([0xaa; 32], [0xbb; 32]);
        let head = Head { seq: 9, stamp: stamp(), digest, floor: 8, floor_digest };
        let mut golden = vec![1, 0, 0, 0, 0, 0, 0, 0, 9, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
        golden.extend([0xaa; 32]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 8]);
        golden.extend([0xbb; 32]);
        assert_eq!(head.to_value(), golden);
        assert_eq!(Head::parse(replica(), &golden).unwrap(), head);
    }

    #[test]
    fn a_debt_keeps_the_beginning_of_a_long_error() {
        // A cut in the middle of a letter would make the row unreadable.
        let long = format!("x{}", "\u{e9}".repeat(2_000));
        let kept = debt_from_value(&debt_value(&long)).unwrap();
        assert!(long.starts_with(&kept) && kept.len() == DEBT_BYTES_MAX - 1, "{} bytes", kept.len());
        assert!(debt_from_value(b"\x01\xff").is_err());
    }

    #[test]
    fn damage_is_an_error() {
        for (seq, floor) in [(0, 1), (u64::MAX, u64::MAX), (u64::MAX, 0)] {
            let head = Head { seq, floor, ..Head::start(GroupId(Uuid::nil()), replica()) }.to_value();
            assert!(
                matches!(Head::parse(replica(), &head), Err(FormatError::Damaged { .. })),
                "{seq} {floor}"
            );
        }
        assert!(matches!(Identity::parse(&[2]), Err(FormatError::Version { found: 2, .. })));
        for value in [&[][..], &[1], &[1, 0], &[1; 100]] {
            assert!(Identity::parse(value).is_err() && clock_from_value(replica(), value).is_err());
            assert!(ModelSeen::parse(value).is_err() && Head::parse(replica(), value).is_err());
            assert!(ProjectionRow::parse(value).is_err() && forgotten_from_value(value).is_err());
        }
    }

    /// The last record of a page was filled with it: a commit that changes the record must be projected by itself.
    #[test]
    fn a_projection_that_is_filled_covers_the_records_up_to_its_place_and_that_one() {
        let until = Progress::Until(b"b".to_vec());
        let covered = [&b""[..], b"a", b"b", b"b0", b"c"].map(|key| until.covers(key));
        assert_eq!(covered, [true, true, true, false, false]);
        assert!(Progress::Complete.covers(b"c") && !Progress::Until(Key::new()).covers(b"a"));
    }

    #[test]
    fn the_text_of_a_debt_has_a_bound() {
        let (short, long) = ("e".repeat(DEBT_BYTES_MAX), "\u{e9}".repeat(DEBT_BYTES_MAX));
        assert_eq!(debt_from_value(&debt_value(&short)).unwrap(), short);
        let cut = debt_from_value(&debt_value(&long)).unwrap();
        assert!(long.starts_with(&cut) && cut.len() == DEBT_BYTES_MAX);
    }
}
