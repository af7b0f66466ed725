//! Goal: an engine decides rightly, rule by rule. Method: a real engine whose effects are performed by hand over a map
//! ([`World`]), and peers that are made up frame by frame ([`Author`]). Where a test speaks of a rule of [`Rules`],
//! that rule is also switched off, and the same inputs then do harm.
//!
//! A test reaches the inside of the engine through [`peek`] alone.
//!
//! | subject | files |
//! |---|---|
//! | the app's own commits | [`committing`], [`failing`], [`joined`], [`clocks`], [`keeping`], [`histories`] |
//! | the store at an opening, and the audit that all tests rely on | [`opening`], [`auditing`] |
//! | commits of others | [`receiving`], [`refusing_store`], [`merging`], [`folding`], [`waiting_for_folds`] |
//! | frames and commits that are not taken | [`membership`], [`frames`], [`sizes`], [`bounds`], [`hostile`] |
//! | streams that stop | [`forks`], [`stops`], [`restores`], [`refusals`], [`damage`] |
//! | checks of the logs here, and what they mend | [`checking`], [`mending`] |
//! | peers that ask and answer | [`pulling`], [`serving`], [`joining`], [`knocking`], [`relaying`], [`slow_links`] |
//! | calls of the app that wait for peers | [`waiting`] |

mod auditing;
mod authors;
mod bounds;
mod checking;
mod clocks;
mod committing;
mod damage;
mod failing;
mod folding;
mod forks;
mod frames;
mod heads;
mod histories;
mod hostile;
mod installing;
mod joined;
mod joining;
mod keeping;
mod knocking;
mod membership;
mod mending;
mod merging;
mod net;
mod opening;
mod peek;
mod peers;
mod pruning;
mod pulling;
mod receiving;
mod refusals;
mod refusing_store;
mod relaying;
mod restores;
mod serving;
mod sizes;
mod slow_links;
mod sources;
mod stops;
mod waiting;
mod waiting_for_folds;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::block_on;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::made::{Bag, pull_all};
use super::wire::{
    self, Capped, CommitParts, CommitsWriter, Hello, Message, Messages, PageHead, Pull, Reach, Show, Shown,
    Stopped, TooLong, WireClock, WireCommit, WireHead, WirePlace, WireRow,
};
use super::{
    Action, Answer, Ask, Commit, Contents, Current, Decision, EFFECTS_MAX, Effect, Engine, Input, JobId,
    LogEnd, Overlay, Pen, Query, Rules, STREAMS_MAX, Staged, Ticket, Updated, Wanted, lend_keys, open,
    read_projections, take_keys_back,
};
use crate::check::LogCheck;
use crate::clock::{ClockError, Mono, Now, WallMs};
use crate::error::{Error, OpenError, SharedError, StopReason};
use crate::events::{
    ChangeKind, Damage, DamagedPart, Event, Notice, RecordKey, Refusal, Restored, StreamStop,
};
use crate::hlc::{Hlc, HlcGenerator};
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::join_wait::JoinWait;
use crate::limits::Limits;
use crate::member::Member;
use crate::model::{self, Registry};
use crate::status::PeerStatus;
use crate::storage::{
    Entry, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, Value, WriteBatch, WriteError, WriteOp,
};
use crate::stored::keys::{self, StoredKey};
use crate::stored::log::{LogRowWriter, chain, chain_start, digest_check, split_row};
use crate::stored::{Cause, Digest, Head, LogEntry, ValueRef, digest, record};
use crate::syncable::{DeviceOwned, Shared, Syncable};
use crate::synced::{CommitId, DurableOn, Synced};
use crate::{Rule, audit};
use authors::*;
use peers::without;
use world::World;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tag {
    id: u32,
    name: String,
}

impl Syncable for Tag {
    const SYNC_MODEL: &'static str = "tag";
    type Id = u32;
    type Ownership = Shared;

