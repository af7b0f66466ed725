//! Concurrent changes of one record end the same at all replicas, in every order of delivery.

use std::collections::BTreeSet;

use syncline::ReplicaId;

use super::contents::all;
use super::peer::{Peer, replica_id};
use super::world::{World, play, play_on};
use crate::Fixture;
use crate::models::{Basket, Note, Place, basket, note, place};

/// What a replica does to a record while it does not hear of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Update,
    Delete,
    Recreate,
}

const ACTS: [Act; 3] = [Act::Update, Act::Delete, Act::Recreate];

/// All orders of three.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// A record, with what each of three replicas does to it, and the order of their stamps.
#[derive(Debug)]
struct Case {
    id: u32,
    acts: [Act; 3],
    order: usize,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for order in 0..ORDERS.len() {
        for n in 0..27_usize {
            let acts = [ACTS[n % 3], ACTS[n / 3 % 3], ACTS[n / 9]];
            let id = u32::try_from(cases.len()).unwrap();
            cases.push(Case { id, acts, order });
        }
    }
    cases
}

impl Case {
    /// The note in the end: the last act wins.
    fn note(&self) -> Option<Note> {
        let last = ORDERS[self.order][2];
        (self.acts[last] != Act::Delete).then(|| note(self.id, format!("from {last}")))
    }

    /// The basket in the end: the last delete wins over every put that did not know of it, and leaves those that did.
    fn basket(&self) -> Option<Basket> {
        let mut deleters = ORDERS[self.order].into_iter().filter(|peer| self.acts[*peer] != Act::Update);
        match deleters.next_back() {
            None => Some(basket(self.id, [FIRST, 0, 1, 2])),
            Some(last) if self.acts[last] == Act::Delete => None,
            Some(last) => Some(basket(self.id, [u32::try_from(last).unwrap()])),
        }
    }
}

/// The item that every basket has from the start.
const FIRST: u32 = 100;

/// Lets three replicas act as the cases say. They are not connected, and their stamps are in the order of each case.
async fn act<F: Fixture>(world: &World<'_, F>, peers: [&Peer<F>; 3], cases: &[Case]) {
    for (order, sequence) in ORDERS.into_iter().enumerate() {
        for at in sequence {
            world.clock.advance(10);
            let (peer, item) = (peers[at], u32::try_from(at).unwrap());
            let cases = || cases.iter().filter(move |case| case.order == order);
            let delete = peer.commit_batch(|batch| {
                for case in cases().filter(|case| case.acts[at] != Act::Update) {
                    batch.delete::<Note>(case.id)?;
                    batch.delete::<Basket>(case.id)?;
                }
                Ok(())
            });
            delete.await.unwrap();
            let put = peer.commit_batch(|batch| {
                for case in cases().filter(|case| case.acts[at] != Act::Delete) {
                    batch.put(&note(case.id, format!("from {at}")))?;
                    batch.put(&basket(case.id, [item]))?;
                }
                Ok(())
            });
            put.await.unwrap();
        }
    }
}

