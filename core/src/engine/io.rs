//! Inputs and effects: all that goes into an engine, and all that comes out of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::check::LogCheck;
use crate::error::{Error, SharedError};
use crate::events::Notice;
use crate::ids::{DeviceId, ReplicaId};
use crate::joined::Joined;
use crate::projection::{Mended, Settled};
use crate::storage::{Key, KeyRange, ReadError, ScanLimit, ScanPage, Value, WriteBatch};
use crate::synced::{DurableOn, Synced};

use super::commit::{Commit, Pen, Received};
use super::waits::Wanted;

/// Names a call that waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// Names a job of the store, so that its result cannot be taken for the result of another job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct JobId(pub(crate) u64);

/// A read for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// The first entries of a range.
    Scan(KeyRange, ScanLimit),
    /// The values of keys.
    Get(Vec<Key>),
    /// How many entries a range has.
    Count(KeyRange),
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The page of a scan.
    Page(ScanPage),
    /// The values of the keys, in their order.
    Values(Vec<Option<Value>>),
    /// The entries of the range, and the bytes of their keys and values.
    Count(u64, u64),
}

/// An event that an engine is told of.
#[derive(Debug)]
pub(crate) enum Input {
    /// The app wants to commit this.
    Commit(Ticket, Commit),
    /// The app wants a joined write; the driver keeps the work that belongs to the ticket.
    Join(Ticket),
    /// The keys of the last [`Effect::Read`], and their values in the same order.
    Read(JobId, Vec<Key>, Result<Vec<Option<Value>>, ReadError>),
    /// The page that the last [`Effect::Scan`] found.
    Scanned(JobId, Result<ScanPage, ReadError>),
    /// The last [`Effect::Write`] is durable, or certainly not applied. Any other result is no input: the driver drops
    /// the engine, and the app reopens the store.
    Written(JobId, Result<(), Unwritten>),
    /// The last [`Effect::Round`], [`Effect::Join`] or [`Effect::Receive`] is durable, with the pen as the write left it and its decision;
    /// or certainly undone.
    Joined(JobId, Joined),
    /// The last [`Effect::WriteProjected`] is durable, or certainly undone.
    Projected(JobId, Result<Settled, Error>),
    /// The last [`Effect::Mend`] has ended.
    Mended(JobId, Mended),
    /// The answer to an [`Effect::Find`].
    Found(JobId, Result<Answer, ReadError>),
    /// A peer can be reached.
    Up(ReplicaId),
    /// A peer cannot be reached any more.
    Down(ReplicaId),
    /// A peer sent this frame.
    Frame(ReplicaId, Bytes),
    /// The app wants the logs here checked.
    CheckLog(Ticket),
    /// The app wants to add a replica, whose device it will say when it knocks.
    AwaitKnock(Ticket, ReplicaId),
    /// The app waits until the members are level with this replica, for so many milliseconds.
    WaitSynced(Ticket, u64),
    /// The app waits until a commit is durable on enough members, for so many milliseconds.
    WaitDurable(Ticket, Wanted, u64),
    /// The app waits no more for members.
    Forget(Ticket),
    /// No peer can be reached any more.
    Offline,
    /// Time has passed.
    Tick,
}

/// Why a write was certainly not applied.
#[derive(Clone, Debug)]
pub(crate) enum Unwritten {
    /// The same write may succeed later.
    Rejected(SharedError),
    /// The same write never will, since the store takes less.
    TooLarge(SharedError),
}

impl Unwritten {
    /// The error of a call whose commit was in the write, perhaps with `others`: these may have made it too large.
    pub(crate) fn error(&self, others: bool) -> Error {
        match self {
            Self::TooLarge(error) if !others => Error::TooLargeForStore(Arc::clone(error)),
            Self::Rejected(error) | Self::TooLarge(error) => Error::Rejected(Arc::clone(error)),
        }
    }
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(error) | Self::TooLarge(error) => error.fmt(f),
        }
    }
}

/// What a read of records shows beside the records themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// No record at all: a snapshot is being put in its place, and is not whole.
    Hidden,
    /// The staged records, joined with the live ones. A snapshot that began at these heads is being folded.
    Joined(Arc<BTreeMap<ReplicaId, u64>>),
}

/// Work that an engine wants done, in this order.
///
/// The effects from [`Effect::Read`] to [`Effect::Mend`] are the write lane: one of them is under way at a time.
/// [`Effect::Find`] is the read lane, and goes on beside it.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Read these keys, then tell [`Input::Read`], with the keys: they are lent, not copied.
    Read(JobId, Vec<Key>),
    /// Read the first entries of a range, then tell [`Input::Scanned`].
    Scan(JobId, KeyRange, ScanLimit),
    /// Write this, then tell [`Input::Written`].
    Write(JobId, WriteBatch),
    /// Commit and project this round in one native transaction, then tell [`Input::Joined`].
    Round(JobId, Vec<(Ticket, Commit)>, Box<Pen>),
    /// Do the work of this ticket in one native transaction, then tell [`Input::Joined`].
    Join(JobId, Ticket, Box<Pen>),
    /// Apply these commits of others in one native transaction, then tell [`Input::Joined`].
    Receive(JobId, Vec<Received>, Box<Pen>),
    /// Write this and project it in one native transaction, then tell [`Input::Projected`].
    WriteProjected(JobId, WriteBatch),
    /// Do the next step towards projections that are complete and owe nothing, then tell [`Input::Mended`].
    Mend(JobId),
    /// No value lies beside a record any more that this version of the app could merge.
    Folded,
    /// Values may lie beside records again that this version of the app can merge.
    Folding,
    /// From now on, read records like this.
    Overlay(Overlay),
    /// Read this for a peer, then tell [`Input::Found`].
    Find(JobId, Query),
    /// Send this frame to a peer.
    Send(ReplicaId, Bytes),
    /// Send this frame to these peers.
    Broadcast(Vec<ReplicaId>, Bytes),
    /// Answer a call.
    Reply(Ticket, Result<(), Error>),
    /// Answer a call that asked for the device of a replica that it wants to add.
    Knocked(Ticket, Result<DeviceId, Error>),
    /// Answer a call that asked for a check of the logs.
    Checked(Ticket, Result<LogCheck, Error>),
    /// Answer a call that waits for the members.
    Synced(Ticket, Result<Synced, Error>),
    /// Answer a call that waits for a commit to be durable on so many members.
    Durable(Ticket, usize, Result<DurableOn, Error>),
    /// Tell the subscribers.
    Notify(Notice),
}
