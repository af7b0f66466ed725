//! Goal: what a group of commits writes, answers and tells, and when. Method: the engine driven by hand over a
//! map, every effect in plain sight; random histories checked by `audit` after every write.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use futures::executor::block_on;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

mod protocol;

use super::*;
use crate::clock::ClockError;
use crate::error::OpenError;
use crate::events::{ChangeKind, RecordKey};
use crate::ids::{DeviceId, GroupId};
use crate::model::{self, Registry};
use crate::storage::{Entry, KeyRange, Storage, WriteError, WriteOp};
use crate::stored::keys::{self, StoredKey};
use crate::stored::log::split_row;
use crate::stored::{LogEntry, record};
use crate::syncable::{DeviceOwned, Shared, Syncable};
use crate::{Rule, audit};

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

/// A set that is united.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Bag {
    id: u32,
    items: std::collections::BTreeSet<u32>,
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

/// A store as plain as can be.
#[derive(Default)]
struct Map(Mutex<BTreeMap<Key, Value>>);

#[async_trait]
impl Storage for Map {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let map = self.0.lock().unwrap();
        Ok(keys.iter().map(|key| map.get(key).cloned()).collect())
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        let map = self.0.lock().unwrap();
        let entries = map.iter().filter(|(key, _)| range.contains(key)).take(limit);
        Ok(entries.map(|(key, value)| Entry { key: key.clone(), value: value.clone() }).collect())
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let mut map = self.0.lock().unwrap();
        for op in batch {
            match op {
                WriteOp::Put { key, value } => drop(map.insert(key, value)),
                WriteOp::Delete { key } => drop(map.remove(&key)),
                WriteOp::DeleteRange { range } => map.retain(|key, _| !range.contains(key)),
            }
        }
        Ok(())
    }
}

const DEVICE: DeviceId = DeviceId(Uuid::from_u128(0xd));
const REPLICA: ReplicaId = ReplicaId(Uuid::from_u128(0xe));

/// A replica whose effects are performed one by one.
struct World {
    engine: Engine,
    store: Map,
    now: Now,
    next_ticket: u64,
    /// What the joined writes commit that have not had their turn.
    joins: BTreeMap<Ticket, Commit>,
    /// The joined write whose transaction is open.
    joined: Option<Box<(Pen, Decision)>>,
    replies: Vec<(u64, Result<(), Error>)>,
    notices: Vec<Notice>,
    writes: Vec<WriteBatch>,
    /// What was sent, and to whom; to everybody, if to nobody.
    sent: Vec<(Option<ReplicaId>, Bytes)>,
    /// To whom the last frame went that is for several.
    reached: Vec<ReplicaId>,
    /// How many rows were read to answer peers.
    scanned: usize,
}

fn now(wall: u64) -> Now {
    Now { wall: WallMs::new(wall), mono: Mono(wall) }
}

fn ask(rules: Rules) -> Ask {
    Ask {
        device: Some(DEVICE),
        group: Some(GroupId(Uuid::from_u128(0xf))),
        introducer: None,
        networked: false,
        seed: 1,
        limits: Arc::default(),
        rules,
        replica: REPLICA,
        projections: Vec::new(),
        projected: Vec::new(),
        location: "the map".into(),
    }
}

fn open_engine(store: &Map, ask: Ask, now: Now) -> Result<Engine, OpenError> {
    let mut registry = Registry::new();
    registry.add::<Tag>().unwrap();
    registry.add::<Spot>().unwrap();
    registry.add::<Bag>().unwrap();
    let all = |range| block_on(store.scan(range, usize::MAX)).unwrap();
    let mut values = block_on(store.get_many(&Found::keys())).unwrap().into_iter();
    let found = Found {
        identity: values.next().unwrap(),
        clock: values.next().unwrap(),
        introducer: values.next().unwrap(),
        any: !all(KeyRange::all()).is_empty(),
        models: all(keys::models()),
        projections: read_projections(&all(keys::projections())).unwrap(),
        heads: all(keys::heads()),
        members: all(RecordKey::range_of_model::<Member>()),
        peers: all(keys::peers()),
        forks: all(keys::forks()),
    };
    let (engine, batch) = open(ask, &found, &Arc::new(registry), now)?;
    block_on(store.write(batch)).unwrap();
    Ok(engine)
}

impl World {
    fn new(rules: Rules) -> Self {
        Self::asking(ask(rules))
    }

    fn asking(ask: Ask) -> Self {
        let store = Map::default();
        let engine = open_engine(&store, ask, now(1000)).unwrap();
        Self {
            engine,
            store,
            now: now(1000),
            next_ticket: 1,
            joins: BTreeMap::new(),
            joined: None,
            replies: Vec::new(),
            notices: Vec::new(),
            writes: Vec::new(),
            sent: Vec::new(),
            reached: Vec::new(),
            scanned: 0,
        }
    }

    /// A world whose log is not pruned, as if a member were away.
    fn unpruned() -> Self {
        Self::new(Rules { prune: false, ..Rules::ALL })
    }

    fn submit(&mut self, changes: Vec<Staged>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.engine.handle(self.now.clone(), Input::Commit(Ticket(ticket), Commit { changes, bytes: 100 }));
        ticket
    }

