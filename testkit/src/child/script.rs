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
        Self { seed, size }
    }

    /// The operations of batch `number`, for those who wait for its write.
    pub(crate) fn ops(&self, number: u32) -> u32 {
        match self.size {
            Size::Small => 14,
            Size::Large => LARGE_OPS[number as usize % LARGE_OPS.len()],
        }
    }

    pub(crate) fn batch(&self, number: u32) -> WriteBatch {
        let mut rng = Rng::with_seed(self.seed ^ u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        match self.size {
            Size::Small => small(number, &mut rng),
            Size::Large => large(number, self.ops(number), &mut rng),
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

fn small(number: u32, rng: &mut Rng) -> WriteBatch {
    const VALUE_BYTES: [usize; 8] = [0, 1, 9, 100, 100, 900, 4_096, 20_000];
    let mut batch = WriteBatch::new();
    batch.put(mark(number), number.to_be_bytes());
    if let Some(old) = number.checked_sub(MARKS_KEPT) {
        batch.delete_range(KeyRange::new(mark(0), mark(old)));
    }
    for _ in 0..rng.usize(..12) {
        let key = some_key(rng);
        match rng.u8(..8) {
            0 => batch.delete(key),
            1 => batch.delete_range(KeyRange::prefix(key)),
            _ => batch.put(key, pattern(VALUE_BYTES[rng.usize(..VALUE_BYTES.len())], salt(number))),
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

fn large(number: u32, ops: u32, rng: &mut Rng) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.delete_range(KeyRange::all());
    batch.put(mark(number), number.to_be_bytes());
    let mut bytes_left = BYTES_MAX;
    for op in 2..ops {
        let most = (bytes_left / (ops - op) as usize).min(VALUE_BYTES_MAX);
        // Most values are short; one in sixteen may have a good part of the room that is left.
        let len = match rng.u8(..16) {
            0 => rng.usize(..=(most * 4).min(VALUE_BYTES_MAX).min(bytes_left)),
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
        Ok(Self { seed: seed.parse().map_err(drop)?, size })
    }
}
