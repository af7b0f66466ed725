//! A replica becomes a member: it says why it waits, and who adds it asks for what it needs.

use syncline::{DeviceId, Error, Event, GroupId, JoinWait, ReplicaId, Uuid};

use super::peer::{Peer, all_models, replica_id};
use super::world::{GROUP, World, knocks, play};
use crate::Fixture;
use crate::models::{Place, note, place};
use crate::replica::app::drain;

/// A device that nobody has.
const WRONG: DeviceId = DeviceId(Uuid::from_u128(0xbad));

pub(super) async fn joins<F: Fixture>(world: &World<'_, F>, peer: &mut Peer<F>, introducer: ReplicaId) {
    peer.close(world).await;
    peer.open(world, |builder| all_models(builder).join(GROUP, introducer)).await.unwrap();
}

async fn waits<F: Fixture>(world: &World<'_, F>, peer: &Peer<F>, wait: JoinWait) {
    let what = format!("it waits since {wait}");
    world.until(&what, async || peer.status().await.unwrap().joining == Some(wait)).await;
    let refused = peer.commit(note(1, "too early")).await.unwrap_err();
    assert!(matches!(refused, Error::Joining { wait: said, .. } if said == wait), "{refused}");
    assert!(refused.to_string().ends_with(&wait.to_string()), "{refused}");
}

/// Goal: a joiner says what it waits for, and adding it on a wrong device can be put right. Method: the joiner asks
/// nobody, then a replica of another group, then a member; that one adds it on a wrong device while it cannot reach it,
/// and then again.
///
/// Y17, Y19.
pub async fn a_joiner_says_why_it_waits_and_a_wrong_add_is_put_right<F: Fixture>(fresh: &impl Fn() -> F) {
    const OTHER: GroupId = GroupId(Uuid::from_u128(0x61));
    play(fresh, async |world| {
        let (mut a, mut other, mut b) = (world.found(0).await, world.device(5), world.device(1));
        other.open(world, |builder| all_models(builder).found(OTHER)).await.unwrap();
        let nobody = replica_id(77);
        joins(world, &mut b, nobody).await;
        waits(world, &b, JoinWait::NoAnswer { introducer: nobody, connected: false }).await;
        joins(world, &mut b, other.id).await;
        waits(world, &b, JoinWait::OtherGroup { introducer: other.id }).await;
        other.close(world).await;

        let mut events = a.events();
        joins(world, &mut b, a.id).await;
        waits(world, &b, JoinWait::NotAdded { introducer: a.id }).await;
        world.until("it knocks", async || knocks(&a, b.id).await).await;
        let told = drain(&mut events).await;
        assert!(told.contains(&Event::Knocks { replica: b.id, device: b.device }), "{told:?}");
        let added = a.add_member_on(b.id, WRONG).await;
        assert!(matches!(added, Err(Error::KnocksOnOtherDevice { knocks, .. }) if knocks == b.device));

        world.network.disconnect(a.id, b.id);
        world.until("it is gone", async || !knocks(&a, b.id).await).await;
        a.add_member_on(b.id, WRONG).await.unwrap();
        world.network.connect(a.id, b.id);
        waits(world, &b, JoinWait::OtherDevice { added: WRONG, device: b.device }).await;
        b.close(world).await;
        b.entries().await;
        b.reopen(world).await;
        waits(world, &b, JoinWait::OtherDevice { added: WRONG, device: b.device }).await;
        world.until("it knocks on", async || knocks(&a, b.id).await).await;
        let mut events = b.events();
        a.add_member(b.id).await.unwrap();
        world.until("it is a member", async || b.status().await.unwrap().joining.is_none()).await;
        assert!(drain(&mut events).await.contains(&Event::Joined));
        // Adding a member again changes nothing, and it is not moved from where it works.
        b.commit(place(b.device, 1, "at b")).await.unwrap();
        world.converged(&[&a, &b]).await;
        let commits = a.status().await.unwrap().commits;
        a.add_member(b.id).await.unwrap();
        let moved = a.add_member_on(b.id, WRONG).await;
        assert!(matches!(moved, Err(Error::MemberOnOtherDevice { .. })), "{moved:?}");
        assert_eq!(a.status().await.unwrap().commits, commits);
        assert_eq!(a.get::<Place>((b.device, 1)).await.unwrap(), Some(place(b.device, 1, "at b")));
        world.assert_equal(&mut [&mut a, &mut b]).await;
    })
    .await;
}

/// Goal: nobody may change what a member's device owns because a joiner named that device, unless the app says so.
/// Method: a joiner with the device of a member; after that member's store was lost, it takes the device over.
///
/// Y19.
pub async fn a_device_is_taken_over_only_by_a_call_that_says_so<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b] = world.group().await;
        b.commit(place(b.device, 1, "at b")).await.unwrap();
        world.converged(&[&a, &b]).await;
        let mut c = world.device(2);
        c.device = b.device;
        joins(world, &mut c, a.id).await;
        world.until("it knocks", async || knocks(&a, c.id).await).await;
        for added in [a.add_member(c.id).await, a.add_member_on(c.id, b.device).await] {
            let is_refused = matches!(added, Err(Error::DeviceOfMember { member, .. }) if member == b.id);
            assert!(is_refused, "{added:?}");
        }
        assert!(!a.status().await.unwrap().members.contains(&c.id));
        b.close(world).await;
        a.take_over(c.id, b.device).await.unwrap();
        world.until("it is a member", async || c.status().await.unwrap().joining.is_none()).await;
        c.commit(place(c.device, 1, "back again")).await.unwrap();
        b.reopen(world).await;
        world.converged(&[&a, &b, &c]).await;
        assert_eq!(a.get::<Place>((b.device, 1)).await.unwrap(), Some(place(c.device, 1, "back again")));
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}
