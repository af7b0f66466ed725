//! Goal: what a replica does with what others send, rule by rule. Method: a real engine and peers that are made up, frame
//! by frame; every rule of which a test speaks is switched off beside it, and the same frames then do harm.

use super::*;
use crate::engine::wire::{
    self, Capped, CommitParts, Hello, Message, MessageWriter, Messages, PageHead, Pull, WireCommit, WireHead,
};
use crate::events::StreamStop;
use crate::storage::WriteOp;
use crate::stored::log::{CHAIN_START, LogRowWriter, chain};
use crate::stored::{Digest, ValueRef, digest};

const GROUP: GroupId = GroupId(Uuid::from_u128(0xf));
const B: ReplicaId = ReplicaId(Uuid::from_u128(0xb0));
const C: ReplicaId = ReplicaId(Uuid::from_u128(0xc0));
const STRANGER: ReplicaId = ReplicaId(Uuid::from_u128(0x57));
const B_DEVICE: DeviceId = DeviceId(Uuid::from_u128(0xdb));
const C_DEVICE: DeviceId = DeviceId(Uuid::from_u128(0xdc));

/// The author of a stream, who writes whatever a test wants.
#[derive(Clone)]
struct Author {
    stream: ReplicaId,
    device: DeviceId,
    seq: u64,
    digest: Digest,
    wall: u64,
}

/// A commit of an [`Author`].
#[derive(Clone)]
struct Made {
    stream: ReplicaId,
    seq: u64,
    row: Value,
    values: Vec<u8>,
    stamp: Hlc,
}

type Write = (RecordKey, Option<Value>, Option<Hlc>);

impl Author {
    fn new(stream: ReplicaId, device: DeviceId) -> Self {
        Self { stream, device, seq: 0, digest: CHAIN_START, wall: 1000 }
    }

    fn commit(&mut self, after: &[(ReplicaId, u64)], mut writes: Vec<Write>) -> Made {
        self.wall += 1;
        let stamp = Hlc::new(WallMs::new(self.wall).unwrap(), 0, self.stream);
        writes.sort_by(|one, other| one.0.cmp(&other.0));
        let mut row = LogRowWriter::new(&self.digest, self.device, stamp, after, writes.len());
        let mut values = Vec::new();
        for (record, value, epoch) in &writes {
            let reference = value.as_ref().map(|value| ValueRef {
                schema: 1,
                len: u32::try_from(value.len()).unwrap(),
                digest: digest(value),
            });
            row.push(record, reference, *epoch);
            values.extend(value.iter().flatten());
        }
        let row = row.finish();
        self.digest = chain(&self.digest, split_row(&row).unwrap().1);
        self.seq += 1;
        Made { stream: self.stream, seq: self.seq, row, values, stamp }
    }

    /// Gives a tag a name.
    fn tag(&mut self, id: u32, name: &str) -> Made {
        self.commit(&[], vec![tagged(id, name)])
    }

    fn head(&self) -> WireHead {
        WireHead { stream: self.stream, seq: self.seq, digest: self.digest }
    }
}

fn tagged(id: u32, name: &str) -> Write {
    (RecordKey::new::<Tag>(&id), Some(encoded(id, name)), None)
}

fn bagged(id: u32, items: &[u32], epoch: Hlc) -> Write {
    let bag = Bag { id, items: items.iter().copied().collect() };
    (RecordKey::new::<Bag>(&id), Some(postcard::to_allocvec(&bag).unwrap()), Some(epoch))
}

/// Makes a replica a member.
fn member(replica: ReplicaId, device: DeviceId) -> Write {
    let member = Member { replica, device, state: crate::MemberState::Active };
    let value = postcard::to_allocvec(&member).unwrap();
    (RecordKey::new::<Member>(&replica), Some(value), Some(Hlc::NEVER))
}

fn push(writer: &mut MessageWriter, made: &Made) {
    let (previous, entry) = split_row(&made.row).unwrap();
    let Made { stream, seq, values, .. } = made;
    writer.push(&CommitParts { stream: *stream, seq: *seq, previous: &previous, entry, values });
}

fn live_of(group: GroupId, commits: &[&Made]) -> Bytes {
    let mut writer = MessageWriter::live(group);
    commits.iter().for_each(|made| push(&mut writer, made));
    writer.finish()
}

fn live(commits: &[&Made]) -> Bytes {
    live_of(GROUP, commits)
}

/// The head of a page that answers `pull`.
const fn answer(pull: &Pull, more: bool) -> PageHead {
    PageHead { id: pull.id, more, pruned: false, too_long: None }
}

fn page_of(head: PageHead, commits: &[&Made]) -> Bytes {
    let mut page = MessageWriter::page(GROUP, &head, 0);
    commits.iter().for_each(|made| push(&mut page, made));
    page.finish()
}

fn hello(session: u64, heads: &[WireHead]) -> Bytes {
    wire::hello(GROUP, &Hello { session, restored: false, heads: Capped(heads.to_vec()) })
}

impl World {
    /// A founder with the members B and C, both connected.
    fn connected(rules: Rules) -> Self {
        let mut world = Self::asking(Ask { networked: true, ..ask(rules) });
        for (replica, device) in [(B, B_DEVICE), (C, C_DEVICE)] {
            let member = Member { replica, device, state: crate::MemberState::Active };
            let change = Staged { own_merge: true, ..put(&member) };
            world.commit(vec![change]).unwrap();
        }
        for peer in [B, C] {
            world.engine.handle(world.now.clone(), Input::Up(peer));
        }
        world.settle();
        world.notices.clear();
        world
    }

    fn feed(&mut self, from: ReplicaId, frame: Bytes) {
        self.engine.handle(self.now.clone(), Input::Frame(from, frame));
        self.settle();
    }

    fn pass(&mut self, ms: u64) {
        self.now = Now {
            wall: self.now.wall.clone().map(|wall| wall.saturating_add(ms)),
            mono: Mono(self.now.mono.0 + ms),
        };
        self.engine.handle(self.now.clone(), Input::Tick);
        self.settle();
    }

    fn tag_name(&self, id: u32) -> Option<String> {
        let stored = self.get(RecordKey::new::<Tag>(&id).into_bytes())?;
        let (header, value) = record::parse(&stored).unwrap();
        (!header.tombstone).then(|| model::decode_bytes::<Tag>(value).unwrap().name)
    }

    fn bag(&self, id: u32) -> Option<Vec<u32>> {
        let stored = self.get(RecordKey::new::<Bag>(&id).into_bytes())?;
        let (header, value) = record::parse(&stored).unwrap();
        (!header.tombstone).then(|| model::decode_bytes::<Bag>(value).unwrap().items.into_iter().collect())
    }

    fn seq_of(&self, stream: ReplicaId) -> u64 {
        self.engine.pen.heads.get(&stream).map_or(0, |head| head.seq)
    }

    fn stop_of(&self, stream: ReplicaId) -> Option<StreamStop> {
        let streams = self.engine.snapshot().streams;
        streams.into_iter().find(|view| view.replica == stream).and_then(|view| view.stop)
    }

    fn events(&mut self) -> Vec<Event> {
        self.notices.drain(..).flat_map(|notice| notice.to_vec()).collect()
    }

    /// Everything that was sent since the last time.
    fn said(&mut self) -> Vec<(Option<ReplicaId>, Message)> {
        let frames = std::mem::take(&mut self.sent);
        let read = frames.into_iter().flat_map(|(to, frame)| {
            let messages = Messages::new(frame, Some(GROUP), usize::MAX).unwrap();
            messages.map(move |message| (to, message.unwrap()))
        });
        read.collect()
    }

    fn pulls(&mut self) -> Vec<(ReplicaId, Pull)> {
        let said = self.said().into_iter();
        said.filter_map(|(to, message)| match message {
            Message::Pull(pull) => Some((to.unwrap(), pull)),
            _ => None,
        })
        .collect()
    }

    fn limit(&mut self, limits: Limits) {
        self.engine.limits = Arc::new(limits);
        self.engine.pen.limits = Arc::clone(&self.engine.limits);
    }

    /// What the store answers to a pull.
    fn page(&mut self, from: ReplicaId, heads: &[WireHead], budget: u32) -> (PageHead, Vec<WireCommit>) {
        self.sent.clear();
        let pull = Pull {
            id: 7,
            budget,
            frame_bytes: u32::MAX,
            heads: Capped(heads.to_vec()),
            excluded: Capped(vec![]),
        };
        self.feed(from, wire::pull(GROUP, &pull));
        let page = self.said().into_iter().find_map(|(to, message)| match message {
            Message::Page(head, commits) if to == Some(from) => Some((head, commits)),
            _ => None,
        });
        page.expect("a page")
    }

    fn content(&self) -> BTreeMap<Key, Value> {
        self.store.0.lock().unwrap().clone()
    }
}

/// The rules without one of them.
macro_rules! without {
    ($rule:ident) => {
        Rules { $rule: false, ..Rules::ALL }
    };
}

#[test]
fn a_live_commit_is_applied_and_told_with_its_origin() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let spot = Spot { id: 9, device_id: B_DEVICE, name: "home".into() };
    let owned = (RecordKey::new::<Spot>(&(B_DEVICE, 9)), Some(postcard::to_allocvec(&spot).unwrap()), None);
    let made = b.commit(&[], vec![tagged(1, "a"), owned]);
    world.feed(B, live(&[&made]));
    assert_eq!((world.tag_name(1).as_deref(), world.seq_of(B)), (Some("a"), 1));
    let changes: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Changed(change) => Some((change.kind, change.origin, change.stamp, change.seq)),
            _ => None,
        })
        .collect();
    assert_eq!(changes, [(ChangeKind::Insert, B_DEVICE, made.stamp, 1); 2]);
    assert_eq!(world.audit(), []);
}

