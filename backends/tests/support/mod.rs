//! What the tests of the stores share: a model, a seeded generator, and a medium that fails and loses power.

#[cfg(feature = "redb")]
pub(crate) mod crash_disk;
#[cfg(any(feature = "redb", feature = "sled", feature = "sqlite"))]
pub(crate) mod files;

use std::collections::BTreeMap;

use futures::executor::block_on;
use syncline::{Key, KeyRange, ScanLimit, Storage, Value, WriteBatch, WriteOp};

/// The entries that a store should have.
pub(crate) type Model = BTreeMap<Key, Value>;

/// The empty model, and the model after each of `batches`.
pub(crate) fn states(batches: &[WriteBatch]) -> Vec<Model> {
    let mut model = Model::new();
    let mut states = vec![model.clone()];
    for batch in batches {
        apply(&mut model, batch);
        states.push(model.clone());
    }
    states
}

pub(crate) fn apply(model: &mut Model, batch: &WriteBatch) {
    for op in batch.ops() {
        match op {
            WriteOp::Put { key, value } => drop(model.insert(key.clone(), value.clone())),
            WriteOp::Delete { key } => drop(model.remove(key)),
            WriteOp::DeleteRange { range } => model.retain(|key, _| !range.contains(key)),
        }
    }
}

/// All entries of `store`.
pub(crate) fn content(store: &impl Storage) -> Result<Model, syncline::ReadError> {
    let entries = block_on(store.scan(KeyRange::all(), ScanLimit::NONE))?.entries;
    Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
}

pub(crate) fn write(store: &impl Storage, batch: &WriteBatch) -> Result<(), syncline::WriteError> {
    block_on(store.write(batch.clone()))
}

pub(crate) fn put(key: &str, value: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    batch
}

/// SplitMix64, a small generator whose numbers never change with a version of a crate.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}
