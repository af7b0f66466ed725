//! The processes of a run: how they start, end, die and come back, also with an older disk.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures::FutureExt as _;
use futures::future::join;
use syncline::internals::history::StoredRecord;
use syncline::{DeviceId, Limits, OpenError, ReplicaId, StopReason, TransactionManager, Uuid};

use super::judging::stored_heads;
use super::telling::Ear;
use super::watching::Findings;
use super::{GROUP, World};
use crate::sim::Failure;
use crate::sim::app::App;
use crate::sim::models::APP_PANICS;
use crate::sim::plan::{REPLICAS_MAX, Sizes};
use crate::sim::store::{Image, SimDisk, SimStore};
use crate::sim::time::{SimClock, Timeline};
use crate::tap::{Tap, Tapped};

pub(super) type Manager = TransactionManager<SimStore>;

/// How long a process stays down after it has died or its driver has ended.
const DOWN_MS: u64 = 50;

/// A store is judged at least once for so many of its rows that are written.
const ROWS_EACH: u64 = 400;

/// A store that was written is judged after so long a time.
const JUDGED_MS: u64 = 1_000;

/// The same in a large group, where all stores are written for each commit.
const JUDGED_IN_A_CROWD_MS: u64 = 10_000;

/// The process of a replica, with what outlives it: its disk, its clock, what it has sent.
pub(super) struct Process {
    pub(super) id: ReplicaId,
    pub(super) device: DeviceId,
    pub(super) disk: SimDisk,
    pub(super) clock: SimClock,
    /// The place of its introducer; `None` for the founder.
    pub(super) introducer: Option<usize>,
    /// Whether it is on the device of another process.
    pub(super) shares_device: bool,
    /// Whether it is a member: the founder is, the others are once `add_member` has returned.
    pub(super) added: Rc<Cell<bool>>,
    /// The place of the process that has added it last.
    pub(super) added_by: usize,
    /// Set while its driver runs.
    manager: Rc<RefCell<Option<Manager>>>,
    /// Whether its last opening has failed.
    fails: Rc<Cell<bool>>,
    /// Set when its driver ends.
    ended: Rc<Cell<bool>>,
    pub(super) running: bool,
    /// When it starts again.
    pub(super) starts_at: Option<u64>,
    pub(super) paused_until: u64,
    /// Whether it never starts again.
    pub(super) lost: bool,
    /// A copy of its disk, until that is restored.
    pub(super) backup: Option<Image>,
    /// Whether its disk was restored from a backup.
    pub(super) rolled_back: bool,
    /// Whether its app went on writing after that.
    pub(super) revived: bool,
    /// Whether a bit of its disk has flipped.
    pub(super) damaged: bool,
    /// The limits of its next life.
    pub(super) sizes: Sizes,
    /// The limits of its life.
    pub(super) limits: Limits,
    /// The smallest values that it ever took.
    pub(super) value_bytes_least: usize,
    /// Whether its wall clock was ever wrong.
    pub(super) was_wrong: Rc<Cell<bool>>,
    /// Whether the app that opened its store last knows sets. Another one merges nothing before its opening has ended.
    pub(super) knows_sets: Rc<Cell<bool>>,
    /// Its app.
    pub(super) app: App,
    /// How many debts its projections had when it was judged last.
    pub(super) debts: usize,
    /// How many times it was started.
    pub(super) starts: u64,
    /// How many writes its disk had seen when it was judged last.
    pub(super) judged_writes: u64,
    /// When that was.
    judged_at: u64,
    /// How many rows its disk had then.
    rows: u64,
    /// How many writes its disk had seen when the oracle learned its commits last.
    learned_writes: u64,
    /// The heads that it had when it was judged last.
    pub(super) judged_heads: BTreeMap<ReplicaId, u64>,
    /// The records that it had when it was judged last.
    pub(super) records: Vec<StoredRecord>,
    /// Whether these are to be compared with what its subscriber was told.
    pub(super) to_compare: Cell<bool>,
    /// The subscriber of its life.
    pub(super) ear: Rc<RefCell<Option<Ear>>>,
    /// How long its subscriber takes for an event.
    pub(super) listen_ms: Rc<Cell<u64>>,
    /// The frames that it has sent.
    pub(super) tap: Tap,
}

