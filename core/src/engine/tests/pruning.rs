//! Goal: the log and the tombstones that every member has are dropped, and nothing that is still needed. Method: members
//! acknowledge and stay away as a test says; a rule that is switched off makes its history go wrong.

use super::*;
use crate::stored::{FormatError, forgotten_value};

/// A change that puts a bag.
fn bag(id: u32, items: &[u32]) -> Staged {
    let bag = Bag { id, items: items.iter().copied().collect() };
    Staged { own_merge: true, ..put(&bag) }
}

fn epoch_of(world: &World, id: u32) -> Hlc {
    let stored = world.get(RecordKey::new::<Bag>(&id).into_bytes()).unwrap();
    record::parse(&stored).unwrap().0.merge.unwrap().epoch
}

// --- forgotten stamps -------------------------------------------------------------------------------------------------

/// The tombstone is gone, and a put that it beat may still come: it must not mix with the new value.
#[test]
fn a_record_begins_in_the_epoch_that_was_forgotten_of_its_model() {
    let mut world = World::connected(Rules::ALL);
    let forgotten = Hlc::new(WallMs::new(900_000).unwrap(), 3, B);
    let mut batch = WriteBatch::new();
    batch.put(keys::forgotten(Bag::SYNC_MODEL), forgotten_value(forgotten));
    block_on(world.store.write(batch)).unwrap();
    world.reopen(networked(Rules::ALL));
    assert!(
        world.drawn() > forgotten || world.drawn().wall() == forgotten.wall(),
        "the clock is not below it"
    );
    world.commit(vec![bag(1, &[1]), tag(1, "red")]).unwrap();
    assert_eq!(epoch_of(&world, 1), forgotten);
    let joined = world.submit_joined(vec![bag(2, &[2])]);
    world.settle();
    assert!(world.replies.iter().any(|(ticket, reply)| *ticket == joined && reply.is_ok()));
    assert_eq!(epoch_of(&world, 2), forgotten, "a joined write too");
    assert_eq!(world.audit(), []);

    // A put from before the delete is beaten, and one of the new epoch is merged.
    let mut b = Author::new(B, B_DEVICE);
    world.feed(B, live(&[&b.commit(&[], vec![bagged(1, &[7], Hlc::NEVER)])]));
    assert_eq!(world.bag(1).unwrap(), [1]);
    b.wall = 950_000;
    world.now = now(950_000);
    world.feed(B, live(&[&b.commit(&[], vec![bagged(1, &[8], forgotten)])]));
    assert_eq!(world.bag(1).unwrap(), [1, 8]);
}

/// A stamp of nobody would put every new record of its model into an epoch of its own.
#[test]
fn a_damaged_forgotten_stamp_is_an_error_at_the_opening() {
    let world = World::connected(Rules::ALL);
    let mut row = forgotten_value(Hlc::new(WallMs::new(1000).unwrap(), 0, B));
    row[3] ^= 1;
    let mut batch = WriteBatch::new();
    batch.put(keys::forgotten(Bag::SYNC_MODEL), row);
    block_on(world.store.write(batch)).unwrap();
    let opened = open_engine(&world.store, networked(Rules::ALL), now(2000));
    assert!(matches!(opened, Err(OpenError::Format { source: FormatError::Damaged { .. }, .. })));
    assert_eq!(world.audit(), [Rule::Format]);
}

// --- logs -------------------------------------------------------------------------------------------------------------

/// All rules, with pruning.
const PRUNES: Rules = Rules { prunes_by_acks: true, ..Rules::ALL };

/// The time after which a few entries are worth a step.
const WHILE_MS: u64 = 35_000;

fn pruning(rules: Rules) -> World {
    World::connected(Rules { prunes_by_acks: true, ..rules })
}

impl World {
    /// The first place of the log of a stream here.
    fn floor_of(&self, stream: ReplicaId) -> u64 {
        let streams = self.engine.report().streams;
        streams.into_iter().find(|view| view.replica == stream).map_or(0, |view| view.pruned)
    }

