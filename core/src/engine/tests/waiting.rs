//! Goal: a call that waits for members is answered by the frame or the write that brings the last thing which it waits
//! for, and never before. Method: a founder whose members are made up, and time that passes step by step.

use super::*;
use crate::engine::wire::Relayed;
use crate::synced::{PeerLag, Unsynced};

/// Begins to wait until all members are level; gives the answer, if it comes at once.
fn wait(world: &mut World, ms: u64) -> Option<Synced> {
    world.handle(Input::WaitSynced(Ticket(1), ms));
    world.settle();
    answer(world)
}

/// The answer to a call that waits for all members, if it came since the last time.
fn answer(world: &mut World) -> Option<Synced> {
    assert!(world.synced.len() <= 1, "one answer to a call: {:?}", world.synced);
    world.synced.pop().map(|(_, answer)| answer.unwrap())
}

fn level(with: &[ReplicaId], away: &[ReplicaId]) -> Option<Synced> {
    Some(Synced::Level { with: with.to_vec(), away: away.to_vec(), stopped: Vec::new() })
}

fn lag(replica: ReplicaId) -> PeerLag {
    PeerLag {
        replica,
        heard: true,
        missing_here: Vec::new(),
        missing_there: 0,
        restored: false,
        refuses: None,
    }
}

fn not_yet(peers: Vec<PeerLag>) -> Option<Synced> {
    Some(Synced::NotYet(Unsynced { peers, ..Unsynced::default() }))
}

/// A founder whose members B and C are connected and have said that they have everything.
fn level_world() -> World {
    let mut world = World::connected(Rules::ALL);
    for peer in [B, C] {
        let own = world.own();
        world.feed(peer, hello(1, &[own]));
    }
    world
}

fn acks(world: &mut World, from: ReplicaId, heads: &[WireHead]) {
    world.feed(from, wire::ack(GROUP, &Capped(heads.to_vec())));
}

#[test]
fn who_is_level_with_all_is_told_at_once() {
    let mut world = level_world();
    assert_eq!(wait(&mut world, 1_000), level(&[B, C], &[]));
    assert_eq!(wait(&mut world, 0), level(&[B, C], &[]));
    world.pass(5_000);
    assert_eq!(answer(&mut world), None, "it was answered");
}

#[test]
fn who_reaches_nobody_is_told_at_once() {
    let mut world = World::new(Rules::ALL);
    assert_eq!(wait(&mut world, 1_000), Some(Synced::Alone { away: vec![] }), "it has no transport");
    let mut world = World::connected(Rules::ALL);
    world.handle(Input::Offline);
    assert_eq!(wait(&mut world, 1_000), Some(Synced::Alone { away: vec![B, C] }));
}

/// A member that is connected and was not heard may have anything.
#[test]
fn each_member_that_is_connected_must_have_said_hello() {
    let mut world = World::connected(Rules::ALL);
    assert_eq!(wait(&mut world, 60_000), None);
    let own = world.own();
    world.feed(B, hello(1, &[own]));
    assert_eq!(answer(&mut world), None);
    world.feed(C, hello(1, &[own]));
    assert_eq!(answer(&mut world), level(&[B, C], &[]));
    world.pass(90_000);
    let silent = |replica| PeerLag { heard: false, ..lag(replica) };
    assert_eq!(wait(&mut world, 0), not_yet(vec![silent(B), silent(C)]), "its frames come no more");
}

#[test]
fn own_commits_are_waited_for_until_all_have_acknowledged_them() {
    let mut world = level_world();
    world.commit(vec![tag(1, "a")]).unwrap();
    assert_eq!(wait(&mut world, 1_000), None);
    let own = world.own();
    acks(&mut world, B, &[own]);
    assert_eq!(answer(&mut world), None);
    world.pass(999);
    assert_eq!(answer(&mut world), None);
    world.pass(1);
    assert_eq!(answer(&mut world), not_yet(vec![PeerLag { missing_there: 1, ..lag(C) }]));
    assert_eq!(wait(&mut world, 1_000), None);
    acks(&mut world, C, &[own]);
    assert_eq!(answer(&mut world), level(&[B, C], &[]));
}

/// Y23: what was received is not durable yet.
#[test]
fn commits_of_peers_are_waited_for_until_they_are_durable() {
    let mut world = level_world();
    let mut b = Author::new(B, B_DEVICE);
    let (one, two) = (b.tag(1, "a"), b.tag(2, "b"));
    acks(&mut world, B, &[b.head()]);
    assert_eq!(wait(&mut world, 1_000), None);
    world.handle(Input::Frame(B, live(&[&one, &two])));
    let batch = world.up_to_write().unwrap();
    world.pass_in_write(1_000);
    let lacks = PeerLag { missing_here: vec![(B, 2)], ..lag(B) };
    let expected = Unsynced { received: 0, peers: vec![lacks], ..Unsynced::default() };
    assert_eq!(answer(&mut world), Some(Synced::NotYet(expected)));
    world.handle(Input::WaitSynced(Ticket(1), 1_000));
    assert!(world.up_to_write().is_none() && world.synced.is_empty());
    world.written(batch);
    world.settle();
    assert_eq!(answer(&mut world), level(&[B, C], &[]));
}

