//! A stream with two histories: its store was put back, and its app went on writing. Whoever has one of them goes on with it,
//! and with all that does not rest on the other one.

use std::collections::BTreeSet;

use syncline::{ReplicaId, StreamStop};

use super::World;
use crate::sim::Failure;
use crate::sim::oracle::View;

impl World {
    /// Whether replicas have all that they can have, though not the same (Y15): a replica lacks a commit that another one has
    /// only if that, or what it rests on, is of another history of a stream than what is here.
    pub(super) fn has_parted(&mut self, views: &[View]) -> Result<bool, Failure> {
        let Some(revived) = self.processes.iter().find(|process| process.revived).map(|process| process.id)
        else {
            return Ok(false);
        };
        let streams: BTreeSet<ReplicaId> = views.iter().flat_map(|view| view.heads.keys().copied()).collect();
        for view in views {
            for stream in &streams {
                let has = |view: &View| view.heads.get(stream).map_or(0, |(seq, _)| *seq);
                let is_behind = views.iter().any(|other| has(other) > has(view));
                if is_behind && self.oracle.borrow().can_go_on(view, *stream) == Some(true) {
                    // A stream with two histories is stopped where the other one was shown.
                    if *stream != revived || !self.is_forked(view.replica, revived)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Whether a replica says that a stream has two histories.
    fn is_forked(&mut self, replica: ReplicaId, stream: ReplicaId) -> Result<bool, Failure> {
        let at = self.processes.iter().position(|process| process.id == replica);
        let Some(status) = at.map(|at| self.status_of(at)).transpose()?.flatten() else { return Ok(false) };
        let mut streams = status.streams.iter();
        Ok(streams.any(|one| one.replica == stream && matches!(one.stopped, Some(StreamStop::Forked { .. }))))
    }
}
