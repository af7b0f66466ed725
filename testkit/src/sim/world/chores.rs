//! What a person would do now and then: add joiners, look at the statuses, release held streams.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures::executor::block_on;
use syncline::internals::history;
use syncline::{Limits, ReplicaId, Status, StreamStatus, StreamStop};

use super::{CHORES_MS, World};
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
                let (rolled_back, timeline) = (self.processes[at].rolled_back, self.timeline.clone());
                let (was_wrong, peace) = (Rc::clone(&self.processes[at].was_wrong), self.peace);
                let (disks, acks) = (self.disks(), self.acks.clone());
                let refuses = self.limits_differ && !self.converged;
                // A damaged replica may take its own rows for the fault of others.
                let damaged = self.processes.iter().find(|one| one.damaged).map(|one| one.id);
                self.executor.spawn(Some(at), async move {
                    if let Ok(status) = manager.status().await {
                        marks.set(marks.get() | status.marks);
                        let right_ms = (!was_wrong.get()).then(|| EPOCH_MS + timeline.now_ms());
                        if let Err(failure) = check_status(&status, rolled_back, damaged, refuses, right_ms) {
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
    /// member takes its place, also for a joiner of which not all know that it was added.
    fn introduce(&mut self, at: usize) {
        let adders = self.adders();
        let process = &self.processes[at];
        let Some(introducer) = process.introducer.filter(|_| process.starts > 0 && process.is_sound()) else {
            return;
        };
        let is_gone = |world: &Self, at: usize| world.processes[at].lost || !world.processes[at].is_sound();
        let by = self.processes[at].added_by;
        let process = &self.processes[at];
        let mut others = adders.iter().filter(|one| **one != at);
        let is_known = others.all(|one| self.processes[*one].knows(process.id));
        if process.added.get() && is_gone(self, by) && !is_known {
            process.added.set(false);
        }
        if self.processes[at].added.get() || self.processes[at].lost {
            return;
        }
        if is_gone(self, introducer) {
            if let Some(next) = adders.into_iter().find(|next| *next != at) {
                self.processes[at].introducer = Some(next);
                // A member needs no introducer.
                if !self.processes[at].knows(self.processes[at].id) {
                    self.kill(at);
                    self.processes[at].starts_at = Some(self.timeline.now_ms());
                }
            }
        } else if adders.contains(&introducer) {
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
        // One that knows itself to be a member does not knock.
        let knocks = counts && !process.knows(id);
        let added = Rc::clone(&process.added);
        if counts {
            process.added_by = member;
        }
        self.executor.spawn(Some(member), async move {
            let ended = match (shares_device, knocks) {
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

/// Checks what a replica says of itself. Only a restored replica says that it was restored, and none says that a stream
/// is forked, since no replica of a run commits a second history, or refused, unless limits are such that some `refuses` (H3). A clock that was always right is not
/// dragged ahead by others (H6): `right_ms` is the true time, if this clock was always right.
fn check_status(
    status: &Status,
    rolled_back: bool,
    damaged: Option<ReplicaId>,
    refuses: bool,
    right_ms: Option<u64>,
) -> Result<(), Failure> {
    let is_wrong = |stop: &StreamStop| match stop {
        StreamStop::Forked { .. } => true,
        StreamStop::Refused { .. } => !refuses,
        _ => false,
    };
    if let Some(restored) = status.restored.filter(|_| !rolled_back) {
        return fail("H3 only what was restored is called so", format!("{}: {restored}", status.replica));
    }
    let is_damaged = damaged == Some(status.replica);
    for stream in status.streams.iter().filter(|_| !is_damaged) {
        if let Some(reason) = stream.stopped.as_ref().filter(|stop| is_wrong(stop)) {
            let detail = format!("{} stops {}: {reason}", status.replica, stream.replica);
            return fail("H3 honest streams are not stopped", detail);
        }
    }
    for peer in status.peers.iter().filter(|peer| damaged != Some(peer.replica)) {
        let stop = peer.refuses.as_ref().map(|refusal| &refusal.stop);
        if let Some(reason) = stop.filter(|stop| is_wrong(stop)) {
            let detail = format!("{} was told by {}: {reason}", status.replica, peer.replica);
            return fail("Y17 no author is told of what is not so", detail);
        }
    }
    let ahead = right_ms.map(|now| status.clock.wall().get().saturating_sub(now)).unwrap_or_default();
    if ahead > Limits::default().max_drift_ms {
        return fail("H6 no clock is dragged ahead", format!("{} stands {ahead} ms ahead", status.replica));
    }
    Ok(())
}
