//! Goal: a frame that is damaged or lies about its values changes nothing, and its sender is named. Method: frames with
//! bytes changed, cut off or made up at random.

use super::*;

/// A frame counts as a whole: damage anywhere in it refuses all of it.
#[test]
fn a_frame_that_is_damaged_anywhere_changes_nothing() {
    let mut world = World::connected(Rules::ALL);
    let made = Author::new(B, B_DEVICE).tag(1, "a");
    let before = world.content();
    let good = live(&[&made]);
    for bad in [&b"SYNL"[..], &hello(1, &[])[..36], &wire::sealed(GROUP, 6, &[9])] {
        world.feed(B, [&good[..], bad].concat().into());
        assert_eq!((world.seq_of(B), world.content() == before), (0, true), "{bad:?}");
    }
    world.feed(B, [&good[..], &hello(1, &[])].concat().into());
    assert_eq!(world.seq_of(B), 1);
}

#[test]
fn values_must_be_what_their_commit_says() {
    for (rules, taken) in [(Rules::ALL, false), (without!(ends_are_checked), true)] {
        for frame in [live, page] {
            let mut world = World::connected(rules);
            let mut b = Author::new(B, B_DEVICE);
            let (mut made, behind) = (b.tag(1, "a"), b.tag(2, "b"));
            let other = Author::new(C, C_DEVICE).tag(3, "c");
            *made.values.last_mut().unwrap() ^= 1;
            world.feed(C, frame(&[&made, &behind, &other]));
            assert_eq!(
                (world.seq_of(B), world.seq_of(C)),
                (if taken { 2 } else { 0 }, 1),
                "other runs are taken"
            );
            let rejected =
                world.events().iter().filter(|event| matches!(event, Event::FrameRejected { .. })).count();
            assert_eq!((rejected, world.audit()), (usize::from(!taken), vec![]));
            // The history that was taken is one that nobody else has.
            world.feed(B, hello(1, &[b.head()]));
            if taken {
                assert!(world.convince(B, &[&made, &behind]) > 0, "its author shows the real one");
            }
            assert_eq!(world.stop_of(B).is_some(), taken);
            assert_eq!(world.pulls().is_empty(), taken, "the author is asked");
        }
        for cut in
            [|values: &mut Vec<u8>| values.truncate(values.len() - 1), |values: &mut Vec<u8>| values.push(0)]
        {
            let mut world = World::connected(rules);
            let mut made = Author::new(B, B_DEVICE).tag(1, "a");
            cut(&mut made.values);
            world.feed(C, live(&[&made]));
            assert_eq!(world.seq_of(B), 0);
            let rejected = world
                .events()
                .into_iter()
                .any(|event| matches!(event, Event::FrameRejected { from: C, count: 1, .. }));
            assert!(rejected, "it says who");
        }
    }
}

#[test]
fn damaged_frames_are_counted_and_told_ever_more_rarely() {
    let mut world = World::connected(Rules::ALL);
    let before = world.content();
    for _ in 0..100 {
        world.feed(B, Bytes::from_static(b"SYNL nonsense"));
    }
    let counts: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::FrameRejected { from: B, count, .. } => Some(count),
            _ => None,
        })
        .collect();
    assert_eq!(counts, [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(world.content(), before);
    assert_eq!(world.peer(B).rejected, 100);
}

proptest! {
    /// I11, bad input: whatever bytes come from a member, behind a checksum that fits, nothing panics, and the store stays
    /// whole.
    #[test]
    fn no_bytes_break_an_engine(
        kind in 0..9u8,
        body in prop::collection::vec(any::<u8>(), 0..200),
        flips in prop::collection::vec((0..400usize, any::<u8>()), 0..4),
    ) {
        let mut world = World::connected(Rules::ALL);
        let mut b = Author::new(B, B_DEVICE);
        let good = live(&[&b.tag(1, "a"), &b.commit(&[WireHead { stream: C, seq: 1, digest: [7; 32] }], vec![bagged(1, &[1], Hlc::NEVER)])]);
        world.feed(B, wire::sealed(GROUP, kind, &body));
        let mut bytes = good[wire::HEADER_LEN..].to_vec();
        for (at, byte) in flips {
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
        world.feed(B, wire::sealed(GROUP, good[6], &bytes));
        world.pass(20_000);
        prop_assert_eq!(world.audit(), []);
    }
}