impl Process {
    /// The process at place `at`, with an empty disk. Without an introducer it founds the group.
    fn new(at: usize, introducer: Option<usize>, shared: Option<DeviceId>, timeline: &Timeline) -> Self {
        Self {
            id: ReplicaId(Uuid::from_u128(0xa0 + at as u128)),
            device: shared.unwrap_or(DeviceId(Uuid::from_u128(0xd0 + at as u128))),
            disk: SimDisk::default(),
            clock: SimClock::new(timeline),
            introducer,
            shares_device: shared.is_some(),
            added: Rc::new(Cell::new(introducer.is_none())),
            added_by: 0,
            manager: Rc::default(),
            fails: Rc::default(),
            ended: Rc::default(),
            running: false,
            starts_at: Some(timeline.now_ms()),
            paused_until: 0,
            lost: false,
            backup: None,
            rolled_back: false,
            revived: false,
            damaged: false,
            sizes: Sizes::Usual,
            limits: Limits::default(),
            value_bytes_least: Limits::default().value_bytes_max,
            was_wrong: Rc::default(),
            knows_sets: Rc::new(Cell::new(true)),
            app: App::default(),
            debts: 0,
            starts: 0,
            judged_writes: 0,
            judged_at: 0,
            rows: 0,
            learned_writes: 0,
            judged_heads: BTreeMap::new(),
            records: Vec::new(),
            to_compare: Cell::new(false),
            ear: Rc::default(),
            listen_ms: Rc::default(),
            tap: Tap::default(),
        }
    }

    /// Whether the oracle has judged its store as it is now.
    pub(super) fn is_judged(&self) -> bool {
        self.judged_writes == self.disk.writes()
    }

    /// Whether its store is to be judged: after each write, while it is small. To judge a large one takes long, so that is
    /// left out until a part of it is new, or some time has passed.
    pub(super) fn is_due(&self, now: u64, in_a_crowd: bool) -> bool {
        let written = self.disk.writes() - self.judged_writes;
        if in_a_crowd {
            return written > 0 && now >= self.judged_at + JUDGED_IN_A_CROWD_MS;
        }
        written > 0 && (written * ROWS_EACH >= self.rows || now >= self.judged_at + JUDGED_MS)
    }

    /// Takes note that its store is being judged; returns what that holds.
    pub(super) fn judging(&mut self, now: u64) -> Image {
        let image = self.disk.image();
        self.judged_writes = self.disk.writes();
        (self.judged_at, self.rows) = (now, image.0.len() as u64);
        image
    }

    /// Whether the store was written since this was called last.
    pub(super) fn has_written(&mut self) -> bool {
        let writes = self.disk.writes();
        std::mem::replace(&mut self.learned_writes, writes) != writes
    }

    /// Whether its store holds what was written to it.
    pub(super) fn is_sound(&self) -> bool {
        !self.rolled_back && !self.damaged
    }

    /// Whether its app may commit sets. A damaged record must not be merged.
    pub(super) fn commits_sets(&self) -> bool {
        self.knows_sets.get() && !self.damaged
    }

    /// Whether it knows another one, or itself, to be a member.
    pub(super) fn knows(&self, member: ReplicaId) -> bool {
        let is_of = |record: &StoredRecord| record.record.id_bytes().ends_with(member.0.as_bytes());
        self.records.iter().any(is_of)
    }

    /// Its manager, while its driver runs.
    pub(super) fn manager(&self) -> Option<Manager> {
        self.manager.borrow().clone()
    }

