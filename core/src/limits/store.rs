//! Lowers the limits of a replica to the sizes that its store takes, so that every write fits.

use crate::error::OpenError;
use crate::hlc::Hlc;
use crate::storage::StoreLimits;
use crate::stored::record::HEADER_LEN;
use crate::syncable::MODEL_BYTES_MAX;

use super::{ENTRY_CHANGE_BYTES, Limits};

/// The bytes of the longest key beside the id of its record: that of a debt, with the names of projection and model.
const KEY_AROUND: usize = 2 + MODEL_BYTES_MAX + RECORD_KEY_AROUND + 1;
/// The bytes of the key of a record beside its id, with the longest name of a model and an owner.
const RECORD_KEY_AROUND: usize = 2 + MODEL_BYTES_MAX + 16;
/// The bytes of a record or a log row beside its value or its changes and causes.
const VALUE_AROUND: usize = HEADER_LEN + Hlc::LEN + 64;
/// The bytes of a cause in a log row.
const CAUSE_BYTES: usize = 32;
/// The bytes that a peer's row has for each stream.
const ACKED_BYTES: usize = 56;
/// The most operations of a change: its record, and two ranges that are deleted, or a value beside it. Values that are
/// kept go [ahead](crate::in_pieces) if there is no room for them.
const CHANGE_OPS: usize = 3;
/// How often the id of a change stands in a write: in the keys of these operations, of which ranges have two, and in the
/// log row. One of them counts as a part of the commit.
const CHANGE_IDS: usize = 6;
/// The bytes of a change in a write beside its id and its value.
const CHANGE_BYTES: usize = CHANGE_IDS * (RECORD_KEY_AROUND + 32) + VALUE_AROUND + ENTRY_CHANGE_BYTES;
/// The operations of a write beside its commits, and beside the two rows that each member may have in it.
const OPS_AROUND: usize = 16;
/// The bytes of a commit in a write beside its changes: the key and the beginning of its log row, its head.
const COMMIT_BYTES: usize = 512;

/// The least sizes with which a store can hold a replica at all. Keys of 511 bytes are those of LMDB as it is usually built.
const LEAST: StoreLimits =
    StoreLimits { key_bytes: 511, value_bytes: 16 << 10, batch_ops: 1 << 10, batch_bytes: 1 << 20 };

impl Limits {
    /// These limits, lowered to what a store takes.
    ///
    /// # Errors
    /// [`OpenError::StoreTooSmall`] if the store takes so little that no replica fits into it.
    pub(crate) fn lowered(&self, location: &str, store: StoreLimits) -> Result<Self, OpenError> {
        let check = |name, takes: usize, least: usize| {
            let location = location.into();
            if takes >= least {
                Ok(())
            } else {
                Err(OpenError::StoreTooSmall { location, name, takes, least })
            }
        };
        check("key_bytes", store.key_bytes, LEAST.key_bytes)?;
        check("value_bytes", store.value_bytes, LEAST.value_bytes)?;
        check("batch_ops", store.batch_ops, LEAST.batch_ops)?;
        check("batch_bytes", store.batch_bytes, LEAST.batch_bytes)?;
        // All rows of peers may ride on one write.
        let peer_rows = |members: usize| members.saturating_mul(members).saturating_mul(ACKED_BYTES);
        let members_max = self
            .members_max
            .min(store.value_bytes / 2 / ACKED_BYTES)
            .min((store.batch_bytes / 8 / ACKED_BYTES).isqrt())
            .min(store.batch_ops / 8);
        let causes = members_max.saturating_mul(CAUSE_BYTES);
        let entry_bytes_max = self.entry_bytes_max.min(store.value_bytes - VALUE_AROUND - causes);
        let id_bytes_max = self
            .id_bytes_max
            .min(store.key_bytes - KEY_AROUND)
            .min(entry_bytes_max.saturating_sub(ENTRY_CHANGE_BYTES + MODEL_BYTES_MAX));
        let ops = store.batch_ops - 2 * members_max - OPS_AROUND;
        let round_commits_max = self.round_commits_max.min(ops / (CHANGE_OPS + 1)).max(1);
        let bytes = store.batch_bytes - peer_rows(members_max);
        let round_commits_max = round_commits_max.min(bytes / 8 / COMMIT_BYTES).max(1);
        let commits = round_commits_max.saturating_mul(COMMIT_BYTES) + causes;
        // A half for what is around the changes, and a half for their ids and values.
        let bytes = bytes.saturating_sub(commits);
        let commit_changes_max = self
            .commit_changes_max
            .min((ops - round_commits_max) / CHANGE_OPS)
            .min(bytes / 4 / CHANGE_BYTES)
            .max(1);
        let bytes = bytes - commit_changes_max * CHANGE_BYTES;
        let commit_bytes_max =
            self.commit_bytes_max.min(bytes_of_commit(bytes, commit_changes_max, id_bytes_max));
        let value_bytes_max =
            self.value_bytes_max.min(store.value_bytes - VALUE_AROUND).min(commit_bytes_max);
        Ok(Self {
            id_bytes_max,
            value_bytes_max,
            entry_bytes_max,
            commit_changes_max,
            commit_bytes_max,
            round_commits_max,
            members_max,
            ..self.clone()
        })
    }
}

