//! Models and schemas that an app does not know yet: their values are kept, relayed, and merged once the app knows
//! them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syncline::{BoxError, Builder, Error, Event, Storage, Syncable};
use syncline_backends::MemoryNetworkBuilder;

use super::contents::{Contents, all};
use super::peer::{Peer, Store, all_models, replica_id};
use super::world::{GROUP, World, play_on};
use crate::Fixture;
use crate::models::{Basket, Note, Place, basket, note};
use crate::replica::app::drain;

/// The app before it knew notes and baskets.
fn only_places<S: Storage>(builder: Builder<S>) -> Builder<S> {
    builder.model::<Place>()
}

/// The app of the next version: notes are longer, baskets have a colour.
fn next_version<S: Storage>(builder: Builder<S>) -> Builder<S> {
    builder.model::<Place>().model::<NextNote>().model::<NextBasket>()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "note", schema = 2, migrate = note_of_before)]
struct NextNote {
    #[sync(id)]
    id: u32,
    text: String,
    starred: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "basket", schema = 2, migrate = basket_of_before, merge = united)]
struct NextBasket {
    #[sync(id)]
    id: u32,
    items: BTreeSet<u32>,
    colour: u8,
}

fn note_of_before(_: u16, value: &[u8]) -> Result<NextNote, BoxError> {
    let Note { id, text } = syncline::decode(value)?;
    Ok(NextNote { id, text, starred: false })
}

fn basket_of_before(_: u16, value: &[u8]) -> Result<NextBasket, BoxError> {
    let Basket { id, items } = syncline::decode(value)?;
    Ok(NextBasket { id, items, colour: 0 })
}

fn united(mut one: NextBasket, other: NextBasket) -> NextBasket {
    one.items.extend(other.items);
    one.colour = one.colour.max(other.colour);
    one
}

fn next_basket(id: u32, items: impl IntoIterator<Item = u32>, colour: u8) -> NextBasket {
    NextBasket { id, items: items.into_iter().collect(), colour }
}

/// Two authors and a replica that knows all models, each connected with `relay` alone.
struct Cast<F: Fixture> {
    one: Peer<F>,
    other: Peer<F>,
    relay: Peer<F>,
    knows: Peer<F>,
}

async fn cast<F: Fixture>(
    world: &World<'_, F>,
    authors: impl Fn(Builder<Store<F>>) -> Builder<Store<F>>,
    relays: impl Fn(Builder<Store<F>>) -> Builder<Store<F>>,
    knowing: impl Fn(Builder<Store<F>>) -> Builder<Store<F>>,
) -> Cast<F> {
    for n in [1, 2, 3] {
        world.network.connect(replica_id(0), replica_id(n));
    }
    let (mut relay, mut one, mut other, mut knows) =
        (world.device(0), world.device(1), world.device(2), world.device(3));
    relay.open(world, |builder| relays(builder).found(GROUP)).await.unwrap();
    one.open(world, |builder| authors(builder).join(GROUP, relay.id)).await.unwrap();
    other.open(world, |builder| authors(builder).join(GROUP, relay.id)).await.unwrap();
    knows.open(world, |builder| knowing(builder).join(GROUP, relay.id)).await.unwrap();
    for peer in [&one, &other, &knows] {
        world.admit(peer, &relay).await;
    }
    world.converged(&[&one, &other, &relay, &knows]).await;
    Cast { one, other, relay, knows }
}

impl<F: Fixture> Cast<F> {
    fn cut(&self, world: &World<'_, F>) {
        world.network.disconnect(self.one.id, self.relay.id);
        world.network.disconnect(self.other.id, self.relay.id);
    }

    async fn mend(&self, world: &World<'_, F>) {
        world.network.connect(self.one.id, self.relay.id);
        world.network.connect(self.other.id, self.relay.id);
        world.converged(&[&self.one, &self.other, &self.relay, &self.knows]).await;
    }
}

