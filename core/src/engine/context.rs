//! What a replica is and under which caps and rules it works: the same from the opening to the end.

use std::sync::Arc;

use crate::events::RecordKey;
use crate::ids::{GroupId, ReplicaId};
use crate::limits::Limits;
use crate::model::Registry;
use crate::storage::KeyRange;
use crate::stored::Identity;

use super::Rules;

/// What every machine may ask and none may change: the engine shares it, also with a write that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) identity: Identity,
    pub(crate) limits: Arc<Limits>,
    pub(crate) rules: Rules,
    pub(crate) models: Arc<Registry>,
    /// The projections and the records that they derive from: a write that changes one of these is a joined write.
    pub(crate) projected: Vec<(&'static str, KeyRange)>,
    /// Whether this replica was opened with a transport, so that others may need its log.
    pub(crate) networked: bool,
    /// Drawn at the opening. A peer that hears another session than before forgets what it took this replica to have.
    pub(crate) session: u64,
    /// Whether the engine checks what must always hold after every input. Tests and the simulator want that.
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