/// Goal: three replicas that change one record at once agree, in every order of delivery and of stamps, for updates,
/// deletes and re-creations, with and without a merge of the model. Method: each combination has a record of its own;
/// the links come up in every order; afterwards all records are put anew.
///
/// C7, C8, C11, I6, I8.
pub async fn concurrent_changes_end_the_same_in_every_order<F: Fixture>(fresh: &impl Fn() -> F) {
    let cases = cases();
    for delivery in ORDERS {
        play(fresh, async |world| {
            let [mut a, mut b, mut c] = world.group().await;
            let links: [(ReplicaId, ReplicaId); 3] = [(a.id, b.id), (b.id, c.id), (c.id, a.id)];
            let first = a.commit_batch(|batch| {
                for case in &cases {
                    batch.put(&note(case.id, "first"))?;
                    batch.put(&basket(case.id, [FIRST]))?;
                }
                Ok(())
            });
            first.await.unwrap();
            world.converged(&[&a, &b, &c]).await;
            links.into_iter().for_each(|(one, other)| world.network.disconnect(one, other));
            act(world, [&a, &b, &c], &cases).await;
            for link in delivery {
                let (one, other) = links[link];
                world.network.connect(one, other);
                let pair: Vec<_> =
                    [&a, &b, &c].into_iter().filter(|p| [one, other].contains(&p.id)).collect();
                world.converged(&pair).await;
            }
            world.converged(&[&a, &b, &c]).await;
            for peer in [&a, &b, &c] {
                for case in &cases {
                    let found = (peer.get(case.id).await.unwrap(), peer.get(case.id).await.unwrap());
                    assert_eq!(found, (case.note(), case.basket()), "{case:?} at {}", peer.id);
                }
            }
            let anew = b.commit_batch(|batch| {
                for case in &cases {
                    batch.put(&note(case.id, "anew"))?;
                    batch.put(&basket(case.id, [FIRST + 1]))?;
                }
                Ok(())
            });
            anew.await.unwrap();
            world.converged(&[&a, &b, &c]).await;
            assert!(all::<Note, _>(&*a).await.iter().all(|note| note.text == "anew"));
            let baskets = all::<Basket, _>(&*c).await;
            assert_eq!(baskets.len(), cases.len());
            for (case, found) in cases.iter().zip(baskets) {
                let items = case.basket().map_or_else(BTreeSet::new, |basket| basket.items);
                assert_eq!(found, basket(case.id, items.into_iter().chain([FIRST + 1])), "{case:?}");
            }
            world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
        })
        .await;
    }
}

/// Goal: every log entry is served with exactly its bytes, also if its records have changed since. Method: two replicas
/// overwrite, merge, delete and put records anew, and some changes lose against a newer one as they arrive; then a
/// third replica gets everything from one of the two alone, and has the same history to the byte.
///
/// C1, Y3.
pub async fn a_late_joiner_gets_every_log_entry_whole<F: Fixture>(fresh: &impl Fn() -> F) {
    for from_author in [true, false] {
        play_on(fresh, syncline_backends::MemoryNetworkBuilder::unconnected, async |world| {
            world.network.connect(replica_id(0), replica_id(1));
            let mut a = world.found(0).await;
            let mut b = world.join(1, &a).await;
            for text in ["one", "two", "three"] {
                for id in 0..5 {
                    a.commit(note(id, text)).await.unwrap();
                    a.commit(place(a.device, id, text)).await.unwrap();
                }
            }
            for item in 0..3 {
                a.commit(basket(1, [item])).await.unwrap();
                b.commit(basket(1, [item + 10])).await.unwrap();
                a.commit(basket(2, [item])).await.unwrap();
                a.commit(basket(3, [item])).await.unwrap();
            }
            world.converged(&[&a, &b]).await;
            // These changes lose against a newer one as they arrive, are merged, or meet a delete.
            world.network.disconnect(a.id, b.id);
            for round in 0..3_u32 {
                for (peer, at) in [(&a, 0), (&b, 1)] {
                    world.clock.advance(7);
                    peer.commit(note(round, format!("beaten {at} {round}"))).await.unwrap();
                    peer.commit(note(9, format!("again {at} {round}"))).await.unwrap();
                    peer.commit(basket(1, [100 * (at + 1) + round])).await.unwrap();
                    peer.commit(basket(4, [100 * (at + 1) + round])).await.unwrap();
                }
            }
            a.delete::<Note>(4).await.unwrap();
            b.commit(note(4, "against a delete")).await.unwrap();
            b.delete::<Basket>(2).await.unwrap();
            a.commit(basket(2, [77])).await.unwrap();
            a.delete::<Basket>(3).await.unwrap();
            a.commit(basket(3, [88])).await.unwrap();
            a.delete::<Place>((a.device, 3)).await.unwrap();
            a.commit(place(a.device, 3, "anew")).await.unwrap();
            world.network.connect(a.id, b.id);
            world.converged(&[&a, &b]).await;

            let source = if from_author { &a } else { &b };
            world.network.connect(source.id, replica_id(2));
            let mut c = world.join(2, source).await;
            world.converged(&[&a, &b, &c]).await;
            world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
        })
        .await;
    }
}