    fn submit_joined(&mut self, changes: Vec<Staged>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.joins.insert(Ticket(ticket), Commit { changes, bytes: 100 });
        self.engine.handle(self.now.clone(), Input::Join(Ticket(ticket)));
        ticket
    }

    /// Decides as a joined write does, with the pen it was lent. A write that has nothing to write is over.
    fn join(&mut self, ticket: Ticket, mut pen: Pen) -> Option<WriteBatch> {
        let commit = self.joins.remove(&ticket).unwrap();
        let keys: Vec<_> = commit.changes.iter().map(|change| change.record.as_bytes().to_vec()).collect();
        let values = block_on(self.store.get_many(&keys)).unwrap();
        let mut decision = pen.decide(vec![(ticket, commit)], values);
        decision.waiting.append(&mut decision.settled);
        let input = match decision.waiting.pop_if(|(_, result)| result.is_err()) {
            Some((_, Err(error))) => Input::Joined(Err(error)),
            _ if decision.batch.is_empty() => Input::Joined(Ok(Box::new((pen, decision)))),
            _ => {
                let batch = std::mem::take(&mut decision.batch);
                self.joined = Some(Box::new((pen, decision)));
                return Some(batch);
            }
        };
        self.engine.handle(self.now.clone(), input);
        None
    }

    /// Performs effects up to and with the next write, which it hands over instead of applying it.
    fn up_to_write(&mut self) -> Option<WriteBatch> {
        while let Some(effect) = self.engine.next_effect() {
            match effect {
                Effect::Read(keys) => {
                    let values = block_on(self.store.get_many(&keys));
                    self.engine.handle(self.now.clone(), Input::Read(keys, values));
                }
                Effect::Write(batch) => return Some(batch),
                Effect::Join(ticket, pen) => {
                    if let Some(batch) = self.join(ticket, *pen) {
                        return Some(batch);
                    }
                }
                Effect::Receive(..) => panic!("nothing is projected here"),
                Effect::Scan(range, limit) => {
                    let entries = block_on(self.store.scan(range, limit));
                    self.scanned += entries.as_ref().map_or(0, Vec::len);
                    self.engine.handle(self.now.clone(), Input::Scanned(entries));
                }
                Effect::Peek(keys) => {
                    let values = block_on(self.store.get_many(&keys));
                    self.engine.handle(self.now.clone(), Input::Peeked(values));
                }
                Effect::Send(to, frame) => self.sent.push((Some(to), frame)),
                Effect::Broadcast(to, frame) => {
                    self.sent.push((None, frame));
                    self.reached = to;
                }
                Effect::Reply(Ticket(ticket), result) => self.replies.push((ticket, result)),
                Effect::Notify(notice) => self.notices.push(notice),
            }
        }
        None
    }

    fn written(&mut self, batch: WriteBatch) {
        block_on(self.store.write(batch.clone())).unwrap();
        self.writes.push(batch);
        let input = match self.joined.take() {
            Some(joined) => Input::Joined(Ok(joined)),
            None => Input::Written(Ok(())),
        };
        self.engine.handle(self.now.clone(), input);
    }

    fn rejected(&mut self) {
        let no: SharedError = Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("no"));
        let input = match self.joined.take() {
            Some(_) => Input::Joined(Err(Error::Rejected(no))),
            None => Input::Written(Err(no)),
        };
        self.engine.handle(self.now.clone(), input);
    }

    /// Performs everything.
    fn settle(&mut self) {
        while let Some(batch) = self.up_to_write() {
            self.written(batch);
        }
    }

    fn commit(&mut self, changes: Vec<Staged>) -> Result<(), Error> {
        let ticket = self.submit(changes);
        self.settle();
        let at = self.replies.iter().position(|(replied, _)| *replied == ticket).expect("a reply");
        self.replies.remove(at).1
    }

    fn get(&self, key: Key) -> Option<Value> {
        block_on(self.store.get_many(&[key])).unwrap().remove(0)
    }

    fn logged(&self, seq: u64) -> LogEntry {
        let row = self.get(keys::log(REPLICA, seq)).unwrap();
        LogEntry::parse(REPLICA, split_row(&row).unwrap().1).unwrap()
    }

    fn kept(&self, seq: u64, id: u32) -> Option<Value> {
        self.get(keys::kept(REPLICA, seq, &RecordKey::new::<Tag>(&id)))
    }

    fn audit(&self) -> Vec<Rule> {
        block_on(audit(&self.store)).into_iter().map(|violation| violation.rule).collect()
    }

    fn changes(&self) -> Vec<(u64, ChangeKind)> {
        let events = self.notices.iter().flat_map(|notice| notice.iter());
        let changes = events.filter_map(|event| match event {
            Event::Changed(change) => Some((change.seq, change.kind)),
            _ => None,
        });
        changes.collect()
    }
}

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
        model::encode(&Tag { id, name: name + more }, usize::MAX)
    };
    let action = Action::Update(Box::new(update));
    Staged { record: RecordKey::new::<Tag>(&id), action, own_merge: false }
}

fn encoded(id: u32, name: &str) -> Value {
    postcard::to_allocvec(&Tag { id, name: name.into() }).unwrap()
}

