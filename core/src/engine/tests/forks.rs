//! Goal: a stream with two histories stops wherever they meet, and stays stopped. Method: an author that is copied, as a
//! restored backup is, and goes on twice.

use super::*;

/// H3, Y15: two histories of one stream. The stream stops, visibly and also after a restart; the others go on.
#[test]
fn a_stream_with_two_histories_stops() {
    for (rules, mixed) in [(Rules::ALL, false), (without!(chains_are_checked), true)] {
        let mut world = World::connected(rules);
        let mut b = Author::new(B, B_DEVICE);
        let first = b.tag(1, "a");
        let mut restored = b.clone();
        let (second, other) = (b.tag(1, "b"), restored.tag(1, "x"));
        let third = restored.tag(1, "y");
        world.feed(B, live(&[&first, &second]));
        // Eight bytes prove nothing: a live commit of another history is pulled, and the page shows whole digests.
        world.said();
        world.feed(B, live(&[&third]));
        assert_eq!((world.stop_of(B), world.pulls().len()), (None, 1));
        world.feed(B, page(&[&third]));
        world.convince(B, &[&first, &other, &third]);
        assert_eq!(world.tag_name(1).as_deref(), Some(if mixed { "y" } else { "b" }), "{}", other.seq);
        if mixed {
            assert!(!world.audit().is_empty());
            continue;
        }
        assert_eq!(world.stop_of(B), Some(StreamStop::Forked { seq: 2 }));
        assert!(
            world.events().contains(&Event::Stopped { stream: B, reason: StreamStop::Forked { seq: 2 } })
        );
        let c = Author::new(C, C_DEVICE).tag(2, "c");
        world.feed(C, live(&[&c]));
        assert_eq!(world.seq_of(C), 1);
        world.reopen(networked(rules));
        assert_eq!(world.stop_of(B), Some(StreamStop::Forked { seq: 2 }), "it is remembered");
        assert_eq!(world.audit(), []);
        let fork =
            world.engine.report().streams.into_iter().find(|view| view.replica == B).unwrap().fork.unwrap();
        let digest = |made: &Made| chain(&split_row(&made.row).unwrap().0, split_row(&made.row).unwrap().1);
        assert_eq!((fork.seq, fork.by, fork.there, fork.here), (2, B, digest(&other), Some(digest(&second))));
    }
}

/// A fork is also seen without a second commit at one place: in the heads of a hello, and by the replica that answers a
/// pull.
#[test]
fn a_fork_is_seen_from_digests_alone() {
    let mut b = Author::new(B, B_DEVICE);
    let first = b.tag(1, "a");
    let mut other = b.clone();
    let (second, twin) = (b.tag(1, "b"), other.tag(1, "x"));
    let mut world = World::connected(Rules::ALL);
    world.feed(B, live(&[&first, &second]));
    world.feed(C, hello(1, &[other.head()]));
    assert_eq!(world.stop_of(B), None, "not before it was shown");
    world.convince(C, &[&first, &twin]);
    assert!(matches!(world.stop_of(B), Some(StreamStop::Forked { .. })));

    let mut world = World::connected(Rules::ALL);
    let third = b.tag(1, "c");
    world.feed(B, live(&[&first, &second, &third]));
    let (_, page) = world.page(C, &[other.head()], 1 << 20);
    let third_page = page;
    world.feed(C, hello(1, &[other.head()]));
    world.convince(C, &[&first, &twin]);
    let page = third_page;
    assert!(matches!(world.stop_of(B), Some(StreamStop::Forked { .. })));
    let of_b: Vec<_> = page.iter().filter(|commit| commit.stream == B).map(|commit| commit.seq).collect();
    assert_eq!(of_b, [3], "the puller sees it too, and nothing behind it");
}

