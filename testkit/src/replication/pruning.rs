//! Pruning: a log goes when every member has it, and a delete is forgotten then. Nobody who was away meanwhile is wronged.

use std::collections::BTreeSet;

use syncline::{Event, FloorHolder};

use super::behind::{is_forgotten, keeps, leaves, returns};
use super::joining::joins;
use super::pairs::put_pairs;
use super::world::play;
use crate::Fixture;
use crate::models::{Basket, Note, basket, note};
use crate::replica::app::drain;

/// Goal: a record that is made anew after everybody forgot that it was deleted is the same everywhere, whoever was away. Method:
/// records that are deleted, forgotten and made anew; a member is away in one of the three phases, and changes them meanwhile.
///
/// Y6, Y7, C8, C11.
pub async fn a_record_that_is_made_anew_is_new_for_a_member_that_was_away_in_any_phase<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        for away in [Phase::Delete, Phase::Forget, Phase::MakeAnew] {
            let id = away as u32;
            a.commit(note(id, "first")).await.unwrap();
            c.commit(basket(id, [1])).await.unwrap();
            world.converged(&[&a, &b, &c]).await;

            if away == Phase::Delete {
                leaves(world, &b, &[&a, &c]);
                b.commit(basket(id, [1, 2])).await.unwrap();
                b.commit(note(id, "changed at B")).await.unwrap();
            }
            world.pass(1_000).await;
            a.delete::<Note>(id).await.unwrap();
            c.delete::<Basket>(id).await.unwrap();
            if away == Phase::Delete {
                world.converged(&[&a, &c]).await;
                world.pass(200_000).await;
                assert_eq!(keeps(&a).await.0, 2, "B may not know of the deletes");
                returns(world, &b, &[&a, &c]);
            }
            world.converged(&[&a, &b, &c]).await;

            if away == Phase::Forget {
                leaves(world, &b, &[&a, &c]);
                world.pass(200_000).await;
                returns(world, &b, &[&a, &c]);
            }
            is_forgotten(world, &[&a, &b, &c]).await;

            let mut items = BTreeSet::from([3]);
            if away == Phase::MakeAnew {
                leaves(world, &b, &[&a, &c]);
                b.commit(note(id, "anew at B")).await.unwrap();
                b.commit(basket(id, [4])).await.unwrap();
                items.insert(4);
            }
            world.pass(1_000).await;
            a.commit(note(id, "anew")).await.unwrap();
            a.commit(basket(id, [3])).await.unwrap();
            returns(world, &b, &[&a, &c]);
            world.converged(&[&a, &b, &c]).await;
            for peer in [&a, &b, &c] {
                let here = (peer.get::<Note>(id).await.unwrap(), peer.get::<Basket>(id).await.unwrap());
                let expected = (Some(note(id, "anew")), Some(basket(id, items.clone())));
                assert_eq!(here, expected, "{away:?}, at {}", peer.id);
            }
        }
        is_forgotten(world, &[&a, &b, &c]).await;
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Delete,
    Forget,
    MakeAnew,
}

/// Goal: a member that was never heard of holds the logs, the status names it, and once it has come they shrink. Method: A adds C
/// before C was ever opened, and goes on writing with B; then C comes, and gets all of it from the log.
///
/// Y7, Y17.
pub async fn a_member_never_heard_of_holds_the_logs_and_is_named<F: Fixture>(fresh: &impl Fn() -> F) {
    const COMMITS: u32 = 200;
    play(fresh, async |world| {
        let [mut a, mut b] = world.group().await;
        let mut c = world.device(2);
        a.add_member_on(c.id, c.device).await.unwrap();
        put_pairs(&a, 0..COMMITS, "all of it").await;
        world.converged(&[&a, &b]).await;
        world.pass(300_000).await;
        for peer in [&a, &b] {
            assert!(keeps(peer).await.1 >= u64::from(COMMITS), "the log at {} is gone", peer.id);
            let status = peer.status().await.unwrap();
            let stream = status.streams.iter().find(|stream| stream.replica == a.id).unwrap();
            let Some(FloorHolder { member, since, commits, .. }) = stream.held_by.clone() else {
                panic!("nobody holds the log at {}", peer.id)
            };
            assert_eq!((member, commits), (c.id, stream.commits), "at {}", peer.id);
            assert!(since.as_secs() >= 300, "since {since:?}, at {}", peer.id);
            let known = status.peers.iter().find(|known| known.replica == c.id).unwrap();
            assert_eq!((known.heard, known.connected), (None, false), "at {}", peer.id);
        }
        joins(world, &mut c, a.id).await;
        let mut events = c.events();
        world.converged(&[&a, &b, &c]).await;
        let told = drain(&mut events).await;
        assert!(told.contains(&Event::Joined), "{told:?}");
        let installed = told.iter().any(|event| matches!(event, Event::Installed { .. }));
        assert!(!installed, "the log was held for it: {told:?}");
        is_forgotten(world, &[&a, &b, &c]).await;
        for peer in [&a, &b] {
            let streams = peer.status().await.unwrap().streams;
            assert!(streams.iter().all(|stream| stream.held_by.is_none()), "{streams:#?}");
        }
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}
