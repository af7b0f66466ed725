//! Projections of a replica that installs a snapshot beside records of its own: their tables follow the switch and the fold.

use futures::FutureExt as _;
use syncline::{Builder, Event, Limits, ProjectionState};
use syncline_backends::MemoryNetworkBuilder;

use super::behind::{
    PAGE_BYTES, brief_group, has_installed, is_left_behind, keeps, leaves, pruned_of, returns, takes_a_while,
};
use super::catching_up::commits_of;
use super::pairs::{OTHER, delete_pairs, half, notes, put_pair, put_pairs};
use super::peer::{Peer, Store, replica_id};
use super::projections::{Trouble, assert_in_step, projecting};
use super::world::{GROUP, World, knocks, play, play_on};
use crate::JoinFixture;
use crate::models::{Note, Place, note, place};

/// Opens a replica with projections and small pages.
fn projected<F: JoinFixture>() -> impl FnOnce(Builder<Store<F>>) -> Builder<Store<F>> {
    let project = projecting::<F>(&Trouble::none());
    |builder| project(builder).limits(Limits { page_bytes_max: PAGE_BYTES, ..Limits::default() })
}

/// Waits until all projections of a replica are filled.
async fn is_complete<F: JoinFixture>(world: &World<'_, F>, peer: &Peer<F>) {
    world
        .until("the projections are complete", async || {
            let projections = peer.status().await.unwrap().projections;
            projections.iter().all(|projection| projection.state == ProjectionState::Complete)
        })
        .await;
}

/// Ends a replica at the switch of its install, and then again and again, after ever more polls, until all of it is folded. Returns
/// the pairs that it has acknowledged meanwhile.
async fn ends_during_the_fold<F: JoinFixture>(world: &World<'_, F>, peer: &mut Peer<F>) -> Vec<u32> {
    let mut events = peer.events();
    let mut switches = || {
        std::iter::from_fn(|| events.next().now_or_never().flatten())
            .any(|event| matches!(event, Ok(Event::Installed { .. })))
    };
    world.as_soon_as("it switches", &mut switches).await;
    peer.kill(world).await;
    let (mut acknowledged, mut polls) = (Vec::new(), 0);
    loop {
        polls += 1;
        peer.open_for(polls, world, projected::<F>()).await.unwrap();
        let n = 300 + u32::try_from(polls).expect("few polls");
        // A joiner cannot commit; a member may have to wait, and its process may end first.
        if put_pair(peer, n, "during the fold").await.is_ok() {
            acknowledged.push(n);
        }
        world
            .until("it ends, or has folded", async || {
                peer.status().await.map_or(true, |status| status.installing.is_none())
            })
            .await;
        if peer.status().await.is_ok() {
            println!("it ended {polls} times");
            peer.kill(world).await;
            peer.open(world, projected::<F>()).await.unwrap();
            return acknowledged;
        }
        peer.kill(world).await;
    }
}

/// Goal: the tables of a member that installs a snapshot beside records of its own are what its records say, wherever its process
/// ends, and it goes on committing. Method: a member with projections that was away past a pruned log; it writes at every step of the
/// install, and ends at the switch and at every step of the fold.
///
/// C10, C18, Y5, I9.
pub async fn projections_follow_a_snapshot_of_a_member_that_was_away<F: JoinFixture>(fresh: &impl Fn() -> F) {
    for ends in [false, true] {
        play(fresh, async |world| {
            let [mut a, mut b, mut c] = brief_group(world).await;
            b.close(world).await;
            b.open(world, projected::<F>()).await.unwrap();
            put_pairs(&a, 0..40, "old").await;
            for id in 0..5 {
                a.commit(place(a.device, id, "old")).await.unwrap();
            }
            world.converged(&[&a, &b, &c]).await;
            is_complete(world, &b).await;
            leaves(world, &b, &[&a, &c]);
            put_pairs(&b, [3, 15, 200], "of B").await;
            b.commit(place(b.device, 1, "of B")).await.unwrap();
            delete_pairs(&a, 0..10).await;
            put_pairs(&a, (10..20).chain(50..80), "newer").await;
            a.commit(place(a.device, 1, "newer")).await.unwrap();
            a.delete::<Place>((a.device, 2)).await.unwrap();
            is_left_behind(world, &b, &a, &[&a, &c]).await;
            takes_a_while(world);
            let mut events = b.events();
            returns(world, &b, &[&a]);
            let mut acknowledged = vec![200];
            if ends {
                acknowledged.extend(ends_during_the_fold(world, &mut b).await);
            } else {
                let (mut n, mut installed) = (300, false);
                world
                    .until("it has installed", async || {
                        n += 1;
                        // A commit may have to wait for the fold, and is not refused.
                        put_pair(&b, n, "meanwhile").await.unwrap();
                        acknowledged.push(n);
                        assert_eq!(half(&notes(&b).await), None);
                        installed |= has_installed(&mut events).await;
                        installed && b.status().await.unwrap().installing.is_none()
                    })
                    .await;
            }
            world.converged(&[&a, &b, &c]).await;
            is_complete(world, &b).await;
            let here = notes(&a).await;
            assert_eq!(notes(&b).await, here);
            let lost =
                acknowledged.iter().find(|n| !here.contains_key(n) || !here.contains_key(&(OTHER + **n)));
            assert_eq!(lost, None, "an acknowledged commit is lost");
            assert_eq!((here.get(&4), here.get(&55).map(String::as_str)), (None, Some("newer")));
            assert_in_step(world, &mut b).await;
            b.open(world, projected::<F>()).await.unwrap();
            world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
        })
        .await;
    }
}

