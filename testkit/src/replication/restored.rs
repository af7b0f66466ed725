//! A store that was restored from a backup is noticed, and no replica loses anything.

use syncline::{Error, ReplicaId, Restored, StreamStop};

use super::catching_up::commits_of;
use super::contents::Contents;
use super::peer::Peer;
use super::stored::copy;
use super::world::{World, play};
use crate::Fixture;
use crate::models::{Note, basket, note, place};

/// Makes three commits, one of each model.
async fn three_commits<F: Fixture>(peer: &Peer<F>, text: &str, item: u32) {
    peer.commit(note(1, text)).await.unwrap();
    peer.commit(place(peer.device, 1, text)).await.unwrap();
    peer.commit(basket(1, [item])).await.unwrap();
}

/// Closes `peer`, puts the backup in the place of its store, cuts it off from the others, and opens it.
async fn restore<F: Fixture>(world: &World<'_, F>, peer: &mut Peer<F>, backup: F, others: [ReplicaId; 2]) {
    peer.close(world).await;
    peer.disk = backup;
    others.into_iter().for_each(|other| world.network.disconnect(peer.id, other));
    peer.reopen(world).await;
}

/// Three replicas that agree, and a backup of the first one's store.
async fn group_with_a_backup<F: Fixture>(world: &World<'_, F>) -> ([Peer<F>; 3], F) {
    let [mut a, b, c] = world.group().await;
    three_commits(&a, "before the backup", 1).await;
    world.converged(&[&a, &b, &c]).await;
    let backup = back_up(world, &mut a).await;
    ([a, b, c], backup)
}

/// Three replicas, the first of which was restored and is cut off. The others have three commits of its stream that it
/// has lost.
async fn group_with_a_restored_store<F: Fixture>(world: &World<'_, F>) -> [Peer<F>; 3] {
    let ([mut a, b, c], backup) = group_with_a_backup(world).await;
    three_commits(&a, "published", 2).await;
    world.converged(&[&a, &b, &c]).await;
    restore(world, &mut a, backup, [b.id, c.id]).await;
    [a, b, c]
}

/// A copy of the store of `peer`, which is open before and after.
async fn back_up<F: Fixture>(world: &World<'_, F>, peer: &mut Peer<F>) -> F {
    peer.close(world).await;
    let backup = world.disk();
    copy(&peer.disk, &backup).await;
    peer.reopen(world).await;
    backup
}

async fn restored<F: Fixture>(peer: &Peer<F>) -> Option<Restored> {
    peer.status().await.unwrap().restored
}

/// Whether `peer` says that `other` was restored.
async fn says_restored<F: Fixture>(peer: &Peer<F>, other: &Peer<F>) -> bool {
    let peers = peer.status().await.unwrap().peers;
    peers.iter().any(|known| known.replica == other.id && known.restored)
}

async fn stop_of<F: Fixture>(peer: &Peer<F>, stream: &Peer<F>) -> Option<StreamStop> {
    let streams = peer.status().await.unwrap().streams;
    streams.into_iter().find(|known| known.replica == stream.id).and_then(|known| known.stopped)
}

async fn assert_refuses<F: Fixture>(peer: &Peer<F>) {
    let refused = peer.commit(note(1, "one more")).await;
    assert!(matches!(refused, Err(Error::Restored(_))), "{refused:?}");
    let refused = peer.delete::<Note>(1).await;
    assert!(matches!(refused, Err(Error::Restored(_))), "{refused:?}");
}

