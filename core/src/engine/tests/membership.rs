//! Goal: only members are listened to and spoken to, each speaks only for its own device, and a group does not grow without
//! bound. Method: frames of strangers, of other groups and in the name of others.

use super::*;

#[test]
fn a_frame_of_a_stranger_or_of_another_group_changes_nothing() {
    let other = GroupId(Uuid::from_u128(0xee));
    let tag = |stream| Author::new(stream, B_DEVICE).tag(1, "a");
    // The sender, the group, the stream; and the rule without which the frame does harm.
    let cases = [
        (STRANGER, GROUP, B, without!(peers_are_members)),
        (B, other, B, without!(groups_are_checked)),
        (B, GROUP, STRANGER, without!(authors_are_members)),
    ];
    for (from, group, stream, broken) in cases {
        for rules in [Rules::ALL, broken] {
            let mut world = World::connected(rules);
            world.handle(Input::Up(STRANGER));
            world.settle();
            let before = world.content();
            world.feed(from, live_of(group, &[&tag(stream)]));
            assert_eq!(world.content() == before, rules == Rules::ALL, "{from} {group} {stream}");
        }
    }
}

#[test]
fn a_stranger_is_told_that_it_is_one() {
    let mut world = World::connected(Rules::ALL);
    world.handle(Input::Up(STRANGER));
    world.settle();
    assert!(world.said().iter().all(|(to, _)| *to != Some(STRANGER)), "nobody speaks to it first");
    let many = [hello(1, &[]), hello(2, &[])].concat();
    world.feed(STRANGER, many.into());
    assert_eq!(world.said(), [(Some(STRANGER), Message::Stranger)], "once a round");
}

/// The answer names the group of the one that asks, so that it says nothing of the group here, and it is shorter than the
/// question.
#[test]
fn a_hello_of_another_group_is_answered_with_that_once_a_round() {
    let mut world = World::connected(Rules::ALL);
    world.handle(Input::Up(STRANGER));
    world.settle();
    world.said();
    let other = GroupId(Uuid::from_u128(0xee));
    let hello = wire::hello(other, &Hello { knocks: Some(C_DEVICE), ..silent_hello(1) });
    for _ in 0..5 {
        world.handle(Input::Frame(STRANGER, hello.clone()));
    }
    world.settle();
    let answer = wire::other_group(other);
    assert_eq!(world.sent, [(Some(STRANGER), answer.clone())]);
    assert!(answer.len() < hello.len());
    assert_eq!((world.peer(STRANGER).knocks, world.peer(STRANGER).rejected), (None, 5));
    world.sent.clear();
    world.feed(STRANGER, live_of(other, &[&Author::new(STRANGER, C_DEVICE).tag(1, "a")]));
    assert_eq!(world.sent, [], "nothing but a hello is answered");
}

/// Commits go to members alone, also while a stranger is up.
#[test]
fn strangers_hear_of_no_commit() {
    let mut world = World::connected(Rules::ALL);
    for id in 1..=2 {
        world.said();
        world.reached.clear();
        world.commit(vec![tag(id, "a")]).unwrap();
        assert_eq!((world.said().len(), &world.reached[..]), (1, &[B, C][..]), "one frame to all members");
        world.handle(Input::Up(STRANGER));
        world.settle();
    }
}

/// C15: a message names no owner of an owned record, so it cannot name a record of another device; and an author cannot
/// say that it is on another device.
#[test]
fn c15_a_commit_cannot_speak_for_another_device() {
    for (rules, spoofed) in [(Rules::ALL, false), (without!(devices_are_checked), true)] {
        let mut world = World::connected(rules);
        let spot = |name: &str| Spot { id: 1, device_id: DEVICE, name: name.into() };
        world.commit(vec![put(&spot("mine"))]).unwrap();
        let mut b = Author::new(B, DEVICE);
        b.wall = 2000;
        let key = RecordKey::new::<Spot>(&(DEVICE, 1));
        let made =
            b.commit(&[], vec![(key.clone(), Some(postcard::to_allocvec(&spot("theirs")).unwrap()), None)]);
        world.feed(B, live(&[&made]));
        let stored = world.get(key.into_bytes()).unwrap();
        let name = model::decode_bytes::<Spot>(record::value_of(&stored)).unwrap().name;
        assert_eq!(name, if spoofed { "theirs" } else { "mine" });
        // The stream stops there, so that the commit is not asked for again and again.
        assert_eq!(matches!(world.stop_of(B), Some(StreamStop::Refused { seq: 1, .. })), !spoofed);
    }
}

/// A group has no more streams than a message can name: a commit that would add more is refused. A commit that rests on
/// more streams than there may be members here is not refused.
#[test]
fn members_and_causes_are_bounded() {
    let (mut world, limits) = (World::connected(Rules::ALL), Limits::default());
    let mut b = Author::new(B, B_DEVICE);
    let mut next = 0x1000;
    let mut some = |count: usize| -> Vec<Write> {
        let ids = (0..count).map(|_| {
            next += 1;
            member(ReplicaId(Uuid::from_u128(next)), C_DEVICE)
        });
        ids.collect()
    };
    let room = STREAMS_MAX - world.engine.report().members.len();
    let most = limits.commit_changes_max;
    for begin in (0..room).step_by(most) {
        let made = b.commit(&[], some(most.min(room - begin)));
        world.feed(B, live(&[&made]));
    }
    assert_eq!((world.engine.report().members.len(), world.stop_of(B)), (STREAMS_MAX, None));
    let mut known = world.engine.report().members;
    known.truncate(limits.members_max + 2);
    let made = b.commit(&[], some(1));
    world.feed(B, live(&[&made]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Refused { .. })));
    assert_eq!(world.engine.report().members.len(), STREAMS_MAX);

    let causes: Vec<_> = known
        .into_iter()
        .filter(|stream| *stream != C)
        .map(|stream| WireHead { stream, seq: 1, digest: [7; 32] })
        .collect();
    assert!(causes.len() > limits.members_max);
    let made = Author::new(C, C_DEVICE).commit(&causes, vec![tagged(1, "a")]);
    world.feed(C, live(&[&made]));
    assert_eq!(world.stop_of(C), None, "it waits for what it rests on");
}
