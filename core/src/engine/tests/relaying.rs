//! Goal: the author of a stream hears how far a member is that it does not meet, from one that meets both, and nobody is
//! told what nobody asked for. Method: a hub between made-up peers, and a spoke whose hub is made up.

use super::*;
use crate::engine::wire::Relayed;

/// Says hello, and that these members are not heard.
fn asks(session: u64, unheard: &[ReplicaId], heads: &[WireHead]) -> Bytes {
    let (unheard, heads) = (Capped(unheard.to_vec()), Capped(heads.to_vec()));
    wire::hello(GROUP, &Hello { unheard, heads, ..silent_hello(session) })
}

/// What `to` was told of others since the last time, in messages and in hellos.
fn told(world: &mut World, to: ReplicaId) -> (Vec<Relayed>, Vec<Relayed>) {
    let (mut messages, mut hellos) = (Vec::new(), Vec::new());
    for (receiver, message) in world.said() {
        match message {
            Message::Relayed(words) if receiver == Some(to) => messages.extend(words.0),
            Message::Hello(hello) if receiver == Some(to) => hellos.extend(hello.relayed.0),
            _ => {}
        }
    }
    (messages, hellos)
}

fn word(member: ReplicaId, seq: u64) -> Relayed {
    Relayed { member, seq, restored: false }
}

/// A hub that has two commits of B. B and C said hello, and B does not hear C.
fn hub() -> (World, Author, WireHead) {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let one = b.tag(1, "a");
    let first = b.head();
    let two = b.tag(2, "b");
    world.feed(B, asks(1, &[C], &[]));
    world.feed(C, hello(1, &[]));
    world.feed(B, live(&[&one, &two]));
    // Both were named as unheard at first, which is corrected.
    world.pass(5_000);
    world.said();
    (world, b, first)
}

/// Y14: two members that each lack what they do not hear must not answer hellos with hellos.
#[test]
fn y14_a_hello_of_a_member_that_lacks_something_is_answered_by_an_acknowledgement() {
    let (mut world, b, _) = hub();
    for heads in [vec![], vec![b.head()]] {
        world.feed(C, asks(1, &[B], &heads));
        let said = world.said().into_iter().filter(|(to, _)| *to == Some(C));
        let said: Vec<_> = said.map(|(_, message)| message).collect();
        let acks = if heads.is_empty() { vec![Message::Ack(Capped(vec![b.head()]))] } else { vec![] };
        assert_eq!(said, acks);
    }
}

#[test]
fn y20_the_author_is_told_how_far_a_member_is_that_it_does_not_hear() {
    let (mut world, b, first) = hub();
    for head in [first, b.head()] {
        world.feed(C, wire::ack(GROUP, &Capped(vec![head])));
        world.pass(199);
        assert_eq!(told(&mut world, B), (vec![], vec![]), "changes are gathered");
        world.pass(1);
        assert_eq!(told(&mut world, B), (vec![word(C, head.seq)], vec![]));
        world.feed(C, wire::ack(GROUP, &Capped(vec![head])));
        world.pass(1_000);
        assert_eq!(told(&mut world, B), (vec![], vec![]), "it is no news");
    }
    world.pass(40_000);
    assert_eq!(told(&mut world, B), (vec![], vec![word(C, 2)]), "a hello has it, if the message was lost");
    // A new session of B has forgotten it.
    world.feed(B, asks(2, &[C], &[b.head()]));
    assert_eq!(told(&mut world, B), (vec![], vec![word(C, 2)]));
}

/// In a full mesh everybody hears everybody: nothing is to be sent there.
#[test]
fn y20_nobody_is_told_of_a_member_that_it_hears_itself() {
    let (mut world, b, _) = hub();
    world.feed(B, asks(1, &[], &[b.head()]));
    world.feed(C, wire::ack(GROUP, &Capped(vec![b.head()])));
    world.pass(40_000);
    assert_eq!(told(&mut world, B), (vec![], vec![]));
    assert_eq!(told(&mut world, C), (vec![], vec![]));
}

