//! The row of a snapshot that is being installed: how far it is, and what it will be when it is whole.

use std::collections::BTreeMap;

use super::log::{DigestCheck, digest_check};
use super::{FORMAT, FormatError, Reader, digest, length};
use crate::hlc::Hlc;
use crate::ids::ReplicaId;
use crate::storage::{Key, Value};

/// The row of an install. It has a check of its own, as the identity has: nothing else in the store says the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstallRow {
    pub(crate) phase: Phase,
    /// Whether records are put in their places at once, since no record was here before. Nobody reads them until the
    /// switch.
    pub(crate) in_place: bool,
    /// The heads of the sender when its first page began: what is missing in the snapshot, and is covered by these, was
    /// deleted.
    pub(crate) as_of: BTreeMap<ReplicaId, u64>,
    /// The heads that the pages rest on, all taken together: only with all of these commits is the snapshot whole.
    pub(crate) need: BTreeMap<ReplicaId, u64>,
    /// For each model with its own merge, the highest stamp of a tombstone that senders have dropped.
    pub(crate) forgotten: BTreeMap<String, Hlc>,
    /// The highest stamp of all of it, which the clock follows at the switch.
    pub(crate) high: Hlc,
    /// The last key that was staged, or that was folded.
    pub(crate) cursor: Option<Key>,
    pub(crate) counts: Counts,
}

/// The phase of an install. It stands at the same place in the row of every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Records arrive.
    Records,
    /// The log from the first page on arrives.
    Tail,
    /// The snapshot counts. Its records are folded into those that were here.
    Fold,
    /// All is folded, and the stage is removed.
    Clear,
}

/// The size of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The records that have arrived, and values beside records.
    pub(crate) records: u64,
    /// The bytes of their keys and values.
    pub(crate) bytes: u64,
    /// The records and bytes that the sender had when its first page began; 0 if it did not say.
    pub(crate) of_records: u64,
    pub(crate) of_bytes: u64,
}

impl Phase {
    /// Whether nothing of the snapshot counts yet, so that it can be given up.
    pub(crate) fn is_before_switch(self) -> bool {
        matches!(self, Self::Records | Self::Tail)
    }
}

impl InstallRow {
    const WHAT: &str = "the row of an install";

    /// The phase of a row, also of another version's.
    pub(crate) fn phase_of(value: &[u8]) -> Option<Phase> {
        match value.get(1) {
            Some(0) => Some(Phase::Records),
            Some(1) => Some(Phase::Tail),
            Some(2) => Some(Phase::Fold),
            Some(3) => Some(Phase::Clear),
            _ => None,
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        let phase = match self.phase {
            Phase::Records => 0,
            Phase::Tail => 1,
            Phase::Fold => 2,
            Phase::Clear => 3,
        };
        let mut out = vec![FORMAT, phase, u8::from(self.in_place)];
        for seqs in [&self.as_of, &self.need] {
            put_len(&mut out, seqs.len());
            for (stream, seq) in seqs {
                out.extend_from_slice(stream.as_bytes());
                out.extend_from_slice(&seq.to_be_bytes());
            }
        }
        put_len(&mut out, self.forgotten.len());
        for (model, stamp) in &self.forgotten {
            out.push(length(model.len()));
            out.extend_from_slice(model.as_bytes());
            out.extend_from_slice(&stamp.to_bytes());
        }
        out.extend_from_slice(&self.high.to_bytes());
        let Counts { records, bytes, of_records, of_bytes } = self.counts;
        for count in [records, bytes, of_records, of_bytes] {
            out.extend_from_slice(&count.to_be_bytes());
        }
        let cursor = self.cursor.as_deref().unwrap_or_default();
        put_len(&mut out, cursor.len());
        out.extend_from_slice(cursor);
        let check = digest_check(&digest(&out));
        out.extend_from_slice(&check);
        out
    }

    pub(crate) fn parse(value: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(Self::WHAT, value)?;
        reader.byte()?;
        let phase = Self::phase_of(value).ok_or_else(|| reader.damaged())?;
        let in_place = match reader.byte()? {
            0 => false,
            1 => true,
            _ => return Err(reader.damaged()),
        };
        let (as_of, need) = (seqs(&mut reader)?, seqs(&mut reader)?);
        let mut forgotten = BTreeMap::new();
        for _ in 0..reader.u32()? {
            let len = usize::from(reader.byte()?);
            let model = String::from_utf8(reader.slice(len)?.to_vec()).map_err(|_| reader.damaged())?;
            forgotten.insert(model, stamp(&mut reader)?);
        }
        let high = stamp(&mut reader)?;
        let counts = Counts {
            records: reader.u64()?,
            bytes: reader.u64()?,
            of_records: reader.u64()?,
            of_bytes: reader.u64()?,
        };
        let len = usize::try_from(reader.u32()?).map_err(|_| reader.damaged())?;
        let cursor = Some(reader.slice(len)?.to_vec()).filter(|cursor| !cursor.is_empty());
        let _check: DigestCheck = reader.array()?;
        reader.end()?;
        let row = Self { phase, in_place, as_of, need, forgotten, high, cursor, counts };
        if row.to_value() != value {
            return Err(FormatError::Damaged { what: Self::WHAT });
        }
        Ok(row)
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&length::<u32>(len).to_be_bytes());
}

fn seqs(reader: &mut Reader<'_>) -> Result<BTreeMap<ReplicaId, u64>, FormatError> {
    let count = reader.u32()?;
    (0..count).map(|_| Ok((ReplicaId::from_bytes(reader.array()?), reader.u64()?))).collect()
}

fn stamp(reader: &mut Reader<'_>) -> Result<Hlc, FormatError> {
    let bytes: [u8; Hlc::LEN] = reader.array()?;
    Hlc::from_bytes(&bytes).map_err(|_| reader.damaged())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::clock::WallMs;

    fn row() -> InstallRow {
        let stream = |id| ReplicaId(Uuid::from_u128(id));
        InstallRow {
            phase: Phase::Tail,
            in_place: true,
            as_of: BTreeMap::from([(stream(1), 7)]),
            need: BTreeMap::from([(stream(1), 9), (stream(2), 1)]),
            forgotten: BTreeMap::from([("tag".into(), Hlc::new(WallMs::MIN, 3, stream(2)))]),
            high: Hlc::new(WallMs::MIN, 4, stream(2)),
            cursor: Some(vec![0x10, 3]),
            counts: Counts { records: 3, bytes: 90, of_records: 5, of_bytes: 150 },
        }
    }

    #[test]
    fn a_row_reads_back_as_it_was_put_and_no_flipped_bit_of_it_is_read() {
        for cursor in [None, Some(vec![0x10, 3])] {
            let row = InstallRow { cursor, ..row() };
            let value = row.to_value();
            assert_eq!(InstallRow::parse(&value), Ok(row));
            for bit in 0..value.len() * 8 {
                let mut flipped = value.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(InstallRow::parse(&flipped).is_err(), "bit {bit}");
            }
            assert!(InstallRow::parse(&value[..value.len() - 1]).is_err());
        }
    }

    #[test]
    fn the_phase_of_another_versions_row_can_be_told() {
        for phase in [Phase::Records, Phase::Tail, Phase::Fold, Phase::Clear] {
            let mut value = InstallRow { phase, ..row() }.to_value();
            value[0] = 99;
            assert_eq!(InstallRow::phase_of(&value), Some(phase));
            assert!(matches!(InstallRow::parse(&value), Err(FormatError::Version { found: 99, .. })));
        }
        assert_eq!(InstallRow::phase_of(&[99, 9]), None);
    }
}