/// Goal: two histories of one stream never mix, and each stays where it is. Method: a replica that was restored makes
/// three commits in the place of those that it has lost, and then meets the others; they go on, also after another
/// opening and with another replica that joins.
///
/// H3, Y15, I4.
pub async fn a_restored_store_that_wrote_other_commits_loses_nothing_anywhere<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = group_with_a_restored_store(world).await;
        three_commits(&a, "after the restore", 3).await;
        let (at_a, at_b) = (Contents::of(&*a).await, Contents::of(&*b).await);
        assert_eq!((&*at_a.notes[0].text, &*at_b.notes[0].text), ("after the restore", "published"));

        world.network.connect(a.id, b.id);
        world.network.connect(a.id, c.id);
        world
            .until("everybody knows", async || {
                restored(&a).await.is_some() && says_restored(&b, &a).await && says_restored(&c, &a).await
            })
            .await;
        for peer in [&b, &c] {
            assert_eq!(stop_of(peer, &a).await, None, "nothing of the second history has reached it");
        }
        assert_refuses(&a).await;
        assert_eq!(Contents::of(&*a).await, at_a);
        assert_eq!(Contents::of(&*b).await, at_b);
        assert_eq!(Contents::of(&*c).await, at_b);

        // No replica forgets it when it is opened again, and the others go on.
        a.close(world).await;
        b.close(world).await;
        a.reopen(world).await;
        b.reopen(world).await;
        assert_refuses(&a).await;
        assert_eq!(stop_of(&b, &a).await, None);
        b.commit(note(2, "life goes on")).await.unwrap();
        c.commit(note(3, "here too")).await.unwrap();
        world.converged(&[&b, &c]).await;
        let mut d = world.join(3, &b).await;
        world.converged(&[&b, &c, &d]).await;
        assert_eq!(d.get::<Note>(1).await.unwrap(), Some(note(1, "published")));
        world.pass(60_000).await;
        let own = a.get::<Note>(1).await.unwrap();
        assert_eq!(own, Some(note(1, "after the restore")), "nothing of its own is overwritten");
        world.assert_equal(&mut [&mut b, &mut c, &mut d]).await;
        a.close(world).await;
        a.entries().await;
    })
    .await;
}

/// Goal: a restored store is noticed before it commits anything. Method: as above, but without a commit after the
/// restore: its peers have more of its stream than it has itself.
///
/// H3, Y15.
pub async fn a_restored_store_learns_of_it_from_those_who_know_more<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = group_with_a_restored_store(world).await;
        world.network.connect(a.id, b.id);
        world.until("both know", async || restored(&a).await.is_some() && says_restored(&b, &a).await).await;
        assert_eq!(restored(&a).await.unwrap().stream, a.id);
        assert_refuses(&a).await;
        assert_eq!(stop_of(&b, &a).await, None, "there is one history");
        b.commit(note(2, "life goes on")).await.unwrap();
        world.converged(&[&b, &c]).await;
        assert_eq!(c.get::<Note>(1).await.unwrap(), Some(note(1, "published")));
        a.close(world).await;
        world.assert_equal(&mut [&mut b, &mut c]).await;
    })
    .await;
}

/// Goal: a restored store that lacks only commits of others is noticed too. Method: the backup lacks commits of another
/// replica, and that replica knows that they were acknowledged.
///
/// Y8, Y15.
pub async fn a_restored_store_that_lost_what_it_acknowledged_is_found_out<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    play(fresh, async |world| {
        let ([mut a, mut b, mut c], backup) = group_with_a_backup(world).await;
        three_commits(&b, "acknowledged", 2).await;
        world
            .until("all of it is acknowledged", async || {
                let status = b.status().await.unwrap();
                let acked = status.peers.iter().find(|peer| peer.replica == a.id).unwrap().acknowledged;
                acked == status.commits
            })
            .await;
        restore(world, &mut a, backup, [b.id, c.id]).await;
        world.network.connect(a.id, b.id);
        world.until("both know", async || restored(&a).await.is_some() && says_restored(&b, &a).await).await;
        assert_eq!(restored(&a).await.unwrap().stream, b.id);
        assert_refuses(&a).await;
        // The restored replica reads and receives, but its acknowledgements do not count.
        world
            .until("it has everything again", async || commits_of(&a, &b).await == commits_of(&b, &b).await)
            .await;
        world.pass(1_000).await;
        let peers = b.status().await.unwrap().peers;
        assert!(peers.iter().any(|peer| peer.replica == a.id && peer.acknowledged == 0), "{peers:?}");
        assert_eq!(a.get::<Note>(1).await.unwrap(), Some(note(1, "acknowledged")));
        world.network.connect(a.id, c.id);
        world.converged(&[&a, &b, &c]).await;
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}
