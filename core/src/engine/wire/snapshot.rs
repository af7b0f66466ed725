//! The messages of a snapshot: a replica that is further behind than the logs reach asks for records, page by page.
//!
//! The body of a page is its head, the count of its rows, their length if they are compressed, and the rows: the length of a
//! key, the key, the length of its value, the value. They are rows of the sender's store as they
//! stand there: records, tombstones among them, and behind all of them the values that lie beside records.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::frame::{MessageWriter, WireError};
use super::message::{Capped, SNAPSHOT_PAGE, SNAPSHOT_PULL, STREAMS_MAX};
use super::numbers::{Numbers, put_number, unread};
use super::squeeze::{squeeze, unsqueeze};
use crate::hlc::Hlc;
use crate::ids::{GroupId, ReplicaId};
use crate::storage::Entry;
use crate::stored::{Digest, Head, Reader};

/// The bytes of a page beside its heads and its rows, at most.
pub(super) const PAGE_BYTES: usize = 256;
/// The bytes of a head in a page, at most.
pub(super) const HEAD_BYTES: usize = 72;

/// Asks for the records behind a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotPull {
    /// Names the page that answers it.
    pub(crate) id: u32,
    /// How many bytes of rows the page may have; a single row always fits.
    pub(crate) budget: u32,
    /// The longest frame that the puller takes.
    pub(crate) frame_bytes: u32,
    /// The last key that the puller has; empty from the beginning on.
    #[serde(with = "serde_bytes")]
    pub(crate) after: Vec<u8>,
}

/// The head of a page of a snapshot, before its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) id: u32,
    /// Why there are no rows, if the sender cannot serve a snapshot.
    pub(crate) refusal: Option<SnapshotRefusal>,
    /// The heads of the sender before it read the rows: of use where the snapshot begins.
    pub(crate) before: Stampeds,
    /// The heads of the sender once it had read the rows: these rest on no other commits.
    pub(crate) heads: Stampeds,
    /// The highest stamp of a tombstone that the sender has dropped, for each model with its own merge.
    pub(crate) forgotten: Capped<WireForgotten, STREAMS_MAX>,
    /// How many rows the sender has, and their bytes, if it has counted them: for the progress that a person sees.
    pub(crate) of: Option<(u64, u64)>,
    /// Whether there are more rows.
    pub(crate) more: bool,
}

/// Why a replica serves no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SnapshotRefusal {
    /// It is folding a snapshot itself, its store was restored, or it could not be read now.
    NotNow,
    /// A row of its store is damaged.
    Damaged,
    /// A row is longer than the puller takes.
    TooLong,
}

pub(crate) type Stampeds = Capped<WireStamped, STREAMS_MAX>;

/// A head with its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireStamped {
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    time: [u8; 8],
    pub(crate) digest: Digest,
}

impl WireStamped {
    pub(crate) fn of(stream: ReplicaId, head: &Head) -> Self {
        Self { stream, seq: head.seq, time: head.stamp.time_bytes(), digest: head.digest }
    }

    pub(crate) fn stamp(&self) -> Hlc {
        Hlc::from_time_bytes(self.time, self.stream)
    }

    /// The head of a stream of which everything up to here comes with a snapshot.
    pub(crate) fn head(&self) -> Head {
        let Self { seq, digest, .. } = *self;
        Head { seq, stamp: self.stamp(), digest, floor: seq, floor_digest: digest }
    }
}

/// The highest stamp of a tombstone of a model that was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireForgotten {
    pub(crate) model: String,
    stamp: [u8; 8],
    replica: ReplicaId,
}

impl WireForgotten {
    pub(crate) fn of(model: &str, stamp: Hlc) -> Self {
        Self { model: model.to_owned(), stamp: stamp.time_bytes(), replica: stamp.replica() }
    }

    pub(crate) fn stamp(&self) -> Hlc {
        Hlc::from_time_bytes(self.stamp, self.replica)
    }
}

/// The rows of a page, as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    count: usize,
    bytes: Bytes,
}

impl Rows {
    /// Takes the rows that fill `body`, perhaps compressed.
    pub(super) fn read(body: &Bytes, room: usize) -> Result<Self, WireError> {
        let mut rest = unread(body);
        let (count, len) = (rest.fitting()?, rest.fitting()?);
        let bytes = match len {
            0 => body.slice_ref(rest.rest()),
            len => unsqueeze(rest.rest(), len, room)?.into(),
        };
        let rows = Self { count, bytes };
        let mut rest = unread(&rows.bytes);
        for _ in 0..count {
            next_row(&mut rest)?;
        }
        if rest.remaining() == 0 { Ok(rows) } else { Err(WireError::Body("bytes are left over")) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The rows, one after the other.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, WireError> {
        let mut rest = unread(&self.bytes);
        let mut entry = || {
            let (key, value) = next_row(&mut rest)?;
            Ok(Entry { key: key.to_vec(), value: value.to_vec() })
        };
        (0..self.count).map(|_| entry()).collect()
    }
}

/// The key and the value of the next row.
fn next_row<'a>(rest: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), WireError> {
    let len = rest.fitting()?;
    let key = rest.slice(len)?;
    let len = rest.fitting()?;
    Ok((key, rest.slice(len)?))
}

/// Writes a page.
#[derive(Debug, Default)]
pub(crate) struct RowsWriter {
    count: u64,
    rows: Vec<u8>,
}

impl RowsWriter {
    /// The bytes that a row takes in a page, at most.
    pub(crate) const fn bytes_of(key: usize, value: usize) -> usize {
        key.saturating_add(value).saturating_add(12)
    }

    /// The bytes of rows that a page has room for, if it goes to a replica that takes frames of so many bytes.
    pub(crate) const fn room(frame_bytes: usize, heads: usize, forgotten: usize) -> usize {
        let head = HEAD_BYTES.saturating_mul(heads.saturating_add(forgotten.saturating_mul(2)));
        frame_bytes.saturating_sub(PAGE_BYTES).saturating_sub(head)
    }

    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        self.count += 1;
        for part in [key, value] {
            put_number(&mut self.rows, part.len() as u64);
            self.rows.extend_from_slice(part);
        }
    }

    pub(crate) fn finish(self, group: GroupId, head: &SnapshotHead) -> Bytes {
        let Self { count, rows } = self;
        let block = squeeze(&rows);
        let mut message = MessageWriter::new(SNAPSHOT_PAGE, group, PAGE_BYTES + rows.len()).with(head);
        put_number(&mut message.out, count);
        put_number(&mut message.out, block.as_ref().map_or(0, |_| rows.len() as u64));
        message.out.extend_from_slice(block.as_ref().unwrap_or(&rows));
        message.finish()
    }
}

pub(crate) fn snapshot_pull(group: GroupId, pull: &SnapshotPull) -> Bytes {
    MessageWriter::new(SNAPSHOT_PULL, group, 32 + pull.after.len()).with(pull).finish()
}
