//! Goal: Y16, a slow link carries what is needed, once. Method: peers that answer late, say what is coming, acknowledge late,
//! or have not got what comes before.

use super::*;

/// Y16: a live commit that comes too early would be dropped, and take the link from the page that the peer waits for. The
/// peer is told that there is more, once, and gets live commits again when nothing is between.
#[test]
fn a_live_commit_goes_to_whom_nothing_before_it_is_missing() {
    for (rules, spared) in [(Rules::ALL, true), (without!(live_follows), false)] {
        let mut world = World::connected(rules);
        let own = world.own();
        world.feed(B, hello(1, &[own]));
        world.feed(C, hello(1, &[]));
        // Hellos tell how far the own stream is, too.
        world.pass(2_000);
        world.pass(2_000);
        world.said();
        let reached = |world: &mut World, id| {
            world.reached.clear();
            world.commit(vec![tag(id, "a")]).unwrap();
            world.reached.clone()
        };
        let words = |world: &mut World| {
            let own = world.own();
            let said = world.said().into_iter();
            said.filter(|said| *said == (Some(C), Message::Ack(Capped(vec![own])))).count()
        };
        assert_eq!(reached(&mut world, 1), if spared { vec![B] } else { vec![B, C] });
        if !spared {
            continue;
        }
        assert_eq!(words(&mut world), 1, "C is told");
        assert_eq!(reached(&mut world, 2), [B]);
        assert_eq!(words(&mut world), 0, "C knows");
        world.pass(2_000);
        assert_eq!(words(&mut world), 1, "the word may have been lost, also where nobody commits");
        assert_eq!(reached(&mut world, 3), [B]);
        assert_eq!(words(&mut world), 0, "C was told a moment ago");
        // A page that promises more promises another pull. One that does not has made C level.
        for (budget, level) in [(1, vec![B]), (1 << 20, vec![B, C])] {
            world.feed(C, wire::pull(GROUP, &Pull { budget, ..pull_all() }));
            world.said();
            assert_eq!(reached(&mut world, 10 + budget), level);
            assert_eq!(words(&mut world), 0);
        }
    }
}

/// Y16: no gap where a page ends and live commits begin. A commit that became durable while the page was put together is
/// in neither, so the peer is told of it behind the page.
#[test]
fn a_commit_that_is_made_while_a_page_is_read_is_told_behind_it() {
    let mut world = World::connected(Rules::ALL);
    world.feed(C, hello(1, &[]));
    world.commit(vec![tag(1, "a")]).unwrap();
    world.said();
    world.handle(Input::Frame(C, wire::pull(GROUP, &pull_all())));
    let job = world.up_to_find();
    world.submit(vec![tag(2, "b")]);
    world.reached.clear();
    let mut batch = None;
    while let Some(effect) = world.engine.next_effect() {
        match effect {
            Effect::Read(job, keys) => {
                let values = block_on(world.store.get_many(&keys));
                world.handle(Input::Read(job, keys, values));
            }
            Effect::Write(job, written) => {
                world.open = Some((job, None));
                batch = Some(written);
            }
            other => panic!("{other:?} comes before the write"),
        }
    }
    world.written(batch.expect("the commit is written"));
    world.settle();
    assert!(!world.reached.contains(&C));
    let answer = world.find(Query::Scan(keys::logs_from(REPLICA, 1), ScanLimit::entries(4)));
    world.handle(Input::Found(job, answer));
    world.settle();
    let to_c: Vec<_> = world.said().into_iter().filter(|(to, _)| *to == Some(C)).collect();
    let [.., (_, Message::Page(head, page)), (_, Message::Ack(word))] = &to_c[..] else { panic!("{to_c:?}") };
    assert_eq!((head.more, page.whole(REPLICA).len()), (false, 4));
    assert_eq!(word.0, [world.own()]);
}

