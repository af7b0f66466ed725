//! A process whose disk is damaged: it harms nobody else, which the oracle sees at the others, and says what it cannot serve.

use super::World;
use super::judging::stored_heads;
use super::processes::Process;
use crate::sim::{Failure, fail};

impl World {
    /// A damaged replica that has commits of its own which nobody can get says so: that its log is damaged (C19), that
    /// they refuse it, or that it was restored: then it does not offer its own stream.
    pub(super) fn check_damaged(&mut self, at: usize) -> Result<(), Failure> {
        let id = self.processes[at].id;
        let own = stored_heads(&self.processes[at]).get(&id).copied().unwrap_or(0);
        let Some(status) = self.status_of(at)? else { return Ok(()) };
        // Those who do not know each other to be members do not talk.
        let hears = |other: &&Process| status.members.contains(&other.id) && other.knows(id);
        let whole = self.processes.iter().filter(|other| other.running && other.is_sound()).filter(hears);
        let got = whole.map(|other| stored_heads(other).get(&id).copied().unwrap_or(0)).max();
        // Others may also hold what is stamped too far ahead.
        let says = status.streams.iter().any(|stream| stream.damaged.is_some())
            || status.peers.iter().any(|peer| peer.refuses.is_some())
            || status.restored.is_some();
        // Where a stream has two histories, others may lack the other one and what rests on it, and say nothing.
        let oracle = self.oracle.borrow();
        let may_lack = |got: u64| oracle.fork_of(id).is_some() || oracle.rests_on_fork(id, got + 1);
        if got.is_some_and(|got| got < own && !may_lack(got)) && !says {
            let detail =
                format!("{id} has {own} commits, others have {got:?} of them, and no damage is told of");
            return fail("C19 damage is said", detail);
        }
        Ok(())
    }
}