    fn sync_id(&self) -> u32 {
        self.id
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Spot {
    id: u32,
    device_id: DeviceId,
    name: String,
}

impl Syncable for Spot {
    const SYNC_MODEL: &'static str = "spot";
    type Id = u32;
    type Ownership = DeviceOwned;

    fn sync_id(&self) -> (DeviceId, u32) {
        (self.device_id, self.id)
    }
}

/// A store over a map.
#[derive(Default)]
struct Map(Mutex<BTreeMap<Key, Value>>);

impl Map {
    /// All entries of a range.
    fn entries(&self, range: KeyRange) -> Vec<Entry> {
        block_on(self.scan(range, ScanLimit::NONE)).unwrap().entries
    }
}

#[async_trait]
impl Storage for Map {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let map = self.0.lock().unwrap();
        Ok(keys.iter().map(|key| map.get(key).cloned()).collect())
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let map = self.0.lock().unwrap();
        Ok(ScanPage::of(map.iter().filter(|(key, _)| range.contains(key)), limit))
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        batch.apply_to(&mut self.0.lock().unwrap());
        Ok(())
    }
}

const GROUP: GroupId = GroupId(Uuid::from_u128(0xf));
const DEVICE: DeviceId = DeviceId(Uuid::from_u128(0xd));
const REPLICA: ReplicaId = ReplicaId(Uuid::from_u128(0xe));

/// Both clocks at the same reading.
fn now(wall: u64) -> Now {
    Now { wall: WallMs::new(wall), mono: Mono(wall) }
}

/// Opens a store as the founder that no peer can reach.
fn ask(rules: Rules) -> Ask {
    Ask {
        device: Some(DEVICE),
        group: Some(GROUP),
        introducer: None,
        networked: false,
        seed: 1,
        limits: Arc::default(),
        rules,
        replica: REPLICA,
        new_device: C_DEVICE,
        projections: Vec::new(),
        projected: Vec::new(),
        location: "the map".into(),
        checked: true,
    }
}

/// Opens a store as a replica that has a transport.
fn networked(rules: Rules) -> Ask {
    Ask { networked: true, ..ask(rules) }
}

/// Opens an engine over a store, as an app that has all the models.
fn open_engine(store: &Map, ask: Ask, now: Now) -> Result<Engine, OpenError> {
    open_engine_with(store, ask, models(), now)
}

fn models() -> Registry {
    let mut registry = Registry::new();
    registry.add::<Tag>().unwrap();
    registry.add::<Spot>().unwrap();
    registry.add::<Bag>().unwrap();
    registry
}

fn open_engine_with(store: &Map, ask: Ask, models: Registry, now: Now) -> Result<Engine, OpenError> {
    let all = |range| store.entries(range);
    let mut values = block_on(store.get_many(&Contents::keys())).unwrap().into_iter();
    let heads = all(keys::heads());
    let end = |head: &Entry| {
        let (stream, key) = LogEnd::key(head)?;
        let rows = block_on(store.get_many(&[key])).unwrap();
        Some((stream, LogEnd::of(stream, rows[0].as_ref())))
    };
    let found = Contents {
        ends: heads.iter().filter_map(end).collect(),
        identity: values.next().unwrap(),
        clock: values.next().unwrap(),
        introducer: values.next().unwrap(),
        any: !all(KeyRange::all()).is_empty(),
        models: all(keys::models()),
        projections: read_projections(&all(keys::projections())).unwrap(),
        heads,
        members: all(RecordKey::range_of_model::<Member>()),
        peers: all(keys::peers()),
        forks: all(keys::forks()),
        forgotten: all(keys::all_forgotten()),
        install: block_on(store.get_many(&[keys::install()])).unwrap().remove(0),
        staged_heads: all(keys::staged_range(&keys::heads())),
        staged_members: all(keys::staged_range(&RecordKey::range_of_model::<Member>())),
        besides: !all(keys::besides()).is_empty(),
    };
    let (engine, batch) = open(ask, &found, &Arc::new(models), now)?;
    block_on(store.write(batch)).unwrap();
    Ok(engine)
}

/// The change that puts a record.
fn put<M: Syncable>(model: &M) -> Staged {
    let record = RecordKey::new::<M>(&model.sync_id());
    Staged { record, action: Action::Put(model::encode(model, usize::MAX).unwrap()), own_merge: false }
}

fn tag(id: u32, name: &str) -> Staged {
    put(&Tag { id, name: name.into() })
}

fn untag(id: u32) -> Staged {
    Staged { record: RecordKey::new::<Tag>(&id), action: Action::Delete, own_merge: false }
}

/// Appends to the name of a tag.
fn rename(id: u32, more: &'static str) -> Staged {
    let update = move |current: Option<Current<'_>>| {
        let name =
            current.map_or_else(String::new, |current| model::decode::<Tag>(&id, current).unwrap().name);
        model::encode(&Tag { id, name: name + more }, usize::MAX).map(Updated::Put)
    };
    let action = Action::Update(Box::new(update));
    Staged { record: RecordKey::new::<Tag>(&id), action, own_merge: false }
}

fn encoded(id: u32, name: &str) -> Value {
    postcard::to_allocvec(&Tag { id, name: name.into() }).unwrap()
}

/// The streams that a write appends to, once for each commit.
fn logged_in(batch: &WriteBatch) -> Vec<ReplicaId> {
    let rows = batch.ops().iter().filter_map(|op| match op {
        WriteOp::Put { key, .. } => StoredKey::parse(key),
        _ => None,
    });
    let streams = rows.filter_map(|key| match key {
        StoredKey::Log(stream, _) => Some(stream),
        _ => None,
    });
    streams.collect()
}