    /// How many log rows and kept values there are.
    fn logged_rows(&self) -> usize {
        let logs = [REPLICA, B, C].into_iter().map(|stream| self.store.entries(keys::logs(stream)).len());
        logs.sum::<usize>() + self.store.entries(keys::all_kept()).len()
    }

    /// A member says hello, and has all that is here.
    fn has_all(&mut self, member: ReplicaId) {
        let heads = self.heads();
        self.feed(member, hello(1, &heads));
    }

    /// Lets some steps go by that wait to be worth a write, and a walk over the tombstones.
    fn rests(&mut self) {
        (0..4).for_each(|_| self.pass(WHILE_MS));
    }

    /// Opens the store again, later.
    fn opens_at(&mut self, ask: Ask, ms: u64) {
        self.now = now(ms);
        self.reopen_at(ask, now(ms));
    }

    /// Both other members have all that is here.
    fn all_have_all(&mut self) {
        self.has_all(B);
        self.has_all(C);
    }

    fn head_at(&self, stream: ReplicaId, seq: u64) -> WireHead {
        let row = self.get(keys::log(stream, seq + 1)).expect("a later commit");
        WireHead { stream, seq, digest: split_row(&row).unwrap().0 }
    }

    fn is_here(&self, record: &RecordKey) -> bool {
        self.get(record.as_bytes().to_vec()).is_some()
    }
}

/// Y7: one record that is overwritten again and again leaves a small log, once every member has it. Without pruning all of it
/// stays.
#[test]
fn the_log_that_every_member_has_goes() {
    for rules in [PRUNES, Rules { prunes_by_acks: false, ..Rules::ALL }] {
        let mut world = World::connected(rules);
        for n in 0..300 {
            world.commit(vec![tag(1, &n.to_string())]).unwrap();
        }
        assert_eq!((world.floor_of(REPLICA), world.logged_rows()), (0, 303 + 299));
        world.all_have_all();
        world.pass(500);
        assert_eq!(world.audit(), []);
        let gone = rules.prunes_by_acks;
        // Few entries wait, so that writes are few.
        assert_eq!(world.floor_of(REPLICA) > 303 - 64, gone);
        world.rests();
        assert_eq!(world.floor_of(REPLICA), if gone { 303 } else { 0 });
        assert_eq!(world.logged_rows() == 0, gone);
        assert_eq!(world.stored_tags()[&1], "299");
        world.commit(vec![tag(2, "next")]).unwrap();
        assert_eq!(world.audit(), []);
        world.reopen(networked(rules));
        assert_eq!(world.commit(vec![tag(3, "next")]).map_err(|error| error.to_string()), Ok(()));
        assert_eq!(world.audit(), []);
    }
}

/// Every stream is pruned, without a commit here, and a step at a time: a commit of the app waits for one at most.
#[test]
fn streams_of_others_are_pruned_in_steps() {
    let mut world = pruning(PRUNES);
    let mut b = Author::new(B, B_DEVICE);
    for n in 0..200 {
        world.feed(B, live(&[&b.tag(n % 7, "b")]));
    }
    world.writes.clear();
    world.all_have_all();
    world.pass(500);
    world.pass(WHILE_MS);
    assert_eq!((world.floor_of(B), world.floor_of(REPLICA), world.logged_rows()), (200, 3, 0));
    let steps: Vec<_> = world.writes.iter().filter(|batch| batch.ops().iter().any(is_range)).collect();
    assert!((3..8).contains(&steps.len()), "{} steps", steps.len());
    assert!(steps.iter().all(|batch| logged_in(batch).is_empty()), "writes of their own");
    assert_eq!(world.audit(), []);
}

fn is_range(op: &WriteOp) -> bool {
    matches!(op, WriteOp::DeleteRange { .. })
}

/// Y7: a member that was never heard of may need all of it.
#[test]
fn a_member_never_heard_of_holds_the_log() {
    for (rules, held) in [(PRUNES, true), (without!(members_never_heard_count), false)] {
        let mut world = pruning(rules);
        (0..100).for_each(|n| world.commit(vec![tag(n, "x")]).unwrap());
        world.has_all(B);
        world.rests();
        assert_eq!(world.floor_of(REPLICA) == 0, held);
        // What it needs is served, or was pruned.
        let (head, _) = world.page(C, &[], 1 << 20);
        assert_eq!(head.reach == Reach::Pruned, !held);
        if held {
            world.has_all(C);
            world.rests();
            assert_eq!(world.floor_of(REPLICA), 103, "it has acknowledged it");
        }
    }
}

