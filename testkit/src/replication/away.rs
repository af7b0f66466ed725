//! A member that was away for longer than the logs reach comes back: nothing that it wrote is lost, and nothing that was deleted
//! comes back with it.

use std::collections::BTreeMap;

use super::behind::{
    brief, brief_group, has_installed, is_forgotten, is_left_behind, keeps, lasting, leaves, returns,
    takes_a_while,
};
use super::pairs::{delete_pairs, notes, pairs, put_pair, put_pairs};
use super::world::play;
use crate::Fixture;
use crate::models::{Basket, Note, Place, basket, note, place};

/// Goal: a member that was away past a pruned log has everything by a snapshot, its own commits reach everybody, and nothing that
/// was deleted comes back. Method: a group of three; B writes while it is away, the logs of A and C are cut short past it, and it
/// meets A alone; then all forget their deletes, and one deleted record is made anew.
///
/// Y4, Y5, Y6.
pub async fn a_member_that_was_away_past_a_pruned_log_loses_and_brings_back_nothing<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = brief_group(world).await;
        takes_a_while(world);
        put_pairs(&a, 0..20, "old").await;
        a.commit(basket(1, [1])).await.unwrap();
        world.converged(&[&a, &b, &c]).await;

        leaves(world, &b, &[&a, &c]);
        put_pair(&b, 8, "beaten").await.unwrap();
        // This change of B is older than the delete of A.
        put_pair(&b, 3, "beaten").await.unwrap();
        b.commit(basket(1, [2])).await.unwrap();
        world.pass(1_000).await;
        delete_pairs(&a, 0..5).await;
        put_pairs(&a, 5..10, "newer").await;
        put_pairs(&c, 30..50, "new").await;
        a.commit(basket(1, [3])).await.unwrap();
        world.pass(1_000).await;
        put_pairs(&b, [15, 70], "of B").await;
        b.commit(place(b.device, 1, "of B")).await.unwrap();
        is_left_behind(world, &b, &a, &[&a, &c]).await;

        let mut events = b.events();
        returns(world, &b, &[&a]);
        world.converged(&[&a, &b, &c]).await;
        assert!(has_installed(&mut events).await, "the log was enough");
        let expected = (5..10).map(|n| (n, "newer")).chain((10..20).map(|n| (n, "old")));
        let expected = expected.chain((30..50).map(|n| (n, "new"))).chain([(15, "of B"), (70, "of B")]);
        let expected = pairs(expected);
        returns(world, &b, &[&c]);
        is_forgotten(world, &[&a, &b, &c]).await;
        for peer in [&a, &b, &c] {
            assert_eq!(notes(peer).await, expected, "at {}", peer.id);
            assert_eq!(peer.get::<Basket>(1).await.unwrap(), Some(basket(1, [1, 2, 3])), "at {}", peer.id);
            let here = peer.get::<Place>((b.device, 1)).await.unwrap();
            assert_eq!(here, Some(place(b.device, 1, "of B")), "at {}", peer.id);
        }
        put_pair(&b, 3, "anew").await.unwrap();
        world.converged(&[&a, &b, &c]).await;
        for peer in [&a, &b, &c] {
            assert_eq!(peer.get::<Note>(3).await.unwrap(), Some(note(3, "anew")), "at {}", peer.id);
        }
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

/// Goal: a tablet that comes back after long does not bring back what was deleted meanwhile. Method: 600 notes are deleted while it
/// lies in a drawer for 200 days, with the logs cut short; it comes back with stale copies of all of them, and meets only the
/// member that did not delete them.
///
/// Y6, Y5.
pub async fn a_tablet_after_200_days_brings_none_of_600_deleted_notes_back<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    const NOTES: u32 = 600;
    const DAYS_200_MS: u64 = 200 * 24 * 3_600 * 1_000;
    play(fresh, async |world| {
        let [mut a, mut tablet, mut c] = brief_group(world).await;
        let first = a.commit_batch(|batch| Ok((0..NOTES).try_for_each(|id| batch.put(&note(id, "old")))?));
        first.await.unwrap();
        a.commit(note(NOTES, "stays")).await.unwrap();
        world.converged(&[&a, &tablet, &c]).await;
        leaves(world, &tablet, &[&a, &c]);
        tablet.commit(note(NOTES + 1, "of the tablet")).await.unwrap();
        tablet.close(world).await;

        world.pass(1_000).await;
        for first in (0..NOTES).step_by(50) {
            let batch = a.commit_batch(move |batch| {
                Ok((first..first + 50).try_for_each(|id| batch.delete::<Note>(id))?)
            });
            batch.await.unwrap();
        }
        world.converged(&[&a, &c]).await;
        world.clock.advance(DAYS_200_MS);
        world.pass(100_000).await;
        for peer in [&a, &c] {
            let (tombstones, log) = keeps(peer).await;
            assert_eq!(tombstones, u64::from(NOTES), "{} remembers what the tablet may not know", peer.id);
            assert!(log < 20, "{} keeps {log} entries", peer.id);
        }
        a.close(world).await;
        tablet.open(world, lasting).await.unwrap();
        is_left_behind(world, &tablet, &a, &[&c]).await;
        let mut events = tablet.events();
        returns(world, &tablet, &[&a, &c]);
        world.converged(&[&tablet, &c]).await;
        assert!(has_installed(&mut events).await, "the log was enough");
        a.open(world, brief).await.unwrap();
        world.converged(&[&a, &tablet, &c]).await;
        is_forgotten(world, &[&a, &tablet, &c]).await;
        let left = BTreeMap::from([(NOTES, "stays".to_owned()), (NOTES + 1, "of the tablet".to_owned())]);
        for peer in [&a, &tablet, &c] {
            assert_eq!(notes(peer).await, left, "at {}", peer.id);
        }
        world.assert_equal(&mut [&mut a, &mut tablet, &mut c]).await;
    })
    .await;
}
