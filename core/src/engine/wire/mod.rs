//! Frames: the messages between replicas, as bytes.
//!
//! A frame may come from anyone. So no length and no count is used before it was checked against the bytes that are
//! there and against its cap, no message nests, and no element is without bytes. Commits stand one after another to the
//! end of a body without a count, each with its entry as its author wrote it and its values in one piece, which is cut
//! where the entry says how long each value is.

mod commits;
mod frame;
mod message;
mod stopped;

pub(crate) use commits::{CommitParts, WireCommit, commit_max};
#[cfg(test)]
pub(crate) use frame::HEADER_LEN;
#[cfg(any(test, feature = "internals-for-tests"))]
pub(crate) use frame::sealed;
pub(crate) use frame::{MessageWriter, Messages, WireError};
#[cfg(feature = "internals-for-tests")]
pub(crate) use message::count_messages;
pub(crate) use message::{
    Capped, FEATURES, Heads, Hello, Message, PageHead, Pull, Relayed, STREAMS_MAX, Show, Shown, TooLong,
    WireClock, WireHead, WirePlace, WireRow, Words, ack, damaged_places, greeting, hello, other_group, pull,
    regressed, relayed, show, shown, stopped, stranger,
};
pub(crate) use stopped::Stopped;

#[cfg(test)]
mod tests;
