//! Goal: a replica whose store was restored from a backup learns it, commits no more and sends its second history to no
//! peer. Method: peers that know more of its stream than it does, before, during and after a write.

use super::*;

/// Y15, H3: a peer knows more of the own stream, or another digest of it, or that more was acknowledged once.
#[test]
fn y15_a_restored_store_stops_committing() {
    type Evidence = fn(&mut World, WireHead);
    let cases: [(&str, Evidence); 5] = [
        ("more", |world, own| {
            let more = world.copy_at(own.seq).tag(9, "more");
            world.feed(B, hello(1, &[WireHead { seq: own.seq + 1, ..own }]));
            world.convince(B, &[&more]);
        }),
        ("another digest", |world, own| {
            let mut copy = world.copy_at(own.seq - 1);
            let other = copy.tag(9, "other");
            world.feed(B, hello(1, &[copy.head()]));
            world.convince(B, &[&other]);
        }),
        ("another digest further back", |world, own| {
            let mut copy = world.copy_at(own.seq - 2);
            let other = copy.tag(9, "other");
            world.feed(B, hello(1, &[copy.head()]));
            world.convince(B, &[&other]);
        }),
        ("acknowledged", |world, _| {
            let head = WireHead { stream: C, seq: 3, digest: [7; 32] };
            world.feed(B, wire::regressed(GROUP, &head));
        }),
        ("seen by an author", |world, own| {
            let more = world.copy_at(own.seq).tag(9, "more");
            let made = Author::new(B, B_DEVICE)
                .commit(&[WireHead { seq: own.seq + 1, ..own }], vec![tagged(1, "a")]);
            world.feed(B, live(&[&made]));
            world.convince(B, &[&more]);
        }),
    ];
    for (what, evidence) in cases {
        for rules in [Rules::ALL, without!(restores_are_noticed)] {
            let mut world = World::connected(rules);
            world.submit(vec![tag(8, "waits")]);
            let own = world.own();
            evidence(&mut world, own);
            let result = world.commit(vec![tag(9, "x")]);
            if !rules.restores_are_noticed {
                assert!(result.is_ok(), "{what}");
                continue;
            }
            assert!(matches!(result, Err(Error::Restored(_))), "{what}: {result:?}");
            assert!(world.events().iter().any(|event| matches!(event, Event::Restored(_))), "{what}");
            assert!(world.engine.report().restored.is_some());
            let mut engine = world.reopened(networked(rules));
            engine
                .handle(now(2000), Input::Commit(Ticket(1), Commit { changes: vec![tag(9, "x")], bytes: 1 }));
            assert!(
                matches!(engine.next_effect(), Some(Effect::Reply(_, Err(Error::Restored(_))))),
                "{what}"
            );
            assert_eq!(world.audit(), [], "{what}");
        }
    }
}

/// A proof may come while the records of a round are read: the round would go on with a second history.
#[test]
fn a_round_that_was_read_before_the_proof_is_refused() {
    let mut world = World::connected(Rules::ALL);
    let before = world.own();
    let ticket = world.submit(vec![tag(8, "read")]);
    let (job, keys) = world.up_to_read();
    let acknowledged = WireHead { stream: C, seq: 3, digest: [7; 32] };
    world.handle(Input::Frame(B, wire::regressed(GROUP, &acknowledged)));
    let values = block_on(world.store.get_many(&keys));
    world.handle(Input::Read(job, keys, values));
    world.settle();
    let reply = world.replies.iter().find(|(replied, _)| *replied == ticket);
    assert!(matches!(reply, Some((_, Err(Error::Restored(_))))), "{reply:?}");
    assert_eq!(world.own(), before);
}

