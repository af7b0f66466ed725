//! The end of a run: the faults end, the replicas converge, and then they send each other hellos and nothing else.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use syncline::{JoinWait, Limits, Refusal, ReplicaId, Status};
use syncline_backends::Link;

use super::World;
use super::judging::stored_heads;
use super::processes::Process;
use crate::sim::app::Version;
use crate::sim::oracle::View;
use crate::sim::plan::{FAR_MS, Sizes};
use crate::sim::time::{EPOCH_MS, Wall};
use crate::sim::{Failure, fail};

/// How many frames a replica sends another at most in [`IDLE_MS`] while nothing happens: a hello every 22 to 38
/// seconds.
const IDLE_FRAMES_MAX: u64 = 5;

/// How many frames a replica sends another at least in [`IDLE_MS`].
const IDLE_FRAMES_MIN: u64 = 2;

/// How long the frames of an idle network are counted: three rounds of hellos.
const IDLE_MS: u64 = 90_000;

impl World {
    /// Ends the faults of the network, the clocks and the stores, and starts all processes, with apps that know sets.
    pub(super) fn make_peace(&mut self) {
        self.peace = true;
        self.network.heal();
        self.network.set_all(Link::default());
        let now = self.timeline.now_ms();
        // Apps that do not know sets, know an older schema or cannot merge all of them start again as a version that can,
        // which merges the values that they had kept. So do those whose limits were too small, in every other run: they take
        // then what they had refused.
        let newest = self.processes.iter().map(|process| process.app.version.schema).max().unwrap_or(1);
        for at in 0..self.processes.len() {
            let app = &mut self.processes[at].app;
            app.troubled.set(None);
            let updates = app.version.ill || app.version.schema < newest;
            app.update(Version { schema: newest, ill: false, ..app.version });
            let raises = match self.processes[at].sizes {
                Sizes::Small | Sizes::SmallValues => self.limits_differ && self.plan.seed & 2 == 0,
                Sizes::FewMembers => true,
                Sizes::Usual | Sizes::Wrong | Sizes::ShortLog => false,
            };
            if raises {
                self.processes[at].sizes = Sizes::Usual;
            }
            if raises || updates || !self.processes[at].knows_sets.get() {
                self.kill(at);
            }
        }
        for process in &mut self.processes {
            process.clock.set(Wall::Off(0));
            process.disk.heal();
            process.listen_ms.set(0);
            process.paused_until = 0;
            if !process.running && !process.lost {
                process.starts_at = Some(now);
            }
        }
    }

    /// When no stream is held any more: when time has reached the latest stamp, less the bound on drift. Streams that are
    /// held for longer than a run lasts are released.
    pub(super) fn holds_until_ms(&self) -> u64 {
        let far = EPOCH_MS + self.timeline.now_ms() + FAR_MS.unsigned_abs() / 2;
        let latest = self.oracle.borrow().latest_wall(far);
        latest.saturating_sub(EPOCH_MS + Limits::default().max_drift_ms)
    }

    /// The stores of all replicas, once they are members, have the same commits and have merged them; `None` before that. Lost and
    /// restored replicas are left out: they need not have all commits. So is a joiner that nobody is left to add, or whose
    /// introducer cannot take the commit that makes it a member itself.
    pub(super) fn converged(&mut self) -> Result<Option<Vec<View>>, Failure> {
        let mut views = Vec::new();
        let adders = self.adders();
        for (at, process) in self.processes.iter().enumerate() {
            let waits_for_ever =
                process.introducer.is_some_and(|one| self.limits_differ && !adders.contains(&one));
            let is_alone =
                !process.added.get() && (waits_for_ever || adders.iter().all(|adder| *adder == at));
            if process.lost || !process.is_sound() || is_alone {
                continue;
            }
            if !process.running || !process.added.get() {
                return Ok(None);
            }
            let view = self.oracle.borrow().judge(process.id, &process.disk.image())?;
            // A value that lay beside its record is merged after a pause, if the store has just failed.
            if !view.besides.is_empty() {
                return Ok(None);
            }
            views.push(view);
        }
        let agree = views.iter().zip(views.iter().skip(1)).all(|(one, other)| one.has_as(other));
        self.parted = false;
        if agree {
            return Ok(Some(views));
        }
        self.parted = true;
        Ok(self.has_parted(&views)?.then_some(views))
    }

    /// Checks what the replicas do after they have converged.
    pub(super) fn check_rest(&mut self) -> Result<(), Failure> {
        self.check_idle_network()?;
        for at in 0..self.processes.len() {
            match &self.processes[at] {
                process if process.lost => {}
                process if process.damaged => self.check_damaged(at)?,
                process if process.rolled_back => self.check_restored(at)?,
                _ => {
                    self.check_accepted(at)?;
                    self.check_app(at)?;
                }
            }
        }
        self.probe()
    }

