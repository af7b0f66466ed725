//! A comparison of a place in a stream with the word of a peer.

use crate::ids::ReplicaId;
use crate::stored::{Point, keys, log};

use super::super::io::{Answer, Query};

/// A place in a stream, as a peer knows it. The log row behind the place says which digest the stream has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Check {
    pub(in crate::engine) peer: ReplicaId,
    pub(in crate::engine) stream: ReplicaId,
    pub(in crate::engine) point: Point,
}

impl Check {
    pub(in crate::engine) fn query(&self) -> Query {
        Query::Get(vec![keys::log(self.stream, self.point.seq.saturating_add(1))])
    }

    /// Whether the row shows that the stream has another history here than at the peer. A row that was pruned meanwhile,
    /// or that is damaged, shows nothing.
    pub(in crate::engine) fn differs(&self, found: &Answer) -> bool {
        let Answer::Values(values) = found else { return false };
        let Some(Some(row)) = values.first() else { return false };
        log::split_row(row).is_ok_and(|(previous, _)| previous != self.point.digest)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_a_row_with_another_digest_before_it_shows_another_history() {
        let place = Check {
            peer: ReplicaId(Uuid::from_u128(1)),
            stream: ReplicaId(Uuid::from_u128(2)),
            point: Point { seq: 4, digest: [7; 32] },
        };
        assert_eq!(place.query(), Query::Get(vec![keys::log(place.stream, 5)]));
        let row = |digest: [u8; 32]| Answer::Values(vec![Some(log::row(&digest, b"entry"))]);
        assert!(!place.differs(&row([7; 32])));
        assert!(place.differs(&row([8; 32])));
        assert!(!place.differs(&Answer::Values(vec![None])), "pruned");
        assert!(!place.differs(&Answer::Values(vec![Some(vec![1])])), "damaged");
    }
}
