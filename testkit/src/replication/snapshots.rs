//! Snapshots: a replica that is further behind than the logs of its peers reach takes their records.

use std::collections::BTreeMap;

use futures::future::join;
use syncline::{Event, TransactionManager};

use super::joining::joins;
use super::peer::{Peer, all_models};
use super::world::{GROUP, World, knocks, play};
use crate::Fixture;
use crate::models::{Note, note};
use crate::replica::app::drain;

/// The notes that a reader sees, by their ids.
async fn notes<F: Fixture>(peer: &Peer<F>) -> BTreeMap<u32, String> {
    let mut list = peer.list::<Note>();
    let mut notes = BTreeMap::new();
    while let Some(page) = list.next_page().await.unwrap() {
        notes.extend(page.into_iter().map(|note| (note.id, note.text)));
    }
    notes
}

/// Opens a device as the founder of the group, without a transport, and lets `works` use it; then opens it with the network.
async fn alone<F: Fixture>(world: &World<'_, F>, pairs: u32) -> Peer<F> {
    let mut a = world.device(0);
    let builder = TransactionManager::builder(a.disk.open().await.expect("the store opens"))
        .device(a.device)
        .replica(a.id)
        .clock(a.clock.clone());
    let (manager, driver) = all_models(builder).found(GROUP).open().await.unwrap();
    let works = async {
        for n in 0..pairs {
            let batch = manager.commit_batch(move |batch| {
                batch.put(&note(n, "alone"))?;
                batch.put(&note(1_000 + n, "alone"))?;
                Ok(())
            });
            batch.await.unwrap();
        }
        for n in 0..pairs / 4 {
            let batch = manager.commit_batch(move |batch| {
                batch.delete::<Note>(n)?;
                batch.delete::<Note>(1_000 + n)?;
                Ok(())
            });
            batch.await.unwrap();
        }
        manager.shutdown().await.unwrap();
    };
    join(driver.run(), works).await.0.unwrap();
    a.reopen(world).await;
    a
}

/// Goal: a replica that worked alone and without a transport can be joined later, and a reader of the joiner sees all of it
/// at once. Method: a founder that has pruned its log, and only then gets a transport; it goes on writing pairs while the
/// joiner takes its records, and the joiner lists them all the while.
///
/// Y5, Y9, C13, I9.
pub async fn a_replica_that_worked_alone_is_joined_by_a_snapshot<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let a = alone(world, 60).await;
        let mut b = world.device(1);
        joins(world, &mut b, a.id).await;
        world.until("it knocks", async || knocks(&a, b.id).await).await;
        let mut events = b.events();
        a.add_member(b.id).await.unwrap();
        let mut n = 0;
        let half =
            |notes: &BTreeMap<u32, String>| (0..1_000).find(|n| notes.get(n) != notes.get(&(1_000 + n)));
        world
            .until("it is a member", async || {
                n += 1;
                if n < 20 {
                    let batch = a.commit_batch(move |batch| {
                        batch.put(&note(20 + n, format!("while {n}")))?;
                        batch.put(&note(1_020 + n, format!("while {n}")))?;
                        Ok(())
                    });
                    batch.await.unwrap();
                }
                let seen = notes(&b).await;
                assert_eq!(half(&seen), None, "a reader sees half of a commit: {seen:?}");
                assert!(seen.is_empty() || seen.len() >= 90, "all of it at once, not {}", seen.len());
                b.status().await.unwrap().joining.is_none()
            })
            .await;
        let told = drain(&mut events).await;
        assert!(told.iter().any(|event| matches!(event, Event::Installed { .. })), "{told:?}");
        assert!(told.contains(&Event::Joined), "{told:?}");
        b.commit(note(7, "of B")).await.unwrap();
        world.converged(&[&a, &b]).await;
        assert_eq!(notes(&a).await, notes(&b).await);
        assert_eq!(a.get::<Note>(7).await.unwrap(), Some(note(7, "of B")));
        assert_eq!(b.get::<Note>(3).await.unwrap(), None);
        assert!(b.status().await.unwrap().installing.is_none());
    })
    .await;
}
