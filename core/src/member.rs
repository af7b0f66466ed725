//! The built-in model of members: the replicas of the group, replicated like every other record.
//!
//! Member records are merged, not overwritten: a state only moves on, and if two members ever add the same replica on
//! different devices, every replica settles for the same device. A device that was wrong is put right by a record with
//! one correction more, which wins everywhere.

use std::cmp::Reverse;

use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, ReplicaId};
use crate::syncable::{Shared, Syncable};

/// The beginning of the names of the library's own models. An app's model must not have it.
pub(crate) const RESERVED_PREFIX: &str = "syncline.";

/// A replica of the group and the device it runs on. An app reads it like any model; the library alone commits it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// The device it runs on.
    pub device: DeviceId,
    /// How many times the device was put right, since the replica had been added on a wrong one.
    pub corrections: u32,
    /// Whether the replica belongs to the group now.
    pub state: MemberState,
}

/// Whether a replica belongs to the group. A state only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MemberState {
    /// The replica belongs to the group: its commits are taken, and it is served.
    Active,
    /// A state of a newer version, with its number. It comes after the states that this version knows, and the replica
    /// counts as active at least: its commits are taken, and it is waited for.
    #[non_exhaustive]
    Newer(u8),
}

const ACTIVE: u8 = 0;

impl Serialize for MemberState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::Active => ACTIVE,
            Self::Newer(state) => *state,
        })
    }
}

impl<'de> Deserialize<'de> for MemberState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Keep the number of a state that is not known: a merge must be the same at every version.
        Ok(match u8::deserialize(deserializer)? {
            ACTIVE => Self::Active,
            state => Self::Newer(state),
        })
    }
}

impl Member {
    /// A replica that is added on a device.
    pub(crate) const fn new(replica: ReplicaId, device: DeviceId) -> Self {
        Self { replica, device, corrections: 0, state: MemberState::Active }
    }

    /// The same member, put right: on another device.
    pub(crate) fn corrected(&self, device: DeviceId) -> Self {
        Self { device, corrections: self.corrections.saturating_add(1), ..self.clone() }
    }
}

impl Syncable for Member {
    const SYNC_MODEL: &'static str = "syncline.member";
    type Id = ReplicaId;
    type Ownership = Shared;

    const OWN_MERGE: bool = true;

    fn sync_id(&self) -> ReplicaId {
        self.replica
    }

    fn merge(self, other: Self) -> Self {
        let state = self.state.max(other.state);
        let rank = |member: &Self| (member.corrections, Reverse(member.device));
        let last = if rank(&other) > rank(&self) { other } else { self };
        Self { state, ..last }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model;

    /// Goal: whatever the order in which the records of a replica arrive, all settle for one device, and a correction
    /// wins. Method: every triple of a few records, merged in every way.
    #[test]
    fn a_correction_wins_and_the_order_does_not_matter() {
        let device = |n| DeviceId(Uuid::from_u128(n));
        let added = |n| Member::new(ReplicaId(Uuid::from_u128(1)), device(n));
        assert_eq!(added(3).merge(added(2)), added(2), "two members added it at once");
        let records = [added(2), added(3), added(3).corrected(device(5)), added(2).corrected(device(4))];
        assert_eq!(
            added(2).merge(records[2].clone()).device,
            device(5),
            "also for a device above the first one"
        );
        for one in &records {
            assert_eq!(one.clone().merge(one.clone()), *one);
            for other in &records {
                let both = one.clone().merge(other.clone());
                assert_eq!(both, other.clone().merge(one.clone()));
                for third in &records {
                    let left = both.clone().merge(third.clone());
                    assert_eq!(left, one.clone().merge(other.clone().merge(third.clone())));
                }
            }
        }
    }
    /// Goal: a version that does not know a state neither refuses the record, nor undoes the state. Method: a byte of a
    /// later version, read, merged in both orders and written again.
    #[test]
    fn a_state_of_a_newer_version_is_kept_and_wins() {
        let active = Member::new(ReplicaId(Uuid::from_u128(1)), DeviceId(Uuid::from_u128(2)));
        let mut bytes = postcard::to_allocvec(&active).unwrap();
        assert_eq!(bytes.last(), Some(&ACTIVE));
        for state in [1, 7, 255] {
            *bytes.last_mut().unwrap() = state;
            let newer: Member = model::decode_bytes(&bytes).unwrap();
            assert_eq!(newer.state, MemberState::Newer(state));
            let merged = active.clone().merge(newer.clone());
            assert_eq!((&merged, &newer.merge(active.clone())), (&merged, &merged));
            assert_eq!(postcard::to_allocvec(&merged).unwrap(), bytes);
        }
        assert!(MemberState::Newer(1) < MemberState::Newer(2));
    }
}
