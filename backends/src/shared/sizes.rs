//! The check of sizes before a write: an engine that meets a key or value that is too large in the middle of a write
//! could leave that write in doubt.

use syncline::{WriteBatch, WriteOp};

/// The largest keys and values that a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeLimits {
    pub(crate) key_bytes_max: u64,
    pub(crate) value_bytes_max: u64,
    /// The largest sum of a key and its value.
    pub(crate) pair_bytes_max: u64,
}

/// A key or value beyond what the store keeps.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key of {key_bytes} bytes with a value of {value_bytes} bytes is too large: a key may have {} bytes, \
     a value {}, both together {}",
    limits.key_bytes_max, limits.value_bytes_max, limits.pair_bytes_max
)]
pub(crate) struct TooLarge {
    key_bytes: u64,
    value_bytes: u64,
    limits: SizeLimits,
}

impl SizeLimits {
    /// Checks each key and value that `batch` puts. Deletions always pass: a key that is too large is not in the store.
    pub(crate) fn check(self, batch: &WriteBatch) -> Result<(), TooLarge> {
        batch.ops().iter().try_for_each(|op| match op {
            WriteOp::Put { key, value } => self.check_pair(key.len() as u64, value.len() as u64),
            WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => Ok(()),
        })
    }

    pub(crate) const fn check_pair(self, key_bytes: u64, value_bytes: u64) -> Result<(), TooLarge> {
        let fits = key_bytes <= self.key_bytes_max
            && value_bytes <= self.value_bytes_max
            && key_bytes.saturating_add(value_bytes) <= self.pair_bytes_max;
        if fits { Ok(()) } else { Err(TooLarge { key_bytes, value_bytes, limits: self }) }
    }
}
