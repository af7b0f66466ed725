//! Commits in a message: they stand one after another to the end of a body without a count, each with its entry as its
//! author wrote it and its values in one piece, which is cut where the entry says how long each value is.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::frame::{HEADER_LEN, MessageWriter, WireError};
use super::message::{LIVE, PAGE, PageHead, damaged};
use crate::ids::{GroupId, ReplicaId};
use crate::stored::Digest;

/// The bytes of a page beside its commits, at most.
const PAGE_BYTES: usize = HEADER_LEN + 64;

/// The longest commit that a page has room for, if the page goes to a replica that takes frames of so many bytes.
pub(crate) const fn commit_max(frame_bytes_max: usize) -> usize {
    frame_bytes_max.saturating_sub(PAGE_BYTES)
}

/// A commit in a received message. Its bytes share the memory of their frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireCommit {
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    /// The digest of its stream before the commit.
    pub(crate) previous: Digest,
    /// The log entry, as its author wrote it.
    pub(crate) entry: Bytes,
    /// The values of its puts, one after the other.
    pub(crate) values: Bytes,
}

#[derive(Serialize, Deserialize)]
struct CommitBody<'a> {
    stream: ReplicaId,
    seq: u64,
    previous: Digest,
    #[serde(with = "serde_bytes")]
    entry: &'a [u8],
    #[serde(with = "serde_bytes")]
    values: &'a [u8],
}

/// A commit as it is written into a message.
#[derive(Clone, Copy)]
pub(crate) struct CommitParts<'a> {
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    pub(crate) previous: &'a Digest,
    pub(crate) entry: &'a [u8],
    pub(crate) values: &'a [u8],
}

impl MessageWriter {
    pub(crate) fn live(group: GroupId) -> Self {
        Self::new(LIVE, group, 512)
    }

    pub(crate) fn page(group: GroupId, head: &PageHead, room: usize) -> Self {
        Self::new(PAGE, group, room + PAGE_BYTES).with(head)
    }

    pub(crate) fn push(&mut self, commit: &CommitParts<'_>) {
        let CommitParts { stream, seq, previous, entry, values } = *commit;
        let body = CommitBody { stream, seq, previous: *previous, entry, values };
        *self = Self(std::mem::take(&mut self.0)).with(&body);
    }
}

/// Reads the commits that fill `bytes`.
pub(crate) fn commits_of(bytes: &Bytes) -> Result<Vec<WireCommit>, WireError> {
    let mut commits = Vec::new();
    let mut rest = bytes.as_ref();
    while !rest.is_empty() {
        let (body, behind) = postcard::take_from_bytes::<CommitBody<'_>>(rest).map_err(damaged)?;
        let CommitBody { stream, seq, previous, entry, values } = body;
        let (entry, values) = (bytes.slice_ref(entry), bytes.slice_ref(values));
        commits.push(WireCommit { stream, seq, previous, entry, values });
        rest = behind;
    }
    Ok(commits)
}