    /// Opens the store with limits that contradict each other, which fails with a typed error and writes nothing.
    fn is_refused(
        &self,
        builder: syncline::Builder<SimStore>,
        findings: Findings,
    ) -> impl Future<Output = ()> + use<> {
        let (id, disk, ended) = (self.id, self.disk.clone(), Rc::clone(&self.ended));
        async move {
            let writes = disk.writes();
            let opened = builder.open().await.map(drop);
            if !matches!(opened, Err(OpenError::Limits { .. })) || disk.writes() != writes {
                let detail = format!("{id} opens with wrong limits: {opened:?}");
                findings.report(Failure { property: "C16 wrong limits are refused", detail, at_ms: 0 });
            }
            ended.set(true);
        }
    }

    /// One life of the process: opens its store as `builder` says and runs the driver until that ends.
    fn live(
        &self,
        builder: syncline::Builder<SimStore>,
        sets: bool,
        timeline: &Timeline,
        findings: &Findings,
    ) -> impl Future<Output = ()> + use<> {
        let (manager, ended) = (Rc::clone(&self.manager), Rc::clone(&self.ended));
        let fails = Rc::clone(&self.fails);
        let (disk, knows_sets, heard) =
            (self.disk.clone(), Rc::clone(&self.knows_sets), Rc::clone(&self.ear));
        let (timeline, listen_ms) = (timeline.clone(), Rc::clone(&self.listen_ms));
        let (findings, id) = (findings.clone(), self.id);
        async move {
            fails.set(true);
            // An opening may fail or panic, for instance because a read or the clock fails. The next one may work.
            if let Ok(Ok((opened, driver))) = AssertUnwindSafe(builder.open()).catch_unwind().await {
                knows_sets.set(sets);
                fails.set(false);
                let ear = Ear::new(&disk);
                *heard.borrow_mut() = Some(ear.clone());
                let listening = ear.listen(opened.events(), timeline, listen_ms);
                *manager.borrow_mut() = Some(opened);
                // The process starts again, whatever the driver has ended for. That is no code of its app.
                if let (Err(StopReason::Panicked(panic)), ()) = join(driver.run(), listening).await
                    && panic.contains(APP_PANICS)
                {
                    let property = "C1 an error of the app fails its own call";
                    findings.report(Failure { property, detail: format!("{id}: {panic}"), at_ms: 0 });
                }
            }
            *manager.borrow_mut() = None;
            ended.set(true);
        }
    }
}

impl World {
    /// Adds a process, on a device of its own or on that of another, unless there are too many. Without an introducer it
    /// founds the group.
    pub(super) fn add_process(&mut self, introducer: Option<usize>, device: Option<DeviceId>) {
        let at = self.processes.len();
        if at < self.plan.places_max() {
            let mut process = Process::new(at, introducer, device, &self.timeline);
            process.sizes = if has_bit(self.plan.tight, at) { Sizes::Small } else { Sizes::Usual };
            // Some stores can undo a part of a transaction, others only all of it.
            process.disk.set_undoes(has_bit(self.plan.seed.to_le_bytes()[0], at));
            self.processes.push(process);
        }
    }

    /// The places of the processes that can add joiners: sound ones that know themselves to be members.
    pub(super) fn adders(&self) -> Vec<usize> {
        let adds = |process: &Process| !process.lost && process.is_sound() && process.knows(process.id);
        (0..self.processes.len()).filter(|at| adds(&self.processes[*at])).collect()
    }

    /// Starts the processes that are due.
    pub(super) fn start_due(&mut self) {
        let now = self.timeline.now_ms();
        for at in 0..self.processes.len() {
            if self.processes[at].starts_at.is_some_and(|due| due <= now) {
                self.start(at);
            }
        }
    }

