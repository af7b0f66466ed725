//! Doors for fuzzing, through which bytes reach the parsers of frames and log entries.

use bytes::Bytes;

use crate::engine::wire;
use crate::ids::{GroupId, ReplicaId};
use crate::stored::LogEntry;

/// Reads `frame` and returns how many whole messages it has.
#[must_use]
pub fn frame(frame: &[u8]) -> usize {
    wire::count_messages(frame)
}

/// Reads `entry` as a log entry and returns how many changes it has; `None` if it is none.
#[must_use]
pub fn commit(entry: &[u8]) -> Option<usize> {
    let replica = ReplicaId::from_bytes([7; 16]);
    LogEntry::parse_capped(replica, entry, 1000).ok().map(|entry| entry.changes.len())
}

/// The kinds and bodies of the messages of `frame`, whatever group it is of, up to the first that is damaged.
#[must_use]
pub fn split(frame: &[u8]) -> Vec<(u8, Bytes)> {
    wire::split(frame)
}

/// Makes a frame of one message of any kind and body, with a length and a checksum that fit.
#[must_use]
pub fn seal(group: GroupId, kind: u8, body: &[u8]) -> Bytes {
    wire::sealed(group, kind, body)
}
