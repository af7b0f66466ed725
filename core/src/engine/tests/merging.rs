//! Goal: the same commits make the same records, in any order and whenever a model becomes known. Method: every order of a
//! few commits, and the rules of merging switched off one by one.

use super::*;

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
    let (epoch, seen) = (deleted.stamp, c.head());
    let streams = [
        vec![
            b.commit(&[], vec![bagged(1, &[1], Hlc::NEVER), tagged(1, "b")]),
            b.commit(&[], vec![bagged(1, &[2], Hlc::NEVER)]),
        ],
        vec![deleted, c.commit(&[], vec![bagged(1, &[3], epoch)])],
        vec![d.commit(&[], vec![bagged(1, &[4], Hlc::NEVER), (RecordKey::new::<Tag>(&1), None, None)]), {
            // This commit has seen the delete.
            d.wall = 1600;
            d.commit(&[seen], vec![bagged(1, &[5], epoch)])
        }],
    ];
    let mut states = Vec::new();
    // Every order of the six commits that keeps the order of each stream, and the cause before its effect.
    for order in orders(&[2, 2, 2]) {
        let position = |stream: usize, nth: usize| {
            order.iter().enumerate().filter(|(_, at)| **at == stream).nth(nth).unwrap().0
        };
        if position(2, 1) < position(1, 0) {
            continue;
        }
        for together in [true, false] {
            let mut world = World::connected(Rules::ALL);
            let member = Member::new(d.stream, d.device);
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
            // A peer that pulls gets every commit whole, with exactly its bytes.
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

/// Every order of so many items of each kind.
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

/// Without a rule of merging, the audit or the order of the commits shows a difference.
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

/// A value of an unknown model lies beside its record, is relayed, and is merged at the opening at which the app knows
/// the model: the result is the one of a replica that knew it all along.
#[test]
fn what_cannot_be_merged_yet_is_merged_later() {
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let commits = [
        b.commit(&[], vec![bagged(1, &[1], Hlc::NEVER)]),
        c.commit(&[], vec![bagged(1, &[2], Hlc::NEVER)]),
        b.commit(&[], vec![bagged(1, &[3], Hlc::NEVER)]),
    ];
    for rules in [Rules::ALL, without!(unmerged_lies_beside)] {
        let mut registry = Registry::new();
        registry.add::<Tag>().unwrap();
        let mut world = World::with_models(networked(rules), registry).with_peers();
        commits.iter().for_each(|made| world.feed(B, live(&[made])));
        assert_eq!(world.audit().is_empty(), rules.unmerged_lies_beside);
        let (_, page) = world.page(C, &[], 1 << 20);
        assert_eq!(page.iter().filter(|commit| commit.stream != REPLICA).count(), 3, "relayed whole");
        world.reopen(networked(rules));
        world.settle();
        assert_eq!(world.is_folded, rules.unmerged_lies_beside);
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

/// A box in a box in a box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Boxes {
    id: u32,
    inner: Option<Box<Inner>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inner(Option<Box<Inner>>);

impl Syncable for Boxes {
    const SYNC_MODEL: &'static str = "boxes";
    type Id = u32;
    type Ownership = Shared;
    const OWN_MERGE: bool = true;

    fn sync_id(&self) -> u32 {
        self.id
    }

    fn merge(self, _other: Self) -> Self {
        self
    }
}

/// C16, I13: a value that is nested too deep overflows nobody's stack. It lies beside its record, and everything else of its
/// stream goes on.
#[test]
fn a_value_nested_thirty_thousand_deep_stops_nothing() {
    let mut registry = models();
    registry.add::<Boxes>().unwrap();
    let mut world = World::with_models(networked(Rules::ALL), registry).with_peers();
    let mut b = Author::new(B, B_DEVICE);
    let record = RecordKey::new::<Boxes>(&1);
    let deep = |levels: usize| [vec![1], vec![1; levels], vec![0]].concat();
    for levels in [1, 30_000, 2] {
        let made = b.commit(&[], vec![(record.clone(), Some(deep(levels)), Some(Hlc::NEVER))]);
        world.feed(B, live(&[&made]));
    }
    world.feed(B, live(&[&b.tag(1, "and on")]));
    assert_eq!((world.seq_of(B), world.stop_of(B)), (4, None));
    let besides = world.store.entries(keys::besides_of(&record));
    assert_eq!((besides.len(), world.audit()), (1, vec![]));
    // The same at every opening.
    let mut registry = models();
    registry.add::<Boxes>().unwrap();
    world.engine = open_engine_with(&world.store, networked(Rules::ALL), registry, now(2000)).unwrap();
    world.settle();
    assert!(world.is_folded && world.audit().is_empty());
}

/// An app that knows no bags, with the members B and C.
fn without_bags() -> World {
    let mut registry = Registry::new();
    registry.add::<Tag>().unwrap();
    World::with_models(networked(Rules::ALL), registry).with_peers()
}

/// A delete opens an epoch, and what lay beside the record goes with the epoch before: merged later, it would come back.
/// A value of the new epoch stays.
#[test]
fn what_lies_beside_a_record_goes_with_its_epoch_and_no_later_one() {
    for together in [true, false] {
        let mut b = Author::new(B, B_DEVICE);
        let mut c = Author::new(C, C_DEVICE);
        c.wall = 1_500;
        let (one, two) = (
            b.commit(&[], vec![bagged(1, &[1], Hlc::NEVER)]),
            b.commit(&[], vec![bagged(1, &[2], Hlc::NEVER)]),
        );
        let gone = c.commit(&[b.head()], vec![(RecordKey::new::<Bag>(&1), None, Some(Hlc::NEVER))]);
        let (three, four) = (
            c.commit(&[], vec![bagged(1, &[3], gone.stamp)]),
            c.commit(&[], vec![bagged(1, &[4], gone.stamp)]),
        );
        let mut world = without_bags();
        let all = [&one, &two, &gone, &three, &four];
        if together {
            world.feed(B, live(&all));
        } else {
            all.iter().for_each(|made| world.feed(B, live(&[made])));
        }
        let beside = world.store.entries(keys::besides());
        let beside: Vec<_> = beside.iter().map(|entry| StoredKey::parse(&entry.key).unwrap()).collect();
        assert_eq!(beside, [StoredKey::Beside(RecordKey::new::<Bag>(&1), C, 3)], "together: {together}");
        assert_eq!(world.audit(), []);
        world.reopen(networked(Rules::ALL));
        world.settle();
        assert_eq!((world.bag(1), world.audit()), (Some(vec![3, 4]), vec![]));
    }
}

/// A value that was kept, and is merged into its record later without a change, stands in the record alone.
#[test]
fn a_value_that_its_record_holds_once_it_is_folded_is_kept_no_longer() {
    let mut b = Author::new(B, B_DEVICE);
    let made = [&[1][..], &[1, 2]].map(|items| b.commit(&[], vec![bagged(1, items, Hlc::NEVER)]));
    let mut world = without_bags();
    world.feed(B, live(&[&made[0], &made[1]]));
    let kept = |world: &World| world.get(keys::kept(B, 2, &RecordKey::new::<Bag>(&1))).is_some();
    assert!(kept(&world), "its record holds another one");
    world.reopen(networked(Rules::ALL));
    world.settle();
    assert_eq!((world.bag(1), kept(&world), world.audit()), (Some(vec![1, 2]), false, vec![]));
}
