//! The models of the scenarios, and all that can be read of them.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Storage, Syncable, TransactionManager};

/// A shared record: the higher stamp wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "note")]
pub(super) struct Note {
    #[sync(id)]
    pub(super) id: u32,
    pub(super) text: String,
}

/// A record of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "place")]
pub(super) struct Place {
    #[sync(id)]
    pub(super) id: u32,
    pub(super) device_id: DeviceId,
    pub(super) text: String,
}

/// A shared record that is merged: what anybody put in is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "basket", merge = united)]
pub(super) struct Basket {
    #[sync(id)]
    pub(super) id: u32,
    pub(super) items: BTreeSet<u32>,
}

fn united(mut one: Basket, other: Basket) -> Basket {
    one.items.extend(other.items);
    one
}

pub(super) fn note(id: u32, text: impl Into<String>) -> Note {
    Note { id, text: text.into() }
}

pub(super) fn place(device_id: DeviceId, id: u32, text: impl Into<String>) -> Place {
    Place { id, device_id, text: text.into() }
}

pub(super) fn basket(id: u32, items: impl IntoIterator<Item = u32>) -> Basket {
    Basket { id, items: items.into_iter().collect() }
}

/// Everything that a replica shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) notes: Vec<Note>,
    pub(super) places: Vec<Place>,
    pub(super) baskets: Vec<Basket>,
}

impl Contents {
    pub(super) async fn of<S: Storage>(library: &TransactionManager<S>) -> Self {
        Self { notes: all(library).await, places: all(library).await, baskets: all(library).await }
    }
}

/// All records of a model.
pub(super) async fn all<M: Syncable, S: Storage>(library: &TransactionManager<S>) -> Vec<M> {
    library.list::<M>().page_size(1000).into_stream().try_collect().await.expect("the records can be read")
}