/// Y16: on a slow link what was not acknowledged lies in the queue of the transport, and is lost where that is full.
#[test]
fn no_live_commit_goes_to_a_peer_that_is_more_than_a_page_behind() {
    let limits = Limits { page_bytes_max: 1_000, ..Limits::default() };
    let mut world = World::limited(limits);
    for peer in [B, C] {
        let own = world.own();
        world.feed(peer, hello(1, &[own]));
    }
    let mut reached = Vec::new();
    for n in 0..20 {
        world.reached.clear();
        world.commit(vec![tag(n, "some name")]).unwrap();
        let own = world.own();
        world.feed(B, wire::ack(GROUP, &Capped(vec![own])));
        reached.push(world.reached.contains(&C));
        assert!(world.reached.contains(&B));
    }
    let live = reached.iter().filter(|reached| **reached).count();
    assert!((5..15).contains(&live) && reached.is_sorted_by(|one, next| one >= next), "{reached:?}");
}

/// Y16: a page may take minutes. Its peer has said so, and is neither asked again nor blamed.
#[test]
fn a_page_that_is_coming_is_waited_for() {
    for (rules, waits) in [(Rules::ALL, true), (without!(pages_follow_the_link), false)] {
        let mut world = World::connected(rules);
        let mut b = Author::new(B, B_DEVICE);
        let made = b.tag(1, "a");
        world.said();
        world.feed(B, hello(1, &[b.head()]));
        let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked") };
        world.pass(5_000);
        world.feed(B, wire::coming(GROUP, &wire::Coming { id: pull.id, bytes: 1_000_000 }));
        for _ in 0..50 {
            world.pass(10_000);
        }
        assert_eq!((world.pulls().is_empty(), world.backs_off(B)), (waits, !waits));
        world.feed(B, page_of(answer(pull, false), &[&made]));
        assert_eq!((world.seq_of(B), world.backs_off(B)), (1, !waits));
    }
}

/// Says hello as `b`, which has commits; returns the pull that asks for them.
fn asked_by_hello(world: &mut World, b: &Author) -> Pull {
    world.said();
    world.feed(B, hello(1, &[b.head()]));
    let [(B, pull)] = &world.pulls()[..] else { panic!("B is asked") };
    pull.clone()
}

/// The pull, and the one that goes on from it, which were sent since the last time.
fn pull_and_next(world: &mut World) -> (Pull, wire::PullOn) {
    let asked = world.said().into_iter().map(|(_, message)| message);
    let mut asked = asked.filter(|message| matches!(message, Message::Pull(_) | Message::PullOn(_)));
    match (asked.next(), asked.next(), asked.next()) {
        (Some(Message::Pull(pull)), Some(Message::PullOn(on)), None) => (pull, on),
        other => panic!("{other:?}"),
    }
}

/// Y16: a late page is an answer: it ends the pause of its peer, and the next page is asked for at once.
#[test]
fn a_page_that_comes_late_is_an_answer() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made = [b.tag(1, "a"), b.tag(2, "b")];
    let pull = &asked_by_hello(&mut world, &b);
    world.pass(30_000);
    assert!(world.backs_off(B) && world.pulls().is_empty());
    world.feed(B, page_of(answer(pull, true), &[&made[0]]));
    assert!(!world.backs_off(B));
    let [(B, next)] = &world.pulls()[..] else { panic!("B is asked at once") };
    assert_eq!(next.heads.0.iter().find(|head| head.stream == B).unwrap().seq, 1);
    assert!(next.budget < pull.budget, "less, since it was slow");
}

