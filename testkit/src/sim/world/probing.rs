//! Probes of replicas that have converged and whose links are good: a commit is everywhere at once, and its author hears
//! so. Of a commit whose frame was lost they know from the next one, and of a lost pull after a while.

use syncline::{Limits, ReplicaId};
use syncline_backends::Link;

use super::World;
use super::judging::stored_heads;
use crate::sim::plan::Edit;
use crate::sim::time::EPOCH_MS;
use crate::sim::{Failure, fail};

/// How long a commit takes at most to be at all members, and their acknowledgements to be back.
const LIVE_MS: u64 = 1_000;

/// How long it takes at most until a commit that was lost is here, once its author says anything. A peer that is more than
/// a page behind is told of more every 2 s, and a pull whose answer was lost keeps others from being asked for 2.5 s.
const LOST_COMMIT_MS: u64 = 2_500 + LIVE_MS;

/// A lost pull is noticed within this time: 10 s and four round trips, of 5 s each as long as they are not measured. The
/// first pause after it is short.
const LOST_PULL_MS: u64 = 32_000;

/// The same where a slow link has been known to take 15 s.
const LOST_ON_A_SLOW_LINK_MS: u64 = 75_000;

/// How long the pulls of a replica are lost in a few runs: until the pauses between them are as long as they may be.
const SILENCE_MS: u64 = 25 * 60_000;

/// How long a replica takes at most to ask again after such a time: a pull that is being lost as it ends, the longest pause,
/// and the time for an answer.
const LONGEST_PAUSE_MS: u64 = LOST_ON_A_SLOW_LINK_MS + 80_000;

/// In one of so many runs.
const SILENCE_EVERY: u64 = 8;

/// How often they are looked at meanwhile.
const LOOK_MS: u64 = 100;

/// The record of a probe: no other commit changes it.
const PROBE: u32 = 1_000_003;

impl World {
    /// Lets one replica after the other commit, and lets frames to a second one be lost.
    pub(super) fn probe(&mut self) -> Result<(), Failure> {
        let honest = |at: &usize| {
            let process = &self.processes[*at];
            process.running && process.is_sound() && process.added.get()
        };
        let mut all: Vec<usize> = (0..self.processes.len()).filter(honest).collect();
        self.rng.shuffle(&mut all);
        let &[one, other, ..] = all.as_slice() else { return Ok(()) };
        // Those who lack the record of a member, which may be too large or of another history, do not talk to it.
        let knows = |at: usize, member: usize| self.processes[at].knows(self.processes[member].id);
        let know_each_other = |at: usize| [one, other].iter().all(|one| knows(at, *one) && knows(*one, at));
        all.retain(|at| know_each_other(*at));
        if !all.contains(&one) || !all.contains(&other) {
            return Ok(());
        }
        // Clocks that stand far ahead are within nobody's bound: what they stamp waits until somebody releases it.
        if self.is_any_far() {
            return Ok(());
        }
        self.commit_probe(one, &all)?;
        // A write that failed may have drawn a stamp far ahead, which shows only now.
        if self.is_any_far() {
            return Ok(());
        }
        let took_ms = self.expect_everywhere(one, &all, LIVE_MS, "Y21 a commit is told at once")?;
        self.run_until(self.timeline.now_ms() + LIVE_MS - took_ms)?;
        self.expect_acknowledged(one, &all)?;

        // The commit is lost on all ways: neither its author nor those who acknowledge it may tell of it.
        let to = self.processes[one].id;
        let rest: Vec<_> = self.processes.iter().map(|process| process.id).filter(|id| *id != to).collect();
        let deafen = |world: &Self, deaf| rest.iter().for_each(|id| world.block(*id, to, deaf));
        let silence = |world: &Self, silent| rest.iter().for_each(|id| world.block(to, *id, silent));
        deafen(self, true);
        self.commit_probe(other, &all)?;
        if self.is_any_far() {
            return Ok(());
        }
        self.run_until(self.timeline.now_ms() + LIVE_MS)?;
        deafen(self, false);
        self.commit_probe(other, &all)?;
        let took_ms =
            self.expect_everywhere(other, &all, LOST_COMMIT_MS, "Y21 a lost commit is asked for soon")?;
        self.run_until(self.timeline.now_ms() + LOST_COMMIT_MS - took_ms)?;

        deafen(self, true);
        self.commit_probe(other, &all)?;
        self.run_until(self.timeline.now_ms() + LIVE_MS)?;
        deafen(self, false);
        silence(self, true);
        self.commit_probe(other, &all)?;
        let long = self.plan.seed.is_multiple_of(SILENCE_EVERY);
        let soon_ms = if self.has_slow_links { LOST_ON_A_SLOW_LINK_MS } else { LOST_PULL_MS };
        let (lost_ms, within_ms) = if long { (SILENCE_MS, LONGEST_PAUSE_MS) } else { (LIVE_MS, soon_ms) };
        self.run_until(self.timeline.now_ms() + lost_ms)?;
        silence(self, false);
        let took_ms = self.expect_everywhere(other, &all, within_ms, "Y21 a lost pull is asked for again")?;
        self.lost_pull_ms = if long { 0 } else { took_ms };
        Ok(())
    }

