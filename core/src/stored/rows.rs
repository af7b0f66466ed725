//! The small rows: identity, clock, models seen, projections, heads.

use super::log::CHAIN_START;
use super::{Digest, FORMAT, FormatError, Reader};
use crate::clock::WallMs;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::storage::{Key, Value};

/// Who a store is. Written when it is created and never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) group: GroupId,
    pub(crate) device: DeviceId,
    pub(crate) replica: ReplicaId,
}

impl Identity {
    const WHAT: &str = "the store";

    pub(crate) fn to_value(self) -> Value {
        [&[FORMAT], &self.group.as_bytes()[..], self.device.as_bytes(), self.replica.as_bytes()].concat()
    }

    pub(crate) fn parse(value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(Self::WHAT, value)?;
        let group = GroupId::from_bytes(reader.array()?);
        let device = DeviceId::from_bytes(reader.array()?);
        let replica = ReplicaId::from_bytes(reader.array()?);
        reader.end()?;
        Ok(Self { group, device, replica })
    }
}

/// The clock's row: the highest stamp that this replica issued or saw.
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

/// What this store has seen of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelSeen {
    pub(crate) device_owned: bool,
    /// The newest schema that an app opened this store with.
    pub(crate) schema: u16,
}

impl ModelSeen {
    pub(crate) fn to_value(self) -> Value {
        [&[FORMAT, u8::from(self.device_owned)], &self.schema.to_be_bytes()[..]].concat()
    }

    pub(crate) fn parse(value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("a model's row", value)?;
        let device_owned = match reader.byte()? {
            0 => false,
            1 => true,
            _ => return Err(reader.damaged()),
        };
        let schema = reader.u16()?;
        reader.end()?;
        Ok(Self { device_owned, schema })
    }
}

/// How far a projection is. A projection without a row has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProjectionRow {
    pub(crate) version: u32,
    /// The schema of its model that it was built with.
    pub(crate) schema: u16,
    pub(crate) progress: Progress,
}

/// Which records a projection has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Those up to this key, which is included.
    Until(Key),
    /// All.
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

/// The last commit known of a stream, and how far its log has been pruned here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its sequence number; 0 before the first commit.
    pub(crate) seq: u64,
    pub(crate) stamp: Hlc,
    pub(crate) digest: Digest,
    /// The log holds the commits above it.
    pub(crate) floor: u64,
    /// The digest of the stream at the floor.
    pub(crate) floor_digest: Digest,
}

impl Head {
    const WHAT: &str = "a head";

    /// The head of a stream without commits.
    pub(crate) fn start(replica: ReplicaId) -> Self {
        let stamp = Hlc::new(WallMs::MIN, 0, replica);
        Self { seq: 0, stamp, digest: CHAIN_START, floor: 0, floor_digest: CHAIN_START }
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
        // There is no commit after the last number, so no stream ever gets there.
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
        assert_eq!(identity.to_value(), golden);
        assert_eq!(Identity::parse(&golden).unwrap(), identity);

        let golden = [1, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
        assert_eq!(clock_value(stamp()), golden);
        assert_eq!(clock_from_value(replica(), &golden).unwrap(), stamp());

        let model = ModelSeen { device_owned: true, schema: 0x0203 };
        assert_eq!(model.to_value(), [1, 1, 2, 3]);
        assert_eq!(ModelSeen::parse(&[1, 1, 2, 3]).unwrap(), model);

        let golden = b"\x01\x00\x00\x00\x07\x02\x03\x00key";
        let row = ProjectionRow { version: 7, schema: 0x0203, progress: Progress::Until(b"key".to_vec()) };
        assert_eq!(row.to_value(), golden);
        assert_eq!(ProjectionRow::parse(golden).unwrap(), row);
        let golden = b"\x01\x00\x00\x00\x07\x02\x03\x01";
        let row = ProjectionRow { progress: Progress::Complete, ..row };
        assert_eq!(row.to_value(), golden);
        assert_eq!(ProjectionRow::parse(golden).unwrap(), row);

        let head = Head { seq: 9, stamp: stamp(), digest: [0xaa; 32], floor: 8, floor_digest: [0xbb; 32] };
        let mut golden = vec![1, 0, 0, 0, 0, 0, 0, 0, 9, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
        golden.extend([0xaa; 32]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 8]);
        golden.extend([0xbb; 32]);
        assert_eq!(head.to_value(), golden);
        assert_eq!(Head::parse(replica(), &golden).unwrap(), head);
    }

    #[test]
    fn damage_is_an_error() {
        for (seq, floor) in [(0, 1), (u64::MAX, u64::MAX), (u64::MAX, 0)] {
            let head = Head { seq, floor, ..Head::start(replica()) }.to_value();
            assert!(
                matches!(Head::parse(replica(), &head), Err(FormatError::Damaged { .. })),
                "{seq} {floor}"
            );
        }
        assert!(matches!(Identity::parse(&[2]), Err(FormatError::Version { found: 2, .. })));
        for value in [&[][..], &[1], &[1, 0], &[1; 100]] {
            assert!(Identity::parse(value).is_err() && clock_from_value(replica(), value).is_err());
            assert!(ModelSeen::parse(value).is_err() && Head::parse(replica(), value).is_err());
            assert!(ProjectionRow::parse(value).is_err());
        }
    }
}