/// Y16: over a long way the link would be idle until the next pull has come. So pages are asked for behind those that are on
/// their way, and these go on where the ones before them ended.
#[test]
fn pages_are_asked_for_behind_those_on_their_way() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made: Vec<_> = (0..6).map(|n| b.tag(n, "some name")).collect();
    let coming = |id| wire::coming(GROUP, &wire::Coming { id, bytes: 6_000 });
    let pull = &asked_by_hello(&mut world, &b);
    world.pass(10_000);
    world.feed(B, coming(pull.id));
    world.pass(1_000);
    world.feed(B, page_of(answer(pull, true), &[&made[0]]));
    let (pull, on) = &pull_and_next(&mut world);
    assert_eq!((on.behind, on.id), (pull.id, pull.id.wrapping_add(1)));
    // The pages come one behind the other; nothing is asked for from the heads on until they have.
    world.feed(B, page_of(answer(pull, true), &[&made[1], &made[2]]));
    let said = world.said();
    assert!(!said.iter().any(|(_, message)| matches!(message, Message::Pull(_))), "{said:?}");
    // A page with a gap before it, since the one before was lost, is of no use: B is asked from the heads on.
    world.feed(B, page_of(PageHead { id: on.id, ..answer(pull, true) }, &[&made[4]]));
    let [(B, again)] = &world.pulls()[..] else { panic!("B is asked at once") };
    assert_eq!(again.heads.0.iter().find(|head| head.stream == B).unwrap().seq, 3);
    assert!(!world.backs_off(B), "nobody is to blame");
}

/// Y16: the page behind one has its time from there on: as much as it may take to come, and as its bytes take on the link. A
/// peer that is as slow as it was measured to be is not blamed, and not asked twice for the same.
#[test]
fn the_page_behind_one_has_its_own_time() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made: Vec<_> = (0..6).map(|n| b.tag(n, "some name")).collect();
    let pull = &asked_by_hello(&mut world, &b);
    world.pass(8_000);
    world.said();
    world.feed(B, wire::coming(GROUP, &wire::Coming { id: pull.id, bytes: 6_000 }));
    world.pass(1_000);
    world.feed(B, page_of(answer(pull, true), &[&made[0]]));
    let (pull, on) = &pull_and_next(&mut world);
    // A round trip of 8 s gives a page 42 s to show itself. Its bytes take 8 s more, of which twice as much is given.
    world.pass(10_000);
    world.feed(B, page_of(answer(pull, true), &[&made[1]]));
    world.said();
    for _ in 0..50 {
        world.pass(1_000);
        assert_eq!((world.pulls(), world.backs_off(B)), (vec![], false));
    }
    world.feed(B, page_of(PageHead { id: on.id, ..answer(pull, false) }, &[&made[2]]));
    assert_eq!((world.seq_of(B), world.backs_off(B)), (3, false));
}

/// The other side of that: a page goes on where the one before it ended, also while the puller does not have that one; and
/// one that goes on from nothing is empty.
#[test]
fn a_page_goes_on_where_the_one_before_it_ended() {
    let mut world = World::connected(Rules::ALL);
    for n in 0..5 {
        world.commit(vec![tag(n, "some name")]).unwrap();
    }
    let (_, first) = world.page(C, &[], 300);
    let seqs = |page: &[WireCommit]| page.iter().map(|commit| commit.seq).collect::<Vec<_>>();
    let on = |world: &mut World, id, behind, budget| {
        world.feed(C, wire::pull_on(GROUP, &wire::PullOn { id, behind, budget }));
        let said = world.said().into_iter().rev();
        let mut pages = said.filter_map(|(_, message)| match message {
            Message::Page(head, page) => Some((head, page.whole(REPLICA))),
            _ => None,
        });
        pages.next().expect("a page")
    };
    let id = pull_all().id;
    let (head, second) = on(&mut world, id + 1, id, 300);
    assert_eq!((head.id, head.more), (id + 1, true));
    let (head, third) = on(&mut world, id + 2, id + 1, 1 << 20);
    assert!(!head.more);
    assert_eq!([seqs(&first), seqs(&second), seqs(&third)].concat(), (1..=8).collect::<Vec<_>>());
    let (head, empty) = on(&mut world, id + 3, id + 2, 1 << 20);
    assert_eq!((head.id, head.more, empty.len()), (id + 3, false, 0), "there is nothing behind it");
}