/// The own stream is pruned as far as every member has it, and not as far as some have.
#[test]
fn the_last_member_holds_the_floor() {
    let mut world = pruning(PRUNES);
    (0..200).for_each(|n| world.commit(vec![tag(n, "x")]).unwrap());
    world.has_all(B);
    let half = world.head_at(REPLICA, 100);
    world.feed(C, hello(1, &[half]));
    world.rests();
    assert_eq!(world.floor_of(REPLICA), 100);
    assert_eq!(world.audit(), []);
    // The members go on from there.
    let (head, commits) = world.page(C, &[half], 1 << 20);
    assert_eq!((head.reach, commits.len(), commits[0].seq), (Reach::Whole, 103, 101));
    world.feed(C, hello(1, &[]));
    world.rests();
    assert_eq!(world.floor_of(REPLICA), 100, "what was acknowledged stays so");
}

/// A member has another history of a stream: its log here is what shows where they part.
#[test]
fn an_acknowledgement_of_another_history_does_not_count() {
    for (rules, held) in [(PRUNES, true), (without!(acks_are_compared), false)] {
        let mut world = pruning(rules);
        let mut c = Author::new(C, C_DEVICE);
        let made: Vec<_> = (0..100).map(|n| c.tag(n, "c")).collect();
        made.iter().for_each(|made| world.feed(C, live(&[made])));
        world.has_all(C);
        world.feed(B, hello(1, &[]));
        let other = WireHead { digest: [7; 32], ..world.head_at(C, 90) };
        world.sent.clear();
        world.feed(B, wire::ack(GROUP, &Capped(vec![other])));
        world.pass(500);
        assert_eq!(world.floor_of(C) == 0, held, "{rules:?}");
        let asked = world.shows(B).iter().any(|show| show.stream == C);
        assert_eq!(asked, held, "the log shows the other history");
    }
}

/// The end of a log that is damaged says nothing of where it begins.
#[test]
fn no_floor_is_taken_from_a_damaged_row() {
    let mut world = pruning(PRUNES);
    (0..60).for_each(|n| world.commit(vec![tag(n, "x")]).unwrap());
    // The digest in the first row behind the next floor is a wrong one.
    let next = keys::log(REPLICA, 41);
    let half = world.head_at(REPLICA, 40);
    world.store.0.lock().unwrap().get_mut(&next).unwrap()[3] ^= 1;
    world.has_all(B);
    world.feed(C, wire::ack(GROUP, &Capped(vec![half])));
    world.feed(C, hello(1, &[half]));
    world.rests();
    assert_eq!(world.floor_of(REPLICA), 0);
    // A later floor is another one.
    world.has_all(C);
    world.rests();
    assert_eq!((world.floor_of(REPLICA), world.audit()), (63, vec![]));
}

/// Y15: what a member once acknowledged is known, though the log that showed it is gone.
#[test]
fn a_restored_member_is_told_after_its_log_was_pruned() {
    for reopened in [false, true] {
        let mut world = pruning(PRUNES);
        (0..100).for_each(|n| world.commit(vec![tag(n, "x")]).unwrap());
        let before = world.head_at(REPLICA, 50);
        world.all_have_all();
        // Nothing else writes what was acknowledged before half a minute has passed.
        if reopened {
            world.pass(500);
        } else {
            world.rests();
        }
        assert_eq!(world.floor_of(REPLICA), if reopened { 64 } else { 103 });
        if reopened {
            world.opens_at(networked(PRUNES), 1_000_000);
            world.handle(Input::Up(B));
        }
        world.said();
        world.feed(B, hello(2, &[before]));
        let own = world.own();
        let told = |(to, message): &(Option<ReplicaId>, Message)| {
            *to == Some(B) && matches!(message, Message::Regressed(head) if *head == own)
        };
        assert!(world.said().iter().any(told), "reopened: {reopened}");
    }
}