/// C2, Y8: an acknowledgement says what is durable, and comes after it.
#[test]
fn y8_nothing_is_acknowledged_before_it_is_durable() {
    for (rules, early) in [(Rules::ALL, false), (without!(acks_are_durable), true)] {
        let mut world = World::connected(rules);
        world.said();
        let (first, second) = {
            let mut b = Author::new(B, B_DEVICE);
            (b.tag(1, "a"), b.tag(1, "b"))
        };
        world.feed(B, live(&[&first]));
        // The second waits for the store while the first one's acknowledgement is due.
        world.engine.handle(world.now.clone(), Input::Frame(B, live(&[&second])));
        let batch = world.up_to_write().expect("it is written");
        assert!(
            world
                .notices
                .iter()
                .all(|notice| !matches!(&notice[0], Event::Changed(change) if change.seq == 2))
        );
        world.now = Now { mono: Mono(world.now.mono.0 + 1_000), ..world.now.clone() };
        world.engine.handle(world.now.clone(), Input::Tick);
        assert!(world.up_to_write().is_none());
        let acked = |world: &mut World| -> Vec<u64> {
            let said = world.said().into_iter();
            said.filter_map(|(_, message)| match message {
                Message::Ack(heads) => heads.0.iter().find(|head| head.stream == B).map(|head| head.seq),
                _ => None,
            })
            .collect()
        };
        assert_eq!(acked(&mut world), [if early { 2 } else { 1 }]);
        world.written(batch);
        world.pass(1_000);
        assert_eq!(acked(&mut world), [2]);
    }
}

/// C6: what comes twice changes nothing, and is told once.
#[test]
fn c6_duplicates_change_nothing() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let (first, second) = (b.tag(1, "a"), b.commit(&[], vec![bagged(1, &[1], Hlc::NEVER)]));
    world.feed(B, live(&[&first, &second]));
    let (before, events) = (world.content(), world.events().len());
    for frame in [live(&[&first]), live(&[&second]), live(&[&first, &second])] {
        world.feed(C, frame);
    }
    assert_eq!((world.content(), events, world.events().len()), (before, 2, 0));
}

/// C9: a stream is applied without holes, and what is missing is asked for at once.
#[test]
fn c9_a_gap_is_not_jumped() {
    for (rules, jumped) in [(Rules::ALL, false), (without!(streams_have_no_holes), true)] {
        let mut world = World::connected(rules);
        let mut b = Author::new(B, B_DEVICE);
        let (first, second) = (b.tag(1, "a"), b.tag(2, "b"));
        world.said();
        world.feed(B, live(&[&second]));
        assert_eq!(world.seq_of(B), if jumped { 2 } else { 0 });
        if jumped {
            assert!(!world.audit().is_empty());
            continue;
        }
        let pulls = world.pulls();
        let [(peer, pull)] = &pulls[..] else { panic!("one pull, not {pulls:?}") };
        assert_eq!(*peer, B);
        world.feed(B, page_of(answer(pull, false), &[&first, &second]));
        assert_eq!((world.seq_of(B), world.audit()), (2, vec![]));
    }
}

/// B1: the next page is asked for while one is being written, and no third one while two are in memory.
#[test]
fn b1_two_pages_are_in_memory_and_no_more() {
    const PAGE: usize = 30;
    let mut world = World::connected(Rules::ALL);
    world.limit(Limits { page_bytes_max: 5_000, event_commits_max: 10, ..Limits::default() });
    let mut b = Author::new(B, B_DEVICE);
    let made: Vec<_> = (0..100).map(|n| b.tag(n, "some name")).collect();
    world.said();
    world.feed(B, live(&[&made[99]]));
    let page =
        |pull: &Pull, commits: &[Made]| page_of(answer(pull, true), &commits.iter().collect::<Vec<_>>());
    let frame = page(&world.pulls()[0].1, &made[..PAGE]);
    assert!(frame.len() <= 5_000);
    world.engine.handle(world.now.clone(), Input::Frame(B, frame));
    assert!(world.engine.sync.inbox.bytes > 5_000, "it weighs more in memory");
    let batch = world.up_to_write().unwrap();
    let pulls = world.pulls();
    let [(B, pull)] = &pulls[..] else { panic!("one pull, not {pulls:?}") };
    assert_eq!(pull.heads.0.iter().find(|head| head.stream == B).unwrap().seq, PAGE as u64);
    // It comes while the first third of the page before is written.
    let frame = page(pull, &made[PAGE..2 * PAGE]);
    world.engine.handle(world.now.clone(), Input::Frame(B, frame));
    world.written(batch);
    for expected in [0, 1, 0] {
        let batch = world.up_to_write().unwrap();
        assert_eq!(world.pulls().len(), expected);
        world.written(batch);
    }
}

/// I7: a commit waits for what it rests on, and both are asked for.
#[test]
fn i7_causes_come_first() {
    for (rules, early) in [(Rules::ALL, false), (without!(causes_come_first), true)] {
        let mut world = World::connected(rules);
        let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
        let cause = b.tag(1, "a");
        let effect = c.commit(&[(B, 1)], vec![tagged(1, "answer")]);
        world.said();
        world.feed(C, live(&[&effect]));
        assert_eq!(world.tag_name(1).is_some(), early);
        if early {
            continue;
        }
        assert_eq!(world.pulls().len(), 1, "from whoever has the effect");
        // It comes from elsewhere: the effect is asked for all the same.
        world.feed(B, live(&[&cause]));
        assert_eq!((world.tag_name(1).as_deref(), world.engine.missing(C)), (Some("a"), 1));
        world.feed(C, live(&[&effect]));
        assert_eq!((world.tag_name(1).as_deref(), world.audit()), (Some("answer"), vec![]));
    }
}

/// H3, Y15: two histories of one stream. The stream stops, visibly and also after a restart; the others go on.
#[test]
fn a_stream_with_two_histories_stops() {
    for (rules, mixed) in [(Rules::ALL, false), (without!(chains_are_checked), true)] {
        let mut world = World::connected(rules);
        let mut b = Author::new(B, B_DEVICE);
        let first = b.tag(1, "a");
        let mut restored = b.clone();
        let (second, other) = (b.tag(1, "b"), restored.tag(1, "x"));
        let third = restored.tag(1, "y");
        world.feed(B, live(&[&first, &second]));
        world.feed(B, live(&[&third]));
        assert_eq!(world.tag_name(1).as_deref(), Some(if mixed { "y" } else { "b" }), "{}", other.seq);
        if mixed {
            assert!(!world.audit().is_empty());
            continue;
        }
        assert_eq!(world.stop_of(B), Some(StreamStop::Forked { seq: 2 }));
        assert!(
            world.events().contains(&Event::Stopped { stream: B, reason: StreamStop::Forked { seq: 2 } })
        );
        let c = Author::new(C, C_DEVICE).tag(2, "c");
        world.feed(C, live(&[&c]));
        assert_eq!(world.seq_of(C), 1);
        world.engine = open_engine(&world.store, Ask { networked: true, ..ask(rules) }, now(2000)).unwrap();
        assert_eq!(world.stop_of(B), Some(StreamStop::Forked { seq: 2 }), "it is remembered");
        assert_eq!(world.audit(), []);
    }
}

/// A fork is also seen where nothing comes twice: in the heads of a hello, and by whoever answers a pull.
#[test]
fn a_fork_is_seen_from_digests_alone() {
    let mut b = Author::new(B, B_DEVICE);
    let first = b.tag(1, "a");
    let mut other = b.clone();
    let (second, _) = (b.tag(1, "b"), other.tag(1, "x"));
    let mut world = World::connected(Rules::ALL);
    world.feed(B, live(&[&first, &second]));
    world.feed(C, hello(1, &[other.head()]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Forked { .. })));

    let mut world = World::connected(Rules::ALL);
    let third = b.tag(1, "c");
    world.feed(B, live(&[&first, &second, &third]));
    let (_, page) = world.page(C, &[other.head()], 1 << 20);
    assert!(matches!(world.stop_of(B), Some(StreamStop::Forked { .. })));
    let of_b: Vec<_> = page.iter().filter(|commit| commit.stream == B).map(|commit| commit.seq).collect();
    assert_eq!(of_b, [3], "the puller sees it too, and nothing behind it");
}

/// Y15, H3: a peer knows more of the own stream, or another digest of it, or that more was acknowledged once.
#[test]
fn y15_a_restored_store_stops_committing() {
    let own = |world: &World| {
        let head = world.engine.pen.head();
        WireHead { stream: REPLICA, seq: head.seq, digest: head.digest }
    };
    type Evidence = fn(&mut World, WireHead);
    let cases: [(&str, Evidence); 5] = [
        ("more", |world, own| world.feed(B, hello(1, &[WireHead { seq: own.seq + 1, ..own }]))),
        ("another digest", |world, own| world.feed(B, hello(1, &[WireHead { digest: [7; 32], ..own }]))),
        ("another digest further back", |world, own| {
            world.feed(B, hello(1, &[WireHead { seq: own.seq - 1, digest: [7; 32], ..own }]));
        }),
        ("acknowledged", |world, _| {
            let head = WireHead { stream: C, seq: 3, digest: [7; 32] };
            world.feed(B, wire::regressed(GROUP, &head));
        }),
        ("seen by an author", |world, own| {
            let made = Author::new(B, B_DEVICE).commit(&[(REPLICA, own.seq + 1)], vec![tagged(1, "a")]);
            world.feed(B, live(&[&made]));
        }),
    ];
    for (what, evidence) in cases {
        for rules in [Rules::ALL, without!(restores_are_noticed)] {
            let mut world = World::connected(rules);
            world.submit(vec![tag(8, "waits")]);
            let own = own(&world);
            evidence(&mut world, own);
            let result = world.commit(vec![tag(9, "x")]);
            if !rules.restores_are_noticed {
                assert!(result.is_ok(), "{what}");
                continue;
            }
            assert!(matches!(result, Err(Error::Restored(_))), "{what}: {result:?}");
            assert!(world.events().iter().any(|event| matches!(event, Event::Restored(_))), "{what}");
            assert!(world.engine.snapshot().restored.is_some());
            let mut engine =
                open_engine(&world.store, Ask { networked: true, ..ask(rules) }, now(2000)).unwrap();
            engine
                .handle(now(2000), Input::Commit(Ticket(1), Commit { changes: vec![tag(9, "x")], bytes: 1 }));
            assert!(
                matches!(engine.next_effect(), Some(Effect::Reply(_, Err(Error::Restored(_))))),
                "{what}"
            );
            assert_eq!(world.audit(), [], "{what}");
        }
    }
}

