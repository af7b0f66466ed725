//! Goal: an engine opens only the store that was meant, and no damaged one makes it panic. Method: stores that differ from
//! a whole one in one point.

use super::*;

#[test]
fn the_founder_is_the_first_member_and_the_first_commit() {
    let world = World::new(Rules::default());
    let head = world.head();
    assert_eq!((head.seq, head.floor), (1, 0));
    assert_eq!(world.engine.report().members, [REPLICA]);
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
    assert_eq!(reopened.identity(), world.engine.identity());

    let empty = Map::default();
    assert!(matches!(open_engine(&empty, nothing(), now(1)), Err(OpenError::NoGroup { .. })));
    let broken_clock = Now { wall: Err(ClockError::Before1970), mono: Mono(0) };
    assert!(matches!(open_engine(&empty, ask(Rules::default()), broken_clock), Err(OpenError::Clock(_))));
    assert!(empty.0.lock().unwrap().is_empty(), "nothing was written");
    let no_device = Ask { device: None, ..ask(Rules::default()) };
    let drawn = open_engine(&Map::default(), no_device, now(1)).unwrap();
    assert_eq!(drawn.identity().device, ask(Rules::default()).new_device, "a new store draws its device");
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
            // An engine opens without some of these rows, but the audit sees the damage in every one of them.
            let _ = open_engine(&damaged, ask(Rules::default()), now(1));
            let missing_model =
                damage.is_none() && matches!(StoredKey::parse(key), Some(StoredKey::Model(_)));
            assert_eq!(block_on(audit(&damaged)).is_empty(), missing_model, "{key:02x?} {damage:?}");
        }
    }
}

/// A model of the app's as another version of the app has it.
macro_rules! version {
    ($name:ident, $ownership:ty, $id:ty, $own_merge:literal, $schema:literal, $sync_id:expr) => {
        #[derive(Clone, Serialize, Deserialize)]
        struct $name;

        impl Syncable for $name {
            const SYNC_MODEL: &'static str = "thing";
            type Id = u32;
            type Ownership = $ownership;
            const OWN_MERGE: bool = $own_merge;
            const SCHEMA: u16 = $schema;

            fn sync_id(&self) -> $id {
                $sync_id
            }

            fn merge(self, _: Self) -> Self {
                self
            }

            fn migrate(_: u16, _: &[u8]) -> Result<Self, crate::storage::BoxError> {
                Ok(Self)
            }
        }
    };
}

version!(Plain, Shared, u32, false, 1, 1);
version!(Merging, Shared, u32, true, 1, 1);
version!(Owned, DeviceOwned, (DeviceId, u32), false, 1, (DEVICE, 1));
version!(Newer, Shared, u32, false, 3, 1);

fn registry_of<M: Syncable>() -> Registry {
    let mut registry = Registry::new();
    registry.add::<M>().unwrap();
    registry
}

