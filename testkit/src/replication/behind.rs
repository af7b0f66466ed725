//! Replicas that are further behind than the logs of the others reach, so that only a snapshot helps them.

use syncline::internals::MARKS;
use syncline::{Builder, Event, Events, Limits, Storage};
use syncline_backends::Link;

use super::catching_up::commits_of;
use super::peer::{Peer, Store, all_models};
use super::world::World;
use crate::Fixture;
use crate::replica::app::drain;

/// The bytes of a page at most: a snapshot of some hundred notes has several.
pub(super) const PAGE_BYTES: usize = 4 << 10;

/// Opens a replica whose pages are small, and that keeps its log as long as any member lacks it.
pub(super) fn lasting<S: Storage>(builder: Builder<S>) -> Builder<S> {
    all_models(builder).limits(Limits { page_bytes_max: PAGE_BYTES, ..Limits::default() })
}

/// Opens a replica whose pages are small, and that keeps only a few entries of its log, whoever lacks them.
pub(super) fn brief<S: Storage>(builder: Builder<S>) -> Builder<S> {
    let limits = Limits { page_bytes_max: PAGE_BYTES, retain_entries_max: 4, ..Limits::default() };
    all_models(builder).limits(limits)
}

/// Closes a replica, and opens it as `setup` says.
pub(super) async fn again<F: Fixture>(
    world: &World<'_, F>,
    peer: &mut Peer<F>,
    setup: impl FnOnce(Builder<Store<F>>) -> Builder<Store<F>>,
) {
    peer.close(world).await;
    peer.open(world, setup).await.expect("it opens again");
}

/// A group whose replicas have small pages, and of which all but the second keep brief logs.
pub(super) async fn brief_group<F: Fixture, const N: usize>(world: &World<'_, F>) -> [Peer<F>; N] {
    let mut peers = world.group().await;
    for (n, peer) in peers.iter_mut().enumerate() {
        if n == 1 {
            again(world, peer, lasting).await;
        } else {
            again(world, peer, brief).await;
        }
    }
    world.converged(&peers.each_ref()).await;
    peers
}

/// Cuts the links of a replica.
pub(super) fn leaves<F: Fixture>(world: &World<'_, F>, peer: &Peer<F>, others: &[&Peer<F>]) {
    others.iter().for_each(|other| world.network.disconnect(peer.id, other.id));
}

/// Makes the links of a replica.
pub(super) fn returns<F: Fixture>(world: &World<'_, F>, peer: &Peer<F>, others: &[&Peer<F>]) {
    others.iter().for_each(|other| world.network.connect(peer.id, other.id));
}

/// Lets every frame take a while, so that a scenario can look between any two of them.
pub(super) fn takes_a_while<F: Fixture>(world: &World<'_, F>) {
    world.network.set_all(Link { delay_ms: 20..=20, ..Link::default() });
}

/// Up to where the log of an author is gone at a replica.
pub(super) async fn pruned_of<F: Fixture>(peer: &Peer<F>, author: &Peer<F>) -> u64 {
    let streams = peer.status().await.expect("it runs").streams;
    streams.into_iter().find(|stream| stream.replica == author.id).map_or(0, |stream| stream.pruned)
}

/// Waits until no log of `others` reaches back to what `peer` has of the stream of `author`.
pub(super) async fn is_left_behind<F: Fixture>(
    world: &World<'_, F>,
    peer: &Peer<F>,
    author: &Peer<F>,
    others: &[&Peer<F>],
) {
    let has = commits_of(peer, author).await;
    world
        .until("the logs are cut short", async || {
            for other in others {
                if pruned_of(other, author).await <= has {
                    return false;
                }
            }
            true
        })
        .await;
}

/// Whether a snapshot was installed, by the events that are there.
pub(super) async fn has_installed(events: &mut Events) -> bool {
    drain(events).await.iter().any(|event| matches!(event, Event::Installed { .. }))
}

/// Whether a replica has given a snapshot up since it was opened, to begin anew.
pub(super) async fn began_anew<F: Fixture>(peer: &Peer<F>) -> bool {
    let marks = peer.status().await.expect("it runs").marks;
    (0..).zip(MARKS).any(|(bit, mark)| mark == "install began anew" && marks >> bit & 1 == 1)
}

/// How many tombstones, and how many log entries, a replica keeps.
pub(super) async fn keeps<F: Fixture>(peer: &Peer<F>) -> (u64, u64) {
    let usage = peer.usage().await.expect("it runs");
    (usage.tombstones.rows, usage.log.rows)
}

/// Waits until these replicas have forgotten all deletes, and hardly any log is left.
pub(super) async fn is_forgotten<F: Fixture>(world: &World<'_, F>, peers: &[&Peer<F>]) {
    world
        .until("all deletes are forgotten", async || {
            for peer in peers {
                let (tombstones, log) = keeps(peer).await;
                if tombstones > 0 || log > 4 {
                    return false;
                }
            }
            true
        })
        .await;
}
