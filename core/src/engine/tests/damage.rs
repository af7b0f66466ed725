//! Goal: a damaged row or value harms its own stream at its own replica, and nothing else. Method: rows of a replica's store
//! are edited under its engine, one bit at a time.

use super::*;

/// The key of a log row of `stream`, and the row.
fn row_of(world: &World, stream: ReplicaId, seq: u64) -> (Key, Value) {
    let key = keys::log(stream, seq);
    (key.clone(), world.get(key).unwrap())
}

/// Flips one bit of a stored value.
fn flip(world: &World, key: &Key, at: usize) {
    let mut map = world.store.0.lock().unwrap();
    map.get_mut(key).unwrap()[at] ^= 1 << (at % 8);
}

/// The commits of a stream in a page.
fn of(stream: ReplicaId, page: &[WireCommit]) -> Vec<WireCommit> {
    page.iter().filter(|commit| commit.stream == stream).cloned().collect()
}

/// A relay with three commits of B and one of C.
fn relay() -> World {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made = [b.tag(1, "a"), b.tag(2, "b"), b.tag(3, "c")];
    made.iter().for_each(|made| world.feed(B, live(&[made])));
    world.feed(C, live(&[&Author::new(C, C_DEVICE).tag(4, "d")]));
    world.events();
    world
}

/// C19: what is served of a stream is what its author wrote, up to the damage. The app hears of it once, and the puller
/// does not take the page for a broken word.
#[test]
fn a_damaged_row_ends_its_stream_at_the_server_and_no_other() {
    let whole = relay().page(C, &[], 1 << 20).1;
    for seq in 1..=3 {
        let len = row_of(&relay(), B, seq).1.len();
        for at in (0..len).step_by(3) {
            let mut world = relay();
            let (key, _) = row_of(&world, B, seq);
            flip(&world, &key, at);
            let damaged = seq - u64::from(at < 32 && seq > 1);
            world.sent.clear();
            world.feed(C, wire::pull(GROUP, &pull_all()));
            let said: Vec<_> = world.said().into_iter().map(|(_, message)| message).collect();
            let [Message::Damaged(places), Message::Page(head, page)] = &said[..] else { panic!("{said:?}") };
            let page = &page.whole(REPLICA);
            assert_eq!(places.0, [WirePlace { stream: B, seq: damaged }], "byte {at} of {seq}");
            let before = usize::try_from(damaged).unwrap() - 1;
            assert_eq!(of(B, page), of(B, &whole)[..before], "byte {at} of {seq}");
            assert_eq!((of(C, page), of(REPLICA, page)), (of(C, &whole), of(REPLICA, &whole)));
            assert!(!head.more);
            let damage = Damage { stream: B, seq: damaged, part: DamagedPart::Row };
            assert_eq!(world.events(), [Event::Damaged(damage)], "byte {at} of {seq}");
            let status = world.engine.report().streams.into_iter().find(|view| view.replica == B).unwrap();
            assert_eq!((status.damaged, status.stopped), (Some(damage), None));
            world.page(C, &[], 1 << 20);
            assert_eq!(world.events(), [], "once");
        }
    }
}

/// A value that is gone, or is another one, ends its own stream.
#[test]
fn a_lost_value_ends_its_own_stream_and_no_other() {
    for damaged in [false, true] {
        for kept in [false, true] {
            let mut world = relay();
            let whole = world.page(C, &[], 1 << 20).1;
            if kept {
                world.commit(vec![tag(2, "newer")]).unwrap();
            }
            let record = RecordKey::new::<Tag>(&2);
            let key = if kept { keys::kept(B, 2, &record) } else { record.into_bytes() };
            if damaged {
                let last = world.get(key.clone()).unwrap().len() - 1;
                flip(&world, &key, last);
            } else {
                world.store.0.lock().unwrap().remove(&key).unwrap();
            }
            world.events();
            let page = world.page(C, &[], 1 << 20).1;
            assert_eq!(of(B, &page), of(B, &whole)[..1], "damaged: {damaged}, kept: {kept}");
            assert_eq!(of(C, &page), of(C, &whole));
            let damage = Damage { stream: B, seq: 2, part: DamagedPart::Value };
            assert_eq!(world.events(), [Event::Damaged(damage)]);
            let page = world.page(C, &[], 1 << 20).1;
            assert_eq!((of(B, &page), world.events()), (of(B, &whole)[..1].to_vec(), vec![]), "and once");
        }
    }
}