#[test]
fn a_commit_is_one_write_of_record_log_head_and_clock() {
    let mut world = World::new(Rules::default());
    world.commit(vec![tag(1, "a")]).unwrap();
    let [batch] = &world.writes[..] else { panic!("one write") };
    let kinds: Vec<_> = batch
        .ops()
        .iter()
        .map(|op| match op {
            WriteOp::Put { key, .. } => ("put", StoredKey::parse(key).unwrap()),
            WriteOp::Delete { key } => ("delete", StoredKey::parse(key).unwrap()),
            WriteOp::DeleteRange { .. } => panic!("one entry is deleted by its name"),
        })
        .collect();
    let record = RecordKey::new::<Tag>(&1);
    assert_eq!(
        kinds,
        [
            ("delete", StoredKey::Log(REPLICA, 1)),
            ("put", StoredKey::Log(REPLICA, 2)),
            ("put", StoredKey::Record(record)),
            ("put", StoredKey::Head(REPLICA)),
            ("put", StoredKey::Clock),
        ]
    );
    assert_eq!(world.audit(), []);
    assert_eq!(world.changes(), [(2, ChangeKind::Insert)]);
}

#[test]
fn nothing_is_said_before_it_is_durable() {
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(1, "a")]);
    let batch = world.up_to_write().unwrap();
    assert!(world.up_to_write().is_none() && world.replies.is_empty() && world.notices.is_empty());
    world.written(batch);
    world.settle();
    assert!(matches!(world.replies[..], [(1, Ok(()))]));
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn commits_that_arrive_during_a_write_share_the_next_one() {
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(0, "first")]);
    let first = world.up_to_write().unwrap();
    for id in 1..=5 {
        world.submit(vec![tag(id, "x")]);
    }
    assert!(world.up_to_write().is_none(), "one write at a time");
    world.written(first);
    world.settle();
    assert_eq!(world.writes.len(), 2);
    assert_eq!(world.changes(), (2..=7).map(|seq| (seq, ChangeKind::Insert)).collect::<Vec<_>>());
    assert_eq!(world.audit(), []);
}

#[test]
fn a_joined_write_is_a_write_of_its_own_in_the_order_of_the_calls() {
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(1, "a")]);
    let first = world.up_to_write().unwrap();
    world.submit(vec![tag(2, "b")]);
    world.submit_joined(vec![rename(2, "+")]);
    world.submit(vec![rename(2, "+")]);
    world.submit(vec![rename(2, "+")]);
    world.written(first);
    world.settle();
    assert_eq!(world.writes.len(), 4, "alone, before, joined, behind");
    assert_eq!(world.changes().iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    assert_eq!(world.stored_tags()[&2], "b+++");
    assert_eq!(world.audit(), []);
}