/// A hello of an earlier session, or from before an acknowledgement, proves nothing: the peer is told what it once
/// acknowledged, and knows better.
#[test]
fn y10_a_late_hello_restores_nobody() {
    let mut world = World::connected(Rules::ALL);
    world.commit(vec![tag(1, "a")]).unwrap();
    let acked = world.own();
    world.feed(B, hello(1, &[acked]));
    world.said();
    world.feed(B, hello(2, &[]));
    let asked =
        world.said().into_iter().any(|(to, message)| to == Some(B) && message == Message::Regressed(acked));
    assert!(asked, "B is told what it once acknowledged");
    assert!(world.engine.report().restored.is_none());
    // This replica, told the same, knows that it has that commit.
    world.feed(B, wire::regressed(GROUP, &acked));
    assert!(world.engine.report().restored.is_none());
    assert!(world.commit(vec![tag(2, "b")]).is_ok());
}

/// A place that could not be compared, since the store could not be read, is compared at the next hello.
#[test]
fn a_failed_comparison_is_made_again() {
    let mut world = World::connected(Rules::ALL);
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.head();
    let elsewhere = hello(1, &[WireHead { stream: REPLICA, seq: own.seq - 1, digest: [7; 32] }]);
    world.handle(Input::Frame(B, elsewhere.clone()));
    let job = world.up_to_find();
    world.handle(Input::Found(job, Err(ReadError("the disk is away".into()))));
    assert!(world.engine.report().restored.is_none());
    world.feed(B, elsewhere);
    let other = world.copy_at(own.seq - 2).tag(9, "other");
    world.convince(B, &[&other]);
    assert!(world.engine.report().restored.is_some());
}

/// The place before a stream's first commit has no digest that could differ.
#[test]
fn a_pull_from_the_beginning_proves_nothing() {
    let mut world = World::connected(Rules::ALL);
    let first = Author::new(B, B_DEVICE).tag(1, "a");
    world.feed(B, live(&[&first]));
    let nowhere = |stream| WireHead { stream, seq: 0, digest: [9; 32] };
    let (_, page) = world.page(C, &[nowhere(REPLICA), nowhere(B)], 1 << 20);
    assert!(page.iter().any(|commit| commit.stream == B));
    assert!(world.engine.report().restored.is_none());
    assert_eq!(world.stop_of(B), None);
}

/// The proof of a restore is the same after the store was opened again.
#[test]
fn what_proved_a_restore_is_remembered() {
    let mut world = World::connected(Rules::ALL);
    world.feed(B, wire::regressed(GROUP, &WireHead { stream: C, seq: 3, digest: [7; 32] }));
    let restored = world.engine.report().restored;
    assert_eq!(restored, Some(Restored { stream: C, seq: 3 }));
    let again = world.reopened(networked(Rules::ALL));
    assert_eq!(again.report().restored, restored);
}

/// The commits of a restored store contradict those that others have: no peer takes them from it.
#[test]
fn a_restored_store_keeps_its_second_history_to_itself() {
    let mut world = World::connected(Rules::ALL);
    world.commit(vec![tag(1, "a")]).unwrap();
    let (head, own) = world.page(C, &[], 1 << 20);
    assert!(!head.more && own.iter().any(|commit| commit.stream == REPLICA));
    // A proof on the stream of another says nothing of the own stream.
    world.feed(B, wire::regressed(GROUP, &WireHead { stream: C, seq: 3, digest: [7; 32] }));
    assert!(world.page(C, &[], 1 << 20).1.iter().any(|commit| commit.stream == REPLICA));
    let seq = world.head().seq + 1;
    world.said();
    let more = world.copy_at(seq - 1).tag(9, "more");
    world.feed(B, hello(1, &[WireHead { stream: REPLICA, seq, digest: [7; 32] }]));
    world.convince(B, &[&more]);
    assert_eq!(world.engine.report().restored, Some(Restored { stream: REPLICA, seq }));
    let hellos: Vec<_> = world
        .said()
        .into_iter()
        .filter_map(|(_, message)| match message {
            Message::Hello(hello) => Some(hello),
            _ => None,
        })
        .collect();
    let last = hellos.last().expect("its peers hear of it");
    assert!(last.restored && last.heads.0.iter().all(|head| head.stream != REPLICA));
    assert_eq!(world.page(C, &[], 1 << 20).1, []);
}

