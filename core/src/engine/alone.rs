//! An engine alone, over a map and among made-up peers. Benches measure with it the work of the engine itself, without
//! a driver, a store or a network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::wire::{
    self, Capped, CommitParts, CommitsWriter, Hello, Messages, Pull, Rebuilt, WireClock, WireHead,
};
use super::{Action, Answer, Ask, Commit, Contents, Effect, Engine, Input, Query, Rules, Staged, Ticket};
use crate::clock::{Mono, Now, WallMs};
use crate::events::RecordKey;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::limits::Limits;
use crate::member::Member;
use crate::model::{self, Registry};
use crate::storage::{Key, KeyRange, ScanLimit, ScanPage, Value, WriteBatch};
use crate::stored::log::{LogRowWriter, chain, chain_start, split_row};
use crate::stored::{Digest, LogEntry, ValueRef, digest};
use crate::syncable::{Shared, Syncable};

const GROUP: GroupId = GroupId(Uuid::from_u128(0xf));
const ME: ReplicaId = ReplicaId(Uuid::from_u128(0xe));

/// The record that this replica and its made-up peers commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Thing {
    id: u32,
    #[serde(with = "serde_bytes")]
    content: Vec<u8>,
}

impl Syncable for Thing {
    const SYNC_MODEL: &'static str = "thing";
    type Id = u32;
    type Ownership = Shared;

    fn sync_id(&self) -> u32 {
        self.id
    }
}

/// A made-up peer, which writes a stream.
struct Author {
    stream: ReplicaId,
    device: DeviceId,
    seq: u64,
    digest: Digest,
}

/// An engine alone.
pub struct Alone {
    engine: Engine,
    store: BTreeMap<Key, Value>,
    now: Now,
    tickets: u64,
    peers: Vec<Author>,
    /// The length of the last page that was sent, in bytes.
    page: usize,
    /// The value of every record.
    content: Vec<u8>,
}

impl Alone {
    /// A founder with `peers` connected peers, each of which has committed once and has every commit. Values have
    /// `value_bytes` bytes.
    ///
    /// # Panics
    /// If the engine does not take its peers for members that lack nothing.
    #[must_use]
    pub fn among(peers: u32, value_bytes: usize) -> Self {
        let now = Now { wall: WallMs::new(1_000), mono: Mono(1_000) };
        let mut registry = Registry::new();
        let registered = registry.add::<Thing>();
        assert!(registered.is_ok(), "{registered:?}");
        let ask = Ask {
            device: Some(DeviceId(Uuid::from_u128(0xd))),
            group: Some(GROUP),
            introducer: None,
            networked: true,
            seed: 1,
            limits: Arc::new(Limits::default()),
            rules: Rules::ALL,
            replica: ME,
            new_device: DeviceId(Uuid::from_u128(0xd)),
            projections: Vec::new(),
            projected: Vec::new(),
            location: "a map".into(),
            checked: false,
        };
        let nothing = Contents {
            identity: None,
            clock: None,
            introducer: None,
            any: false,
            models: Vec::new(),
            projections: BTreeMap::new(),
            heads: Vec::new(),
            members: Vec::new(),
            peers: Vec::new(),
            forks: Vec::new(),
            forgotten: Vec::new(),
            install: None,
            staged_heads: Vec::new(),
            staged_members: Vec::new(),
            ends: BTreeMap::new(),
            besides: false,
        };
        let (engine, batch) = match super::open(ask, &nothing, &Arc::new(registry), now.clone()) {
            Ok(opened) => opened,
            Err(error) => unreachable_opening(&error),
        };
        let author = |n: u32| {
            let stream = ReplicaId(Uuid::from_u128(0x1000 + u128::from(n)));
            let device = DeviceId(Uuid::from_u128(0x2000 + u128::from(n)));
            Author { stream, device, seq: 0, digest: chain_start(GROUP, stream) }
        };
        let mut alone = Self {
            engine,
            store: BTreeMap::new(),
            now,
            tickets: 0,
            peers: (0..peers).map(author).collect(),
            page: 0,
            content: vec![7; value_bytes],
        };
        alone.write(batch);
        alone.meet_peers();
        alone
    }