#[test]
fn a_joined_write_that_was_undone_leaves_the_pen_as_it_was() {
    let mut world = World::new(Rules::default());
    let (before, stamped) = (world.engine.snapshot(), world.engine.pen.clock.high_water());
    world.submit_joined(vec![tag(1, "a")]);
    world.up_to_write().unwrap();
    world.rejected();
    world.settle();
    assert!(matches!(world.replies[..], [(1, Err(Error::Rejected(_)))]));
    assert_eq!(world.engine.pen.clock.high_water(), stamped, "no stamp was shown");
    assert_eq!(world.engine.snapshot().head, before.head);
    world.submit_joined(vec![tag(1, "a")]);
    world.settle();
    assert_eq!(world.changes(), [(2, ChangeKind::Insert)]);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_joined_write_that_changes_nothing_is_answered_without_an_event() {
    let mut world = World::new(Rules::default());
    world.commit(vec![tag(1, "a")]).unwrap();
    world.notices.clear();
    let ticket = world.submit_joined(vec![tag(1, "a")]);
    world.settle();
    assert!(matches!(world.replies[..], [(replied, Ok(()))] if replied == ticket));
    assert!(world.notices.is_empty() && world.writes.len() == 1);
}

#[test]
fn a_joined_write_that_stores_no_clock_shows_none() {
    let mut world = World::new(Rules::default());
    let shown = world.engine.snapshot().high_water;
    world.submit(vec![tag(1, "a")]);
    world.up_to_write().unwrap();
    world.rejected();
    world.submit_joined(Vec::new());
    world.settle();
    assert!(world.engine.pen.clock.high_water() > shown, "a stamp was drawn");
    assert_eq!(world.engine.snapshot().high_water, shown, "and never stored");
}

#[test]
fn a_group_is_bounded_in_commits_and_bytes() {
    let limits = Limits { group_commits_max: 3, commit_bytes_max: 250, ..Limits::default() };
    for (limits, groups) in [
        (Limits { commit_bytes_max: usize::MAX, ..limits.clone() }, vec![3, 3, 1]),
        (Limits { group_commits_max: 100, ..limits.clone() }, vec![2, 2, 2, 1]),
        (Limits { commit_bytes_max: 10, ..limits }, vec![1; 7]),
    ] {
        let mut world = World::new(Rules::default());
        world.engine.limits = Arc::new(limits);
        for id in 0..7 {
            world.submit(vec![tag(id, "x")]);
        }
        let mut sizes = Vec::new();
        while let Some(batch) = world.up_to_write() {
            let is_log = |op: &&WriteOp| matches!(op, WriteOp::Put { key, .. } if matches!(StoredKey::parse(key), Some(StoredKey::Log(..))));
            sizes.push(batch.ops().iter().filter(is_log).count());
            world.written(batch);
        }
        assert_eq!(sizes, groups);
    }
}

#[test]
fn a_failing_commit_leaves_the_others_of_its_group_untouched() {
    let mut world = World::new(Rules::default());
    let fail = |id| Staged {
        record: RecordKey::new::<Tag>(&id),
        action: Action::Update(Box::new(|_| Err(Error::Aborted("no".into())))),
        own_merge: false,
    };
    world.submit(vec![tag(1, "a")]);
    // Its first change would be fine, its second is not.
    world.submit(vec![tag(2, "b"), fail(3)]);
    world.submit(vec![tag(4, "c")]);
    world.settle();
    assert!(
        matches!(world.replies[..], [(2, Err(Error::Aborted(_))), (1, Ok(())), (3, Ok(()))]),
        "{:?}",
        world.replies
    );
    let here = |id| world.get(RecordKey::new::<Tag>(&id).into_bytes()).is_some();
    assert_eq!([here(1), here(2), here(3), here(4)], [true, false, false, true]);
    assert_eq!(world.changes(), [(2, ChangeKind::Insert), (3, ChangeKind::Insert)]);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_change_that_changes_nothing_writes_nothing() {
    let mut world = World::new(Rules::default());
    world.commit(vec![tag(1, "a")]).unwrap();
    world.writes.clear();
    world.commit(vec![tag(1, "a")]).unwrap();
    world.commit(vec![untag(7)]).unwrap();
    world.commit(vec![rename(1, "")]).unwrap();
    assert!(world.writes.is_empty());
    assert_eq!(world.changes().len(), 1);
    // Beside a change that does something, it is left out of the commit.
    world.commit(vec![tag(1, "a"), tag(2, "b")]).unwrap();
    let entry = world.logged(3);
    assert_eq!(entry.changes.len(), 1);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_commit_that_an_earlier_one_of_its_group_made_empty_waits_for_the_write() {
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(1, "a")]);
    world.submit(vec![tag(1, "a")]);
    let batch = world.up_to_write().unwrap();
    assert!(world.replies.is_empty());
    world.written(batch);
    world.settle();
    assert!(matches!(world.replies[..], [(1, Ok(())), (2, Ok(()))]));
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn a_failure_that_an_earlier_commit_of_its_group_caused_waits_for_the_write() {
    let insert_only = || Staged {
        record: RecordKey::new::<Tag>(&1),
        action: Action::Update(Box::new(|current| {
            assert!(current.is_some());
            Err(Error::Aborted("exists already".into()))
        })),
        own_merge: false,
    };
    for rejected in [false, true] {
        let mut world = World::new(Rules::default());
        world.submit(vec![tag(1, "a")]);
        world.submit(vec![insert_only()]);
        let batch = world.up_to_write().unwrap();
        assert!(world.replies.is_empty(), "it may never have been there");
        if rejected {
            let no: SharedError = Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("no"));
            world.engine.handle(world.now.clone(), Input::Written(Err(no)));
        } else {
            world.written(batch);
        }
        world.settle();
        let [(1, first), (2, second)] = &world.replies[..] else { panic!("{:?}", world.replies) };
        assert_eq!(first.is_ok(), !rejected);
        assert_eq!(matches!(second, Err(Error::Aborted(_))), !rejected);
        assert_eq!(matches!(second, Err(Error::Rejected(_))), rejected);
    }
    // Stopped in between, the failing commit is certainly not made.
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(1, "a")]);
    world.submit(vec![insert_only()]);
    world.up_to_write().unwrap();
    let open = world.engine.stop(&StopReason::DriverDropped);
    assert!(matches!(open[..], [(_, Error::Unknown(_)), (_, Error::Stopped(_))]), "{open:?}");
}

#[test]
fn a_stamp_is_not_shown_before_it_is_durable() {
    let mut world = World::new(Rules::default());
    let before = world.engine.snapshot().high_water;
    world.now = now(5000);
    world.submit(vec![tag(1, "a")]);
    let batch = world.up_to_write().unwrap();
    assert_eq!(world.engine.snapshot().high_water, before);
    world.written(batch);
    world.settle();
    assert_eq!(world.engine.snapshot().high_water, world.engine.snapshot().head.stamp);
    assert!(world.engine.snapshot().high_water > before);
}

#[test]
fn events_are_told_before_the_reply() {
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(1, "a")]);
    let batch = world.up_to_write().unwrap();
    block_on(world.store.write(batch)).unwrap();
    world.engine.handle(world.now.clone(), Input::Written(Ok(())));
    assert!(matches!(world.engine.next_effect(), Some(Effect::Notify(_))));
    assert!(matches!(world.engine.next_effect(), Some(Effect::Reply(Ticket(1), Ok(())))));
}

#[test]
fn an_update_sees_the_earlier_commits_of_its_group() {
    let mut world = World::new(Rules::default());
    for more in ["a", "b", "c"] {
        world.submit(vec![rename(1, more)]);
    }
    world.settle();
    assert_eq!(world.writes.len(), 1);
    let stored = world.get(RecordKey::new::<Tag>(&1).into_bytes()).unwrap();
    assert_eq!(record::value_of(&stored), encoded(1, "abc"));
    assert_eq!(world.changes(), [(2, ChangeKind::Insert), (3, ChangeKind::Update), (4, ChangeKind::Update)]);
    assert_eq!(world.audit(), []);
}

