//! Goal: a stream from the future waits alone, and no peer stops the stream of another for good. Method: stamps far
//! ahead, and commits made up in the name of another.

use super::*;

/// Y11, H5, H6: a stamp beyond the bound holds its stream alone, and the clock does not follow it.
#[test]
fn y11_only_the_stream_from_the_future_waits() {
    for (rules, held) in [(Rules::ALL, true), (without!(drift_is_held), false)] {
        for ahead in [-1, 0, 1] {
            let mut world = World::connected(rules);
            let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
            b.wall = 1000 + 300_000 - 1;
            b.wall = b.wall.saturating_add_signed(ahead);
            let clock = world.clock();
            let early = b.tag(1, "b");
            world.feed(B, live(&[&early]));
            if ahead <= 0 || !held {
                assert_eq!(world.seq_of(B), 1, "{ahead}");
                continue;
            }
            assert_eq!((world.seq_of(B), world.clock()), (0, clock.clone()));
            assert_eq!(world.stop_of(B), Some(StreamStop::Held { seq: 1, stamp: early.stamp }));
            world.feed(C, live(&[&c.tag(2, "c")]));
            assert_eq!(world.seq_of(C), 1, "other streams go on");
            // A commit that rests on the held stream waits with it, and neither is asked for.
            world.said();
            world.feed(C, live(&[&c.commit(&[b.head()], vec![tagged(3, "c")])]));
            assert_eq!(world.seq_of(C), 1);
            let pulls = world.pulls();
            assert!(pulls.iter().all(|(_, pull)| pull.excluded.0.contains(&B)), "{pulls:?}");
            // The wall clock catches up with the stamp.
            world.said();
            world.pass(30_000);
            assert_eq!(world.stop_of(B), None);
            assert!(world.events().contains(&Event::Resumed { stream: B }));
            assert!(world.pulls().iter().any(|(_, pull)| !pull.excluded.0.contains(&B)));
            world.feed(B, live(&[&early]));
            assert_eq!(world.seq_of(B), 1);
        }
    }
}

/// A stamp from the future holds a stream until then only if the author sent it.
#[test]
fn y11_nobody_holds_the_stream_of_another() {
    let far = |author: &Author| {
        let mut ahead = author.clone();
        ahead.wall = 1 << 40;
        ahead.tag(1, "far")
    };
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let (made_up, real) = (far(&b), b.tag(1, "a"));
    world.feed(C, live(&[&made_up]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Held { seq: 1, .. })));
    let retry = world.engine.next_timeout().expect("it is looked at again");
    assert!(retry.since(world.now.mono) <= 10_000, "before the next hello");
    world.feed(B, live(&[&real]));
    assert_eq!((world.seq_of(B), world.stop_of(B)), (1, None));

    // The author sends the same as the relay: that is no news, but now the stop is the author's word.
    let mut world = World::connected(Rules::ALL);
    world.feed(C, live(&[&made_up]));
    world.events();
    world.feed(B, live(&[&made_up]));
    assert_eq!(world.events(), []);
    world.feed(B, live(&[&real]));
    assert_eq!(world.seq_of(B), 0);
}

#[test]
fn a_held_stream_can_be_released() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    b.wall = 3_600_000;
    let (early, again) = (b.tag(1, "b"), b.tag(1, "c"));
    world.feed(B, live(&[&early]));
    assert!(!world.engine.release_held(C) && world.engine.release_held(B));
    world.settle();
    world.feed(B, live(&[&early, &again]));
    assert_eq!(world.tag_name(1).as_deref(), Some("c"), "and so are those behind it");
    world.commit(vec![tag(1, "mine")]).unwrap();
    assert_eq!(world.tag_name(1).as_deref(), Some("mine"), "the clock follows, so a later commit wins");
    assert_eq!(world.audit(), []);
}