/// The most bytes of ids and values of a commit for which there is room in so many bytes of a write, where its ids stand
/// [`CHANGE_IDS`] times.
const fn bytes_of_commit(room: usize, changes: usize, id_bytes_max: usize) -> usize {
    let ids = changes.saturating_mul(id_bytes_max).saturating_mul(CHANGE_IDS - 1);
    let (with_long_ids, with_all_ids) = (room.saturating_sub(ids), room / CHANGE_IDS);
    if with_long_ids > with_all_ids { with_long_ids } else { with_all_ids }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The largest write that limits let through, by the same count as the doc of the constants.
    fn largest_write(limits: &Limits) -> (usize, usize) {
        let members = limits.members_max;
        let ops =
            limits.commit_changes_max * CHANGE_OPS + limits.round_commits_max + 2 * members + OPS_AROUND;
        let ids = limits.commit_bytes_max.min(limits.commit_changes_max * limits.id_bytes_max);
        let bytes = limits.commit_bytes_max
            + ids * (CHANGE_IDS - 1)
            + limits.commit_changes_max * CHANGE_BYTES
            + limits.round_commits_max * COMMIT_BYTES
            + members * CAUSE_BYTES
            + members * members * ACKED_BYTES;
        (ops, bytes)
    }

    /// The contract is made for the default limits: a store that says nothing lowers none of them.
    #[test]
    fn the_default_limits_fit_the_contract() {
        let default = Limits::default();
        assert_eq!(default.lowered("", StoreLimits::CONTRACT).unwrap(), default);
        assert_eq!(default.lowered("", StoreLimits::NONE).unwrap(), default);
        let (ops, bytes) = largest_write(&default);
        assert!(ops <= StoreLimits::CONTRACT.batch_ops, "{ops}");
        assert!(bytes <= StoreLimits::CONTRACT.batch_bytes, "{bytes}");
    }

    #[test]
    fn a_store_that_takes_too_little_is_refused_by_name() {
        for (name, store) in [
            ("key_bytes", StoreLimits { key_bytes: LEAST.key_bytes - 1, ..StoreLimits::NONE }),
            ("value_bytes", StoreLimits { value_bytes: LEAST.value_bytes - 1, ..StoreLimits::NONE }),
            ("batch_ops", StoreLimits { batch_ops: LEAST.batch_ops - 1, ..StoreLimits::NONE }),
            ("batch_bytes", StoreLimits { batch_bytes: LEAST.batch_bytes - 1, ..StoreLimits::NONE }),
        ] {
            let error = Limits::default().lowered("here", store).unwrap_err().to_string();
            assert!(error.starts_with("here ") && error.contains(name), "{error}");
        }
        Limits::default().lowered("", LEAST).unwrap().check().unwrap();
    }

    fn up_from(least: usize) -> impl Strategy<Value = usize> {
        prop_oneof![Just(least), least..least * 100, Just(usize::MAX)]
    }

    prop_compose! {
        fn any_store()(
            key_bytes in up_from(LEAST.key_bytes),
            value_bytes in up_from(LEAST.value_bytes),
            batch_ops in up_from(LEAST.batch_ops),
            batch_bytes in up_from(LEAST.batch_bytes),
        ) -> StoreLimits {
            StoreLimits { key_bytes, value_bytes, batch_ops, batch_bytes }
        }
    }

    prop_compose! {
        /// Limits that may be far larger than any store takes.
        fn any_limits()(
            id_bytes_max in 1..=65_000_usize,
            value_bytes_max in 1..=16_usize << 20,
            commit_changes_max in 1..=65_536_usize,
            commit_bytes_max in 16_usize << 20..=64 << 20,
            round_commits_max in 1..=5_000_usize,
            members_max in 1..=4_096_usize,
        ) -> Limits {
            let entry_bytes_max = 64 << 20;
            let (queue_bytes_max, frame_bytes_max) = (200 << 20, 200 << 20);
            Limits {
                id_bytes_max, value_bytes_max, commit_changes_max, commit_bytes_max, round_commits_max,
                members_max, entry_bytes_max, queue_bytes_max, frame_bytes_max, ..Limits::default()
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_the_lowered_limits_let_through_fits_the_store(limits in any_limits(), store in any_store()) {
            prop_assume!(limits.check().is_ok());
            let lowered = limits.lowered("", store).unwrap();
            prop_assert!(lowered.check().is_ok(), "{:?}", lowered.check());
            let (ops, bytes) = largest_write(&lowered);
            prop_assert!(ops <= store.batch_ops, "{ops} operations");
            prop_assert!(bytes <= store.batch_bytes, "{bytes} bytes");
            prop_assert!(lowered.id_bytes_max + KEY_AROUND <= store.key_bytes);
            prop_assert!(lowered.value_bytes_max + VALUE_AROUND <= store.value_bytes);
            let row = lowered.entry_bytes_max + lowered.members_max * CAUSE_BYTES + VALUE_AROUND;
            prop_assert!(row <= store.value_bytes, "a log row of {row}");
            prop_assert!(lowered.members_max * ACKED_BYTES < store.value_bytes);
        }
    }
}
