//! Goal: a joined write is a write of its own, and counts only if its transaction does. Method: the transaction is
//! committed, or undone, by hand.

use super::*;

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
    let (before, stamped) = (world.head(), world.drawn());
    world.submit_joined(vec![tag(1, "a")]);
    world.up_to_write().unwrap();
    world.rejected();
    world.settle();
    assert!(matches!(world.replies[..], [(1, Err(Error::Rejected(_)))]));
    assert_eq!(world.drawn(), stamped, "no stamp was shown");
    assert_eq!(world.head(), before);
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
    let shown = world.engine.report().clock;
    world.submit(vec![tag(1, "a")]);
    world.up_to_write().unwrap();
    world.rejected();
    world.submit_joined(Vec::new());
    world.settle();
    assert!(world.drawn() > shown, "a stamp was drawn");
    assert_eq!(world.engine.report().clock, shown, "and never stored");
}

/// A replica that may not commit keeps the app's own statements, and no change of a record; also those that waited when
/// it learnt that its store was restored.
#[test]
fn a_joined_write_without_changes_needs_no_right_to_commit() {
    let joiner = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    let mut restored = World::connected(Rules::ALL);
    let waited = [restored.submit_joined(Vec::new()), restored.submit_joined(vec![tag(1, "a")])];
    restored.feed(B, wire::regressed(GROUP, &WireHead { stream: C, seq: 3, digest: [7; 32] }));
    restored.settle();
    assert_answers(&restored, waited, |error| matches!(error, Error::Restored(_)));
    for (mut world, refused) in [
        (joiner, (|error| matches!(error, Error::Joining { replica: REPLICA, .. })) as fn(&Error) -> bool),
        (restored, |error| matches!(error, Error::Restored(_))),
    ] {
        let before = world.head();
        let calls = [world.submit_joined(Vec::new()), world.submit_joined(vec![tag(1, "a")])];
        world.settle();
        assert_answers(&world, calls, refused);
        assert_eq!((world.head(), world.changes().len()), (before, 0));
        assert_eq!(world.audit(), []);
    }
}

/// The first call was done, the second one refused.
fn assert_answers(world: &World, [own, changes]: [u64; 2], refused: impl Fn(&Error) -> bool) {
    let answer =
        |call: u64| world.replies.iter().find(|(ticket, _)| *ticket == call).map(|(_, answer)| answer);
    assert!(matches!(answer(own), Some(Ok(()))), "{:?}", answer(own));
    assert!(matches!(answer(changes), Some(Err(error)) if refused(error)), "{:?}", answer(changes));
}