/// Y23: otherwise a call beside a writer that never stops would wait for ever.
#[test]
fn a_call_waits_for_nothing_that_is_committed_later() {
    let mut world = level_world();
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.own();
    let mut b = Author::new(B, B_DEVICE);
    let (one, two) = (b.tag(2, "b"), b.tag(3, "c"));
    acks(&mut world, B, &[WireHead { seq: 1, ..b.head() }]);
    assert_eq!(wait(&mut world, 1_000), None);
    acks(&mut world, B, &[own, b.head()]);
    world.commit(vec![tag(1, "d")]).unwrap();
    acks(&mut world, C, &[own]);
    assert_eq!(answer(&mut world), None);
    world.feed(B, live(&[&one]));
    assert_eq!(answer(&mut world), level(&[B, C], &[]));
    assert_eq!(wait(&mut world, 1_000), None, "the next call waits for it");
    let own = world.own();
    acks(&mut world, B, &[own]);
    acks(&mut world, C, &[own]);
    world.feed(B, live(&[&two]));
    assert_eq!(answer(&mut world), level(&[B, C], &[]));
}

#[test]
fn a_member_that_goes_away_is_waited_for_no_more() {
    let mut world = level_world();
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.own();
    assert_eq!(wait(&mut world, 1_000), None);
    acks(&mut world, B, &[own]);
    world.handle(Input::Down(C));
    world.settle();
    assert_eq!(answer(&mut world), level(&[B], &[C]));
    world.commit(vec![tag(1, "b")]).unwrap();
    assert_eq!(wait(&mut world, 1_000), None);
    world.handle(Input::Down(B));
    world.settle();
    assert_eq!(answer(&mut world), Some(Synced::Alone { away: vec![B, C] }));
}

/// What only a member had that went away cannot come any more, and is no reason to wait.
#[test]
fn what_a_member_had_that_went_away_is_waited_for_no_more() {
    let mut world = level_world();
    let mut b = Author::new(B, B_DEVICE);
    b.tag(1, "a");
    acks(&mut world, B, &[b.head()]);
    assert_eq!(wait(&mut world, 1_000), None);
    world.handle(Input::Down(B));
    world.settle();
    assert_eq!(answer(&mut world), level(&[C], &[B]));
}

#[test]
fn a_member_that_comes_meanwhile_is_waited_for_too() {
    let mut world = level_world();
    world.handle(Input::Down(C));
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.own();
    assert_eq!(wait(&mut world, 1_000), None);
    world.handle(Input::Up(C));
    acks(&mut world, B, &[own]);
    assert_eq!(answer(&mut world), None);
    world.feed(C, hello(2, &[own]));
    assert_eq!(answer(&mut world), level(&[B, C], &[]));
}

/// Y23: the acknowledgements of a store that was restored count for nothing, so nobody is level with it.
#[test]
fn nobody_is_level_with_a_restored_store() {
    let mut world = level_world();
    let own = world.own();
    let restored = Hello { restored: true, heads: Capped(vec![own]), ..silent_hello(2) };
    world.feed(B, wire::hello(GROUP, &restored));
    assert_eq!(wait(&mut world, 1_000), None);
    world.pass(1_000);
    let lag = PeerLag { restored: true, missing_there: own.seq, ..lag(B) };
    assert_eq!(answer(&mut world), not_yet(vec![lag]));
}

/// To wait for a stream that is stopped may never end.
#[test]
fn a_stopped_stream_is_named_and_not_waited_for() {
    let mut world = level_world();
    let mut b = Author { wall: 100_000_000, ..Author::new(B, B_DEVICE) };
    let held = b.tag(1, "from the future");
    world.feed(B, live(&[&held]));
    assert!(matches!(world.stop_of(B), Some(StreamStop::Held { .. })));
    let stopped = Synced::Level { with: vec![B, C], away: vec![], stopped: vec![B] };
    assert_eq!(wait(&mut world, 1_000), Some(stopped.clone()));
    assert!(!stopped.is_level());
}

