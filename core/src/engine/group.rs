//! What a group of commits decides: from the records it read to one batch, its replies and its events.
//!
//! The decision is the same wherever the records were read: by the driver for a group, or inside a native transaction
//! for a joined write. What it needs beside them is the [`Pen`].

use std::collections::BTreeMap;
use std::fmt;

use super::Ticket;
use crate::clock::{ClockError, WallMs};
use crate::error::Error;
use crate::events::{Change, ChangeKind, Event, Notice};
use crate::hlc::{Hlc, HlcGenerator};
use crate::ids::ReplicaId;
use crate::sorted::SortedMap;
use crate::storage::{Key, Value, WriteBatch};
use crate::stored::keys::{self, RecordKey};
use crate::stored::log::{LogEntryWriter, chain};
use crate::stored::record::{self, Header};
use crate::stored::{Digest, Head, Identity, clock_value};

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

/// What a group decided.
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
    /// The own head after the write.
    pub(crate) head: Head,
    /// The clock's high-water that the write stores.
    pub(crate) clock: Hlc,
}

/// A change that takes effect.
struct Effective {
    record: RecordKey,
    new: Option<NewValue>,
    /// The record it replaces, if that is in the store and not in this group.
    stored: Option<(Header, Value)>,
    kind: ChangeKind,
}

/// What a commit comes to, given what was there before it.
struct Outcome {
    /// The changes that take effect, perhaps none; or why there is none.
    changes: Result<Vec<Effective>, Error>,
    /// Whether that rests on nothing but what is durable already.
    durable: bool,
}

