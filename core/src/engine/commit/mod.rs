//! Deciding a write: from the records that it reads to one batch, its replies, its events and its frame.
//!
//! | what | where |
//! |---|---|
//! | the app's commits, a round of them in one write | [`local`] |
//! | the commits of other replicas | [`remote`] |
//! | what these rest on, compared with what is here | [`causes`] |
//! | the values beside records, once the app can merge them | [`fold`] |
//! | the rows of one write | [`draft`] |
//! | the records that a write touches | [`touched`] |
//! | a snapshot that is being installed | [`stage`] |
//!
//! Deciding is pure, and the same wherever the records were read: by the driver for a round, or inside a native
//! transaction for a joined write. The [`Pen`] has all that it needs beside the records.

mod causes;
mod draft;
mod fold;
mod local;
mod remote;
mod stage;
mod touched;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{ClockError, WallMs};
use crate::error::Error;
use crate::events::{Damage, Notice, Restored};
use crate::hlc::{Hlc, HlcGenerator};
use crate::ids::ReplicaId;
use crate::join_wait::JoinWait;
use crate::member::Member;
use crate::storage::{Key, Value, WriteBatch};
use crate::stored::keys::RecordKey;
use crate::stored::{Digest, Head, Identity};

use super::context::Context;
use super::ledger::Ledger;
use super::rules::Marks;
use super::{Rules, Ticket};
pub(crate) use causes::Elsewhere;
pub(super) use causes::{Causes, Digests};
use draft::Draft;
pub(super) use fold::{Besides, FOLD_BYTES_MAX, FOLD_RECORDS_MAX, FOLD_VALUES_MAX, Folded};
pub(crate) use remote::Received;
pub(in crate::engine) use stage::Pair;
pub(crate) use stage::{Joined, join};
pub(crate) use touched::{Places, lend_keys, take_keys_back};

/// The right to stamp: all that a write needs beside the records that it changes.
///
/// There is one pen at a time. For a joined write the engine lends it and decides nothing until that write has ended.
/// If the write is durable, the ledger takes back what the pen drew; if it was undone, no stamp of it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Pen {
    context: Arc<Context>,
    ledger: Arc<Ledger>,
    /// The clock, with what this pen drew from it.
    clock: HlcGenerator,
    kept_up_to: u64,
    /// The wall clock, as read when the write began.
    wall: Result<WallMs, ClockError>,
    /// The sequence number up to which every member has the own stream: the write prunes the log up to it.
    stable: u64,
    /// Whether a peer is up, to which the commits go as a frame.
    connected: bool,
    /// Why this replica may not commit, if so: then this pen writes no change.
    refusal: Option<Refusal>,
    /// The digests on which received commits may rest, as far as they stand in the log.
    digests: Digests,
    /// Values of live records that staged ones displace: they are kept with the write.
    ahead: Vec<(Key, Value)>,
    marks: Marks,
}

/// Why a replica may not commit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The replica waits for its own member record, for this reason.
    Joining(JoinWait),
    /// Its store was restored or cloned.
    Restored(Restored),
    /// The end of its own log is damaged.
    Damaged(Damage),
}

impl Refusal {
    /// The answer to a call of the replica `me` that would commit.
    pub(in crate::engine) fn error(self, me: ReplicaId) -> Error {
        match self {
            Self::Joining(wait) => Error::Joining { replica: me, wait },
            Self::Restored(restored) => Error::Restored(restored),
            Self::Damaged(damage) => Error::LogDamaged(damage),
        }
    }
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
            refusal: None,
            digests: Digests::new(),
            ahead: Vec::new(),
            marks: Marks::default(),
        }
    }

    /// The pen of a replica that may not commit, if there is a `refusal`. A joined write that changes no record needs
    /// no right to commit.
    pub(super) fn refusing(self, refusal: Option<Refusal>) -> Self {
        Self { refusal, ..self }
    }

    /// The pen for received commits, which compares their causes with these digests.
    pub(super) fn comparing(self, digests: Digests) -> Self {
        Self { digests, ..self }
    }

    /// Lets the clock follow a stamp.
    pub(super) fn follows(&mut self, stamp: Hlc) {
        self.clock.follow(stamp);
    }

    /// The highest stamp that the pen drew or saw.
    pub(super) fn high_water(&self) -> Hlc {
        self.clock.high_water()
    }

    /// The clock and `kept_up_to` as the pen left them. The pen drops the ledger that it read, so that the engine may
    /// change the ledger in place.
    pub(super) fn into_parts(self) -> (HlcGenerator, u64) {
        (self.clock, self.kept_up_to)
    }

    pub(super) fn marks(&self) -> Marks {
        self.marks
    }

    /// The replica that has this pen.
    pub(crate) fn me(&self) -> ReplicaId {
        self.context.me()
    }

    fn identity(&self) -> Identity {
        self.context.identity
    }

    fn rules(&self) -> &Rules {
        &self.context.rules
    }
}

