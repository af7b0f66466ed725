//! Goal: no peer, broken network or damaged disk stops this replica, or makes it work without end. Method: frames that no
//! healthy peer sends, or that come twice, late, or not at all.

use super::*;

/// A world whose peers B and C have a commit each, and the pull that asks one of them first.
fn asking(one: ReplicaId) -> (World, Made, Made, Pull) {
    let mut world = World::connected(Rules::ALL);
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let (of_b, of_c) = (b.tag(1, "b"), c.tag(2, "c"));
    world.said();
    let (first, second) = if one == B { (b.head(), c.head()) } else { (c.head(), b.head()) };
    world.feed(first.stream, hello(1, &[first]));
    let pulls = world.pulls();
    let [(asked, pull)] = &pulls[..] else { panic!("{pulls:?}") };
    assert_eq!(*asked, one);
    let pull = pull.clone();
    world.feed(second.stream, hello(1, &[second]));
    assert!(world.pulls().is_empty(), "one page is on its way");
    (world, of_b, of_c, pull)
}

/// Y16: a page that answers no pull, such as one that comes twice, gives up no page that is on its way: otherwise each of them
/// would be asked for again, and a peer that names wrong pulls would be asked without end.
#[test]
fn a_page_that_nobody_asked_for_gives_up_no_page_on_its_way() {
    let (mut world, of_b, _, pull) = asking(B);
    for id in 0..3 {
        let id = pull.id.wrapping_sub(9).wrapping_sub(id);
        world.feed(B, page_of(PageHead { id, ..answer(&pull, false) }, &[]));
        assert!(world.pulls().is_empty(), "the page of B is on its way");
    }
    world.feed(B, page_of(answer(&pull, false), &[&of_b]));
    assert_eq!(world.seq_of(B), 1);
    let pulls = world.pulls();
    let [(C, next)] = &pulls[..] else { panic!("{pulls:?}") };
    world.feed(B, page_of(answer(&pull, false), &[&of_b]));
    world.feed(B, page_of(answer(next, false), &[&of_b]));
    assert!(world.pulls().is_empty(), "the page of C is on its way");
}

/// Y16: a word that a page is coming may come twice. The second one says nothing, also when the page is late by then.
#[test]
fn a_word_of_a_page_that_comes_twice_says_nothing() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made = b.tag(1, "b");
    world.said();
    world.feed(B, hello(1, &[b.head()]));
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked") };
    let coming = wire::coming(GROUP, &wire::Coming { id: pull.id, bytes: 3_000 });
    world.feed(B, coming.clone());
    world.feed(B, coming.clone());
    world.pass(60_000);
    assert!(world.backs_off(B) && world.pulls().is_empty());
    world.feed(B, coming);
    world.pass(1);
    assert!(world.engine.next_timeout().is_none_or(|at| at > world.now.mono));
    world.feed(B, page_of(answer(pull, false), &[&made]));
    assert_eq!((world.seq_of(B), world.backs_off(B)), (1, false));
}

/// Y16: a peer that says that a long page is coming, and does not send it, keeps nobody from the pages of others.
#[test]
fn a_page_that_takes_long_keeps_no_other_peer_from_being_asked() {
    for bytes in [u32::MAX, 1_000_000] {
        let (mut world, of_b, of_c, pull) = asking(B);
        world.feed(B, wire::coming(GROUP, &wire::Coming { id: pull.id, bytes }));
        let mut asked = Vec::new();
        for _ in 0..12 {
            world.pass(10_000);
            asked.extend(world.pulls());
            if !asked.is_empty() {
                break;
            }
        }
        let [(C, to_c)] = &asked[..] else { panic!("{asked:?}") };
        world.feed(C, page_of(answer(to_c, false), &[&of_c]));
        assert_eq!((world.seq_of(C), world.backs_off(B)), (1, false));
        assert!(world.pulls().is_empty(), "B is still sending");
        world.feed(B, page_of(answer(&pull, false), &[&of_b]));
        assert_eq!((world.seq_of(B), world.backs_off(B)), (1, false));
    }
}

/// Y8: what a peer says of a stream on which it is doubted, or was set aside, is no acknowledgement: its history is another
/// one.
#[test]
fn a_peer_that_is_doubted_acknowledges_nothing_of_the_stream() {
    for set_aside in [false, true] {
        let mut world = World::connected(Rules::ALL);
        let own = world.own();
        let other = WireHead { digest: [7; 32], ..own };
        world.feed(B, hello(1, &[other]));
        let shows = world.shows(B);
        if set_aside {
            world.feed(B, answer_to(&shows[0], &[]));
            assert!(world.events().iter().any(|event| matches!(event, Event::Disputed { .. })));
        } else {
            world.pass(10_001);
        }
        world.commit(vec![tag(1, "a")]).unwrap();
        world.feed(B, wire::ack(GROUP, &Capped(vec![other])));
        assert_eq!(world.peer(B).acknowledged, 0, "set aside: {set_aside}");
    }
}
