//! The batches of the lists, by number, so that parent and child agree on them: each is drawn from the seed.

use std::fmt;
use std::str::FromStr;

use fastrand::Rng;
use syncline::{Key, KeyRange, StoreLimits, WriteBatch};

use super::Numbers;
use crate::sorted_map::{SortedMap, apply};
use crate::storage::samples::{mark, pattern};

/// A sequence of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) size: Size,
    /// What the store takes: every batch fits. Not in the text of a script: each child asks the store that it has opened.
    limits: StoreLimits,
}

/// How large the batches of a script are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Up to 14 operations: each puts a mark of its own, overwrites and deletes keys of earlier ones, and removes a range
    /// of old marks. Some values are as large as several pages.
    Small,
    /// From 14 operations to [`OPS_MAX`], and up to [`BYTES_MAX`]: each replaces the whole content of the store.
    Large,
}

/// The most operations of a batch that a replica writes.
const OPS_MAX: u32 = 1 << 16;
const _: () = assert!(OPS_MAX as usize == StoreLimits::CONTRACT.batch_ops);
/// The operations of large batches, in turn.
const LARGE_OPS: [u32; 6] = [14, 300, 3_000, 70, OPS_MAX, 1_000];
/// Enough for a batch to lie in thousands of pages, and for the lists to stay short.
const BYTES_MAX: usize = 4 << 20;
const VALUE_BYTES_MAX: usize = 1 << 20;
/// Marks older than so many batches are removed by a range.
const MARKS_KEPT: u32 = 24;

impl Script {
    /// How many batches in a row have all sizes of a script.
    #[allow(clippy::cast_possible_truncation, reason = "a handful")]
    pub(crate) const SIZES: u32 = LARGE_OPS.len() as u32;

    pub(crate) const fn new(seed: u64, size: Size) -> Self {
        Self { seed, size, limits: StoreLimits::CONTRACT }
    }

    /// The same sequence for a store with these limits.
    pub(crate) fn within(self, limits: StoreLimits) -> Self {
        let most = StoreLimits::CONTRACT;
        let limits = StoreLimits {
            key_bytes: limits.key_bytes.min(most.key_bytes),
            value_bytes: limits.value_bytes.min(most.value_bytes),
            batch_ops: limits.batch_ops.min(most.batch_ops),
            batch_bytes: limits.batch_bytes.min(most.batch_bytes),
        };
        Self { limits, ..self }
    }

    /// The operations of batch `number`, for those who wait for its write.
    pub(crate) fn ops(&self, number: u32) -> u32 {
        match self.size {
            Size::Small => 14,
            Size::Large => {
                let ops = LARGE_OPS[number as usize % LARGE_OPS.len()];
                u32::try_from(self.limits.batch_ops).map_or(ops, |most| ops.min(most))
            }
        }
    }