/// Goal: a replica whose app does not know a model keeps and relays its records. Once the app knows it, they are the
/// same as at a replica that has always known it. Method: two authors put, merge and delete at once and put anew, over
/// a relay that knows neither model; then the relay is opened with both.
///
/// C16, I6.
pub async fn a_model_that_is_registered_later_is_as_if_known_from_the_start<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    play_on(fresh, MemoryNetworkBuilder::unconnected, async |world| {
        let mut cast = cast(world, all_models, only_places, all_models).await;
        let Cast { one, other, relay, .. } = &cast;
        for round in 0..3 {
            cast.cut(world);
            for (at, peer) in [(0, one), (1, other)] {
                for id in 0..6 {
                    world.clock.advance(3);
                    peer.commit(note(id, format!("{at} {round}"))).await.unwrap();
                    peer.commit(basket(id, [at * 100 + round])).await.unwrap();
                }
            }
            if round == 1 {
                one.delete::<Basket>(0).await.unwrap();
                other.delete::<Basket>(1).await.unwrap();
                one.delete::<Basket>(2).await.unwrap();
                other.delete::<Basket>(2).await.unwrap();
                one.delete::<Note>(0).await.unwrap();
                one.commit(basket(3, [77])).await.unwrap();
                one.delete::<Basket>(3).await.unwrap();
                one.commit(basket(3, [78])).await.unwrap();
            }
            let unknown = relay.get::<Note>(1).await;
            assert!(matches!(unknown, Err(Error::UnregisteredModel { .. })), "{unknown:?}");
            cast.mend(world).await;
        }
        let expected = Contents::of(&*cast.knows).await;
        assert_eq!(expected.notes.len(), 6);
        cast.relay.close(world).await;
        cast.relay.entries().await;
        cast.relay.reopen(world).await;
        assert_eq!(Contents::of(&*cast.relay).await, expected);
        // From now on the relay commits too.
        cast.relay.commit(basket(4, [1_000])).await.unwrap();
        cast.one.commit(basket(4, [1_001])).await.unwrap();
        let Cast { mut one, mut other, mut relay, mut knows } = cast;
        world.converged(&[&one, &other, &relay, &knows]).await;
        world.assert_equal(&mut [&mut one, &mut other, &mut relay, &mut knows]).await;
    })
    .await;
}

/// Goal: a replica with an older version of the app keeps and relays the values of a newer one and refuses to write
/// over them. Once it is updated, it has the same records. Method: authors with the next version, and a relay with this
/// version that commits too.
///
/// C16, Y13.
pub async fn an_older_app_keeps_what_a_newer_one_writes<F: Fixture>(fresh: &impl Fn() -> F) {
    play_on(fresh, MemoryNetworkBuilder::unconnected, async |world| {
        let mut cast = cast(world, next_version, all_models, next_version).await;
        let Cast { one, other, relay, .. } = &cast;
        relay.commit(note(9, "of before")).await.unwrap();
        relay.commit(basket(0, [1])).await.unwrap();
        relay.commit(basket(9, [1])).await.unwrap();
        world.converged(&[one, other, relay]).await;
        for round in 0..3_u8 {
            cast.cut(world);
            for (at, peer) in [(0, one), (1, other)] {
                world.clock.advance(3);
                let starred = NextNote { id: 1, text: format!("{at} {round}"), starred: true };
                peer.commit(starred).await.unwrap();
                for id in 0..3 {
                    let item = u32::from(at) * 100 + u32::from(round) + 10;
                    peer.commit(next_basket(id, [item], 3 * round + at)).await.unwrap();
                }
            }
            if round < 2 {
                // Two versions commit the same record while neither knows of the other's commit.
                relay.commit(basket(3 + u32::from(round), [500])).await.unwrap();
                one.commit(next_basket(3 + u32::from(round), [600], 9)).await.unwrap();
            }
            cast.mend(world).await;
        }
        let newer = relay.get::<Note>(1).await;
        assert!(matches!(newer, Err(Error::NewerSchema { stored: 2, known: 1, .. })), "{newer:?}");
        let over = relay.commit(note(1, "over it")).await;
        assert!(matches!(over, Err(Error::NewerSchema { .. })), "{over:?}");
        assert_eq!(relay.get::<Note>(9).await.unwrap(), Some(note(9, "of before")));

        let (notes, baskets) =
            (all::<NextNote, _>(&*cast.knows).await, all::<NextBasket, _>(&*cast.knows).await);
        assert_eq!((notes.len(), baskets.len()), (2, 6));
        assert_eq!(baskets[0], next_basket(0, [1, 10, 11, 12, 110, 111, 112], 7));
        assert_eq!(baskets[3], next_basket(3, [500, 600], 9));
        cast.relay.close(world).await;
        cast.relay.entries().await;
        cast.relay.open(world, next_version).await.unwrap();
        assert_eq!(all::<NextNote, _>(&*cast.relay).await, notes);
        assert_eq!(all::<NextBasket, _>(&*cast.relay).await, baskets);
        cast.relay.commit(next_basket(0, [2_000], 1)).await.unwrap();
        let all = [&cast.one, &cast.other, &cast.relay, &cast.knows];
        world.converged(&all).await;
        for peer in all {
            let found = peer.get::<NextBasket>(0).await.unwrap().unwrap();
            assert!(found.items.contains(&2_000) && found.items.contains(&112), "{found:?}");
        }
        for mut peer in [cast.one, cast.other, cast.relay, cast.knows] {
            peer.close(world).await;
            peer.entries().await;
        }
    })
    .await;
}