/// Y16: the page behind one goes on where that one ended, which is in front of the damage: each says so, and no other stream
/// is left out. A page that lost a value ends nowhere, so the puller asks from its heads on.
#[test]
fn pages_go_on_past_a_damaged_stream() {
    for lost in [false, true] {
        let mut world = relay();
        let own = world.own().seq;
        if lost {
            world.store.0.lock().unwrap().remove(&RecordKey::new::<Tag>(&2).into_bytes()).unwrap();
        } else {
            let (key, row) = row_of(&world, B, 2);
            flip(&world, &key, row.len() - 1);
        }
        let (mut id, mut places, mut brought) = (pull_all().id, Vec::new(), Vec::new());
        world.feed(C, wire::pull(GROUP, &Pull { budget: 1, ..pull_all() }));
        for _ in 0..20 {
            let (mut more, mut any) = (false, false);
            for (_, message) in world.said() {
                match message {
                    Message::Damaged(ends) => places.extend(ends.0),
                    Message::Page(head, page) => {
                        assert_eq!(head.id, id);
                        let page = page.whole(REPLICA);
                        (more, any) = (head.more, !page.is_empty());
                        brought.extend(page.into_iter().map(|commit| (commit.stream, commit.seq)));
                    }
                    _ => {}
                }
            }
            if more {
                let on = wire::PullOn { id: id + 1, behind: id, budget: 1 };
                world.feed(C, wire::pull_on(GROUP, &on));
            } else if !any && brought.len() < usize::try_from(own).unwrap() + 2 {
                let heads = brought.iter().map(|(stream, seq)| {
                    let key = keys::log(*stream, *seq);
                    let row = world.get(key).unwrap();
                    let (previous, entry) = split_row(&row).unwrap();
                    (*stream, WireHead { stream: *stream, seq: *seq, digest: chain(&previous, entry) })
                });
                let heads = heads.collect::<BTreeMap<_, _>>().into_values().collect();
                let pull = Pull { id: id + 1, budget: 1, heads: Capped(heads), ..pull_all() };
                world.feed(C, wire::pull(GROUP, &pull));
            } else {
                break;
            }
            id += 1;
        }
        let expected: BTreeSet<_> = (1..=own).map(|seq| (REPLICA, seq)).chain([(B, 1), (C, 1)]).collect();
        assert_eq!(brought.len(), expected.len(), "each once; lost: {lost}: {brought:?}");
        assert_eq!(brought.into_iter().collect::<BTreeSet<_>>(), expected, "lost: {lost}");
        assert!(!places.is_empty() && places.iter().all(|place| (place.stream, place.seq) == (B, 2)));
        let part = if lost { DamagedPart::Value } else { DamagedPart::Row };
        assert_eq!(world.events(), [Event::Damaged(Damage { stream: B, seq: 2, part })]);
    }
}

/// The puller does not ask a peer again for what that cannot serve, until the next hello, and does not let it rest: other
/// streams come from there.
#[test]
fn a_stream_that_a_peer_cannot_serve_is_asked_of_others() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let made = [b.tag(1, "a"), b.tag(2, "b")];
    world.feed(C, hello(1, &[b.head()]));
    let pulls = world.pulls();
    let [.., (to, pull)] = &pulls[..] else { panic!("{pulls:?}") };
    assert_eq!(*to, C);
    let places = Capped(vec![WirePlace { stream: B, seq: 2 }]);
    world.feed(C, wire::damaged_places(GROUP, &places));
    world.feed(C, page_of(answer(pull, false), &[&made[0]]));
    assert_eq!((world.seq_of(B), world.backs_off(C)), (1, false));
    assert_eq!(world.pulls(), [], "C cannot serve the second");
    assert_eq!(world.peer(C).missing, 1, "and is known to have it");
    let mut c = Author::new(C, C_DEVICE);
    let of_c = c.tag(3, "c");
    world.feed(C, wire::ack(GROUP, &Capped(vec![c.head()])));
    let pulls = world.pulls();
    let [(_, pull)] = &pulls[..] else { panic!("{pulls:?}") };
    assert!(pull.excluded.0.contains(&B));
    world.feed(C, page_of(answer(pull, false), &[&of_c]));
    assert_eq!((world.seq_of(C), world.backs_off(C)), (1, false));
    world.feed(B, hello(1, &[b.head()]));
    let pulls = world.pulls();
    assert!(matches!(&pulls[..], [(to, _)] if *to == B), "its author has it: {pulls:?}");
    world.feed(B, page_of(answer(&pulls[0].1, false), &[&made[1]]));
    assert_eq!(world.seq_of(B), 2);
    assert_eq!(world.audit(), []);
}