    pub(crate) fn batch(&self, number: u32) -> WriteBatch {
        let mut rng = Rng::with_seed(self.seed ^ u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        match self.size {
            Size::Small => small(number, self.limits, &mut rng),
            Size::Large => large(number, self.ops(number), self.limits, &mut rng),
        }
    }

    /// The state after these batches, and no others.
    pub(crate) fn state(&self, applied: &Numbers) -> SortedMap {
        let mut state = SortedMap::new();
        let needed = match self.size {
            Size::Small => &applied.0[..],
            // Each batch replaces everything before it.
            Size::Large => &applied.0[applied.0.len().saturating_sub(1)..],
        };
        for &number in needed {
            self.apply(&mut state, number);
        }
        state
    }

    pub(crate) fn apply(&self, state: &mut SortedMap, number: u32) {
        apply(state, self.batch(number).ops());
    }
}

fn small(number: u32, limits: StoreLimits, rng: &mut Rng) -> WriteBatch {
    const VALUE_BYTES: [usize; 8] = [0, 1, 9, 100, 100, 900, 4_096, 20_000];
    let mut batch = WriteBatch::new();
    batch.put(mark(number), number.to_be_bytes());
    if let Some(old) = number.checked_sub(MARKS_KEPT) {
        batch.delete_range(KeyRange::new(mark(0), mark(old)));
    }
    for _ in 0..rng.usize(..12) {
        let mut key = some_key(rng);
        key.truncate(limits.key_bytes);
        let len = VALUE_BYTES[rng.usize(..VALUE_BYTES.len())].min(limits.value_bytes);
        if batch.ops().len() == limits.batch_ops || batch.bytes() + 2 * key.len() + len > limits.batch_bytes {
            break;
        }
        match rng.u8(..8) {
            0 => batch.delete(key),
            1 => batch.delete_range(KeyRange::prefix(key)),
            _ => batch.put(key, pattern(len, salt(number))),
        }
    }
    batch
}

/// By which the values of one batch are told from those of others.
const fn salt(number: u32) -> u8 {
    number.to_be_bytes()[3]
}

/// A key of some dozens, so that batches overwrite each other's, some of them long.
fn some_key(rng: &mut Rng) -> Key {
    let mut key = format!("key/{:02}", rng.u8(..40)).into_bytes();
    if rng.u8(..4) == 0 {
        key.resize(200, b'x');
    }
    key
}

fn large(number: u32, ops: u32, limits: StoreLimits, rng: &mut Rng) -> WriteBatch {
    // The bytes of a key of this batch.
    const KEY_BYTES: usize = 12;
    let value_bytes_max = VALUE_BYTES_MAX.min(limits.value_bytes);
    let mut batch = WriteBatch::new();
    batch.delete_range(KeyRange::all());
    batch.put(mark(number), number.to_be_bytes());
    let for_values = limits.batch_bytes.saturating_sub(ops as usize * KEY_BYTES + batch.bytes());
    let mut bytes_left = BYTES_MAX.min(for_values);
    for op in 2..ops {
        let most = (bytes_left / (ops - op) as usize).min(value_bytes_max);
        // Most values are short; one in sixteen may have a good part of the room that is left.
        let len = match rng.u8(..16) {
            0 => rng.usize(..=(most * 4).min(value_bytes_max).min(bytes_left)),
            _ => rng.usize(..=most.min(200)),
        };
        bytes_left -= len;
        batch.put(format!("large/{:06}", op ^ (number % 64)), pattern(len, salt(number)));
    }
    batch
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self.size {
            Size::Small => "small",
            Size::Large => "large",
        };
        write!(f, "{} {size}", self.seed)
    }
}

impl FromStr for Script {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (seed, size) = text.split_once(' ').ok_or(())?;
        let size = match size {
            "small" => Size::Small,
            "large" => Size::Large,
            _ => return Err(()),
        };
        Ok(Self::new(seed.parse().map_err(drop)?, size))
    }
}

#[cfg(test)]
mod tests {
    use syncline::WriteOp;

    use super::*;

    /// Goal: a store is asked for no more than it declares, and for as much where it declares what the contract does. Method:
    /// batches of each size, for the contract and for less than a replica needs.
    #[test]
    fn batches_fit_the_limits_of_the_store() {
        let tight = StoreLimits { key_bytes: 100, value_bytes: 1_000, batch_ops: 14, batch_bytes: 10_000 };
        for limits in [tight, StoreLimits::CONTRACT] {
            for size in [Size::Small, Size::Large] {
                let script = Script::new(7, size).within(limits);
                for number in 1..=60 {
                    let batch = script.batch(number);
                    assert!(batch.ops().len() <= limits.batch_ops && batch.bytes() <= limits.batch_bytes);
                    for op in batch.ops() {
                        if let WriteOp::Put { key, value } = op {
                            assert!(key.len() <= limits.key_bytes && value.len() <= limits.value_bytes);
                        }
                    }
                }
            }
        }
        let largest = (1..=6).map(|number| Script::new(7, Size::Large).batch(number).ops().len()).max();
        assert_eq!(largest, Some(StoreLimits::CONTRACT.batch_ops));
    }
}