    fn start(&mut self, at: usize) {
        let introducer = self.processes[at].introducer.map(|one| self.processes[one].id);
        let limits = self.processes[at].sizes.limits(&self.plan);
        let process = &mut self.processes[at];
        process.starts_at = None;
        if process.running || process.lost {
            return;
        }
        process.running = true;
        process.starts += 1;
        let are_wrong = process.sizes == Sizes::Wrong;
        if are_wrong {
            process.sizes = Sizes::Usual;
        } else {
            process.value_bytes_least = process.value_bytes_least.min(limits.value_bytes_max);
            process.limits = limits.clone();
        }
        process.ear.take();
        process.ended.set(false);
        let sets = self.peace || !has_bit(self.plan.older_apps, at);
        let store = SimStore { disk: process.disk.clone(), timeline: self.timeline.clone() };
        let mut builder = TransactionManager::builder(store)
            .device(process.device)
            .replica(process.id)
            .seed(self.plan.seed ^ (at as u64) << 32 ^ process.starts)
            .clock(process.clock.clone())
            .transport(Tapped::new(self.network.transport(), process.tap.clone()))
            .limits(limits)
            .rules(self.rules)
            .checked(at < usize::from(REPLICAS_MAX));
        builder = process.app.register(builder, sets);
        builder = match introducer {
            None => builder.found(GROUP),
            Some(introducer) => builder.join(GROUP, introducer),
        };
        if are_wrong {
            let refused = process.is_refused(builder, self.findings.clone());
            self.executor.spawn(Some(at), refused);
        } else {
            let life = process.live(builder, sets, &self.timeline, &self.findings);
            self.executor.spawn(Some(at), life);
        }
    }

    /// Sets the time at which processes start again that died in an operation of their store, or whose driver has
    /// ended.
    pub(super) fn restart_ended(&mut self) {
        let due = self.timeline.now_ms() + DOWN_MS;
        for at in 0..self.processes.len() {
            if self.processes[at].disk.take_death() && self.processes[at].running {
                self.deaths += 1;
                self.deaths_opening += u64::from(self.processes[at].manager.borrow().is_none());
                self.kill(at);
                self.processes[at].starts_at = Some(due);
            }
        }
        for process in &mut self.processes {
            if process.running && process.ended.get() {
                process.running = false;
                // A damaged store may be one that cannot be opened any more.
                process.lost |= process.damaged && process.fails.get();
                process.starts_at.get_or_insert(due);
            }
        }
    }

    /// Drops all tasks of a process where they stand.
    pub(super) fn kill(&mut self, at: usize) {
        self.executor.kill(at);
        let process = &mut self.processes[at];
        *process.manager.borrow_mut() = None;
        process.running = false;
        process.ended.set(false);
    }

    /// Restores the disk of a process from its backup, if there is one. Its own commits that the backup lacks are lost
    /// unless other replicas have them. From then on its app only reads, unless it `writes`.
    pub(super) fn restore(&mut self, at: usize, writes: bool) -> Result<(), Failure> {
        let Some(image) = self.processes[at].backup.take() else { return Ok(()) };
        self.processes[at].disk.set_applies_cut(false);
        self.kill(at);
        // Other stores may have what was committed until now, so the oracle has to learn it before the disk loses it.
        let (id, last) = (self.processes[at].id, self.processes[at].disk.image());
        self.oracle.borrow_mut().learn(id, &last)?;
        let now = self.timeline.now_ms();
        let process = &mut self.processes[at];
        process.disk.restore(&image);
        (process.rolled_back, process.revived) = (true, writes);
        process.starts_at = Some(now + 10);
        let commits = stored_heads(process).get(&id).copied().unwrap_or(0);
        self.oracle.borrow_mut().forget(id, commits, writes);
        Ok(())
    }

    pub(super) fn manager(&self, at: usize) -> Option<Manager> {
        self.processes.get(at)?.manager()
    }
}

/// Whether the mask has the bit of the process at place `at`.
pub(super) fn has_bit(mask: u8, at: usize) -> bool {
    mask >> (at % 8) & 1 == 1
}
