//! Goal: no stream goes on from a wrong head, and a head that its log or a peer proves is put right. Method: bits of heads and
//! of last rows are flipped while the store is closed.

use super::*;

/// The fields of a stored head: where each begins, and its length.
const SEQ: (usize, usize) = (1, 8);
const STAMP: (usize, usize) = (9, 8);
const DIGEST: (usize, usize) = (17, 32);
const FLOOR_DIGEST: (usize, usize) = (57, 32);

/// A replica with three commits of B and one of C, and all commits of a stream here.
fn relay(stream: ReplicaId) -> (World, Vec<Made>) {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made = [b.tag(1, "a"), b.tag(2, "b"), b.tag(3, "c")];
    made.iter().for_each(|made| world.feed(B, live(&[made])));
    world.feed(C, live(&[&Author::new(C, C_DEVICE).tag(5, "f")]));
    world.commit(vec![tag(6, "x")]).unwrap();
    let rows = world.store.entries(keys::logs(stream));
    let commits = rows.into_iter().zip(1..).map(|(Entry { value: row, .. }, seq)| {
        let stamp = LogEntry::parse(stream, split_row(&row).unwrap().1).unwrap().stamp;
        Made { stream, seq, row, values: Vec::new(), stamp }
    });
    let commits = commits.collect();
    (world, commits)
}

/// Flips a bit of a row, and opens the store again among its peers.
fn flipped(world: &mut World, key: &Key, at: usize) {
    world.store.0.lock().unwrap().get_mut(key).unwrap()[at] ^= 1 << (at % 8);
    world.notices.clear();
    world.sent.clear();
    world.reopen(networked(Rules::ALL));
    for peer in [B, C] {
        world.handle(Input::Up(peer));
    }
    world.settle();
}

fn head_of(world: &World, stream: ReplicaId) -> WireHead {
    let head = Head::parse(stream, &world.get(keys::head(stream)).unwrap()).unwrap();
    WireHead { stream, seq: head.seq, digest: head.digest }
}

fn damaged(world: &World, stream: ReplicaId) -> Option<DamagedPart> {
    let streams = world.engine.report().streams;
    streams.into_iter().find(|view| view.replica == stream).unwrap().damaged.map(|damage| damage.part)
}