/// The heads that a restored store named of its own stream, before it knew of the restore, are not asked for.
#[test]
fn a_second_history_is_not_asked_for() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    b.tag(1, "a");
    world.feed(B, hello(1, &[b.head()]));
    assert_eq!(world.peer(B).missing, 1);
    world.feed(B, wire::hello(GROUP, &Hello { restored: true, ..silent_hello(1) }));
    assert_eq!(world.peer(B).missing, 0);
}

/// An acknowledgement of a store does not count once the store was restored, nor before its hello says whether it was.
#[test]
fn no_acknowledgement_of_a_restored_store_counts() {
    for (rules, counts) in [(Rules::ALL, false), (without!(acks_of_restored_are_void), true)] {
        let restored = wire::hello(GROUP, &Hello { restored: true, ..silent_hello(2) });
        // The frames before the acknowledgement: none; or the word that the store is restored, and a late hello from
        // before.
        let histories = [vec![], vec![restored.clone()], vec![restored, hello(1, &[])]];
        for before in histories {
            let mut world = World::connected(rules);
            world.commit(vec![tag(1, "a")]).unwrap();
            let own = world.own();
            let sent = before.len();
            before.into_iter().for_each(|frame| world.feed(B, frame));
            world.feed(B, wire::ack(GROUP, &Capped(vec![own])));
            assert_eq!(world.peer(B).acknowledged, if counts { own.seq } else { 0 }, "after {sent} frames");
        }
    }
    // Earlier acknowledgements do not count either, also once this store is opened again.
    for restored in [false, true] {
        let mut world = World::connected(Rules::ALL);
        let own = world.own();
        let acked = |engine: &Engine| {
            let peers = engine.report().peers;
            peers.iter().find(|peer| peer.replica == B).map_or(0, |peer| peer.acknowledged)
        };
        world.feed(B, hello(1, &[]));
        world.feed(B, wire::ack(GROUP, &Capped(vec![own])));
        assert_eq!(acked(&world.engine), own.seq);
        world.pass(60_000);
        if restored {
            world.feed(B, wire::hello(GROUP, &Hello { restored, ..silent_hello(2) }));
        }
        let reopened = world.reopened(networked(Rules::ALL));
        let expected = if restored { 0 } else { own.seq };
        assert_eq!((acked(&world.engine), acked(&reopened)), (expected, expected));
    }
}

/// A copy of a store was told that it is one, and is gone. Its original says in a hello that answers one from after that
/// that it was not restored: then it counts, and not by a hello that may be of long ago.
#[test]
fn the_original_of_a_restored_copy_counts_again_once_it_answers() {
    let says = |session, restored, heard, heads: &[WireHead]| {
        let clock = WireClock { heard, ..WireClock::default() };
        wire::hello(GROUP, &Hello { restored, clock, heads: Capped(heads.to_vec()), ..silent_hello(session) })
    };
    let mut world = World::connected(Rules::ALL);
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.own();
    world.feed(B, hello(1, &[own]));
    assert_eq!(world.peer(B).acknowledged, own.seq);
    world.pass(500);
    world.feed(B, says(2, true, None, &[]));
    assert_eq!((world.peer(B).restored, world.peer(B).acknowledged), (true, 0));
    let at = world.now.mono.0;
    world.handle(Input::Down(B));
    world.handle(Input::Up(B));
    for (late, heard) in
        [("no echo", None), ("of before", Some(at - 1)), ("of a time to come", Some(at + 10_000))]
    {
        world.feed(B, says(1, false, heard, &[own]));
        world.feed(B, wire::ack(GROUP, &Capped(vec![own])));
        assert_eq!((world.peer(B).restored, world.peer(B).acknowledged), (true, 0), "{late}");
    }
    world.pass(500);
    let answers = Some(world.now.mono.0);
    world.feed(B, says(3, false, answers, &[own]));
    assert_eq!((world.peer(B).restored, world.peer(B).acknowledged), (false, own.seq));
    world.feed(B, says(4, true, answers, &[]));
    assert_eq!((world.peer(B).restored, world.peer(B).acknowledged), (true, 0), "the copy is back");
}