/// A write that fails leaves the log, and is tried again.
#[test]
fn a_step_that_failed_changes_nothing() {
    let mut world = pruning(PRUNES);
    (0..100).for_each(|n| world.commit(vec![tag(n, "x")]).unwrap());
    world.all_have_all();
    world.now = now(world.now.mono.0 + 500);
    world.handle(Input::Tick);
    let batch = world.up_to_write().expect("a step");
    assert!(batch.ops().iter().any(is_range));
    world.rejected();
    world.settle();
    assert_eq!((world.floor_of(REPLICA), world.audit()), (0, vec![]));
    world.rests();
    assert_eq!((world.floor_of(REPLICA), world.audit()), (103, vec![]));
}

/// A restored store drops nothing, nor one that waits for its member record.
#[test]
fn a_restored_store_prunes_nothing() {
    let mut world = pruning(PRUNES);
    (0..100).for_each(|n| world.commit(vec![tag(n, "x")]).unwrap());
    world.all_have_all();
    world.feed(B, wire::regressed(GROUP, &WireHead { stream: C, seq: 3, digest: [7; 32] }));
    world.rests();
    assert_eq!(world.floor_of(REPLICA), 0);
}

// --- tombstones -------------------------------------------------------------------------------------------------------

/// C11, Y6: a delete that every member has leaves nothing, and an older put that comes again changes nothing.
#[test]
fn a_tombstone_goes_after_its_log() {
    for rules in [PRUNES, without!(tombstones_wait_for_their_log)] {
        let mut world = pruning(rules);
        (0..150).for_each(|n| world.commit(vec![tag(n % 50, &n.to_string())]).unwrap());
        (0..50).for_each(|n| world.commit(vec![untag(n)]).unwrap());
        world.all_have_all();
        // Look at the store after every write.
        let mut broken = Vec::new();
        for ms in [500, WHILE_MS, WHILE_MS] {
            world.now = now(world.now.mono.0 + ms);
            world.handle(Input::Tick);
            while let Some(batch) = world.up_to_write() {
                world.written(batch);
                broken.extend(world.audit());
            }
        }
        assert_eq!(broken.is_empty(), rules.tombstones_wait_for_their_log, "{broken:?}");
        assert_eq!(world.audit(), []);
        assert!((0..50).all(|n| !world.is_here(&RecordKey::new::<Tag>(&n))), "no tombstone is left");
        assert!(world.stored_tags().is_empty());
    }
}

/// A member knows of another one that is not known here, and which has not seen the delete. Its old put must not bring the
/// record back.
#[test]
fn a_tombstone_waits_for_members_that_its_holders_know() {
    let d = ReplicaId(Uuid::from_u128(0xd0));
    let d_device = DeviceId(Uuid::from_u128(0xdd));
    for (rules, back) in [(PRUNES, false), (without!(ack_needs_cover), true)] {
        let mut world = pruning(rules);
        world.commit(vec![tag(1, "old")]).unwrap();
        // C adds D, which puts the tag and knows nothing of the delete. Of both this replica hears late.
        let mut c = Author::new(C, C_DEVICE);
        let adds = c.commit(&[], vec![member(d, d_device)]);
        let puts = Author::new(d, d_device).commit(&[c.head()], vec![tagged(1, "of D")]);
        world.now = now(5_000);
        world.commit(vec![untag(1)]).unwrap();
        let named = world_heads(&world, &c);
        for member in [B, C] {
            world.feed(member, hello(1, &named));
        }
        world.rests();
        assert_eq!(world.is_here(&RecordKey::new::<Tag>(&1)), !back, "the tombstone");
        world.feed(C, live(&[&adds]));
        world.rests();
        world.feed(C, live(&[&puts]));
        assert_eq!(world.tag_name(1).is_some(), back);
        assert_eq!(world.audit(), []);
    }
}

/// The heads of a member that has all that is here, and the stream of `author`.
fn world_heads(world: &World, author: &Author) -> Vec<WireHead> {
    let mut heads = world.heads();
    heads.push(author.head());
    heads.sort_unstable_by_key(|head| head.stream);
    heads
}

