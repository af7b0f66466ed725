//! A commit reaches every replica, after everything that its author had seen.

use std::cell::Cell;
use std::collections::BTreeMap;

use futures::future::join;
use syncline::{ChangeKind, Error, Event};
use syncline_backends::Link;

use super::contents::all;
use super::peer::{Peer, replica_id};
use super::world::{World, play, play_on};
use crate::Fixture;
use crate::models::{Note, Place, basket, note, place};
use crate::poll::give_way;
use crate::replica::app::drain;

/// Goal: shared and owned records replicate, and only its owner can change an owned one. Method: three replicas; the
/// shared record is changed by two of them, and the others try every call on the owned one.
///
/// Y4, C15, I10.
pub async fn a_shared_record_goes_round_and_an_owned_one_stays_its_authors<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        a.commit_shared(note(1, "from a")).await.unwrap();
        a.commit_device_owned(place(a.device, 1, "at a")).await.unwrap();
        world.converged(&[&a, &b, &c]).await;
        for peer in [&b, &c] {
            assert_eq!(peer.get::<Note>(1).await.unwrap(), Some(note(1, "from a")));
            let there = peer.get::<Place>((a.device, 1)).await.unwrap();
            assert_eq!(there, Some(place(a.device, 1, "at a")));
            let put = peer.commit_device_owned(place(a.device, 1, "stolen")).await;
            assert!(matches!(put, Err(Error::NotOwner { .. })), "{put:?}");
            let deleted = peer.delete::<Place>((a.device, 1)).await;
            assert!(matches!(deleted, Err(Error::NotOwner { .. })), "{deleted:?}");
            // The same id of its own device is another record.
            peer.commit_device_owned(place(peer.device, 1, "mine")).await.unwrap();
        }
        let renamed = b.update::<Note, _>(1, |old| {
            Ok(Note { text: "from b".into(), ..old.ok_or("there is no such note")? })
        });
        renamed.await.unwrap();
        world.converged(&[&a, &b, &c]).await;
        assert_eq!(a.get::<Note>(1).await.unwrap(), Some(note(1, "from b")));
        assert_eq!(a.get::<Place>((a.device, 1)).await.unwrap(), Some(place(a.device, 1, "at a")));
        assert_eq!(all::<Place, _>(&*a).await.len(), 3);
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

/// Goal: a commit needs no link between its author and its reader. Method: three replicas in a line; the one at one end
/// commits and goes for ever, before the one at the other end has heard of it.
///
/// Y4, Y9, I12.
pub async fn a_commit_reaches_the_end_of_a_line_although_its_author_is_gone<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    play_on(fresh, syncline_backends::MemoryNetworkBuilder::unconnected, async |world| {
        let (mut a, mut b, mut c) = line(world).await;
        a.commit(note(1, "live")).await.unwrap();
        a.commit(place(a.device, 1, "live")).await.unwrap();
        world.converged(&[&a, &b, &c]).await;
        assert_eq!(world.network.traffic(a.id, c.id).sent_frames, 0, "they have no link");

        world.network.disconnect(b.id, c.id);
        for n in 0..200 {
            a.commit(note(n, format!("last words {n}"))).await.unwrap();
        }
        world.converged(&[&a, &b]).await;
        a.close(world).await;
        world.network.connect(b.id, c.id);
        world.converged(&[&b, &c]).await;
        assert_eq!(c.get::<Note>(199).await.unwrap(), Some(note(199, "last words 199")));
        // Its own commits reach the one that is left.
        c.commit(note(7, "from c")).await.unwrap();
        world.converged(&[&b, &c]).await;
        world.assert_equal(&mut [&mut b, &mut c]).await;
    })
    .await;
}

/// Three replicas in a line, the first of which founded the group.
async fn line<F: Fixture>(world: &World<'_, F>) -> (Peer<F>, Peer<F>, Peer<F>) {
    world.network.connect(replica_id(0), replica_id(1));
    world.network.connect(replica_id(1), replica_id(2));
    let a = world.found(0).await;
    let b = world.join(1, &a).await;
    let c = world.join(2, &b).await;
    (a, b, c)
}

