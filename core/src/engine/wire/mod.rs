//! Frames: what replicas say to each other, as bytes.
//!
//! Bytes come from anybody. Nothing is taken from a length or a count before it was checked against what is there and
//! against its cap, nothing here nests, and no element is without bytes. Commits follow each other to the end of a
//! body without a count, each with its entry as its author wrote it and its values in one piece, which are cut where
//! the entry says how long each is.

mod commits;
mod frame;
mod message;

pub(crate) use commits::{CommitParts, PAGE_BYTES, WireCommit};
#[cfg(test)]
pub(crate) use frame::HEADER_LEN;
#[cfg(any(test, feature = "internals-for-tests"))]
pub(crate) use frame::sealed;
pub(crate) use frame::{MessageWriter, Messages};
#[cfg(feature = "internals-for-tests")]
pub(crate) use message::count_messages;
pub(crate) use message::{
    Capped, Heads, Hello, Message, PageHead, Pull, STREAMS_MAX, TooLong, WireHead, ack, hello, is_hello,
    pull, regressed, stranger,
};

#[cfg(test)]
mod tests;
