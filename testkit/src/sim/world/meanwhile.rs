//! Pairs of replicas while others are cut off: two whose links are good have, within a bound, what the other
//! had, whatever happens elsewhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syncline::ReplicaId;

use super::World;
use crate::sim::plan::{Action, Step};
use crate::sim::{Failure, PEACE_MS, fail};

/// How often the heads are noted.
const EVERY_MS: u64 = 10_000;

/// The pairs of replicas that hear each other, and what each replica had a while ago.
#[derive(Default)]
pub(super) struct Meanwhile {
    /// Whether a clock is wrong in this run: then streams are held, and nothing is expected before the end.
    is_off: bool,
    /// The processes whose stores fail, or may.
    unwell: BTreeSet<usize>,
    /// The pairs that do not hear each other well, until all links are healed.
    apart: BTreeSet<(usize, usize)>,
    /// Since when each process and each pair is well; from the beginning, if it is not named.
    since: BTreeMap<(usize, usize), u64>,
    /// The heads of all processes, the oldest first, and when they were noted.
    noted: VecDeque<(u64, Vec<BTreeMap<ReplicaId, u64>>)>,
}

impl Meanwhile {
    pub(super) fn new(steps: &[Step]) -> Self {
        let is_off = steps.iter().any(|step| matches!(step.action, Action::Clock { .. }));
        Self { is_off, ..Self::default() }
    }

    /// Takes note of a step, which ends for a process or a pair the time that it was well.
    pub(super) fn take(&mut self, action: &Action, count: usize, now: u64) {
        let place = |at: u8| usize::from(at) % count;
        match action {
            Action::Commit { .. } | Action::Pair { .. } | Action::Join { .. } => {}
            Action::Large { .. } | Action::Many { .. } | Action::JoinThrough { .. } => {}
            Action::Joined { .. } | Action::Change { .. } | Action::Trouble { .. } => {}
            Action::Backup { .. } | Action::SlowSubscriber { .. } | Action::Clock { .. } => {}
            Action::Crash { at, .. }
            | Action::Stop { at, .. }
            | Action::Update { at, .. }
            | Action::Limits { at, .. } => {
                self.begins((place(*at), place(*at)), now);
            }
            Action::Pause { at, ms } => self.begins((place(*at), place(*at)), now + u64::from(*ms)),
            Action::Fault { at, .. }
            | Action::Full { at, .. }
            | Action::Slow { at, .. }
            | Action::SlowReads { at, .. }
            | Action::Flip { at, .. }
            | Action::Lose { at }
            | Action::Restore { at } => drop(self.unwell.insert(place(*at))),
            // It may take no effect, or its mask cuts the network in two.
            Action::Revive { at, mask } => {
                self.unwell.insert(place(*at));
                if *mask > 0 {
                    self.part(count);
                }
            }
            Action::Link { from, to, .. }
            | Action::Noise { from, to, .. }
            | Action::Late { from, to, .. } => {
                self.apart.insert(pair(place(*from), place(*to)));
            }
            Action::Disconnect { one, other }
            | Action::Flap { one, other, .. }
            | Action::Rate { one, other, .. } => {
                self.apart.insert(pair(place(*one), place(*other)));
            }
            Action::Partition { .. } => self.part(count),
            Action::Heal => {
                for pair in std::mem::take(&mut self.apart) {
                    self.begins(pair, now);
                }
            }
        }
    }

    /// Takes note that nobody may hear anybody.
    fn part(&mut self, count: usize) {
        self.apart.extend((0..count).flat_map(|one| (0..one).map(move |other| pair(one, other))));
    }

    fn begins(&mut self, who: (usize, usize), at: u64) {
        let since = self.since.entry(who).or_default();
        *since = at.max(*since);
    }

    /// Whether two processes are well, and hear each other, since then.
    fn are_well(&self, one: usize, other: usize, since: u64) -> bool {
        let is_since = |who| self.since.get(&who).is_none_or(|began| *began <= since);
        let ill = self.unwell.contains(&one) || self.unwell.contains(&other);
        let all = [(one, one), (other, other), pair(one, other)];
        !ill && !self.apart.contains(&pair(one, other)) && all.into_iter().all(is_since)
    }
}

const fn pair(one: usize, other: usize) -> (usize, usize) {
    if one < other { (one, other) } else { (other, one) }
}

impl World {
    /// Compares what replicas have with what others had, and notes what they have now (Y22).
    pub(super) fn look_meanwhile(&mut self) -> Result<(), Failure> {
        let now = self.timeline.now_ms();
        let is_soon = self.meanwhile.noted.back().is_some_and(|(at, _)| now < at + EVERY_MS);
        if self.meanwhile.is_off || self.peace || is_soon {
            return Ok(());
        }
        self.judge(true)?;
        for (at, process) in self.processes.iter().enumerate() {
            if !process.running {
                self.meanwhile.begins((at, at), now);
            }
            // A replica is served by those alone that it knows to be members, and is one as it knows itself.
            for (other, peer) in self.processes.iter().enumerate() {
                if !process.knows(peer.id) {
                    self.meanwhile.begins(pair(at, other), now);
                }
            }
        }
        self.meanwhile
            .noted
            .push_back((now, self.processes.iter().map(|one| one.judged_heads.clone()).collect()));
        // Look at the youngest heads that are old enough.
        while self.meanwhile.noted.get(1).is_some_and(|(at, _)| at + PEACE_MS <= now) {
            self.meanwhile.noted.pop_front();
        }
        let Some((then, heads)) = self.meanwhile.noted.front().filter(|(at, _)| at + PEACE_MS <= now) else {
            return Ok(());
        };
        let (then, mut late) = (*then, Vec::new());
        for (other, had) in heads.iter().enumerate() {
            for (one, process) in self.processes.iter().enumerate() {
                if one == other || !self.meanwhile.are_well(one, other, then) {
                    continue;
                }
                let lacks =
                    |(stream, seq): &(&ReplicaId, &u64)| process.judged_heads.get(stream) < Some(*seq);
                let lacked = had.iter().filter(|(_, seq)| **seq > 0).filter(lacks);
                late.extend(lacked.map(|(stream, seq)| (one, other, *stream, *seq)));
            }
        }
        for (one, other, stream, seq) in late {
            if self.find_unexcused(&[one], other, stream)?.is_some() {
                let (one, other) = (self.processes[one].id, self.processes[other].id);
                let detail = format!(
                    "{one} lacks commit {seq} of {stream}, which {other} had at {then} ms\n{}",
                    self.explain()
                );
                return fail("Y22 those who hear each other converge meanwhile", detail);
            }
        }
        Ok(())
    }
}
