//! What the tests of single machines are made of: replicas, heads and commits that are made up, so that a machine is
//! tested with no engine around it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{Mono, Now, WallMs};
use crate::error::panic_message;
use crate::events::RecordKey;
use crate::hlc::{Hlc, HlcGenerator};
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::limits::Limits;
use crate::member::Member;
use crate::model::Registry;
use crate::storage::Value;
use crate::stored::log::{LogRowWriter, chain, split_row};
use crate::stored::{Cause, Digest, Head, Identity, LogEntry, ValueRef, digest};
use crate::syncable::{Shared, Syncable};

use super::Rules;
use super::commit::Received;
use super::context::Context;
use super::ledger::Ledger;
use super::wire::{Capped, CommitParts, Pull, WireCommit};

/// The replica of the machine that is tested, and two others.
pub(super) const ME: ReplicaId = replica(0xe);
pub(super) const B: ReplicaId = replica(0xb);
pub(super) const C: ReplicaId = replica(0xc);

pub(super) const fn replica(n: u128) -> ReplicaId {
    ReplicaId(Uuid::from_u128(n))
}

/// The group of all of them.
pub(super) const GROUP: GroupId = GroupId(Uuid::from_u128(0xf));

/// The device that a replica of a test runs on.
pub(super) const fn device(replica: ReplicaId) -> DeviceId {
    DeviceId(replica.0)
}

pub(super) const fn member(replica: ReplicaId) -> Member {
    Member::new(replica, device(replica))
}

/// Both clocks at the same reading.
pub(super) fn now(ms: u64) -> Now {
    Now { wall: WallMs::new(ms), mono: Mono(ms) }
}

pub(super) fn stamp(wall: u64, replica: ReplicaId) -> Hlc {
    Hlc::new(WallMs::new(wall).unwrap(), 0, replica)
}

/// The context of `ME`: all rules, the default limits, none of an app's models.
pub(super) fn context() -> Context {
    Context {
        identity: Identity { group: GROUP, device: device(ME), replica: ME },
        limits: Arc::new(Limits::default()),
        rules: Rules::ALL,
        models: Arc::new(Registry::new()),
        projected: Vec::new(),
        networked: true,
        session: 1,
        checked: true,
    }
}

/// The head of a stream whose every commit was stamped at its sequence number.
pub(super) fn head(stream: ReplicaId, seq: u64) -> Head {
    Head { seq, stamp: stamp(seq, stream), digest: [seq.to_le_bytes()[0]; 32], ..Head::start(GROUP, stream) }
}

/// The ledger of `ME` in a store with these heads, whose clock is as high as the highest of them.
pub(super) fn ledger(heads: impl IntoIterator<Item = (ReplicaId, Head)>) -> Ledger {
    let heads: BTreeMap<_, _> = heads.into_iter().collect();
    let wall = heads.values().map(|head| head.stamp.wall()).max().unwrap_or(WallMs::MIN);
    Ledger::opened(GROUP, heads, HlcGenerator::new(Hlc::new(wall, 0, ME), Limits::default().max_drift_ms))
}

/// What the assertion says that does not hold; `None` if all of them do.
pub(super) fn complaint<T>(check: impl FnOnce() -> T) -> Option<String> {
    catch_unwind(AssertUnwindSafe(check)).err().map(|panic| panic_message(&*panic))
}

/// A set whose merge is the union.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bag {
    pub(crate) id: u32,
    pub(crate) items: BTreeSet<u32>,
}

impl Syncable for Bag {
    const SYNC_MODEL: &'static str = "bag";
    type Id = u32;
    type Ownership = Shared;
    const OWN_MERGE: bool = true;

    fn sync_id(&self) -> u32 {
        self.id
    }

    fn merge(mut self, other: Self) -> Self {
        self.items.extend(other.items);
        self
    }
}

/// The record of a model that no app has registered and that has no merge of its own.
pub(super) fn note(id: u8) -> RecordKey {
    RecordKey::from_parts("note", None, &[id])
}