#[test]
fn what_a_restored_store_acknowledged_is_taken_back() {
    let (mut world, b, _) = hub();
    world.feed(C, wire::ack(GROUP, &Capped(vec![b.head()])));
    world.pass(1_000);
    world.said();
    world.feed(C, wire::hello(GROUP, &Hello { restored: true, ..silent_hello(2) }));
    world.pass(1_000);
    assert_eq!(told(&mut world, B).0, [Relayed { member: C, seq: 0, restored: true }]);
}

#[test]
fn nobody_is_told_who_is_gone() {
    let (mut world, b, _) = hub();
    world.feed(C, wire::ack(GROUP, &Capped(vec![b.head()])));
    world.handle(Input::Down(B));
    world.pass(1_000);
    assert_eq!(told(&mut world, B), (vec![], vec![]));
}

/// The hub may not have heard yet that the store was restored.
#[test]
fn what_a_store_says_of_itself_counts_more_than_what_others_say() {
    let mut world = World::connected(Rules::ALL);
    world.feed(B, wire::relayed(GROUP, &Capped(vec![word(C, 1)])));
    assert_eq!((world.peer(C).acknowledged, world.peer(C).restored), (1, false));
    world.feed(C, wire::hello(GROUP, &Hello { restored: true, ..silent_hello(1) }));
    assert_eq!((world.peer(C).acknowledged, world.peer(C).restored), (0, true));
}

/// A peer may ask for whom it likes: for strangers, for itself, for the one that it asks.
#[test]
fn a_question_is_answered_for_members_alone() {
    let (mut world, _, _) = hub();
    let many: Vec<_> = (0..1000).map(|n| ReplicaId(Uuid::from_u128(n))).collect();
    world.feed(B, asks(1, &[&many[..], &[B, REPLICA, STRANGER]].concat(), &[]));
    world.pass(40_000);
    assert_eq!(told(&mut world, B), (vec![], vec![]));
}

// --- the author -----------------------------------------------------------------------------------------------------

/// The members that the last hello to `to` says are not heard.
fn unheard(world: &mut World, to: ReplicaId) -> Option<Vec<ReplicaId>> {
    let said = world.said().into_iter().rev();
    let mut hellos = said.filter_map(|(receiver, message)| match message {
        Message::Hello(hello) if receiver == Some(to) => Some(hello.unheard.0),
        _ => None,
    });
    hellos.next()
}

#[test]
fn a_hello_names_the_members_that_are_not_heard() {
    let mut world = World::connected(Rules::ALL);
    assert_eq!(
        unheard(&mut world, B),
        Some(vec![C]),
        "the transport says that it is up, and it said nothing"
    );
    world.feed(C, hello(1, &[]));
    world.pass(40_000);
    assert_eq!(unheard(&mut world, B), Some(vec![]));
    world.pass(50_000);
    assert_eq!(unheard(&mut world, B), Some(vec![C]), "its frames come no more");
    world.feed(C, wire::ack(GROUP, &Capped(vec![])));
    world.pass(40_000);
    assert_eq!(unheard(&mut world, B), Some(vec![]));
    world.handle(Input::Down(C));
    world.pass(40_000);
    assert_eq!(unheard(&mut world, B), Some(vec![C]));
}

