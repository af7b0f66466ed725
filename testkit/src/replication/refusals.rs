//! The author of a stream that stops somewhere is told so on its own device, and a device with a wrong clock too.

use syncline::{Clock as _, Event, PeerStatus, Refusal, StreamStop};

use super::catching_up::commits_of;
use super::contents::all;
use super::peer::Peer;
use super::stored::copy;
use super::world::{World, play};
use crate::models::{Note, note};
use crate::replica::app::drain;
use crate::{Fault, FaultKind, Fixture};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const HOUR_AHEAD: i64 = 3_600_000;

/// What `peer` knows of `other`.
async fn known<F: Fixture>(peer: &Peer<F>, other: &Peer<F>) -> PeerStatus {
    let peers = peer.status().await.unwrap().peers;
    peers.into_iter().find(|known| known.replica == other.id).expect("it was heard of")
}

/// Why `by` takes no more of the stream of `peer`, as `peer` was told.
async fn refusal<F: Fixture>(peer: &Peer<F>, by: &Peer<F>) -> Option<Refusal> {
    known(peer, by).await.refuses
}

/// Why the stream of `author` is stopped at `peer`.
async fn stop_of<F: Fixture>(peer: &Peer<F>, author: &Peer<F>) -> Option<StreamStop> {
    let streams = peer.status().await.unwrap().streams;
    streams.into_iter().find(|stream| stream.replica == author.id).and_then(|stream| stream.stopped)
}

/// The events about refusals.
fn of_refusals(events: Vec<Event>) -> Vec<Event> {
    let is_one = |event: &Event| matches!(event, Event::Refused { .. } | Event::Accepted { .. });
    events.into_iter().filter(is_one).collect()
}

/// Goal: a device whose clock is an hour ahead says so to its own user: by how much, and who takes nothing of it since
/// when. The others say nothing of the kind. It is told again after an opening, and the end too. Method: one of three
/// is ahead; it commits, is opened anew, and 56 minutes pass.
///
/// Y17, Y11, I15.
pub async fn a_device_from_the_future_is_told_so_itself<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        assert!([0, 1].contains(&b.status().await.unwrap().ahead_ms.expect("the others were heard").abs()));
        let mut events = b.events();
        b.clock.step_wall(HOUR_AHEAD);
        b.commit(note(2, "from the future")).await.unwrap();
        let told = async |b: &Peer<F>| refusal(b, &a).await.is_some() && refusal(b, &c).await.is_some();
        world.until("both have told the author", async || told(&b).await).await;
        for other in [&a, &c] {
            let Refusal { stop, clock, .. } = refusal(&b, other).await.unwrap();
            assert_eq!(Some(stop), stop_of(other, &b).await, "the reason is the one over there");
            let clock = clock.expect("it can tell the time");
            let hour = b.clock.wall().unwrap().get() - clock.get();
            assert!((HOUR..HOUR + MINUTE).contains(&hour), "{hour} ms between the clocks");
            assert_eq!((refusal(other, &b).await, stop_of(&b, other).await), (None, None));
        }
        let ahead = b.status().await.unwrap().ahead_ms.unwrap();
        assert!((HOUR_AHEAD - 1_000..=HOUR_AHEAD).contains(&ahead), "{ahead} ms ahead");
        // Of the others, one of two peers is right: they are not told that they are wrong.
        world.pass(MINUTE).await;
        for other in [&a, &c] {
            let status = other.status().await.unwrap();
            let of_b = status.peers.iter().find(|peer| peer.replica == b.id).unwrap().ahead_ms.unwrap();
            assert!((-HOUR_AHEAD..=1_000 - HOUR_AHEAD).contains(&of_b), "{of_b} ms ahead of the wrong one");
            assert!(status.ahead_ms.is_some_and(|ahead| ahead <= 0), "{:?}", status.ahead_ms);
        }
        let refused = of_refusals(drain(&mut events).await);
        assert!(matches!(refused[..], [Event::Refused { .. }, Event::Refused { .. }]), "{refused:?}");

        b.close(world).await;
        b.reopen(world).await;
        let mut events = b.events();
        world.until("both have told it again", async || told(&b).await).await;
        let refused = of_refusals(drain(&mut events).await);
        assert!(matches!(refused[..], [Event::Refused { .. }, Event::Refused { .. }]), "{refused:?}");
        world.pass(56 * MINUTE).await;
        world.converged(&[&a, &b, &c]).await;
        world
            .until("nobody refuses it", async || {
                refusal(&b, &a).await.is_none() && refusal(&b, &c).await.is_none()
            })
            .await;
        let ended = of_refusals(drain(&mut events).await);
        assert!(matches!(ended[..], [Event::Accepted { .. }, Event::Accepted { .. }]), "{ended:?}");
        assert!(b.status().await.unwrap().ahead_ms.unwrap() > HOUR_AHEAD - 1_000, "the clock is still wrong");
        // The user sets the clock.
        b.clock.set_wall(a.clock.another().wall());
        world.pass(MINUTE).await;
        assert!(b.status().await.unwrap().ahead_ms.unwrap().abs() < 1_000);
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

