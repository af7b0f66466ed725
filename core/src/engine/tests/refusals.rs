//! Goal: the author of a stream that stops somewhere is told so on its own device, and so is a device whose clock is
//! wrong; nobody is told of what is not so. Method: both sides, one at a time: streams that stop here, and the words of
//! peers, late, made up and damaged ones too.

use super::*;

/// The stops that were told since the last time, and to whom.
fn told(world: &mut World) -> Vec<(ReplicaId, Stopped)> {
    let said = world.said().into_iter();
    said.filter_map(|(to, message)| match message {
        Message::Stopped(stopped) => Some((to.expect("it is told to one peer"), stopped)),
        _ => None,
    })
    .collect()
}

/// Hands over a frame, and refuses the writes of what it brings.
fn feed_refused(world: &mut World, from: ReplicaId, frame: Bytes) {
    world.handle(Input::Frame(from, frame));
    while world.up_to_write().is_some() {
        world.rejected();
    }
}

/// A world where the stream of B stops, in each of the ways in which a stream stops.
fn stopped_worlds() -> Vec<(&'static str, World)> {
    let world = || World::connected(Rules::ALL);
    let b = || Author::new(B, B_DEVICE);
    let (mut held, mut refused, mut forked, mut not_stored) = (world(), world(), world(), world());
    let early = Author { wall: 3_600_000, ..b() }.tag(1, "b");
    held.feed(B, live(&[&early]));
    let row = [&chain_start(GROUP, B)[..], b"no entry"].concat();
    refused.feed(B, live(&[&Made { row, values: vec![], ..b().tag(1, "b") }]));
    feed_refused(&mut not_stored, B, live(&[&b().tag(1, "b")]));
    let mut author = b();
    let first = author.tag(1, "b");
    let (mut one, mut other) = (author.clone(), author);
    forked.feed(B, live(&[&first, &one.tag(1, "c")]));
    let twin = other.tag(1, "d");
    forked.feed(C, page(&[&twin]));
    forked.convince(C, &[&twin]);
    vec![("held", held), ("refused", refused), ("forked", forked), ("not stored", not_stored)]
}

/// Y17: whatever stops a stream, its author hears at which commit and why, and nobody else does.
#[test]
fn y17_the_author_of_a_stopped_stream_is_told_at_which_commit_and_why() {
    for (name, mut world) in stopped_worlds() {
        let stop = world.stop_of(B).expect(name);
        let wall = Some(1000);
        let all = told(&mut world);
        let words = all.iter().map(|(to, stopped)| (*to, stopped.stop(B), stopped.wall)).collect::<Vec<_>>();
        assert_eq!(words, [(B, stop, wall)], "{name}");
    }
}

/// Y17, Y10: the word comes again with every hello, so that it may be lost, and reaches an author that was opened anew.
#[test]
fn y17_the_author_is_told_again_at_every_session_and_until_the_stop_ends() {
    for (name, mut world) in stopped_worlds() {
        let stop = world.stop_of(B).expect(name);
        told(&mut world);
        world.feed(B, hello(7, &[]));
        let Some((B, again)) = told(&mut world).pop() else { panic!("{name}: a new session of the author") };
        assert_eq!(again.stop(B), stop, "{name}");
        world.handle(Input::Down(B));
        world.settle();
        assert!(told(&mut world).is_empty());
        world.handle(Input::Up(B));
        world.settle();
        assert!(matches!(told(&mut world)[..], [(B, _)]), "{name}: a new connection");
        world.feed(C, hello(7, &[]));
        assert!(told(&mut world).is_empty(), "{name}: it is nothing to C");
    }
    // A fork is remembered here, so its author hears of it also after both were opened anew.
    let (_, mut world) = stopped_worlds().remove(2);
    world.reopen(networked(Rules::ALL));
    world.said();
    world.handle(Input::Up(B));
    world.settle();
    let all = told(&mut world);
    assert!(
        matches!(&all[..], [(B, stopped)] if matches!(stopped.stop(B), StreamStop::Forked { .. })),
        "{all:?}"
    );
    // A held stream goes on: there is nothing more to tell.
    let (_, mut world) = stopped_worlds().remove(0);
    world.pass(3_600_000);
    told(&mut world);
    world.feed(B, hello(7, &[]));
    assert!(told(&mut world).is_empty());
}