#[test]
fn what_was_mended_is_asked_for_at_the_next_hello() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    b.tag(1, "a");
    let places = Capped(vec![WirePlace { stream: B, seq: 1 }]);
    world.feed(C, wire::damaged_places(GROUP, &places));
    world.feed(C, wire::ack(GROUP, &Capped(vec![b.head()])));
    assert_eq!(world.pulls(), []);
    world.feed(C, hello(1, &[b.head()]));
    assert_eq!(world.pulls().len(), 1);
}

// --- words of peers ---------------------------------------------------------------------------------------------------

/// A peer that cannot show what it says is set aside: nobody gives up a stream for it, and the app hears of it.
#[test]
fn a_word_that_is_not_shown_accuses_nobody() {
    type Answers = fn(&World, &Show) -> Bytes;
    let answers: [(&str, Answers); 3] = [
        ("nothing", |_, show| answer_to(show, &[])),
        ("a row that does not follow", |_, show| {
            let row = WireRow { previous: [8; 32], entry: vec![1; 90] };
            wire::shown(GROUP, &Shown { stream: show.stream, seq: show.seq, head: show.seq, row: Some(row) })
        }),
        ("a row that is not checked", |world, show| {
            let other = world.copy_at(show.seq - 1).tag(9, "x");
            let (previous, entry) = split_row(&other.row).unwrap();
            let row = WireRow { previous, entry: entry.to_vec() };
            wire::shown(GROUP, &Shown { stream: show.stream, seq: show.seq, head: 0, row: Some(row) })
        }),
    ];
    for (name, answers) in answers {
        let mut world = World::connected(Rules::ALL);
        let own = world.own();
        world.feed(B, hello(1, &[WireHead { digest: [7; 32], ..own }]));
        let ticket = world.submit(vec![tag(1, "a")]);
        world.settle();
        assert!(world.replies.is_empty(), "{name}: the commit waits for the end of the doubt");
        for _ in 0..20 {
            for show in world.shows(B) {
                let frame = answers(&world, &show);
                world.feed(B, frame);
            }
        }
        assert_eq!(world.engine.report().restored, None, "{name}");
        assert!(matches!(&world.replies[..], [(answered, Ok(()))] if *answered == ticket), "{name}");
        let disputed = |event: &Event| matches!(event, Event::Disputed { peer: B, stream: REPLICA, .. });
        assert_eq!(world.events().iter().filter(|event| disputed(event)).count(), 1, "{name}");
        let status = world.engine.report().streams.into_iter().find(|view| view.replica == REPLICA).unwrap();
        assert_eq!(status.disputed, [B], "{name}");
        // Its word on the stream counts no more, until it begins anew.
        world.feed(B, hello(1, &[WireHead { digest: [7; 32], ..own }]));
        assert_eq!(world.shows(B), [], "{name}");
        let own = world.own();
        world.feed(B, hello(2, &[WireHead { digest: [7; 32], ..own }]));
        assert_eq!(world.shows(B).len(), 1, "{name}");
    }
}

/// A silent peer delays the app's commits for a short while, and no longer.
#[test]
fn a_silent_accuser_delays_commits_and_proves_nothing() {
    let mut world = World::connected(Rules::ALL);
    let own = world.own();
    world.feed(B, hello(1, &[WireHead { seq: own.seq + 1, ..own }]));
    let ticket = world.submit(vec![tag(1, "a")]);
    world.pass(9_000);
    assert!(world.replies.is_empty());
    world.pass(1_000);
    assert!(matches!(&world.replies[..], [(answered, Ok(()))] if *answered == ticket));
    world.pass(20_000);
    assert_eq!(world.engine.report().restored, None);
    world.said();
    world.feed(B, hello(1, &[WireHead { seq: own.seq + 2, ..own }]));
    assert_eq!(world.shows(B).len(), 1, "the next hello asks again");
}