/// Goal: a peer whose disk is full for an hour says so to the author, and asks for the next commit alone and ever more
/// rarely, however much is behind it. Once it has room, all goes through. Method: a store that rejects every write; the
/// bytes that pass in that hour.
///
/// Y14, Y17, C16, I15.
pub async fn a_full_disk_elsewhere_is_told_and_asks_for_one_commit_a_minute<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    const NOTES: u32 = 2_000;
    play(fresh, async |world| {
        let [mut a, mut b] = world.group().await;
        a.faults.arm(Fault::sticky(0, FaultKind::Rejected));
        let text = "x".repeat(100);
        for first in (0..NOTES).step_by(10) {
            let notes: Vec<_> = (first..first + 10).map(|id| note(id, &*text)).collect();
            b.commit_batch(move |batch| Ok(notes.iter().try_for_each(|note| batch.put(note))?))
                .await
                .unwrap();
        }
        world.pass(5 * MINUTE).await;
        let mut events = b.events();
        world.network.reset_traffic();
        world.pass(HOUR).await;
        let brought = world.network.traffic(b.id, a.id);
        assert!(brought.sent_bytes < 200_000, "{} bytes in an hour for nothing", brought.sent_bytes);
        let told = refusal(&b, &a).await;
        let at = known(&b, &a).await.acknowledged + 1;
        let says = told.as_ref().map(|refusal| &refusal.stop);
        assert!(matches!(says, Some(StreamStop::NotStored { seq, .. }) if *seq == at), "{at}: {told:?}");
        assert_eq!(of_refusals(drain(&mut events).await), [], "a trial that fails again is no news");

        a.faults.disarm();
        world.converged(&[&a, &b]).await;
        assert_eq!(all::<Note, _>(&*a).await.len(), NOTES as usize);
        world.until("it is accepted", async || refusal(&b, &a).await.is_none()).await;
        let ended = of_refusals(drain(&mut events).await);
        assert_eq!(ended, [Event::Accepted { by: a.id }]);
        world.assert_equal(&mut [&mut a, &mut b]).await;
    })
    .await;
}

/// A copy of the store of `b`, which lacks the last commit of `b` and has another one in its place. Both are closed, and
/// `b` is cut off.
async fn copy_with_another_history<F: Fixture>(
    world: &World<'_, F>,
    a: &Peer<F>,
    b: &mut Peer<F>,
) -> Peer<F> {
    b.commit(note(1, "before the copy")).await.unwrap();
    world.converged(&[a, b]).await;
    b.close(world).await;
    let mut copied = world.device(1);
    copy(&b.disk, &copied.disk).await;
    b.reopen(world).await;
    b.commit(note(2, "on the original")).await.unwrap();
    world.converged(&[a, b]).await;
    b.close(world).await;
    world.network.disconnect(a.id, b.id);
    copied.reopen(world).await;
    copied.commit(note(3, "on the copy")).await.unwrap();
    copied.close(world).await;
    world.network.connect(a.id, b.id);
    copied
}