/// A hello of an earlier session, or of before an acknowledgement, proves nothing: the peer is asked, and knows better.
#[test]
fn y10_a_late_hello_restores_nobody() {
    let mut world = World::connected(Rules::ALL);
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.engine.pen.head();
    let acked = WireHead { stream: REPLICA, seq: own.seq, digest: own.digest };
    world.feed(B, hello(1, &[acked]));
    world.said();
    world.feed(B, hello(2, &[]));
    let asked =
        world.said().into_iter().any(|(to, message)| to == Some(B) && message == Message::Regressed(acked));
    assert!(asked, "B is told what it once acknowledged");
    assert!(world.engine.snapshot().restored.is_none());
    // And asked the same itself, this replica knows that it has it.
    world.feed(B, wire::regressed(GROUP, &acked));
    assert!(world.engine.snapshot().restored.is_none());
    assert!(world.commit(vec![tag(2, "b")]).is_ok());
}

/// Y11, H5, H6: a stamp beyond the bound holds its stream alone, and the clock does not follow it.
#[test]
fn y11_only_the_stream_from_the_future_waits() {
    for (rules, held) in [(Rules::ALL, true), (without!(drift_is_held), false)] {
        for ahead in [-1, 0, 1] {
            let mut world = World::connected(rules);
            let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
            b.wall = 1000 + 300_000 - 1;
            b.wall = b.wall.saturating_add_signed(ahead);
            let clock = world.engine.pen.clock.clone();
            let early = b.tag(1, "b");
            world.feed(B, live(&[&early]));
            if ahead <= 0 || !held {
                assert_eq!(world.seq_of(B), 1, "{ahead}");
                continue;
            }
            assert_eq!((world.seq_of(B), &world.engine.pen.clock), (0, &clock));
            assert_eq!(world.stop_of(B), Some(StreamStop::Held { seq: 1, stamp: early.stamp }));
            world.feed(C, live(&[&c.tag(2, "c")]));
            assert_eq!(world.seq_of(C), 1, "other streams go on");
            // What rests on it waits with it, and nobody is asked for either.
            world.said();
            world.feed(C, live(&[&c.commit(&[(B, 1)], vec![tagged(3, "c")])]));
            assert_eq!(world.seq_of(C), 1);
            let pulls = world.pulls();
            assert!(pulls.iter().all(|(_, pull)| pull.excluded.0.contains(&B)), "{pulls:?}");
            // Time catches up.
            world.said();
            world.pass(10_000);
            assert_eq!(world.stop_of(B), None);
            assert!(world.events().contains(&Event::Resumed { stream: B }));
            assert!(world.pulls().iter().any(|(_, pull)| !pull.excluded.0.contains(&B)));
            world.feed(B, live(&[&early]));
            assert_eq!(world.seq_of(B), 1);
        }
    }
}

#[test]
fn a_held_stream_can_be_released() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    b.wall = 3_600_000;
    let (early, again) = (b.tag(1, "b"), b.tag(1, "c"));
    world.feed(B, live(&[&early]));
    assert!(!world.engine.release_held(C) && world.engine.release_held(B));
    world.settle();
    world.feed(B, live(&[&early, &again]));
    assert_eq!(world.tag_name(1).as_deref(), Some("c"), "and so are those behind it");
    world.commit(vec![tag(1, "mine")]).unwrap();
    assert_eq!(world.tag_name(1).as_deref(), Some("mine"), "the clock follows, so a later commit wins");
    assert_eq!(world.audit(), []);
}

/// C15: on the wire an owned record has no owner, so another device's cannot even be named; and an author cannot say that
/// it is on another device.
#[test]
fn c15_a_commit_cannot_speak_for_another_device() {
    for (rules, spoofed) in [(Rules::ALL, false), (without!(devices_are_checked), true)] {
        let mut world = World::connected(rules);
        let spot = |name: &str| Spot { id: 1, device_id: DEVICE, name: name.into() };
        world.commit(vec![put(&spot("mine"))]).unwrap();
        let mut b = Author::new(B, DEVICE);
        b.wall = 2000;
        let key = RecordKey::new::<Spot>(&(DEVICE, 1));
        let made =
            b.commit(&[], vec![(key.clone(), Some(postcard::to_allocvec(&spot("theirs")).unwrap()), None)]);
        world.feed(B, live(&[&made]));
        let stored = world.get(key.into_bytes()).unwrap();
        let name = model::decode_bytes::<Spot>(record::value_of(&stored)).unwrap().name;
        assert_eq!(name, if spoofed { "theirs" } else { "mine" });
        // It stops there, and is not asked for again and again.
        assert_eq!(matches!(world.stop_of(B), Some(StreamStop::Refused { seq: 1, .. })), !spoofed);
    }
}

/// C16: what cannot be taken stops its stream, says which limit to raise, and keeps nobody else waiting.
#[test]
fn c16_an_oversized_commit_is_no_poison() {
    let mut world = World::connected(Rules::ALL);
    let small = Limits { value_bytes_max: 10, ..Limits::default() };
    world.engine.limits = Arc::new(small);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let large = b.tag(1, &"x".repeat(100));
    let behind = b.tag(2, "y");
    let other = c.tag(3, "z");
    world.feed(B, live(&[&large, &behind, &other]));
    let Some(StreamStop::Refused { seq: 1, reason }) = world.stop_of(B) else { panic!("it stops") };
    assert!(reason.contains("Limits::value_bytes_max"), "{reason}");
    assert_eq!((world.seq_of(B), world.seq_of(C)), (0, 1), "the rest of the frame is taken");
    world.said();
    world.pass(100_000);
    assert!(world.pulls().is_empty(), "it is not asked for again");
    // Reopened with a higher limit, it goes on.
    world.engine = open_engine(&world.store, Ask { networked: true, ..ask(Rules::ALL) }, now(2000)).unwrap();
    world.engine.handle(world.now.clone(), Input::Up(B));
    world.feed(B, live(&[&large, &behind]));
    assert_eq!((world.seq_of(B), world.audit()), (2, vec![]));
}

/// C16: nor is one that is longer than a frame may be here. Whoever has it says so, and sends what does not rest on it.
#[test]
fn c16_a_commit_that_fits_into_no_frame_is_no_poison() {
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let large = b.tag(1, &"x".repeat(5_000));
    let behind = b.tag(2, "y");
    let rests = c.commit(&[], vec![tagged(3, "z")]);
    let rests_too = c.commit(&[(B, 2)], vec![tagged(3, "z")]);
    let frame_bytes = 4_000;

    // The one who has it.
    let mut world = World::connected(Rules::ALL);
    world.feed(B, live(&[&large, &behind]));
    world.feed(C, live(&[&rests, &rests_too]));
    assert_eq!((world.seq_of(B), world.seq_of(C)), (2, 2));
    world.sent.clear();
    let pull = Pull { id: 7, budget: 1 << 20, frame_bytes, heads: Capped(vec![]), excluded: Capped(vec![]) };
    world.feed(C, wire::pull(GROUP, &pull));
    let (frame, said) = (world.sent[0].1.clone(), world.said());
    let [(_, Message::Page(head, page))] = &said[..] else { panic!("{said:?}") };
    assert!(frame.len() <= frame_bytes as usize && !head.more);
    let too_long = head.too_long.expect("it is named");
    assert_eq!((too_long.stream, too_long.seq), (B, 1));
    assert!((5_000..5_300).contains(&too_long.bytes), "{too_long:?}");
    let streams: Vec<_> = page.iter().map(|commit| (commit.stream, commit.seq)).collect();
    assert_eq!(
        streams,
        [(REPLICA, 1), (REPLICA, 2), (REPLICA, 3), (C, 1)],
        "what rests on it is left out with it"
    );

    // The one who takes no frame as long as that.
    let mut world = World::connected(Rules::ALL);
    world.engine.limits = Arc::new(Limits { frame_bytes_max: 4_000, ..Limits::default() });
    world.said();
    world.feed(C, hello(1, &[b.head(), c.head()]));
    let [(C, pull)] = &world.pulls()[..] else { panic!("C is asked") };
    assert_eq!(pull.frame_bytes, 4_000);
    let head = PageHead { too_long: Some(too_long), ..answer(pull, false) };
    world.feed(C, page_of(head, &[]));
    let Some(StreamStop::Refused { seq: 1, reason }) = world.stop_of(B) else { panic!("it stops") };
    assert!(reason.contains("Limits::frame_bytes_max"), "{reason}");
    assert_eq!(world.engine.sync.useless, None, "it is no empty answer");
    let pulls = world.pulls();
    assert!(pulls.iter().all(|(_, pull)| pull.excluded.0 == [REPLICA, B]), "{pulls:?}");
}

/// Where all have the same limits, whatever one of them can commit fits into the frames of the others.
#[test]
fn the_largest_commit_fits_into_the_smallest_frame() {
    let limits = Limits {
        id_bytes_max: 8,
        value_bytes_max: 1_000,
        commit_changes_max: 1,
        commit_bytes_max: 1_000,
        members_max: 3,
        ..Limits::default()
    };
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    world.feed(B, live(&[&b.tag(1, "b")]));
    world.feed(C, live(&[&c.tag(1, "c")]));
    let name = "x".repeat(limits.value_bytes_max - encoded(7, "").len() - 1);
    assert_eq!(encoded(7, &name).len(), limits.value_bytes_max);
    let before = world.engine.pen.head();
    let before = WireHead { stream: REPLICA, seq: before.seq, digest: before.digest };
    world.commit(vec![tag(7, &name)]).unwrap();
    let frame_bytes = limits.frame_bytes_least().try_into().unwrap();
    world.sent.clear();
    let heads = Capped(vec![before, b.head(), c.head()]);
    let pull = Pull { id: 7, budget: 1 << 20, frame_bytes, heads, excluded: Capped(vec![]) };
    world.feed(C, wire::pull(GROUP, &pull));
    let said = world.said();
    let [(_, Message::Page(head, page))] = &said[..] else { panic!("{said:?}") };
    assert_eq!((head.too_long, page.len()), (None, 1));
}

/// A page is no longer than the frames of whoever asked for it, whatever budget it names.
#[test]
fn a_page_fits_into_the_frames_of_whoever_asked() {
    let mut world = World::connected(Rules::ALL);
    for n in 0..50 {
        world.commit(vec![tag(n, "some name")]).unwrap();
    }
    world.sent.clear();
    let heads = Capped(vec![]);
    let pull = Pull { id: 7, budget: 1 << 20, frame_bytes: 2_000, heads, excluded: Capped(vec![]) };
    world.feed(C, wire::pull(GROUP, &pull));
    let (len, said) = (world.sent[0].1.len(), world.said());
    let [(_, Message::Page(head, page))] = &said[..] else { panic!("{said:?}") };
    assert!(head.more && page.len() > 3 && len <= 2_000, "{len} bytes");
}