/// A commit that was in the store's hands when the restore was detected is answered, and no peer hears of it.
#[test]
fn a_restore_found_out_during_a_write_keeps_it_here() {
    for rules in [Rules::ALL, Rules { restores_are_noticed: false, ..Rules::ALL }] {
        let mut world = World::connected(rules);
        let ticket = world.submit(vec![tag(1, "a")]);
        let batch = world.up_to_write().unwrap();
        let own = world.head();
        let more = world.copy_at(own.seq).tag(9, "more");
        world.said();
        let proof = hello(1, &[WireHead { stream: REPLICA, seq: own.seq + 7, digest: [7; 32] }]);
        world.feed(B, proof);
        world.convince(B, &[&more]);
        assert_eq!(world.engine.report().restored.is_some(), rules.restores_are_noticed);
        world.written(batch);
        world.settle();
        assert!(matches!(world.replies.last(), Some((answered, Ok(()))) if *answered == ticket));
        let told = world.said().into_iter().any(|(_, message)| matches!(message, Message::Live(_)));
        assert_eq!(told, !rules.restores_are_noticed);
        assert_eq!(world.audit(), []);
    }
}

/// A commit that was decided but not handed to the store when the restore was detected is never written.
#[test]
fn a_restore_found_out_before_a_write_begins_takes_it_back() {
    for joined in [false, true] {
        let mut world = World::connected(Rules::ALL);
        world.commit(vec![tag(1, "a")]).unwrap();
        // A peer is owed an answer before that.
        let own = world.head();
        let change = vec![tag(2, "b")];
        let ticket = if joined { world.submit_joined(change) } else { world.submit(change) };
        if !joined {
            let Some(Effect::Read(job, keys)) = world.engine.next_effect() else {
                panic!("it is read first")
            };
            let values = block_on(world.store.get_many(&keys));
            world.handle(Input::Read(job, keys, values));
        } else {
            world.say_hello(C);
            assert!(matches!(world.engine.next_effect(), Some(Effect::Send(C, _))));
        }
        world.handle(Input::Frame(
            B,
            wire::regressed(GROUP, &WireHead { stream: C, seq: 3, digest: [7; 32] }),
        ));
        world.settle();
        assert!(
            matches!(world.replies.last(), Some((answered, Err(Error::Restored(_)))) if *answered == ticket)
        );
        assert_eq!(world.head().seq, own.seq, "joined: {joined}");
        assert_eq!(world.audit(), []);
    }
}

#[test]
fn a_second_proof_of_a_restore_may_come_while_the_first_is_written() {
    let mut world = World::connected(Rules::ALL);
    world.feed(B, hello(1, &[]));
    let head = WireHead { stream: C, seq: 3, digest: [7; 32] };
    world.handle(Input::Frame(B, wire::regressed(GROUP, &head)));
    let rows = world.up_to_write().expect("the proof is stored at once");
    let own = world.own();
    let more = world.copy_at(own.seq).tag(9, "more");
    world.feed(B, hello(1, &[WireHead { seq: own.seq + 1, ..own }]));
    world.convince(B, &[&more]);
    world.written(rows);
    world.settle();
    assert_eq!(world.engine.report().restored.unwrap().stream, REPLICA);
}

/// A proof may come while the records of a round are read.
#[test]
fn y15_a_round_that_was_read_before_the_proof_is_not_written() {
    let mut world = World::connected(Rules::ALL);
    let own = world.own();
    let ticket = world.submit(vec![tag(1, "a")]);
    let Some(Effect::Read(job, keys)) = world.engine.next_effect() else { panic!("a round is read first") };
    world.handle(Input::Frame(B, hello(1, &[WireHead { seq: own.seq + 1, ..own }])));
    let values = block_on(world.store.get_many(&keys));
    world.handle(Input::Read(job, keys, values));
    world.settle();
    assert_eq!((world.replies.len(), world.own()), (0, own), "it waits until B has shown it, or has not");
    let more = world.copy_at(own.seq).tag(9, "more");
    world.convince(B, &[&more]);
    let answer = world.replies.last();
    assert!(matches!(answer, Some((answered, Err(Error::Restored(_)))) if *answered == ticket), "{answer:?}");
    assert_eq!(world.own(), own);
}