    /// Whether a commit is stamped beyond the bound of the others.
    fn is_any_far(&self) -> bool {
        let bound = EPOCH_MS + self.timeline.now_ms() + Limits::default().max_drift_ms;
        self.oracle.borrow().latest_wall(u64::MAX) > bound
    }

    fn block(&self, from: ReplicaId, to: ReplicaId, blocked: bool) {
        self.network.set(from, to, Link { blocked, ..Link::default() });
    }

    fn commit_probe(&mut self, at: usize, all: &[usize]) -> Result<(), Failure> {
        let before = stored_heads(&self.processes[at]);
        if let Some(commit) = self.apps.commit(at, &self.processes[at], vec![Edit::Note(PROBE, true)]) {
            self.executor.spawn(Some(at), commit);
        }
        self.settle()?;
        let id = self.processes[at].id;
        if stored_heads(&self.processes[at]).get(&id) <= before.get(&id) {
            let detail = format!("{id} makes no commit, of {} replicas that agree", all.len());
            return fail("Y21 replicas that agree commit", detail);
        }
        Ok(())
    }

    /// All replicas have all commits of one of them within `ms`; returns after how long.
    fn expect_everywhere(
        &mut self,
        of: usize,
        all: &[usize],
        ms: u64,
        property: &'static str,
    ) -> Result<u64, Failure> {
        let id = self.processes[of].id;
        let commits = stored_heads(&self.processes[of]).get(&id).copied();
        let began = self.timeline.now_ms();
        let is_late =
            |world: &Self, at: usize| stored_heads(&world.processes[at]).get(&id).copied() < commits;
        while self.timeline.now_ms() < began + ms && all.iter().any(|at| is_late(self, *at)) {
            self.run_until(self.timeline.now_ms() + LOOK_MS)?;
        }
        let took_ms = self.timeline.now_ms() - began;
        let late: Vec<usize> = all.iter().copied().filter(|at| is_late(self, *at)).collect();
        let late = self.find_unexcused(&late, of, id)?;
        match late {
            Some(late) => {
                let late = self.processes[late].id;
                fail(property, format!("{late} lacks a commit of {id} after {ms} ms\n{}", self.explain()))
            }
            None => Ok(took_ms),
        }
    }

    /// One replica knows that all others have acknowledged all its commits (Y20).
    fn expect_acknowledged(&mut self, of: usize, all: &[usize]) -> Result<(), Failure> {
        let Some(status) = self.status_of(of)? else { return Ok(()) };
        let acknowledged = |at: &usize| {
            let id = self.processes[*at].id;
            status
                .peers
                .iter()
                .find(|peer| peer.replica == id)
                .map_or(status.commits, |peer| peer.acknowledged)
        };
        let late: Vec<usize> = all.iter().copied().filter(|at| acknowledged(at) < status.commits).collect();
        let late = self.find_unexcused(&late, of, status.replica)?.map(|at| self.processes[at].id);
        match late.and_then(|late| status.peers.iter().find(|peer| peer.replica == late)) {
            Some(late) => {
                let detail = format!(
                    "{} says that {} has acknowledged {} of {} commits",
                    status.replica, late.replica, late.acknowledged, status.commits
                );
                fail("Y20 an author hears of acknowledgements", detail)
            }
            None => Ok(()),
        }
    }
}
