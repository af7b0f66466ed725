//! The rows of a store: one keyspace, a first byte per kind, big-endian integers, and a format byte before the fields.
//!
//! | key | value |
//! |---|---|
//! | `01 "store"` | [`Identity`]: format version, group, device, replica |
//! | `01 "clock"` | [`Clock high-water`](clock_value): the highest stamp issued or seen |
//! | `01 "model" name` | [`ModelSeen`]: ownership, way of merging and newest schema of a model, as seen here |
//! | `01 "projection" name` | [`ProjectionRow`]: version, schema of its model, how far it is |
//! | `01 "introducer"` | the member from whom a joiner learns the group, until its own member record arrives |
//! | `01 "forgotten" name` | [the highest stamp](forgotten_value) of a tombstone of a model that was dropped here |
//! | `01 "install"` | [`InstallRow`]: how far a snapshot is that is being installed |
//! | `01 "fork" replica` | the stream has two histories; for the own stream: this store was restored or cloned |
//! | `02 replica` | [`Head`]: the stream's last commit here, and its floor |
//! | `03 replica` | [`Point`]s: how far a peer has acknowledged each stream |
//! | `10..70 model id`, `70..d0 model owner id` | [record](record): stamp, dot, schema, flags, value |
//! | `06 replica seq` | the digest before a commit, and the [`LogEntry`]: the commit as its author made it, each change as a reference |
//! | `07 replica seq record-key` | kept: a value that a log entry needs and that its record does not hold |
//! | `08 length record-key replica seq` | beside: a record whose value this version of the app cannot merge yet |
//! | `09 length name record-key` | debt: the error with which a projection could not take a record |
//! | `0a key` | stage: a head, a record or a value beside a record of a snapshot that is being installed |
//!
//! Model names carry their length, so no model's keys can run into another's. Shared and device-owned records
//! have first bytes of their own, so a key tells who may change the record without knowing the model. The model's name
//! picks one of these first bytes, so that a store can give each model a tree of its own.
//!
//! A record does not hold the digest of its value: the digest is in the log as long as it is needed, and can be
//! computed from the value. With values of 200 bytes the digests would be a sixth of the disk.

mod absent;
mod install;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod record;
mod rows;
#[cfg(test)]
mod vectors;

pub(crate) use absent::Pruned;
pub(crate) use install::{Counts, InstallRow, Phase};
pub(crate) use log::{Cause, LogEntry, Reference, ValueRef};
pub(crate) use rows::{
    ForkRow, Head, Identity, ModelSeen, Point, Progress, ProjectionRow, clock_from_value, clock_value,
    debt_from_value, debt_value, forgotten_from_value, forgotten_value, introducer_from_value,
    introducer_value, peer_from_value, peer_value,
};

/// The format byte, with which every stored value begins. A log row has it behind its digest, a kept value has none.
/// In [`Identity`] it is the version of the whole layout.
pub(crate) const FORMAT: u8 = 1;

/// A digest: a BLAKE3 hash.
pub(crate) type Digest = [u8; 32];

/// Computes the digest of a value.
pub(crate) fn digest(value: &[u8]) -> Digest {
    *blake3::hash(value).as_bytes()
}

/// Converts a length or a count to the integer that is stored and sent.
///
/// # Panics
/// If the length does not fit. A limit keeps lengths far below that, so one that does not fit is a mistake in this
/// library. It must not be written as another length: the row could never be read again.
#[allow(clippy::panic, reason = "a wrong length on disk or on the wire is worse than the end of the replica")]
pub(crate) fn length<N: TryFrom<usize>>(len: usize) -> N {
    N::try_from(len).unwrap_or_else(|_| {
        panic!("the length {len} has passed every limit and fits no {}", std::any::type_name::<N>())
    })
}

/// Stored bytes that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The row was written by another version of the library.
    #[error(
        "{what} has format {found}, this version reads format {known}; open the store with a newer version of the app, and if \
         none has written it, it is damaged"
    )]
    Version {
        /// The kind of the row.
        what: &'static str,
        /// The format of the row.
        found: u8,
        /// The format that this version reads.
        known: u8,
    },
    /// The row is damaged: cut short, too long or out of range.
    #[error(
        "{what} is damaged; `check_log` mends logs and values with what peers have, otherwise join with a new store; a backup \
         helps only a replica that never had a peer"
    )]
    Damaged {
        /// The kind of the row.
        what: &'static str,
    },
}

/// Reads the fields of one row, front to back.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads the format byte of `bytes`, a row of the kind `what`, and stands behind it.
    #[inline]
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut reader = Self::bare(what, bytes);
        match reader.byte()? {
            FORMAT => Ok(reader),
            found => Err(FormatError::Version { what, found, known: FORMAT }),
        }
    }

    /// Reads `bytes`, which begin with no format byte.
    #[inline]
    pub(crate) const fn bare(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    #[inline]
    pub(crate) fn damaged(&self) -> FormatError {
        FormatError::Damaged { what: self.what }
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(*array)
    }

    #[inline]
    pub(crate) fn slice(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (slice, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(slice)
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, FormatError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_be_bytes)
    }

    #[inline]
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Returns all bytes that are left.
    #[inline]
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Checks that no bytes are left.
    #[inline]
    pub(crate) fn end(self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged()) }
    }
}