/// A frame counts as a whole: what is damaged in it takes the rest with it.
#[test]
fn a_frame_that_is_damaged_anywhere_changes_nothing() {
    let mut world = World::connected(Rules::ALL);
    let made = Author::new(B, B_DEVICE).tag(1, "a");
    let before = world.content();
    let good = live(&[&made]);
    for bad in [&b"SYNL"[..], &hello(1, &[])[..36], &wire::sealed(GROUP, 6, &[9])] {
        world.feed(B, [&good[..], bad].concat().into());
        assert_eq!((world.seq_of(B), world.content() == before), (0, true), "{bad:?}");
    }
    world.feed(B, [&good[..], &hello(1, &[])].concat().into());
    assert_eq!(world.seq_of(B), 1);
}

#[test]
fn values_must_be_what_their_commit_says() {
    for (rules, taken) in [(Rules::ALL, false), (without!(values_are_checked), true)] {
        let mut world = World::connected(rules);
        let mut made = Author::new(B, B_DEVICE).tag(1, "a");
        *made.values.last_mut().unwrap() ^= 1;
        let before = world.content();
        world.feed(C, live(&[&made]));
        assert_eq!(world.content() != before, taken);
        assert_eq!(taken, !world.audit().is_empty());
        for cut in
            [|values: &mut Vec<u8>| values.truncate(values.len() - 1), |values: &mut Vec<u8>| values.push(0)]
        {
            let mut world = World::connected(rules);
            let mut made = Author::new(B, B_DEVICE).tag(1, "a");
            cut(&mut made.values);
            world.feed(C, live(&[&made]));
            assert_eq!(world.seq_of(B), 0);
            let rejected = world
                .events()
                .into_iter()
                .any(|event| matches!(event, Event::FrameRejected { from: C, count: 1, .. }));
            assert!(rejected, "it says who");
        }
    }
}

#[test]
fn a_frame_of_a_stranger_or_of_another_group_changes_nothing() {
    let other = GroupId(Uuid::from_u128(0xee));
    let tag = |stream| Author::new(stream, B_DEVICE).tag(1, "a");
    // From whom, in which group, of whose stream; and without which rule it does harm.
    let cases = [
        (STRANGER, GROUP, B, without!(peers_are_members)),
        (B, other, B, without!(groups_are_checked)),
        (B, GROUP, STRANGER, without!(authors_are_members)),
    ];
    for (from, group, stream, broken) in cases {
        for rules in [Rules::ALL, broken] {
            let mut world = World::connected(rules);
            world.engine.handle(world.now.clone(), Input::Up(STRANGER));
            world.settle();
            let before = world.content();
            world.feed(from, live_of(group, &[&tag(stream)]));
            assert_eq!(world.content() == before, rules == Rules::ALL, "{from} {group} {stream}");
        }
    }
}

#[test]
fn a_stranger_is_told_that_it_is_one() {
    let mut world = World::connected(Rules::ALL);
    world.engine.handle(world.now.clone(), Input::Up(STRANGER));
    world.settle();
    assert!(world.said().iter().all(|(to, _)| *to != Some(STRANGER)), "nobody speaks to it first");
    let many = [hello(1, &[]), hello(2, &[])].concat();
    world.feed(STRANGER, many.into());
    assert_eq!(world.said(), [(Some(STRANGER), Message::Stranger)], "once a round");
}