/// Y20: what others say is shown, and nothing else rests on it.
#[test]
fn a_word_of_others_is_shown_and_counts_for_nothing() {
    let mut world = World::connected(Rules::ALL);
    world.handle(Input::Down(C));
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.own().seq;
    world.feed(B, hello(1, &[]));
    let tell = |world: &mut World, words: &[Relayed]| {
        world.feed(B, wire::relayed(GROUP, &Capped(words.to_vec())));
    };
    let before = world.content();
    tell(&mut world, &[word(C, own), word(STRANGER, 9), word(REPLICA, 9)]);
    let c = world.peer(C);
    assert_eq!((c.acknowledged, c.connected, c.heard, c.missing), (own, false, None, 0));
    assert!(world.engine.report().peers.iter().all(|peer| ![STRANGER, REPLICA].contains(&peer.replica)));
    tell(&mut world, &[word(C, own - 1)]);
    assert_eq!(world.peer(C).acknowledged, own, "it never falls");
    tell(&mut world, &[word(C, u64::MAX)]);
    assert_eq!(world.peer(C).acknowledged, own, "nobody has more than there is");
    world.pass(40_000);
    assert_eq!(world.content(), before, "nothing of it is stored");
    // When C comes, its hello names less: that proves no restore, since C never said more.
    world.said();
    world.handle(Input::Up(C));
    world.feed(C, hello(1, &[]));
    assert!(world.said().iter().all(|(_, message)| !matches!(message, Message::Regressed(_))));
    assert_eq!(world.engine.report().restored, None);
    tell(&mut world, &[Relayed { member: C, seq: 0, restored: true }]);
    assert_eq!((world.peer(C).acknowledged, world.peer(C).restored), (0, true));
}

/// Y20: a relayed word has no digest. Of a store that was restored it is about the commits that this has lost, whatever stands in
/// their places now.
#[test]
fn no_word_of_others_counts_for_a_restored_store() {
    let mut world = World::connected(Rules::ALL);
    world.handle(Input::Down(C));
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.own();
    world.feed(B, hello(1, &[]));
    world.feed(B, wire::relayed(GROUP, &Capped(vec![word(C, own.seq)])));
    assert_eq!(world.peer(C).acknowledged, own.seq);
    let mut copy = world.copy_at(own.seq - 1);
    let other = copy.tag(9, "before the backup was put back");
    world.feed(B, hello(1, &[copy.head()]));
    world.convince(B, &[&other]);
    assert!(world.engine.report().restored.is_some());
    assert_eq!(world.peer(C).acknowledged, 0);
}

/// Otherwise a peer could have any number of words kept here.
#[test]
fn a_word_on_a_stranger_is_not_kept_until_it_is_a_member() {
    let mut world = World::connected(Rules::ALL);
    world.commit(vec![tag(1, "a")]).unwrap();
    world.feed(B, hello(1, &[]));
    world.feed(B, wire::relayed(GROUP, &Capped(vec![word(STRANGER, world.own().seq)])));
    let added = put(&Member::new(STRANGER, DeviceId(Uuid::from_u128(0xd5))));
    world.commit(vec![Staged { own_merge: true, ..added }]).unwrap();
    assert_eq!(world.peer(STRANGER).acknowledged, 0);
}

/// It has no stream of which they could have anything, although it knows them.
#[test]
fn a_joiner_asks_for_nobody() {
    let mut world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    world.handle(Input::Up(B));
    world.feed(B, hello(1, &[]));
    let founding = Author::new(B, B_DEVICE).commit(&[], vec![member(B, B_DEVICE), member(C, C_DEVICE)]);
    world.feed(B, live(&[&founding]));
    world.settle();
    assert_eq!(world.engine.report().members.len(), 2);
    world.said();
    world.pass(40_000);
    assert_eq!(unheard(&mut world, B), Some(vec![]));
}

/// A screen that was dark for hours shows how old its word is.
#[test]
fn y20_the_status_says_when_a_peer_was_last_heard() {
    use std::time::Duration;
    let mut world = World::connected(Rules::ALL);
    assert_eq!((world.peer(B).connected, world.peer(B).heard), (true, None));
    world.feed(B, hello(1, &[]));
    assert_eq!(world.peer(B).heard, Some(Duration::ZERO));
    world.pass(3_600_000);
    assert_eq!((world.peer(B).connected, world.peer(B).heard), (true, Some(Duration::from_secs(3_600))));
    world.feed(B, b"no frame".to_vec().into());
    assert_eq!(world.peer(B).heard, Some(Duration::from_secs(3_600)), "noise is no word of it");
    world.feed(B, wire::ack(GROUP, &Capped(vec![])));
    assert_eq!(world.peer(B).heard, Some(Duration::ZERO));
}
