//! A replica that was away gets everything that it lacks, and nothing else.

use futures::future::{join, join_all};
use syncline::internals::MARKS;
use syncline::{Builder, Limits, Storage, StreamStatus};

use super::contents::all;
use super::peer::{Peer, all_models};
use super::world::{play, play_on};
use crate::Fixture;
use crate::models::{Basket, Note, Place, basket, note, place};

/// Commits `count` notes, each in a commit of its own. Commits that wait together share a write.
async fn commit_notes<F: Fixture>(peer: &Peer<F>, first: u32, count: u32) {
    let commits = (first..first + count).map(|id| peer.commit(note(id, format!("{id:0>TEXT$}"))));
    join_all(commits).await.into_iter().for_each(|saved| drop(saved.unwrap()));
}

/// How many bytes the text of a note has.
const TEXT: usize = 60;

/// How many commits of `author` a replica has.
pub(super) async fn commits_of<F: Fixture>(peer: &Peer<F>, author: &Peer<F>) -> u64 {
    let streams = peer.status().await.unwrap().streams;
    streams
        .into_iter()
        .find(|stream| stream.replica == author.id)
        .map_or(0, |StreamStatus { commits, .. }| commits)
}

/// Goal: a replica that comes back gets what it lacks, and nothing that it has. Method: 5,000 commits while it is
/// there, 10,000 while it is away; count bytes and frames when it returns, and look for commits that come twice. When
/// it returns once more, almost nothing passes.
///
/// Y14, Y4.
pub async fn coming_back_transfers_what_is_missing_and_nothing_else<F: Fixture>(fresh: &impl Fn() -> F) {
    const COMMITS: u32 = 10_000;
    play(fresh, async |world| {
        let [mut a, mut b] = world.group().await;
        commit_notes(&a, 0, COMMITS / 2).await;
        world.converged(&[&a, &b]).await;
        b.close(world).await;
        commit_notes(&a, COMMITS, COMMITS).await;

        world.network.reset_traffic();
        b.reopen(world).await;
        world.converged(&[&a, &b]).await;
        let (brought, asked) = (world.network.traffic(a.id, b.id), world.network.traffic(b.id, a.id));
        let most = u64::from(COMMITS) * (TEXT as u64 + 48);
        assert!(brought.sent_bytes < most, "{} bytes for {COMMITS} commits of {TEXT}", brought.sent_bytes);
        // Pages are counted by what their commits become, and not by what travels. Three pages are smaller: the first
        // ones, until it is known what the link brings. Each page is announced.
        let pages = (u64::from(COMMITS) * (TEXT as u64 + 300)).div_ceil(1 << 20) + 3;
        let frames = brought.sent_frames;
        assert!(frames <= 2 * pages + 8, "{frames} frames for at most {pages} pages");
        assert!(asked.sent_frames <= 2 * pages + 8, "{} frames ask for {pages} pages", asked.sent_frames);
        assert_eq!(brought.dropped_frames, 0);
        let marks = b.status().await.unwrap().marks;
        let twice = (0..).zip(MARKS).any(|(bit, mark)| mark == "duplicate" && marks >> bit & 1 == 1);
        assert!(!twice, "something came that was there");
        assert_eq!(all::<Note, _>(&*b).await.len(), COMMITS as usize * 3 / 2);

        world.network.reset_traffic();
        b.close(world).await;
        b.reopen(world).await;
        world.converged(&[&a, &b]).await;
        let total = world.network.total();
        assert!(total.sent_bytes < 4096, "{} bytes for nothing", total.sent_bytes);
        world.assert_equal(&mut [&mut a, &mut b]).await;
    })
    .await;
}

/// Goal: a transfer that was cut off goes on where it was, and misses nothing that is committed meanwhile. Method:
/// 12,000 records of one owner in small pages; the link is cut on the way; 3,000 more records and 500 new values of old
/// ones while the transfer goes on.
///
/// Y4, Y10, C9.
pub async fn a_cut_transfer_under_new_commits_ends_with_exactly_all<F: Fixture>(fresh: &impl Fn() -> F) {
    const BEFORE: u32 = 12_000;
    const MORE: u32 = 3_000;
    const BATCH: u32 = 50;
    const AGAIN: u32 = 500;
    fn small_pages<S: Storage>(builder: Builder<S>) -> Builder<S> {
        all_models(builder).limits(Limits { page_bytes_max: 16 << 10, ..Limits::default() })
    }
    play(fresh, async |world| {
        let [mut a, mut b] = world.group().await;
        let (device, author) = (a.device, a.id);
        b.close(world).await;
        let put = async |first: u32, text: &str| {
            let batch = a.commit_batch(|batch| {
                Ok((first..first + BATCH).try_for_each(|id| batch.put(&place(device, id, text)))?)
            });
            batch.await.unwrap();
        };
        for first in (0..BEFORE).step_by(BATCH as usize) {
            put(first, "before").await;
        }
        let whole = commits_of(&a, &a).await;
        world.network.reset_traffic();
        b.open(world, small_pages).await.unwrap();
        let bytes = || world.network.traffic(author, b.id).delivered_bytes;
        world
            .as_soon_as("a part of it is over", || world.network.traffic(author, b.id).sent_frames > 20)
            .await;
        world.network.disconnect(a.id, b.id);
        world.settle().await;
        let half = commits_of(&b, &a).await;
        assert!(half > 1 && half < whole, "{half} of {whole} commits came before the cut");

        let so_far = bytes();
        world.network.connect(a.id, b.id);
        let more = async {
            world.as_soon_as("it goes on", || bytes() > so_far).await;
            for first in (BEFORE..BEFORE + MORE).step_by(BATCH as usize) {
                put(first, "more").await;
            }
            for first in (0..AGAIN).step_by(BATCH as usize) {
                put(first, "again").await;
            }
        };
        more.await;
        world.converged(&[&a, &b]).await;
        let places = all::<Place, _>(&*b).await;
        assert_eq!(places.len(), (BEFORE + MORE) as usize);
        for (id, place) in (0..).zip(&places) {
            let text = match id {
                ..AGAIN => "again",
                AGAIN..BEFORE => "before",
                _ => "more",
            };
            assert_eq!((place.id, place.text.as_str()), (id, text));
        }
        world.assert_equal(&mut [&mut a, &mut b]).await;
    })
    .await;
}

