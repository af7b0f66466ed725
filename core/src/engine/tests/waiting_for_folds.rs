//! Goal: a commit that waits for its record to be folded gets it whole, and nobody waits without end. Method: calls, frames,
//! failures and ends that come while records are folded.

use super::folding::{Sack, with_besides};
use super::*;

type Seen = Arc<Mutex<Option<BTreeSet<u32>>>>;

fn look_at_bag(world: &mut World, id: u32) -> (u64, Seen) {
    let seen = Seen::default();
    let see = Arc::clone(&seen);
    let update = move |current: Option<Current<'_>>| {
        let bag = model::decode::<Bag>(&id, current.unwrap()).unwrap();
        *see.lock().unwrap() = Some(bag.items.clone());
        model::encode(&Bag { id, items: bag.items.into_iter().chain([9]).collect() }, usize::MAX)
            .map(Updated::Put)
    };
    let record = RecordKey::new::<Bag>(&id);
    let ticket =
        world.submit(vec![Staged { record, action: Action::Update(Box::new(update)), own_merge: true }]);
    (ticket, seen)
}

#[test]
fn an_update_among_other_calls_sees_what_lay_beside_its_record() {
    let mut world = with_besides(1_100, 2);
    let limits = Limits { round_commits_max: 1, ..Limits::default() };
    world.reopen(Ask { limits: Arc::new(limits), ..networked(Rules::ALL) });
    world.submit(vec![tag(1, "a")]);
    let (_, seen) = look_at_bag(&mut world, 1_099);
    world.submit(vec![tag(2, "b")]);
    world.submit(vec![tag(3, "c")]);
    world.settle();
    assert_eq!(*seen.lock().unwrap(), Some(BTreeSet::from([0, 1, 2])));
}

#[test]
fn the_last_update_before_the_end_sees_what_lay_beside_its_record() {
    let mut world = with_besides(10, 2);
    world.reopen(networked(Rules::ALL));
    let (_, seen) = look_at_bag(&mut world, 5);
    world.engine.close();
    world.settle();
    assert_eq!(*seen.lock().unwrap(), Some(BTreeSet::from([0, 1, 2])));
}

/// A store with one sack and `values` large values beside it; `schema` is what each is stored with.
fn with_sack(values: u32, schema: impl Fn(u32) -> u16) -> (World, RecordKey) {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let record = RecordKey::new::<Sack>(&1);
    for n in 0..=values {
        let sack = Sack { id: 1, items: BTreeSet::from([n]), stuffing: vec![7; 900_000] };
        let value = postcard::to_allocvec(&sack).unwrap();
        world.feed(B, live(&[&b.commit(&[], vec![(record.clone(), Some(value), Some(Hlc::NEVER))])]));
    }
    let mut batch = WriteBatch::new();
    for (n, Entry { key, value }) in (1..).zip(world.store.entries(keys::besides())) {
        let (header, content) = record::parse(&value).unwrap();
        batch.put(key, record::of(&record::Header { schema: schema(n), ..header }, content));
    }
    block_on(world.store.write(batch)).unwrap();
    let mut registry = models();
    registry.add::<Sack>().unwrap();
    world.engine = open_engine_with(&world.store, networked(Rules::ALL), registry, now(2000)).unwrap();
    (world, record)
}

#[test]
fn an_update_sees_all_of_a_long_backlog() {
    let (mut world, record) = with_sack(11, |_| 1);
    let seen = Seen::default();
    let see = Arc::clone(&seen);
    let update = move |current: Option<Current<'_>>| {
        let mut sack = model::decode::<Sack>(&1, current.unwrap()).unwrap();
        *see.lock().unwrap() = Some(sack.items.clone());
        sack.items.insert(99);
        model::encode(&sack, usize::MAX).map(Updated::Put)
    };
    world.submit(vec![Staged { record, action: Action::Update(Box::new(update)), own_merge: true }]);
    world.settle();
    assert_eq!(*seen.lock().unwrap(), Some((0..12).collect()));
}

#[test]
fn a_value_that_stays_beside_in_the_first_page_is_not_forgotten_by_the_second() {
    let (mut world, record) = with_sack(8, |n| if n == 1 { 9 } else { 1 });
    world.settle();
    let left = world.store.entries(keys::besides()).len();
    let stored = world.get(record.as_bytes().to_vec()).unwrap();
    let beside = record::parse(&stored).unwrap().0.merge.unwrap().beside;
    assert_eq!((left, beside), (1, true));
    assert_eq!(world.audit(), []);
}

#[test]
fn a_delete_drops_what_was_left_beside() {
    let (mut world, record) = with_sack(8, |n| if n == 1 { 9 } else { 1 });
    world.settle();
    world.commit(vec![Staged { record, action: Action::Delete, own_merge: true }]).unwrap();
    assert_eq!(world.store.entries(keys::besides()).len(), 0);
}

