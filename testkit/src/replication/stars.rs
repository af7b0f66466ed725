//! A star: every device meets the one in the middle, and no other. Each still says what has reached the others.

use std::time::Duration;

use futures::future::join;
use syncline::{PeerStatus, ReplicaId};
use syncline_backends::{Link, MemoryNetworkBuilder};

use super::peer::{Peer, replica_id};
use super::world::{World, play_on};
use crate::Fixture;
use crate::models::{note, place};
use crate::poll::give_way;

/// What `peer` says of `other`.
async fn of<F: Fixture>(peer: &Peer<F>, other: ReplicaId) -> PeerStatus {
    let peers = peer.status().await.unwrap().peers;
    peers.into_iter().find(|known| known.replica == other).expect("a member is a peer")
}

/// Waits until `peer` says that `other` has all that it has committed.
async fn is_there<F: Fixture>(world: &World<'_, F>, peer: &Peer<F>, other: ReplicaId) {
    let all = peer.status().await.unwrap().commits;
    world.until("all of it is there", async || of(peer, other).await.acknowledged == all).await;
}

/// The messages with which the hub tells others of others: their kind is the seventh byte of a frame.
fn relayed<F: Fixture>(hub: &Peer<F>) -> usize {
    hub.tap.frames().iter().filter(|frame| frame.get(6) == Some(&10)).count()
}

/// Goal: the phone says whether its commits are on the laptop, which it never meets; where all meet, this costs no
/// message. Method: phone and laptop are connected with a hub alone; the laptop, the hub and the phone each go and come
/// back; then the phone and the laptop meet.
///
/// Y14, Y20.
pub async fn a_star_says_what_has_reached_its_other_end<F: Fixture>(fresh: &impl Fn() -> F) {
    play_on(fresh, MemoryNetworkBuilder::unconnected, async |world| {
        let (hub, phone, laptop) = (replica_id(0), replica_id(1), replica_id(2));
        world.network.connect(hub, phone);
        world.network.connect(hub, laptop);
        let mut hub = world.found(0).await;
        let mut phone = world.join(1, &hub).await;
        let mut laptop = world.join(2, &hub).await;
        world.converged(&[&hub, &phone, &laptop]).await;
        phone.commit(note(1, "is it there yet")).await.unwrap();
        world.pass(1_000).await;
        let known = of(&phone, laptop.id).await;
        assert_eq!((known.acknowledged, known.connected, known.heard), (1, false, None));
        is_there(world, &laptop, phone.id).await;

        world.network.disconnect(hub.id, laptop.id);
        phone.commit(note(2, "not yet")).await.unwrap();
        world.converged(&[&hub, &phone]).await;
        world.pass(60_000).await;
        assert_eq!(of(&phone, laptop.id).await.acknowledged, 1);
        world.network.connect(hub.id, laptop.id);
        is_there(world, &phone, laptop.id).await;

        // The word is that of the hub: it is there again after the phone, and after the hub, was closed.
        phone.close(world).await;
        phone.reopen(world).await;
        is_there(world, &phone, laptop.id).await;
        hub.close(world).await;
        hub.reopen(world).await;
        phone.commit(place(phone.device, 1, "after all that")).await.unwrap();
        is_there(world, &phone, laptop.id).await;

        // A link that the transport calls up, and that carries nothing, is no link.
        world.network.connect(phone.id, laptop.id);
        world.network.set(phone.id, laptop.id, Link { loss: 1., ..Link::default() });
        world.network.set(laptop.id, phone.id, Link { loss: 1., ..Link::default() });
        phone.commit(note(3, "over the hub")).await.unwrap();
        is_there(world, &phone, laptop.id).await;
        let known = of(&phone, laptop.id).await;
        assert_eq!((known.connected, known.heard), (true, None));

        // Now all meet.
        for (one, other) in [(phone.id, laptop.id), (laptop.id, phone.id)] {
            world.network.set(one, other, Link::default());
        }
        world.pass(100_000).await;
        assert!(of(&phone, laptop.id).await.heard.is_some_and(|ago| ago < Duration::from_secs(40)));
        let before = relayed(&hub);
        assert!(before > 0);
        for n in 0..20 {
            phone.commit(note(n, "to all")).await.unwrap();
            world.pass(500).await;
        }
        is_there(world, &phone, laptop.id).await;
        assert_eq!(relayed(&hub), before, "nobody needs to be told");
        world.converged(&[&hub, &phone, &laptop]).await;
        world.assert_equal(&mut [&mut hub, &mut phone, &mut laptop]).await;
    })
    .await;
}

/// Goal: after the device slept, the first look at the status does not show what was true before. Method: a driver that
/// stands still while the timer goes on for hours, and a status that is asked for before it has heard anything.
///
/// Y20.
pub async fn a_status_after_a_sleep_is_honest<F: Fixture>(fresh: &impl Fn() -> F) {
    const HOURS: Duration = Duration::from_secs(8 * 3_600);
    play_on(
        fresh,
        |network| network,
        async |world| {
            let [mut a, mut b] = world.group().await;
            assert!(of(&a, b.id).await.heard.is_some_and(|ago| ago < HOURS));
            a.pause();
            world.clock.advance(HOURS.as_millis().try_into().expect("a few hours"));
            let wakes = async {
                give_way().await;
                a.let_run();
            };
            let (known, ()) = join(of(&a, b.id), wakes).await;
            assert!(known.connected && known.heard.is_some_and(|ago| ago >= HOURS), "{known:?}");
            world
                .until("it hears again", async || of(&a, b.id).await.heard.is_some_and(|ago| ago < HOURS))
                .await;
            world.assert_equal(&mut [&mut a, &mut b]).await;
        },
    )
    .await;
}