/// The records of before would be out of sight, or beaten by others of another kind.
#[test]
fn a_model_keeps_its_way_of_merging_and_its_owners() {
    type Version = (&'static str, fn() -> Registry);
    let versions: [Version; 3] = [
        ("plain", registry_of::<Plain>),
        ("merges", registry_of::<Merging>),
        ("owned", registry_of::<Owned>),
    ];
    for (before, first) in versions {
        for (after, second) in versions {
            let world = World::with_models(ask(Rules::ALL), first());
            let opened = open_engine_with(&world.store, ask(Rules::ALL), second(), now(2000));
            let fits = match opened {
                Ok(_) => before == after,
                Err(OpenError::MergeChanged { .. }) => (before == "merges") != (after == "merges"),
                Err(OpenError::OwnershipChanged { .. }) => {
                    before != after && before != "merges" && after != "merges"
                }
                Err(_) => false,
            };
            assert!(fits, "{before}, then {after}: {:?}", opened.map(drop));
        }
    }
}

/// An older version of the app may open the store in between, and leaves the row of the newer one.
#[test]
fn the_newest_schema_of_a_model_is_noted_and_stays() {
    let noted = |world: &World| world.get(keys::model("thing")).unwrap();
    let mut world = World::with_models(ask(Rules::ALL), registry_of::<Plain>());
    let mut before = noted(&world);
    for (models, rises) in
        [(registry_of::<Newer>(), true), (registry_of::<Plain>(), false), (registry_of::<Newer>(), false)]
    {
        world.engine = open_engine_with(&world.store, ask(Rules::ALL), models, now(2000)).unwrap();
        let now = noted(&world);
        assert_eq!(now != before, rises);
        before = now;
    }
}

/// Rows of a projection that this app does not have in this version say nothing of its tables.
#[test]
fn the_row_and_the_debts_of_a_projection_go_with_its_version() {
    use crate::projection::Declared;
    use crate::stored::{Progress, ProjectionRow};

    let mut world = World::new(Rules::ALL);
    let record = RecordKey::new::<Tag>(&1);
    for (at, (version, schema)) in [(2, 1), (3, 1), (2, 2)].into_iter().enumerate() {
        let row = ProjectionRow { version: 2, schema: 1, progress: Progress::Complete };
        let mut batch = WriteBatch::new();
        for name in ["mine", "minerals"] {
            batch.put(keys::projection(name), row.to_value());
            batch.put(keys::debt(name, record.as_bytes()), crate::stored::debt_value("no"));
        }
        block_on(world.store.write(batch)).unwrap();
        let declared = |name, version, schema| Declared { name, version, schema };
        let projections = vec![declared("mine", version, schema), declared("minerals", 2, 1)];
        world.reopen(Ask { projections, ..ask(Rules::ALL) });
        let rows = |name| {
            let debts = world.store.entries(keys::debts_of(name)).len();
            (world.get(keys::projection(name)).is_some(), debts)
        };
        let stays = at == 0;
        assert_eq!(rows("mine"), (stays, usize::from(stays)), "version {version}, schema {schema}");
        assert_eq!(rows("minerals"), (true, 1));
    }
}

/// A stamp must be above the own head whatever the row of the clock says.
#[test]
fn the_clock_of_a_store_stands_at_its_own_head_at_least() {
    let mut world = World::new(Rules::ALL);
    world.commit(vec![tag(1, "a")]).unwrap();
    let head = world.head();
    let mut batch = WriteBatch::new();
    batch.put(keys::clock(), crate::stored::clock_value(Hlc::new(WallMs::MIN, 0, REPLICA)));
    block_on(world.store.write(batch)).unwrap();
    world.reopen_at(ask(Rules::ALL), now(1));
    assert_eq!(world.drawn(), head.stamp);
    world.now = now(1);
    world.commit(vec![tag(1, "b")]).unwrap();
    assert!(world.head().stamp > head.stamp);
}

/// Named again, the group is compared; so it is when the app names an introducer, which a member does not look at.
#[test]
fn a_joiner_is_of_the_group_that_its_app_names() {
    let world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    let other =
        Ask { group: Some(GroupId(Uuid::from_u128(1))), introducer: Some(B), ..networked(Rules::ALL) };
    assert!(matches!(open_engine(&world.store, other, now(1)), Err(OpenError::OtherGroup { .. })));
}

/// C19: the stamps of the log are in the heads, so a damaged clock neither stamps a commit below what it knows of nor, for
/// good, far in the future.
#[test]
fn a_damaged_clock_is_put_right() {
    const WALL: u64 = 1_700_000_000_000;
    let mut whole = World::connected(Rules::ALL);
    whole.now = now(WALL);
    let mut b = Author { wall: WALL + 5_000, ..Author::new(B, B_DEVICE) };
    whole.feed(B, live(&[&b.tag(1, "b")]));
    let before = whole.content();
    let Some(WriteOp::Put { .. }) = whole.writes.last().and_then(|batch| batch.ops().last()) else {
        panic!("a write ends with the clock")
    };
    let theirs = whole.drawn();
    for bit in 0..64 {
        let mut world = World::connected(Rules::ALL);
        *world.store.0.lock().unwrap() = before.clone();
        world.store.0.lock().unwrap().get_mut(&keys::clock()).unwrap()[1 + bit / 8] ^= 0x80 >> (bit % 8);
        world.reopen_at(networked(Rules::ALL), now(WALL + 1_000));
        assert_eq!(world.audit(), [], "bit {bit}");
        world.commit(vec![tag(1, "a")]).unwrap();
        let stamp = world.logged(world.own().seq).stamp;
        let ahead_ms = stamp.wall().get() - theirs.wall().get();
        assert!(stamp > theirs && ahead_ms <= Limits::default().max_drift_ms, "bit {bit}: {stamp}");
    }
}

/// C19: a peer cannot have acknowledged what was never committed. What a damaged row says must not stand for ever: an
/// acknowledgement never falls.
#[test]
fn no_acknowledgement_is_remembered_of_commits_that_are_not_here() {
    let mut world = World::connected(Rules::ALL);
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.own();
    for (seq, remembered) in [(own.seq, own.seq), (own.seq + 1, 0), (own.seq + (1 << 40), 0)] {
        let point = crate::stored::Point { seq, digest: own.digest };
        let row = crate::stored::peer_value(&BTreeMap::from([(REPLICA, point)]), |_| 0);
        world.store.0.lock().unwrap().insert(keys::peer(B), row);
        world.reopen(networked(Rules::ALL));
        assert_eq!(world.peer(B).acknowledged, remembered, "{seq}");
        world.handle(Input::Up(B));
        world.feed(B, hello(1, &[own]));
        assert_eq!(world.peer(B).acknowledged, own.seq, "{seq}");
    }
}
