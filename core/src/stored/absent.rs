//! Records that the log names and that are not here: which of them were deleted and forgotten, and which are lost.
//!
//! A tombstone is dropped once its own log is gone. A log entry of another stream that the delete has beaten may be here longer.
//! So a record may be absent if some other stream was pruned here, and has a later commit than the entry.

use crate::hlc::Hlc;
use crate::ids::ReplicaId;

use super::Head;

/// The two pruned streams with the latest heads: a stream forgets no record that its own log still names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pruned([Option<Hlc>; 2]);

impl Pruned {
    pub(crate) fn of<'a>(heads: impl IntoIterator<Item = (&'a ReplicaId, &'a Head)>) -> Self {
        let mut pruned = Self::default();
        for (_, head) in heads.into_iter().filter(|(_, head)| head.floor > 0) {
            let Self([first, second]) = pruned;
            let stamp = Some(head.stamp);
            pruned.0 = if stamp > first { [stamp, first] } else { [first, second.max(stamp)] };
        }
        pruned
    }

    /// Whether a record may be absent that a commit with this stamp changed, in this epoch. Of a model with its own merge, a
    /// delete of a later epoch wins, whatever its stamp.
    pub(crate) fn may_lack(&self, stamp: Hlc, epoch: Option<Hlc>) -> bool {
        let deletes = |head: &Hlc| head.replica() != stamp.replica() && *head > epoch.unwrap_or(stamp);
        self.0.iter().flatten().any(deletes)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::clock::WallMs;
    use crate::ids::GroupId;

    const A: ReplicaId = ReplicaId(Uuid::from_u128(1));
    const B: ReplicaId = ReplicaId(Uuid::from_u128(2));
    const C: ReplicaId = ReplicaId(Uuid::from_u128(3));

    fn stamp(wall: u64, replica: ReplicaId) -> Hlc {
        Hlc::new(WallMs::new(wall).unwrap(), 0, replica)
    }

    #[test]
    fn a_record_is_absent_only_if_another_stream_may_have_deleted_it_and_was_pruned() {
        let head = |replica, wall, floor| {
            let head = Head::start(GroupId(Uuid::nil()), replica);
            (replica, Head { seq: 9, floor, stamp: stamp(wall, replica), ..head })
        };
        let cases = [
            (vec![head(A, 50, 0), head(B, 60, 0)], stamp(40, A), false, "nothing was pruned"),
            (
                vec![head(A, 50, 3), head(B, 60, 0)],
                stamp(40, A),
                false,
                "the log of a later delete of A is here",
            ),
            (vec![head(A, 50, 0), head(B, 60, 3)], stamp(40, A), true, "B may have deleted it"),
            (vec![head(A, 50, 0), head(B, 60, 3)], stamp(61, A), false, "it is later"),
            (vec![head(A, 70, 3), head(B, 60, 3), head(C, 50, 3)], stamp(55, A), true, "B, behind A"),
            (vec![head(C, 50, 3), head(B, 60, 3), head(A, 70, 3)], stamp(55, A), true, "in any order"),
            (vec![head(A, 70, 3), head(B, 60, 3), head(C, 65, 3)], stamp(62, A), true, "C"),
            (vec![head(A, 70, 3), head(B, 60, 3), head(C, 50, 3)], stamp(62, A), false, "none is later"),
        ];
        for (heads, stamp, absent, what) in cases {
            let pruned = Pruned::of(heads.iter().map(|(replica, head)| (replica, head)));
            assert_eq!(pruned.may_lack(stamp, None), absent, "{what}");
        }
    }

    /// A delete opens an epoch, which wins over puts of the one before, also over those with a later stamp.
    #[test]
    fn a_put_of_an_earlier_epoch_may_have_been_deleted_before_it_was_made() {
        let head = Head { seq: 9, floor: 9, stamp: stamp(50, B), ..Head::start(GroupId(Uuid::nil()), B) };
        let pruned = Pruned::of([(&B, &head)]);
        let lacks = |epoch| pruned.may_lack(stamp(60, A), epoch);
        assert!(lacks(Some(Hlc::NEVER)) && !lacks(Some(stamp(55, C))) && !lacks(None));
    }
}
