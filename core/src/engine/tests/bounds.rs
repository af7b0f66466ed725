//! Goal: whatever peers send, memory and answers stay bounded. Method: floods of frames while the store is busy.

use super::*;

/// B1: the next page is asked for while one is being written, but none while two are in memory.
#[test]
fn b1_two_pages_are_in_memory_and_no_more() {
    const PAGE: usize = 30;
    let limits = Limits { page_bytes_max: 5_000, event_commits_max: 10, ..Limits::default() };
    let mut world = World::limited(limits);
    let mut b = Author::new(B, B_DEVICE);
    let made: Vec<_> = (0..100).map(|n| b.tag(n, "some name")).collect();
    world.said();
    world.feed(B, live(&[&made[99]]));
    let page =
        |pull: &Pull, commits: &[Made]| page_of(answer(pull, true), &commits.iter().collect::<Vec<_>>());
    let frame = page(&world.pulls()[0].1, &made[..PAGE]);
    assert!(frame.len() <= 5_000);
    world.handle(Input::Frame(B, frame));
    assert!(world.inbox_bytes() > 5_000, "it weighs more in memory");
    let batch = world.up_to_write().unwrap();
    let pulls = world.pulls();
    let [(B, pull)] = &pulls[..] else { panic!("one pull, not {pulls:?}") };
    assert_eq!(pull.heads.0.iter().find(|head| head.stream == B).unwrap().seq, PAGE as u64);
    // The second page arrives while the first third of the first page is written.
    let frame = page(pull, &made[PAGE..2 * PAGE]);
    world.handle(Input::Frame(B, frame));
    world.written(batch);
    for expected in [0, 1, 0] {
        let batch = world.up_to_write().unwrap();
        assert_eq!(world.pulls().len(), expected);
        world.written(batch);
    }
}

/// B1: the inbox is bounded. A commit that finds no room in it is asked for when there is room.
#[test]
fn b1_the_inbox_is_bounded() {
    let limits = Limits { frame_bytes_max: 10_000, page_bytes_max: 5_000, ..Limits::default() };
    let mut world = World::limited(limits);
    let mut b = Author::new(B, B_DEVICE);
    let made: Vec<_> = (0..100).map(|n| b.tag(n, "some name")).collect();
    world.said();
    for made in &made {
        world.handle(Input::Frame(B, live(&[made])));
    }
    assert!(world.inbox_bytes() <= 10_000, "{}", world.inbox_bytes());
    assert!(world.engine.report().received < 100);
    world.settle();
    let taken = world.seq_of(B);
    assert!(taken > 0 && taken < 100);
    assert_eq!(world.pulls().len(), 1, "for the rest, once there is room");
}

/// B1: a commit that waits does not keep its frame in memory, if it is a small part of that frame.
#[test]
fn b1_a_commit_that_waits_lets_go_of_its_frame() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let small = b.tag(1, "a");
    // Two values: they have their frame in common as long as they are not copied out of it.
    let large = b.commit(&[], vec![tagged(2, &"x".repeat(5_000)), tagged(3, &"x".repeat(5_000))]);
    let duplicate = Made { values: vec![0; 10_000], ..small.clone() };
    for (frame, own) in [(live(&[&small, &duplicate]), true), (live(&[&large]), false)] {
        world.handle(Input::Frame(B, frame));
        assert_eq!(world.last_waiting_has_own_bytes(), own);
        world.settle();
    }
}

/// B1: effects that frames cause wait while the store writes, so frames are taken only up to a bound of effects.
#[test]
fn b1_what_waits_behind_a_write_is_bounded() {
    let mut world = World::connected(Rules::ALL);
    world.submit(vec![tag(1, "a")]);
    let batch = world.up_to_write().unwrap();
    let mut frames = 0;
    while world.engine.has_room() && frames < 1_000 {
        // One event each, as of a frame that stops a stream or lets it go on.
        world.tell(Event::Resumed { stream: B });
        frames += 1;
    }
    assert_eq!(frames, EFFECTS_MAX);
    world.written(batch);
    world.settle();
    assert!(world.engine.has_room());
}

/// B4, B6, I11: however many messages a frame has and however often a peer asks, it gets one answer a round.
#[test]
fn b4_a_flood_is_answered_once() {
    let mut world = World::connected(Rules::ALL);
    world.said();
    let places: Vec<Bytes> =
        (0..10).map(|n| hello(n, &[WireHead { stream: REPLICA, seq: 1 + n % 2, digest: [1; 32] }])).collect();
    for _ in 0..50 {
        let pull = wire::pull(GROUP, &Pull { budget: 9, ..pull_all() });
        let frame: Bytes = [&places.concat()[..], &pull].concat().into();
        world.handle(Input::Frame(B, frame));
    }
    assert_eq!((world.waiting_pulls(), world.waiting_checks()), (1, 1));
    assert!(world.waiting_effects().len() <= 1, "{:?}", world.waiting_effects());
    world.settle();
    let said = world.said();
    let hellos = said.iter().filter(|(to, message)| *to == Some(B) && matches!(message, Message::Hello(_)));
    assert!(hellos.count() <= 2);
    // A frame with too many messages is refused as a whole.
    let many: Bytes = std::iter::repeat_n(hello(1, &[]), 1_000).collect::<Vec<_>>().concat().into();
    world.events();
    world.feed(B, many);
    assert!(world.events().iter().any(|event| matches!(event, Event::FrameRejected { .. })));
}

/// The rows of the causes of received commits are read once for each write, and no more bytes of them at once than one read
/// may have.
#[test]
fn the_rows_of_causes_are_read_within_bounds() {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let mut places = Vec::new();
    for _ in 0..12 {
        let many = (0..4_000).map(|id| tagged(id, "a")).collect();
        world.feed(B, live(&[&b.commit(&[], many)]));
        places.push(b.head());
    }
    let long = world.get(keys::log(B, 1)).unwrap().len();
    let rests: Vec<_> = (0..40).map(|n| c.commit(&[places[n % 11]], vec![tagged(9_000, "c")])).collect();
    world.handle(Input::Frame(C, live(&rests.iter().collect::<Vec<_>>())));
    let (mut reads, mut writes) = (Vec::new(), 0);
    while let Some(effect) = world.engine.next_effect() {
        match effect {
            Effect::Read(job, keys) => {
                let values = block_on(world.store.get_many(&keys));
                world.handle(Input::Read(job, keys, values));
            }
            Effect::Scan(job, range, limit) => {
                let page = block_on(world.store.scan(range, limit));
                reads.push(
                    page.as_ref().unwrap().entries.iter().map(|entry| entry.value.len()).sum::<usize>(),
                );
                world.handle(Input::Scanned(job, page));
            }
            Effect::Write(job, batch) => {
                writes += 1;
                block_on(world.store.write(batch)).unwrap();
                world.handle(Input::Written(job, Ok(())));
            }
            _ => {}
        }
    }
    assert_eq!((world.seq_of(C), world.audit()), (40, vec![]));
    assert!(long > 100_000 && reads.iter().all(|bytes| *bytes <= 1 << 20), "{reads:?}, of rows of {long}");
    let read = reads.iter().sum::<usize>();
    assert!(
        read > 0 && read <= writes * 12 * (long + 16),
        "{read} bytes for {writes} writes, of rows of {long}"
    );
}