#[test]
fn damaged_frames_are_counted_and_told_ever_more_rarely() {
    let mut world = World::connected(Rules::ALL);
    let before = world.content();
    for _ in 0..100 {
        world.feed(B, Bytes::from_static(b"SYNL nonsense"));
    }
    let counts: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::FrameRejected { from: B, count, .. } => Some(count),
            _ => None,
        })
        .collect();
    assert_eq!(counts, [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(world.content(), before);
    let peer = world.engine.snapshot().peers.into_iter().find(|peer| peer.replica == B).unwrap();
    assert_eq!(peer.rejected, 100);
}

/// B4, B6, I11: however many messages a frame has and however often a peer asks, it gets one answer a round.
#[test]
fn b4_a_flood_is_answered_once() {
    let mut world = World::connected(Rules::ALL);
    world.said();
    let own = world.engine.pen.head();
    let places: Vec<Bytes> =
        (0..10).map(|n| hello(n, &[WireHead { stream: REPLICA, seq: 1 + n % 2, digest: [1; 32] }])).collect();
    for _ in 0..50 {
        let frame: Bytes = [
            &places.concat()[..],
            &wire::pull(
                GROUP,
                &Pull {
                    id: 1,
                    budget: 9,
                    frame_bytes: u32::MAX,
                    heads: Capped(vec![]),
                    excluded: Capped(vec![]),
                },
            ),
        ]
        .concat()
        .into();
        world.engine.handle(world.now.clone(), Input::Frame(B, frame));
    }
    assert_eq!((world.engine.sync.pulls.len(), world.engine.sync.checks.len()), (1, 1), "{own:?}");
    assert!(world.engine.effects.len() <= 1, "{:?}", world.engine.effects);
    world.settle();
    let said = world.said();
    let hellos = said.iter().filter(|(to, message)| *to == Some(B) && matches!(message, Message::Hello(_)));
    assert!(hellos.count() <= 2);
    // A frame of too many messages is refused from there on.
    let many: Bytes = std::iter::repeat_n(hello(1, &[]), 1_000).collect::<Vec<_>>().concat().into();
    world.events();
    world.feed(B, many);
    assert!(world.events().iter().any(|event| matches!(event, Event::FrameRejected { .. })));
}

/// B1: what waits for the store is bounded, and what finds no room is asked for when there is some.
#[test]
fn b1_the_inbox_is_bounded() {
    let mut world = World::connected(Rules::ALL);
    world.limit(Limits { frame_bytes_max: 10_000, page_bytes_max: 5_000, ..Limits::default() });
    let mut b = Author::new(B, B_DEVICE);
    let made: Vec<_> = (0..100).map(|n| b.tag(n, "some name")).collect();
    world.said();
    for made in &made {
        world.engine.handle(world.now.clone(), Input::Frame(B, live(&[made])));
    }
    assert!(world.engine.sync.inbox.bytes <= 10_000, "{}", world.engine.sync.inbox.bytes);
    assert!(world.engine.sync.inbox.commits.len() < 100);
    world.settle();
    let taken = world.seq_of(B);
    assert!(taken > 0 && taken < 100);
    assert_eq!(world.pulls().len(), 1, "for the rest, once there is room");
}

/// Y2, C7: any order of the same commits of independent streams makes the same records, in one write or in several, and
/// every value stays in the log.
#[test]
fn c7_any_order_makes_the_same_state() {
    let key = RecordKey::new::<Bag>(&1);
    let (mut b, mut c, mut d) = (
        Author::new(B, B_DEVICE),
        Author::new(C, C_DEVICE),
        Author::new(ReplicaId(Uuid::from_u128(0xd0)), DeviceId(Uuid::from_u128(0xdd))),
    );
    c.wall = 1500;
    d.wall = 1400;
    let deleted = c.commit(&[], vec![(key.clone(), None, Some(Hlc::NEVER)), tagged(1, "c")]);
    let epoch = deleted.stamp;
    let streams = [
        vec![
            b.commit(&[], vec![bagged(1, &[1], Hlc::NEVER), tagged(1, "b")]),
            b.commit(&[], vec![bagged(1, &[2], Hlc::NEVER)]),
        ],
        vec![deleted, c.commit(&[], vec![bagged(1, &[3], epoch)])],
        vec![d.commit(&[], vec![bagged(1, &[4], Hlc::NEVER), (RecordKey::new::<Tag>(&1), None, None)]), {
            // It has seen the delete.
            d.wall = 1600;
            d.commit(&[(C, 1)], vec![bagged(1, &[5], epoch)])
        }],
    ];
    let mut states = Vec::new();
    // Every order of the six that keeps each stream's, and the cause before its effect.
    for order in orders(&[2, 2, 2]) {
        let position = |stream: usize, nth: usize| {
            order.iter().enumerate().filter(|(_, at)| **at == stream).nth(nth).unwrap().0
        };
        if position(2, 1) < position(1, 0) {
            continue;
        }
        for together in [true, false] {
            let mut world = World::connected(Rules::ALL);
            let member = Member { replica: d.stream, device: d.device, state: crate::MemberState::Active };
            world.commit(vec![Staged { own_merge: true, ..put(&member) }]).unwrap();
            let mut next = [0; 3];
            let commits: Vec<&Made> = order
                .iter()
                .map(|stream| {
                    next[*stream] += 1;
                    &streams[*stream][next[*stream] - 1]
                })
                .collect();
            if together {
                world.feed(B, live(&commits));
            } else {
                commits.iter().for_each(|made| world.feed(B, live(&[made])));
            }
            assert_eq!(world.audit(), [], "{order:?}");
            let record = |key: &RecordKey| world.get(key.as_bytes().to_vec());
            states.push((record(&key), record(&RecordKey::new::<Tag>(&1)), world.bag(1)));
            // C11: the tombstone of the tag was beaten or beat by stamp alone.
            assert_eq!((world.bag(1), world.tag_name(1)), (Some(vec![3, 5]), Some("c".into())), "{order:?}");
            // Whoever asks gets every commit whole, with exactly its bytes.
            let (_, page) = world.page(C, &[], 1 << 20);
            for made in streams.iter().flatten() {
                let served =
                    page.iter().find(|commit| commit.stream == made.stream && commit.seq == made.seq);
                let served = served.unwrap_or_else(|| panic!("{order:?}: {} {}", made.stream, made.seq));
                assert_eq!(served.values, made.values, "{order:?}: {} {}", made.stream, made.seq);
                assert_eq!(served.entry, split_row(&made.row).unwrap().1);
            }
        }
    }
    assert!(states.len() > 50);
    states.dedup();
    assert_eq!(states.len(), 1);
}

/// Every order of so many things of each kind.
fn orders(left: &[usize]) -> Vec<Vec<usize>> {
    if left.iter().all(|count| *count == 0) {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for kind in 0..left.len() {
        if left[kind] > 0 {
            let mut rest = left.to_vec();
            rest[kind] -= 1;
            all.extend(orders(&rest).into_iter().map(|mut order| {
                order.insert(0, kind);
                order
            }));
        }
    }
    all
}

/// The rules of merging, switched off, leave something that the audit or the order shows.
#[test]
fn without_the_rules_of_merging_orders_differ() {
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    c.wall = 1500;
    let (one, other) = (b.commit(&[], vec![tagged(1, "b"), bagged(1, &[1], Hlc::NEVER)]), {
        let key = RecordKey::new::<Bag>(&1);
        c.commit(&[], vec![tagged(1, "c"), (key, None, Some(Hlc::NEVER))])
    });
    let outcome = |rules: Rules, first: &Made, second: &Made| {
        let mut world = World::connected(rules);
        world.feed(B, live(&[first]));
        world.feed(B, live(&[second]));
        (world.tag_name(1), world.bag(1), world.audit().is_empty())
    };
    let same = |rules| {
        outcome(rules, &one, &other) == outcome(rules, &other, &one) && outcome(rules, &one, &other).2
    };
    assert!(same(Rules::ALL));
    assert!(!same(without!(higher_stamp_wins)));
    assert!(!same(without!(epochs_are_kept_apart)));
    assert!(!same(without!(values_are_kept)));
    assert!(!same(without!(clock_follows)));
}

/// A value of a model that nobody here knows lies beside its record, is relayed, and is merged at the opening at which the
/// app knows it: the result is the one of a replica that knew it all along.
#[test]
fn what_cannot_be_merged_yet_is_merged_later() {
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let commits = [
        b.commit(&[], vec![bagged(1, &[1], Hlc::NEVER)]),
        c.commit(&[], vec![bagged(1, &[2], Hlc::NEVER)]),
        b.commit(&[], vec![bagged(1, &[3], Hlc::NEVER)]),
    ];
    for rules in [Rules::ALL, without!(unmerged_lies_beside)] {
        let mut world = World::connected(rules);
        let mut registry = Registry::new();
        registry.add::<Tag>().unwrap();
        world.engine.pen.models = Arc::new(registry);
        commits.iter().for_each(|made| world.feed(B, live(&[made])));
        assert_eq!(world.audit().is_empty(), rules.unmerged_lies_beside);
        let (_, page) = world.page(C, &[], 1 << 20);
        assert_eq!(page.iter().filter(|commit| commit.stream != REPLICA).count(), 3, "relayed whole");
        world.engine = open_engine(&world.store, Ask { networked: true, ..ask(rules) }, now(2000)).unwrap();
        world.fold(1);
        let mut knew = World::connected(rules);
        commits.iter().for_each(|made| knew.feed(B, live(&[made])));
        assert_eq!(knew.bag(1), Some(vec![1, 2, 3]));
        assert_eq!(world.bag(1) == knew.bag(1), rules.unmerged_lies_beside);
        if rules.unmerged_lies_beside {
            let key = RecordKey::new::<Bag>(&1).into_bytes();
            let header = |world: &World| record::parse(&world.get(key.clone()).unwrap()).unwrap().0;
            assert_eq!((header(&world), world.audit()), (header(&knew), vec![]));
        }
    }
}

impl World {
    /// Merges what lies beside a bag, as opening the store does.
    fn fold(&mut self, id: u32) {
        let key = RecordKey::new::<Bag>(&id);
        let besides = block_on(self.store.scan(keys::besides_of(&key), 99)).unwrap();
        let besides = besides.into_iter().map(|Entry { key, value }| (key, value)).collect();
        let stored = self.get(key.as_bytes().to_vec()).unwrap();
        let batch = self.engine.fold(&key, stored, besides).unwrap();
        block_on(self.store.write(batch)).unwrap();
    }
}

#[test]
fn a_page_reads_hardly_more_rows_than_it_sends() {
    let mut world = World::connected(Rules::ALL);
    for n in 0..3_000 {
        world.commit(vec![tag(n, "some name")]).unwrap();
    }
    world.scanned = 0;
    let (head, page) = world.page(C, &[], 300_000);
    assert!(head.more && page.len() > 1_100 && page.len() < 2_000, "{} commits", page.len());
    assert!(world.scanned <= page.len() + 32, "{} rows for {} commits", world.scanned, page.len());
}

/// Whatever is written while a page is read, before or after each read sees the store, every entry has its bytes.
#[test]
fn a_value_that_moves_while_a_page_is_read_is_in_the_page() {
    let overwrite: fn() -> Staged = || tag(2, "newer");
    let delete: fn() -> Staged = || untag(2);
    let cases = (0..3).flat_map(|at| [true, false].map(|early| (at, early)));
    for (at, early) in cases {
        for moves in [vec![overwrite], vec![delete], vec![overwrite, delete, overwrite]] {
            let mut world = World::connected(Rules::ALL);
            // One value is kept from the start, and one is moved while the page is read.
            for (id, name) in [(1, "old"), (1, "new"), (2, "moved")] {
                world.commit(vec![tag(id, name)]).unwrap();
            }
            world.sent.clear();
            let pull = Pull {
                id: 7,
                budget: 1 << 20,
                frame_bytes: u32::MAX,
                heads: Capped(vec![]),
                excluded: Capped(vec![]),
            };
            world.engine.handle(world.now.clone(), Input::Frame(C, wire::pull(GROUP, &pull)));
            let mut reads = 0;
            while let Some(effect) = world.engine.next_effect() {
                let read = |world: &World| match &effect {
                    Effect::Scan(range, limit) => {
                        Input::Scanned(block_on(world.store.scan(range.clone(), *limit)))
                    }
                    Effect::Peek(keys) => Input::Peeked(block_on(world.store.get_many(keys))),
                    other => panic!("{other:?} belongs to no page"),
                };
                if let Effect::Send(to, frame) = effect {
                    world.sent.push((Some(to), frame));
                    continue;
                }
                let seen_early = read(&world);
                if reads == at {
                    for change in &moves {
                        world.submit(vec![change()]);
                        world.settle();
                    }
                }
                let seen = if early { seen_early } else { read(&world) };
                world.engine.handle(world.now.clone(), seen);
                reads += 1;
            }
            assert_eq!(reads, 3, "rows, records, kept values");
            let said = world.said();
            let [.., (_, Message::Page(_, page))] = &said[..] else { panic!("{said:?}") };
            let values: Vec<_> = page[page.len() - 3..].iter().map(|commit| commit.values.clone()).collect();
            let expected = [encoded(1, "old"), encoded(1, "new"), encoded(2, "moved")];
            assert_eq!(values, expected, "moved at read {at}, seen early: {early}");
            assert_eq!(world.audit(), []);
        }
    }
}

/// Y14, section 8: a page is in the order of stamps across streams, within its budget, at least one commit, and leaves out
/// what was excluded and what rests on it.
#[test]
fn a_page_can_be_applied_front_to_back() {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    c.wall = 1001;
    for n in 0..20 {
        let made = b.tag(n, "b");
        world.feed(B, live(&[&made]));
        let made = c.commit(&[(B, u64::from(n) + 1)], vec![tagged(n, "c")]);
        world.feed(C, live(&[&made]));
        b.wall = c.wall;
        c.wall += 1;
    }
    let (head, page) = world.page(C, &[], 1 << 20);
    assert_eq!((page.len(), head.more), (43, false));
    let stamps: Vec<_> =
        page.iter().map(|commit| LogEntry::parse(commit.stream, &commit.entry).unwrap().stamp).collect();
    assert!(stamps.is_sorted());
    let (head, page) = world.page(B, &[], 1);
    assert_eq!((page.len(), head.more), (1, true), "a single commit always fits");
    // B has all but C's; with C left out there is nothing of B's own to send either.
    let (head, page) = world.page(B, &[b.head()], 1 << 20);
    assert_eq!(page.iter().filter(|commit| commit.stream == C).count(), 20);
    assert!(!head.more);
    world.sent.clear();
    let pull = Pull {
        id: 8,
        budget: 1 << 20,
        frame_bytes: u32::MAX,
        heads: Capped(vec![]),
        excluded: Capped(vec![B]),
    };
    world.feed(C, wire::pull(GROUP, &pull));
    let said = world.said();
    let Some((_, Message::Page(_, page))) =
        said.iter().find(|(_, message)| matches!(message, Message::Page(..)))
    else {
        panic!("a page")
    };
    assert!(page.iter().all(|commit| commit.stream == REPLICA), "what rests on B's is left out with it");
}

/// Without the exclusions a page would be filled by what cannot be taken, again and again.
#[test]
fn a_stopped_stream_keeps_nobody_from_a_page() {
    for (rules, stuck) in [(Rules::ALL, false), (without!(pulls_exclude), true)] {
        let mut world = World::connected(rules);
        let mut b = Author::new(B, B_DEVICE);
        let first = b.tag(1, "a");
        let mut other = b.clone();
        let (second, fork) = (b.tag(1, "b"), other.tag(1, "x"));
        let third = other.tag(1, "y");
        world.feed(B, live(&[&first, &second, &third]));
        world.said();
        let mut c = Author::new(C, C_DEVICE);
        let made = c.tag(5, "c");
        world.feed(C, hello(1, &[other.head(), c.head()]));
        let pulls = world.pulls();
        let (_, pull) = pulls.first().expect("C has more");
        assert_eq!(pull.excluded.0.contains(&B), !stuck, "{} {}", fork.seq, made.seq);
    }
}

/// Pulls go to somebody else when one does not answer, one page at a time, and not at once again.
#[test]
fn y14_whoever_does_not_answer_is_left_alone_for_a_while() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made = b.tag(1, "a");
    world.said();
    world.feed(B, hello(1, &[b.head()]));
    world.feed(C, hello(1, &[b.head()]));
    let first = world.pulls();
    let [(asked, _)] = &first[..] else { panic!("one page is on its way, not {first:?}") };
    world.pass(9_000);
    assert!(world.pulls().is_empty());
    world.pass(1_000);
    let second = world.pulls();
    let [(other, pull)] = &second[..] else { panic!("another peer is asked: {second:?}") };
    assert_ne!(asked, other);
    world.feed(*other, page_of(answer(pull, false), &[&made]));
    assert_eq!(world.seq_of(B), 1);
    world.pass(60_000);
    assert!(world.pulls().is_empty(), "nothing is missing, so it is silent");
}

/// A page that brings nothing is not asked for again at once, however much its sender says it has.
#[test]
fn y14_an_empty_promise_is_not_believed_twice_at_once() {
    let mut world = World::connected(Rules::ALL);
    world.said();
    world.feed(B, hello(1, &[WireHead { stream: C, seq: u64::MAX - 1, digest: [1; 32] }]));
    let mut asked = 0;
    for _ in 0..100 {
        for (peer, pull) in world.pulls() {
            asked += 1;
            world.feed(peer, page_of(answer(&pull, true), &[]));
        }
        world.pass(1_000);
    }
    assert!((3..20).contains(&asked), "{asked} in 100 s");
}

/// What was received and could not be written is not lost: everything behind it goes, and is asked for again.
#[test]
fn a_rejected_write_of_what_was_received_is_tried_again() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let (first, second) = (b.tag(1, "a"), b.tag(1, "b"));
    world.said();
    let before = world.content();
    world.engine.handle(world.now.clone(), Input::Frame(B, live(&[&first, &second])));
    assert!(world.up_to_write().is_some());
    world.rejected();
    world.settle();
    assert_eq!((world.seq_of(B), world.content() == before), (0, true));
    assert!(world.events().iter().any(|event| matches!(event, Event::ReceiveFailed { .. })));
    assert!(world.pulls().is_empty(), "not at once");
    world.pass(1_000);
    let pulls = world.pulls();
    let [(_, pull)] = &pulls[..] else { panic!("{pulls:?}") };
    assert!(pull.heads.0.iter().all(|head| head.stream != B), "from where the store is");
    world.feed(B, live(&[&first, &second]));
    assert_eq!((world.tag_name(1).as_deref(), world.audit()), (Some("b"), vec![]));
}

