//! What an engine is told and what it wants done.

use bytes::Bytes;

use crate::error::{Error, SharedError};
use crate::events::Notice;
use crate::ids::ReplicaId;
use crate::projection::ProjectionStatus;
use crate::storage::{Entry, Key, KeyRange, ReadError, Value, WriteBatch};

use super::commit::{Commit, Decision, Pen, Received};

/// Names a call that waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// Names a piece of work that the store does, so that its result cannot be taken for that of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct JobId(pub(crate) u64);

/// What to read for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// The first entries of a range.
    Scan(KeyRange, usize),
    /// The values of keys.
    Get(Vec<Key>),
}

/// What a [`Query`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The entries of a scan.
    Entries(Vec<Entry>),
    /// The values of the keys, in their order.
    Values(Vec<Option<Value>>),
}

/// What happens to an engine.
#[derive(Debug)]
pub(crate) enum Input {
    /// The app wants this committed.
    Commit(Ticket, Commit),
    /// The app wants a joined write; the driver has the work that belongs to the ticket.
    Join(Ticket),
    /// The keys of the last [`Effect::Read`], and their values in the same order.
    Read(JobId, Vec<Key>, Result<Vec<Option<Value>>, ReadError>),
    /// The entries that the last [`Effect::Scan`] found.
    Scanned(JobId, Result<Vec<Entry>, ReadError>),
    /// The last [`Effect::Write`] is durable, or certainly not applied. Any other outcome is no input: the
    /// driver drops the engine, and the app reopens the store.
    Written(JobId, Result<(), SharedError>),
    /// The last [`Effect::Join`] or [`Effect::Receive`] is durable, with the pen as it left it and what it decided; or
    /// certainly undone.
    Joined(JobId, Result<Box<(Pen, Decision)>, Error>),
    /// The last [`Effect::WriteProjected`] is durable, or certainly undone.
    Projected(JobId, Result<(), Error>),
    /// The last [`Effect::Rebuild`] has ended: what to tell of it; or there is nothing more to rebuild.
    Rebuilt(JobId, Option<Option<ProjectionStatus>>),
    /// What an [`Effect::Find`] found.
    Found(JobId, Result<Answer, ReadError>),
    /// A peer can be reached.
    Up(ReplicaId),
    /// A peer cannot be reached any more.
    Down(ReplicaId),
    /// A peer sent this.
    Frame(ReplicaId, Bytes),
    /// No peer can be reached any more.
    Offline,
    /// Time has passed.
    Tick,
}

/// What an engine wants done, in this order.
///
/// The first six are the write lane: one of them is under way at a time. [`Effect::Find`] is the read lane, and goes on
/// beside it.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Read these keys, then tell [`Input::Read`], with the keys: they are lent, not copied.
    Read(JobId, Vec<Key>),
    /// Read the first entries of a range, then tell [`Input::Scanned`].
    Scan(JobId, KeyRange, usize),
    /// Write this, then tell [`Input::Written`].
    Write(JobId, WriteBatch),
    /// Do the work of this ticket in one native transaction, then tell [`Input::Joined`].
    Join(JobId, Ticket, Box<Pen>),
    /// Apply these commits of others in one native transaction, then tell [`Input::Joined`].
    Receive(JobId, Vec<Received>, Box<Pen>),
    /// Write this and project it in one native transaction, then tell [`Input::Projected`].
    WriteProjected(JobId, WriteBatch),
    /// Rebuild a page of a projection, then tell [`Input::Rebuilt`].
    Rebuild(JobId),
    /// Nothing lies beside a record any more that this version of the app could merge.
    Folded,
    /// These projections begin from nothing.
    Reset(Vec<&'static str>),
    /// Read this for a peer, then tell [`Input::Found`].
    Find(JobId, Query),
    /// Send this to a peer.
    Send(ReplicaId, Bytes),
    /// Send this to these peers.
    Broadcast(Vec<ReplicaId>, Bytes),
    /// Answer a call.
    Reply(Ticket, Result<(), Error>),
    /// Tell the subscribers.
    Notify(Notice),
}
