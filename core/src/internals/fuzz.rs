//! Doors for fuzzing, through which bytes reach what reads them.

use bytes::Bytes;

use crate::engine::wire;
use crate::ids::{GroupId, ReplicaId};
use crate::stored::LogEntry;

/// Reads `frame`; says how many whole messages it has.
#[must_use]
pub fn frame(frame: &[u8]) -> usize {
    wire::count_messages(frame)
}

/// Reads `entry` as a commit of a log; says how many changes it has, if it is one.
#[must_use]
pub fn commit(entry: &[u8]) -> Option<usize> {
    let replica = ReplicaId::from_bytes([7; 16]);
    LogEntry::parse_capped(replica, entry, 1000).ok().map(|entry| entry.changes.len())
}

/// A message of any kind and body, with a length and a checksum that fit.
#[must_use]
pub fn seal(group: GroupId, kind: u8, body: &[u8]) -> Bytes {
    wire::sealed(group, kind, body)
}