/// Another history is also seen at the head of a stream, and at a place before it.
#[test]
fn a_fork_is_seen_at_the_head_and_behind_it() {
    let mut b = Author::new(B, B_DEVICE);
    let first = b.tag(1, "a");
    let mut other = b.clone();
    let (second, twin) = (b.tag(1, "b"), other.tag(1, "x"));
    let behind = other.head();
    let third = b.tag(1, "c");
    let forked = Some(StreamStop::Forked { seq: 2 });

    let mut world = World::connected(Rules::ALL);
    world.feed(B, live(&[&first, &second]));
    world.feed(C, live(&[&second]));
    assert_eq!(world.stop_of(B), None);
    world.said();
    world.feed(C, page(&[&twin]));
    world.convince(C, &[&first, &twin]);
    assert_eq!(world.stop_of(B), forked);
    let told =
        world.said().into_iter().any(|(to, message)| to == Some(B) && matches!(message, Message::Hello(_)));
    assert!(told, "its author learns of it from the digest here");

    let mut world = World::connected(Rules::ALL);
    world.feed(B, live(&[&first, &second, &third]));
    world.feed(
        C,
        hello(
            1,
            &[WireHead {
                seq: 1,
                digest: chain(&chain_start(GROUP, B), split_row(&first.row).unwrap().1),
                ..behind
            }],
        ),
    );
    assert_eq!(world.stop_of(B), None, "the same one, further back");
    world.feed(C, hello(1, &[behind]));
    world.convince(C, &[&first, &twin]);
    assert_eq!(world.stop_of(B), forked);
}

/// A commit on the other history of a forked stream is not applied: it may rest on records that are not here. Its cause
/// may be the last commit of its stream, one before that, or one that comes in the same frame.
#[test]
fn what_rests_on_another_history_is_not_applied() {
    let mut b = Author::new(B, B_DEVICE);
    let first = b.tag(1, "a");
    let mut other = b.clone();
    let (second, _) = (b.tag(1, "b"), other.tag(1, "x"));
    let (here, elsewhere) = (b.head(), other.head());
    let third = b.tag(1, "c");
    for (rules, applied) in [(Rules::ALL, false), (without!(causes_are_compared), true)] {
        for (before, with) in [(2, 0), (3, 0), (1, 1), (1, 2), (0, 3)] {
            let mut world = World::connected(rules);
            let of_b = [&first, &second, &third];
            world.feed(B, live(&of_b[..before]));
            let mut c = Author::new(C, C_DEVICE);
            let fine = c.commit(&[here], vec![tagged(2, "c")]);
            let wrong = c.commit(&[elsewhere], vec![tagged(3, "c")]);
            let behind = c.tag(4, "c");
            let of_c = [&fine, &wrong, &behind];
            let all: Vec<_> = of_b[before..before + with].iter().chain(&of_c).copied().collect();
            world.feed(C, live(&all));
            let case = format!("{before} before, {with} with them");
            let len = u64::try_from(before + with).unwrap();
            if applied {
                assert_eq!((world.seq_of(B), world.seq_of(C)), (len, 3), "{case}");
                assert!(world.audit().contains(&Rule::CausesAreHere));
                continue;
            }
            assert_eq!((world.seq_of(B), world.seq_of(C)), (len, 1), "{case}");
            let Some(StreamStop::Refused { seq: 2, reason }) = world.stop_of(C) else {
                panic!("{case}: {:?}", world.stop_of(C))
            };
            assert!(reason.contains("another history"), "{reason}");
            assert_eq!((world.stop_of(B), world.audit()), (None, vec![]), "nobody accuses B by eight bytes");
            // All others go on.
            world.feed(B, live(&[&b.clone().tag(5, "b")]));
            assert_eq!(world.commit(vec![tag(6, "x")]).err().map(|error| error.to_string()), None);
            world.said();
            world.feed(C, live(&[&wrong, &behind]));
            assert_eq!(world.seq_of(C), 1, "{case}");
            world.reopen(networked(rules));
            assert_eq!((world.seq_of(C), world.audit()), (1, vec![]), "{case}");
        }
    }
}

/// A commit that a peer made up in the name of another stops that stream only until its author sends its own.
#[test]
fn c15_a_made_up_cause_stops_nobody_for_good() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    world.feed(B, live(&[&b.tag(1, "a")]));
    let c = Author::new(C, C_DEVICE);
    let made_up = c.clone().commit(&[WireHead { digest: [7; 32], ..b.head() }], vec![tagged(2, "x")]);
    world.feed(B, live(&[&made_up]));
    assert!(matches!(world.stop_of(C), Some(StreamStop::Refused { seq: 1, .. })));
    world.feed(C, live(&[&c.clone().commit(&[b.head()], vec![tagged(2, "c")])]));
    assert_eq!((world.seq_of(C), world.stop_of(C), world.audit()), (1, None, vec![]));
}
