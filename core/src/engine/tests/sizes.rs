//! Goal: a commit that is too large for a limit here stops its stream alone, and commits within the limits fit everywhere.
//! Method: small limits, large values.

use super::*;

/// C16: a commit above a limit stops its stream, says which limit to raise, and keeps no other stream waiting.
#[test]
fn c16_an_oversized_commit_is_no_poison() {
    let mut world = World::limited(Limits { value_bytes_max: 10, ..Limits::default() });
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let large = b.tag(1, &"x".repeat(100));
    let behind = b.tag(2, "y");
    let other = c.tag(3, "z");
    world.feed(B, live(&[&large, &behind, &other]));
    let Some(StreamStop::Refused { seq: 1, reason }) = world.stop_of(B) else { panic!("it stops") };
    assert!(reason.contains("Limits::value_bytes_max"), "{reason}");
    assert_eq!((world.seq_of(B), world.seq_of(C)), (0, 1), "the rest of the frame is taken");
    world.said();
    world.pass(100_000);
    assert!(world.pulls().is_empty(), "it is not asked for again");
    // With a higher limit after a reopening, the stream goes on.
    world.reopen(networked(Rules::ALL));
    world.handle(Input::Up(B));
    world.feed(B, live(&[&large, &behind]));
    assert_eq!((world.seq_of(B), world.audit()), (2, vec![]));
}

/// C16: the same holds for a commit that is longer than a frame may be here. The peer that has it says so, and sends
/// the commits that do not rest on it.
#[test]
fn c16_a_commit_that_fits_into_no_frame_is_no_poison() {
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let large = b.tag(1, &"x".repeat(5_000));
    let behind = b.tag(2, "y");
    let rests = c.commit(&[], vec![tagged(3, "z")]);
    let rests_too = c.commit(&[b.head()], vec![tagged(3, "z")]);
    let frame_bytes = 4_000;

    // The replica that has the commit.
    let mut world = World::connected(Rules::ALL);
    world.feed(B, live(&[&large, &behind]));
    world.feed(C, live(&[&rests, &rests_too]));
    assert_eq!((world.seq_of(B), world.seq_of(C)), (2, 2));
    world.sent.clear();
    world.feed(C, wire::pull(GROUP, &Pull { frame_bytes, ..pull_all() }));
    let (frame, said) = (world.sent[0].1.clone(), world.said());
    let [(_, Message::Page(head, page))] = &said[..] else { panic!("{said:?}") };
    let page = page.whole(REPLICA);
    assert!(frame.len() <= frame_bytes as usize && !head.more);
    let too_long = head.too_long.expect("it is named");
    assert_eq!((too_long.stream, too_long.seq), (B, 1));
    assert!((5_000..5_300).contains(&too_long.bytes), "{too_long:?}");
    let streams: Vec<_> = page.iter().map(|commit| (commit.stream, commit.seq)).collect();
    assert_eq!(
        streams,
        [(REPLICA, 1), (REPLICA, 2), (REPLICA, 3), (C, 1)],
        "what rests on it is left out with it"
    );

    // The replica that takes no frame as long as the commit.
    let mut world = World::limited(Limits { frame_bytes_max: 4_000, ..Limits::default() });
    world.said();
    world.feed(C, hello(1, &[b.head(), c.head()]));
    let [(C, pull)] = &world.pulls()[..] else { panic!("C is asked") };
    assert_eq!(pull.frame_bytes, 4_000);
    let head = PageHead { too_long: Some(too_long), ..answer(pull, false) };
    world.feed(C, page_of(head, &[]));
    let Some(StreamStop::Refused { seq: 1, reason }) = world.stop_of(B) else { panic!("it stops") };
    assert!(reason.contains("Limits::frame_bytes_max"), "{reason}");
    assert_eq!(world.useless_peer(), None, "it is no empty answer");
    let pulls = world.pulls();
    assert!(pulls.iter().all(|(_, pull)| pull.excluded.0 == [REPLICA, B]), "{pulls:?}");
}

