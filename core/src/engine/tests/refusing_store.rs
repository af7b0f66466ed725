//! Goal: if the store refuses a write of received commits, no commit is lost and no peer is blamed. Method: writes are
//! rejected by hand while frames go on coming.

use super::*;

/// Received commits whose write was rejected are not lost: they and all behind them are let go, and asked for again.
#[test]
fn a_rejected_write_of_what_was_received_is_tried_again() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let (first, second) = (b.tag(1, "a"), b.tag(1, "b"));
    world.said();
    let before = world.content();
    world.handle(Input::Frame(B, live(&[&first, &second])));
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

/// Frames may come while the store writes: their commits rest on those in the write.
#[test]
fn what_comes_during_a_write_goes_with_it_if_it_fails() {
    for fails in [false, true] {
        let mut world = World::connected(Rules::ALL);
        let mut b = Author::new(B, B_DEVICE);
        let (one, two, three) = (b.tag(1, "a"), b.tag(2, "b"), b.tag(3, "c"));
        world.handle(Input::Frame(B, live(&[&one])));
        let batch = world.up_to_write().expect("the first is written at once");
        for made in [&one, &two, &three] {
            world.handle(Input::Frame(B, live(&[made])));
        }
        assert_eq!(world.engine.report().received, 2);
        let writes = world.writes.len();
        if fails {
            world.rejected();
            assert_eq!(world.engine.report().received, 0);
            world.pass(60_000);
            world.feed(B, live(&[&one, &two, &three]));
        } else {
            world.written(batch);
            world.settle();
            assert_eq!(world.writes.len() - writes, 2, "both that came meanwhile share a write");
        }
        assert_eq!(world.seq_of(B), 3);
        assert_eq!(world.audit(), []);
    }
}

/// C16: a commit that the store does not take does not keep out those that came in front of it.
#[test]
fn c16_a_commit_that_the_store_refuses_takes_none_with_it() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let (first, bad) = (b.tag(1, "a"), Author::new(C, C_DEVICE).tag(2, "bad"));
    let last = b.tag(1, "b");
    let frame = live(&[&first, &bad, &last]);
    // The commits are written together, then one by one up to the bad one, then the others.
    for expected in [0, 1, 2, 2] {
        world.handle(Input::Frame(B, frame.clone()));
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
    // The bad commit is tried again after pauses, in case the store takes it then.
    world.pass(60_000);
    assert_eq!(world.stop_of(C), None);
    world.feed(B, frame);
    assert_eq!((world.seq_of(C), world.audit()), (1, vec![]));
}

/// Y14: a page that arrives after a failed write rests on commits that were let go. Its sender is not blamed for that.
#[test]
fn y14_nobody_is_blamed_for_a_write_that_failed_here() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made: Vec<_> = (1..=4).map(|id| b.tag(id, "a")).collect();
    world.said();
    world.feed(B, live(&[&made[3]]));
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked") };
    world.handle(Input::Frame(B, page_of(answer(pull, true), &[&made[0], &made[1]])));
    assert!(world.up_to_write().is_some());
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked for more during the write") };
    world.rejected();
    world.feed(B, page_of(answer(pull, true), &[&made[2]]));
    assert_eq!(world.useless_peer(), None);
    assert!(!world.backs_off(B));
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
    world.handle(Input::Frame(B, page_of(answer(pull, true), &[&bad])));
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

/// The pause after a failure is as short as the first one, once the store has taken a write.
#[test]
fn a_store_that_works_again_is_not_waited_for_longer_each_time() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    for round in 0..6 {
        let (one, two) = (b.tag(1, "a"), b.tag(2, "b"));
        world.handle(Input::Frame(B, live(&[&one, &two])));
        assert!(world.up_to_write().is_some());
        world.rejected();
        world.settle();
        assert_eq!(world.stop_of(B), None, "both commits failed together");
        world.said();
        world.pass(1_000);
        let pulls = world.pulls();
        let [(B, pull)] = &pulls[..] else { panic!("round {round}: {pulls:?}") };
        world.feed(B, page_of(answer(pull, false), &[&one, &two]));
        assert_eq!(world.seq_of(B), 2 * round + 2);
    }
}