/// A commit that a peer makes up in the name of another stops that stream only until its author sends the real one.
#[test]
fn c15_nobody_stops_the_stream_of_another_for_good() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let real = b.tag(1, "a");
    let made_up =
        Made { row: [&chain_start(GROUP, B)[..], b"no entry"].concat(), values: vec![], ..real.clone() };
    world.feed(C, live(&[&made_up]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Refused { seq: 1, .. })));
    world.feed(C, live(&[&real]));
    assert_eq!(world.seq_of(B), 0, "who made it up is not asked again");
    // The author is asked for the commit, and taken at its word.
    world.said();
    world.feed(B, hello(1, &[b.head()]));
    let pulls = world.pulls();
    assert!(pulls.iter().any(|(to, pull)| *to == B && !pull.excluded.0.contains(&B)), "{pulls:?}");
    world.feed(B, live(&[&real]));
    assert_eq!((world.seq_of(B), world.stop_of(B)), (1, None));
    assert!(world.events().contains(&Event::Resumed { stream: B }));

    let mut world = World::connected(Rules::ALL);
    world.feed(B, live(&[&made_up]));
    world.feed(B, live(&[&real]));
    assert_eq!(world.seq_of(B), 0, "what its author wrote stays");
}

/// A held stream is looked at again when its stamp is within the bound, also while the app commits all the time. The
/// driver ticks when the moment that the engine named before an input has passed.
#[test]
fn y11_a_held_stream_goes_on_in_time_while_the_app_commits() {
    for gap_ms in [50, 100, 200, 300] {
        let mut world = World::connected(Rules::ALL);
        let mut b = Author::new(B, B_DEVICE);
        b.wall = 1000 + 300_000 + 50;
        world.feed(B, live(&[&b.tag(1, "b")]));
        assert!(matches!(world.stop_of(B), Some(StreamStop::Held { .. })));
        let began = world.now.mono;
        let mut commits = 0;
        while world.stop_of(B).is_some() {
            assert!(
                world.now.mono.since(began) <= 250 + gap_ms,
                "still held, with a commit every {gap_ms} ms"
            );
            let due = world.engine.next_timeout();
            world.now = now(world.now.mono.0 + gap_ms);
            if due.is_some_and(|at| at <= world.now.mono) {
                world.handle(Input::Tick);
            }
            commits += 1;
            world.commit(vec![tag(7, &commits.to_string())]).unwrap();
        }
    }
}

/// A stop behind commits that are not here any more ends: it would keep them from being asked for again.
#[test]
fn a_stop_goes_with_the_commits_before_it_if_the_store_does_not_take_them() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let (one, two) = (b.tag(1, "a"), b.tag(2, "b"));
    let mut far = b.clone();
    far.wall = 1 << 40;
    let far = far.tag(3, "far");
    world.handle(Input::Frame(B, live(&[&one])));
    world.up_to_write().expect("the first is written at once");
    // The second commit waits, and the third stops the stream behind it.
    world.handle(Input::Frame(B, live(&[&two, &far])));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Held { seq: 3, .. })));
    world.events();
    world.rejected();
    world.settle();
    assert_eq!(world.stop_of(B), Some(StreamStop::NotStored { seq: 1, error: "no".into() }));
    assert!(
        world.events().contains(&Event::Resumed { stream: B }),
        "the app hears that the first stop has ended"
    );
    world.said();
    world.pass(1_000);
    let pulls = world.pulls();
    assert!(pulls.iter().any(|(_, pull)| !pull.excluded.0.contains(&B)), "they are asked for: {pulls:?}");
    world.feed(B, live(&[&one, &two, &far]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Held { seq: 3, .. })));
    assert_eq!((world.seq_of(B), world.audit()), (2, vec![]));
}

/// A release holds until the stamps of the stream are within the bound again, and no longer.
#[test]
fn a_released_stream_is_held_again_once_it_was_within_the_bound() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    b.wall = 3_600_000;
    let early = b.tag(1, "early");
    world.feed(B, live(&[&early]));
    assert!(world.engine.release_held(B));
    world.feed(B, live(&[&early]));
    world.pass(3_600_000);
    world.feed(B, live(&[&b.tag(1, "within")]));
    assert_eq!(world.seq_of(B), 2);
    b.wall = 36_000_000;
    world.feed(B, live(&[&b.tag(1, "far")]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Held { seq: 3, .. })));
}

/// The commits of a stream that goes on may be at a peer that rests.
#[test]
fn a_stream_that_goes_on_wakes_the_peers_that_rest() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    b.wall = 3_600_000;
    world.feed(B, live(&[&b.tag(1, "b")]));
    world.said();
    world.feed(C, hello(1, &[WireHead { stream: C, seq: 9, digest: [1; 32] }]));
    let [(C, pull)] = &world.pulls()[..] else { panic!("C is asked") };
    world.feed(C, page_of(answer(pull, true), &[]));
    assert!(world.backs_off(C));
    assert!(world.engine.release_held(B));
    assert!(!world.backs_off(C));
}