/// A group while its commits are decided one after the other.
struct Group {
    head: Head,
    /// The log is pruned up to here by the same write.
    floor: u64,
    /// The records as the group leaves them, in key order: also the order in which stores like to be written.
    records: SortedMap<RecordKey, (Header, Value)>,
    /// Log entries and kept values.
    rest: Vec<(Key, Value)>,
    decision: Decision,
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
        let mut group = Group {
            head: durable,
            floor: self.stable.clamp(durable.floor, durable.seq),
            records: SortedMap::new(),
            rest: Vec::new(),
            decision: Decision {
                batch: WriteBatch::new(),
                settled: Vec::new(),
                waiting: Vec::new(),
                notices: Vec::new(),
                head: durable,
                clock: self.clock.high_water(),
            },
        };
        let mut values = values.into_iter();
        for (ticket, commit) in commits {
            // Every commit takes its values, also one that fails at its first change.
            let stored: Vec<_> = values.by_ref().take(commit.changes.len()).collect();
            let Outcome { changes, durable } = group.outcome(commit, stored);
            let (result, waits) = match changes {
                Ok(changes) if changes.is_empty() => (Ok(()), !durable),
                Ok(changes) => match self.stamp() {
                    Ok(stamp) => {
                        self.apply(&mut group, stamp, changes);
                        (Ok(()), true)
                    }
                    Err(error) => (Err(error), false),
                },
                Err(error) => (Err(error), !durable),
            };
            let answers = if waits { &mut group.decision.waiting } else { &mut group.decision.settled };
            answers.push((ticket, result));
        }
        self.finish(group, durable)
    }

    fn stamp(&mut self) -> Result<Hlc, Error> {
        let wall = self.wall.clone()?;
        Ok(self.clock.stamp(wall)?)
    }

    /// Adds a commit to the group: its records, what they displace, its log entry, its event.
    fn apply(&mut self, group: &mut Group, stamp: Hlc, changes: Vec<Effective>) {
        let (device, seq) = (self.identity.device, group.head.seq + 1);
        let count = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        let mut entry = LogEntryWriter::new(device, stamp, count);
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            let Effective { record: key, new, stored, kind } = change;
            entry.push(&key, new.as_ref().map(|new| (new.schema, &new.digest)));
            let (schema, mut bytes) =
                new.map_or_else(|| (0, record::with_room(0)), |new| (new.schema, new.record));
            let header = Header { tombstone: kind == ChangeKind::Delete, schema, stamp, seq };
            header.write(&mut bytes);
            let displaced = group.records.insert(key.clone(), (header, bytes)).or(stored);
            if let Some((header, bytes)) = displaced {
                self.keep(group, &key, header, bytes);
            }
            events.push(Event::Changed(Change { record: key, kind, origin: device, stamp, seq }));
        }
        let entry = entry.finish();
        group.head = Head { seq, stamp, digest: chain(&group.head.digest, &entry), ..group.head };
        group.rest.push((keys::log(self.identity.replica, seq), entry));
        group.decision.notices.push(Notice::new(events));
    }

    /// Keeps a displaced value if a log entry here still needs it. Owned values are not kept: owned data
    /// replicates by state, and the record comes with the commit that replaced it.
    fn keep(&mut self, group: &mut Group, key: &RecordKey, header: Header, mut bytes: Value) {
        let author = header.stamp.replica();
        if header.tombstone || key.owner().is_some() || header.seq <= self.floor_of(author, group) {
            return;
        }
        if author == self.identity.replica {
            self.kept_up_to = self.kept_up_to.max(header.seq);
        }
        bytes.drain(..record::HEADER_LEN);
        group.rest.push((keys::kept(author, header.seq, key), bytes));
    }

    /// The sequence number up to which the log of a stream is gone once the group is written.
    fn floor_of(&self, replica: ReplicaId, group: &Group) -> u64 {
        if replica == self.identity.replica {
            group.floor
        } else {
            self.heads.get(&replica).map_or(u64::MAX, |head| head.floor)
        }
    }

    /// Turns the group into one batch.
    fn finish(&self, group: Group, durable: Head) -> Decision {
        let Group { mut head, floor, records, rest, mut decision } = group;
        if rest.is_empty() {
            return decision;
        }
        let replica = self.identity.replica;
        let batch = &mut decision.batch;
        if floor > durable.floor {
            (head.floor, head.floor_digest) = (durable.seq, durable.digest);
            let first = durable.floor + 1;
            let [log, kept] = keys::log_and_kept(replica, first, floor);
            // One entry is the rule: naming it is cheaper for a store than a range.
            if first == floor {
                batch.delete(keys::log(replica, first));
            } else {
                batch.delete_range(log);
            }
            if self.kept_up_to >= first {
                batch.delete_range(kept);
            }
        }
        for (key, value) in rest {
            batch.put(key, value);
        }
        for (key, (_, value)) in records {
            batch.put(key.into_bytes(), value);
        }
        batch.put(keys::head(replica), head.to_value());
        batch.put(keys::clock(), clock_value(self.clock.high_water()));
        (decision.head, decision.clock) = (head, self.clock.high_water());
        decision
    }
}

impl Group {
    /// Judges a commit against the store and the commits before it in the group, without touching either.
    fn outcome(&self, commit: Commit, stored: Vec<Option<Value>>) -> Outcome {
        let mut effective = Vec::with_capacity(commit.changes.len());
        let mut durable = true;
        for (staged, stored) in commit.changes.into_iter().zip(stored) {
            durable &= self.records.get(&staged.record).is_none();
            match self.judge(staged, stored) {
                Ok(change) => effective.extend(change),
                Err(error) => return Outcome { changes: Err(error), durable },
            }
        }
        Outcome { changes: Ok(effective), durable }
    }

    /// Judges one change; `None` if it changes nothing.
    fn judge(&self, staged: Staged, stored: Option<Value>) -> Result<Option<Effective>, Error> {
        let Staged { record: key, action } = staged;
        let in_group = self.records.get(&key);
        let stored = match stored {
            Some(bytes) if in_group.is_none() => Some((record::parse(&bytes)?.0, bytes)),
            _ => None,
        };
        let old = in_group.or(stored.as_ref()).filter(|(header, _)| !header.tombstone);
        let current =
            old.map(|(header, bytes)| Current { schema: header.schema, value: record::value_of(bytes) });
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
            (Some(old), Some(new))
                if old.schema == new.schema && old.value == record::value_of(&new.record) =>
            {
                return Ok(None);
            }
            (Some(_), Some(_)) => ChangeKind::Update,
        };
        Ok(Some(Effective { record: key, new, stored, kind }))
    }
}
