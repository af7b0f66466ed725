//! Snapshots: a replica that is further behind than the logs of its peers reach takes their records.

use futures::future::join;
use syncline::{Event, TransactionManager};

use super::behind::{began_anew, brief_group, has_installed, is_left_behind, leaves, returns, takes_a_while};
use super::catching_up::commits_of;
use super::joining::joins;
use super::pairs::{OTHER, delete_pairs, half, notes, pairs, put_pair, put_pairs};
use super::peer::{Peer, all_models};
use super::world::{GROUP, World, knocks, play};
use crate::Fixture;
use crate::models::{Note, note};
use crate::replica::app::drain;

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

/// Goal: a reader of a replica that has records of its own never sees half of a commit while a snapshot arrives, is switched to and
/// is folded. Method: a member that was away past a pruned log; it and its peer go on writing pairs; a reader looks beside all of
/// that, by list and by id.
///
/// Y5, C13, C14, I9.
pub async fn a_reader_never_sees_half_of_a_commit_during_a_snapshot<F: Fixture>(fresh: &impl Fn() -> F) {
    const PAIRS: u32 = 60;
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = brief_group(world).await;
        put_pairs(&a, 0..PAIRS, "old").await;
        world.converged(&[&a, &b, &c]).await;
        leaves(world, &b, &[&a, &c]);
        delete_pairs(&a, 0..10).await;
        put_pairs(&a, 10..PAIRS, "newer").await;
        put_pairs(&b, [200, 201, 3], "of B").await;
        is_left_behind(world, &b, &a, &[&a, &c]).await;
        takes_a_while(world);
        let mut events = b.events();
        returns(world, &b, &[&a]);
        let ids: Vec<_> = (0..PAIRS).chain(OTHER..OTHER + PAIRS).collect();
        let (mut round, mut looks, mut while_it_came, mut installed) = (0, 0, 0, false);
        let is_level = async || {
            let status = b.status().await.unwrap();
            let arrives = status.installing.is_some_and(|install| !install.folding);
            (arrives, status.installing.is_none() && commits_of(&b, &a).await == commits_of(&a, &a).await)
        };
        loop {
            round += 1;
            if round % 8 == 0 && round < 400 {
                put_pair(&a, 10 + round / 8 % 50, &format!("while {round}")).await.unwrap();
            }
            if round % 40 == 0 && round < 400 {
                put_pair(&b, 20 + round / 40 % 50, &format!("at B {round}")).await.unwrap();
            }
            // The reader looks in the middle of the work of all replicas, not only when they rest.
            let seen = notes(&b).await;
            assert_eq!(half(&seen), None, "round {round}: a list shows half of a commit: {seen:?}");
            let got = b.get_many::<Note>(&ids).await.unwrap();
            let got = got.into_iter().flatten().map(|note| (note.id, note.text)).collect();
            assert_eq!(half(&got), None, "round {round}: a read by ids shows half of a commit: {got:?}");
            looks += 1;
            installed |= has_installed(&mut events).await;
            let (arrives, level) = is_level().await;
            while_it_came += u32::from(arrives);
            if installed && level && round > 400 {
                break;
            }
            assert!(round < 5_000, "it does not end:\n{}", world.report().await);
            world.settle_or_pass().await;
        }
        assert!(while_it_came > 10, "{while_it_came} of {looks} looks were made while records came");
        world.converged(&[&a, &b, &c]).await;
        assert_eq!(b.get::<Note>(200).await.unwrap(), Some(note(200, "of B")));
        assert_eq!(b.get::<Note>(4).await.unwrap(), None);
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

/// Goal: if the only replica that has some commits goes away for ever in the middle of an install, nothing of them has become
/// visible, and nothing rests on them. Method: B begins a snapshot with A, which has commits that C never got; A goes away after
/// its first page, or after several; B goes on with C, and writes all the while.
///
/// Y5, C9, C14.
pub async fn a_sender_that_goes_for_ever_leaves_nothing_of_what_only_it_had<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    const ONLY_A: &str = "only A has it";
    for pages in [1, 4] {
        play(fresh, async |world| {
            let [mut a, mut b, mut c] = brief_group(world).await;
            put_pairs(&a, 0..30, "old").await;
            world.converged(&[&a, &b, &c]).await;
            leaves(world, &b, &[&a, &c]);
            put_pairs(&a, 0..20, &"newer".repeat(80)).await;
            world.converged(&[&a, &c]).await;
            is_left_behind(world, &b, &a, &[&a, &c]).await;
            world.network.disconnect(a.id, c.id);
            put_pairs(&a, (20..30).chain(60..64), ONLY_A).await;
            takes_a_while(world);
            let mut here = pairs((0..30).map(|n| (n, "old")));
            returns(world, &b, &[&a]);
            let (mut had, mut seen) = (0, 0);
            world
                .until("so many pages are here", async || {
                    assert_eq!(notes(&b).await, here, "page {seen}");
                    let records = b.status().await.unwrap().installing.map_or(0, |install| install.records);
                    seen += u32::from(records > had);
                    had = records;
                    seen == pages
                })
                .await;
            a.kill(world).await;
            put_pair(&b, 80, "of B").await.unwrap();
            here.extend(pairs([(80, "of B")]));
            assert!(!began_anew(&b).await);
            world.network.connect(b.id, c.id);
            world
                .until("B has installed what C has", async || {
                    let texts = notes(&b).await;
                    assert!(!texts.values().any(|text| text == ONLY_A), "{texts:?}");
                    assert_eq!(half(&texts), None, "{texts:?}");
                    let status = b.status().await.unwrap();
                    status.installing.is_none() && commits_of(&b, &a).await == commits_of(&c, &a).await
                })
                .await;
            put_pairs(&b, 81..83, "of B, later").await;
            world.converged(&[&b, &c]).await;
            let both = notes(&c).await;
            assert_eq!(both, notes(&b).await);
            assert!(both.get(&80).is_some_and(|text| text == "of B"), "it rests on what is gone: {both:?}");
            assert!(!both.values().any(|text| text == ONLY_A), "{both:?}");
            let streams = c.status().await.unwrap().streams;
            assert!(streams.iter().all(|stream| stream.stopped.is_none()), "{streams:?}");
            world.assert_equal(&mut [&mut b, &mut c]).await;
        })
        .await;
    }
}