/// C19: whatever stands in a damaged head, its stream goes no further, peers hear nothing of it, and what they say of the
/// stream proves nothing. A peer that has the stream mends it.
#[test]
fn no_stream_goes_on_from_a_wrong_head() {
    let places = |(at, len): (usize, usize)| (at..at + len).step_by(3);
    for stream in [REPLICA, B] {
        let last = keys::log(stream, head_of(&relay(stream).0, stream).seq);
        let in_head = places(SEQ).chain([8]).chain(places(DIGEST)).map(|at| (keys::head(stream), at));
        let in_row = (0..relay(stream).0.get(last.clone()).unwrap().len()).step_by(9);
        for (key, at) in in_head.chain(in_row.map(|at| (last.clone(), at))) {
            let what = format!("byte {at} of {key:02x?}");
            let (mut world, commits) = relay(stream);
            let (before, head) = (world.content(), head_of(&world, stream));
            flipped(&mut world, &key, at);
            assert_eq!(damaged(&world, stream), Some(DamagedPart::Head), "{what}");
            let told = |event: &Event| matches!(event, Event::Damaged(damage) if damage.stream == stream);
            assert!(world.events().iter().any(told), "{what}");
            // Peers hear of all other streams.
            let said: Vec<_> = world.said().into_iter().collect();
            let heads = said.iter().find_map(|(_, message)| match message {
                Message::Hello(hello) => Some(hello.heads.0.clone()),
                _ => None,
            });
            let named: BTreeSet<_> = heads.unwrap().iter().map(|head| head.stream).collect();
            let expected = [REPLICA, B, C].into_iter().filter(|other| *other != stream).collect();
            assert_eq!(named, expected, "{what}");
            // The stream stands still.
            let commit = world.commit(vec![tag(8, "more")]);
            let mut next = Author { seq: head.seq, digest: head.digest, ..Author::new(B, B_DEVICE) };
            next.wall = 1_500;
            if stream == REPLICA {
                let Err(Error::LogDamaged(damage)) = commit else { panic!("{what}: {commit:?}") };
                assert_eq!((damage.stream, damage.part), (REPLICA, DamagedPart::Head));
            } else {
                commit.unwrap();
                let rests_on = world.logged(world.own().seq).after;
                assert!(rests_on.iter().all(|cause| cause.stream != B), "{what}: {rests_on:?}");
                let now = world.content();
                world.feed(B, live(&[&next.clone().tag(9, "more")]));
                assert!(world.content() == now, "{what}");
            }
            // Nor does the word of a peer prove anything.
            world.feed(C, hello(1, &[head]));
            world.feed(C, wire::regressed(GROUP, &head));
            assert_eq!((world.engine.report().restored, world.shows(C)), (None, vec![]), "{what}");
            assert!(world.pulls().iter().all(|(_, pull)| {
                pull.excluded.0.contains(&stream) && pull.heads.0.iter().all(|head| head.stream != stream)
            }));
            world.handle(Input::CheckLog(Ticket(900)));
            world.settle();
            world.convince(C, &commits.iter().collect::<Vec<_>>());
            let check = world.checked.pop().expect("a result").1.unwrap();
            assert_eq!((check.mended, check.damaged), (1, vec![]), "{what}");
            let content = world.content();
            let own = |key: &Key| key.starts_with(&keys::head(stream)) || key.starts_with(&last);
            let is_before = |(key, value): (&Key, &Value)| !own(key) || before.get(key) == Some(value);
            assert!(content.iter().all(is_before), "{what}");
            assert_eq!(damaged(&world, stream), None, "{what}");
            assert!(world.events().iter().any(|event| matches!(event, Event::Mended(_))), "{what}");
            world.commit(vec![tag(8, "and more")]).unwrap();
            if stream == B {
                world.feed(B, live(&[&next.tag(9, "more")]));
                assert_eq!(world.seq_of(B), head.seq + 1, "{what}");
            }
            assert_eq!(world.audit(), [], "{what}");
        }
    }
}

/// A peer that really has as many commits as a wrong head says is asked for them once the head is mended, and not only after its
/// next hello.
#[test]
fn a_peer_that_has_what_a_wrong_head_said_is_asked_once_it_is_mended() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    for id in 1..=4 {
        world.feed(B, live(&[&b.tag(id, "a")]));
    }
    // The lowest bit of the sequence number: 4 becomes 5.
    flipped(&mut world, &keys::head(B), 8);
    let fifth = b.tag(5, "b");
    world.feed(B, hello(2, &[b.head()]));
    assert_eq!((world.pulls().len(), damaged(&world, B)), (0, Some(DamagedPart::Head)));
    world.handle(Input::CheckLog(Ticket(900)));
    world.settle();
    assert_eq!(world.checked.pop().expect("a result").1.unwrap().mended, 1, "the log proves its end");
    let pulls = world.pulls();
    let [(B, pull)] = &pulls[..] else { panic!("{pulls:?}") };
    let page = page_of(answer(pull, false), &[&fifth]);
    world.feed(B, page);
    assert_eq!((world.seq_of(B), world.audit()), (5, vec![]));
}

/// A field of a head that its digest and its row prove needs nobody: it is put right at the opening.
#[test]
fn what_the_log_proves_is_put_right_at_the_opening() {
    for stream in [REPLICA, B] {
        for (at, len) in [STAMP, FLOOR_DIGEST] {
            for at in at..at + len {
                let (mut world, _) = relay(stream);
                let before = world.content();
                flipped(&mut world, &keys::head(stream), at);
                assert!(world.content() == before && damaged(&world, stream).is_none(), "byte {at}");
            }
        }
    }
}