#[test]
fn a_joiner_waits_until_it_is_a_member_and_level() {
    let mut world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    let joining = |world: &mut World| match wait(world, 0) {
        Some(Synced::NotYet(unsynced)) => (unsynced.joining.is_some(), unsynced.peers),
        other => panic!("{other:?}"),
    };
    assert_eq!(joining(&mut world), (true, vec![]));
    assert_eq!(wait(&mut world, 60_000), None);
    let mut b = Author::new(B, B_DEVICE);
    let members = vec![member(B, B_DEVICE), member(C, C_DEVICE), member(REPLICA, DEVICE)];
    let (founding, later) = (b.commit(&[], members), b.tag(1, "a"));
    world.handle(Input::Up(B));
    world.feed(B, hello(1, &[b.head()]));
    world.feed(B, live(&[&founding]));
    assert_eq!((world.engine.report().joining, answer(&mut world)), (None, None));
    world.feed(B, live(&[&later]));
    assert_eq!(answer(&mut world), level(&[B], &[C]));
    // It has made no commit that the other could lack.
    let restored = Hello { restored: true, heads: Capped(vec![b.head()]), ..silent_hello(2) };
    world.feed(B, wire::hello(GROUP, &restored));
    assert_eq!(wait(&mut world, 0), not_yet(vec![PeerLag { restored: true, ..lag(B) }]));
}

/// Brings the proof that the store of the world was restored.
fn restore(world: &mut World) {
    let mut copy = world.copy_at(world.own().seq - 1);
    let other = copy.tag(9, "before the backup was put back");
    world.feed(B, hello(1, &[copy.head()]));
    world.convince(B, &[&other]);
    assert!(world.engine.report().restored.is_some());
}

#[test]
fn a_call_fails_once_this_store_is_known_to_be_restored() {
    let mut world = level_world();
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = CommitId { replica: REPLICA, seq: world.own().seq };
    world.handle(Input::WaitSynced(Ticket(1), 60_000));
    let wanted = Wanted { commit: own, on: 2 };
    world.handle(Input::WaitDurable(Ticket(2), wanted, 60_000));
    restore(&mut world);
    world.handle(Input::WaitSynced(Ticket(3), 60_000));
    world.handle(Input::WaitDurable(Ticket(4), wanted, 60_000));
    world.settle();
    assert!(matches!(world.synced[..], [(1, Err(Error::Restored(_))), (3, Err(Error::Restored(_)))]));
    assert!(matches!(world.durable[..], [(2, Err(Error::Restored(_))), (4, Err(Error::Restored(_)))]));
    for seq in 1..=own.seq {
        let commit = CommitId { seq, ..own };
        assert_eq!(world.engine.durable_on(commit).count(), 0, "they may mean what this store has lost");
    }
}

// --- a commit -------------------------------------------------------------------------------------------------------

/// Begins to wait until a commit is on so many members; gives the answer, if it comes at once.
fn wait_on(world: &mut World, on: usize, commit: CommitId, ms: u64) -> Option<DurableOn> {
    world.handle(Input::WaitDurable(Ticket(1), Wanted { commit, on }, ms));
    world.settle();
    durable(world)
}

fn durable(world: &mut World) -> Option<DurableOn> {
    assert!(world.durable.len() <= 1, "one answer to a call: {:?}", world.durable);
    world.durable.pop().map(|(_, answer)| answer.unwrap())
}

/// The members that have a commit for certain, and those that are said to have it.
fn sorts(durable: Option<DurableOn>) -> Option<(Vec<ReplicaId>, Vec<ReplicaId>)> {
    durable.map(|durable| (durable.members, durable.relayed))
}

fn sorted(mut members: Vec<ReplicaId>) -> Vec<ReplicaId> {
    members.sort_unstable();
    members
}

#[test]
fn an_own_commit_is_durable_on_those_that_acknowledged_it() {
    let mut world = level_world();
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.own();
    let commit = CommitId { replica: REPLICA, seq: own.seq };
    for on in [0, 1] {
        assert_eq!(sorts(wait_on(&mut world, on, commit, 1_000)), Some((vec![REPLICA], vec![])));
    }
    assert_eq!(wait_on(&mut world, 2, commit, 1_000), None);
    acks(&mut world, C, &[own]);
    let two = Some((sorted(vec![REPLICA, C]), vec![]));
    assert_eq!(sorts(durable(&mut world)), two);
    assert_eq!(wait_on(&mut world, 3, commit, 1_000), None);
    world.pass(1_000);
    assert_eq!(sorts(durable(&mut world)), two, "what there is when the time has run out");
    let next = CommitId { seq: own.seq + 1, ..commit };
    assert_eq!(wait_on(&mut world, 1, next, 1_000), None);
    world.commit(vec![tag(1, "b")]).unwrap();
    assert_eq!(sorts(durable(&mut world)), Some((vec![REPLICA], vec![])));
}

