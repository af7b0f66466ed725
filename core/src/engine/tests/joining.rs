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
        assert!(world.engine.report().joining.is_some());
        let result = world.commit(vec![tag(1, "a")]);
        assert_eq!(matches!(result, Err(Error::Joining { replica: REPLICA, .. })), waits);
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
        assert_eq!(world.engine.report().joining, None);
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
    let waits = JoinWait::OtherDevice { added: C_DEVICE, device: DEVICE };
    assert_eq!(world.engine.report().joining, Some(waits));
    assert!(matches!(world.commit(vec![tag(1, "a")]), Err(Error::Joining { wait, .. }) if wait == waits));
    assert!(world.events().contains(&Event::Joining(waits)));
    assert_eq!(world.audit(), [], "its store is whole");
    let again = networked(Rules::ALL);
    world.engine = open_engine(&world.store, again, now(2000)).unwrap();
    assert!(world.engine.report().joining.is_some(), "also after it was opened again");
}

/// The event that says why a joiner waits, if that has changed since the last time.
fn told(world: &mut World) -> Vec<Event> {
    let events = world.events().into_iter();
    events.filter(|event| matches!(event, Event::Joining(_) | Event::Joined)).collect()
}

/// Y17: whatever a joiner waits for, its status says so, an event tells of each change, and a commit is refused with it.
#[test]
fn y17_a_joiner_says_what_it_waits_for() {
    let mut world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    let mut b = Author::new(B, B_DEVICE);
    let founding = b.commit(&[], vec![member(B, B_DEVICE)]);
    let pruned = |pull: &Pull| PageHead { reach: Reach::Pruned, ..answer(pull, false) };
    world.settle();
    assert_eq!(told(&mut world), [], "nothing has happened yet");
    let introducer = B;
    type Step<'a> = Box<dyn Fn(&mut World) + 'a>;
    let steps: [(&str, Step<'_>, JoinWait); 8] = [
        ("nothing", Box::new(|_| ()), JoinWait::NoAnswer { introducer, connected: false }),
        (
            "another is up",
            Box::new(|world| world.handle(Input::Up(C))),
            JoinWait::NoAnswer { introducer, connected: false },
        ),
        (
            "it is up",
            Box::new(|world| world.handle(Input::Up(B))),
            JoinWait::NoAnswer { introducer, connected: true },
        ),
        (
            "it is of another group",
            Box::new(|world| world.feed(B, wire::other_group(GROUP))),
            JoinWait::OtherGroup { introducer },
        ),
        (
            "it says stranger",
            Box::new(|world| world.feed(B, [hello(1, &[]), wire::stranger(GROUP)].concat().into())),
            JoinWait::NotAdded { introducer },
        ),
        (
            "it says hello",
            Box::new(|world| world.feed(B, hello(1, &[b.head()]))),
            JoinWait::Receiving { introducer },
        ),
        (
            "its log is pruned",
            Box::new(|world| {
                let (to, pull) = world.pulls().pop().unwrap();
                assert_eq!(to, B);
                world.feed(B, page_of(pruned(&pull), &[]));
            }),
            JoinWait::Receiving { introducer },
        ),
        (
            "it is gone",
            Box::new(|world| world.handle(Input::Down(B))),
            JoinWait::NoAnswer { introducer, connected: false },
        ),
    ];
    let mut before = steps[0].2;
    for (what, step, wait) in steps {
        step(&mut world);
        world.settle();
        assert_eq!(world.engine.report().joining, Some(wait), "{what}");
        let refused = world.commit(vec![tag(1, "a")]).unwrap_err();
        assert!(refused.to_string().ends_with(&wait.to_string()), "{refused}");
        let news = (wait != before).then_some(Event::Joining(wait));
        assert_eq!(told(&mut world), Vec::from_iter(news), "{what}");
        before = wait;
    }
    world.handle(Input::Up(B));
    let added = b.commit(&[], vec![member(REPLICA, DEVICE)]);
    world.feed(B, live(&[&founding, &added]));
    assert_eq!(told(&mut world).pop(), Some(Event::Joined));
    assert_eq!(world.engine.report().joining, None);
}

/// A hello of its introducer in another group's name says it too.
#[test]
fn a_joiner_hears_of_another_group_also_from_its_frames() {
    let mut world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    world.handle(Input::Up(B));
    let other = GroupId(Uuid::from_u128(0xee));
    world.feed(B, wire::hello(other, &silent_hello(1)));
    assert_eq!(world.engine.report().joining, Some(JoinWait::OtherGroup { introducer: B }));
}

#[test]
fn a_joiner_without_a_transport_says_so() {
    let mut world = World::asking(Ask { introducer: Some(B), ..ask(Rules::ALL) });
    world.settle();
    assert_eq!(world.engine.report().joining, Some(JoinWait::NoTransport));
}

/// Each opening of its store names its device as long as it waits.
#[test]
fn the_hello_of_a_joiner_knocks_until_it_is_a_member() {
    let mut world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    world.handle(Input::Up(B));
    world.settle();
    let hellos = |world: &mut World| -> Vec<Option<DeviceId>> {
        let said = world.said().into_iter();
        said.filter_map(|(_, message)| match message {
            Message::Hello(hello) => Some(hello.knocks),
            _ => None,
        })
        .collect()
    };
    assert_eq!(hellos(&mut world), [Some(DEVICE)]);
    world.pass(2_500);
    assert_eq!(hellos(&mut world), [Some(DEVICE)]);
    let mut b = Author::new(B, B_DEVICE);
    let made = b.commit(&[], vec![member(B, B_DEVICE), member(REPLICA, DEVICE)]);
    world.feed(B, live(&[&made]));
    assert_eq!(hellos(&mut world), [None]);
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
                Made { row: [&chain_start(GROUP, stream)[..], b"no entry"].concat(), values: vec![], ..made }
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

/// An introducer that says now this and now that floods no app; the app hears of the last of it all the same.
#[test]
fn an_introducer_that_cannot_decide_floods_nobody() {
    let mut world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    world.settle();
    world.handle(Input::Up(B));
    world.settle();
    let mut count = 0;
    for n in 0..500 {
        let word = if n % 2 == 0 { wire::other_group(GROUP) } else { hello(1, &[]) };
        world.feed(B, word);
        count += told(&mut world).len();
    }
    assert!(count <= 20, "{count} events");
    world.feed(B, wire::stranger(GROUP));
    (0..20).for_each(|_| world.pass(1_000));
    assert_eq!(told(&mut world).pop(), Some(Event::Joining(JoinWait::NotAdded { introducer: B })));
}