/// Goal: no commit is skipped because a newer one came first, as with one watermark over all streams. Method: a replica
/// commits while it is away; the others commit later and agree; then it meets one of them, which passes its commits on.
///
/// C9, Y10.
pub async fn older_edits_that_arrive_late_are_not_skipped<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        world.network.disconnect(a.id, c.id);
        world.network.disconnect(b.id, c.id);
        for n in 0..50 {
            c.commit(note(n, "older")).await.unwrap();
            c.commit(place(c.device, n, "older")).await.unwrap();
        }
        world.pass(60_000).await;
        for n in 40..90 {
            a.commit(note(n, "newer")).await.unwrap();
            b.commit(note(n + 50, "newer")).await.unwrap();
            b.commit(basket(n, [n])).await.unwrap();
        }
        world.converged(&[&a, &b]).await;
        world.network.connect(b.id, c.id);
        world.converged(&[&a, &b, &c]).await;
        for peer in [&a, &b, &c] {
            let notes = all::<Note, _>(&**peer).await;
            let older = notes.iter().filter(|note| note.text == "older").map(|note| note.id);
            assert_eq!(older.collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
            assert_eq!(notes.len(), 140);
            assert_eq!(all::<Place, _>(&**peer).await.len(), 50);
        }
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

/// Goal: a replica never shows a commit before its causes. Method: two replicas answer each other; the third one is
/// linked with the second alone, over a link that loses, repeats and reorders; a reader there looks all the time.
///
/// I7, C9, C14.
pub async fn a_commit_never_shows_before_what_it_rests_on<F: Fixture>(fresh: &impl Fn() -> F) {
    const ROUNDS: u32 = 40;
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        world.network.partition(&[a.id], &[c.id]);
        let bad = Link { loss: 0.2, duplicate: 0.2, reorder: 0.3, ..Link::default() };
        world.network.set(b.id, c.id, bad);
        let seen = Cell::new(0);
        let talk = async {
            for round in 0..ROUNDS {
                // A lost page holds the reader up until time passes. Wait for it now and then: it must not find
                // everything there at once.
                while seen.get() < round / 10 {
                    give_way().await;
                }
                let (asks, answers) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
                asks.commit(note(0, round.to_string())).await.unwrap();
                while answers.get::<Note>(0).await.unwrap() != Some(note(0, round.to_string())) {
                    give_way().await;
                }
                answers.commit(note(1, round.to_string())).await.unwrap();
                while asks.get::<Note>(1).await.unwrap() != Some(note(1, round.to_string())) {
                    give_way().await;
                }
            }
        };
        let number = |note: Option<Note>| note.map_or(0, |note| note.text.parse::<u32>().unwrap() + 1);
        let watch = async {
            let mut last = 0;
            while last < ROUNDS {
                // Read the answer first: its question must be there by then.
                let answer = number(c.get::<Note>(1).await.unwrap());
                let question = number(c.get::<Note>(0).await.unwrap());
                assert!(question >= answer, "answer {answer} is there, and of the questions only {question}");
                assert!(answer >= last, "answer {answer} after answer {last}");
                seen.set(seen.get() + u32::from(answer > last));
                last = answer;
                world.settle_or_pass().await;
            }
        };
        join(talk, watch).await;
        world.network.heal();
        world.converged(&[&a, &b, &c]).await;
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

/// Goal: the events of a remote commit come together, and name its device. Method: batches and single commits on one
/// replica, all events at another, live and when it catches up.
///
/// C4, C13.
pub async fn a_remote_transaction_is_told_as_one<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b] = world.group().await;
        let mut events = b.events();
        for live in [true, false] {
            if !live {
                world.network.disconnect(a.id, b.id);
            }
            let text = format!("live: {live}");
            let batch = a.commit_batch(|batch| {
                (0..20).try_for_each(|id| batch.put(&note(id, &*text)))?;
                (0..20).try_for_each(|id| batch.put(&place(a.device, id, &*text)))?;
                Ok(batch.put(&basket(u32::from(live), [1]))?)
            });
            batch.await.unwrap();
            a.delete::<Note>(3).await.unwrap();
            a.commit(note(4, format!("again, {text}"))).await.unwrap();
            if !live {
                world.network.connect(a.id, b.id);
            }
            world.converged(&[&a, &b]).await;
            let mut transactions = Vec::new();
            for _ in 0..3 {
                let together = events.next_together().await.unwrap().unwrap();
                let changes: Vec<_> = together
                    .into_iter()
                    .map(|event| match event {
                        Event::Changed(change) => change,
                        other => panic!("{other:?} is no change"),
                    })
                    .collect();
                assert!(changes.iter().all(|change| change.origin == a.device));
                assert!(changes.iter().all(|change| change.stamp.replica() == a.id));
                assert!(changes.iter().all(|change| change.seq == changes[0].seq));
                transactions.push(changes);
            }
            let sizes: Vec<_> = transactions.iter().map(Vec::len).collect();
            assert_eq!(sizes, [41, 1, 1], "{text}");
            let seqs: Vec<_> = transactions.iter().map(|changes| changes[0].seq).collect();
            assert_eq!(seqs, (seqs[0]..seqs[0] + 3).collect::<Vec<_>>(), "{text}");
            let mut kinds = BTreeMap::<_, u32>::new();
            transactions[0].iter().for_each(|change| {
                *kinds.entry(format!("{} {:?}", change.record.model(), change.kind)).or_default() += 1;
            });
            let updates = if live { 0 } else { 19 };
            assert_eq!(kinds.get("note Update").copied().unwrap_or(0), updates, "{kinds:?}");
            assert_eq!(transactions[1][0].kind, ChangeKind::Delete);
            assert_eq!(transactions[2][0].kind, ChangeKind::Update);
            assert_eq!(drain(&mut events).await, [], "{text}: that was all");
        }
        world.assert_equal(&mut [&mut a, &mut b]).await;
    })
    .await;
}
