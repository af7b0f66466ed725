//! Joining a group late: its logs are pruned, its founder is gone, or it never stops writing.

use syncline::Event;
use syncline_backends::Link;

use super::behind::{again, brief, brief_group, has_installed, lasting, pruned_of, takes_a_while};
use super::catching_up::commits_of;
use super::joining::joins;
use super::pairs::{delete_pairs, half, notes, pairs, put_pair, put_pairs};
use super::peer::Peer;
use super::world::{GROUP, World, knocks, play};
use crate::Fixture;
use crate::models::{Note, note};
use crate::replica::app::drain;

/// Opens a joiner with small pages, and has a member add it. Does not wait until it is a member.
async fn asks_to_join<F: Fixture>(world: &World<'_, F>, n: u8, introducer: &Peer<F>) -> Peer<F> {
    let mut joiner = world.device(n);
    let opened = joiner.open(world, |builder| lasting(builder).join(GROUP, introducer.id)).await;
    opened.unwrap();
    world.until("it knocks", async || knocks(introducer, joiner.id).await).await;
    introducer.add_member(joiner.id).await.unwrap();
    joiner
}

async fn is_member<F: Fixture>(peer: &Peer<F>) -> bool {
    peer.status().await.unwrap().joining.is_none()
}

/// Goal: a replica can join when the founder is gone for ever, has everything, and can itself have others join. Method: A and C
/// prune what both have; A writes once more and is lost; D joins through C, then E through D.
///
/// Y5, Y6, Y9.
pub async fn a_replica_joins_through_a_member_after_the_founder_is_gone<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut c] = world.group().await;
        put_pairs(&a, 0..70, "of A").await;
        delete_pairs(&a, 0..10).await;
        put_pairs(&c, 70..75, "of C").await;
        world.converged(&[&a, &c]).await;
        world.until("the log of A is pruned", async || pruned_of(&c, &a).await >= 70).await;
        put_pairs(&a, [80], "the last one").await;
        world.converged(&[&a, &c]).await;
        a.kill(world).await;

        let mut d = world.device(3);
        joins(world, &mut d, c.id).await;
        let mut events = d.events();
        world.admit(&d, &c).await;
        world.converged(&[&c, &d]).await;
        let told = drain(&mut events).await;
        assert!(told.iter().any(|event| matches!(event, Event::Installed { .. })), "{told:?}");
        assert!(told.contains(&Event::Joined), "{told:?}");
        put_pairs(&d, [81], "of D").await;
        let mut e = world.join(4, &d).await;
        world.converged(&[&c, &d, &e]).await;
        put_pairs(&e, [82], "of E").await;
        world.converged(&[&c, &d, &e]).await;
        let of_a = (10..70).map(|n| (n, "of A"));
        let others = (70..75).map(|n| (n, "of C")).chain([(80, "the last one"), (81, "of D"), (82, "of E")]);
        let expected = pairs(of_a.chain(others));
        for peer in [&c, &d, &e] {
            assert_eq!(notes(peer).await, expected, "at {}", peer.id);
        }
        // The one that is gone holds what came since.
        let streams = c.status().await.unwrap().streams;
        let holder = streams.iter().find(|stream| stream.replica == e.id).unwrap().held_by.clone();
        assert_eq!(holder.map(|holder| holder.member), Some(a.id));
        world.assert_equal(&mut [&mut c, &mut d, &mut e]).await;
    })
    .await;
}

/// Goal: a replica that joins while one member prunes and another deletes ends equal to them, and its readers see no half of a
/// commit. Method: small pages on links with a delay; A writes and prunes, B deletes, at every step of the join of D.
///
/// Y5, Y6, Y9, C13.
pub async fn a_replica_joins_while_one_member_prunes_and_another_deletes<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b] = brief_group(world).await;
        again(world, &mut b, brief).await;
        put_pairs(&a, 0..80, "old").await;
        world.converged(&[&a, &b]).await;
        world.until("the log of A is pruned", async || pruned_of(&a, &a).await >= 70).await;
        takes_a_while(world);
        let mut d = asks_to_join(world, 3, &a).await;
        let mut events = d.events();
        let (mut step, floor) = (0, pruned_of(&a, &a).await);
        world
            .until("it is a member", async || {
                step += 1;
                if step < 60 {
                    put_pair(&a, 20 + step, &format!("while {step}")).await.unwrap();
                }
                if step < 20 {
                    delete_pairs(&b, [step]).await;
                }
                let seen = notes(&d).await;
                assert_eq!(half(&seen), None, "step {step}: {seen:?}");
                is_member(&d).await
            })
            .await;
        assert!(step > 10, "it was done in {step} steps");
        assert!(has_installed(&mut events).await, "the log was enough");
        world.converged(&[&a, &b, &d]).await;
        world.until("A prunes", async || pruned_of(&a, &a).await > floor + 50).await;
        assert_eq!(d.get::<Note>(1).await.unwrap(), None);
        d.commit(note(1, "anew")).await.unwrap();
        world.converged(&[&a, &b, &d]).await;
        assert_eq!(a.get::<Note>(1).await.unwrap(), Some(note(1, "anew")));
        world.assert_equal(&mut [&mut a, &mut b, &mut d]).await;
    })
    .await;
}

/// Goal: a replica becomes a member although a member never stops writing, and keeps up from then on. Method: a founder that has
/// pruned its log and puts a pair every 100 ms, over a link of which that takes a good part.
///
/// Y5, Y9, Y16.
pub async fn a_replica_joins_a_writer_that_never_stops_and_keeps_up<F: Fixture>(fresh: &impl Fn() -> F) {
    const EVERY_MS: u64 = 100;
    play(fresh, async |world| {
        let [mut a, mut b] = brief_group(world).await;
        put_pairs(&a, 0..200, &"old ".repeat(20)).await;
        world.converged(&[&a, &b]).await;
        world.until("the log of A is pruned", async || pruned_of(&a, &a).await >= 190).await;
        let link = Link { delay_ms: 50..=50, bytes_a_second: Some(12_000), ..Link::default() };
        world.network.set_all(link);
        let mut step = 0;
        let mut write = async |a: &Peer<F>| {
            step += 1;
            put_pair(a, step % 200, &format!("step {step}")).await.unwrap();
            world.pass(EVERY_MS).await;
            step
        };
        let mut d = asks_to_join(world, 3, &a).await;
        let mut events = d.events();
        while !is_member(&d).await {
            let step = write(&a).await;
            assert!(step < 300, "it is no member after {step} commits:\n{}", world.report().await);
        }
        assert!(has_installed(&mut events).await, "the log was enough");
        // Commits that came since the snapshot began come by log.
        let lacks = async |d: &Peer<F>| commits_of(&a, &a).await - commits_of(d, &a).await;
        while lacks(&d).await > 3 {
            let step = write(&a).await;
            assert!(step < 600, "it is not level after {step} commits:\n{}", world.report().await);
        }
        for _ in 0..100 {
            write(&a).await;
            assert!(lacks(&d).await <= 5, "it falls behind again:\n{}", world.report().await);
        }
        put_pair(&d, 900, "of D").await.unwrap();
        world.converged(&[&a, &b, &d]).await;
        assert_eq!(a.get::<Note>(900).await.unwrap(), Some(note(900, "of D")));
        world.assert_equal(&mut [&mut a, &mut b, &mut d]).await;
    })
    .await;
}