#[test]
fn every_value_that_the_log_needs_is_kept() {
    let mut world = World::unpruned();
    world.commit(vec![tag(1, "a")]).unwrap(); // commit 2
    world.submit(vec![tag(1, "b")]); // commits 3 and 4 in one group
    world.submit(vec![tag(1, "c")]);
    world.settle();
    world.commit(vec![untag(1)]).unwrap(); // commit 5
    world.commit(vec![tag(1, "d")]).unwrap(); // commit 6
    assert_eq!(world.kept(2, 1), Some(encoded(1, "a")));
    assert_eq!(world.kept(3, 1), Some(encoded(1, "b")));
    assert_eq!(world.kept(4, 1), Some(encoded(1, "c")));
    assert_eq!(
        (world.kept(5, 1), world.kept(6, 1)),
        (None, None),
        "a tombstone has no value, the record holds the last"
    );
    assert_eq!(world.audit(), []);
}

/// Without it, replicas with the same commits could differ: one that got a value in time, and one that was to get it with
/// a later commit, whose author then never came back.
#[test]
fn owned_values_are_kept_as_shared_ones_are() {
    let mut world = World::unpruned();
    for name in ["a", "b"] {
        world.commit(vec![put(&Spot { id: 1, device_id: DEVICE, name: name.into() })]).unwrap();
    }
    assert_eq!(block_on(world.store.scan(keys::all_kept(), 9)).unwrap().len(), 1);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_group_of_one_member_prunes_its_log() {
    let mut world = World::new(Rules::default());
    for name in ["a", "b", "c"] {
        world.submit(vec![tag(1, name)]);
        world.submit(vec![tag(1, "between")]);
        world.settle();
        let log = block_on(world.store.scan(keys::logs(REPLICA), 99)).unwrap();
        let kept = block_on(world.store.scan(keys::all_kept(), 99)).unwrap();
        assert_eq!((log.len(), kept.len()), (2, 1), "no more than the last write's");
        assert_eq!(world.audit(), []);
    }
    // What a longer log left behind goes as well, kept values included, also after a restart.
    let mut world = World::unpruned();
    (0..20).for_each(|n| world.commit(vec![tag(n % 3, &n.to_string())]).unwrap());
    world.engine = open_engine(&world.store, ask(Rules::default()), now(2000)).unwrap();
    world.commit(vec![tag(9, "x")]).unwrap();
    assert_eq!(block_on(world.store.scan(keys::logs(REPLICA), 99)).unwrap().len(), 1);
    assert_eq!(block_on(world.store.scan(keys::all_kept(), 99)).unwrap(), []);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_rejected_write_leaves_no_hole() {
    let mut world = World::new(Rules::default());
    world.commit(vec![tag(1, "a")]).unwrap();
    let before = world.engine.snapshot();
    world.submit(vec![tag(2, "b")]);
    world.submit(vec![tag(3, "c")]);
    world.up_to_write().unwrap();
    let full: SharedError = Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("disk full"));
    world.engine.handle(world.now.clone(), Input::Written(Err(full)));
    world.settle();
    assert!(matches!(world.replies[..], [(2, Err(Error::Rejected(_))), (3, Err(Error::Rejected(_)))]));
    assert_eq!(world.engine.snapshot().head, before.head);
    assert_eq!(world.engine.snapshot().high_water, before.high_water, "what is not stored is not shown");
    assert!(world.engine.pen.clock.high_water() > before.high_water, "a stamp is never drawn twice");
    world.commit(vec![tag(2, "b")]).unwrap();
    assert_eq!(world.changes(), [(2, ChangeKind::Insert), (3, ChangeKind::Insert)]);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_read_that_fails_fails_its_group_alone() {
    let mut world = World::new(Rules::default());
    for answer in [Err(ReadError::new("broken")), Ok(vec![]), Ok(vec![None, None])] {
        world.submit(vec![tag(1, "a")]);
        let Some(Effect::Read(keys)) = world.engine.next_effect() else { panic!("a group is read first") };
        assert_eq!(keys.len(), 1);
        world.engine.handle(world.now.clone(), Input::Read(keys, answer));
        world.settle();
        assert!(matches!(world.replies.pop(), Some((_, Err(Error::Read(_))))));
    }
    world.commit(vec![tag(1, "a")]).unwrap();
    assert_eq!(world.audit(), []);
}

#[test]
fn a_record_that_cannot_be_read_fails_its_commit_alone() {
    let mut world = World::new(Rules::default());
    let mut batch = WriteBatch::new();
    batch.put(RecordKey::new::<Tag>(&1).into_bytes(), *b"\x01garbage");
    block_on(world.store.write(batch)).unwrap();
    world.submit(vec![tag(1, "a")]);
    world.submit(vec![tag(2, "b")]);
    world.settle();
    assert!(matches!(world.replies[..], [(1, Err(Error::Format(_))), (2, Ok(()))]));
    assert_eq!(world.audit(), [Rule::Format]);
}

#[test]
fn a_newer_schema_is_not_overwritten() {
    let mut world = World::new(Rules::default());
    let mut newer = tag(1, "from the future");
    if let Action::Put(value) = &mut newer.action {
        value.schema = 2;
    }
    world.commit(vec![newer]).unwrap();
    assert!(matches!(world.commit(vec![tag(1, "a")]), Err(Error::NewerSchema { stored: 2, known: 1, .. })));
    world.commit(vec![untag(1)]).unwrap();
    world.commit(vec![tag(1, "a")]).unwrap();
    assert_eq!(world.audit(), []);
}

#[test]
fn the_same_bytes_under_a_newer_schema_are_a_change() {
    let mut world = World::new(Rules::default());
    world.commit(vec![tag(1, "a")]).unwrap();
    let mut newer = tag(1, "a");
    if let Action::Put(value) = &mut newer.action {
        value.schema = 2;
    }
    world.commit(vec![newer]).unwrap();
    assert_eq!(world.changes(), [(2, ChangeKind::Insert), (3, ChangeKind::Update)]);
}

#[test]
fn a_clock_that_fails_stops_nothing_but_the_commit() {
    let mut world = World::new(Rules::default());
    let bad = [ClockError::Before1970, ClockError::failed("no clock"), WallMs::new(u64::MAX).unwrap_err()];
    for error in bad {
        world.now.wall = Err(error);
        assert!(matches!(world.commit(vec![tag(1, "a")]), Err(Error::Clock(_))));
        // What draws no stamp needs no clock.
        world.commit(vec![untag(9)]).unwrap();
    }
    assert!(world.writes.is_empty());
    world.now = now(1000);
    world.commit(vec![tag(1, "a")]).unwrap();
    assert_eq!(world.audit(), []);
}

#[test]
fn a_jump_of_the_wall_clock_is_an_event_and_stamping_goes_on() {
    let mut world = World::new(Rules::default());
    let hour = 3_600_000;
    let readings: [(Result<u64, ()>, u64, Option<i64>); 7] = [
        (Ok(1000 + 60_000), 1000, None),                   // within the bound
        (Ok(1000 + 60_000 + hour), 2000, Some(3_599_000)), // forward
        (Ok(1000 + 60_000 + hour + 500), 2500, None),      // in step
        (Err(()), 2600, None),                             // no reading at all
        (Ok(1000), 2700, Some(1000 - 3_661_500 - 200)),    // back, seen across the failed reading
        (Ok(1000 + hour), 2700 + hour, None),              // suspended: both moved
        (Ok(1000), 2700 + hour, Some(-3_600_000)),         // back
    ];
    for (wall, mono, jumped) in readings {
        world.now = Now { wall: wall.map_or(Err(ClockError::Before1970), WallMs::new), mono: Mono(mono) };
        world.notices.clear();
        let before = world.engine.snapshot().high_water;
        let committed = world.commit(vec![rename(1, "x")]).is_ok();
        assert_eq!(committed, wall.is_ok());
        assert_eq!(world.engine.snapshot().high_water > before, committed);
        let jumps: Vec<_> = world
            .notices
            .iter()
            .flat_map(|notice| notice.iter())
            .filter_map(|event| match event {
                Event::ClockJumped { by_ms } => Some(*by_ms),
                _ => None,
            })
            .collect();
        assert_eq!(jumps, jumped.into_iter().collect::<Vec<_>>(), "at {mono}");
    }
}

#[test]
fn stopping_tells_every_caller_what_became_of_its_commit() {
    let unknown = StopReason::Panicked("boom".into());
    for (reason, written_is_unknown) in [(unknown, true), (StopReason::Fenced, false)] {
        let mut world = World::new(Rules::default());
        world.submit(vec![tag(1, "a")]);
        world.up_to_write().unwrap();
        world.submit(vec![tag(2, "b")]);
        let open = world.engine.stop(&reason);
        let [(Ticket(1), written), (Ticket(2), queued)] = &open[..] else { panic!("{open:?}") };
        assert_eq!(matches!(written, Error::Unknown(_)), written_is_unknown);
        assert!(matches!(queued, Error::Stopped(_)));
    }
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(1, "a")]);
    assert!(matches!(world.engine.next_effect(), Some(Effect::Read(_))));
    assert!(matches!(world.engine.stop(&StopReason::DriverDropped)[..], [(Ticket(1), Error::Stopped(_))]));
}