/// A word is no proof: a commit that would fit is asked for again, and nothing stops.
#[test]
fn a_commit_that_fits_is_not_too_long_whatever_a_peer_says() {
    let mut b = Author::new(B, B_DEVICE);
    let commit = b.tag(1, "b");
    let frame_bytes_max = 4_000;
    let most = wire::commit_max(frame_bytes_max) as u64;
    for (bytes, stops) in [(most, false), (most + 1, true), (0, false), (u64::MAX, true)] {
        let mut world = World::limited(Limits { frame_bytes_max, ..Limits::default() });
        world.said();
        world.feed(C, hello(1, &[b.head()]));
        let [(C, pull)] = &world.pulls()[..] else { panic!("C is asked") };
        let too_long = Some(TooLong { stream: B, seq: 1, bytes });
        world.feed(C, page_of(PageHead { too_long, ..answer(pull, false) }, &[]));
        assert_eq!(world.stop_of(B).is_some(), stops, "{bytes}");
        let useless = (!stops).then_some(C);
        assert_eq!(world.useless_peer(), useless, "who says so of what fits is of no use: {bytes}");
        world.feed(B, live(&[&commit]));
        assert_eq!(
            (world.seq_of(B), world.stop_of(B)),
            (1, None),
            "the author sends what it said was too long"
        );
    }
}

/// If all replicas have the same limits, every commit that one of them can make fits into the frames of the others.
#[test]
fn the_largest_commit_fits_into_the_smallest_frame() {
    let limits = Limits {
        id_bytes_max: 8,
        value_bytes_max: 1_000,
        commit_changes_max: 1,
        commit_bytes_max: 1_000,
        members_max: 3,
        ..Limits::default()
    };
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    world.feed(B, live(&[&b.tag(1, "b")]));
    world.feed(C, live(&[&c.tag(1, "c")]));
    let name = "x".repeat(limits.value_bytes_max - encoded(7, "").len() - 1);
    assert_eq!(encoded(7, &name).len(), limits.value_bytes_max);
    let before = world.own();
    world.commit(vec![tag(7, &name)]).unwrap();
    let frame_bytes = limits.frame_bytes_least().try_into().unwrap();
    world.sent.clear();
    let heads = Capped(vec![before, b.head(), c.head()]);
    world.feed(C, wire::pull(GROUP, &Pull { frame_bytes, heads, ..pull_all() }));
    let said = world.said();
    let [(_, Message::Page(head, page))] = &said[..] else { panic!("{said:?}") };
    let page = page.whole(REPLICA);
    assert_eq!((head.too_long, page.len()), (None, 1));
}

/// A page is no longer than the frames of its puller may be, whatever budget the pull names.
#[test]
fn a_page_fits_into_the_frames_of_whoever_asked() {
    let mut world = World::connected(Rules::ALL);
    for n in 0..50 {
        world.commit(vec![tag(n, "some name")]).unwrap();
    }
    world.sent.clear();
    world.feed(C, wire::pull(GROUP, &Pull { frame_bytes: 2_000, ..pull_all() }));
    let (len, said) = (world.sent[0].1.len(), world.said());
    let [(_, Message::Page(head, page))] = &said[..] else { panic!("{said:?}") };
    let page = page.whole(REPLICA);
    assert!(head.more && page.len() > 3 && len <= 2_000, "{len} bytes");
}