/// Y17: a joiner speaks to its introducer alone, whatever stops.
#[test]
fn y17_a_joiner_says_nothing_to_those_to_whom_it_does_not_listen() {
    let mut world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    for peer in [B, C] {
        world.handle(Input::Up(peer));
    }
    let mut b = Author::new(B, B_DEVICE);
    let members = b.commit(&[], vec![member(B, B_DEVICE), member(C, C_DEVICE)]);
    let early = |author: &Author| Author { wall: 3_600_000, ..author.clone() }.tag(1, "early");
    world.feed(B, live(&[&members, &early(&Author::new(C, C_DEVICE))]));
    assert!(matches!(world.stop_of(C), Some(StreamStop::Held { .. })));
    assert_eq!(told(&mut world), []);
    world.feed(B, live(&[&early(&b)]));
    assert!(matches!(told(&mut world)[..], [(B, _)]));
}

/// A world whose own stream has three commits more, none of which B has; and its place.
fn author() -> (World, WireHead) {
    let mut world = World::connected(Rules::ALL);
    world.feed(B, hello(1, &[world.own()]));
    for name in ["a", "b", "c"] {
        world.commit(vec![tag(1, name)]).unwrap();
    }
    world.said();
    world.events();
    let own = world.own();
    (world, own)
}

fn word(stop: &StreamStop) -> Bytes {
    wire::stopped(GROUP, &Stopped::new(stop, WallMs::new(400).ok()))
}

fn refused(seq: u64) -> StreamStop {
    StreamStop::Refused { seq, reason: "it is too long".into() }
}

/// Y17: what a peer says of the own stream stands in the status, and is told when it begins and when it ends.
#[test]
fn y17_a_refused_author_says_so_until_the_peer_has_the_commit() {
    let held = |seq| StreamStop::Held { seq, stamp: Hlc::new(WallMs::new(1000).unwrap(), 0, REPLICA) };
    let not_stored = |seq| StreamStop::NotStored { seq, error: "the disk is full".into() };
    type Stop<'a> = &'a dyn Fn(u64) -> StreamStop;
    for stop in [&held as Stop<'_>, &not_stored, &refused] {
        for said_by_hello in [false, true] {
            let (mut world, own) = author();
            assert_eq!(world.peer(B).refuses, None);
            let stop = stop(own.seq - 1);
            let refusal = Refusal { stop: stop.clone(), clock: WallMs::new(400).ok() };
            world.feed(B, word(&stop));
            assert_eq!((world.peer(B).refuses, world.peer(C).refuses), (Some(refusal.clone()), None));
            assert_eq!(world.events(), [Event::Refused { by: B, refusal }]);
            world.feed(B, word(&stop));
            assert_eq!(world.events(), [], "the same is no news");
            world.feed(B, wire::ack(GROUP, &Capped(vec![WireHead { seq: own.seq - 2, ..own }])));
            assert!(world.peer(B).refuses.is_some(), "that is before the commit");
            // The peer may be away for long, and its word stands.
            world.handle(Input::Down(B));
            world.handle(Input::Up(B));
            world.settle();
            assert!(world.peer(B).refuses.is_some());
            let heads = &[own];
            let more =
                if said_by_hello { hello(1, heads) } else { wire::ack(GROUP, &Capped(heads.to_vec())) };
            world.feed(B, more);
            assert_eq!((world.peer(B).refuses, world.events()), (None, vec![Event::Accepted { by: B }]));
            assert!(world.commit(vec![tag(1, "d")]).is_ok());
        }
    }
}

/// Y17: after this store was opened anew, nothing is known until the peer says it again.
#[test]
fn y17_a_refused_author_is_told_again_after_it_was_opened_anew() {
    let (mut world, own) = author();
    world.feed(B, word(&refused(own.seq)));
    world.events();
    world.reopen(networked(Rules::ALL));
    world.handle(Input::Up(B));
    world.feed(B, word(&refused(own.seq)));
    assert!(matches!(world.events()[..], [Event::Refused { by: B, .. }]));
    assert!(world.peer(B).refuses.is_some());
}

/// Y17: a store of which somebody runs a copy is told that a peer takes nothing more of it, although it is the healthy
/// one and its commits are the ones that the peer has.
#[test]
fn y17_the_original_of_a_copy_is_told_that_its_stream_is_stopped_for_good() {
    let (mut world, own) = author();
    let forked = StreamStop::Forked { seq: own.seq };
    world.feed(B, hello(2, &[own]));
    world.feed(B, word(&forked));
    assert!(matches!(&world.events()[..], [Event::Refused { by: B, refusal }] if refusal.stop == forked));
    world.commit(vec![tag(1, "d")]).unwrap();
    world.feed(B, hello(3, &[own]));
    world.feed(B, word(&refused(own.seq)));
    assert_eq!(world.peer(B).refuses.map(|refusal| refusal.stop), Some(forked), "nothing ends it");
    assert_eq!(world.engine.report().restored, None, "it is the healthy one");
}

