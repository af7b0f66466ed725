//! Replicas that need not have the same commits: a stream has two histories, since its store was put back and its app went
//! on writing, or a commit is too large for some. Whoever has one history goes on with it, and with all that does not rest
//! on the other one.

use std::collections::BTreeSet;

use syncline::{ReplicaId, StreamStop};

use super::World;
use super::processes::Process;
use crate::sim::Failure;
use crate::sim::oracle::{Excuses, View};

impl World {
    /// Whether replicas have all that they can have, though not the same (Y15): a replica lacks a commit that another one has
    /// only if there is an excuse.
    pub(super) fn has_parted(&mut self, views: &[View]) -> Result<bool, Failure> {
        let excuses = self.excuses()?;
        let oracle = self.oracle.borrow();
        let streams: BTreeSet<ReplicaId> = views.iter().flat_map(|view| view.heads.keys().copied()).collect();
        let head = |view: &View, stream| view.heads.get(&stream).copied().unwrap_or_default();
        Ok(views.iter().all(|view| {
            let mut others = streams.iter().flat_map(|stream| views.iter().map(|other| (*stream, other)));
            others.all(|(stream, other)| {
                let (here, there) = (head(view, stream), head(other, stream));
                there.0 == 0
                    || there.0 < here.0
                    || here == there
                    || oracle.may_lack(view, other, stream, &excuses)
            })
        }))
    }

    /// The first of some replicas that has no excuse for lacking what another one has of a stream.
    pub(super) fn find_unexcused(
        &mut self,
        late: &[usize],
        of: usize,
        stream: ReplicaId,
    ) -> Result<Option<usize>, Failure> {
        if late.is_empty() {
            return Ok(None);
        }
        let excuses = self.excuses()?;
        let view = |at: usize| {
            let process = &self.processes[at];
            self.oracle.borrow().judge(process.id, &process.disk.image())
        };
        let has = view(of)?;
        for at in late {
            let lacks = view(*at)?;
            if !self.oracle.borrow().may_lack(&lacks, &has, stream, &excuses) {
                return Ok(Some(*at));
            }
        }
        Ok(None)
    }

    /// What excuses a replica that lacks a commit.
    pub(super) fn excuses(&mut self) -> Result<Excuses, Failure> {
        let mut excuses = Excuses::default();
        if self.limits_differ {
            let max = |process: &Process| (process.id, process.limits.value_bytes_max);
            excuses.value_bytes_max = self.processes.iter().map(max).collect();
        }
        for at in 0..self.processes.len() {
            let Some(revived) = self.processes.iter().find(|process| process.revived).map(|one| one.id)
            else {
                break;
            };
            let Some(status) = self.status_of(at)? else { continue };
            let mut streams = status.streams.iter().filter(|one| one.replica == revived);
            if streams.any(|one| matches!(one.stopped, Some(StreamStop::Forked { .. }))) {
                excuses.forked.insert((status.replica, revived));
                if status.joining.is_some() {
                    excuses.waiting.insert(status.replica);
                }
            }
        }
        Ok(excuses)
    }
}