/// A number that is wrong is found by reading the log, without any peer. A digest that is wrong is not: the last row may be
/// the damaged one.
#[test]
fn only_the_log_or_a_peer_mends_a_head() {
    for (at, mended) in [(SEQ.0 + 7, true), (SEQ.0, true), (DIGEST.0 + 5, false)] {
        let (mut world, commits) = relay(REPLICA);
        let before = world.content();
        flipped(&mut world, &keys::head(REPLICA), at);
        world.handle(Input::CheckLog(Ticket(900)));
        world.settle();
        let check = world.checked.pop().expect("nobody is asked").1.unwrap();
        assert_eq!((check.mended, check.damaged.is_empty()), (u64::from(mended), mended), "byte {at}");
        assert_eq!((world.content() == before, world.commit(vec![tag(9, "a")]).is_ok()), (mended, mended));
        if !mended {
            // Another row is no proof.
            let own = &commits[commits.len() - 1];
            let mut other = own.clone();
            other.row[60] ^= 1;
            world.feed(B, hello(1, &[WireHead { seq: own.seq, ..head_of(&world, REPLICA) }]));
            assert_eq!((world.convince(B, &[&other]), world.commit(vec![tag(9, "a")]).is_ok()), (1, false));
            world.feed(B, hello(2, &[WireHead { seq: own.seq, ..head_of(&world, REPLICA) }]));
            assert_eq!((world.convince(B, &[own]), world.commit(vec![tag(9, "a")]).is_ok()), (1, true));
        }
    }
}

/// A check that looks for the end of a log while a peer mends its head does not set the head back: the next commit would
/// take the place of one that was told to be durable.
#[test]
fn a_head_that_was_mended_and_has_moved_is_not_set_back() {
    let (mut world, commits) = relay(REPLICA);
    let seq = head_of(&world, REPLICA).seq;
    flipped(&mut world, &keys::head(REPLICA), DIGEST.0 + 5);
    world.handle(Input::CheckLog(Ticket(900)));
    world.settle();
    assert_eq!(world.checked.pop().expect("nobody is asked").1.unwrap().damaged.len(), 1);
    world.feed(B, hello(1, &[head_of(&world, REPLICA)]));
    let [show] = world.shows(B)[..] else { panic!("B is asked") };
    assert!(world.checks_up_to(|_| false).is_none(), "all reads of another check end");
    world.handle(Input::Frame(B, answer_to(&show, &commits.iter().collect::<Vec<_>>())));
    let mend = world.up_to_write().expect("the head is mended");
    world.written(mend);
    world.submit(vec![tag(9, "a")]);
    let commit = world.up_to_write().expect("the app may commit again");
    world.written(commit);
    world.settle();
    world.commit(vec![tag(9, "b")]).unwrap();
    assert_eq!((head_of(&world, REPLICA), world.own().seq), (world.own(), seq + 2));
    assert_eq!(world.checked.pop().expect("a result").1.unwrap().damaged, []);
    assert_eq!(world.audit(), []);
}

/// A stamp that nothing proves is not taken for the time: the clock would stay far ahead, and no peer would take a commit.
#[test]
fn the_stamp_of_an_unproven_head_moves_no_clock() {
    for stream in [REPLICA, B] {
        let (mut world, commits) = relay(stream);
        world.store.0.lock().unwrap().get_mut(&keys::head(stream)).unwrap()[STAMP.0] ^= 0x40;
        flipped(&mut world, &keys::head(stream), DIGEST.0 + 5);
        world.feed(C, hello(1, &[head_of(&world, stream)]));
        world.handle(Input::CheckLog(Ticket(900)));
        world.settle();
        world.convince(C, &commits.iter().collect::<Vec<_>>());
        assert_eq!(damaged(&world, stream), None);
        world.commit(vec![tag(8, "more")]).unwrap();
        assert!(world.head().stamp.wall().get() < 10_000, "{stream}: {}", world.head().stamp);
        assert_eq!(world.audit(), []);
    }
}

/// A replica that is alone has nothing else to read or to hear: its head is put right all the same.
#[test]
fn a_wrong_head_of_the_only_log_is_put_right() {
    let mut world = World::asking(networked(Rules::ALL));
    (0..3).for_each(|id| world.commit(vec![tag(id, "a")]).unwrap());
    let before = world.content();
    flipped(&mut world, &keys::head(REPLICA), SEQ.0 + 7);
    world.handle(Input::CheckLog(Ticket(900)));
    world.settle();
    let check = world.checked.pop().expect("a result").1.unwrap();
    assert_eq!((check.mended, check.damaged), (1, vec![]));
    assert!(world.content() == before && world.commit(vec![tag(9, "b")]).is_ok());
}
