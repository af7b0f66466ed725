//! The built-in model of members: the replicas of the group, replicated like every other record.
//!
//! Member records are merged, not overwritten: a state only moves on, and if two members add the same replica on
//! different devices, the first add counts everywhere. A device that was wrong is put right by an add with one correction
//! more, which wins everywhere.
//!
//! A record keeps all devices on which its replica was ever added. A commit is judged by what its author knew: it was made
//! on one of these devices, perhaps before its author heard that another one counts. So every replica takes it or refuses
//! it alike, whatever it has heard of since.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::hlc::Hlc;
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
    /// Time and counter of the stamp with which it was added on the device.
    pub(crate) added: u64,
    /// The other devices on which it was added, those that count before others first.
    pub(crate) others: Vec<Added>,
    /// Whether the replica belongs to the group now.
    pub state: MemberState,
}

/// One add of a replica on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Added {
    pub(crate) device: DeviceId,
    pub(crate) corrections: u32,
    pub(crate) added: u64,
}

impl Added {
    /// The order of adds: the one that counts is the least.
    fn rank(&self) -> (Reverse<u32>, u64, DeviceId) {
        (Reverse(self.corrections), self.added, self.device)
    }
}

/// The most devices that a record keeps. Those that count least are let go: their replica was put right that often since.
const DEVICES_MAX: usize = 16;

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
        Self { replica, device, corrections: 0, state: MemberState::Active, added: 0, others: Vec::new() }
    }

    /// The same, added with this stamp.
    pub(crate) fn at(self, stamp: Hlc) -> Self {
        Self { added: u64::from_be_bytes(stamp.time_bytes()), ..self }
    }

    /// The add that puts this member right: on another device.
    pub(crate) fn corrected(&self, device: DeviceId) -> Self {
        let corrections = self.corrections.saturating_add(1);
        Self { corrections, state: self.state, ..Self::new(self.replica, device) }
    }

    /// All adds of the member.
    fn adds(&self) -> impl Iterator<Item = Added> {
        let Self { device, corrections, added, .. } = *self;
        std::iter::once(Added { device, corrections, added }).chain(self.others.iter().copied())
    }

    /// Whether the member was ever added on a device: then it may have committed there.
    pub(crate) fn was_on(&self, device: DeviceId) -> bool {
        self.adds().any(|add| add.device == device)
    }

    /// Whether the record is one that a commit with this stamp can have.
    pub(crate) fn is_possible_at(&self, stamp: Hlc) -> bool {
        let adds: Vec<_> = self.adds().collect();
        let now = u64::from_be_bytes(stamp.time_bytes());
        adds.len() <= DEVICES_MAX
            && adds.iter().all(|add| add.added <= now)
            && adds.is_sorted_by(|one, other| one.rank() < other.rank())
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
        let mut adds: Vec<_> = self.adds().chain(other.adds()).collect();
        adds.sort_unstable_by_key(Added::rank);
        // Of two adds on one device the first in the order counts.
        let mut devices = BTreeSet::new();
        adds.retain(|add| devices.insert(add.device));
        adds.truncate(DEVICES_MAX);
        let mut adds = adds.into_iter();
        let Some(Added { device, corrections, added }) = adds.next() else { return self };
        Self { replica: self.replica, device, corrections, state, added, others: adds.collect() }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::clock::WallMs;
    use crate::model;

    fn device(n: u128) -> DeviceId {
        DeviceId(Uuid::from_u128(n))
    }

    /// An add of the replica on a device, at a time.
    fn added(n: u128, at: u64) -> Member {
        let stamp = Hlc::new(WallMs::new(at).unwrap(), 0, ReplicaId(Uuid::from_u128(9)));
        Member::new(ReplicaId(Uuid::from_u128(1)), device(n)).at(stamp)
    }

    /// Goal: whatever the order in which the records of a replica arrive, all settle for one device, the first one or the
    /// one that was put right most often, and know all others. Method: every triple of a few records, merged in every way.
    #[test]
    fn the_first_add_counts_and_a_correction_wins_and_the_order_does_not_matter() {
        assert_eq!(added(3, 1).merge(added(2, 2)).device, device(3), "the first one counts");
        assert_eq!(added(3, 1).merge(added(2, 1)).device, device(2), "all choose alike between two at once");
        let correction =
            |member: Member, n, at| Member { added: added(n, at).added, ..member.corrected(device(n)) };
        let records = [
            added(2, 1),
            added(3, 2),
            added(2, 3),
            correction(added(3, 2), 5, 4),
            correction(added(2, 1), 4, 5),
            correction(correction(added(2, 1), 4, 5), 2, 6),
            added(3, 2).merge(correction(added(2, 1), 4, 5)),
            Member { state: MemberState::Newer(3), ..added(7, 9) },
        ];
        assert_eq!(added(2, 1).merge(records[3].clone()).device, device(5), "also if it comes later");
        for one in &records {
            assert_eq!(one.clone().merge(one.clone()), *one);
            for other in &records {
                let both = one.clone().merge(other.clone());
                assert_eq!(both, other.clone().merge(one.clone()));
                assert!(both.is_possible_at(Hlc::new(WallMs::MAX, 0, one.replica)), "{both:?}");
                assert!(both.was_on(one.device) && both.was_on(other.device));
                for third in &records {
                    let left = both.clone().merge(third.clone());
                    assert_eq!(left, one.clone().merge(other.clone().merge(third.clone())));
                }
            }
        }
    }

    /// However often a replica is put right, its record does not grow for ever, and is the same in every order.
    #[test]
    fn a_record_keeps_the_devices_that_count_most() {
        let mut corrections = vec![added(100, 0)];
        for n in 0..40 {
            let next = corrections[corrections.len() - 1].corrected(device(n % 23));
            corrections.push(next);
        }
        let merge = |all: Vec<Member>| all.into_iter().reduce(Syncable::merge).unwrap();
        let merged = merge(corrections.clone());
        assert_eq!((merged.corrections, merged.adds().count()), (40, DEVICES_MAX));
        corrections.rotate_left(17);
        assert_eq!(merge(corrections.clone()), merged);
        corrections.reverse();
        assert_eq!(merge(corrections), merged);
    }

    #[test]
    fn a_record_is_refused_that_no_commit_can_have() {
        let stamp = |at| Hlc::new(WallMs::new(at).unwrap(), 0, ReplicaId(Uuid::from_u128(8)));
        let good = added(2, 5).merge(added(3, 6));
        assert!(
            good.is_possible_at(stamp(6)) && !good.is_possible_at(stamp(5)),
            "an add that is yet to come"
        );
        let swapped = Member { others: added(2, 5).adds().collect(), ..added(3, 6) };
        assert!(!swapped.is_possible_at(stamp(9)), "it says that the later add counts");
        let twice = Member { others: good.adds().collect(), ..good.clone() };
        assert!(!twice.is_possible_at(stamp(9)));
        let many = Member {
            others: (0..16).flat_map(|n| added(n, 7 + 1).adds().collect::<Vec<_>>()).collect(),
            ..good
        };
        assert!(!many.is_possible_at(stamp(9)));
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