/// A pull that asks for everything, whatever its length.
pub(super) const fn pull_all() -> Pull {
    Pull {
        id: 7,
        budget: 1 << 20,
        frame_bytes: u32::MAX,
        heads: Capped(Vec::new()),
        excluded: Capped(Vec::new()),
    }
}

/// A record, its value unless it is deleted, and its epoch if its model brings its own merge.
pub(super) type Write = (RecordKey, Option<Value>, Option<Hlc>);

/// The author of a stream, who writes whatever a test wants.
#[derive(Clone)]
pub(super) struct Author {
    pub(super) stream: ReplicaId,
    pub(super) device: DeviceId,
    /// The stream as it is after the last commit.
    pub(super) head: Head,
    /// The wall time of the next commit.
    pub(super) wall: u64,
}

/// A commit of an [`Author`].
#[derive(Clone)]
pub(super) struct Made {
    pub(super) stream: ReplicaId,
    pub(super) seq: u64,
    pub(super) row: Value,
    pub(super) values: Vec<Option<Bytes>>,
}

impl Author {
    pub(super) fn new(stream: ReplicaId) -> Self {
        Self { stream, device: device(stream), head: Head::start(GROUP, stream), wall: 1000 }
    }

    /// Commits what rests on the commits in `after`.
    pub(super) fn commit(&mut self, after: &[(ReplicaId, u64)], mut writes: Vec<Write>) -> Made {
        let stamp = stamp(self.wall, self.stream);
        self.wall += 1;
        writes.sort_by(|one, other| one.0.cmp(&other.0));
        // No machine compares the digests of causes.
        let cause = |(stream, seq): &(ReplicaId, u64)| Cause { stream: *stream, seq: *seq, check: [0; 8] };
        let after: Vec<_> = after.iter().map(cause).collect();
        let mut row = LogRowWriter::new(&self.head.digest, self.device, stamp, &after, writes.len());
        for (record, value, epoch) in &writes {
            let reference = value.as_ref().map(|value| ValueRef::new(1, value.len(), digest(value)));
            row.push(record, reference, *epoch);
        }
        let row = row.finish();
        let digest = chain(&self.head.digest, split_row(&row).unwrap().1);
        self.head = self.head.next(stamp, digest);
        let values = writes.into_iter().map(|(_, value, _)| value.map(Bytes::from)).collect();
        Made { stream: self.stream, seq: self.head.seq, row, values }
    }

    /// Puts a note.
    pub(super) fn note(&mut self, id: u8, text: &str) -> Made {
        self.commit(&[], vec![(note(id), Some(text.into()), None)])
    }
}

impl Made {
    pub(super) fn previous(&self) -> Digest {
        split_row(&self.row).unwrap().0
    }

    pub(super) fn raw(&self) -> &[u8] {
        split_row(&self.row).unwrap().1
    }

    pub(super) fn entry(&self) -> LogEntry {
        LogEntry::parse(self.stream, self.raw()).unwrap()
    }

    /// All values of the commit, one after the other.
    pub(super) fn joined(&self) -> Vec<u8> {
        self.values.iter().flatten().flatten().copied().collect()
    }

    /// The commit as it is written into a message, with its [values](Made::joined).
    pub(super) fn parts<'a>(&'a self, values: &'a [u8]) -> CommitParts<'a> {
        let (previous, entry) = self.row.split_first_chunk().unwrap();
        CommitParts { stream: self.stream, seq: self.seq, previous, entry, values }
    }

    /// The commit as a peer sends it.
    pub(super) fn wire(&self) -> WireCommit {
        WireCommit {
            stream: self.stream,
            seq: self.seq,
            previous: self.previous(),
            entry: Bytes::copy_from_slice(self.raw()),
            values: self.joined().into(),
        }
    }

    /// The commit as it waits in the inbox.
    pub(super) fn received(&self) -> Received {
        Received {
            from: self.stream,
            stream: self.stream,
            seq: self.seq,
            previous: self.previous(),
            digest: chain(&self.previous(), self.raw()),
            entry: self.entry(),
            raw: Bytes::copy_from_slice(self.raw()),
            values: self.values.clone(),
        }
    }
}