/// Y14: the page that comes after a failed write rests on what was let go, and its sender is not blamed for that.
#[test]
fn y14_nobody_is_blamed_for_a_write_that_failed_here() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made: Vec<_> = (1..=4).map(|id| b.tag(id, "a")).collect();
    world.said();
    world.feed(B, live(&[&made[3]]));
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked") };
    world
        .engine
        .handle(world.now.clone(), Input::Frame(B, page_of(answer(pull, true), &[&made[0], &made[1]])));
    assert!(world.up_to_write().is_some());
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked for more during the write") };
    world.rejected();
    world.feed(B, page_of(answer(pull, true), &[&made[2]]));
    assert_eq!(world.engine.sync.useless, None);
    assert!(world.engine.sync.peers[&B].backoff.is_over(world.engine.mono));
    world.pass(1_000);
    assert!(matches!(world.pulls()[..], [(B, _)]), "it is asked again");
}

/// A page that is on its way when a write fails is waited for: no second one is asked for beside it.
#[test]
fn b1_a_page_on_its_way_is_waited_for_when_a_write_fails() {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let bad = b.tag(1, "bad");
    let others: Vec<_> = (2..=4).map(|id| c.tag(id, "c")).collect();
    world.said();
    world.feed(B, hello(1, &[b.head(), c.head()]));
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked") };
    world.engine.handle(world.now.clone(), Input::Frame(B, page_of(answer(pull, true), &[&bad])));
    assert!(world.up_to_write().is_some());
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked for more during the write") };
    world.rejected();
    world.settle();
    assert!(matches!(world.stop_of(B), Some(StreamStop::NotStored { .. })));
    assert!(world.pulls().is_empty(), "there is more to ask for, and a page on its way");
    world.feed(B, page_of(answer(pull, true), &[&others[0]]));
    assert_eq!(world.seq_of(C), 1);
    let [(B, pull)] = &world.pulls()[..] else { panic!("now it is asked") };
    assert_eq!(pull.excluded.0, [REPLICA, B]);
}

/// C16: what the store will not take does not keep out what came with it, in front of it.
#[test]
fn c16_a_commit_that_the_store_refuses_takes_none_with_it() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let (first, bad) = (b.tag(1, "a"), Author::new(C, C_DEVICE).tag(2, "bad"));
    let last = b.tag(1, "b");
    let frame = live(&[&first, &bad, &last]);
    // Together, then one by one up to the bad one, then the others.
    for expected in [0, 1, 2, 2] {
        world.engine.handle(world.now.clone(), Input::Frame(B, frame.clone()));
        while let Some(batch) = world.up_to_write() {
            let is_bad = |value: &[u8]| value.windows(3).any(|bytes| bytes == b"bad");
            let refused =
                batch.ops().iter().any(|op| matches!(op, WriteOp::Put { value, .. } if is_bad(value)));
            if refused { world.rejected() } else { world.written(batch) }
        }
        assert_eq!((world.seq_of(B), world.seq_of(C)), (expected, 0));
        world.pass(1);
    }
    let why = world.stop_of(C);
    assert!(matches!(&why, Some(StreamStop::NotStored { seq: 1, error }) if error.contains("no")), "{why:?}");
    assert_eq!(world.stop_of(B), None);
    // By and by it is tried again, in case the store thinks better of it.
    world.pass(60_000);
    assert_eq!(world.stop_of(C), None);
    world.feed(B, frame);
    assert_eq!((world.seq_of(C), world.audit()), (1, vec![]));
}

/// The app's commits and the peers' take turns.
#[test]
fn neither_the_app_nor_the_peers_wait_for_each_other() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    world.limit(Limits { group_commits_max: 1, event_commits_max: 1, ..Limits::default() });
    for n in 0..3 {
        world.submit(vec![tag(100 + n, "mine")]);
        let made = b.tag(n, "theirs");
        world.engine.handle(world.now.clone(), Input::Frame(B, live(&[&made])));
    }
    let mut turns = Vec::new();
    while let Some(batch) = world.up_to_write() {
        let of = |replica| {
            batch.ops().iter().any(|op| matches!(op, WriteOp::Put { key, .. } if matches!(StoredKey::parse(key), Some(StoredKey::Log(stream, _)) if stream == replica)))
        };
        turns.push(of(REPLICA));
        world.written(batch);
    }
    assert_eq!(turns.iter().filter(|mine| **mine).count(), 3);
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
}

/// `after` says what moved since the last commit, and everything in the first one after an opening.
#[test]
fn a_commit_says_what_it_rests_on() {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    world.feed(B, live(&[&b.tag(1, "a")]));
    world.commit(vec![tag(2, "x")]).unwrap();
    let after = |world: &World| world.logged(world.engine.pen.head().seq).after;
    assert_eq!(after(&world), [(B, 1)]);
    world.commit(vec![tag(2, "y")]).unwrap();
    assert_eq!(after(&world), []);
    world.feed(C, live(&[&c.tag(3, "c")]));
    // A write that was rejected told nobody.
    world.submit(vec![tag(2, "z")]);
    world.up_to_write().unwrap();
    world.rejected();
    world.settle();
    world.commit(vec![tag(2, "z")]).unwrap();
    assert_eq!(after(&world), [(C, 1)]);
    world.engine = open_engine(&world.store, Ask { networked: true, ..ask(Rules::ALL) }, now(2000)).unwrap();
    world.commit(vec![tag(2, "w")]).unwrap();
    assert_eq!(after(&world), [(B, 1), (C, 1)]);
    assert_eq!(world.audit(), []);
}

/// A joiner learns the group from its introducer alone, serves nobody and commits nothing until it is a member.
/// B1: whoever introduces a joiner cannot make it take more streams than a group may have.
#[test]
fn b1_a_joiner_takes_no_more_streams_than_a_group_has() {
    for stop in [false, true] {
        let mut world = World::asking(Ask { networked: true, introducer: Some(B), ..ask(Rules::ALL) });
        world.engine.handle(world.now.clone(), Input::Up(B));
        let made = |n: usize| {
            let stream = ReplicaId(Uuid::from_u128(0x1_0000 + n as u128));
            let made = Author::new(stream, C_DEVICE).tag(1, "a");
            if stop {
                Made { row: [&CHAIN_START[..], b"no entry"].concat(), values: vec![], ..made }
            } else {
                made
            }
        };
        let made: Vec<_> = (0..STREAMS_MAX + 100).map(made).collect();
        for some in made.chunks(500) {
            world.feed(B, live(&some.iter().collect::<Vec<_>>()));
        }
        let (heads, stops) = (world.engine.pen.heads.len(), world.engine.sync.stops.len());
        assert!(heads + stops >= STREAMS_MAX - 1, "{heads} streams, {stops} of them stopped");
        assert!(heads.max(stops) <= STREAMS_MAX, "{heads} streams, {stops} of them stopped");
    }
}

#[test]
fn a_joiner_waits_for_its_own_member_record() {
    for (rules, waits) in [(Rules::ALL, true), (without!(joiner_waits), false)] {
        let joining = Ask { networked: true, introducer: Some(B), ..ask(rules) };
        let mut world = World::asking(joining);
        assert_eq!(world.audit(), []);
        for peer in [B, C] {
            world.engine.handle(world.now.clone(), Input::Up(peer));
        }
        world.settle();
        assert!(world.engine.snapshot().joining);
        let result = world.commit(vec![tag(1, "a")]);
        assert_eq!(matches!(result, Err(Error::Joining { replica: REPLICA })), waits);
        if !waits {
            continue;
        }
        let mut b = Author::new(B, B_DEVICE);
        let founding = b.commit(&[], vec![member(B, B_DEVICE)]);
        world.feed(C, live(&[&founding]));
        assert_eq!(world.seq_of(B), 0, "C is not the introducer");
        world.feed(B, live(&[&founding]));
        assert_eq!(world.seq_of(B), 1);
        world.said();
        let pull = Pull {
            id: 1,
            budget: 1 << 20,
            frame_bytes: u32::MAX,
            heads: Capped(vec![]),
            excluded: Capped(vec![]),
        };
        world.feed(B, wire::pull(GROUP, &pull));
        assert!(
            world.said().iter().all(|(_, message)| !matches!(message, Message::Page(..))),
            "it serves nobody"
        );
        let added = b.commit(&[], vec![member(REPLICA, DEVICE)]);
        world.feed(B, live(&[&added]));
        assert!(!world.engine.snapshot().joining);
        assert_eq!(world.get(keys::introducer()), None, "with the record it needs nobody to introduce it");
        world.commit(vec![tag(1, "a")]).unwrap();
        assert!(world.engine.pen.head().stamp > added.stamp);
        assert_eq!(world.audit(), []);
    }
}