#[test]
fn the_founder_is_the_first_member_and_the_first_commit() {
    let world = World::new(Rules::default());
    let head = world.engine.snapshot().head;
    assert_eq!((head.seq, head.floor), (1, 0));
    assert!(world.engine.is_alone());
    let entry = world.logged(1);
    assert_eq!(entry.changes[0].record.model(), "syncline.member");
    assert_eq!(world.audit(), []);
}

#[test]
fn opening_checks_the_store_against_what_was_asked_for() {
    let world = World::new(Rules::default());
    let other_group = Ask { group: Some(GroupId(Uuid::from_u128(1))), ..ask(Rules::default()) };
    let other_device = Ask { device: Some(DeviceId(Uuid::from_u128(1))), ..ask(Rules::default()) };
    let nothing = || Ask { group: None, device: None, ..ask(Rules::default()) };
    assert!(matches!(open_engine(&world.store, other_group, now(1)), Err(OpenError::OtherGroup { .. })));
    assert!(matches!(open_engine(&world.store, other_device, now(1)), Err(OpenError::OtherDevice { .. })));
    let reopened = open_engine(&world.store, nothing(), now(1)).unwrap();
    assert_eq!(reopened.snapshot().identity, world.engine.snapshot().identity);

    let empty = Map::default();
    assert!(matches!(open_engine(&empty, nothing(), now(1)), Err(OpenError::NoGroup { .. })));
    let no_device = Ask { device: None, ..ask(Rules::default()) };
    assert!(matches!(open_engine(&empty, no_device, now(1)), Err(OpenError::NoDevice { .. })));
    let broken_clock = Now { wall: Err(ClockError::Before1970), mono: Mono(0) };
    assert!(matches!(open_engine(&empty, ask(Rules::default()), broken_clock), Err(OpenError::Clock(_))));
    assert!(empty.0.lock().unwrap().is_empty(), "nothing was written");
    empty.0.lock().unwrap().insert(b"other".to_vec(), vec![]);
    assert!(matches!(open_engine(&empty, ask(Rules::default()), now(1)), Err(OpenError::NotAStore { .. })));
}

