//! Goal: missing commits are asked for from one peer at a time, which rests for a while if it was of no use. Method:
//! peers that do not answer, or answer with nothing.

use super::*;

/// A pull goes to another peer when one does not answer, one page at a time, and the silent peer is not asked again at
/// once.
#[test]
fn y14_whoever_does_not_answer_is_left_alone_for_a_while() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made = b.tag(1, "a");
    world.said();
    world.feed(B, hello(1, &[b.head()]));
    world.feed(C, hello(1, &[b.head()]));
    let first = world.pulls();
    let [(asked, _)] = &first[..] else { panic!("one page is on its way, not {first:?}") };
    world.pass(9_000);
    assert!(world.pulls().is_empty());
    world.pass(1_000);
    let second = world.pulls();
    let [(other, pull)] = &second[..] else { panic!("another peer is asked: {second:?}") };
    assert_ne!(asked, other);
    world.feed(*other, page_of(answer(pull, false), &[&made]));
    assert_eq!(world.seq_of(B), 1);
    world.pass(60_000);
    assert!(world.pulls().is_empty(), "nothing is missing, so it is silent");
}

/// A peer that sent a page without new commits is not asked again at once, however much it says it has.
#[test]
fn y14_an_empty_promise_is_not_believed_twice_at_once() {
    let mut world = World::connected(Rules::ALL);
    world.said();
    world.feed(B, hello(1, &[WireHead { stream: C, seq: u64::MAX - 1, digest: [1; 32] }]));
    let mut asked = 0;
    for _ in 0..100 {
        for (peer, pull) in world.pulls() {
            asked += 1;
            world.feed(peer, page_of(answer(&pull, true), &[]));
        }
        world.pass(1_000);
    }
    assert!((3..20).contains(&asked), "{asked} in 100 s");
}

/// Without exclusions every page would be filled by the same commits that cannot be taken.
#[test]
fn a_stopped_stream_keeps_nobody_from_a_page() {
    for (rules, stuck) in [(Rules::ALL, false), (without!(pulls_exclude), true)] {
        let mut world = World::connected(rules);
        let mut b = Author::new(B, B_DEVICE);
        let first = b.tag(1, "a");
        let mut other = b.clone();
        let (second, fork) = (b.tag(1, "b"), other.tag(1, "x"));
        let third = other.tag(1, "y");
        world.feed(B, live(&[&first, &second, &third]));
        world.convince(B, &[&first, &fork, &third]);
        assert!(matches!(world.stop_of(B), Some(StreamStop::Forked { .. })));
        world.said();
        let mut c = Author::new(C, C_DEVICE);
        let made = c.tag(5, "c");
        world.feed(C, hello(1, &[other.head(), c.head()]));
        let pulls = world.pulls();
        let (_, pull) = pulls.first().expect("C has more");
        assert_eq!(pull.excluded.0.contains(&B), !stuck, "{} {}", fork.seq, made.seq);
    }
}

#[test]
fn y14_a_peer_that_goes_down_is_waited_for_no_longer() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    b.tag(1, "a");
    world.said();
    world.feed(B, hello(1, &[b.head()]));
    world.feed(C, hello(1, &[b.head()]));
    let [(asked, _)] = world.pulls()[..] else { panic!("one page is on its way") };
    world.handle(Input::Down(asked));
    world.settle();
    let [(other, _)] = world.pulls()[..] else { panic!("another peer is asked at once") };
    assert_ne!(asked, other);
}

/// A page that promises more and brought nothing new is not believed: what is missing is known from the heads.
#[test]
fn y14_a_page_that_brought_nothing_promises_nothing() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made = b.tag(1, "a");
    world.said();
    world.feed(B, hello(1, &[b.head()]));
    let [(_, pull)] = &world.pulls()[..] else { panic!("B is asked") };
    world.feed(B, live(&[&made]));
    world.feed(B, page_of(answer(pull, true), &[&made]));
    for _ in 0..20 {
        assert!(world.pulls().is_empty(), "nothing is missing");
        world.pass(100);
    }
}
