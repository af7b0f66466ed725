//! A replica that stops anywhere and is opened again goes on where it was.

use std::collections::BTreeSet;

use futures::future::join_all;
use syncline::{Event, Events, ReplicaId, StopReason};

use super::peer::{Peer, all_models};
use super::world::{World, play};
use crate::models::{Basket, Note, basket, note};
use crate::replica::app::drain;
use crate::{Fault, FaultKind, Fixture};

/// How a replica is stopped.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// Its driver is dropped after this many polls.
    Polls(usize),
    /// Its store fails with this fault.
    Fault(Fault),
}

/// The changes in the events of a replica, over all its lives: stream, sequence number and record.
type Told = BTreeSet<(ReplicaId, u64, String)>;

/// Takes the events that are there. Panics if there was an event of the same change before.
async fn note_told(told: &mut Told, events: &mut Events, when: &str) {
    for event in drain(events).await {
        if let Event::Changed(change) = event {
            let key = (change.stamp.replica(), change.seq, format!("{}", change.record));
            assert!(told.insert(key), "{when}: told twice: {change:?}");
        }
    }
}

/// Goal: wherever a replica stops, no commit is lost, none is applied twice, and none is fetched again that is there.
/// Method: the receiver or the author of commits in both directions is stopped at every poll of its driver and by every
/// fault at every operation of its store, then opened again; look at the audit, the events of all its lives and the
/// bytes that pass.
///
/// C1, C6, Y3, Y4, X3.
pub async fn a_replica_that_stops_anywhere_goes_on_where_it_was<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b] = world.group().await;
        let preload = a.commit_batch(|batch| {
            Ok((0..PRELOADED).try_for_each(|id| batch.put(&note(10_000 + id, "x".repeat(500))))?)
        });
        preload.await.unwrap();
        world.converged(&[&a, &b]).await;
        let (mut told, mut round) = (Told::new(), 0);
        for author_stops in [false, true] {
            let (victim, other) = if author_stops { (&mut a, &mut b) } else { (&mut b, &mut a) };
            told.clear();
            let mut sweep = async |stop: Stop| {
                round += 1;
                stop_once(world, victim, other, stop, round, &mut told).await
            };
            let mut polls = 0;
            while sweep(Stop::Polls(polls)).await {
                polls += 1;
            }
            for kind in FaultKind::ALL {
                let mut at = 0;
                while sweep(Stop::Fault(Fault::once(at, kind))).await {
                    at += 1;
                }
            }
        }
        assert!(round > 40, "the sweep stopped only {round} times");
        world.assert_equal(&mut [&mut a, &mut b]).await;
    })
    .await;
}

const PRELOADED: u32 = 200;

/// Runs one life of `victim` that ends as `stop` says, and the next one. Returns whether the first one was stopped.
async fn stop_once<F: Fixture>(
    world: &World<'_, F>,
    victim: &mut Peer<F>,
    other: &Peer<F>,
    stop: Stop,
    round: u32,
    told: &mut Told,
) -> bool {
    let when = format!("{stop:?} of {}, round {round}", victim.id);
    victim.close(world).await;
    world.converged(&[other]).await;
    // The victim has something to catch up with.
    other.commit(note(2 * round, &*when)).await.unwrap();
    other.commit(basket(1, [2 * round])).await.unwrap();
    let polls = if let Stop::Polls(polls) = stop { polls } else { usize::MAX };
    victim.open_for(polls, world, all_models).await.unwrap();
    if let Stop::Fault(fault) = stop {
        victim.faults.arm(fault);
    }
    let mut events = victim.events();
    let own = async {
        let text = format!("own, {when}");
        let ours = [1_000_000 + 2 * round, 1_000_001 + 2 * round];
        let pair =
            victim.commit_batch(|batch| Ok(ours.iter().try_for_each(|id| batch.put(&note(*id, &*text)))?));
        let results = futures::future::join(pair, victim.commit(basket(1, [2 * round + 1]))).await;
        (ours, results.0.is_ok(), results.1.is_ok())
    };
    let theirs = async {
        for id in 0..3 {
            other.commit(note(id, &*when)).await.unwrap();
        }
    };
    let ((ours, pair_made, basket_made), ()) = futures::future::join(own, theirs).await;
    let mut stopped = false;
    world
        .until("it stops or agrees", async || match (victim.status().await, other.status().await) {
            (Ok(one), Ok(two)) => {
                let commits = |status: &syncline::Status| {
                    status.streams.iter().map(|stream| (stream.replica, stream.commits)).collect::<Vec<_>>()
                };
                commits(&one) == commits(&two)
            }
            (Err(syncline::Error::Stopped(reason)), _) => {
                assert!(!matches!(reason, StopReason::Shutdown));
                stopped = true;
                true
            }
            (status, _) => panic!("{when}: {status:?}"),
        })
        .await;
    let fired = match stop {
        Stop::Polls(_) => stopped,
        Stop::Fault(_) => victim.faults.fired(),
    };
    victim.faults.disarm();
    note_told(told, &mut events, &when).await;
    victim.kill(world).await;
    victim.entries().await;

    world.network.reset_traffic();
    victim.reopen(world).await;
    let mut events = victim.events();
    world.converged(&[victim, other]).await;
    note_told(told, &mut events, &when).await;
    let bytes = world.network.total().sent_bytes;
    assert!(bytes < u64::from(PRELOADED) * 500 / 4, "{when}: {bytes} bytes are a full transfer");
    let notes = join_all(ours.iter().map(|id| other.get::<Note>(*id))).await;
    let there: Vec<_> = notes.into_iter().map(|note| note.unwrap().is_some()).collect();
    assert!(there == [true, true] || there == [false, false], "{when}: half of a batch is there");
    assert!(there[0] || !pair_made, "{when}: an acknowledged commit is lost");
    let items = other.get::<Basket>(1).await.unwrap().unwrap().items;
    assert!(items.contains(&(2 * round)), "{when}: a commit of the other one is lost");
    assert!(items.contains(&(2 * round + 1)) || !basket_made, "{when}: an acknowledged commit is lost");
    fired
}
