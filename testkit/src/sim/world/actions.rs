//! What each step of a plan does to the world.

use syncline::ReplicaId;
use syncline_backends::Link;

use super::processes::has_bit;
use super::{GROUP, World};
use crate::sim::Failure;
use crate::sim::plan::Action;

impl World {
    /// Does what a step says.
    pub(super) fn act(&mut self, action: Action) -> Result<(), Failure> {
        let count = self.processes.len();
        let place = |at: u8| usize::from(at) % count;
        let id = |world: &Self, at: u8| world.processes[place(at)].id;
        match action {
            Action::Commit { at, edits, cancelled } => {
                let at = place(at);
                if let Some(commit) = self.apps.commit(at, &self.processes[at], edits) {
                    self.executor.spawn_for(Some(at), cancelled, commit);
                }
            }
            Action::Pair { at } => {
                let at = place(at);
                if let Some(commit) = self.apps.commit_pair(at, &self.processes[at]) {
                    self.executor.spawn(Some(at), commit);
                }
            }
            Action::Large { at, id, kib } => {
                let at = place(at);
                if let Some(commit) = self.apps.commit_photo(at, &self.processes[at], id, kib) {
                    self.executor.spawn(Some(at), commit);
                }
            }
            Action::Many { at, count } => {
                let at = place(at);
                if let Some(commits) = self.apps.commit_many(at, &self.processes[at], count, self.plan.ids) {
                    self.executor.spawn(Some(at), commits);
                }
            }
            Action::Joined { at, edit, failing } => {
                let (at, findings) = (place(at), &self.findings);
                if let Some(call) = self.apps.joined(at, &self.processes[at], edit, failing, findings) {
                    self.executor.spawn(Some(at), call);
                }
            }
            Action::Change { at, id, failing } => {
                let (at, findings) = (place(at), &self.findings);
                if let Some(call) = self.apps.change(at, &self.processes[at], id, failing, findings) {
                    self.executor.spawn(Some(at), call);
                }
            }
            Action::Update { at, to } => {
                self.processes[place(at)].app.update(to);
                self.crash(place(at), false, Some(0));
            }
            Action::Trouble { at, trouble } => self.processes[place(at)].app.troubled.set(trouble),
            Action::Crash { at, applied, down_ms } => self.crash(place(at), applied, down_ms),
            Action::Stop { at, down_ms } => self.stop(place(at), down_ms),
            Action::Fault { at, after, fault } => {
                self.processes[place(at)].disk.fail(u32::from(after), fault);
            }
            Action::Full { at, full } => self.processes[place(at)].disk.set_full(full),
            Action::Slow { at, write_ms } => {
                self.processes[place(at)].disk.set_write_ms(u64::from(write_ms));
            }
            Action::SlowReads { at, read_ms } => {
                self.processes[place(at)].disk.set_read_ms(u64::from(read_ms));
            }
            Action::SlowSubscriber { at, event_ms } => {
                self.processes[place(at)].listen_ms.set(u64::from(event_ms));
            }
            Action::Backup { at } => {
                let process = &mut self.processes[place(at)];
                if process.starts > 0 && process.is_sound() {
                    let image = process.disk.image();
                    process.backup = Some(image).filter(|image| !image.0.is_empty());
                }
            }
            // A plan with this step has one history of each stream, and its founder survives.
            Action::Restore { at } if place(at) != 0 => self.restore(place(at), false)?,
            Action::Restore { .. } => {}
            Action::Revive { at, mask } => {
                let at = place(at);
                let can_go = self.adders().into_iter().any(|other| other != at);
                let is_first = self.processes.iter().all(|process| !process.revived);
                if can_go && is_first && self.processes[at].backup.is_some() {
                    self.restore(at, true)?;
                    if mask > 0 {
                        self.partition(mask);
                    }
                }
            }
            Action::Link { from, to, percent, delay_ms, blocked } => {
                self.network.set(id(self, from), id(self, to), link(percent, delay_ms, blocked));
            }
            Action::Rate { one, other, rate } => {
                let (one, other) = (id(self, one), id(self, other));
                self.network.set(one, other, rate.link());
                self.network.set(other, one, rate.link());
            }
            Action::Partition { mask } => self.partition(mask),
            Action::Disconnect { one, other } => {
                if place(one) != place(other) {
                    self.network.disconnect(id(self, one), id(self, other));
                }
            }
            Action::Flap { one, other, times } => {
                if place(one) != place(other) {
                    self.flap(id(self, one), id(self, other), times)?;
                }
            }
            Action::Late { from, to, ago } => {
                if let Some(frame) = self.processes[place(from)].tap.frame(id(self, to), ago) {
                    // The receiver may be down.
                    let _ = self.network.inject(id(self, from), id(self, to), frame);
                }
            }
            Action::Noise { from, to, kind, len } => {
                let body: Vec<u8> = (0..len).map(|_| self.rng.u8(..)).collect();
                let frame = match kind {
                    Some(kind) => syncline::internals::fuzz::seal(GROUP, kind, &body),
                    None => body.into(),
                };
                // The receiver may be down.
                let _ = self.network.inject(id(self, from), id(self, to), frame);
            }
            Action::Heal => self.network.heal(),
            Action::Clock { at, wall } => {
                let process = &mut self.processes[place(at)];
                process.clock.set(wall);
                process.was_wrong.set(true);
            }
            Action::Pause { at, ms } => {
                let until = self.timeline.now_ms() + u64::from(ms);
                self.processes[place(at)].paused_until = until;
            }
            Action::Join { .. } => self.add_process(Some(0), None),
            Action::JoinThrough { introducer, device_of } => {
                let device = device_of.map(|one| self.processes[place(one)].device);
                self.add_process(Some(place(introducer)), device);
            }
            Action::Lose { at } => self.lose(place(at)),
            Action::Limits { at, sizes } => {
                self.processes[place(at)].sizes = sizes;
                self.crash(place(at), true, Some(10));
            }
            Action::Flip { at, row, bit } => self.flip(place(at), row, bit),
        }
        Ok(())
    }