/// Changes that the app wants to commit together: at most one per record.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) changes: Vec<Staged>,
    /// The bytes of ids and values, as counted against the limits.
    pub(crate) bytes: usize,
}

impl Commit {
    /// A copy of the commit, so that it can be decided twice; `None` if it has an update, whose closure runs once.
    pub(crate) fn copy(&self) -> Option<Self> {
        let changes: Option<_> = self.changes.iter().map(Staged::copy).collect();
        changes.map(|changes| Self { changes, bytes: self.bytes })
    }

    /// Whether the commit can be decided only once.
    pub(super) fn has_update(&self) -> bool {
        self.changes.iter().any(|change| matches!(change.action, Action::Update(_) | Action::Stamped(_)))
    }
}

impl Staged {
    fn copy(&self) -> Option<Self> {
        let action = match &self.action {
            Action::Put(new) => Action::Put(new.clone()),
            Action::Delete => Action::Delete,
            Action::Update(_) | Action::Stamped(_) => return None,
        };
        Some(Self { record: self.record.clone(), action, own_merge: self.own_merge })
    }
}

/// One change that the app wants.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) record: RecordKey,
    pub(crate) action: Action,
    /// Whether the model brings its own merge.
    pub(crate) own_merge: bool,
}

/// The kind of a change, with its value.
pub(crate) enum Action {
    Put(NewValue),
    Delete,
    /// Do what the closure makes of the current value.
    Update(Box<Update>),
    /// The same, with the closure that is made for the stamp of the commit.
    Stamped(Box<dyn FnOnce(Hlc) -> Box<Update> + Send>),
}

pub(crate) type Update = dyn FnOnce(Option<Current<'_>>) -> Result<Updated, Error> + Send;

/// The outcome of an update's closure for its record.
#[derive(Debug)]
pub(crate) enum Updated {
    Put(NewValue),
    Delete,
    Keep,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put(_) => "Put",
            Self::Delete => "Delete",
            Self::Update(_) => "Update",
            Self::Stamped(_) => "Stamped",
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
#[derive(Clone, Debug)]
pub(crate) struct NewValue {
    pub(crate) schema: u16,
    /// The value, behind room for the header of its record.
    pub(crate) record: Value,
    pub(crate) digest: Digest,
}

/// The decision of a write.
#[derive(Debug)]
pub(crate) struct Decision {
    /// The rows to write; none if no commit changes anything.
    pub(crate) batch: WriteBatch,
    /// The commits of a round for which there was no room in the write.
    pub(crate) undecided: Vec<(Ticket, Commit)>,
    /// Calls to answer at once, since their answers do not depend on the write.
    pub(crate) settled: Vec<(Ticket, Result<(), Error>)>,
    /// Calls to answer once the write is durable, each with its answer. A failure that rests on an earlier commit of
    /// the same round is one only if that commit becomes durable.
    pub(crate) waiting: Vec<(Ticket, Result<(), Error>)>,
    /// The events to tell once the write is durable.
    pub(crate) notices: Vec<Notice>,
    /// The streams that the write moves, and their heads after it.
    pub(crate) heads: Vec<(ReplicaId, Head)>,
    /// The clock's high-water that the write stores.
    pub(crate) clock: Hlc,
    /// Members that are new or have changed.
    pub(crate) members: Vec<Member>,
    /// The bytes of log rows and kept values in the write.
    pub(crate) logged_bytes: u64,
    /// The lowest commit of each stream of which the write has a tombstone.
    pub(crate) tombstones: BTreeMap<ReplicaId, u64>,
    /// The frame for the peers, once the write is durable.
    pub(crate) frame: Option<Bytes>,
    /// Whether a projection owes a record of the write.
    pub(crate) owes: bool,
    /// The received commit at which the write was cut, since it rests on another history.
    pub(crate) elsewhere: Option<Elsewhere>,
}

impl Decision {
    /// The decision to write nothing and to tell nothing.
    pub(super) fn nothing(clock: Hlc) -> Self {
        Draft::new(clock).decision
    }
}