/// Delete, forget, create again: nothing of before the delete comes back, and both values of after it stay.
#[test]
fn a_model_with_its_own_merge_forgets_no_epoch() {
    let mut world = pruning(PRUNES);
    world.commit(vec![bag(1, &[1, 2])]).unwrap();
    let delete = Staged { own_merge: true, action: Action::Delete, ..bag(1, &[]) };
    world.commit(vec![delete]).unwrap();
    let epoch = epoch_of(&world, 1);
    world.all_have_all();
    world.rests();
    assert!(!world.is_here(&RecordKey::new::<Bag>(&1)));
    let forgotten = world.get(keys::forgotten(Bag::SYNC_MODEL)).unwrap();
    assert_eq!(crate::stored::forgotten_from_value(&forgotten), Ok(epoch));
    assert_eq!(world.audit(), []);
    world.commit(vec![bag(1, &[3])]).unwrap();
    assert_eq!(epoch_of(&world, 1), epoch);
    world.opens_at(networked(PRUNES), 1_000_000);
    world.commit(vec![bag(2, &[4])]).unwrap();
    assert_eq!((world.bag(1).unwrap(), epoch_of(&world, 2)), (vec![3], epoch));
    assert_eq!(world.audit(), []);
}

/// A tombstone whose delete is in the log of a member that was away stays, and so does a device-owned one.
#[test]
fn a_tombstone_stays_until_the_last_member_has_it() {
    let mut world = pruning(PRUNES);
    let spot = Spot { id: 1, device_id: DEVICE, name: "here".into() };
    let key = RecordKey::new::<Spot>(&(DEVICE, 1));
    world.commit(vec![tag(1, "red"), put(&spot)]).unwrap();
    world
        .commit(vec![untag(1), Staged { record: key.clone(), action: Action::Delete, own_merge: false }])
        .unwrap();
    world.has_all(B);
    let before = world.head_at(REPLICA, 4);
    world.feed(C, hello(1, &[before]));
    world.rests();
    assert_eq!(world.floor_of(REPLICA), 4);
    assert!(world.is_here(&key) && world.is_here(&RecordKey::new::<Tag>(&1)));
    world.has_all(C);
    world.rests();
    assert!(!world.is_here(&key) && !world.is_here(&RecordKey::new::<Tag>(&1)));
    assert_eq!(world.audit(), []);
}

/// A walk is as long as all records: it is made only when it finds something.
#[test]
fn a_store_at_rest_is_not_walked() {
    let mut world = pruning(PRUNES);
    (0..30).for_each(|n| world.commit(vec![tag(n, "x")]).unwrap());
    world.all_have_all();
    world.rests();
    let writes = world.writes.len();
    (0..10).for_each(|_| world.pass(WHILE_MS));
    assert_eq!(world.writes.len(), writes);
    assert!(world.engine.next_effect().is_none());
}

/// The status names the member for which a log is kept, also one that was never heard of.
#[test]
fn the_member_that_holds_a_log_is_named() {
    let mut world = pruning(PRUNES);
    (0..10).for_each(|n| world.commit(vec![tag(n, "x")]).unwrap());
    world.has_all(B);
    world.pass(5_000);
    let held = |world: &World, stream: ReplicaId| {
        let streams = world.engine.report().streams;
        let held = streams.into_iter().find(|view| view.replica == stream).unwrap().held_by;
        held.map(|held| (held.member, held.since.as_millis(), held.commits))
    };
    assert_eq!(held(&world, REPLICA), Some((C, 5_000, 13)), "nothing was heard of it");
    assert_eq!(held(&world, B), None, "there is nothing to hold");
    let half = world.head_at(REPLICA, 6);
    world.feed(C, hello(1, &[half]));
    world.pass(WHILE_MS);
    assert_eq!(world.floor_of(REPLICA), 6);
    let (member, since, commits) = held(&world, REPLICA).unwrap();
    assert!(member == C && since <= u128::from(WHILE_MS) && commits == 7, "{member} {since} {commits}");
    world.has_all(C);
    assert_eq!(held(&world, REPLICA), None);
}

