//! The context: what a replica is, and under which limits and rules it works.
//!
//! Owns: identity, limits, rules, models, projections and the session. Holds always: nothing of it changes from the
//! opening to the end.

use std::sync::Arc;

use crate::events::RecordKey;
use crate::ids::{GroupId, ReplicaId};
use crate::limits::Limits;
use crate::model::Registry;
use crate::storage::KeyRange;
use crate::stored::Identity;

use super::Rules;

/// The facts that every machine may read and none may change. The engine shares them, also with a write that is under
/// way.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) identity: Identity,
    pub(crate) limits: Arc<Limits>,
    pub(crate) rules: Rules,
    pub(crate) models: Arc<Registry>,
    /// The ranges of records that projections derive from. A write that changes one of these records is a joined write.
    pub(crate) projected: Vec<KeyRange>,
    /// Whether this replica was opened with a transport, so that others may need its log.
    pub(crate) networked: bool,
    /// Drawn at the opening. A peer that hears a new session forgets what this replica had: its store may have lost it
    /// since.
    pub(crate) session: u64,
    /// Whether the engine asserts its invariants after every input, as tests and the simulator want.
    pub(crate) checked: bool,
}

impl Context {
    pub(crate) fn me(&self) -> ReplicaId {
        self.identity.replica
    }

    pub(crate) fn group(&self) -> GroupId {
        self.identity.group
    }

    pub(crate) fn is_projected(&self, record: &RecordKey) -> bool {
        self.projected.iter().any(|range| range.contains(record.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{context, note};

    use super::*;

    #[test]
    fn a_record_belongs_to_the_projections_whose_range_it_lies_in() {
        let all = KeyRange::prefix(note(0).into_bytes()[..6].to_vec());
        let one = KeyRange::prefix(note(1).into_bytes());
        let both = Context { projected: vec![all, one.clone()], ..context() };
        let single = Context { projected: vec![one], ..context() };
        for (record, by_both, by_single) in [
            (note(1), true, true),
            (note(2), true, false),
            (RecordKey::from_parts("tote", None, &[1]), false, false),
        ] {
            let projected = (both.is_projected(&record), single.is_projected(&record));
            assert_eq!(projected, (by_both, by_single), "{record}");
        }
    }
}
