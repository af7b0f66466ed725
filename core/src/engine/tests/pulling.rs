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
    world.pass(7_000);
    assert!(world.pulls().is_empty(), "nothing is known of the link: a round trip may take 5 s");
    world.pass(1_000);
    let second = world.pulls();
    let [(other, pull)] = &second[..] else { panic!("another peer is asked: {second:?}") };
    assert_ne!(asked, other);
    world.feed(*other, page_of(answer(pull, false), &[&made]));
    assert_eq!((world.seq_of(B), world.backs_off(*asked)), (1, false));
    world.pass(22_000);
    assert!(world.backs_off(*asked), "it has not answered for half a minute");
    world.pass(60_000);
    assert!(world.pulls().is_empty(), "nothing is missing, so it is silent");
}

/// Otherwise every page would come twice for ever, once a peer was late once.
#[test]
fn a_peer_that_answers_again_has_its_time_again() {
    let mut world = World::connected(Rules::ALL);
    world.handle(Input::Down(C));
    let mut b = Author::new(B, B_DEVICE);
    let made = [b.tag(1, "a"), b.tag(2, "b")];
    world.said();
    world.feed(B, hello(1, &[b.head()]));
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked") };
    world.pass(30_000);
    assert!(world.backs_off(B), "it was silent");
    world.feed(B, page_of(answer(pull, true), &[&made[0]]));
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked again") };
    world.handle(Input::Up(C));
    world.feed(C, hello(1, &[b.head()]));
    world.pass(2_000);
    assert_eq!(world.pulls(), [], "C is not asked before B had its time");
    world.feed(B, page_of(answer(pull, false), &[&made[1]]));
    assert_eq!(world.seq_of(B), 2);
}

/// A link that carried frames one way only has healed: the pause of a peer that could not answer ends with it.
#[test]
fn a_peer_that_did_not_hear_is_asked_again_once_it_hears() {
    for hears in [true, false] {
        let mut world = World::connected(Rules::ALL);
        let mut b = Author::new(B, B_DEVICE);
        b.tag(1, "a");
        world.said();
        world.feed(B, hello(1, &[b.head()]));
        let mut asked = 0;
        while asked < 5 || !world.backs_off(B) {
            asked += world.pulls().len();
            world.pass(1_000);
        }
        world.said();
        let clock = WireClock { heard: hears.then_some(world.now.mono.0), ..WireClock::default() };
        let hello = Hello { clock, heads: Capped(vec![b.head()]), ..silent_hello(1) };
        world.feed(B, wire::hello(GROUP, &hello));
        assert_eq!((world.pulls().len(), world.backs_off(B)), if hears { (1, false) } else { (0, true) });
    }
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
        world.feed(B, page(&[&first, &second, &third]));
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

/// A commit on a stopped stream does not keep the other streams of its sender waiting, however long it takes.
#[test]
fn y14_what_rests_on_a_stopped_stream_keeps_no_other_stream_waiting() {
    const D: ReplicaId = ReplicaId(Uuid::from_u128(0xd0));
    let mut world = World::connected(Rules::ALL);
    let member = Staged { own_merge: true, ..put(&Member::new(D, DeviceId(Uuid::from_u128(0xdd)))) };
    world.commit(vec![member]).unwrap();
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let mut d = Author::new(D, DeviceId(Uuid::from_u128(0xdd)));
    b.wall = 1 << 30;
    let held = b.tag(1, "b");
    world.feed(B, live(&[&held]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Held { .. })));
    let rests = c.commit(&[b.head()], vec![tagged(2, "c")]);
    world.said();
    world.feed(C, hello(1, &[b.head(), c.head()]));
    let mut asked = 0;
    for _ in 0..300 {
        for (peer, pull) in world.pulls() {
            assert_eq!((peer, pull.excluded.0.contains(&B)), (C, true));
            asked += 1;
            world.feed(peer, page_of(answer(&pull, false), &[]));
        }
        world.pass(1_000);
    }
    assert!((5..20).contains(&asked), "asked {asked} times in 300 s");
    world.said();
    for name in ["d", "dd"] {
        let made = d.tag(3, name);
        world.feed(C, wire::ack(GROUP, &Capped(vec![d.head()])));
        let [(C, pull)] = &world.pulls()[..] else { panic!("C is asked at once") };
        world.feed(C, page_of(answer(pull, false), &[&made]));
        assert_eq!(world.tag_name(3).as_deref(), Some(name));
        assert_eq!(world.pulls(), [], "and not for what rests on B's stream");
    }
    // Once the stopped stream goes on, what rests on it is asked for at once.
    assert!(world.engine.release_held(B));
    world.settle();
    let pulls = world.pulls();
    let [(peer, pull)] = &pulls[..] else { panic!("a peer is asked at once, not {pulls:?}") };
    assert!(!pull.excluded.0.contains(&B));
    world.feed(*peer, page_of(answer(pull, false), &[&held, &rests]));
    assert_eq!((world.seq_of(B), world.seq_of(C)), (1, 1));
}
