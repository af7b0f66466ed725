//! Goal: a commit that fails fails alone, leaves nothing behind, and its caller learns the truth. Method: bad values, a
//! store that refuses or cannot be read, and an engine that is stopped.

use super::*;

#[test]
fn a_failing_commit_leaves_the_others_of_its_round_untouched() {
    let mut world = World::new(Rules::default());
    let fail = |id| Staged {
        record: RecordKey::new::<Tag>(&id),
        action: Action::Update(Box::new(|_| Err(Error::Aborted("no".into())))),
        own_merge: false,
    };
    world.submit(vec![tag(1, "a")]);
    // The first change of this commit would be fine, its second is not.
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
fn a_failure_that_an_earlier_commit_of_its_round_caused_waits_for_the_write() {
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
            world.rejected();
        } else {
            world.written(batch);
        }
        world.settle();
        let [(1, first), (2, second)] = &world.replies[..] else { panic!("{:?}", world.replies) };
        assert_eq!(first.is_ok(), !rejected);
        assert_eq!(matches!(second, Err(Error::Aborted(_))), !rejected);
        assert_eq!(matches!(second, Err(Error::Rejected(_))), rejected);
    }
    // If the engine stops in between, the failing commit is certainly not made.
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(1, "a")]);
    world.submit(vec![insert_only()]);
    world.up_to_write().unwrap();
    let open = world.engine.stop(&StopReason::DriverDropped);
    assert!(matches!(open[..], [(_, Error::Unknown(_)), (_, Error::Stopped(_))]), "{open:?}");
}

#[test]
fn a_rejected_write_leaves_no_hole() {
    let mut world = World::new(Rules::default());
    world.commit(vec![tag(1, "a")]).unwrap();
    let (before, head) = (world.engine.report(), world.head());
    world.submit(vec![tag(2, "b")]);
    world.submit(vec![tag(3, "c")]);
    world.up_to_write().unwrap();
    world.rejected();
    world.settle();
    assert!(matches!(world.replies[..], [(2, Err(Error::Rejected(_))), (3, Err(Error::Rejected(_)))]));
    assert_eq!(world.head(), head);
    assert_eq!(world.engine.report().clock, before.clock, "what is not stored is not shown");
    assert!(world.drawn() > before.clock, "a stamp is never drawn twice");
    world.commit(vec![tag(2, "b")]).unwrap();
    assert_eq!(world.changes(), [(2, ChangeKind::Insert), (3, ChangeKind::Insert)]);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_read_that_fails_fails_its_round_alone() {
    let mut world = World::new(Rules::default());
    for answer in [Err(ReadError::new("broken")), Ok(vec![]), Ok(vec![None, None])] {
        world.submit(vec![tag(1, "a")]);
        let Some(Effect::Read(job, keys)) = world.engine.next_effect() else {
            panic!("a round is read first")
        };
        assert_eq!(keys.len(), 1);
        world.handle(Input::Read(job, keys, answer));
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
    assert!(matches!(world.engine.next_effect(), Some(Effect::Read(..))));
    assert!(matches!(world.engine.stop(&StopReason::DriverDropped)[..], [(Ticket(1), Error::Stopped(_))]));
}

/// A model whose way of merging differs from that of the stored record would lose the epoch, or make one up.
#[test]
fn a_record_of_another_way_of_merging_is_not_overwritten() {
    let bag = |item| put(&Bag { id: 1, items: BTreeSet::from([item]) });
    let mut world = World::new(Rules::default());
    world.commit(vec![tag(1, "a")]).unwrap();
    world.commit(vec![Staged { own_merge: true, ..bag(1) }]).unwrap();
    for (name, over) in [("merges", Staged { own_merge: true, ..tag(1, "b") }), ("does not", bag(2))] {
        let result = world.commit(vec![over]);
        assert!(matches!(result, Err(Error::OtherMerge { .. })), "{name}: {result:?}");
    }
    assert_eq!(
        (world.tag_name(1).as_deref(), world.bag(1), world.audit()),
        (Some("a"), Some(vec![1]), vec![])
    );
}
