//! Wrong clocks delay only the streams that they stamp, and all replicas converge in the end.

use syncline::{Error, Event, ReplicaId, StreamStop};

use super::contents::all;
use super::peer::Peer;
use super::world::play;
use crate::Fixture;
use crate::models::{Note, basket, note, place};
use crate::replica::app::drain;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const HOUR_AHEAD: i64 = 3_600_000;

/// The streams that are stopped at a replica, all of which must be held.
async fn held<F: Fixture>(peer: &Peer<F>) -> Vec<ReplicaId> {
    let streams = peer.status().await.unwrap().streams;
    let stopped = streams.into_iter().filter_map(|stream| Some((stream.replica, stream.stopped?)));
    stopped
        .map(|(replica, stop)| {
            assert!(matches!(stop, StreamStop::Held { .. }), "{replica}: {stop:?}");
            replica
        })
        .collect()
}

/// Goal: a replica whose clock is an hour ahead delays no other stream and moves no other clock. Its stream goes
/// through by itself when time has caught up. Method: one of three is ahead; all commit, and 56 minutes pass.
///
/// H5, H6, Y11, B4.
pub async fn a_stream_from_the_future_is_held_alone_until_time_catches_up<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        let mut events = a.events();
        b.clock.step_wall(HOUR_AHEAD);
        b.commit(note(2, "from the future")).await.unwrap();
        b.commit(place(b.device, 2, "from the future")).await.unwrap();
        a.commit(note(1, "a")).await.unwrap();
        c.commit(note(3, "c")).await.unwrap();
        world
            .until("both hold the stream", async || held(&a).await == [b.id] && held(&c).await == [b.id])
            .await;
        let mut told = drain(&mut events).await;
        told.retain(|event| matches!(event, Event::Stopped { .. }));
        let held_there =
            |event: &Event| matches!(event, Event::Stopped { stream, reason: StreamStop::Held { .. } } if *stream == b.id);
        assert!(matches!(&told[..], [event] if held_there(event)), "{told:?}");

        for round in 0..3 {
            a.commit(note(10 + round, "a")).await.unwrap();
            c.commit(note(20 + round, "c")).await.unwrap();
            world.pass(13 * MINUTE).await;
            let ids = |notes: Vec<Note>| notes.into_iter().map(|note| note.id).collect::<Vec<_>>();
            let expected: Vec<_> = [1, 3].into_iter().chain(10..=10 + round).chain(20..=20 + round).collect();
            assert_eq!(ids(all(&*a).await), expected);
            assert_eq!(ids(all(&*c).await), expected);
            assert_eq!(all::<Note, _>(&*b).await.len(), expected.len() + 1, "whoever is ahead takes everything");
            assert_eq!((held(&a).await, held(&c).await), (vec![b.id], vec![b.id]));
        }
        assert_eq!(held(&b).await, []);
        world.pass(17 * MINUTE).await;
        assert_eq!((held(&a).await, held(&c).await), (vec![], vec![]));
        world.converged(&[&a, &b, &c]).await;
        assert!(drain(&mut events).await.contains(&Event::Resumed { stream: b.id }));
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

/// Goal: `release_held` lets a held stream through at once, and no other stream. Method: no time passes after the call.
/// The clock of the replica that released is as far ahead from then on, so the third one has to release its stream too.
///
/// Y11.
pub async fn a_held_stream_that_is_released_goes_through_at_once<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        b.clock.step_wall(HOUR_AHEAD);
        for n in 0..30 {
            b.commit(note(n, "from the future")).await.unwrap();
        }
        world
            .until("both hold the stream", async || held(&a).await == [b.id] && held(&c).await == [b.id])
            .await;
        let other = a.release_held(c.id).await;
        assert!(matches!(other, Err(Error::NotHeld { stream }) if stream == c.id), "{other:?}");
        a.release_held(b.id).await.unwrap();
        world.settle().await;
        assert_eq!(all::<Note, _>(&*a).await.len(), 30);
        assert_eq!((held(&a).await, held(&c).await), (vec![], vec![b.id]));
        b.commit(note(30, "goes through too")).await.unwrap();
        world.settle().await;
        assert_eq!(all::<Note, _>(&*a).await.len(), 31);

        a.commit(note(1, "after the future")).await.unwrap();
        world.settle().await;
        c.release_held(b.id).await.unwrap();
        world.until("only the answer is held", async || held(&c).await == [a.id]).await;
        c.release_held(a.id).await.unwrap();
        world.converged(&[&a, &b, &c]).await;
        assert_eq!(c.get::<Note>(1).await.unwrap(), Some(note(1, "after the future")));
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

/// Goal: a replica whose clock is behind or frozen delays nobody but itself, and lacks nothing once its clock is right.
/// Method: an hour behind, then frozen for ten minutes; the others agree meanwhile and have its commits.
///
/// H1, Y11.
pub async fn a_clock_that_is_behind_or_frozen_delays_its_own_device_alone<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        for frozen in [false, true] {
            if frozen {
                c.clock.freeze_wall();
                world.pass(10 * MINUTE).await;
            } else {
                c.clock.step_wall(-HOUR_AHEAD);
            }
            let text = format!("frozen: {frozen}");
            for n in 0..10 {
                a.commit(note(n, &*text)).await.unwrap();
                b.commit(basket(n, [u32::from(frozen)])).await.unwrap();
                c.commit(note(100 + n, &*text)).await.unwrap();
            }
            // For c, the stream of a comes from the future. That of b depends on it and waits too.
            world.until("they are held", async || held(&c).await.contains(&a.id)).await;
            let there = all::<Note, _>(&*c).await.iter().filter(|note| note.text == text).count();
            assert_eq!(there, 10, "it has its own alone");
            assert_eq!((held(&a).await, held(&b).await), (vec![], vec![]));
            for peer in [&a, &b] {
                assert_eq!(all::<Note, _>(&**peer).await.iter().filter(|note| note.text == text).count(), 20);
            }
            let right = a.clock.another();
            c.clock.set_wall(syncline::Clock::wall(&right));
            world.converged(&[&a, &b, &c]).await;
            assert_eq!(held(&c).await, []);
        }
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

/// Goal: a clock that steps back every day does no harm. Method: a week of such days, with commits of all replicas
/// before and after each step; the audit of every store checks that the stamps rise all the same.
///
/// H1, H2, Y11.
pub async fn a_clock_that_steps_back_every_day_converges<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        for day in 0..7 {
            world.clock.advance(DAY);
            for back in [0, -HOUR_AHEAD] {
                b.clock.step_wall(back);
                for (n, peer) in (0..).zip([&a, &b, &c]) {
                    peer.commit(note(n, format!("day {day}, {back}"))).await.unwrap();
                    peer.commit(basket(0, [day * 10 + n])).await.unwrap();
                }
                world.pass(MINUTE).await;
                assert_eq!((held(&a).await, held(&c).await), (vec![], vec![]));
            }
            if day % 2 == 0 {
                b.close(world).await;
                b.reopen(world).await;
            }
            b.clock.step_wall(HOUR_AHEAD);
            world.converged(&[&a, &b, &c]).await;
        }
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}
