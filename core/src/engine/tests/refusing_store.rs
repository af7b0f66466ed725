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
    let frame = page(&[&first, &bad, &last]);
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

/// Y14: a commit that the store refuses for an hour is asked for again ever more rarely, and alone. What else is missing
/// comes in pages that leave its stream out.
#[test]
fn y14_a_commit_that_the_store_refuses_is_asked_for_alone() {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let bad = b.tag(1, "bad");
    let behind: Vec<_> = (2..=9).map(|id| b.tag(id, "behind")).collect();
    world.said();
    world.feed(B, hello(1, &[b.head()]));
    let (mut pulls, mut trials, mut rounds) = (world.pulls(), 0, 0);
    let began = world.now.mono;
    while world.now.mono.since(began) < 3_600_000 {
        for (peer, pull) in std::mem::take(&mut pulls) {
            if world.stop_of(B).is_none() && !pull.excluded.0.contains(&B) {
                trials += 1;
                let alone = pull.budget == 0 && pull.excluded.0.contains(&C);
                assert!(alone || trials <= 2, "the pull for trial {trials} asks for more than one: {pull:?}");
                // A page without a budget has one commit.
                let page =
                    if pull.budget == 0 { vec![&bad] } else { [&bad].into_iter().chain(&behind).collect() };
                world.handle(Input::Frame(peer, page_of(answer(&pull, true), &page)));
                while world.up_to_write().is_some() {
                    world.rejected();
                }
                assert!(
                    trials == 1 || matches!(world.stop_of(B), Some(StreamStop::NotStored { seq: 1, .. }))
                );
            } else {
                let made = c.tag(5, &rounds.to_string());
                world.feed(peer, page_of(answer(&pull, false), &[&made]));
            }
            pulls.extend(world.pulls());
        }
        rounds += 1;
        if rounds % 60 == 0 {
            // Others go on: what they commit is pulled in pages, with all that the stream has left out.
            let mut next = c.clone();
            next.tag(5, &rounds.to_string());
            world.feed(C, hello(1, &[next.head()]));
            pulls.extend(world.pulls());
            let normal = |pull: &Pull| pull.budget > 0 && pull.excluded.0.contains(&B);
            assert!(pulls.iter().all(|(_, pull)| pull.budget == 0 || normal(pull)), "{pulls:?}");
        }
        world.pass(1_000);
        pulls.extend(world.pulls());
    }
    assert!((60..90).contains(&trials), "{trials} in an hour");
    assert_eq!(world.seq_of(C), c.head().seq, "the others are not kept waiting");
    // The disk has room again: the one commit is taken, and all behind it comes in a page.
    let mut asked_for_all = false;
    while world.seq_of(B) < 9 {
        for (peer, pull) in std::mem::take(&mut pulls) {
            let all: Vec<_> = [&bad].into_iter().chain(&behind).collect();
            let has = usize::try_from(world.seq_of(B)).unwrap();
            asked_for_all |= pull.budget > 0;
            let most = if pull.budget == 0 { 1 } else { 9 };
            let page: Vec<_> = all.into_iter().skip(has).take(most).collect();
            world.feed(peer, page_of(answer(&pull, true), &page));
            pulls.extend(world.pulls());
        }
        assert!(world.now.mono.since(began) < 3_800_000, "it goes through soon");
        world.pass(1_000);
        pulls.extend(world.pulls());
    }
    assert!(asked_for_all);
    assert_eq!((world.stop_of(B), world.audit()), (None, vec![]));
}

/// A commit that is tried again is written alone: if the store refuses it once more, what came beside it is not let go.
#[test]
fn c16_a_commit_that_is_tried_again_takes_none_of_others_with_it() {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let bad = b.tag(1, "bad");
    world.handle(Input::Frame(B, live(&[&bad])));
    assert!(world.up_to_write().is_some());
    world.rejected();
    world.pass(1_000);
    assert_eq!((world.stop_of(B), world.peer(B).missing), (None, 1), "it is tried again, and not here");
    world.events();
    world.handle(Input::Frame(C, live(&[&c.tag(2, "c"), &c.tag(3, "c")])));
    let first = world.up_to_write().expect("what comes is written at once");
    world.handle(Input::Frame(C, live(&[&c.tag(4, "c")])));
    world.handle(Input::Frame(B, live(&[&bad])));
    world.handle(Input::Frame(C, live(&[&c.tag(5, "c")])));
    world.written(first);
    let before = world.up_to_write().expect("what came before it");
    assert_eq!(logged_in(&before), [C]);
    world.written(before);
    let alone = world.up_to_write().expect("the commit that is tried again");
    assert_eq!(logged_in(&alone), [B]);
    world.rejected();
    world.settle();
    assert!(matches!(world.stop_of(B), Some(StreamStop::NotStored { seq: 1, .. })));
    assert_eq!(world.seq_of(C), 3, "what came behind it comes again");
    assert!(!world.events().iter().any(|event| matches!(event, Event::ReceiveFailed { .. })));
    world.pass(60_000);
    world.feed(B, live(&[&bad]));
    assert_eq!((world.seq_of(B), world.audit()), (1, vec![]));
}

