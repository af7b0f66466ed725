//! Goal: values beside records are merged into them once the app can, in few writes, and a commit sees the merged
//! records. Method: engines that knew no merge receive values; engines that know it are opened over the same store.

use super::*;
use crate::projection::{Mended, Next, Settled};

/// A store of an app that knew no bags: it has `records` bags, with `each` values beside each of them.
pub(super) fn with_besides(records: u32, each: u32) -> World {
    let mut registry = Registry::new();
    registry.add::<Tag>().unwrap();
    let mut world = World::with_models(networked(Rules::ALL), registry).with_peers();
    let mut b = Author::new(B, B_DEVICE);
    let ids: Vec<_> = (0..records).collect();
    for n in 0..=each {
        for ids in ids.chunks(500) {
            let made = b.commit(&[], ids.iter().map(|id| bagged(*id, &[n], Hlc::NEVER)).collect());
            world.feed(B, live(&[&made]));
        }
    }
    assert_eq!(world.audit(), []);
    world
}

impl World {
    /// Opens the store with an app that knows bags, without doing anything yet.
    fn updated(&mut self) {
        self.reopen(networked(Rules::ALL));
        (self.writes, self.is_folded) = (Vec::new(), false);
    }
}

#[test]
fn thousands_of_records_are_folded_in_few_writes() {
    let mut world = with_besides(2_100, 1);
    world.updated();
    assert_eq!(world.engine.report().folded, Some(0));
    world.settle();
    assert!(world.writes.len() <= 3, "{} writes", world.writes.len());
    assert!(world.is_folded && world.engine.report().folded.is_none());
    assert!((0..2_100).all(|id| world.bag(id) == Some(vec![0, 1])));
    let folding: Vec<_> =
        world.events().into_iter().filter(|event| matches!(event, Event::Folding { .. })).collect();
    let complete = Event::Folding { records: 2_100, complete: true };
    assert_eq!((folding.len(), folding.last()), (world.writes.len() + 1, Some(&complete)));
    assert_eq!(world.audit(), []);
    // The next opening finds no value to fold.
    world.updated();
    assert_eq!(world.engine.report().folded, None);
}

/// Commits and frames take their turns between the pages.
#[test]
fn the_app_commits_while_records_are_folded() {
    let mut world = with_besides(1_100, 1);
    world.updated();
    world.submit(vec![tag(1, "a")]);
    let first = world.up_to_write().unwrap();
    assert_eq!(logged_in(&first), [REPLICA], "a call does not wait for the upkeep");
    world.written(first);
    let page = world.up_to_write().unwrap();
    assert_eq!(logged_in(&page), []);
    world.submit(vec![tag(2, "b")]);
    world.written(page);
    assert_eq!(logged_in(&world.up_to_write().unwrap()), [REPLICA]);
}

/// An update of a record sees the values that lay beside it, though the page of the record has not come yet.
#[test]
fn a_commit_sees_a_record_with_all_that_lay_beside_it() {
    let mut world = with_besides(1_100, 2);
    world.updated();
    let seen = Arc::new(Mutex::new(None));
    let (see, id) = (Arc::clone(&seen), 1_099);
    let update = move |current: Option<Current<'_>>| {
        let bag = model::decode::<Bag>(&id, current.unwrap()).unwrap();
        *see.lock().unwrap() = Some(bag.items.clone());
        model::encode(&Bag { id, items: bag.items.into_iter().chain([9]).collect() }, usize::MAX)
            .map(Updated::Put)
    };
    let record = RecordKey::new::<Bag>(&id);
    world.submit(vec![Staged { record, action: Action::Update(Box::new(update)), own_merge: true }]);
    let fold = world.up_to_write().unwrap();
    assert_eq!(logged_in(&fold), [], "its record is folded first");
    world.written(fold);
    world.settle();
    assert_eq!(*seen.lock().unwrap(), Some(BTreeSet::from([0, 1, 2])));
    assert_eq!((world.bag(id), world.audit()), (Some(vec![0, 1, 2, 9]), vec![]));
}

/// The records that a joined write reads are not known before it runs, so everything is folded before it.
#[test]
fn a_joined_write_waits_until_everything_is_folded() {
    let mut world = with_besides(1_100, 1);
    world.updated();
    let ticket = world.submit_joined(vec![tag(1, "a")]);
    let mut pages = 0;
    while let Some(batch) = world.up_to_write() {
        let is_join = logged_in(&batch) == [REPLICA];
        assert_eq!(is_join, pages == 2, "after {pages} pages");
        pages += 1;
        world.written(batch);
    }
    assert!(matches!(world.replies.last(), Some((answered, Ok(()))) if *answered == ticket));
}

/// A page that the store does not take is folded again, from its beginning. Calls do not wait for it until then.
#[test]
fn a_page_that_is_not_written_is_folded_again() {
    let mut world = with_besides(300, 1);
    world.updated();
    for failures in 1..=3 {
        world.up_to_write().unwrap();
        world.rejected();
        assert!(failures == 3 || world.up_to_write().is_none(), "not at once");
        if failures == 1 {
            world.submit_joined(vec![tag(1, "a")]);
            assert!(world.up_to_write().is_none(), "a joined write waits for it");
        }
        if failures < 3 {
            let due = world.engine.next_timeout().expect("it is tried again");
            world.now = now(due.0);
            world.handle(Input::Tick);
        }
    }
    let batch = world.up_to_write().expect("a joined write does not wait for what fails again and again");
    world.written(batch);
    world.pass(2_000);
    assert!(world.is_folded && (0..300).all(|id| world.bag(id) == Some(vec![0, 1])));
    assert_eq!(world.audit(), []);
}