/// What a restored store wrote since contradicts what others have: nobody takes it from there.
#[test]
fn a_restored_store_keeps_its_second_history_to_itself() {
    let mut world = World::connected(Rules::ALL);
    world.commit(vec![tag(1, "a")]).unwrap();
    let (head, own) = world.page(C, &[], 1 << 20);
    assert!(!head.more && own.iter().any(|commit| commit.stream == REPLICA));
    // That it lacks what it acknowledged of others says nothing of its own stream.
    world.feed(B, wire::regressed(GROUP, &WireHead { stream: C, seq: 3, digest: [7; 32] }));
    assert!(world.page(C, &[], 1 << 20).1.iter().any(|commit| commit.stream == REPLICA));
    let seq = world.engine.pen.head().seq + 1;
    world.said();
    world.feed(B, hello(1, &[WireHead { stream: REPLICA, seq, digest: [7; 32] }]));
    assert_eq!(world.engine.snapshot().restored, Some(Restored { stream: REPLICA, seq }));
    let hellos: Vec<_> = world
        .said()
        .into_iter()
        .filter_map(|(_, message)| match message {
            Message::Hello(hello) => Some(hello),
            _ => None,
        })
        .collect();
    let last = hellos.last().expect("its peers hear of it");
    assert!(last.restored && last.heads.0.iter().all(|head| head.stream != REPLICA));
    assert_eq!(world.page(C, &[], 1 << 20).1, []);
}

/// What a restored store said of its own stream before it knew is not asked for.
#[test]
fn a_second_history_is_not_asked_for() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    b.tag(1, "a");
    world.feed(B, hello(1, &[b.head()]));
    assert_eq!(world.engine.missing(B), 1);
    world.feed(B, wire::hello(GROUP, &Hello { session: 1, restored: true, heads: Capped(vec![]) }));
    assert_eq!(world.engine.missing(B), 0);
}

/// Why a store counts as restored is the same after it was opened again.
#[test]
fn what_proved_a_restore_is_remembered() {
    let mut world = World::connected(Rules::ALL);
    world.feed(B, wire::regressed(GROUP, &WireHead { stream: C, seq: 3, digest: [7; 32] }));
    let restored = world.engine.snapshot().restored;
    assert_eq!(restored, Some(Restored { stream: C, seq: 3 }));
    let again = open_engine(&world.store, Ask { networked: true, ..ask(Rules::ALL) }, now(2000)).unwrap();
    assert_eq!(again.snapshot().restored, restored);
}

/// What a store acknowledges does not count once it was restored, nor before its hello says whether it was.
#[test]
fn no_acknowledgement_of_a_restored_store_counts() {
    for (rules, counts) in [(Rules::ALL, false), (without!(acks_of_restored_are_void), true)] {
        let restored = wire::hello(GROUP, &Hello { session: 2, restored: true, heads: Capped(vec![]) });
        // What comes before the acknowledgement: nothing; that it is restored, and late a hello from before that.
        let histories = [vec![], vec![restored.clone()], vec![restored, hello(1, &[])]];
        for before in histories {
            let mut world = World::connected(rules);
            world.commit(vec![tag(1, "a")]).unwrap();
            let own = world.engine.pen.head();
            let own = WireHead { stream: REPLICA, seq: own.seq, digest: own.digest };
            let sent = before.len();
            before.into_iter().for_each(|frame| world.feed(B, frame));
            world.feed(B, wire::ack(GROUP, &Capped(vec![own])));
            let peers = world.engine.snapshot().peers;
            let acked = peers.iter().find(|peer| peer.replica == B).map(|peer| peer.acked);
            assert_eq!(acked, Some(if counts { own.seq } else { 0 }), "after {sent} frames");
        }
    }
    // Nor does what it acknowledged before, also once this store is opened again.
    for restored in [false, true] {
        let mut world = World::connected(Rules::ALL);
        let own = world.engine.pen.head();
        let acked = |engine: &Engine| {
            let peers = engine.snapshot().peers;
            peers.iter().find(|peer| peer.replica == B).map_or(0, |peer| peer.acked)
        };
        world.feed(B, hello(1, &[]));
        world.feed(
            B,
            wire::ack(GROUP, &Capped(vec![WireHead { stream: REPLICA, seq: own.seq, digest: own.digest }])),
        );
        assert_eq!(acked(&world.engine), own.seq);
        world.pass(60_000);
        if restored {
            world.feed(B, wire::hello(GROUP, &Hello { session: 2, restored, heads: Capped(vec![]) }));
        }
        let reopened = open_engine(&world.store, Ask { networked: true, ..ask(Rules::ALL) }, now(2000));
        let expected = if restored { 0 } else { own.seq };
        assert_eq!((acked(&world.engine), acked(&reopened.unwrap())), (expected, expected));
    }
}

/// Another history is also seen at the place where a stream is, and at one behind it.
#[test]
fn a_fork_is_seen_at_the_head_and_behind_it() {
    let mut b = Author::new(B, B_DEVICE);
    let first = b.tag(1, "a");
    let mut other = b.clone();
    let (second, twin) = (b.tag(1, "b"), other.tag(1, "x"));
    let behind = other.head();
    let third = b.tag(1, "c");
    let forked = Some(StreamStop::Forked { seq: 2 });

    let mut world = World::connected(Rules::ALL);
    world.feed(B, live(&[&first, &second]));
    world.feed(C, live(&[&second]));
    assert_eq!(world.stop_of(B), None);
    world.feed(C, live(&[&twin]));
    assert_eq!(world.stop_of(B), forked);

    let mut world = World::connected(Rules::ALL);
    world.feed(B, live(&[&first, &second, &third]));
    world.feed(
        C,
        hello(
            1,
            &[WireHead { seq: 1, digest: chain(&CHAIN_START, split_row(&first.row).unwrap().1), ..behind }],
        ),
    );
    assert_eq!(world.stop_of(B), None, "the same one, further back");
    world.feed(C, hello(1, &[behind]));
    assert_eq!(world.stop_of(B), forked);
}

/// A place that could not be compared, since the store could not be read, is compared at the next hello.
#[test]
fn a_failed_comparison_is_made_again() {
    let mut world = World::connected(Rules::ALL);
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.engine.pen.head();
    let elsewhere = hello(1, &[WireHead { stream: REPLICA, seq: own.seq - 1, digest: [7; 32] }]);
    world.engine.handle(world.now.clone(), Input::Frame(B, elsewhere.clone()));
    let peeks = std::iter::from_fn(|| world.engine.next_effect());
    assert_eq!(peeks.filter(|effect| matches!(effect, Effect::Peek(_))).count(), 1);
    world.engine.handle(world.now.clone(), Input::Peeked(Err(ReadError("the disk is away".into()))));
    assert!(world.engine.snapshot().restored.is_none());
    world.feed(B, elsewhere);
    assert!(world.engine.snapshot().restored.is_some());
}

/// The place before a stream's first commit has no digest that could differ.
#[test]
fn a_pull_from_the_beginning_proves_nothing() {
    let mut world = World::connected(Rules::ALL);
    let first = Author::new(B, B_DEVICE).tag(1, "a");
    world.feed(B, live(&[&first]));
    let nowhere = |stream| WireHead { stream, seq: 0, digest: [9; 32] };
    let (_, page) = world.page(C, &[nowhere(REPLICA), nowhere(B)], 1 << 20);
    assert!(page.iter().any(|commit| commit.stream == B));
    assert!(world.engine.snapshot().restored.is_none());
    assert_eq!(world.stop_of(B), None);
}

/// What somebody makes up in the name of another stops that stream only until its author sends what it really wrote.
#[test]
fn c15_nobody_stops_the_stream_of_another_for_good() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let real = b.tag(1, "a");
    let made_up = Made { row: [&CHAIN_START[..], b"no entry"].concat(), values: vec![], ..real.clone() };
    world.feed(C, live(&[&made_up]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Refused { seq: 1, .. })));
    world.feed(C, live(&[&real]));
    assert_eq!(world.seq_of(B), 0, "who made it up is not asked again");
    // Its author is asked for it, and taken at its word.
    world.said();
    world.feed(B, hello(1, &[b.head()]));
    let pulls = world.pulls();
    assert!(pulls.iter().any(|(to, pull)| *to == B && !pull.excluded.0.contains(&B)), "{pulls:?}");
    world.feed(B, live(&[&real]));
    assert_eq!((world.seq_of(B), world.stop_of(B)), (1, None));
    assert!(world.events().contains(&Event::Resumed { stream: B }));

    let mut world = World::connected(Rules::ALL);
    world.feed(B, live(&[&made_up]));
    world.feed(B, live(&[&real]));
    assert_eq!(world.seq_of(B), 0, "what its author wrote stays");
}

/// The same holds for a stamp from the future: only the author's word keeps a stream until then.
#[test]
fn y11_nobody_holds_the_stream_of_another() {
    let far = |author: &Author| {
        let mut ahead = author.clone();
        ahead.wall = 1 << 40;
        ahead.tag(1, "far")
    };
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let (made_up, real) = (far(&b), b.tag(1, "a"));
    world.feed(C, live(&[&made_up]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Held { seq: 1, .. })));
    let retry = world.engine.next_timeout().expect("it is looked at again");
    assert!(retry.since(world.now.mono) <= 10_000, "before the next hello");
    world.feed(B, live(&[&real]));
    assert_eq!((world.seq_of(B), world.stop_of(B)), (1, None));

    // The author itself says the same as the relay: that is no news, and from here on its last word.
    let mut world = World::connected(Rules::ALL);
    world.feed(C, live(&[&made_up]));
    world.events();
    world.feed(B, live(&[&made_up]));
    assert_eq!(world.events(), []);
    world.feed(B, live(&[&real]));
    assert_eq!(world.seq_of(B), 0);
}

