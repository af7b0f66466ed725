//! Frames: the messages between replicas, as bytes.
//!
//! A frame may come from anyone. So no length and no count is used before it was checked against the bytes that are
//! there and against its cap, no message nests, and no element is without bytes. A message is written in one way only:
//! what was read, written again, is the same bytes.

mod commits;
mod entry;
mod frame;
mod message;
mod numbers;
mod snapshot;
mod squeeze;
mod stopped;

pub(crate) use commits::{
    Before, CommitParts, CommitsWriter, Packed, Rebuilt, Run, WireCommit, commit_bytes, commit_max,
};
#[cfg(test)]
pub(crate) use frame::HEADER_LEN;
#[cfg(any(test, feature = "internals-for-tests"))]
pub(crate) use frame::sealed;
pub(crate) use frame::{Messages, WireError};
pub(crate) use message::{
    Capped, Coming, FEATURES, Heads, Hello, Message, PageHead, Pull, PullOn, Reach, Relayed, STREAMS_MAX,
    Show, Shown, TooLong, WireClock, WireHead, WirePlace, WireRow, Words, ack, coming, damaged_places,
    greeting, hello, other_group, pull, pull_on, regressed, relayed, show, shown, stopped, stranger,
};
#[cfg(feature = "internals-for-tests")]
pub(crate) use message::{count_messages, split};
pub(crate) use snapshot::{
    Rows, RowsWriter, SnapshotHead, SnapshotPull, SnapshotRefusal, WireForgotten, WireStamped, snapshot_pull,
};
pub(crate) use stopped::Stopped;

#[cfg(test)]
mod tests;
