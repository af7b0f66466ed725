//! What a write decides: from the records that it reads to one batch, its replies, its events and its frame.
//!
//! | what | where |
//! |---|---|
//! | what the app's commits do, a round of them in one write | [`local`] |
//! | what the commits of others do | [`remote`] |
//! | what the values beside records do, once the app can merge them | [`fold`] |
//! | the rows of one write | [`draft`] |
//!
//! All of it is pure, and the same wherever the records were read: by the driver for a round, or inside a native
//! transaction for a joined write. What it needs beside the records is the [`Pen`].

mod draft;
mod fold;
mod local;
mod remote;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{ClockError, WallMs};
use crate::error::Error;
use crate::events::Notice;
use crate::hlc::{Hlc, HlcGenerator};
use crate::ids::ReplicaId;
use crate::member::Member;
use crate::storage::{Value, WriteBatch};
use crate::stored::keys::RecordKey;
use crate::stored::{Digest, Head, Identity};

use super::context::Context;
use super::ledger::Ledger;
use super::rules::Marks;
use super::{Rules, Ticket};
use draft::Draft;
pub(super) use fold::{Besides, FOLD_BYTES_MAX, FOLD_RECORDS_MAX, Folded};
pub(crate) use remote::{Received, lend_keys, take_keys_back};

/// The right to stamp: all that a write takes beside the records it changes.
///
/// There is one at a time. For a joined write the engine lends it and decides nothing until that write has ended. If the
/// write is durable, the ledger takes back what the pen drew; if it was undone, nobody has seen it.
#[derive(Clone, Debug)]
pub(crate) struct Pen {
    context: Arc<Context>,
    ledger: Arc<Ledger>,
    /// The clock, with what this pen drew from it.
    clock: HlcGenerator,
    kept_up_to: u64,
    /// Physical time, as read when the write began.
    wall: Result<WallMs, ClockError>,
    /// The own commits that every member has: the write prunes them from the log.
    stable: u64,
    /// Whether there is anybody to tell of a commit.
    connected: bool,
    marks: Marks,
}

impl Pen {
    pub(super) fn new(
        context: &Arc<Context>,
        ledger: &Arc<Ledger>,
        wall: Result<WallMs, ClockError>,
        stable: u64,
        connected: bool,
    ) -> Self {
        let mut clock = ledger.clock().clone();
        if let Ok(wall) = &wall {
            clock.see(*wall);
        }
        Self {
            context: Arc::clone(context),
            ledger: Arc::clone(ledger),
            clock,
            kept_up_to: ledger.kept_up_to(),
            wall,
            stable,
            connected,
            marks: Marks::default(),
        }
    }

    /// What the pen drew. The ledger that it read is let go, so that its owner may change it in place.
    pub(super) fn into_parts(self) -> (HlcGenerator, u64) {
        (self.clock, self.kept_up_to)
    }

    pub(super) fn marks(&self) -> Marks {
        self.marks
    }

    fn identity(&self) -> Identity {
        self.context.identity
    }

    fn rules(&self) -> &Rules {
        &self.context.rules
    }
}

/// What the app wants committed together: at most one change per record.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) changes: Vec<Staged>,
    /// Ids and values, as counted against the limits.
    pub(crate) bytes: usize,
}

/// One change that the app wants.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) record: RecordKey,
    pub(crate) action: Action,
    /// Whether the model brings its own merge.
    pub(crate) own_merge: bool,
}

/// What the app wants done with a record.
pub(crate) enum Action {
    Put(NewValue),
    Delete,
    /// Put what the closure makes of the current value.
    Update(Box<Update>),
}

type Update = dyn FnOnce(Option<Current<'_>>) -> Result<NewValue, Error> + Send;

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put(_) => "Put",
            Self::Delete => "Delete",
            Self::Update(_) => "Update",
        })
    }
}

/// A value as it stands in the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current<'a> {
    pub(crate) schema: u16,
    pub(crate) value: &'a [u8],
}

/// An encoded value, ready to be stored.
#[derive(Debug)]
pub(crate) struct NewValue {
    pub(crate) schema: u16,
    /// The value behind room for the record's header.
    pub(crate) record: Value,
    pub(crate) digest: Digest,
}

/// What a write decided.
#[derive(Debug)]
pub(crate) struct Decision {
    /// The rows to write; none if no commit changes anything.
    pub(crate) batch: WriteBatch,
    /// Calls that the write does not concern.
    pub(crate) settled: Vec<(Ticket, Result<(), Error>)>,
    /// Calls to answer once the write is durable, with what they are then told: a failure that rests on an
    /// earlier commit of the same round is one only if that commit is.
    pub(crate) waiting: Vec<(Ticket, Result<(), Error>)>,
    /// What to tell the subscribers then.
    pub(crate) notices: Vec<Notice>,
    /// The streams that the write moves, and their heads after it.
    pub(crate) heads: Vec<(ReplicaId, Head)>,
    /// The clock's high-water that the write stores.
    pub(crate) clock: Hlc,
    /// Members that are new or have changed.
    pub(crate) members: Vec<Member>,
    /// What to tell the peers.
    pub(crate) frame: Option<Bytes>,
}

impl Decision {
    /// That there is nothing to write and nothing to tell.
    pub(super) fn nothing(clock: Hlc) -> Self {
        Draft::new(clock).decision
    }
}