/// Goal: after an update of the app, values that it can merge now are read merged at once, before any of them is folded
/// into its record, and a store that is closed before is whole. Method: a relay without the model receives values; it is
/// opened with the model, while its driver stands still.
///
/// C16, I6.
pub async fn what_an_update_can_merge_is_read_at_once_and_folded_later<F: Fixture>(fresh: &impl Fn() -> F) {
    const RECORDS: u32 = 300;
    play_on(fresh, MemoryNetworkBuilder::unconnected, async |world| {
        let mut cast = cast(world, all_models, only_places, all_models).await;
        cast.cut(world);
        for (at, peer) in [(1, &cast.one), (2, &cast.other)] {
            world.clock.advance(3);
            let put = peer.commit_batch(|batch| {
                (0..RECORDS).try_for_each(|id| batch.put(&basket(id, [at])))?;
                Ok(())
            });
            put.await.unwrap();
        }
        cast.mend(world).await;
        let expected = all::<Basket, _>(&*cast.knows).await;
        assert_eq!(expected[7], basket(7, [1, 2]));
        cast.relay.close(world).await;
        for stops in [true, false] {
            cast.relay.pause();
            cast.relay.open(world, all_models).await.unwrap();
            let relay = &cast.relay;
            assert_eq!(all::<Basket, _>(&**relay).await, expected, "before the driver does anything");
            let ids: Vec<_> = (0..RECORDS).collect();
            let many = relay.get_many::<Basket>(&ids).await.unwrap();
            assert_eq!(many.into_iter().flatten().collect::<Vec<_>>(), expected);
            assert_eq!(relay.get::<Basket>(7).await.unwrap().as_ref(), Some(&expected[7]));
            let mut events = relay.events();
            if stops {
                cast.relay.kill(world).await;
                cast.relay.entries().await;
                continue;
            }
            relay.go_on().await;
            world
                .until("everything is folded", async || relay.status().await.unwrap().folded.is_none())
                .await;
            assert_eq!(all::<Basket, _>(&**relay).await, expected);
            let told = drain(&mut events).await;
            let changes = told.iter().filter(|event| matches!(event, Event::Changed(_))).count();
            assert_eq!(changes, 0, "nothing that can be read has changed");
            let complete = told.iter().filter(|event| matches!(event, Event::Folding { complete: true, .. }));
            assert_eq!(complete.count(), 1, "{told:?}");
        }
        let Cast { mut one, mut other, mut relay, mut knows } = cast;
        world.converged(&[&one, &other, &relay, &knows]).await;
        world.assert_equal(&mut [&mut one, &mut other, &mut relay, &mut knows]).await;
    })
    .await;
}