/// Y14: until a commit that is tried again is durable, nothing behind it is asked for, and no page is asked for that
/// would bring it along. A peer that does not send it rests like any other.
#[test]
fn y14_nothing_behind_a_commit_that_is_tried_again_is_asked_for() {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let bad = b.tag(1, "bad");
    let of_c = c.tag(9, "c");
    b.tag(2, "behind");
    world.said();
    world.feed(B, hello(1, &[b.head()]));
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked") };
    world.handle(Input::Frame(B, page_of(answer(pull, true), &[&bad])));
    assert!(world.up_to_write().is_some());
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked for more during the write") };
    world.rejected();
    world.feed(B, page_of(answer(pull, false), &[]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::NotStored { seq: 1, .. })));
    assert!(world.pulls().is_empty());

    world.pass(1_000);
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked for the commit") };
    assert_eq!(pull.budget, 0);
    world.feed(B, page_of(answer(pull, false), &[]));
    assert!(world.backs_off(B) && world.pulls().is_empty(), "it sent nothing, so it rests");
    world.feed(C, hello(1, &[c.head()]));
    let [(C, pull)] = &world.pulls()[..] else { panic!("C is asked for a page") };
    assert!(pull.budget > 0 && pull.excluded.0.contains(&B), "{pull:?}");
    world.feed(C, page_of(answer(pull, false), &[&of_c]));
    assert_eq!(world.seq_of(C), 1);

    world.pass(1_000);
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked for the commit again") };
    world.handle(Input::Frame(B, page_of(answer(pull, true), &[&bad])));
    let batch = world.up_to_write().expect("it is written");
    assert!(world.pulls().is_empty(), "nobody knows yet whether the store takes it");
    world.written(batch);
    world.settle();
    let [(B, pull)] = &world.pulls()[..] else { panic!("now the rest is asked for") };
    assert!(pull.budget > 0 && !pull.excluded.0.contains(&B), "{pull:?}");
}

/// A commit that the store refused is asked for alone, and nothing else comes with it, the own stream included. The word
/// of the peer that it has more is not forgotten for that: no head says so.
#[test]
fn a_pull_for_one_commit_brings_nothing_else_and_forgets_nothing() {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let bad = c.tag(2, "bad");
    world.feed(B, hello(1, &[]));
    world.said();
    world.handle(Input::Frame(B, live(&[&bad])));
    assert!(world.up_to_write().is_some());
    world.rejected();
    world.settle();
    assert!(matches!(world.stop_of(C), Some(StreamStop::NotStored { seq: 1, .. })));
    // A page of something else is on its way when the pause of the commit ends.
    world.pulls();
    let next = b.tag(1, "b");
    world.feed(B, hello(1, &[b.head(), c.head()]));
    let pulls = world.pulls();
    let [(B, page)] = &pulls[..] else { panic!("a page is asked for: {pulls:?}") };
    world.pass(500);
    world.feed(B, page_of(answer(page, true), &[&next]));
    let pulls = world.pulls();
    let [(B, one)] = &pulls[..] else { panic!("the commit is asked for: {pulls:?}") };
    assert_eq!(one.budget, 0);
    assert!([REPLICA, B].iter().all(|stream| one.excluded.0.contains(stream)), "{:?}", one.excluded);
    assert!(!one.excluded.0.contains(&C));
    world.feed(B, page_of(answer(one, false), &[&bad]));
    assert_eq!((world.seq_of(C), world.audit()), (1, vec![]));
    let pulls = world.pulls();
    assert!(matches!(&pulls[..], [(B, pull)] if pull.budget > 0), "it said that there is more: {pulls:?}");
}
