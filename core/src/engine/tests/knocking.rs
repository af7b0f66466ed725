//! Goal: a replica that wants to become a member says so, the app hears of it, and its member record can be put right.
//! Method: a founder to which made-up replicas say hello.

use super::*;

/// A replica that is no member, and its device.
const JOINER: ReplicaId = STRANGER;
const ITS_DEVICE: DeviceId = DeviceId(Uuid::from_u128(0xd5));

/// A founder with members, and a stranger that is up.
fn visited() -> World {
    let mut world = World::connected(Rules::ALL);
    world.handle(Input::Up(JOINER));
    world.settle();
    world.said();
    world
}

fn knocks(world: &World, replica: ReplicaId) -> Option<DeviceId> {
    world.engine.report().peers.iter().find(|peer| peer.replica == replica).and_then(|peer| peer.knocks)
}

/// The replicas that knocked since the last time, as the app was told.
fn told(world: &mut World) -> Vec<(ReplicaId, DeviceId)> {
    let events = world.events().into_iter();
    events
        .filter_map(|event| match event {
            Event::Knocks { replica, device } => Some((replica, device)),
            _ => None,
        })
        .collect()
}

/// Puts a member record, as `add_member` does.
fn add(world: &mut World, member: &Member) {
    world.commit(vec![Staged { own_merge: true, ..put(member) }]).unwrap();
}

#[test]
fn a_knock_is_told_once_and_shown_until_its_replica_is_added_or_goes() {
    let mut world = visited();
    world.feed(JOINER, hello(1, &[]));
    assert_eq!((told(&mut world), knocks(&world, JOINER)), (vec![], None), "a stranger need not knock");
    for _ in 0..3 {
        world.feed(JOINER, knock(1, ITS_DEVICE));
        assert_eq!(knocks(&world, JOINER), Some(ITS_DEVICE));
    }
    assert_eq!(told(&mut world), [(JOINER, ITS_DEVICE)]);
    assert!(world.said().iter().all(|said| *said == (Some(JOINER), Message::Stranger)));
    world.handle(Input::Down(JOINER));
    world.settle();
    assert_eq!(knocks(&world, JOINER), None, "it waits no more, or nobody knows");
    world.handle(Input::Up(JOINER));
    world.feed(JOINER, knock(2, ITS_DEVICE));
    assert_eq!(told(&mut world), [(JOINER, ITS_DEVICE)]);
    add(&mut world, &Member::new(JOINER, ITS_DEVICE));
    assert_eq!(knocks(&world, JOINER), None);
    world.feed(JOINER, knock(2, ITS_DEVICE));
    assert_eq!((told(&mut world), knocks(&world, JOINER)), (vec![], None), "it has not heard of it yet");
}