/// Goal: the healthy original of a store that was copied hears that a peer takes nothing more of it, and why, although
/// the peer has its history and not the copy's. Method: a third replica takes what a copy has committed on its own, while
/// the original is away, and meets the peer; then the original comes back, twice.
///
/// H3, Y15, Y17, I15.
pub async fn the_original_of_a_copy_is_told_that_its_stream_has_stopped<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        world.network.disconnect(a.id, c.id);
        world.network.disconnect(b.id, c.id);
        let mut copied = copy_with_another_history(world, &a, &mut b).await;
        // The copy meets a replica from which it cannot hear that it is one.
        world.network.disconnect(a.id, b.id);
        world.network.connect(b.id, c.id);
        copied.reopen(world).await;
        world
            .until("the copy was heard", async || {
                commits_of(&c, &copied).await == commits_of(&copied, &copied).await
            })
            .await;
        copied.close(world).await;
        world.network.disconnect(b.id, c.id);
        world.network.connect(a.id, c.id);
        world
            .until("there are two histories", async || {
                stop_of(&a, &copied).await.is_some() && stop_of(&c, &copied).await.is_some()
            })
            .await;
        world.network.connect(a.id, b.id);

        for text in ["back again", "and once more"] {
            b.reopen(world).await;
            let mut events = b.events();
            world.until("the original is told", async || refusal(&b, &a).await.is_some()).await;
            let Refusal { stop, .. } = refusal(&b, &a).await.unwrap();
            assert!(matches!(stop, StreamStop::Forked { .. }), "{stop:?}");
            assert_eq!(Some(stop), stop_of(&a, &b).await);
            let told = of_refusals(drain(&mut events).await);
            assert!(matches!(&told[..], [Event::Refused { by, .. }] if *by == a.id), "{told:?}");
            b.commit(note(4, text)).await.unwrap();
            world.pass(MINUTE).await;
            assert!(refusal(&b, &a).await.is_some(), "no acknowledgement ends it");
            assert_eq!(b.status().await.unwrap().restored, None, "it is not the copy");
            b.close(world).await;
        }
        a.commit(note(5, "life goes on")).await.unwrap();
        a.close(world).await;
        c.close(world).await;
        a.entries().await;
        b.entries().await;
    })
    .await;
}

/// Goal: a peer that a copy of a store has met goes on with the original: what that acknowledges counts, and its stream
/// goes through. Method: the copy and its peer doubt each other's word, and the copy shows nothing before its doubt has
/// ended; then the original comes back, and later the copy, and the original again.
///
/// H3, Y8, Y15.
pub async fn the_original_goes_on_after_a_copy_of_it_was_found_out<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b] = world.group().await;
        let mut copied = copy_with_another_history(world, &a, &mut b).await;
        for round in 0..2 {
            copied.reopen(world).await;
            world.until("the copy knows", async || copied.status().await.unwrap().restored.is_some()).await;
            world.until("its peer knows", async || known(&a, &copied).await.restored).await;
            assert_eq!(known(&a, &copied).await.acknowledged, 0);
            copied.close(world).await;

            b.reopen(world).await;
            b.commit(note(10 + round, "on the original")).await.unwrap();
            a.commit(note(20 + round, "for the original")).await.unwrap();
            world.converged(&[&a, &b]).await;
            let commits = a.status().await.unwrap().commits;
            world
                .until("what it has counts", async || {
                    let of_b = known(&a, &b).await;
                    !of_b.restored && of_b.acknowledged == commits
                })
                .await;
            assert_eq!((b.status().await.unwrap().restored, refusal(&b, &a).await), (None, None));
            b.close(world).await;
        }
        b.reopen(world).await;
        world.converged(&[&a, &b]).await;
        world.assert_equal(&mut [&mut a, &mut b]).await;
    })
    .await;
}
