//! What a group of commits of this replica decides: from the records it read to one batch, its replies, its events and
//! the frame that tells the peers.
//!
//! The decision is the same wherever the records were read: by the driver for a group, or inside a native transaction
//! for a joined write. What it needs beside them is the [`Pen`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::draft::Draft;
use super::wire::{CommitParts, MessageWriter};
use super::{Rules, Ticket};
use crate::clock::{ClockError, WallMs};
use crate::error::Error;
use crate::events::{Change, ChangeKind, Event, Notice};
use crate::hlc::{Hlc, HlcGenerator};
use crate::ids::ReplicaId;
use crate::limits::{Limit, Limits};
use crate::member::Member;
use crate::model::Registry;
use crate::storage::{Value, WriteBatch};
use crate::stored::keys::RecordKey;
use crate::stored::log::{LogRowWriter, chain, split_row};
use crate::stored::record::{self, Header, Merged};
use crate::stored::{Digest, Head, Identity, ValueRef};

/// The right to stamp: all that a commit takes beside the records it changes.
///
/// There is one per replica. For a joined write the engine lends a copy and decides nothing until that write has
/// ended; if it is durable, the engine goes on with the copy, otherwise with its own.
#[derive(Clone, Debug)]
pub(crate) struct Pen {
    pub(crate) identity: Identity,
    pub(crate) clock: HlcGenerator,
    /// Every stream known here, by its writer.
    pub(crate) heads: BTreeMap<ReplicaId, Head>,
    /// No kept value of the own stream stands above this sequence number, so that writes need not look for any.
    pub(crate) kept_up_to: u64,
    /// Physical time, as last read.
    pub(crate) wall: Result<WallMs, ClockError>,
    /// The own commits that every member has: the next write prunes them from the log.
    pub(crate) stable: u64,
    /// The streams of others that moved since the last own commit: what the next one comes after.
    pub(crate) moved: BTreeSet<ReplicaId>,
    /// Whether there is anybody to tell of a commit.
    pub(crate) connected: bool,
    pub(crate) models: Arc<Registry>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) rules: Rules,
    /// What has happened, for tests.
    pub(crate) marks: u32,
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
    /// What to write; nothing if no commit changes anything.
    pub(crate) batch: WriteBatch,
    /// Calls that the write does not concern.
    pub(crate) settled: Vec<(Ticket, Result<(), Error>)>,
    /// Calls to answer once the write is durable, with what they are then told: a failure that rests on an
    /// earlier commit of the same group is one only if that commit is.
    pub(crate) waiting: Vec<(Ticket, Result<(), Error>)>,
    /// What to tell then.
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

/// A change that takes effect.
struct Effective {
    record: RecordKey,
    new: Option<NewValue>,
    /// The record it replaces, if that is in the store and not in this group.
    stored: Option<(Header, Value)>,
    kind: ChangeKind,
    /// For a model with its own merge, what its record said before.
    merge: Option<Merged>,
}

/// What a commit comes to, given what was there before it.
struct Outcome {
    /// The changes that take effect, perhaps none; or why there is none.
    changes: Result<Vec<Effective>, Error>,
    /// Whether that rests on nothing but what is durable already.
    durable: bool,
}

impl Pen {
    /// The head of the own stream.
    pub(crate) fn head(&self) -> Head {
        let replica = self.identity.replica;
        self.heads.get(&replica).copied().unwrap_or_else(|| Head::start(replica))
    }

    /// Decides a group, given the values of the records it names, in their order.
    pub(crate) fn decide(&mut self, commits: Vec<(Ticket, Commit)>, values: Vec<Option<Value>>) -> Decision {
        let durable = self.head();
        let mut draft = Draft::new(self.clock.high_water());
        // Where the write leaves the floor: what it displaces below is not kept.
        let floor = self.stable.clamp(durable.floor, durable.seq);
        draft.heads.insert(self.identity.replica, Head { floor, ..durable });
        let mut frame = self.connected.then(|| MessageWriter::live(self.identity.group));
        let mut values = values.into_iter();
        for (ticket, commit) in commits {
            // Every commit takes its values, also one that fails at its first change.
            let stored: Vec<_> = values.by_ref().take(commit.changes.len()).collect();
            let Outcome { changes, durable } = self.outcome(&draft, commit, stored);
            let (result, waits) = match changes {
                Ok(changes) if changes.is_empty() => (Ok(()), !durable),
                Ok(changes) => match self.stamp() {
                    Ok(stamp) => (self.apply(&mut draft, &mut frame, stamp, changes), true),
                    Err(error) => (Err(error), false),
                },
                Err(error) => (Err(error), !durable),
            };
            let answers = if waits { &mut draft.decision.waiting } else { &mut draft.decision.settled };
            answers.push((ticket, result));
        }
        if draft.rest.is_empty() {
            draft.heads.clear();
        } else {
            let frame = frame.map(MessageWriter::finish);
            draft.decision.frame = frame.filter(|frame| frame.len() <= self.limits.frame_bytes_max);
            if let Some(head) = draft.heads.get_mut(&self.identity.replica) {
                (head.floor, head.floor_digest) = (durable.floor, durable.floor_digest);
            }
        }
        self.finish(draft, floor)
    }

    fn stamp(&mut self) -> Result<Hlc, Error> {
        let wall = self.wall.clone()?;
        Ok(self.clock.stamp(wall)?)
    }