    /// Kills a process, for `down_ms` or for ever. The founder always comes back: see [`lose`](Self::lose).
    fn crash(&mut self, at: usize, applied: bool, down_ms: Option<u32>) {
        self.processes[at].disk.set_applies_cut(applied);
        self.kill(at);
        let now = self.timeline.now_ms();
        let process = &mut self.processes[at];
        match down_ms {
            Some(down_ms) => process.starts_at = Some(now + u64::from(down_ms)),
            None => {
                process.lost = at != 0;
                process.starts_at = (at == 0).then_some(now);
            }
        }
    }

    /// Kills a process for ever, if another one can add joiners.
    fn lose(&mut self, at: usize) {
        if self.adders().into_iter().any(|other| other != at) {
            self.kill(at);
            self.processes[at].lost = true;
        }
    }

    /// Flips a bit on the disk of a process, if no other one is damaged.
    fn flip(&mut self, at: usize, row: u32, bit: u32) {
        let others = self.processes.iter().enumerate();
        let is_first = others.filter(|(other, _)| *other != at).all(|(_, other)| !other.damaged);
        let can_go = self.adders().into_iter().any(|other| other != at);
        if is_first && can_go && self.processes[at].disk.flip(row, bit) {
            self.processes[at].damaged = true;
        }
    }

    /// Shuts a process down in order, and starts it again after `down_ms`.
    fn stop(&mut self, at: usize, down_ms: u32) {
        if let Some(manager) = self.manager(at) {
            self.processes[at].starts_at = Some(self.timeline.now_ms() + u64::from(down_ms));
            self.executor.spawn(Some(at), async move {
                let _ = manager.shutdown().await;
            });
        }
    }

    /// Cuts the replicas of the mask off from the others.
    fn partition(&self, mask: u8) {
        let ids = self.processes.iter().map(|process| process.id).enumerate();
        let (one, other): (Vec<_>, Vec<_>) = ids.partition(|(at, _)| has_bit(mask, *at));
        let ids = |side: Vec<(usize, ReplicaId)>| -> Vec<ReplicaId> {
            side.into_iter().map(|(_, id)| id).collect()
        };
        self.network.partition(&ids(one), &ids(other));
    }

    /// Disconnects two replicas and connects them again, so many times.
    fn flap(&mut self, one: ReplicaId, other: ReplicaId, times: u8) -> Result<(), Failure> {
        for _ in 0..times {
            // Both replicas are told of each change before the next one comes.
            self.network.disconnect(one, other);
            self.settle()?;
            self.network.connect(one, other);
            self.settle()?;
        }
        Ok(())
    }
}

/// A link on which so many of a hundred frames are lost, repeated, reordered and damaged.
fn link(percent: [u8; 4], delay_ms: u16, blocked: bool) -> Link {
    let [loss, duplicate, reorder, corrupt] = percent.map(|percent| f64::from(percent) / 100.);
    let delay_ms = u64::from(delay_ms);
    Link {
        loss,
        duplicate,
        duplicate_delay_ms: 0..=delay_ms * 20,
        reorder,
        corrupt,
        delay_ms: 0..=delay_ms,
        blocked,
        ..Link::default()
    }
}