/// The row that a peer shows may be a damaged copy of the real one: then another member is asked, and the one that has the
/// real one is believed. A commit that nobody could take for a copy needs no other witness, and a group of two has none.
#[test]
fn a_damaged_copy_is_told_from_a_second_history() {
    for (what, second, damaged, witness) in [
        ("a flipped bit, and C has the real one", false, true, Some(true)),
        ("a flipped bit, and C has it too", false, true, Some(false)),
        ("a flipped bit, and nobody else is there", false, true, None),
        ("another commit, and C has the real one", true, false, Some(true)),
    ] {
        let mut world = World::connected(Rules::ALL);
        world.commit(vec![tag(1, "a")]).unwrap();
        let own = world.own();
        let (_, row) = row_of(&world, REPLICA, own.seq);
        let real = Made { row, ..world.copy_at(own.seq - 1).tag(1, "a") };
        let mut shown = if second { world.copy_at(own.seq - 1).tag(9, "x") } else { real.clone() };
        if damaged {
            // The counter of the stamp.
            shown.row[32 + 1 + 16 + 7] ^= 1;
        }
        if witness.is_some() {
            world.feed(C, hello(1, &[own]));
        }
        let digest = chain(&split_row(&shown.row).unwrap().0, split_row(&shown.row).unwrap().1);
        world.feed(B, hello(1, &[WireHead { digest, ..own }]));
        world.convince(B, &[&shown]);
        let asked = match witness {
            Some(true) => world.convince(C, &[&real]),
            Some(false) => world.convince(C, &[&shown]),
            None => 0,
        };
        assert_eq!(asked > 0, witness.is_some() && !second, "{what}");
        let gives_up = second || witness != Some(true);
        assert_eq!(world.engine.report().restored.is_some(), gives_up, "{what}");
        assert_eq!(world.commit(vec![tag(2, "b")]).is_err(), gives_up, "{what}");
    }
}

/// A witness that goes away, or does not answer, leaves the word of the accuser, which has checked what it says.
#[test]
fn a_witness_that_is_silent_contradicts_nobody() {
    for down in [false, true] {
        let mut world = World::connected(Rules::ALL);
        let own = world.own();
        world.feed(C, hello(1, &[own]));
        let (_, row) = row_of(&world, REPLICA, own.seq);
        let mut shown = Made { row, ..world.copy_at(own.seq - 1).tag(1, "a") };
        shown.row[32 + 1 + 16 + 7] ^= 1;
        let digest = chain(&split_row(&shown.row).unwrap().0, split_row(&shown.row).unwrap().1);
        world.feed(B, hello(1, &[WireHead { digest, ..own }]));
        world.convince(B, &[&shown]);
        assert!(world.shows(C).len() == 1 && world.engine.report().restored.is_none());
        if down {
            world.handle(Input::Down(C));
            world.settle();
        } else {
            world.pass(30_000);
        }
        assert!(world.engine.report().restored.is_some(), "down: {down}");
    }
}

/// The log here may be the damaged one: that is no second history either.
#[test]
fn damage_of_the_own_log_is_no_second_history() {
    for at in [5, 32 + 20, 32 + 60] {
        let mut world = World::connected(Rules::ALL);
        (0..5).for_each(|n| world.commit(vec![tag(n, "a")]).unwrap());
        let own = world.own();
        let place = WireHead { stream: REPLICA, seq: own.seq - 2, digest: world.digest_of(own.seq - 2) };
        let (key, _) = row_of(&world, REPLICA, own.seq - 1);
        flip(&world, &key, at);
        world.events();
        world.feed(B, hello(1, &[place]));
        assert_eq!((world.engine.report().restored, world.shows(B)), (None, vec![]), "byte {at}");
        let damage = Damage { stream: REPLICA, seq: own.seq - 1, part: DamagedPart::Row };
        assert_eq!(world.events(), [Event::Damaged(damage)], "byte {at}");
        assert!(world.commit(vec![tag(9, "b")]).is_ok());
        let page = world.page(B, &[place], 1 << 20).1;
        assert_eq!((of(REPLICA, &page).len(), world.engine.report().restored), (0, None), "byte {at}");
    }
}

