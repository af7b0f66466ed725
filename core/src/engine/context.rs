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
    /// The projections, each with the range of records that it derives from. A write that changes one of these records
    /// is a joined write.
    pub(crate) projected: Vec<(&'static str, KeyRange)>,
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
        self.projected.iter().any(|(_, range)| range.contains(record.as_bytes()))
    }

    /// The projections that derive from any of these records.
    pub(crate) fn projections_of(&self, records: &[RecordKey]) -> Vec<&'static str> {
        let derives = |range: &KeyRange| records.iter().any(|record| range.contains(record.as_bytes()));
        self.projected.iter().filter(|(_, range)| derives(range)).map(|(name, _)| *name).collect()
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
        let context = Context { projected: vec![("all", all), ("one", one)], ..context() };
        let cases: [(&[u8], &[&str]); 4] =
            [(&[], &[]), (&[1], &["all", "one"]), (&[2], &["all"]), (&[2, 1], &["all", "one"])];
        for (ids, names) in cases {
            let records: Vec<_> = ids.iter().map(|id| note(*id)).collect();
            assert_eq!(context.projections_of(&records), names, "{ids:?}");
            let any = records.iter().any(|record| context.is_projected(record));
            assert_eq!(any, !names.is_empty());
        }
        let other = RecordKey::from_parts("tote", None, &[1]);
        assert!(!context.is_projected(&other) && context.projections_of(&[other]).is_empty());
    }
}