/// A delete is forgotten while the log still has an older put of its record, and an older delete: that is no damage, and what
/// the log says is served.
#[test]
fn a_record_may_be_forgotten_before_all_that_it_was() {
    let mut world = pruning(PRUNES);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let puts = b.commit(&[], vec![tagged(1, "b"), tagged(2, "b"), bagged(1, &[1], Hlc::NEVER)]);
    let deletes = b.commit(&[], vec![(RecordKey::new::<Tag>(&1), None, None)]);
    let (putting, first) = (world.heads(), puts.stamp);
    world.feed(B, live(&[&puts, &deletes]));
    c.wall = 1_500;
    let bag = RecordKey::new::<Bag>(&1);
    let later = c.commit(
        &[],
        vec![
            (RecordKey::new::<Tag>(&1), None, None),
            (RecordKey::new::<Tag>(&2), None, None),
            (bag.clone(), None, Some(first)),
        ],
    );
    world.feed(C, live(&[&later]));
    assert_eq!((world.audit(), world.stored_tags().len()), (vec![], 0));
    // C has nothing of B's stream, B has all of C's.
    world.has_all(B);
    let of_c: Vec<_> = putting.into_iter().chain([c.head()]).collect();
    let mut of_c = of_c;
    of_c.sort_unstable_by_key(|head| head.stream);
    world.feed(C, hello(1, &of_c));
    world.rests();
    assert_eq!((world.floor_of(B), world.floor_of(C)), (0, 1));
    assert!(!world.is_here(&RecordKey::new::<Tag>(&1)) && !world.is_here(&bag));
    assert_eq!(world.audit(), []);
    let (_, commits) = world.page(C, &of_c, 1 << 20);
    assert_eq!(commits.len(), 2, "both commits of B");
    world.checks();
    let check = world.checked().unwrap();
    assert!(check.damaged.is_empty(), "{check:?}");
    assert_eq!(world.audit(), []);
}

/// Entries that are too many go, the oldest first, though a member lacks them. An own commit stays until somebody has it, and
/// every tombstone does.
#[test]
fn no_more_entries_are_kept_than_the_app_wants() {
    let limits = Arc::new(Limits { retain_entries_max: 80, ..Limits::default() });
    let mut world = World::asking(Ask { limits, ..networked(PRUNES) }).with_peers();
    let mut b = Author::new(B, B_DEVICE);
    for n in 0..100 {
        world.feed(B, live(&[&b.tag(n, "b")]));
    }
    world.now = now(10_000);
    (0..197).for_each(|n| world.commit(vec![untag(n)]).unwrap_or_default());
    (0..150).for_each(|n| world.commit(vec![tag(500 + n, "x")]).unwrap());
    // C was never heard of. B has half of what is here.
    let half = world.head_at(REPLICA, 150);
    world.feed(B, hello(1, &[half, b.head()]));
    (0..3).for_each(|_| world.rests());
    let own = world.head().seq;
    assert_eq!((world.floor_of(B), world.floor_of(REPLICA)), (100, 150), "of {own}");
    assert_eq!((0..100).filter(|n| world.is_here(&RecordKey::new::<Tag>(n))).count(), 100, "tombstones");
    assert_eq!(world.audit(), []);
    world.has_all(B);
    (0..3).for_each(|_| world.rests());
    assert_eq!(world.floor_of(REPLICA), own - 80, "no more than that are kept");
    assert_eq!(world.audit(), []);
    // A limit of bytes is one of entries, as long as the last ones.
    let limits = Arc::new(Limits { retain_bytes_max: 10_000, ..Limits::default() });
    world.opens_at(Ask { limits, ..networked(PRUNES) }, 10_000_000);
    world.handle(Input::Up(B));
    (0..20).for_each(|n| world.commit(vec![tag(700 + n, "x")]).unwrap());
    world.has_all(B);
    (0..3).for_each(|_| world.rests());
    let left = world.head().seq - world.floor_of(REPLICA);
    assert!((30..90).contains(&left), "{left}");
    assert_eq!(world.audit(), []);
}