/// A set of numbers in a large value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sack {
    pub(super) id: u32,
    pub(super) items: BTreeSet<u32>,
    #[serde(with = "serde_bytes")]
    pub(super) stuffing: Vec<u8>,
}

impl Syncable for Sack {
    const SYNC_MODEL: &'static str = "sack";
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

/// The backlog of one record is neither in memory at once nor in one write, and no piece of it forgets the others.
#[test]
fn a_long_backlog_of_one_record_is_folded_in_pieces() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let record = RecordKey::new::<Sack>(&1);
    for n in 0..12 {
        let sack = Sack { id: 1, items: BTreeSet::from([n]), stuffing: vec![7; 900_000] };
        let value = postcard::to_allocvec(&sack).unwrap();
        world.feed(B, live(&[&b.commit(&[], vec![(record.clone(), Some(value), Some(Hlc::NEVER))])]));
    }
    let mut registry = models();
    registry.add::<Sack>().unwrap();
    world.engine = open_engine_with(&world.store, networked(Rules::ALL), registry, now(2000)).unwrap();
    world.writes.clear();
    while let Some(batch) = world.up_to_write() {
        world.written(batch);
        assert_eq!(world.audit(), [], "after {} writes", world.writes.len());
    }
    assert!(world.writes.len() > 1, "{} writes for 10 MB", world.writes.len());
    let stored = world.get(record.into_bytes()).unwrap();
    let (header, value) = record::parse(&stored).unwrap();
    assert!(!header.merge.unwrap().beside);
    assert_eq!(model::decode_bytes::<Sack>(value).unwrap().items.len(), 12);
}

/// A value that this version cannot merge either is tried once at each opening. No call waits for it a second time.
#[test]
fn a_value_of_a_newer_schema_stays_beside_its_record() {
    let mut world = with_besides(10, 1);
    let mut batch = WriteBatch::new();
    for Entry { key, value } in world.store.entries(keys::besides()) {
        let (header, content) = record::parse(&value).unwrap();
        batch.put(key, record::of(&record::Header { schema: 9, ..header }, content));
    }
    block_on(world.store.write(batch)).unwrap();
    world.updated();
    let before = world.content();
    let put = put(&Bag { id: 1, items: BTreeSet::from([5]) });
    world.commit(vec![Staged { own_merge: true, ..put }]).unwrap();
    assert!(world.is_folded);
    assert_eq!(world.store.entries(keys::besides()).len(), 10);
    assert!(before.len() < world.content().len() && world.audit().is_empty());
}

/// Values of models that the app does not know are skipped model by model, not read one by one.
#[test]
fn what_the_app_does_not_know_is_not_read() {
    let mut world = with_besides(600, 1);
    let mut registry = Registry::new();
    registry.add::<Tag>().unwrap();
    world.engine = open_engine_with(&world.store, networked(Rules::ALL), registry, now(2000)).unwrap();
    let mut rows = 0;
    while let Some(effect) = world.engine.next_effect() {
        if let Effect::Scan(job, range, limit) = effect {
            let found = block_on(world.store.scan(range, limit));
            rows += found.as_ref().unwrap().entries.len();
            world.handle(Input::Scanned(job, found));
        }
    }
    assert!(rows <= 256 && world.engine.report().folded.is_none(), "{rows} rows");
}

/// Projections follow what is folded, in the same transaction. If that is undone, the page is folded again later.
#[test]
fn projections_follow_what_is_folded() {
    let mut world = with_besides(20, 1);
    let projected = vec![RecordKey::range_of_model::<Bag>()];
    world.reopen(Ask { projected, ..networked(Rules::ALL) });
    let (mut undone, mut mends) = (0, 0);
    for _ in 0..2 {
        while let Some(effect) = world.engine.next_effect() {
            let input = match effect {
                Effect::Scan(job, range, limit) => {
                    Input::Scanned(job, block_on(world.store.scan(range, limit)))
                }
                Effect::Read(job, keys) => {
                    let values = block_on(world.store.get_many(&keys));
                    Input::Read(job, keys, values)
                }
                Effect::WriteProjected(job, _) if undone == 0 => {
                    undone += 1;
                    Input::Projected(job, Err(Error::Panicked { message: "it cannot".into() }))
                }
                Effect::WriteProjected(job, batch) => {
                    block_on(world.store.write(batch)).unwrap();
                    Input::Projected(job, Ok(Settled::default()))
                }
                Effect::Write(..) => panic!("a write without the projections"),
                Effect::Mend(job) => {
                    mends += 1;
                    Input::Mended(job, Mended { told: None, next: Next::Done })
                }
                _ => continue,
            };
            world.handle(input);
        }
        world.now.mono = Mono(world.now.mono.0 + 60_000);
        world.handle(Input::Tick);
    }
    assert!((0..20).all(|id| world.bag(id) == Some(vec![0, 1])));
    assert_eq!((undone, mends), (1, 1), "mending follows once everything is folded");
    assert_eq!(world.audit(), []);
}