/// Y17: a word that is late, or about a commit that nobody made, is none; a reason that is not known here is told in the
/// words that came with it. Neither is a fault of the frame.
#[test]
fn y17_nobody_is_told_of_what_is_not_so() {
    let (mut world, own) = author();
    for seq in [0, own.seq + 1, u64::MAX] {
        world.feed(B, word(&refused(seq)));
        world.feed(B, word(&StreamStop::Forked { seq }));
    }
    world.feed(B, hello(1, &[WireHead { seq: own.seq - 1, digest: world.digest_of(own.seq - 1), ..own }]));
    world.feed(B, word(&refused(own.seq - 1)));
    assert_eq!((world.peer(B).refuses, world.peer(B).rejected, world.events()), (None, 0, vec![]));
    let unknown = Stopped { why: 200, ..Stopped::new(&refused(own.seq), None) };
    world.feed(B, wire::stopped(GROUP, &unknown));
    let says = world.peer(B).refuses.map(|refusal| (refusal.stop, refusal.clock));
    assert_eq!(says, Some((refused(own.seq), None)));
    // A stranger says nothing that counts.
    world.handle(Input::Up(STRANGER));
    world.feed(STRANGER, word(&refused(own.seq)));
    assert_eq!((world.peer(STRANGER).refuses, world.peer(STRANGER).rejected), (None, 1));
    assert_eq!(world.audit(), []);
}

/// Y17: by how much the clock here stands ahead is known from the hellos of peers, whatever time they took.
#[test]
fn y17_a_device_with_a_wrong_clock_is_told_by_how_much_it_is_wrong() {
    let mut world = World::connected(Rules::ALL);
    let ahead = |world: &World| world.engine.report().ahead_ms;
    let says = |world: &World, wall: u64, heard: Option<u64>| {
        let clock = WireClock { wall: Some(wall), sent: 1, heard };
        let hello = Hello { clock, heads: Capped(vec![world.own()]), ..silent_hello(1) };
        wire::hello(GROUP, &hello)
    };
    assert_eq!(ahead(&world), None, "nobody was heard");
    // This replica said hello at 1000 ms, by both of its clocks, and gets answers 200 ms later.
    let said = world.said().into_iter().find_map(|(to, message)| match message {
        Message::Hello(hello) if to == Some(B) => Some(hello.clock),
        _ => None,
    });
    assert_eq!(said, Some(WireClock { wall: Some(1000), sent: 1000, heard: None }));
    world.pass(200);
    let frame = says(&world, 100, Some(1000));
    world.feed(B, frame);
    assert_eq!((ahead(&world), world.peer(B).ahead_ms, world.peer(C).ahead_ms), (Some(900), Some(900), None));
    // Of two peers the one that says less counts, of three the one in the middle.
    let frame = says(&world, 1100, Some(1000));
    world.feed(C, frame);
    assert_eq!((ahead(&world), world.peer(C).ahead_ms), (Some(0), Some(0)));
    // The clock here is set an hour ahead: that shows without another word.
    world.now.wall = world.now.wall.map(|wall| wall.saturating_add(3_600_000));
    world.pass(0);
    assert_eq!(ahead(&world), Some(3_599_900), "the 200 ms of the round trip may be of either way");
    let echoed = |world: &mut World| {
        world.said().into_iter().find_map(|(to, message)| match message {
            Message::Hello(hello) if to == Some(B) => hello.clock.heard,
            _ => None,
        })
    };
    world.said();
    world.feed(B, hello(2, &[]));
    assert_eq!(echoed(&mut world), Some(0), "the hello names the timer of the peer");
}

/// A member that gives another reason each time must not flood the app.
#[test]
fn b4_ever_other_reasons_are_told_ever_more_rarely() {
    let mut world = World::connected(Rules::ALL);
    world.commit(vec![tag(1, "a")]).unwrap();
    world.events();
    for n in 0..100 {
        let stop = match n % 2 {
            0 => refused(1),
            _ => StreamStop::NotStored { seq: 1, error: "full".into() },
        };
        world.feed(B, wire::stopped(GROUP, &Stopped::new(&stop, None)));
    }
    let told = world.events().into_iter().filter(|event| matches!(event, Event::Refused { .. })).count();
    assert!(told <= 10, "{told} events");
}
