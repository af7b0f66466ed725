//! The models that the apps of all lists and of the simulator commit, defined once.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Syncable};

/// Defines a model of each kind. The caller names what their records hold: the simulator has to find out which commit
/// a value comes from and so needs numbers where a scenario is easier to read with texts.
macro_rules! models {
    ($content:ident: $Content:ty, $Merged:ident($merged:tt) of $items:ident: $Item:ty) => {
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

        /// A shared record with its own merge: everything that any replica put into it is in it.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
        #[sync(model = $merged, merge = Self::union)]
        pub(crate) struct $Merged {
            #[sync(id)]
            pub(crate) id: u32,
            pub(crate) $items: BTreeSet<$Item>,
        }

        impl $Merged {
            fn union(mut self, other: Self) -> Self {
                self.$items.extend(other.$items);
                self
            }
        }
    };
}

pub(crate) use models;

models!(text: String, Basket("basket") of items: u32);

pub(crate) fn note(id: u32, text: impl Into<String>) -> Note {
    Note { id, text: text.into() }
}

pub(crate) fn place(device_id: DeviceId, id: u32, text: impl Into<String>) -> Place {
    Place { id, device_id, text: text.into() }
}

pub(crate) fn basket(id: u32, items: impl IntoIterator<Item = u32>) -> Basket {
    Basket { id, items: items.into_iter().collect() }
}
