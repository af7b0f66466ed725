//! Has the oracle judge the stores that were written.

use std::collections::BTreeMap;

use futures::executor::block_on;
use syncline::ReplicaId;
use syncline::internals::{MARKS, history};

use super::World;
use super::processes::Process;
use crate::sim::plan::REPLICAS_MAX;
use crate::sim::{Failure, fail};

impl World {
    /// Judges every store that was written since it was judged last, and is due or is to be judged in any case. The oracle
    /// learns the commits of all of them first, since one may have what another has just committed. A restored store may
    /// lack what it had.
    pub(super) fn judge(&mut self, in_any_case: bool) -> Result<(), Failure> {
        let now = self.timeline.now_ms();
        let in_a_crowd = self.plan.replicas > REPLICAS_MAX;
        for process in &mut self.processes {
            // What is in a damaged store was learned when it was written, and is not read again.
            if process.has_written() && (!process.rolled_back || process.revived) {
                self.oracle.borrow_mut().learn(process.id, &process.disk.image())?;
            }
        }
        for at in 0..self.processes.len() {
            let process = &mut self.processes[at];
            if process.is_judged() || !in_any_case && !process.is_due(now, in_a_crowd) {
                continue;
            }
            let image = process.judging(now);
            if process.damaged {
                continue;
            }
            let view = self.oracle.borrow().judge(process.id, &image)?;
            if process.rolled_back {
                continue;
            }
            let heads = view.heads.iter().map(|(stream, (seq, _))| (*stream, *seq)).collect();
            let before = std::mem::replace(&mut process.judged_heads, heads);
            let lost = before.iter().find(|(stream, seq)| process.judged_heads.get(*stream) < Some(*seq));
            if let Some((stream, seq)) = lost {
                let detail = format!("{} had {stream} up to {seq}", process.id);
                return fail("C14 what was seen stays", detail);
            }
            self.oracle.borrow_mut().has_reached(process.id, &before, &process.judged_heads);
            self.oracle.borrow_mut().deletes.see(process.id, &view.records);
            process.to_compare.set(true);
            self.note_kinds(at, &view);
            self.processes[at].records = view.records;
        }
        let is_judged = |id| {
            self.processes.iter().any(|process| process.id == id && process.is_sound() && process.is_judged())
        };
        self.oracle.borrow_mut().deletes.judge(is_judged)?;
        self.hear()
    }

    /// Describes every process, for the message of a failure.
    pub(super) fn explain(&self) -> String {
        let mut lines = Vec::new();
        for process in &self.processes {
            let heads = stored_heads(process);
            let heads: Vec<_> = heads.iter().map(|(id, seq)| format!("{:x}:{seq}", id.0.as_u128())).collect();
            let Process { running, lost, rolled_back, damaged, .. } = process;
            let added = process.added.get();
            let id = process.id.0.as_u128();
            lines.push(format!(
                "{id:x}: {} running {running} lost {lost} restored {rolled_back} damaged {damaged} added {added}",
                heads.join(" ")
            ));
        }
        let happened = (0..).zip(MARKS).filter(|(bit, _)| self.marks.get() >> bit & 1 == 1);
        lines.push(happened.map(|(_, mark)| mark).collect::<Vec<_>>().join(", "));
        lines.join("\n")
    }
}

/// The head of each stream in the store of a process; none if the store cannot be read.
pub(super) fn stored_heads(process: &Process) -> BTreeMap<ReplicaId, u64> {
    let heads = block_on(history::heads(&process.disk.image())).unwrap_or_default();
    heads.into_iter().map(|(stream, seq, _)| (stream, seq)).collect()
}
