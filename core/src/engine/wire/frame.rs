//! The envelope: magic, protocol version, kind, length and checksum, then a body of that length.
//!
//! The group is part of the checksum, so that a message of another group is refused without naming its group each time.
//! The messages that are understood across groups name it in front of the checksum.
//!
//! A frame of the transport has one or more such messages. Without the checksum a damaged digest would look like a stream
//! with two histories, and stop the stream. A message of an unknown kind is skipped by its length, so later versions can
//! add kinds.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use super::message::{HELLO, OTHER_GROUP, STRANGER};
use crate::ids::GroupId;
use crate::stored::length;

/// The first bytes of every message.
const MAGIC: [u8; 4] = *b"SYNL";
/// The version of the protocol. A higher version is another protocol; an addition to this one is a new kind of message.
pub(crate) const VERSION: u16 = 1;
/// Magic, version, kind, length.
const FIELDS_LEN: usize = 4 + 2 + 1 + 4;
/// Magic, version, kind, length, checksum.
pub(crate) const HEADER_LEN: usize = FIELDS_LEN + CHECKSUM_LEN;
/// The first bytes of the hash of the group and of everything else in the message.
const CHECKSUM_LEN: usize = 8;
const GROUP_LEN: usize = 16;

/// Whether messages of the kind name their group, in front of the checksum. Others have it in their checksum alone.
const fn names_group(kind: u8) -> bool {
    matches!(kind, HELLO | STRANGER | OTHER_GROUP)
}

/// The reason for which bytes are no frame of this group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("it is longer than `Limits::frame_bytes_max`")]
    TooLong,
    #[error("it does not begin as a frame does")]
    Magic,
    #[error("it is of version {0} of the protocol, this is version {VERSION}; update the app")]
    Version(u16),
    #[error("it ends before it should")]
    CutShort,
    #[error("it is of group {0}")]
    Group(GroupId),
    #[error("it was damaged on its way, or is of another group")]
    Checksum,
    #[error("its content is damaged: {0}")]
    Body(&'static str),
}

/// Writes one message.
#[derive(Clone)]
pub(crate) struct MessageWriter {
    group: GroupId,
    /// Where the checksum stands.
    sum_at: usize,
    pub(super) out: Vec<u8>,
}

impl MessageWriter {
    pub(crate) fn new(kind: u8, group: GroupId, room: usize) -> Self {
        let mut out = Vec::with_capacity(HEADER_LEN + GROUP_LEN + room);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.push(kind);
        out.extend_from_slice(&[0; 4]);
        if names_group(kind) {
            out.extend_from_slice(group.as_bytes());
        }
        let sum_at = out.len();
        out.extend_from_slice(&[0; CHECKSUM_LEN]);
        Self { group, sum_at, out }
    }

    /// Appends a part of the body.
    pub(crate) fn with(self, part: &impl Serialize) -> Self {
        let Self { out, .. } = self;
        // Every part is a type of this crate that can always be encoded, into a `Vec` of any length.
        Self { out: postcard::to_extend(part, out).unwrap_or_default(), ..self }
    }

    pub(crate) fn finish(self) -> Bytes {
        let Self { group, sum_at, mut out } = self;
        let body_at = sum_at + CHECKSUM_LEN;
        let len: u32 = length(out.len().saturating_sub(body_at));
        if let Some(room) = out.get_mut(FIELDS_LEN - 4..FIELDS_LEN) {
            room.copy_from_slice(&len.to_be_bytes());
        }
        let head_len = body_at.min(out.len());
        let (head, body) = out.split_at_mut(head_len);
        if let Some((fields, room)) = head.split_last_chunk_mut::<CHECKSUM_LEN>() {
            *room = checksum(group, fields, body);
        }
        out.into()
    }
}

fn checksum(group: GroupId, fields: &[u8], body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(group.as_bytes());
    // The group may stand in front of the checksum: it is hashed once.
    hasher.update(fields.get(..FIELDS_LEN).unwrap_or(fields));
    hasher.update(body);
    let mut sum = [0; CHECKSUM_LEN];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

impl fmt::Debug for MessageWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageWriter({} bytes)", self.out.len())
    }
}

/// A message of any kind and body, for tests of what no replica sends.
#[cfg(any(test, feature = "internals-for-tests"))]
pub(crate) fn sealed(group: GroupId, kind: u8, body: &[u8]) -> Bytes {
    let mut message = MessageWriter::new(kind, group, body.len());
    message.out.extend_from_slice(body);
    message.finish()
}

/// Reads the messages of a frame one by one.
#[derive(Debug)]
pub(crate) struct Messages {
    pub(super) rest: Bytes,
    group: Option<GroupId>,
    /// The bytes that the commits of further pages may take: all pages together take no more than a frame may have,
    /// however few bytes came.
    pub(super) room: usize,
}

impl Messages {
    /// The messages of `frame`. All of them must be of `group`, if one is given; otherwise the checksum of a message that
    /// does not name its group cannot be checked.
    pub(crate) fn new(
        frame: Bytes,
        group: Option<GroupId>,
        frame_bytes_max: usize,
    ) -> Result<Self, WireError> {
        if frame.len() > frame_bytes_max {
            return Err(WireError::TooLong);
        }
        Ok(Self { rest: frame, group, room: frame_bytes_max })
    }

    /// Takes the next message off the frame: its kind, the group that it names, and its body.
    pub(super) fn split(&mut self) -> Result<(u8, Option<GroupId>, Bytes), WireError> {
        let bytes = self.rest.as_ref();
        let (magic, bytes) = bytes.split_first_chunk::<4>().ok_or(WireError::CutShort)?;
        let (version, bytes) = bytes.split_first_chunk::<2>().ok_or(WireError::CutShort)?;
        let (kind, bytes) = bytes.split_first().ok_or(WireError::CutShort)?;
        let (len, mut bytes) = bytes.split_first_chunk::<4>().ok_or(WireError::CutShort)?;
        if *magic != MAGIC {
            return Err(WireError::Magic);
        }
        let version = u16::from_be_bytes(*version);
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let mut named = None;
        if names_group(*kind) {
            let (group, rest) = bytes.split_first_chunk::<GROUP_LEN>().ok_or(WireError::CutShort)?;
            (named, bytes) = (Some(GroupId::from_bytes(*group)), rest);
        }
        if let (Some(ours), Some(named)) = (self.group, named)
            && ours != named
        {
            return Err(WireError::Group(named));
        }
        let (sum, body) = bytes.split_first_chunk::<CHECKSUM_LEN>().ok_or(WireError::CutShort)?;
        let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| WireError::CutShort)?;
        let body = body.get(..len).ok_or(WireError::CutShort)?;
        let fields = self.rest.get(..FIELDS_LEN).unwrap_or_default();
        if let Some(group) = named.or(self.group)
            && checksum(group, fields, body) != *sum
        {
            return Err(WireError::Checksum);
        }
        let kind = *kind;
        let begin = HEADER_LEN + if named.is_some() { GROUP_LEN } else { 0 };
        let mut body = self.rest.split_off(begin);
        self.rest = body.split_off(len);
        Ok((kind, named, body))
    }
}