/// Goal: a peer that stops reading costs its sender no memory, and catches up when it reads again. Method: a network
/// that holds eight frames for a receiver, a driver that hangs during 200 commits, and a third replica that gets them
/// all meanwhile.
///
/// B1, B2, B3.
pub async fn a_peer_that_stops_reading_catches_up_later<F: Fixture>(fresh: &impl Fn() -> F) {
    const FRAMES: usize = 8;
    play_on(
        fresh,
        |network| network.queue_frames_max(FRAMES),
        async |world| {
            let [mut a, mut b, mut c] = world.group().await;
            world.settle().await;
            b.pause();
            world.network.reset_traffic();
            for n in 0..200 {
                a.commit(note(n, "while it does not read")).await.unwrap();
                world.settle().await;
            }
            assert_eq!(commits_of(&c, &a).await, commits_of(&a, &a).await, "the others get everything");
            let traffic = world.network.traffic(a.id, b.id);
            assert_eq!(traffic.delivered_frames, 0);
            let under_way = traffic.sent_frames - traffic.dropped_frames;
            assert!(under_way <= FRAMES as u64, "{under_way} frames are held for it");

            b.go_on().await;
            world.converged(&[&a, &b, &c]).await;
            assert_eq!(all::<Note, _>(&*b).await.len(), 200);
            world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
        },
    )
    .await;
}

/// Goal: a receiver shows a commit in one step, however it has come. Method: batches of 1,000 over three models, which
/// put the same records again and again; they come live and by pages that are smaller than one of them; a reader looks
/// all the time and never sees a part.
///
/// C13, I2.
pub async fn a_batch_shows_at_a_receiver_in_one_step<F: Fixture>(fresh: &impl Fn() -> F) {
    const EACH: u32 = 333;
    const ROUNDS: u32 = 6;
    play(fresh, async |world| {
        let [mut a, mut b] = world.group().await;
        b.close(world).await;
        let small = Limits { page_bytes_max: 4 << 10, ..Limits::default() };
        b.open(world, |builder| all_models(builder).limits(small)).await.unwrap();
        world.converged(&[&a, &b]).await;
        let put = async |round: u32| {
            let text = round.to_string();
            let batch = a.commit_batch(|batch| {
                (0..EACH).try_for_each(|id| batch.put(&note(id, &*text)))?;
                (0..EACH).try_for_each(|id| batch.put(&basket(id, [round])))?;
                (0..EACH).try_for_each(|id| batch.put(&place(a.device, id, &*text)))?;
                Ok(batch.put(&note(EACH, &*text))?)
            });
            batch.await.unwrap();
        };
        let write = async {
            for round in 1..=ROUNDS {
                if round == ROUNDS / 2 {
                    world.network.disconnect(a.id, b.id);
                }
                put(round).await;
                if round == ROUNDS - 1 {
                    world.network.connect(a.id, b.id);
                }
            }
        };
        let ids: Vec<_> = (0..EACH).collect();
        let owned: Vec<_> = (0..EACH).map(|id| (a.device, id)).collect();
        // Reads all records of a model, and returns the round that they are of.
        let look = async |model: u32| match model {
            0 => {
                let notes = b.get_many::<Note>(&ids).await.unwrap();
                one_round(notes.into_iter().map(|note| Some(note?.text.parse().unwrap())))
            }
            1 => {
                let baskets = b.get_many::<Basket>(&ids).await.unwrap();
                one_round(baskets.into_iter().map(|basket| basket?.items.last().copied()))
            }
            _ => {
                let places = b.get_many::<Place>(&owned).await.unwrap();
                one_round(places.into_iter().map(|place| Some(place?.text.parse().unwrap())))
            }
        };
        let read = async {
            let (mut last, mut seen) = (0, 0);
            while last < ROUNDS {
                // A later look at any model must show the same round or a later one.
                for model in [0, 1, 2, 1, 0, 2, 0] {
                    let round = look(model).await;
                    assert!(round >= last, "of round {round}, after a look at round {last}");
                    seen += u32::from(round > last);
                    last = round;
                }
                world.settle_or_pass().await;
            }
            seen
        };
        let ((), seen) = join(write, read).await;
        if seen <= 1 {
            // The scheduler of the machine decides that, not the store.
            println!("the machine gave the reader no turn beside the writer: this run has seen nothing");
        }
        world.converged(&[&a, &b]).await;
        world.assert_equal(&mut [&mut a, &mut b]).await;
    })
    .await;
}

/// The round of all these records, which must have the same one.
fn one_round(rounds: impl Iterator<Item = Option<u32>>) -> u32 {
    let rounds: Vec<_> = rounds.collect();
    assert!(rounds.windows(2).all(|pair| pair[0] == pair[1]), "a part of a batch shows: {rounds:?}");
    rounds.into_iter().next().flatten().unwrap_or(0)
}