/// The acknowledgement of a peer may be damaged here: it is compared with the own log before the peer is told so.
#[test]
fn a_damaged_row_of_a_peer_tells_nobody_that_it_was_restored() {
    for (rules, told) in [(Rules::ALL, false), (without!(accusers_show), true)] {
        let mut world = World::connected(rules);
        (0..5).for_each(|n| world.commit(vec![tag(n, "a")]).unwrap());
        let own = world.own();
        let before = WireHead { stream: REPLICA, seq: 4, digest: world.digest_of(4) };
        world.feed(B, hello(1, &[before]));
        // As if the stored number had become another one.
        world.feed(B, wire::ack(GROUP, &Capped(vec![WireHead { seq: own.seq - 1, ..before }])));
        world.said();
        world.feed(B, hello(2, &[before]));
        let said = world.said();
        let regressed = said.iter().any(|(_, message)| matches!(message, Message::Regressed(_)));
        assert_eq!(regressed, told);
        if !told {
            world.feed(B, hello(3, &[before]));
            assert_eq!(world.peer(B).acknowledged, 4, "what is right counts again");
        }
    }
}

/// A replica shows what it has checked, and nothing that is damaged.
#[test]
fn a_row_is_shown_if_the_chain_is_whole_up_to_the_head() {
    let show = |world: &mut World, seq, checked| {
        world.sent.clear();
        world.feed(C, wire::show(GROUP, &Show { stream: B, seq, checked }));
        let shown = world.said().into_iter().find_map(|(to, message)| match message {
            Message::Shown(shown) if to == Some(C) => Some(shown),
            _ => None,
        });
        shown.expect("an answer")
    };
    let mut world = relay();
    for (seq, checked, head) in [(1, false, 0), (1, true, 3), (3, true, 3)] {
        let shown = show(&mut world, seq, checked);
        let (_, row) = row_of(&world, B, seq);
        let (previous, entry) = split_row(&row).unwrap();
        assert_eq!((shown.head, shown.row), (head, Some(WireRow { previous, entry: entry.to_vec() })));
    }
    assert_eq!(show(&mut world, 4, true).row, None);
    let (key, _) = row_of(&world, B, 3);
    flip(&world, &key, 60);
    assert_eq!((show(&mut world, 1, true).row, show(&mut world, 1, false).row.is_some()), (None, true));
    assert!(world.events().iter().any(|event| matches!(event, Event::Damaged(_))));
}

/// A copy that is about to hear that it is one must not have the stream of its original stopped elsewhere.
#[test]
fn a_doubted_own_stream_is_shown_to_nobody() {
    let mut world = World::connected(Rules::ALL);
    let own = world.own();
    let show = || wire::show(GROUP, &Show { stream: REPLICA, seq: own.seq, checked: true });
    let shown = |world: &mut World| -> Vec<Option<WireRow>> {
        let said = world.said().into_iter();
        said.filter_map(|(to, message)| match message {
            Message::Shown(shown) if to == Some(C) => Some(shown.row),
            _ => None,
        })
        .collect()
    };
    let more = world.copy_at(own.seq).tag(9, "more");
    world.feed(B, hello(1, &[WireHead { seq: own.seq + 1, ..own }]));
    world.feed(C, show());
    let asked = world.shows(B);
    assert_eq!((asked.len(), shown(&mut world)), (1, vec![]), "it waits");
    world.feed(B, answer_to(&asked[0], &[&more]));
    assert!(world.engine.report().restored.is_some());
    assert_eq!(shown(&mut world), [None]);

    let mut world = World::connected(Rules::ALL);
    world.feed(B, hello(1, &[WireHead { seq: own.seq + 1, ..own }]));
    world.feed(C, show());
    let asked = world.shows(B);
    assert_eq!(shown(&mut world), []);
    world.feed(B, answer_to(&asked[0], &[]));
    assert!(matches!(&shown(&mut world)[..], [Some(_)]), "once nothing was shown, the stream is whole");
}

/// The words of one peer on streams that nobody knows keep no word of another peer out.
#[test]
fn a_peer_that_names_streams_of_nobody_as_damaged_silences_no_other() {
    let mut world = relay();
    let place = |n: u32| WirePlace { stream: ReplicaId(Uuid::from_u128(1 << 64 | u128::from(n))), seq: 1 };
    let places = (0..u32::try_from(STREAMS_MAX).unwrap()).map(place).collect();
    world.feed(C, wire::damaged_places(GROUP, &Capped(places)));
    world.feed(B, wire::damaged_places(GROUP, &Capped(vec![WirePlace { stream: C, seq: 2 }])));
    assert!(world.cannot_serve(B, C, 2));
}