    /// Adds a commit to the write: its records, what they displace, its log entry, its event.
    fn apply(
        &mut self,
        draft: &mut Draft,
        frame: &mut Option<MessageWriter>,
        stamp: Hlc,
        changes: Vec<Effective>,
    ) -> Result<(), Error> {
        let (device, replica) = (self.identity.device, self.identity.replica);
        let head = self.head_in(draft, replica);
        let seq = head.seq + 1;
        let after = self.causes(&head);
        let mut row = LogRowWriter::new(&head.digest, device, stamp, &after, changes.len());
        let mut events = Vec::with_capacity(changes.len());
        let mut values = Vec::new();
        for change in changes {
            let Effective { record: key, new, stored, kind, merge } = change;
            let value = new.as_ref().map(|NewValue { schema, record, digest }| {
                let value = record::value_of(record);
                if frame.is_some() {
                    values.extend_from_slice(value);
                }
                let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
                ValueRef { schema: *schema, len, digest: *digest }
            });
            row.push(&key, value, merge.map(|merge| if new.is_some() { merge.epoch } else { stamp }));
            let merge = merge.map(|before| match new {
                Some(_) => Merged { mixed: false, ..before },
                None => {
                    if before.beside {
                        draft.drop_besides(&key);
                    }
                    Merged::plain(stamp)
                }
            });
            let (schema, mut bytes) = new
                .map_or_else(|| (0, record::with_room(merge.is_some(), 0)), |new| (new.schema, new.record));
            let header = Header { tombstone: kind == ChangeKind::Delete, schema, stamp, seq, merge };
            header.write(&mut bytes);
            self.replace(draft, &key, header, bytes, stored)?;
            events.push(Event::Changed(Change { record: key, kind, origin: device, stamp, seq }));
        }
        let row = row.finish();
        let (previous, entry) = split_row(&row)?;
        let digest = chain(&head.digest, entry);
        if let Some(frame) = frame {
            let parts = CommitParts { stream: replica, seq, previous: &previous, entry, values: &values };
            frame.push(&parts);
        }
        draft.log(&head, stamp, digest, row);
        draft.tell(&mut events);
        Ok(())
    }

    /// The heads that moved since the last own commit, for the first commit of a write: the others add nothing.
    fn causes(&self, head: &Head) -> Vec<(ReplicaId, u64)> {
        if head.seq != self.head().seq {
            return Vec::new();
        }
        let moved = self.moved.iter().filter_map(|replica| self.heads.get_key_value(replica));
        moved.filter(|(_, head)| head.seq > 0).map(|(replica, head)| (*replica, head.seq)).collect()
    }

    /// Judges a commit against the store and the commits before it in the group, without touching either.
    fn outcome(&self, draft: &Draft, commit: Commit, stored: Vec<Option<Value>>) -> Outcome {
        let mut effective = Vec::with_capacity(commit.changes.len());
        let mut durable = true;
        let mut bytes = 0_usize;
        for (staged, stored) in commit.changes.into_iter().zip(stored) {
            durable &= draft.records.get(&staged.record).is_none();
            match judge(draft, staged, stored) {
                Ok(Some(change)) => {
                    let value = change.new.as_ref().map_or(0, |new| record::value_of(&new.record).len());
                    bytes = bytes.saturating_add(change.record.id_bytes().len() + value);
                    effective.push(change);
                }
                Ok(None) => {}
                Err(error) => return Outcome { changes: Err(error), durable },
            }
        }
        // What is merged may have grown since it was staged, and every commit must fit a frame.
        if bytes > self.limits.commit_bytes_most() {
            let limit = Limit { name: "commit_bytes_max", max: self.limits.commit_bytes_max };
            return Outcome { changes: Err(Error::TooLarge { size: bytes, limit }), durable };
        }
        Outcome { changes: Ok(effective), durable }
    }
}

/// Judges one change; `None` if it changes nothing.
fn judge(draft: &Draft, staged: Staged, stored: Option<Value>) -> Result<Option<Effective>, Error> {
    let Staged { record: key, action, own_merge } = staged;
    let stored = match stored {
        Some(bytes) if draft.records.get(&key).is_none() => Some((record::parse(&bytes)?.0, bytes)),
        _ => None,
    };
    let before = draft.before(&key, stored.as_ref());
    if let Some(before) = before
        && before.header.merge.is_some() != own_merge
    {
        return Err(Error::OtherMerge { record: key });
    }
    let merge = own_merge.then(|| {
        let known = before.and_then(|before| before.header.merge);
        known.unwrap_or(Merged::plain(Hlc::NEVER))
    });
    let old = before.filter(|before| !before.header.tombstone);
    let current = old.as_ref().map(|old| Current { schema: old.header.schema, value: old.value() });
    let new = match action {
        Action::Put(new) => Some(new),
        Action::Delete => None,
        Action::Update(update) => Some(update(current)?),
    };
    let kind = match (current, &new) {
        (None, None) => return Ok(None),
        (None, Some(_)) => ChangeKind::Insert,
        (Some(_), None) => ChangeKind::Delete,
        (Some(old), Some(new)) if old.schema > new.schema => {
            return Err(Error::NewerSchema { record: key, stored: old.schema, known: new.schema });
        }
        (Some(old), Some(new)) if old.schema == new.schema && old.value == record::value_of(&new.record) => {
            return Ok(None);
        }
        (Some(_), Some(_)) => ChangeKind::Update,
    };
    Ok(Some(Effective { record: key, new, stored, kind, merge }))
}
