//! Bad frames, from members and strangers: nothing changes, the app is told of the sender, and honest peers are served.

use bytes::Bytes;
use futures::future::join;
use syncline::{Event, GroupId, ReplicaId, Transport as _, Uuid};
use syncline_backends::Link;

use super::contents::all;
use super::peer::{all_models, replica_id};
use super::world::play;
use crate::models::{Note, basket, note, place};
use crate::replica::app::drain;
use crate::{Fixture, seed};

/// Frames that a replica has sent, each damaged in one place.
fn damaged(frames: &[Bytes], count: usize, random: &mut fastrand::Rng) -> Vec<Bytes> {
    let damage = |_| {
        let mut frame = frames[random.usize(..frames.len())].to_vec();
        let at = random.usize(..frame.len());
        if random.bool() {
            frame.truncate(at.max(1));
        } else {
            frame[at] ^= random.u8(1..);
        }
        frame.into()
    };
    (0..count).map(damage).collect()
}

/// Bytes that are no frames; some begin as a frame does.
fn arbitrary(count: usize, random: &mut fastrand::Rng) -> Vec<Bytes> {
    let draw = |_| {
        let mut bytes: Vec<u8> = (0..random.usize(1..200)).map(|_| random.u8(..)).collect();
        if random.bool() {
            bytes.splice(..0, *b"SYNL\x00\x01");
        }
        bytes.into()
    };
    (0..count).map(draw).collect()
}

/// Goal: bad frames do not change the store. They are counted for their sender, and events tell of them. A stranger is
/// not listened to at all. Method: arbitrary bytes, damaged frames and frames of another group, from a member and from
/// a stranger; a member's whole frames, from a stranger; compare the stores before and after, byte by byte.
///
/// B1, I11, C15.
pub async fn bad_frames_change_nothing_and_are_told<F: Fixture>(fresh: &impl Fn() -> F) {
    const EACH: usize = 200;
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        let mut random = fastrand::Rng::with_seed(seed());
        let foreign = foreign_frames(fresh).await;
        for n in 0..20 {
            a.commit(note(n, "good")).await.unwrap();
            c.commit(basket(n, [n])).await.unwrap();
        }
        c.commit(place(c.device, 1, "good")).await.unwrap();
        world.converged(&[&a, &b, &c]).await;
        // The last commit has not arrived anywhere, but its frame is among those that are replayed.
        world.network.disconnect(a.id, b.id);
        world.network.set(a.id, c.id, Link { blocked: true, ..Link::default() });
        a.commit(note(1, "not here yet")).await.unwrap();
        world.settle().await;
        b.close(world).await;
        let before = b.entries().await;

        b.reopen(world).await;
        let stranger = world.network.transport();
        stranger.attach(STRANGER).await.unwrap();
        let mut events = b.events();
        world.settle().await;
        let frames = [a.tap.frames(), c.tap.frames()].concat();
        let bad = [damaged(&frames, EACH, &mut random), arbitrary(EACH, &mut random), foreign].concat();
        for from in [c.id, STRANGER] {
            for frame in &bad {
                world.network.inject(from, b.id, frame.clone()).unwrap();
                world.settle().await;
            }
            let count = bad.len() as u64;
            assert_eq!(rejected(&b.status().await.unwrap(), from), count, "frames of {from}");
            let told = drain(&mut events).await.into_iter().filter_map(|event| match event {
                Event::FrameRejected { from: who, count, .. } => Some((who, count)),
                _ => None,
            });
            let expected: Vec<_> = (0..).map(|n| (from, 1 << n)).take_while(|(_, at)| *at <= count).collect();
            assert_eq!(told.collect::<Vec<_>>(), expected, "told once, and then ever more rarely");
        }
        // Whole frames that a member may send, from a stranger.
        for frame in &frames {
            world.network.inject(STRANGER, b.id, frame.clone()).unwrap();
            world.settle().await;
        }
        assert_eq!(b.get::<Note>(1).await.unwrap(), Some(note(1, "good")));
        b.close(world).await;
        assert!(b.entries().await == before, "the store has changed");

        b.reopen(world).await;
        world.network.heal();
        world.converged(&[&a, &b, &c]).await;
        assert_eq!(b.get::<Note>(1).await.unwrap(), Some(note(1, "not here yet")));
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

const STRANGER: ReplicaId = replica_id(99);

fn rejected(status: &syncline::Status, from: ReplicaId) -> u64 {
    status.peers.iter().find(|peer| peer.replica == from).map_or(0, |peer| peer.rejected)
}

/// The frames that replicas with the same ids, but of another group, send each other.
async fn foreign_frames<F: Fixture>(fresh: &impl Fn() -> F) -> Vec<Bytes> {
    let mut frames = Vec::new();
    play(fresh, async |world| {
        const OTHER: GroupId = GroupId(Uuid::from_u128(0x61));
        let (mut a, mut b) = (world.device(0), world.device(2));
        a.open(world, |builder| all_models(builder).found(OTHER)).await.unwrap();
        b.open(world, |builder| all_models(builder).join(OTHER, a.id)).await.unwrap();
        world.admit(&b, &a).await;
        b.commit(note(1, "foreign")).await.unwrap();
        world.converged(&[&a, &b]).await;
        frames.extend(a.tap.frames());
        frames.extend(b.tap.frames());
        a.close(world).await;
        b.close(world).await;
    })
    .await;
    frames
}

/// How many damaged frames come at once, from each of two senders.
const FLOOD: usize = 1_000;
/// How many times they come.
const FLOODS: usize = 8;

/// Goal: a flood of bad frames delays honest peers, and does no more harm. Method: a member and a stranger that send
/// damaged frames again and again, while two other replicas commit.
///
/// B1, B2, I11.
pub async fn honest_peers_are_served_during_a_flood<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        let mut random = fastrand::Rng::with_seed(seed());
        c.commit(note(0, "good")).await.unwrap();
        world.converged(&[&a, &b, &c]).await;
        c.close(world).await;
        let mallory = world.network.transport();
        mallory.attach(c.id).await.unwrap();
        let frames = [a.tap.frames(), c.tap.frames()].concat();
        let flood = async {
            for _ in 0..FLOODS {
                // More frames than the network holds for a receiver: it drops the rest, also frames of honest peers.
                for frame in damaged(&frames, FLOOD, &mut random) {
                    world.network.inject(c.id, b.id, frame.clone()).unwrap();
                    world.network.inject(STRANGER, b.id, frame).unwrap();
                }
                world.settle_or_pass().await;
            }
        };
        let work = async {
            for n in 1..100 {
                a.commit(note(n, "good")).await.unwrap();
                b.commit(place(b.device, n, "good")).await.unwrap();
            }
            world.until("they agree during the flood", async || all::<Note, _>(&*b).await.len() == 100).await;
        };
        join(flood, work).await;
        assert!(rejected(&b.status().await.unwrap(), c.id) > 0);
        let dropped = |from| world.network.traffic(from, b.id).dropped_frames;
        assert!(dropped(c.id) > 0 && dropped(STRANGER) > 0, "the queue of b was never full");
        drop(mallory);
        c.reopen(world).await;
        world.converged(&[&a, &b, &c]).await;
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}