/// A group has no more streams than a message can name; a commit that would add more is refused, and one that rests on
/// more streams than members may be added to a group here is not.
#[test]
fn members_and_causes_are_bounded() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let mut next = 0x1000;
    let mut some = |count: usize| -> Vec<Write> {
        let ids = (0..count).map(|_| {
            next += 1;
            member(ReplicaId(Uuid::from_u128(next)), C_DEVICE)
        });
        ids.collect()
    };
    let room = STREAMS_MAX - world.engine.members.len();
    let most = world.engine.limits.commit_changes_max;
    for begin in (0..room).step_by(most) {
        let made = b.commit(&[], some(most.min(room - begin)));
        world.feed(B, live(&[&made]));
    }
    assert_eq!((world.engine.members.len(), world.stop_of(B)), (STREAMS_MAX, None));
    let known: Vec<_> =
        world.engine.members.keys().take(world.engine.limits.members_max + 2).copied().collect();
    let made = b.commit(&[], some(1));
    world.feed(B, live(&[&made]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Refused { .. })));
    assert_eq!(world.engine.members.len(), STREAMS_MAX);

    let causes: Vec<_> = known.into_iter().filter(|stream| *stream != C).map(|stream| (stream, 1)).collect();
    assert!(causes.len() > world.engine.limits.members_max);
    let made = Author::new(C, C_DEVICE).commit(&causes, vec![tagged(1, "a")]);
    world.feed(C, live(&[&made]));
    assert_eq!(world.stop_of(C), None, "it waits for what it rests on");
}

/// Values go to members, also while others are connected.
#[test]
fn strangers_hear_of_no_commit() {
    let mut world = World::connected(Rules::ALL);
    for id in 1..=2 {
        world.said();
        world.reached.clear();
        world.commit(vec![tag(id, "a")]).unwrap();
        assert_eq!((world.said().len(), &world.reached[..]), (1, &[B, C][..]), "one frame to all members");
        world.engine.handle(world.now.clone(), Input::Up(STRANGER));
        world.settle();
    }
}

/// The commits of one group go out in one frame, and what comes together is written together.
#[test]
fn a_group_is_one_frame_and_a_frame_is_one_write() {
    let mut world = World::connected(Rules::ALL);
    world.said();
    for id in 0..5 {
        world.submit(vec![tag(id, "a")]);
    }
    world.settle();
    // The first did not wait for the others.
    let frames: Vec<_> = world
        .said()
        .into_iter()
        .filter_map(|(_, message)| match message {
            Message::Live(commits) => Some(commits.len()),
            _ => None,
        })
        .collect();
    assert_eq!(frames, [5]);

    let mut b = Author::new(B, B_DEVICE);
    let made: Vec<_> = (0..5).map(|id| b.tag(id, "b")).collect();
    let frame = live(&made.iter().collect::<Vec<_>>());
    world.engine.handle(world.now.clone(), Input::Frame(B, frame));
    let mut writes = 0;
    while let Some(batch) = world.up_to_write() {
        writes += 1;
        world.written(batch);
    }
    assert_eq!((writes, world.seq_of(B)), (1, 5));
}

/// B1: what waits does not keep in memory the frame that brought it, if it is little of it.
#[test]
fn b1_a_commit_that_waits_lets_go_of_its_frame() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let (small, large) = (b.tag(1, "a"), b.tag(2, &"x".repeat(10_000)));
    let duplicate = Made { values: vec![0; 10_000], ..small.clone() };
    for (frame, own) in [(live(&[&small, &duplicate]), true), (live(&[&large]), false)] {
        world.engine.handle(world.now.clone(), Input::Frame(B, frame));
        let waits = world.engine.sync.inbox.commits.back().expect("it waits");
        assert_eq!(waits.raw.is_unique(), own);
        world.settle();
    }
}

/// Whoever was opened with a transport keeps its log, also once that has ended.
#[test]
fn a_lost_transport_prunes_nothing() {
    let mut world = World::asking(Ask { networked: true, ..ask(Rules::ALL) });
    world.engine.handle(world.now.clone(), Input::Offline);
    for id in 0..3 {
        world.commit(vec![tag(id, "a")]).unwrap();
    }
    assert_eq!(world.engine.pen.head().floor, 0);
    assert!(world.engine.next_timeout().is_none());
}

/// Added on another device than its own, a joiner would commit what nobody takes. It waits, and commits nothing.
#[test]
fn a_joiner_that_was_added_on_another_device_goes_on_waiting() {
    let joining = Ask { networked: true, introducer: Some(B), ..ask(Rules::ALL) };
    let mut world = World::asking(joining);
    world.engine.handle(world.now.clone(), Input::Up(B));
    let mut b = Author::new(B, B_DEVICE);
    let founding = b.commit(&[], vec![member(B, B_DEVICE)]);
    let added = b.commit(&[], vec![member(REPLICA, C_DEVICE)]);
    world.feed(B, live(&[&founding, &added]));
    assert_eq!(world.seq_of(B), 2);
    assert!(world.engine.snapshot().joining);
    assert!(matches!(world.commit(vec![tag(1, "a")]), Err(Error::Joining { .. })));
    let again = Ask { networked: true, ..ask(Rules::ALL) };
    world.engine = open_engine(&world.store, again, now(2000)).unwrap();
    assert!(world.engine.snapshot().joining, "also after it was opened again");
}

proptest! {
    /// I11, bad input: whatever bytes come from a member, behind a checksum that fits, nothing panics, and the store stays
    /// whole.
    #[test]
    fn no_bytes_break_an_engine(
        kind in 0..9u8,
        body in prop::collection::vec(any::<u8>(), 0..200),
        flips in prop::collection::vec((0..400usize, any::<u8>()), 0..4),
    ) {
        let mut world = World::connected(Rules::ALL);
        let mut b = Author::new(B, B_DEVICE);
        let good = live(&[&b.tag(1, "a"), &b.commit(&[(C, 1)], vec![bagged(1, &[1], Hlc::NEVER)])]);
        world.feed(B, wire::sealed(GROUP, kind, &body));
        let mut bytes = good[wire::HEADER_LEN..].to_vec();
        for (at, byte) in flips {
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
        world.feed(B, wire::sealed(GROUP, good[6], &bytes));
        world.pass(20_000);
        prop_assert_eq!(world.audit(), []);
    }
}

/// Frames may come while the store writes: what they bring rests on what is being written.
#[test]
fn what_comes_during_a_write_goes_with_it_if_it_fails() {
    for fails in [false, true] {
        let mut world = World::connected(Rules::ALL);
        let mut b = Author::new(B, B_DEVICE);
        let (one, two, three) = (b.tag(1, "a"), b.tag(2, "b"), b.tag(3, "c"));
        world.engine.handle(world.now.clone(), Input::Frame(B, live(&[&one])));
        let batch = world.up_to_write().expect("the first is written at once");
        for made in [&one, &two, &three] {
            world.engine.handle(world.now.clone(), Input::Frame(B, live(&[made])));
        }
        assert_eq!(world.engine.snapshot().waiting, 2);
        let writes = world.writes.len();
        if fails {
            world.rejected();
            assert_eq!(world.engine.snapshot().waiting, 0);
            world.pass(60_000);
            world.feed(B, live(&[&one, &two, &three]));
        } else {
            world.written(batch);
            world.settle();
            assert_eq!(world.writes.len() - writes, 2, "both that came meanwhile share a write");
        }
        assert_eq!(world.engine.pen.heads[&B].seq, 3);
        assert_eq!(world.audit(), []);
    }
}

/// A commit that was with the store when the restore was found out is answered, and nobody else hears of it.
#[test]
fn a_restore_found_out_during_a_write_keeps_it_here() {
    for rules in [Rules::ALL, Rules { restores_are_noticed: false, ..Rules::ALL }] {
        let mut world = World::connected(rules);
        let ticket = world.submit(vec![tag(1, "a")]);
        let batch = world.up_to_write().unwrap();
        let seq = world.engine.pen.head().seq + 7;
        world.said();
        let proof = hello(1, &[WireHead { stream: REPLICA, seq, digest: [7; 32] }]);
        world.engine.handle(world.now.clone(), Input::Frame(B, proof));
        world.written(batch);
        world.settle();
        assert!(matches!(world.replies.last(), Some((answered, Ok(()))) if *answered == ticket));
        let told = world.said().into_iter().any(|(_, message)| matches!(message, Message::Live(_)));
        assert_eq!(told, !rules.restores_are_noticed);
        assert_eq!(world.audit(), []);
    }
}

/// What was decided and not handed to the store when the restore was found out never is.
#[test]
fn a_restore_found_out_before_a_write_begins_takes_it_back() {
    for joined in [false, true] {
        let mut world = World::connected(Rules::ALL);
        world.commit(vec![tag(1, "a")]).unwrap();
        // A place is compared while the app commits, and somebody is owed an answer before that.
        let own = world.engine.pen.head();
        let elsewhere = hello(1, &[WireHead { stream: REPLICA, seq: own.seq - 1, digest: [7; 32] }]);
        world.engine.handle(world.now.clone(), Input::Frame(B, elsewhere));
        let peek = std::iter::from_fn(|| world.engine.next_effect());
        assert!(peek.into_iter().any(|effect| matches!(effect, Effect::Peek(_))));
        let change = vec![tag(2, "b")];
        let ticket = if joined { world.submit_joined(change) } else { world.submit(change) };
        if !joined {
            let Some(Effect::Read(keys)) = world.engine.next_effect() else { panic!("it is read first") };
            let values = block_on(world.store.get_many(&keys));
            world.engine.handle(world.now.clone(), Input::Read(keys, values));
        } else {
            world.engine.say_hello(C);
            assert!(matches!(world.engine.next_effect(), Some(Effect::Send(C, _))));
        }
        let row = world.get(keys::log(REPLICA, own.seq));
        world.engine.handle(world.now.clone(), Input::Peeked(Ok(vec![row])));
        world.settle();
        assert!(
            matches!(world.replies.last(), Some((answered, Err(Error::Restored(_)))) if *answered == ticket)
        );
        assert_eq!(world.engine.pen.head().seq, own.seq, "joined: {joined}");
        assert_eq!(world.audit(), []);
    }
}

/// B1: what is said because of frames is not done while the store writes, so no more frames are taken than it has room for.
#[test]
fn b1_what_waits_behind_a_write_is_bounded() {
    let mut world = World::connected(Rules::ALL);
    world.submit(vec![tag(1, "a")]);
    let batch = world.up_to_write().unwrap();
    let mut frames = 0;
    while world.engine.has_room() && frames < 1_000 {
        // One event each, as of a frame that stops a stream or lets it go on.
        world.engine.tell(Event::Resumed { stream: B });
        frames += 1;
    }
    assert_eq!(frames, EFFECTS_MAX);
    world.written(batch);
    world.settle();
    assert!(world.engine.has_room());
}