#[test]
fn opening_a_damaged_store_is_an_error() {
    let world = World::new(Rules::default());
    let whole = world.store.0.lock().unwrap().clone();
    for key in whole.keys() {
        for damage in [None, Some(vec![]), Some(vec![1]), Some(vec![2; 60])] {
            let mut map = whole.clone();
            match damage.clone() {
                None => drop(map.remove(key)),
                Some(value) => drop(map.insert(key.clone(), value)),
            }
            let damaged = Map(Mutex::new(map));
            // Some rows are not needed to open; the audit sees the damage in every one of them.
            let _ = open_engine(&damaged, ask(Rules::default()), now(1));
            let missing_model =
                damage.is_none() && matches!(StoredKey::parse(key), Some(StoredKey::Model(_)));
            assert_eq!(block_on(audit(&damaged)).is_empty(), missing_model, "{key:02x?} {damage:?}");
        }
    }
}

#[test]
fn the_audit_notices_every_byte_that_matters() {
    let mut world = World::unpruned();
    let spot = |name: &str| put(&Spot { id: 1, device_id: DEVICE, name: name.into() });
    for changes in
        [vec![tag(1, "a"), tag(2, "b"), spot("c")], vec![tag(1, "d"), spot("e")], vec![untag(2), tag(3, "f")]]
    {
        world.commit(changes).unwrap();
    }
    assert_eq!(world.audit(), []);
    let whole = world.store.0.lock().unwrap().clone();
    let mut unnoticed = Vec::new();
    for (key, value) in &whole {
        for at in 0..value.len() {
            for bit in 0..8 {
                let mut map = whole.clone();
                map.get_mut(key).unwrap()[at] ^= 1 << bit;
                if block_on(audit(&Map(Mutex::new(map)))).is_empty() {
                    unnoticed.push((StoredKey::parse(key).unwrap(), at));
                }
            }
        }
    }
    // Nothing else in a store says which group it is of, or which schemas its apps have had; a clock may stand above
    // every stamp.
    unnoticed.retain(|(key, at)| match key {
        StoredKey::Identity => !(1..17).contains(at),
        StoredKey::Clock | StoredKey::Model(_) => *at == 0,
        // Rows may be shorter than the head says.
        StoredKey::Head(_) => *at < 89,
        _ => true,
    });
    assert_eq!(unnoticed, []);
}

