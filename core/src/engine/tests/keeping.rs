//! Goal: the log keeps every value that a peer may still need, and no other. Method: the rows of the store are counted
//! after each write.

use super::*;

#[test]
fn every_value_that_the_log_needs_is_kept() {
    let mut world = World::unpruned();
    world.commit(vec![tag(1, "a")]).unwrap(); // commit 2
    world.submit(vec![tag(1, "b")]); // commits 3 and 4 in one round
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

/// If owned values were not kept, replicas with the same commits could differ: one has received a value in time, and
/// another was to receive it with a later commit, whose author then never came back.
#[test]
fn owned_values_are_kept_as_shared_ones_are() {
    let mut world = World::unpruned();
    for name in ["a", "b"] {
        world.commit(vec![put(&Spot { id: 1, device_id: DEVICE, name: name.into() })]).unwrap();
    }
    assert_eq!(world.store.entries(keys::all_kept()).len(), 1);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_group_of_one_member_prunes_its_log() {
    let mut world = World::new(Rules::default());
    for name in ["a", "b", "c"] {
        world.submit(vec![tag(1, name)]);
        world.submit(vec![tag(1, "between")]);
        world.settle();
        let log = world.store.entries(keys::logs(REPLICA));
        let kept = world.store.entries(keys::all_kept());
        assert_eq!((log.len(), kept.len()), (2, 1), "no more than the last write's");
        assert_eq!(world.audit(), []);
    }
    // The rows of a log that was longer before are pruned as well, kept values included, also after a restart.
    let mut world = World::unpruned();
    (0..20).for_each(|n| world.commit(vec![tag(n % 3, &n.to_string())]).unwrap());
    world.reopen(ask(Rules::default()));
    world.commit(vec![tag(9, "x")]).unwrap();
    assert_eq!(world.store.entries(keys::logs(REPLICA)).len(), 1);
    assert_eq!(world.store.entries(keys::all_kept()), []);
    assert_eq!(world.audit(), []);
}

/// A replica that was opened with a transport prunes with no commit: whoever joins it meanwhile gets the log. What nobody
/// needs goes a while later.
#[test]
fn a_replica_with_a_transport_keeps_its_log_for_a_while() {
    let mut world = World::asking(networked(Rules::ALL));
    world.handle(Input::Offline);
    for id in 0..3 {
        world.commit(vec![tag(id, "a")]).unwrap();
    }
    assert_eq!(world.head().floor, 0);
    world.pass(60_000);
    assert_eq!((world.head().floor, world.head().seq), (4, 4));
    assert_eq!(world.audit(), []);
}
