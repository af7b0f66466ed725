//! A crowd: many replicas on links that come and go, each of which writes and each of which may bring others in.

use syncline_backends::{Link, MemoryNetworkBuilder};

use super::peer::{Peer, all_models, replica_id};
use super::world::{GROUP, World, knocks, play_on};
use crate::Fixture;
use crate::models::{Note, basket, note, place};

/// The kind of a hello: the seventh byte of its frame.
const HELLO: u8 = 1;

/// Goal: many replicas on random links, which join through each other and write at random, end the same. Once all reach all, a commit
/// costs four frames for each member at most, and idle members say hello and nothing else. Method: `size` replicas, each of which
/// joins through any of those before it; links are cut and made at random; then everybody is connected, frames are counted.
///
/// Y1, Y9, Y14.
pub async fn a_crowd_on_random_links_ends_the_same<F: Fixture>(fresh: &impl Fn() -> F, size: u8) {
    play_on(fresh, MemoryNetworkBuilder::unconnected, async |world| {
        let mut rng = fastrand::Rng::with_seed(world.seed);
        println!("SYNCLINE_SEED={}", world.seed);
        world.network.set_all(Link { delay_ms: 5..=60, ..Link::default() });
        let mut peers = vec![world.found(0).await];
        for n in 1..size {
            let introducer = rng.usize(..peers.len());
            let mut joiner = world.device(n);
            // Two more links, so that the group does not fall apart when some are cut.
            world.network.connect(joiner.id, peers[introducer].id);
            for _ in 0..2 {
                world.network.connect(joiner.id, replica_id(rng.u8(..n)));
            }
            let by = peers[introducer].id;
            joiner.open(world, |builder| all_models(builder).join(GROUP, by)).await.unwrap();
            let introducer = &peers[introducer];
            world.until("it knocks", async || knocks(introducer, joiner.id).await).await;
            introducer.add_member(joiner.id).await.unwrap();
            let joins = async || joiner.status().await.unwrap().joining.is_none();
            world.until("it is a member", joins).await;
            peers.push(joiner);
            writes(&peers, &mut rng).await;
            let (one, other) = (rng.u8(..=n), rng.u8(..=n));
            if one != other && rng.bool() {
                world.network.disconnect(replica_id(one), replica_id(other));
            } else if one != other {
                world.network.connect(replica_id(one), replica_id(other));
            }
        }
        for _ in 0..size {
            writes(&peers, &mut rng).await;
            world.pass(rng.u64(1..200)).await;
        }
        for one in 0..size {
            (0..one).for_each(|other| world.network.connect(replica_id(one), replica_id(other)));
        }
        level(world, &peers).await;
        // Later hellos say that everybody is heard.
        world.pass(80_000).await;
        costs(world, &peers).await;
        let mut peers: Vec<_> = peers.iter_mut().collect();
        world.assert_equal(&mut peers).await;
    })
    .await;
}

/// A few random commits at random replicas.
async fn writes<F: Fixture>(peers: &[Peer<F>], rng: &mut fastrand::Rng) {
    for _ in 0..2 {
        let peer = &peers[rng.usize(..peers.len())];
        let (id, by) = (rng.u32(..40), rng.u32(..1_000));
        match rng.u8(..4) {
            0 => drop(peer.commit(basket(id, [by])).await.unwrap()),
            1 => drop(peer.commit(place(peer.device, id, by.to_string())).await.unwrap()),
            2 => peer.delete::<Note>(id).await.unwrap(),
            _ => drop(peer.commit(note(id, by.to_string())).await.unwrap()),
        }
    }
}

/// Waits until all have the same commits: no longer than two minutes.
async fn level<F: Fixture>(world: &World<'_, F>, peers: &[Peer<F>]) {
    for _ in 0..120 {
        world.pass(1_000).await;
        let mut all = None;
        let mut level = true;
        for peer in peers {
            let streams = peer.status().await.unwrap().streams;
            let heads: Vec<_> = streams.iter().map(|stream| (stream.replica, stream.commits)).collect();
            level &= *all.get_or_insert_with(|| heads.clone()) == heads;
        }
        if level {
            return;
        }
    }
    panic!("they are not level after two minutes:\n{}", world.report().await);
}

/// Counts the frames of a busy author, and of an idle group.
async fn costs<F: Fixture>(world: &World<'_, F>, peers: &[Peer<F>]) {
    const COMMITS: u64 = 10;
    const IDLE_MS: u64 = 300_000;
    let members = peers.len() as u64;
    let clear = || peers.iter().for_each(|peer| peer.tap.clear());
    // How many frames were hellos, and how many were not.
    let sent = || {
        let frames = peers.iter().flat_map(|peer| peer.tap.frames());
        let (hellos, others): (Vec<_>, Vec<_>) = frames.partition(|frame| frame.get(6) == Some(&HELLO));
        (hellos.len() as u64, others.len() as u64)
    };
    clear();
    for n in 0..COMMITS {
        peers[0].commit(note(u32::try_from(n).expect("few"), format!("busy {n}"))).await.unwrap();
        world.pass(1_000).await;
    }
    let (_, busy) = sent();
    println!("{members} members: {} frames a commit, beside hellos", busy / COMMITS);
    assert!(busy <= COMMITS * 4 * members, "{busy} frames for {COMMITS} commits of one author");

    // The last pruning and the last words on it.
    world.pass(80_000).await;
    clear();
    world.pass(IDLE_MS).await;
    let (hellos, rest) = sent();
    let allowed = members * (members - 1) * (IDLE_MS / 30_000 + 1);
    println!("{members} members: {hellos} hellos in {} s of {allowed}, {rest} other frames", IDLE_MS / 1_000);
    assert_eq!(rest, 0, "an idle group says more than hello");
    assert!(hellos <= allowed, "{hellos} hellos in {IDLE_MS} ms");
}