/// Goal: what was deleted, and forgotten by the sender of a snapshot, goes from the records and from the tables of its receiver.
/// Method: D has a part of the log from C, which could not prune; then it takes the snapshot of A, which has pruned, and has forgotten
/// its deletes; once it ends at every step of the fold.
///
/// C10, C18, Y5, Y6, Y9.
pub async fn forgotten_deletes_leave_the_tables_of_a_joiner<F: JoinFixture>(fresh: &impl Fn() -> F) {
    for ends in [false, true] {
        play_on(fresh, MemoryNetworkBuilder::unconnected, async |world| {
            let [a, b, c, d] = [0, 1, 2, 3].map(replica_id);
            world.network.connect(a, b);
            world.network.connect(a, c);
            // C never hears B, so it prunes nothing.
            let mut a = world.found(0).await;
            let mut b = world.join(1, &a).await;
            let mut c = world.join(2, &a).await;
            put_pairs(&a, 0..40, "old").await;
            a.commit(place(a.device, 1, "old")).await.unwrap();
            delete_pairs(&a, 0..40).await;
            a.delete::<Place>((a.device, 1)).await.unwrap();
            put_pairs(&a, 30..50, "new").await;
            world.converged(&[&a, &b, &c]).await;
            world
                .until("A has pruned and forgotten", async || {
                    pruned_of(&a, &a).await >= 100 && keeps(&a).await.0 == 0
                })
                .await;
            assert_eq!(pruned_of(&c, &a).await, 0);

            takes_a_while(world);
            world.network.connect(c.id, d);
            let mut d = world.device(3);
            let setup = projected::<F>();
            d.open(world, |builder| setup(builder).join(GROUP, c.id)).await.unwrap();
            world.until("it knocks", async || knocks(&c, d.id).await).await;
            c.add_member(d.id).await.unwrap();
            world.until("a part of the log is here", async || commits_of(&d, &a).await >= 20).await;
            world.network.disconnect(c.id, d.id);
            let has = commits_of(&d, &a).await;
            assert!(has < 40, "D has {has} commits");
            assert_eq!(d.get::<Note>(5).await.unwrap(), Some(note(5, "old")));
            world.converged(&[&a, &c]).await;
            d.close(world).await;
            let setup = projected::<F>();
            d.open(world, |builder| setup(builder).join(GROUP, a.id)).await.unwrap();
            world.network.connect(a.id, d.id);
            let mut events = d.events();
            if ends {
                ends_during_the_fold(world, &mut d).await;
            }
            let joins = async || {
                let status = d.status().await.unwrap();
                status.joining.is_none() && status.installing.is_none()
            };
            world.until("it has joined", joins).await;
            assert!(ends || has_installed(&mut events).await, "the log was enough");
            put_pairs(&d, [60], "of D").await;
            world.converged(&[&a, &b, &c, &d]).await;
            is_complete(world, &d).await;
            assert_eq!(notes(&d).await, notes(&a).await);
            assert_eq!(d.get::<Note>(5).await.unwrap(), None);
            assert_in_step(world, &mut d).await;
            d.open(world, projected::<F>()).await.unwrap();
            world.assert_equal(&mut [&mut a, &mut b, &mut c, &mut d]).await;
        })
        .await;
    }
}
