//! Goal: a joiner takes the group from its introducer alone, within bounds, and commits nothing before it is a member.
//! Method: a made-up introducer.

use super::*;

/// A joiner learns the group from its introducer alone, and serves no peer and commits nothing until it is a member.
#[test]
fn a_joiner_waits_for_its_own_member_record() {
    for (rules, waits) in [(Rules::ALL, true), (without!(joiner_waits), false)] {
        let joining = Ask { introducer: Some(B), ..networked(rules) };
        let mut world = World::asking(joining);
        assert_eq!(world.audit(), []);
        for peer in [B, C] {
            world.handle(Input::Up(peer));
        }
        world.settle();
        assert!(world.engine.report().joining);
        let result = world.commit(vec![tag(1, "a")]);
        assert_eq!(matches!(result, Err(Error::Joining { replica: REPLICA })), waits);
        if !waits {
            continue;
        }
        let mut b = Author::new(B, B_DEVICE);
        let founding = b.commit(&[], vec![member(B, B_DEVICE)]);
        world.feed(C, live(&[&founding]));
        assert_eq!(world.seq_of(B), 0, "C is not the introducer");
        world.feed(B, live(&[&founding]));
        assert_eq!(world.seq_of(B), 1);
        world.said();
        world.feed(B, wire::pull(GROUP, &pull_all()));
        assert!(
            world.said().iter().all(|(_, message)| !matches!(message, Message::Page(..))),
            "it serves nobody"
        );
        let added = b.commit(&[], vec![member(REPLICA, DEVICE)]);
        world.feed(B, live(&[&added]));
        assert!(!world.engine.report().joining);
        assert_eq!(world.get(keys::introducer()), None, "with the record it needs nobody to introduce it");
        world.commit(vec![tag(1, "a")]).unwrap();
        assert!(world.head().stamp > added.stamp);
        assert_eq!(world.audit(), []);
    }
}

/// A joiner that was added on another device than its own would make commits that no replica takes. It goes on waiting,
/// and commits nothing.
#[test]
fn a_joiner_that_was_added_on_another_device_goes_on_waiting() {
    let joining = Ask { introducer: Some(B), ..networked(Rules::ALL) };
    let mut world = World::asking(joining);
    world.handle(Input::Up(B));
    let mut b = Author::new(B, B_DEVICE);
    let founding = b.commit(&[], vec![member(B, B_DEVICE)]);
    let added = b.commit(&[], vec![member(REPLICA, C_DEVICE)]);
    world.feed(B, live(&[&founding, &added]));
    assert_eq!(world.seq_of(B), 2);
    assert!(world.engine.report().joining);
    assert!(matches!(world.commit(vec![tag(1, "a")]), Err(Error::Joining { .. })));
    let again = networked(Rules::ALL);
    world.engine = open_engine(&world.store, again, now(2000)).unwrap();
    assert!(world.engine.report().joining, "also after it was opened again");
}

/// B1: an introducer cannot make a joiner take more streams than a group may have.
#[test]
fn b1_a_joiner_takes_no_more_streams_than_a_group_has() {
    for stop in [false, true] {
        let mut world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
        world.handle(Input::Up(B));
        let made = |n: usize| {
            let stream = ReplicaId(Uuid::from_u128(0x1_0000 + n as u128));
            let made = Author::new(stream, C_DEVICE).tag(1, "a");
            if stop {
                Made { row: [&CHAIN_START[..], b"no entry"].concat(), values: vec![], ..made }
            } else {
                made
            }
        };
        let made: Vec<_> = (0..STREAMS_MAX + 100).map(made).collect();
        for some in made.chunks(500) {
            world.feed(B, live(&some.iter().collect::<Vec<_>>()));
        }
        let (heads, stops) = (world.known_heads(), world.known_stops());
        assert!(heads + stops >= STREAMS_MAX - 1, "{heads} streams, {stops} of them stopped");
        assert!(heads.max(stops) <= STREAMS_MAX, "{heads} streams, {stops} of them stopped");
    }
}