    fn meet_peers(&mut self) {
        let member = |author: &Author| Member::new(author.stream, author.device);
        let changes = self.peers.iter().map(|author| staged(&member(author))).collect();
        self.commit_all(vec![changes]);
        for at in 0..self.peers.len() {
            let Some(author) = self.peers.get(at) else { return };
            let from = author.stream;
            self.tell(Input::Up(from));
            let frame = self.live(at, u32::try_from(at).unwrap_or(0));
            self.tell(Input::Frame(from, frame));
        }
        let heads: Vec<_> = self.peers.iter().map(Author::head).collect();
        for (session, author) in (1..).zip(&self.peers) {
            let hello = Hello {
                session,
                features: wire::FEATURES,
                restored: false,
                clock: WireClock::default(),
                knocks: None,
                unheard: Capped(Vec::new()),
                relayed: Capped(Vec::new()),
                heads: Capped(heads.clone()),
            };
            self.engine.handle(self.now.clone(), Input::Frame(author.stream, wire::hello(GROUP, &hello)));
        }
        self.settle();
        let report = self.engine.report();
        let level = report.peers.iter().filter(|peer| peer.connected && peer.missing == 0).count();
        let heads = report.streams.iter().filter(|stream| stream.commits > 0).count();
        assert_eq!(
            (level, heads),
            (self.peers.len(), self.peers.len() + 1),
            "everybody is level: {report:?}"
        );
    }

    /// A live frame with the next commit of the peer `at`, which puts the record `id`.
    fn live(&mut self, at: usize, id: u32) -> Bytes {
        let content = self.content.clone();
        let wall = self.now.wall.clone().unwrap_or(WallMs::MIN);
        let Some(author) = self.peers.get_mut(at) else { return Bytes::new() };
        let stamp = Hlc::new(wall.saturating_add(author.seq), 0, author.stream);
        let value = postcard::to_allocvec(&Thing { id, content }).unwrap_or_default();
        let mut row = LogRowWriter::new(&author.digest, author.device, stamp, &[], 1);
        let reference = ValueRef::new(Thing::SCHEMA, value.len(), digest(&value));
        row.push(&RecordKey::new::<Thing>(&id), Some(reference), None);
        let row = row.finish();
        let Ok((previous, entry)) = split_row(&row) else { return Bytes::new() };
        author.digest = chain(&previous, entry);
        author.seq += 1;
        let (stream, seq) = (author.stream, author.seq);
        let mut frame = CommitsWriter::live(GROUP, stream);
        frame.push(&CommitParts { stream, seq, previous: &previous, entry, values: &value });
        frame.finish()
    }

    /// The next `count` commits of the first peer, each in a frame of its own.
    pub fn frames(&mut self, count: u32) -> Vec<Bytes> {
        (0..count).map(|n| self.live(0, 1_000 + n % 50)).collect()
    }

    /// Receives a frame of the first peer, to the end: the frame is read, and its commit admitted and written. The
    /// acknowledgement comes later.
    pub fn receive(&mut self, frame: Bytes) {
        if let Some(author) = self.peers.first() {
            let from = author.stream;
            self.tell(Input::Frame(from, frame));
        }
    }

    /// Commits `records` records in one round.
    pub fn commit(&mut self, records: u32) {
        // Each value is another one that cannot be compressed: a page is as long as its values.
        let (len, round) = (self.content.len(), self.tickets);
        let change = |id: u32| {
            let mut content = vec![0; len];
            fastrand::Rng::with_seed(round + u64::from(id)).fill(&mut content);
            vec![staged(&Thing { id, content })]
        };
        self.commit_all((0..records).map(change).collect());
    }

    fn commit_all(&mut self, round: Vec<Vec<Staged>>) {
        for changes in round {
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            self.engine.handle(self.now.clone(), Input::Commit(ticket, Commit { changes, bytes: 100 }));
        }
        self.settle();
    }

    /// Answers a pull of the first peer, from the beginning of the own stream; returns the bytes of the page.
    pub fn serve(&mut self) -> usize {
        // The peer has the streams on which the own one rests: without them the page would be empty.
        let heads = self.peers.iter().map(Author::head).collect();
        let pull = Pull {
            id: 1,
            budget: 1 << 20,
            frame_bytes: u32::MAX,
            heads: Capped(heads),
            excluded: Capped(Vec::new()),
        };
        if let Some(author) = self.peers.first() {
            let from = author.stream;
            self.tell(Input::Frame(from, wire::pull(GROUP, &pull)));
        }
        self.page
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(self.now.clone(), input);
        self.settle();
    }

    /// Performs every effect.
    fn settle(&mut self) {
        while let Some(effect) = self.engine.next_effect() {
            let input = match effect {
                Effect::Read(job, keys) => {
                    let values = self.get(&keys);
                    Input::Read(job, keys, Ok(values))
                }
                Effect::Write(job, batch) => {
                    self.write(batch);
                    Input::Written(job, Ok(()))
                }
                Effect::Find(job, Query::Get(keys)) => Input::Found(job, Ok(Answer::Values(self.get(&keys)))),
                Effect::Find(job, Query::Scan(range, limit)) => {
                    Input::Found(job, Ok(Answer::Page(self.scan(range, limit))))
                }
                Effect::Scan(job, range, limit) => Input::Scanned(job, Ok(self.scan(range, limit))),
                Effect::Send(_, frame) => {
                    self.page = frame.len();
                    continue;
                }
                _ => continue,
            };
            self.engine.handle(self.now.clone(), input);
        }
    }