#[test]
fn a_record_that_a_commit_waited_for_says_what_lies_beside_it() {
    let (mut world, record) = with_sack(10, |_| 1);
    let update = move |current: Option<Current<'_>>| {
        let mut sack = model::decode::<Sack>(&1, current.unwrap()).unwrap();
        sack.items.insert(99);
        model::encode(&sack, usize::MAX).map(Updated::Put)
    };
    world.submit(vec![Staged {
        record: record.clone(),
        action: Action::Update(Box::new(update)),
        own_merge: true,
    }]);
    world.settle();
    let left = world.store.entries(keys::besides()).len();
    let stored = world.get(record.as_bytes().to_vec()).unwrap();
    let beside = record::parse(&stored).unwrap().0.merge.unwrap().beside;
    assert_eq!((left, beside), (0, false));
    assert_eq!(world.audit(), []);
}

#[test]
fn a_joined_write_does_not_wait_for_peers_that_never_end() {
    let mut world = with_besides(2_100, 1);
    world.reopen(networked(Rules::ALL));
    world.handle(Input::Up(C));
    let mut c = Author::new(C, C_DEVICE);
    let ticket = world.submit_joined(vec![tag(1, "a")]);
    for n in 0..200 {
        let made = c.tag(7, &n.to_string());
        world.handle(Input::Frame(C, live(&[&made])));
        let batch = world.up_to_write().expect("there is always something to write");
        // One more comes while this one is written.
        let made = c.tag(8, &n.to_string());
        world.handle(Input::Frame(C, live(&[&made])));
        world.written(batch);
    }
    assert!(world.replies.iter().any(|(answered, _)| *answered == ticket), "after 200 writes");
}

#[test]
fn folding_counts_each_record_once() {
    let mut world = with_besides(10, 1);
    world.reopen(networked(Rules::ALL));
    world.notices.clear();
    let (_, seen) = look_at_bag(&mut world, 5);
    world.settle();
    assert_eq!(*seen.lock().unwrap(), Some(BTreeSet::from([0, 1])));
    let told = world.events();
    let last = told.iter().rfind(|event| matches!(event, Event::Folding { .. }));
    assert_eq!(last, Some(&Event::Folding { records: 10, complete: true }));
}

#[test]
fn refused_calls_do_not_keep_the_upkeep_waiting() {
    let mut world = with_besides(2_100, 1);
    world.reopen(networked(Rules::ALL));
    world.handle(Input::Up(C));
    let mut c = Author::new(C, C_DEVICE);
    for n in 0..5 {
        world.submit_joined(vec![tag(n, "a")]);
    }
    let page = world.up_to_write().unwrap();
    world.handle(Input::Frame(
        C,
        wire::regressed(GROUP, &WireHead { stream: B, seq: 9_999, digest: [7; 32] }),
    ));
    world.written(page);
    for n in 0..200 {
        world.handle(Input::Frame(C, live(&[&c.tag(7, &n.to_string())])));
        let Some(batch) = world.up_to_write() else { break };
        world.handle(Input::Frame(C, live(&[&c.tag(8, &n.to_string())])));
        world.written(batch);
    }
    assert!(world.is_folded, "after 200 writes");
}

#[test]
fn an_update_waits_for_its_record_also_after_a_rejected_page() {
    let mut world = with_besides(10, 2);
    world.reopen(networked(Rules::ALL));
    let (_, seen) = look_at_bag(&mut world, 5);
    world.up_to_write().unwrap();
    world.rejected();
    world.settle();
    assert_eq!(*seen.lock().unwrap(), None, "it waits");
    world.pass(1_000);
    assert_eq!(*seen.lock().unwrap(), Some(BTreeSet::from([0, 1, 2])));
}

/// A commit may change more records than one page folds.
#[test]
fn a_commit_of_many_records_sees_all_of_them_whole() {
    let mut world = with_besides(2_100, 1);
    world.reopen(networked(Rules::ALL));
    let seen = Arc::new(Mutex::new(0));
    let adding = |id| {
        let see = Arc::clone(&seen);
        let update = move |current: Option<Current<'_>>| {
            let bag = model::decode::<Bag>(&id, current.unwrap()).unwrap();
            *see.lock().unwrap() += usize::from(bag.items == BTreeSet::from([0, 1]));
            model::encode(&bag, usize::MAX).map(Updated::Put)
        };
        let record = RecordKey::new::<Bag>(&id);
        Staged { record, action: Action::Update(Box::new(update)), own_merge: true }
    };
    world.submit((0..1_500).map(adding).collect());
    world.settle();
    assert_eq!(*seen.lock().unwrap(), 1_500);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_joined_write_before_the_end_waits_until_everything_is_folded() {
    let mut world = with_besides(10, 1);
    world.reopen(networked(Rules::ALL));
    let ticket = world.submit_joined(vec![tag(1, "a")]);
    world.engine.close();
    world.settle();
    assert!(matches!(world.replies.last(), Some((answered, Ok(()))) if *answered == ticket));
    assert!(world.is_folded);
}
