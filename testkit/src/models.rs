//! The models of all apps in this crate: those of the lists and those of the simulator.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Syncable};

/// Defines a model of each kind without a merge of its own. The caller says what the records hold: texts make a scenario
/// easy to read, the simulator needs numbers by which it finds the commit of a value.
macro_rules! models {
    ($content:ident: $Content:ty) => {
        /// A shared record: the higher stamp wins.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
        #[sync(model = "note")]
        pub(crate) struct Note {
            #[sync(id)]
            pub(crate) id: u32,
            pub(crate) $content: $Content,
        }

        /// A record of a device.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
        #[sync(model = "place")]
        pub(crate) struct Place {
            #[sync(id)]
            pub(crate) id: u32,
            pub(crate) device_id: DeviceId,
            pub(crate) $content: $Content,
        }
    };
}

pub(crate) use models;

models!(text: String);

/// A shared record with its own merge, the union of its items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "basket", merge = Self::union)]
pub(crate) struct Basket {
    #[sync(id)]
    pub(crate) id: u32,
    pub(crate) items: BTreeSet<u32>,
}

impl Basket {
    fn union(mut self, other: Self) -> Self {
        self.items.extend(other.items);
        self
    }
}

pub(crate) fn note(id: u32, text: impl Into<String>) -> Note {
    Note { id, text: text.into() }
}

pub(crate) fn place(device_id: DeviceId, id: u32, text: impl Into<String>) -> Place {
    Place { id, device_id, text: text.into() }
}

pub(crate) fn basket(id: u32, items: impl IntoIterator<Item = u32>) -> Basket {
    Basket { id, items: items.into_iter().collect() }
}