    /// Replicas that agree send each other hellos and nothing else (Y14).
    fn check_idle_network(&mut self) -> Result<(), Failure> {
        // Frames that are under way arrive first, on a slow link after 15 s, and so do hellos that correct earlier ones.
        self.run_until(self.timeline.now_ms() + 30_000)?;
        let before = self.network.total().sent_frames;
        self.run_until(self.timeline.now_ms() + IDLE_MS)?;
        let running = self.processes.iter().filter(|process| process.running).count() as u64;
        // A joiner that nobody is left to add says little, and much if its introducer is there.
        if self.processes.iter().any(|process| process.running && !process.added.get()) {
            return Ok(());
        }
        let frames = self.network.total().sent_frames - before;
        let pairs = running * running.saturating_sub(1);
        // A restored replica asks for what it has lost, ever more rarely, and may never get it. So does a damaged one, and
        // others ask it for what it cannot serve. Nor may all get what is too large for some.
        let restored = self.processes.iter().any(|process| !process.is_sound());
        let allowed = pairs * IDLE_FRAMES_MIN..=pairs * IDLE_FRAMES_MAX;
        if !restored && !self.parted && !allowed.contains(&frames) {
            let detail = format!("{frames} frames in 90 s between {running} replicas that agree");
            return fail("Y14 an idle network is silent but for hellos", detail);
        }
        Ok(())
    }

    /// A replica all of whose commits its peers have knows of no peer that refuses them (Y17). Nothing is asked of a
    /// peer that is restored or gone.
    fn check_accepted(&mut self, at: usize) -> Result<(), Failure> {
        let honest = self.processes.iter().filter(|other| other.running && other.is_sound());
        let honest: BTreeMap<_, _> = honest.map(|other| (other.id, other.limits.value_bytes_max)).collect();
        let Some(status) = self.status_of(at)? else { return Ok(()) };
        let oracle = self.oracle.borrow();
        // A joiner whose frames are too small for a record of its group gets none of it.
        let stays_out = |by: ReplicaId, seq: u64| {
            let process = self.processes.iter().find(|process| process.id == by);
            let has = |process| stored_heads(process).get(&status.replica).copied().unwrap_or(0);
            self.limits_differ && process.is_some_and(|process| has(process) < seq)
        };
        let is_so = |by: ReplicaId, refusal: &Refusal| {
            let seq = refusal.stop.seq();
            if stays_out(by, seq) {
                return true;
            }
            honest
                .get(&by)
                .is_none_or(|max| self.limits_differ && oracle.is_larger(status.replica, seq, *max))
                || oracle.rests_on_fork(status.replica, seq)
        };
        let mut refusing =
            status.peers.iter().filter_map(|peer| Some((peer.replica, peer.refuses.as_ref()?)));
        match refusing.find(|(by, refusal)| !is_so(*by, refusal)) {
            Some((by, refusal)) => {
                let detail = format!("{} is refused by {by}: {refusal}", self.processes[at].id);
                fail("Y17 a refusal ends with its commit", detail)
            }
            None => Ok(()),
        }
    }

    /// A restored replica whose own commits others have, and it has not, says in its status that it was restored (Y15).
    fn check_restored(&mut self, at: usize) -> Result<(), Failure> {
        let id = self.processes[at].id;
        let own = stored_heads(&self.processes[at]).get(&id).copied().unwrap_or(0);
        let status = self.status_of(at)?;
        // Those whom it does not know to be members do not talk to it. If its disk is of a time before it was a member, it
        // listens to its introducer alone, which may be lost.
        let introducer = self.processes[at].introducer.map(|one| self.processes[one].id);
        let listens = |status: &Status, to| match status.joining {
            None | Some(JoinWait::OtherDevice { .. }) => true,
            Some(_) => introducer == Some(to),
        };
        let hears = |other: &Process| {
            let to = other.id;
            let is_heard =
                status.as_ref().is_some_and(|status| status.members.contains(&to) && listens(status, to));
            is_heard && other.knows(id)
        };
        let others = self.processes.iter().filter(|other| !other.lost && other.is_sound());
        let mut heard = others.filter(|other| hears(other));
        let known = heard.any(|other| stored_heads(other).get(&id).is_some_and(|seq| *seq > own));
        let said = status.is_none_or(|status| status.restored.is_some());
        if known && !said {
            return fail("Y15 a restored store is noticed", format!("{id} has {own} of its commits"));
        }
        Ok(())
    }

    /// Says what each replica tells of its streams that do not go on.
    pub(super) fn explain_stops(&mut self) -> Result<String, Failure> {
        let mut lines = Vec::new();
        for at in 0..self.processes.len() {
            let Some(status) = self.status_of(at)? else { continue };
            let id = status.replica.0.as_u128();
            lines.extend(status.restored.map(|restored| format!("{id:x}: {restored}")));
            for stream in &status.streams {
                let of = stream.replica.0.as_u128();
                lines.extend(stream.stopped.iter().map(|stop| format!("{id:x} of {of:x}: {stop}")));
                lines.extend(stream.damaged.iter().map(|damage| format!("{id:x} of {of:x}: {damage}")));
                lines.extend(
                    stream.disputed.iter().map(|peer| format!("{id:x} of {of:x}: disputed by {peer}")),
                );
            }
        }
        Ok(lines.join("\n"))
    }

    /// The status of a replica; `None` if it does not run.
    pub(super) fn status_of(&mut self, at: usize) -> Result<Option<Status>, Failure> {
        let Some(manager) = self.manager(at) else { return Ok(None) };
        let found = Rc::new(RefCell::new(None));
        let told = Rc::clone(&found);
        self.executor.spawn(Some(at), async move {
            *told.borrow_mut() = manager.status().await.ok();
        });
        self.settle()?;
        Ok(found.take())
    }
}