/// B4: a stranger that names another device each time must not flood the app.
#[test]
fn b4_knocks_on_ever_other_devices_are_told_ever_more_rarely() {
    let mut world = visited();
    for n in 1..=100 {
        world.feed(JOINER, knock(1, DeviceId(Uuid::from_u128(n))));
    }
    let devices: Vec<_> = told(&mut world).into_iter().map(|(_, device)| device.0.as_u128()).collect();
    assert_eq!(devices, [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(knocks(&world, JOINER), Some(DeviceId(Uuid::from_u128(100))), "the status has the last one");
}

/// A flood of strangers is remembered no further than strangers are.
#[test]
fn b1_no_more_knocks_are_remembered_than_strangers() {
    let mut world = visited();
    for n in 0..1000 {
        let stranger = ReplicaId(Uuid::from_u128(0x1_0000 + n));
        world.handle(Input::Up(stranger));
        world.feed(stranger, knock(1, ITS_DEVICE));
    }
    let members = world.engine.report().members.len();
    let knocking = world.engine.report().peers.iter().filter(|peer| peer.knocks.is_some()).count();
    assert!((1..=Limits::default().members_max + 64 - members).contains(&knocking), "{knocking}");
    assert_eq!(told(&mut world).len(), knocking);
}

/// The call that adds a replica asks for its device here.
#[test]
fn a_call_waits_a_bounded_time_for_a_knock() {
    let mut world = visited();
    let ask = |world: &mut World, ticket, replica| {
        world.handle(Input::AwaitKnock(Ticket(ticket), replica));
        world.settle();
    };
    ask(&mut world, 1, B);
    assert!(matches!(world.knocked[..], [(1, Ok(B_DEVICE))]), "a member needs not knock");
    ask(&mut world, 2, JOINER);
    ask(&mut world, 3, JOINER);
    world.pass(4_999);
    assert_eq!(world.knocked.len(), 1);
    world.feed(JOINER, knock(1, ITS_DEVICE));
    assert!(matches!(world.knocked[1..], [(2, Ok(ITS_DEVICE)), (3, Ok(ITS_DEVICE))]), "{:?}", world.knocked);
    ask(&mut world, 4, JOINER);
    assert!(matches!(world.knocked[3..], [(4, Ok(ITS_DEVICE))]), "it is here already");
    let nobody = ReplicaId(Uuid::from_u128(0x99));
    ask(&mut world, 5, nobody);
    world.pass(5_000);
    let (_, silent) = world.knocked.pop().unwrap();
    assert!(matches!(silent, Err(Error::NotKnocking { replica, me: REPLICA }) if replica == nobody));
    assert_eq!(world.knocked.len(), 4);
}

/// A joiner knows nobody, so it adds nobody.
#[test]
fn a_joiner_answers_no_knock() {
    let mut world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    for peer in [B, JOINER] {
        world.handle(Input::Up(peer));
        world.feed(peer, knock(1, ITS_DEVICE));
    }
    assert_eq!(told(&mut world), []);
    world.handle(Input::AwaitKnock(Ticket(1), JOINER));
    world.settle();
    assert!(matches!(world.knocked[..], [(1, Err(Error::Joining { .. }))]), "{:?}", world.knocked);
}

/// It may come in the same page as the first commit of its replica, or after it over another way.
#[test]
fn what_a_corrected_member_commits_is_taken_with_its_correction() {
    for waits in [false, true] {
        let mut world = World::connected(Rules::ALL);
        let wrong = Member::new(JOINER, C_DEVICE);
        let mut b = Author::new(B, B_DEVICE);
        let added = b.commit(&[], vec![record_of(&wrong)]);
        world.feed(B, live(&[&added]));
        let corrected = b.commit(&[], vec![record_of(&wrong.corrected(ITS_DEVICE))]);
        let first = Author::new(JOINER, ITS_DEVICE).commit(&[b.head()], vec![tagged(1, "a")]);
        if waits {
            world.feed(B, live(&[&corrected, &first]));
        } else {
            world.feed(B, live(&[&first]));
            assert_eq!((world.seq_of(JOINER), world.stop_of(JOINER)), (0, None), "it waits for its cause");
            world.feed(B, live(&[&corrected]));
            world.feed(B, live(&[&first]));
        }
        assert_eq!((world.seq_of(JOINER), world.stop_of(JOINER)), (1, None));
        assert_eq!(world.audit(), []);
    }
}

fn record_of(member: &Member) -> Write {
    let value = postcard::to_allocvec(member).unwrap();
    (RecordKey::new::<Member>(&member.replica), Some(value), Some(Hlc::NEVER))
}

/// Y19: the correction wins wherever it arrives, in any order, also over an add elsewhere.
#[test]
fn y19_a_joiner_that_was_added_on_a_wrong_device_is_a_member_once_that_is_put_right() {
    let wrong = Member::new(REPLICA, C_DEVICE);
    for first_wrong in [true, false] {
        let mut world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
        world.handle(Input::Up(B));
        let mut b = Author::new(B, B_DEVICE);
        let mut c = Author::new(C, C_DEVICE);
        let founding = b.commit(&[], vec![member(B, B_DEVICE), member(C, C_DEVICE)]);
        let added = b.commit(&[], vec![record_of(&wrong)]);
        let corrected = c.commit(&[], vec![record_of(&wrong.corrected(DEVICE))]);
        world.feed(B, live(&[&founding]));
        let order = if first_wrong { [&added, &corrected] } else { [&corrected, &added] };
        for made in order {
            world.feed(B, live(&[made]));
            assert_eq!(world.audit(), []);
            let is_member = world.engine.report().joining.is_none();
            assert_eq!(is_member, made.stream == C || !first_wrong);
        }
        assert!(world.events().contains(&Event::Joined));
        world.commit(vec![tag(1, "a")]).unwrap();
        world.reopen(networked(Rules::ALL));
        assert_eq!(world.engine.report().joining, None);
    }
}

/// Two members added a joiner at once, one of them on a wrong device, which wins. The joiner was at work by then.
#[test]
fn a_member_that_a_later_add_moved_can_be_put_right() {
    let mut world = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    world.handle(Input::Up(B));
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let lower = DeviceId(Uuid::from_u128(0));
    let founding = b.commit(&[], vec![member(B, B_DEVICE), member(C, C_DEVICE)]);
    let added = b.commit(&[], vec![record_of(&Member::new(REPLICA, DEVICE))]);
    world.feed(B, live(&[&founding, &added]));
    world.commit(vec![tag(1, "a")]).unwrap();
    let wrong = c.commit(&[], vec![record_of(&Member::new(REPLICA, lower))]);
    world.feed(B, live(&[&wrong]));
    let said = world.said();
    let last = said.iter().rev().find_map(|(_, message)| match message {
        Message::Hello(hello) => Some(hello.knocks),
        _ => None,
    });
    assert_eq!(last, Some(Some(DEVICE)), "it says on which device it is");
    // The replica says so, also after it was opened again, and commits nothing.
    let wait = JoinWait::OtherDevice { added: lower, device: DEVICE };
    assert!(world.events().contains(&Event::Joining(wait)));
    for _ in 0..2 {
        assert_eq!(world.engine.report().joining, Some(wait));
        let refused = world.commit(vec![tag(2, "b")]);
        assert!(matches!(refused, Err(Error::Joining { replica: REPLICA, wait: told }) if told == wait));
        world.reopen(networked(Rules::ALL));
    }
    assert_eq!(world.audit(), []);
    // Added again, it goes on.
    world.handle(Input::Up(C));
    world.feed(C, live(&[&c.commit(&[], vec![record_of(&Member::new(REPLICA, lower).corrected(DEVICE))])]));
    assert_eq!(world.engine.report().joining, None);
    assert!(world.events().contains(&Event::Joined));
    world.commit(vec![tag(2, "b")]).unwrap();
}

/// A commit that waits when its replica turns out to be on a wrong device is refused, not made.
#[test]
fn a_commit_that_waits_is_refused_once_another_add_counts() {
    let mut world = World::connected(Rules::ALL);
    let mut b = Author::new(B, B_DEVICE);
    let lower = DeviceId(Uuid::from_u128(0));
    world.handle(Input::Frame(B, live(&[&b.commit(&[], vec![record_of(&Member::new(REPLICA, lower))])])));
    let batch = world.up_to_write().expect("the commit of B is written");
    let ticket = world.submit(vec![tag(2, "b")]);
    world.written(batch);
    world.settle();
    let reply = world.replies.iter().find(|(replied, _)| *replied == ticket).map(|(_, reply)| reply);
    assert!(matches!(reply, Some(Err(Error::Joining { .. }))), "{reply:?}");
    assert_eq!((world.tag_name(2), world.audit()), (None, vec![]));
}

/// Goal: a commit is judged by what its author knew, so all replicas take it, whatever they have heard of since. Method: two
/// adds of one replica at once and its commit under the losing one, in every order that causes allow.
#[test]
fn a_commit_on_a_device_that_lost_is_taken_in_every_order() {
    let lower = DeviceId(Uuid::from_u128(0));
    let (mut b, mut c) = (Author::new(B, B_DEVICE), Author::new(C, C_DEVICE));
    let mut d = Author::new(JOINER, ITS_DEVICE);
    let right = b.commit(&[], vec![record_of(&Member::new(JOINER, ITS_DEVICE))]);
    let wrong = c.commit(&[], vec![record_of(&Member::new(JOINER, lower))]);
    let made = d.commit(&[b.head()], vec![tagged(1, "d")]);
    let mut contents = BTreeSet::new();
    for order in [[&right, &made, &wrong], [&right, &wrong, &made], [&wrong, &right, &made]] {
        for together in [false, true] {
            let mut world = World::connected(Rules::ALL);
            if together {
                world.feed(B, live(&order));
            } else {
                order.iter().for_each(|commit| world.feed(B, live(&[commit])));
            }
            assert_eq!((world.tag_name(1).as_deref(), world.stop_of(JOINER)), (Some("d"), None));
            assert_eq!(world.audit(), []);
            let member = world.get(RecordKey::new::<Member>(&JOINER).into_bytes()).unwrap();
            contents.insert(record::parse(&member).unwrap().1.to_vec());
            // On a third device nobody added it, wherever its commit arrives.
            let mut elsewhere = Author { device: C_DEVICE, ..d.clone() };
            world.feed(B, live(&[&elsewhere.tag(1, "no")]));
            assert!(matches!(world.stop_of(JOINER), Some(StreamStop::Refused { seq: 2, .. })));
        }
    }
    assert_eq!(contents.len(), 1, "all have the same record");
    let member: Member = model::decode_bytes(contents.first().unwrap()).unwrap();
    assert_eq!((member.device, member.was_on(ITS_DEVICE)), (lower, true));
}