/// A write that a proof takes back may have rows of peers, which were to ride on it.
#[test]
fn rows_of_a_write_that_is_taken_back_are_stored_by_the_next_one() {
    let mut world = World::connected(Rules::ALL);
    let own = world.own();
    world.feed(B, hello(1, &[own]));
    let restored = Hello { restored: true, heads: Capped(vec![own]), ..silent_hello(2) };
    world.handle(Input::Frame(B, wire::hello(GROUP, &restored)));
    world.up_to_write().expect("the row of B is written alone");
    world.rejected();
    world.submit(vec![tag(1, "a")]);
    let read = std::iter::from_fn(|| world.engine.next_effect())
        .find_map(|effect| if let Effect::Read(job, keys) = effect { Some((job, keys)) } else { None });
    let (job, keys) = read.expect("a round is read first");
    let values = block_on(world.store.get_many(&keys));
    world.handle(Input::Read(job, keys, values));
    world.writes.clear();
    world.handle(Input::Frame(C, wire::regressed(GROUP, &WireHead { stream: C, seq: 3, digest: [7; 32] })));
    world.settle();
    world.pass(1_000);
    let puts = world.writes.iter().flat_map(WriteBatch::ops).filter_map(|op| match op {
        WriteOp::Put { key, .. } => Some(key),
        _ => None,
    });
    assert!(puts.into_iter().any(|key| *key == keys::peer(B)));
}

/// A proof may come while a page is read for a peer.
#[test]
fn y15_a_page_that_was_begun_before_the_proof_hides_the_own_stream() {
    for proven in [false, true] {
        let mut world = World::connected(Rules::ALL);
        world.commit(vec![tag(1, "a")]).unwrap();
        world.feed(C, live(&[&Author::new(C, C_DEVICE).tag(2, "c")]));
        let own = world.own();
        world.handle(Input::Frame(B, wire::pull(GROUP, &pull_all())));
        let read = std::iter::from_fn(|| world.engine.next_effect())
            .find_map(|effect| if let Effect::Find(job, query) = effect { Some((job, query)) } else { None });
        let (job, query) = read.expect("the log is read");
        if proven {
            let more = world.copy_at(own.seq).tag(9, "more");
            world.feed(C, hello(1, &[WireHead { seq: own.seq + 1, ..own }]));
            world.convince(C, &[&more]);
        }
        let answer = world.find(query);
        world.handle(Input::Found(job, answer));
        world.settle();
        let streams: Vec<_> = world
            .said()
            .into_iter()
            .filter_map(
                |(_, message)| if let Message::Page(_, commits) = message { Some(commits) } else { None },
            )
            .flat_map(|commits| commits.whole(REPLICA).into_iter().map(|commit| commit.stream))
            .collect();
        assert_eq!(streams.contains(&REPLICA), !proven, "{streams:?}");
        assert!(streams.contains(&C), "{streams:?}");
    }
}

/// An acknowledgement of the own stream that waits is not said any more once the stream has a second history.
#[test]
fn an_acknowledgement_of_a_second_history_that_waits_is_not_sent() {
    let mut world = World::limited(Limits { frame_bytes_max: 400, ..Limits::default() });
    let own = world.own();
    let more = world.copy_at(own.seq).tag(9, "more");
    world.commit(vec![tag(1, &"x".repeat(500))]).unwrap();
    world.feed(B, hello(1, &[WireHead { digest: [7; 32], ..world.own() }]));
    world.convince(B, &[&more]);
    assert!(world.events().iter().any(|event| matches!(event, Event::Restored(_))));
    world.said();
    world.pass(1_000);
    for (to, message) in world.said() {
        let heads = match &message {
            Message::Ack(heads) => &heads.0,
            Message::Hello(hello) => &hello.heads.0,
            _ => continue,
        };
        assert!(heads.iter().all(|head| head.stream != REPLICA), "{to:?}: {message:?}");
    }
}