#[test]
fn the_audit_notices_rows_that_belong_to_nothing() {
    let mut world = World::unpruned();
    world.commit(vec![tag(1, "a")]).unwrap();
    world.commit(vec![untag(1), put(&Spot { id: 1, device_id: DEVICE, name: "c".into() })]).unwrap();
    let stranger = ReplicaId(Uuid::from_u128(0x77));
    let tag_key = RecordKey::new::<Tag>(&1);
    let spot_key = RecordKey::new::<Spot>(&(DEVICE, 1));
    let foreign = RecordKey::new::<Spot>(&(DeviceId(Uuid::from_u128(0x78)), 1));
    let record = world.get(spot_key.clone().into_bytes()).unwrap();
    for (key, value, rule) in [
        (keys::log(stranger, 1), b"garbage".to_vec(), Rule::LogIsWhole),
        (keys::log(REPLICA, u64::MAX), vec![], Rule::LogIsWhole),
        (keys::kept(stranger, 1, &tag_key), vec![], Rule::LogIsWhole),
        (keys::kept(REPLICA, 3, &tag_key), vec![], Rule::KeptIsNeeded),
        (keys::kept(REPLICA, 3, &spot_key), vec![], Rule::KeptIsNeeded),
        (keys::kept(REPLICA, 9, &tag_key), vec![], Rule::KeptIsNeeded),
        (foreign.into_bytes(), record.clone(), Rule::Devices),
        (RecordKey::new::<Tag>(&9).into_bytes(), record, Rule::LogExplainsRecord),
        (vec![0xff], vec![], Rule::Format),
    ] {
        let mut map = world.store.0.lock().unwrap().clone();
        map.insert(key.clone(), value);
        let found: Vec<_> =
            block_on(audit(&Map(Mutex::new(map)))).into_iter().map(|found| found.rule).collect();
        assert!(found.contains(&rule), "{:?}: {found:?}", StoredKey::parse(&key));
    }
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Put(u32, u8),
    Delete(u32),
    Append(u32),
    Batch(Vec<(u32, Option<u8>)>),
    Settle,
    Reject,
    /// The process dies with the last write applied or not.
    Crash {
        applied: bool,
    },
    Wall(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let id = 0..4u32;
    prop_oneof![
        4 => (id.clone(), 0..3u8).prop_map(|(id, name)| Step::Put(id, name)),
        2 => id.clone().prop_map(Step::Delete),
        2 => id.clone().prop_map(Step::Append),
        2 => prop::collection::btree_map(id, prop::option::of(0..3u8), 0..4)
            .prop_map(|changes| Step::Batch(changes.into_iter().collect())),
        4 => Just(Step::Settle),
        1 => Just(Step::Reject),
        1 => any::<bool>().prop_map(|applied| Step::Crash { applied }),
        1 => prop_oneof![Just(0), Just(1000), 0..5000u64, Just(1_000_000)].prop_map(Step::Wall),
    ]
}

/// What the app believes to be stored, given what it was told.
#[derive(Default)]
struct Belief {
    tags: BTreeMap<u32, String>,
    open: BTreeMap<u64, Step>,
}

impl Belief {
    fn commit(&mut self, ticket: u64) {
        let mut set = |id: u32, name: Option<String>| match name {
            Some(name) => drop(self.tags.insert(id, name)),
            None => drop(self.tags.remove(&id)),
        };
        match self.open.remove(&ticket).unwrap() {
            Step::Put(id, name) => set(id, Some(name.to_string())),
            Step::Delete(id) => set(id, None),
            Step::Append(id) => self.tags.entry(id).or_default().push('+'),
            Step::Batch(changes) => {
                changes.into_iter().for_each(|(id, name)| set(id, name.map(|name| name.to_string())));
            }
            other => panic!("{other:?} is no commit"),
        }
    }
}

impl World {
    fn stage(step: &Step) -> Vec<Staged> {
        let set =
            |id: u32, name: Option<u8>| name.map_or_else(|| untag(id), |name| tag(id, &name.to_string()));
        match step {
            Step::Put(id, name) => vec![set(*id, Some(*name))],
            Step::Delete(id) => vec![set(*id, None)],
            Step::Append(id) => vec![rename(*id, "+")],
            Step::Batch(changes) => changes.iter().map(|(id, name)| set(*id, *name)).collect(),
            other => panic!("{other:?} is no commit"),
        }
    }

    fn stored_tags(&self) -> BTreeMap<u32, String> {
        let entries = block_on(self.store.scan(RecordKey::range_of_model::<Tag>(), usize::MAX)).unwrap();
        let tags = entries.iter().map(|entry| record::parse(&entry.value).unwrap());
        let tags = tags.filter(|(header, _)| !header.tombstone);
        tags.map(|(_, value)| model::decode_bytes::<Tag>(value).unwrap())
            .map(|tag| (tag.id, tag.name))
            .collect()
    }
}

proptest! {
    /// C1, C5, H2, H12, I1, I3 to I5: whatever happens, a store is whole after every write and every crash, holds
    /// exactly what its app was told, has no holes in its stream, and its stamps rise for ever.
    #[test]
    fn every_history_leaves_a_whole_store(
        steps in prop::collection::vec((any_step(), prop::bool::weighted(0.3)), 1..60),
        prune: bool,
    ) {
        let rules = Rules { prune, ..Rules::ALL };
        let mut world = World::new(rules);
        let mut belief = Belief::default();
        let mut told = (1, world.engine.snapshot().high_water);
        for (step, joined) in steps {
            match step {
                Step::Settle => world.settle(),
                Step::Reject => {
                    if world.up_to_write().is_some() {
                        world.rejected();
                        world.settle();
                    }
                }
                Step::Crash { applied } => {
                    let batch = world.up_to_write();
                    for (ticket, result) in world.replies.drain(..) {
                        if result.is_ok() {
                        belief.commit(ticket);
                    }
                    }
                    if let Some(batch) = batch.filter(|_| applied) {
                        block_on(world.store.write(batch)).unwrap();
                        for (Ticket(ticket), error) in world.engine.stop(&StopReason::DriverDropped) {
                            if matches!(error, Error::Unknown(_)) {
                                belief.commit(ticket);
                            }
                        }
                    }
                    (world.joins, world.joined) = (BTreeMap::new(), None);
                    // Time may have stepped back meanwhile: the stored clock alone must prevent old stamps.
                    world.engine = open_engine(&world.store, ask(rules), now(500)).unwrap();
                }
                Step::Wall(ms) => world.now = Now { wall: WallMs::new(ms), mono: Mono(ms) },
                commit => {
                    let staged = World::stage(&commit);
                    let ticket = if joined { world.submit_joined(staged) } else { world.submit(staged) };
                    belief.open.insert(ticket, commit);
                }
            }
            for (ticket, result) in world.replies.drain(..) {
                if result.is_ok() {
                        belief.commit(ticket);
                    }
            }
            prop_assert_eq!(world.audit(), []);
            prop_assert_eq!(world.stored_tags(), belief.tags.clone());
            for notice in world.notices.drain(..) {
                for event in notice.iter() {
                    let Event::Changed(change) = event else { continue };
                    // The same commit again, or a later one with a higher stamp.
                    prop_assert!((change.seq, change.stamp) == told || change.seq > told.0 && change.stamp > told.1);
                    told = (change.seq, change.stamp);
                }
            }
            prop_assert!(world.engine.pen.head().seq >= told.0);
        }
    }
}