/// The largest commit that the limits of the author let through is taken where the limits are the same, and one that is
/// larger by one stops its stream, for each of them.
#[test]
fn c16_a_received_commit_is_taken_at_each_limit_and_stops_its_stream_above_it() {
    const ID: usize = 20;
    const VALUE: usize = 2_000;
    let write = |n: u8| (RecordKey::from_parts("note", None, &[n; ID]), Some(vec![n; VALUE]), None);
    type Field = fn(&mut Limits) -> &mut usize;
    let cases: [(&str, Field, usize); 5] = [
        ("entry_bytes_max", |limits| &mut limits.entry_bytes_max, 2 * (66 + "note".len() + ID)),
        ("id_bytes_max", |limits| &mut limits.id_bytes_max, ID),
        ("value_bytes_max", |limits| &mut limits.value_bytes_max, VALUE),
        ("commit_changes_max", |limits| &mut limits.commit_changes_max, 2),
        ("commit_bytes_max", |limits| &mut limits.commit_bytes_max, 2 * (ID + VALUE)),
    ];
    for (name, field, most) in cases {
        for (frame, max) in
            [(live as fn(&[&Made]) -> Bytes, most), (page, most), (live, most - 1), (page, most - 1)]
        {
            // A single record always fits, so it must be smaller than the whole commit.
            let mut limits = Limits { value_bytes_max: VALUE, ..Limits::default() };
            *field(&mut limits) = max;
            let mut world = World::limited(limits);
            let made = Author::new(B, B_DEVICE).commit(&[], vec![write(1), write(2)]);
            world.feed(B, frame(&[&made]));
            let stop = world.stop_of(B);
            if max == most {
                assert_eq!((world.seq_of(B), stop), (1, None), "{name} is {max}");
            } else {
                let Some(StreamStop::Refused { seq: 1, reason }) = stop else { panic!("{name}: {stop:?}") };
                assert!(reason.contains(&format!("`Limits::{name}` = {max}")), "{reason}");
                assert_eq!(world.seq_of(B), 0, "{name} is {max}");
            }
        }
    }
}

/// Received commits share a write up to exactly the changes that one commit may have.
#[test]
fn received_commits_share_a_write_up_to_the_changes_of_one_commit() {
    let pair = |n| vec![tagged(n, "a"), tagged(n + 1, "b")];
    for (commit_changes_max, writes) in [(6, vec![3]), (5, vec![2, 1]), (4, vec![2, 1]), (3, vec![1, 1, 1])] {
        let mut world = World::limited(Limits { commit_changes_max, ..Limits::default() });
        let mut b = Author::new(B, B_DEVICE);
        let made = [1, 3, 5].map(|n| b.commit(&[], pair(n)));
        world.writes.clear();
        world.feed(B, live(&made.iter().collect::<Vec<_>>()));
        let logged = world.writes.iter().map(|batch| logged_in(batch).len()).filter(|count| *count > 0);
        assert_eq!(logged.collect::<Vec<_>>(), writes, "{commit_changes_max}");
        assert_eq!(world.seq_of(B), 3);
    }
}

/// A frame counts with all that is in it, also with messages of kinds that are not known here.
#[test]
fn a_frame_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() {
    const FRAME_BYTES_MAX: usize = 4_000;
    const LATER_KIND: u8 = 200;
    let commit = live(&[&Author::new(B, B_DEVICE).tag(1, "a")]);
    let greeting = hello(7, &[]);
    for good in [commit, greeting] {
        for (len, taken) in [(FRAME_BYTES_MAX, true), (FRAME_BYTES_MAX + 1, false)] {
            let mut world = World::limited(Limits { frame_bytes_max: FRAME_BYTES_MAX, ..Limits::default() });
            let around = wire::sealed(GROUP, LATER_KIND, &[]).len();
            let rest = wire::sealed(GROUP, LATER_KIND, &vec![7; len - good.len() - around]);
            let frame: Bytes = [&good[..], &rest].concat().into();
            assert_eq!(frame.len(), len);
            world.events();
            world.feed(B, frame);
            let events = world.events();
            let refused = events.iter().find_map(|event| match event {
                Event::FrameRejected { from: B, reason, .. } => Some(reason.clone()),
                _ => None,
            });
            assert_eq!(refused.is_none(), taken, "{len}: {refused:?}");
            assert!(refused.is_none_or(|reason| reason.contains("Limits::frame_bytes_max")));
        }
    }
}
