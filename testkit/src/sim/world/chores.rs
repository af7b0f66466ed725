//! What a person would do now and then: add joiners, look at the statuses, release held streams.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures::executor::block_on;
use syncline::internals::{MARKS, history};
use syncline::{Limits, ReplicaId, Status, StreamStatus, StreamStop};

use super::processes::Process;
use super::{CHORES_MS, World};
use crate::sim::oracle::Oracle;
use crate::sim::plan::FAR_MS;
use crate::sim::store::SimDisk;
use crate::sim::time::EPOCH_MS;
use crate::sim::{Failure, fail};

impl World {
    /// Spawns a task for each running process that checks its status and, once the faults have ended, releases streams
    /// that are held for longer than the run lasts. Spawns another for each joiner that is not a member yet: a
    /// member adds it, again and again until that works.
    pub(super) fn do_chores(&mut self) {
        for at in 0..self.processes.len() {
            if let Some(manager) = self.manager(at) {
                let (marks, findings) = (Rc::clone(&self.marks), self.findings.clone());
                let timeline = self.timeline.clone();
                let (was_wrong, peace) = (Rc::clone(&self.processes[at].was_wrong), self.peace);
                let (disks, acks) = (self.disks(), self.acks.clone());
                let disk = self.processes[at].disk.clone();
                let oracle = Rc::clone(&self.oracle);
                let which =
                    |is: fn(&Process) -> bool| self.processes.iter().find(|one| is(one)).map(|one| one.id);
                let expected = Expected {
                    rolled_back: self.processes[at].rolled_back,
                    store_fails: !self.processes[at].is_sound(),
                    value_bytes_least: self
                        .limits_differ
                        .then(|| self.processes.iter().map(|one| (one.id, one.value_bytes_least)).collect()),
                    damaged: which(|one| one.damaged),
                    right_ms: None,
                };
                self.executor.spawn(Some(at), async move {
                    if let Ok(status) = manager.status().await {
                        marks.set(marks.get() | status.marks);
                        let right_ms = (!was_wrong.get()).then(|| EPOCH_MS + timeline.now_ms());
                        let store_fails = expected.store_fails || disk.has_failed();
                        let expected = Expected { right_ms, store_fails, ..expected };
                        if let Err(failure) = expected.check(&status, &oracle.borrow()) {
                            findings.report(failure);
                        }
                        if let Err(failure) = acks.check(&status, &disks) {
                            findings.report(failure);
                        }
                        let far = status.streams.iter().filter(|stream| peace && is_held_for_long(stream));
                        for stream in far {
                            // From here on the clock of this replica stands as far ahead as the stream.
                            was_wrong.set(true);
                            let _ = manager.release_held(stream.replica).await;
                        }
                    }
                });
            }
            self.introduce(at);
        }
    }

    /// Has a joiner that is not a member yet added by its introducer. Once that is lost, or is not sound any more, another
    /// member takes its place. A member whose adder is gone is added by all who do not know it.
    fn introduce(&mut self, at: usize) {
        let process = &self.processes[at];
        let Some(introducer) = process.introducer.filter(|_| process.starts > 0) else { return };
        if process.lost || !process.is_sound() {
            return;
        }
        let is_gone = |at: usize| self.processes[at].lost || !self.processes[at].is_sound();
        let others: Vec<_> = self.adders().into_iter().filter(|other| *other != at).collect();
        let knows = process.knows(process.id);
        if knows && (is_gone(introducer) || is_gone(process.added_by)) {
            let strangers = others.into_iter().filter(|other| !self.processes[*other].knows(process.id));
            let strangers: Vec<_> = strangers.collect();
            process.added.set(strangers.is_empty());
            strangers.into_iter().for_each(|stranger| self.add(stranger, at, false));
        } else if is_gone(introducer) {
            process.added.set(false);
            if let Some(next) = others.first() {
                self.kill(at);
                self.processes[at].introducer = Some(*next);
                self.processes[at].starts_at = Some(self.timeline.now_ms());
            }
        } else if !process.added.get() && self.adders().contains(&introducer) {
            self.add(introducer, at, true);
            self.add_by_another_too(introducer, at);
        }
    }

    /// In every other run, another member adds a joiner at the same time as its introducer: both records must merge. That
    /// alone makes no member, since the other one may be lost with its commit.
    fn add_by_another_too(&mut self, introducer: usize, at: usize) {
        let others: Vec<_> = self.adders().into_iter().filter(|other| *other != introducer).collect();
        let turn = usize::try_from(self.timeline.now_ms() / CHORES_MS).unwrap_or(0);
        if let Some(other) = others.get(turn % others.len().max(1)).filter(|_| self.plan.seed % 2 == 1) {
            self.add(*other, at, false);
        }
    }

    /// Has a member add a joiner, which counts as a member once that has worked, if it `counts`.
    fn add(&mut self, member: usize, at: usize, counts: bool) {
        let Some(manager) = self.manager(member) else { return };
        let process = &mut self.processes[at];
        let (id, device, shares_device) = (process.id, process.device, process.shares_device);

        let added = Rc::clone(&process.added);
        if counts {
            process.added_by = member;
        }
        self.executor.spawn(Some(member), async move {
            let ended = match (shares_device, counts) {
                (true, _) => manager.take_over(id, device).await,
                (false, true) => manager.add_member(id).await,
                (false, false) => manager.add_member_on(id, device).await,
            };
            if counts && ended.is_ok() {
                added.set(true);
            }
        });
    }
}

