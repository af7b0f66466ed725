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