/// An author sends nothing before it is durable, so it has whatever is here.
#[test]
fn a_commit_of_another_is_durable_here_and_at_its_author() {
    let mut world = level_world();
    let mut b = Author::new(B, B_DEVICE);
    let one = b.tag(1, "a");
    let commit = CommitId { replica: B, seq: 1 };
    acks(&mut world, C, &[b.head()]);
    assert_eq!(sorts(wait_on(&mut world, 1, commit, 1_000)), Some((vec![C], vec![])));
    assert_eq!(wait_on(&mut world, 3, commit, 1_000), None);
    world.feed(B, live(&[&one]));
    assert_eq!(sorts(durable(&mut world)), Some((sorted(vec![REPLICA, B, C]), vec![])));
    world.feed(B, wire::hello(GROUP, &Hello { restored: true, ..silent_hello(2) }));
    let left = world.engine.durable_on(commit).members;
    assert_eq!(left, sorted(vec![REPLICA, C]), "who was restored may have lost it");
    let strange = CommitId { replica: STRANGER, seq: 1 };
    assert_eq!(world.engine.durable_on(strange).count(), 0);
}

#[test]
fn a_word_of_others_counts_and_is_told_apart() {
    let mut world = level_world();
    world.handle(Input::Down(C));
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.own();
    let commit = CommitId { replica: REPLICA, seq: own.seq };
    assert_eq!(wait_on(&mut world, 2, commit, 1_000), None);
    let word = |restored| wire::relayed(GROUP, &Capped(vec![Relayed { member: C, seq: own.seq, restored }]));
    world.feed(B, word(false));
    assert_eq!(sorts(durable(&mut world)), Some((vec![REPLICA], vec![C])));
    world.feed(B, word(true));
    for seq in 1..=own.seq {
        let left = world.engine.durable_on(CommitId { seq, ..commit });
        assert!(!left.contains(C), "it was restored, whatever it said itself: {left:?}");
    }
}

/// A member that is added while a call waits counts like any other.
#[test]
fn a_joiner_counts_once_it_is_a_member() {
    let mut world = level_world();
    let commit = CommitId { replica: REPLICA, seq: world.own().seq };
    assert_eq!(wait_on(&mut world, 4, commit, 60_000), None);
    let added = put(&Member::new(STRANGER, DeviceId(Uuid::from_u128(0xd5))));
    world.commit(vec![Staged { own_merge: true, ..added }]).unwrap();
    world.handle(Input::Up(STRANGER));
    assert_eq!(durable(&mut world), None);
    let own = world.own();
    world.feed(STRANGER, hello(1, &[own]));
    assert_eq!(durable(&mut world).map(|durable| durable.count()), Some(4));
}

#[test]
fn a_call_that_is_forgotten_is_answered_by_nothing() {
    let mut world = level_world();
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.own();
    let commit = CommitId { replica: REPLICA, seq: own.seq };
    for (forgotten, answers) in [(true, 0), (false, 2)] {
        let before = world.engine.next_timeout();
        world.handle(Input::WaitSynced(Ticket(1), 7));
        world.handle(Input::WaitDurable(Ticket(2), Wanted { commit, on: 3 }, 8));
        if forgotten {
            world.handle(Input::Forget(Ticket(1)));
            world.handle(Input::Forget(Ticket(2)));
            assert_eq!(world.engine.next_timeout(), before);
        }
        world.pass(10);
        assert_eq!(world.synced.len() + world.durable.len(), answers, "forgotten: {forgotten}");
    }
}

/// A wait of any length is one that the timer of a platform takes.
#[test]
fn a_wait_ends_after_a_year() {
    let mut world = level_world();
    world.commit(vec![tag(1, "a")]).unwrap();
    assert_eq!(wait(&mut world, u64::MAX), None);
    world.pass(366 * 24 * 3_600_000);
    assert!(matches!(answer(&mut world), Some(Synced::NotYet(_))));
}

// --- the status -----------------------------------------------------------------------------------------------------

#[test]
fn the_status_says_how_far_each_peer_is_behind_in_each_stream() {
    let mut world = level_world();
    assert_eq!(world.peer(C).behind, []);
    world.commit(vec![tag(1, "a")]).unwrap();
    let own = world.own();
    let mut b = Author::new(B, B_DEVICE);
    let (one, first) = (b.tag(1, "a"), b.head());
    let two = b.tag(2, "b");
    world.feed(B, live(&[&one, &two]));
    assert_eq!(world.peer(B).behind, [(REPLICA, 1)]);
    let mut behind = vec![(REPLICA, 1), (B, 2)];
    behind.sort_unstable();
    assert_eq!(world.peer(C).behind, behind);
    acks(&mut world, C, &[own, first]);
    assert_eq!(world.peer(C).behind, [(B, 1)]);
    world.handle(Input::Up(STRANGER));
    world.feed(STRANGER, knock(1, C_DEVICE));
    assert_eq!(world.peer(STRANGER).behind, [], "it is no member");
}