    fn get(&self, keys: &[Key]) -> Vec<Option<Value>> {
        keys.iter().map(|key| self.store.get(key).cloned()).collect()
    }

    fn scan(&self, range: KeyRange, limit: ScanLimit) -> ScanPage {
        let found = self.store.range(range.start..);
        let inside = found.take_while(|(key, _)| range.end.as_ref().is_none_or(|end| *key < end));
        ScanPage::of(inside, limit)
    }

    fn write(&mut self, batch: WriteBatch) {
        batch.apply_to(&mut self.store);
    }
}

impl Author {
    fn head(&self) -> WireHead {
        WireHead { stream: self.stream, seq: self.seq, digest: self.digest }
    }
}

impl fmt::Debug for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alone").field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}

/// Reads a frame of any group; returns how many bytes its commits have.
#[must_use]
pub fn read_frame(frame: &Bytes) -> usize {
    let messages = Messages::new(frame.clone(), None, usize::MAX).into_iter().flatten();
    let commits = messages.flatten().map(|message| match message {
        wire::Message::Live(commits) | wire::Message::Page(_, commits) => {
            let start = Some((DeviceId(Uuid::nil()), [0; 32]));
            let commits = commits.rebuild(ME, usize::MAX, false, |_, _| start).unwrap_or_default();
            let bytes = commits.iter().map(|commit| match commit {
                Rebuilt::Commit(commit) => commit.entry.len() + commit.values.len(),
                Rebuilt::Unreadable(..) | Rebuilt::Damaged(..) => 0,
            });
            bytes.sum()
        }
        _ => 0,
    });
    commits.sum()
}

/// Writes a log row with `changes` changes.
#[must_use]
pub fn log_row(changes: u32) -> Vec<u8> {
    let stamp = Hlc::new(WallMs::MIN, 7, ME);
    let keys: BTreeSet<_> = (0..changes).map(|id| RecordKey::new::<Thing>(&id)).collect();
    let mut row =
        LogRowWriter::new(&chain_start(GROUP, ME), DeviceId(Uuid::from_u128(1)), stamp, &[], keys.len());
    for key in &keys {
        row.push(key, Some(ValueRef::new(1, 200, [7; 32])), None);
    }
    row.finish()
}

/// Reads a log row; returns how many changes it has.
#[must_use]
pub fn read_log_row(row: &[u8]) -> usize {
    let entry = split_row(row).and_then(|(_, entry)| LogEntry::parse(ME, entry));
    entry.map_or(0, |entry| entry.changes.len())
}

/// Encodes a value behind room for its record's header, with its digest.
#[must_use]
pub fn encode<M: Syncable>(value: &M) -> Vec<u8> {
    model::encode(value, usize::MAX).map_or_else(|_| Vec::new(), |new| new.record)
}

/// As [`encode`], without making sure that the value reads back: what the check costs is the difference.
#[must_use]
pub fn encode_unchecked<M: Syncable>(value: &M) -> Vec<u8> {
    let room = crate::stored::record::with_room(M::OWN_MERGE, 220);
    let record = postcard::to_extend(value, room).unwrap_or_default();
    let digest = digest(crate::stored::record::value_of(&record));
    if digest == [0; 32] { Vec::new() } else { record }
}

/// Decodes what [`encode`] made.
#[must_use]
pub fn decode<M: Syncable>(id: &crate::RecordId<M>, record: &[u8]) -> Option<M> {
    let value = crate::stored::record::value_of(record);
    model::decode(id, super::Current { schema: M::SCHEMA, value }).ok()
}

fn staged<M: Syncable>(model: &M) -> Staged {
    let record = RecordKey::new::<M>(&model.sync_id());
    match model::encode(model, usize::MAX) {
        Ok(value) => Staged { record, action: Action::Put(value), own_merge: M::OWN_MERGE },
        Err(error) => unreachable_opening(&error),
    }
}

#[allow(clippy::panic, reason = "a bench that cannot begin has nothing to measure")]
fn unreachable_opening<T>(error: &dyn fmt::Display) -> T {
    panic!("an engine over an empty map could not begin: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bench_measures_is_what_it_says() {
        let mut alone = Alone::among(3, 200);
        let before = alone.engine.report().streams.iter().map(|stream| stream.commits).sum::<u64>();
        alone.frames(10).into_iter().for_each(|frame| alone.receive(frame));
        alone.commit(5);
        let after = alone.engine.report().streams.iter().map(|stream| stream.commits).sum::<u64>();
        assert_eq!(after - before, 15, "ten were received and five committed");
        (0..4).for_each(|_| alone.commit(1_000));
        assert!(alone.serve() > 500_000, "{} bytes", alone.serve());
    }
}