impl World {
    /// The disk of each replica.
    fn disks(&self) -> BTreeMap<ReplicaId, SimDisk> {
        self.processes.iter().map(|process| (process.id, process.disk.clone())).collect()
    }
}

/// The acknowledgements that statuses have shown and that were found to be true: by replica and peer.
#[derive(Clone, Default)]
pub(super) struct AcksSeen(Rc<RefCell<BTreeMap<(ReplicaId, ReplicaId), u64>>>);

impl AcksSeen {
    /// Checks that every peer has durably what it is said to have acknowledged, by whomever. A disk that was restored may
    /// have lost it since.
    fn check(&self, status: &Status, disks: &BTreeMap<ReplicaId, SimDisk>) -> Result<(), Failure> {
        let whole = |replica| disks.get(&replica).filter(|disk| !disk.was_restored());
        if whole(status.replica).is_none() {
            return Ok(());
        }
        for peer in &status.peers {
            let mut seen = self.0.borrow_mut();
            let seen = seen.entry((status.replica, peer.replica)).or_default();
            let Some(disk) = whole(peer.replica).filter(|_| peer.acknowledged > *seen) else { continue };
            let heads = block_on(history::heads(&disk.image())).unwrap_or_default();
            let has =
                heads.iter().find(|(stream, ..)| *stream == status.replica).map_or(0, |(_, seq, _)| *seq);
            if has < peer.acknowledged {
                let detail = format!(
                    "{} says that {} has {} of its commits, it has {has}",
                    status.replica, peer.replica, peer.acknowledged
                );
                return fail("Y20 who is said to have acknowledged has it", detail);
            }
            *seen = peer.acknowledged;
        }
        Ok(())
    }
}

/// Whether a stream is held until after the end of the run, so that it has to be released for the replicas to converge.
fn is_held_for_long(stream: &StreamStatus) -> bool {
    let far_ms = EPOCH_MS + FAR_MS.unsigned_abs() / 2;
    matches!(stream.stopped, Some(StreamStop::Held { stamp, .. }) if stamp.wall().get() > far_ms)
}

/// The words that are right in the status of a replica.
struct Expected {
    /// Whether its disk was put back.
    rolled_back: bool,
    /// Whether its store has failed, or may not hold what was written to it.
    store_fails: bool,
    /// The smallest values that each replica ever took, if limits are such that some commits are refused.
    value_bytes_least: Option<BTreeMap<ReplicaId, usize>>,
    /// The replica that is damaged, and may take its own rows for the fault of others.
    damaged: Option<ReplicaId>,
    /// The true time, if the clock of the replica was always right.
    right_ms: Option<u64>,
}

impl Expected {
    /// Whether a stop by a replica is one that no honest stream has.
    fn is_wrong(&self, by: ReplicaId, stream: ReplicaId, stop: &StreamStop, oracle: &Oracle) -> bool {
        let is_forked = oracle.fork_of(stream).is_some();
        match stop {
            StreamStop::Forked { .. } => !is_forked,
            StreamStop::Refused { seq, .. } => {
                let rests = oracle.rests_on_fork(stream, *seq);
                let least = self.value_bytes_least.as_ref().and_then(|least| least.get(&by));
                !is_forked && !rests && !least.is_some_and(|least| oracle.is_larger(stream, *seq, *least))
            }
            _ => false,
        }
    }

    /// Checks what a replica says of itself. Only a restored replica says that it was restored, and none says that a stream
    /// is forked or refused, unless it has two histories or is too large (H3). Nothing but a store keeps a received commit from
    /// being applied (C18). A clock that was always right is not dragged ahead by others (H6).
    fn check(&self, status: &Status, oracle: &Oracle) -> Result<(), Failure> {
        if let Some(restored) = status.restored.filter(|_| !self.rolled_back) {
            return fail("H3 only what was restored is called so", format!("{}: {restored}", status.replica));
        }
        let failed = MARKS.iter().position(|mark| *mark == "receive failed");
        if !self.store_fails && failed.is_none_or(|bit| status.marks >> bit & 1 == 1) {
            let detail = format!("{} could not apply a commit, and its store works", status.replica);
            return fail("C18 records go on whatever a projection says", detail);
        }
        let is_damaged = self.damaged == Some(status.replica);
        for stream in status.streams.iter().filter(|_| !is_damaged) {
            let stop = stream.stopped.as_ref();
            if let Some(reason) =
                stop.filter(|stop| self.is_wrong(status.replica, stream.replica, stop, oracle))
            {
                let detail = format!("{} stops {}: {reason}", status.replica, stream.replica);
                return fail("H3 honest streams are not stopped", detail);
            }
        }
        for peer in status.peers.iter().filter(|peer| self.damaged != Some(peer.replica)) {
            let stop = peer.refuses.as_ref().map(|refusal| &refusal.stop);
            if let Some(reason) =
                stop.filter(|stop| self.is_wrong(peer.replica, status.replica, stop, oracle))
            {
                let detail = format!("{} was told by {}: {reason}", status.replica, peer.replica);
                return fail("Y17 no author is told of what is not so", detail);
            }
        }
        let ahead = self.right_ms.map(|now| status.clock.wall().get().saturating_sub(now));
        if let Some(ahead) = ahead.filter(|ahead| *ahead > Limits::default().max_drift_ms) {
            return fail(
                "H6 no clock is dragged ahead",
                format!("{} stands {ahead} ms ahead", status.replica),
            );
        }
        Ok(())
    }
}
