//! The record that every case stores, and the seeded generator of them.

use serde::{Deserialize, Serialize};
use syncline::{Syncable, Uuid};

use crate::Result;

/// The bytes of an item's data.
pub const DATA_BYTES: usize = 200;

/// A small record as apps have it: an id and some data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "item")]
pub struct Item {
    /// What names it.
    #[sync(id)]
    pub id: Uuid,
    /// What it holds. As bytes, which postcard copies whole; as a sequence it would visit each one.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// How the ids of new items follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Version 4: anywhere in the table.
    Random,
    /// Version 7: always at its end.
    TimeOrdered,
}

impl Ids {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Random, Self::TimeOrdered];

    /// How the table names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::TimeOrdered => "by time",
        }
    }
}

/// Makes items, the same ones in every run.
#[derive(Debug)]
pub struct Items {
    random: fastrand::Rng,
    ids: Ids,
    made: u64,
}

/// Some time in 2025, in milliseconds since 1970: where the time-ordered ids begin.
const FIRST_MS: u64 = 1_750_000_000_000;

impl Items {
    /// A generator that repeats itself for the same `seed`.
    #[must_use]
    pub fn new(ids: Ids, seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), ids, made: 0 }
    }

    /// The next `count` items.
    pub fn take(&mut self, count: usize) -> Vec<Item> {
        (0..count).map(|_| self.item()).collect()
    }

    /// A generator of others, which is no copy of this one.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self { random: self.random.fork(), ids: self.ids, made: self.made }
    }

    fn item(&mut self) -> Item {
        self.made += 1;
        let id = match self.ids {
            Ids::Random => {
                let mut bytes = [0; 16];
                self.random.fill(&mut bytes);
                syncline::uuid::Builder::from_random_bytes(bytes)
            }
            Ids::TimeOrdered => {
                let mut bytes = [0; 10];
                self.random.fill(&mut bytes);
                syncline::uuid::Builder::from_unix_timestamp_millis(FIRST_MS + self.made, &bytes)
            }
        };
        let mut data = vec![0; DATA_BYTES];
        self.random.fill(&mut data);
        Item { id: id.into_uuid(), data }
    }
}

/// An item as both sides store it.
///
/// # Errors
/// Those of postcard.
pub fn encode(item: &Item) -> Result<Vec<u8>> {
    Ok(postcard::to_extend(item, Vec::with_capacity(DATA_BYTES + 32))?)
}

/// Decodes where the bytes lie; only the item's own fields are copied.
///
/// # Errors
/// Those of postcard.
pub fn decode_in_place(bytes: &[u8]) -> Result<Item> {
    Ok(postcard::from_bytes(bytes)?)
}

/// Copies the bytes out of the engine, then decodes them.
///
/// # Errors
/// Those of postcard.
pub fn copy_out_and_decode(bytes: &[u8]) -> Result<Item> {
    let copy = bytes.to_vec();
    decode_in_place(&copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_the_same_items() {
        for ids in Ids::ALL {
            assert_eq!(Items::new(ids, 7).take(20), Items::new(ids, 7).take(20));
            assert_ne!(Items::new(ids, 7).take(20), Items::new(ids, 8).take(20));
        }
        assert!(Items::new(Ids::TimeOrdered, 7).take(100).is_sorted_by_key(|item| item.id));
    }

    #[test]
    fn an_item_comes_back_as_it_was() {
        for item in Items::new(Ids::Random, 7).take(3) {
            let bytes = encode(&item).unwrap();
            assert_eq!(bytes.len(), 1 + 16 + 2 + DATA_BYTES);
            assert_eq!(decode_in_place(&bytes).unwrap(), item);
            assert_eq!(copy_out_and_decode(&bytes).unwrap(), item);
        }
    }
}
