//! The run itself: processes that come and go, and everything around them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures::FutureExt as _;
use syncline::internals::{MARKS, Rules, fuzz, history};
use syncline::{
    DeviceId, Error, Event, GroupId, Limits, ReplicaId, Status, StreamStatus, StreamStop, TransactionManager,
    Uuid,
};
use syncline_backends::{Link, MemoryNetwork};

use super::executor::Executor;
use super::models::{Note, PAIR, Place, Set};
use super::oracle::{self, Oracle, Outcome, Told, View};
use super::plan::{Action, Edit, FAR_MS, Plan, REPLICAS_MAX};
use super::store::{Image, SimDisk, SimStore};
use super::time::{EPOCH_MS, SimClock, Timeline, Wall};
use super::{Failure, PEACE_MS, Report, fail};
use crate::tap::{Tap, Tapped};

type Manager = TransactionManager<SimStore>;

const GROUP: GroupId = GroupId(Uuid::from_u128(0x6709));

/// More steps than any run needs: who takes so many runs in circles.
const POLLS_MAX: u64 = 3_000_000;

/// How many frames a replica sends another at most in 90 seconds in which nothing happens: hellos, one in 22 to 38
/// seconds.
const IDLE_FRAMES_MAX: u64 = 5;

/// How often the world looks after things: members that were not added, marks, statuses.
const CHORES_MS: u64 = 500;

/// A process, and everything of it that outlives it.
struct Process {
    id: ReplicaId,
    device: DeviceId,
    disk: SimDisk,
    clock: SimClock,
    introducer: Option<ReplicaId>,
    /// Whether the group was asked to take it, and has said yes.
    added: Rc<Cell<bool>>,
    /// While its driver runs.
    manager: Rc<RefCell<Option<Manager>>>,
    /// Set when its driver ends.
    ended: Rc<Cell<bool>>,
    running: bool,
    /// When it starts again.
    starts_at: Option<u64>,
    paused_until: u64,
    lost: bool,
    backup: Option<Image>,
    rolled_back: bool,
    /// Whether its wall clock was ever wrong.
    was_wrong: Rc<Cell<bool>>,
    /// Whether its app knows sets.
    knows_sets: bool,
    /// How often it was started.
    starts: u64,
    /// What its disk had seen when it was judged last, and how far its streams were.
    judged: u64,
    heads: BTreeMap<ReplicaId, u64>,
    /// What it sent.
    tap: Tap,
}

pub(super) struct World {
    plan: Plan,
    rules: Rules,
    timeline: Timeline,
    network: MemoryNetwork,
    executor: Executor,
    rng: fastrand::Rng,
    processes: Vec<Process>,
    oracle: Rc<RefCell<Oracle>>,
    /// What watchers found wrong.
    found: Rc<RefCell<Option<Failure>>>,
    marks: Rc<Cell<u32>>,
    committed: Rc<Cell<u64>>,
    serial: u64,
    polls: u64,
    deaths: u64,
    deaths_opening: u64,
    digest: u64,
    next_chores_ms: u64,
    peace: bool,
}

impl World {
    pub(super) fn new(plan: &Plan, rules: Rules) -> Self {
        let timeline = Timeline::default();
        let network = MemoryNetwork::builder().seed(plan.seed).clock(SimClock::new(&timeline)).build();
        let mut world = Self {
            plan: plan.clone(),
            rules,
            timeline,
            network,
            executor: Executor::default(),
            rng: fastrand::Rng::with_seed(plan.seed),
            processes: Vec::new(),
            oracle: Rc::default(),
            found: Rc::default(),
            marks: Rc::default(),
            committed: Rc::default(),
            serial: 0,
            polls: 0,
            deaths: 0,
            deaths_opening: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            next_chores_ms: 0,
            peace: false,
        };
        for _ in 0..plan.replicas.clamp(1, REPLICAS_MAX) {
            world.add_process();
        }
        world
    }

    fn add_process(&mut self) {
        let at = self.processes.len();
        let founder = self.processes.first().map(|founder| founder.id);
        self.processes.push(Process {
            id: ReplicaId(Uuid::from_u128(0xa0 + at as u128)),
            device: DeviceId(Uuid::from_u128(0xd0 + at as u128)),
            disk: SimDisk::default(),
            clock: SimClock::new(&self.timeline),
            introducer: founder,
            added: Rc::new(Cell::new(founder.is_none())),
            manager: Rc::default(),
            ended: Rc::default(),
            running: false,
            starts_at: Some(self.timeline.now_ms()),
            paused_until: 0,
            lost: false,
            backup: None,
            rolled_back: false,
            was_wrong: Rc::default(),
            knows_sets: true,
            starts: 0,
            judged: 0,
            heads: BTreeMap::new(),
            tap: Tap::default(),
        });
    }

    pub(super) fn run(mut self) -> Result<Report, Failure> {
        self.play().map_err(|failure| Failure { at_ms: self.timeline.now_ms(), ..failure })
    }

    fn play(&mut self) -> Result<Report, Failure> {
        for step in std::mem::take(&mut self.plan.steps) {
            self.run_until(self.timeline.now_ms() + u64::from(step.after_ms))?;
            self.act(step.action)?;
            self.settle()?;
        }
        self.run_until(self.timeline.now_ms() + 1_000)?;
        self.make_peace();
        let peace_began = self.timeline.now_ms();
        let mut pause = 100;
        let views = loop {
            self.run_until(self.timeline.now_ms() + pause)?;
            if let Some(views) = self.converged()? {
                break views;
            }
            if self.timeline.now_ms() > peace_began + PEACE_MS {
                return fail("Y1 peers converge", self.explain());
            }
            pause = (pause * 2).min(30_000);
        };
        let peace_ms = self.timeline.now_ms() - peace_began;
        let trusted = |at: usize| !self.processes[at].lost && !self.processes[at].rolled_back;
        self.oracle.borrow().judge_all(&views, trusted)?;
        self.check_rest()?;
        for view in &views {
            for record in &view.records {
                let value = record.value.as_deref().unwrap_or(b"deleted");
                self.mix(record.record.to_string().as_bytes());
                self.mix(value);
            }
        }
        Ok(Report {
            digest: self.digest,
            commits: self.committed.get(),
            polls: self.polls,
            deaths: self.deaths,
            deaths_opening: self.deaths_opening,
            frames: self.network.total().sent_frames,
            peace_ms,
            marks: self.marks.get(),
        })
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    // --- running --------------------------------------------------------------------------------------------------

    /// Runs everything that can run, without time passing.
    fn settle(&mut self) -> Result<(), Failure> {
        loop {
            self.start_due();
            let now = self.timeline.now_ms();
            let processes = &self.processes;
            let Some(polled) = self.executor.step(&mut self.rng, |at| processes[at].paused_until > now)
            else {
                break;
            };
            self.polls += 1;
            self.mix(&polled.number.to_be_bytes());
            self.mix(&now.to_be_bytes());
            if let Some(panic) = polled.panic {
                return fail("nothing panics", panic);
            }
            if let Some(found) = self.found.borrow_mut().take() {
                return Err(found);
            }
            if self.polls > POLLS_MAX {
                return fail("nobody runs in circles", self.explain());
            }
            self.restart_ended();
            self.judge()?;
        }
        Ok(())
    }

    /// Lets time pass.
    fn run_until(&mut self, end_ms: u64) -> Result<(), Failure> {
        loop {
            self.settle()?;
            let now = self.timeline.now_ms();
            let starts = self.processes.iter().filter_map(|process| process.starts_at);
            let pauses = self.processes.iter().map(|process| process.paused_until);
            let chores = self.next_chores_ms;
            let due = starts.chain(pauses).chain([chores]).chain(self.timeline.next_ms());
            let next = due.filter(|due| *due > now).min().unwrap_or(end_ms).min(end_ms);
            self.timeline.advance(next);
            if next >= chores {
                self.next_chores_ms = next + CHORES_MS;
                self.do_chores();
            }
            if next >= end_ms {
                return self.settle();
            }
        }
    }

    fn start_due(&mut self) {
        let now = self.timeline.now_ms();
        for at in 0..self.processes.len() {
            if self.processes[at].starts_at.is_some_and(|due| due <= now) {
                self.start(at);
            }
        }
    }

    fn start(&mut self, at: usize) {
        let process = &mut self.processes[at];
        process.starts_at = None;
        if process.running || process.lost {
            return;
        }
        process.running = true;
        process.starts += 1;
        process.ended.set(false);
        let store = SimStore { disk: process.disk.clone(), timeline: self.timeline.clone() };
        let knows_sets = self.peace || self.plan.older_apps >> (at % 8) & 1 == 0;
        let mut limits = Limits { page_bytes_max: self.plan.page_bytes as usize, ..Limits::default() };
        if self.plan.tight >> (at % 8) & 1 == 1 {
            limits = Limits {
                value_bytes_max: 512,
                commit_changes_max: 16,
                commit_bytes_max: 2048,
                queue_bytes_max: 8192,
                group_commits_max: 4,
                event_commits_max: 4,
                members_max: 8,
                page_bytes_max: limits.page_bytes_max.min(6144),
                frame_bytes_max: 6144,
                ..limits
            };
        }
        let mut builder = TransactionManager::builder(store)
            .device(process.device)
            .replica(process.id)
            .seed(self.plan.seed ^ (at as u64) << 32 ^ process.starts)
            .clock(process.clock.clone())
            .transport(Tapped::new(self.network.transport(), process.tap.clone()))
            .limits(limits)
            .rules(self.rules)
            .model::<Note>()
            .model::<Place>();
        if knows_sets {
            builder = builder.model::<Set>();
        }
        process.knows_sets = knows_sets;
        builder = match process.introducer {
            None => builder.found(GROUP),
            Some(introducer) => builder.join(GROUP, introducer),
        };
        let (manager, ended, found) =
            (Rc::clone(&process.manager), Rc::clone(&process.ended), Rc::clone(&self.found));
        self.executor.spawn(Some(at), async move {
            // What fails while it opens, such as a read or the clock, may work the next time.
            if let Ok(Ok((opened, driver))) = AssertUnwindSafe(builder.open()).catch_unwind().await {
                let events = opened.events();
                *manager.borrow_mut() = Some(opened);
                let watched = watch(events, found);
                // Whatever the reason that it ends for.
                let _ = futures::future::join(driver.run(), watched).await;
            }
            *manager.borrow_mut() = None;
            ended.set(true);
        });
    }

    fn restart_ended(&mut self) {
        let now = self.timeline.now_ms();
        for at in 0..self.processes.len() {
            if self.processes[at].disk.take_death() && self.processes[at].running {
                self.deaths += 1;
                self.deaths_opening += u64::from(self.processes[at].manager.borrow().is_none());
                self.kill(at);
                self.processes[at].starts_at = Some(now + 50);
            }
        }
        for process in &mut self.processes {
            if process.running && process.ended.get() {
                process.running = false;
                if process.starts_at.is_none() {
                    process.starts_at = Some(now + 50);
                }
            }
        }
    }

    fn kill(&mut self, at: usize) {
        self.executor.kill(at);
        let process = &mut self.processes[at];
        *process.manager.borrow_mut() = None;
        process.running = false;
        process.ended.set(false);
    }

    /// What somebody has to do now and then: members that could not be added are added, statuses are read.
    fn do_chores(&mut self) {
        // Any member can add another; the founder is the one that is neither lost nor restored.
        let founder = self.manager(0);
        for at in 0..self.processes.len() {
            if let Some(manager) = self.manager(at) {
                let (marks, found) = (Rc::clone(&self.marks), Rc::clone(&self.found));
                let (rolled_back, timeline) = (self.processes[at].rolled_back, self.timeline.clone());
                let (was_wrong, peace) = (Rc::clone(&self.processes[at].was_wrong), self.peace);
                self.executor.spawn(Some(at), async move {
                    if let Ok(status) = manager.status().await {
                        marks.set(marks.get() | status.marks);
                        let right_ms = (!was_wrong.get()).then(|| EPOCH_MS + timeline.now_ms());
                        let wrong = check_status(&status, rolled_back, right_ms);
                        if let Err(failure) = wrong {
                            *found.borrow_mut() = Some(failure);
                        }
                        let far = status.streams.iter().filter(|stream| peace && is_held_for_long(stream));
                        for stream in far {
                            // From here on its clock stands as far ahead as that.
                            was_wrong.set(true);
                            let _ = manager.release_held(stream.replica).await;
                        }
                    }
                });
            }
            let process = &self.processes[at];
            if let Some(founder) = founder.clone().filter(|_| !process.added.get() && process.starts > 0) {
                let (id, device, added) = (process.id, process.device, Rc::clone(&process.added));
                self.executor.spawn(Some(0), async move {
                    if founder.add_member(id, device).await.is_ok() {
                        added.set(true);
                    }
                });
            }
        }
    }

    fn manager(&self, at: usize) -> Option<Manager> {
        self.processes.get(at)?.manager.borrow().clone()
    }

    // --- what happens ---------------------------------------------------------------------------------------------

    fn act(&mut self, action: Action) -> Result<(), Failure> {
        let count = self.processes.len();
        let place = |at: u8| usize::from(at) % count;
        let id = |world: &Self, at: u8| world.processes[place(at)].id;
        match action {
            Action::Commit { at, edits, cancelled } => self.commit(place(at), edits, cancelled),
            Action::Pair { at } => self.commit_pair(place(at)),
            Action::Crash { at, applied, down_ms } => {
                let at = place(at);
                self.processes[at].disk.set_applies_cut(applied);
                self.kill(at);
                let process = &mut self.processes[at];
                match down_ms {
                    Some(down_ms) => process.starts_at = Some(self.timeline.now_ms() + u64::from(down_ms)),
                    None => {
                        process.lost = at != 0;
                        process.starts_at = (at == 0).then(|| self.timeline.now_ms());
                    }
                }
            }
            Action::Stop { at, down_ms } => {
                let at = place(at);
                if let Some(manager) = self.manager(at) {
                    self.processes[at].starts_at = Some(self.timeline.now_ms() + u64::from(down_ms));
                    self.executor.spawn(Some(at), async move {
                        let _ = manager.shutdown().await;
                    });
                }
            }
            Action::Fault { at, after, fault } => {
                self.processes[place(at)].disk.fail(u32::from(after), fault);
            }
            Action::Full { at, full } => self.processes[place(at)].disk.set_full(full),
            Action::Slow { at, write_ms } => {
                self.processes[place(at)].disk.set_write_ms(u64::from(write_ms));
            }
            Action::Late { from, to, ago } => {
                if let Some(frame) = self.processes[place(from)].tap.frame(id(self, to), ago) {
                    let _ = self.network.inject(id(self, from), id(self, to), frame);
                }
            }
            Action::SlowReads { at, read_ms } => {
                self.processes[place(at)].disk.set_read_ms(u64::from(read_ms));
            }
            Action::Backup { at } => {
                let process = &mut self.processes[place(at)];
                if process.starts > 0 && !process.rolled_back {
                    let image = process.disk.image();
                    process.backup = Some(image).filter(|image| !image.0.is_empty());
                }
            }
            Action::Restore { at } => self.restore(place(at))?,
            Action::Link { from, to, percent, delay_ms, blocked } => {
                let [loss, duplicate, reorder, corrupt] = percent.map(|percent| f64::from(percent) / 100.);
                let delay = u64::from(delay_ms);
                let link = Link {
                    loss,
                    duplicate,
                    duplicate_delay_ms: 0..=delay * 20,
                    reorder,
                    corrupt,
                    delay_ms: 0..=delay,
                    blocked,
                };
                self.network.set(id(self, from), id(self, to), link);
            }
            Action::Partition { mask } => {
                let ids = self.processes.iter().map(|process| process.id).enumerate();
                let (one, other): (Vec<_>, Vec<_>) = ids.partition(|(at, _)| mask >> (at % 8) & 1 == 1);
                let ids = |side: Vec<(usize, ReplicaId)>| -> Vec<ReplicaId> {
                    side.into_iter().map(|(_, id)| id).collect()
                };
                self.network.partition(&ids(one), &ids(other));
            }
            Action::Disconnect { one, other } => {
                if place(one) != place(other) {
                    self.network.disconnect(id(self, one), id(self, other));
                }
            }
            Action::Flap { one, other, times } => {
                let (one, other) = (id(self, one), id(self, other));
                for _ in 0..times {
                    if one != other {
                        // Each is heard of on its own.
                        self.network.disconnect(one, other);
                        self.settle()?;
                        self.network.connect(one, other);
                        self.settle()?;
                    }
                }
            }
            Action::Noise { from, to, kind, len } => {
                let body: Vec<u8> = (0..len).map(|_| self.rng.u8(..)).collect();
                let frame = match kind {
                    Some(kind) => fuzz::seal(GROUP, kind, &body),
                    None => body.into(),
                };
                // Nobody may be there.
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
            Action::Join { .. } => {
                if count < usize::from(REPLICAS_MAX) {
                    self.add_process();
                }
            }
        }
        Ok(())
    }

    /// An old disk: what it lost of its own stream is gone, unless others have it. Its app only reads from here on, so
    /// that there are no two histories of which both are right.
    fn restore(&mut self, at: usize) -> Result<(), Failure> {
        // The founder adds the others.
        let Some(image) = self.processes[at].backup.take().filter(|_| at != 0) else { return Ok(()) };
        self.processes[at].disk.set_applies_cut(false);
        self.kill(at);
        // What it committed until now stays true, wherever else it is.
        let (id, last) = (self.processes[at].id, self.processes[at].disk.image());
        self.oracle.borrow_mut().learn(id, &last)?;
        let now = self.timeline.now_ms();
        let process = &mut self.processes[at];
        process.disk.restore(&image);
        process.rolled_back = true;
        process.starts_at = Some(now + 10);
        Ok(())
    }

    fn next_serial(&mut self, author: usize) -> u64 {
        self.serial += 1;
        let told = Told { author, outcome: Outcome::Open };
        self.oracle.borrow_mut().expect(self.serial, told);
        self.serial
    }

    fn commit(&mut self, at: usize, edits: Vec<Edit>, cancelled: Option<u8>) {
        if self.processes[at].rolled_back {
            return;
        }
        let Some(manager) = self.manager(at) else { return };
        let device = self.processes[at].device;
        let mut serials = Vec::new();
        let mut named = BTreeSet::new();
        let mut staged = Vec::new();
        for edit in edits {
            let (kind, id, put) = match edit {
                Edit::Note(id, put) => (0, id, put),
                Edit::Place(id, put) => (1, id, put),
                Edit::Set(id, put) => (2, id, put),
            };
            if kind == 2 && !self.processes[at].knows_sets {
                continue;
            }
            // Of two edits of one record only the later would count.
            if named.insert((kind, id)) {
                let serial = put.then(|| self.next_serial(at));
                serials.extend(serial);
                staged.push((edit, serial));
            }
        }
        let told = self.teller(serials);
        self.executor.spawn_for(Some(at), cancelled, async move {
            let result = manager
                .commit_batch(|batch| {
                    for (edit, serial) in staged {
                        match (edit, serial) {
                            (Edit::Note(id, _), Some(serial)) => batch.put(&Note { id, serial })?,
                            (Edit::Note(id, _), None) => batch.delete::<Note>(id)?,
                            (Edit::Place(id, _), Some(serial)) => {
                                batch.put(&Place { id, device_id: device, serial })?;
                            }
                            (Edit::Place(id, _), None) => batch.delete::<Place>((device, id))?,
                            (Edit::Set(id, _), Some(serial)) => {
                                batch.put(&Set { id, serials: [serial].into() })?;
                            }
                            (Edit::Set(id, _), None) => batch.delete::<Set>(id)?,
                        }
                    }
                    Ok(())
                })
                .await;
            told(result);
        });
    }

    fn commit_pair(&mut self, at: usize) {
        if self.processes[at].rolled_back {
            return;
        }
        let Some(manager) = self.manager(at) else { return };
        let serial = self.next_serial(at);
        let told = self.teller(vec![serial]);
        self.executor.spawn(Some(at), async move {
            let put = manager.commit_batch(|batch| {
                Ok(PAIR.iter().try_for_each(|id| batch.put(&Note { id: *id, serial }))?)
            });
            told(put.await);
        });
    }

    /// What is to be done with the answer to a commit.
    fn teller(&self, serials: Vec<u64>) -> impl FnOnce(Result<(), Error>) + use<> {
        let (oracle, committed) = (Rc::clone(&self.oracle), Rc::clone(&self.committed));
        move |result| {
            let outcome = match result {
                Ok(()) => Outcome::Committed,
                Err(Error::Unknown(_)) => Outcome::Open,
                Err(_) => Outcome::Failed,
            };
            if outcome == Outcome::Committed {
                committed.set(committed.get() + 1);
            }
            serials.into_iter().for_each(|serial| oracle.borrow_mut().tell(serial, outcome));
        }
    }

    // --- judging --------------------------------------------------------------------------------------------------

    /// Judges every store that was written since the last time: first what each says of its own commits. One that was
    /// restored may contradict the others, and is whole.
    fn judge(&mut self) -> Result<(), Failure> {
        let mut touched = Vec::new();
        for process in &mut self.processes {
            let writes = process.disk.writes();
            if std::mem::replace(&mut process.judged, writes) == writes {
                continue;
            }
            let image = process.disk.image();
            if process.rolled_back {
                oracle::check_whole(process.id, &image)?;
            } else {
                self.oracle.borrow_mut().learn(process.id, &image)?;
                touched.push((process, image));
            }
        }
        for (process, image) in touched {
            let view = self.oracle.borrow().judge(process.id, &image, process.knows_sets)?;
            let heads = view.heads.iter().map(|(stream, (seq, _))| (*stream, *seq)).collect();
            let before = std::mem::replace(&mut process.heads, heads);
            let lost = before.iter().find(|(stream, seq)| process.heads.get(*stream) < Some(*seq));
            if let Some((stream, seq)) = lost {
                let detail = format!("{} had {stream} up to {seq}", process.id);
                return fail("C14 what was seen stays", detail);
            }
        }
        Ok(())
    }

    fn make_peace(&mut self) {
        self.peace = true;
        self.network.heal();
        self.network.set_all(Link::default());
        let now = self.timeline.now_ms();
        // Apps are updated: what could not be merged before is merged now.
        for at in 0..self.processes.len() {
            if !self.processes[at].knows_sets {
                self.kill(at);
            }
        }
        for process in &mut self.processes {
            process.clock.set(Wall::Off(0));
            process.disk.heal();
            process.paused_until = 0;
            if !process.running && !process.lost {
                process.starts_at = Some(now);
            }
        }
    }

    /// The stores of all members that can be expected to agree, if they do.
    fn converged(&mut self) -> Result<Option<Vec<View>>, Failure> {
        let mut views = Vec::new();
        for process in &self.processes {
            if process.lost || process.rolled_back {
                continue;
            }
            if !process.running || !process.added.get() {
                return Ok(None);
            }
            views.push(self.oracle.borrow().judge(process.id, &process.disk.image(), process.knows_sets)?);
        }
        let Some(first) = views.first() else { return Ok(Some(views)) };
        let heads = |view: &View| -> BTreeMap<_, _> {
            let heads = view.heads.clone().into_iter();
            heads.filter(|(_, (seq, _))| *seq > 0).collect()
        };
        let expected = heads(first);
        let agree = views.iter().all(|view| heads(view) == expected);
        Ok(agree.then_some(views))
    }

    /// What goes on once all agree: next to nothing. A store that was restored and lacks what others know of it has
    /// noticed, and says so.
    fn check_rest(&mut self) -> Result<(), Failure> {
        // What is under way arrives; then three rounds of hellos.
        self.run_until(self.timeline.now_ms() + 1_000)?;
        let before = self.network.total().sent_frames;
        self.run_until(self.timeline.now_ms() + 90_000)?;
        let running = self.processes.iter().filter(|process| process.running).count() as u64;
        let (frames, pairs) =
            (self.network.total().sent_frames - before, running * running.saturating_sub(1));
        // Who was restored may be asked for what it has lost, ever more rarely.
        let restored = self.processes.iter().any(|process| process.rolled_back);
        if !restored && frames > pairs * IDLE_FRAMES_MAX {
            let detail = format!("{frames} frames in 90 s between {running} replicas that agree");
            return fail("Y14 an idle network is silent but for hellos", detail);
        }
        for at in 0..self.processes.len() {
            let process = &self.processes[at];
            if !process.rolled_back || process.lost {
                continue;
            }
            let image = process.disk.image();
            let own = futures::executor::block_on(history::heads(&image)).unwrap_or_default();
            let own = own.iter().find(|(replica, ..)| *replica == process.id).map_or(0, |(_, seq, _)| *seq);
            let known =
                self.processes.iter().filter(|other| !other.lost && !other.rolled_back).any(|other| {
                    let image = other.disk.image();
                    let heads = futures::executor::block_on(history::heads(&image)).unwrap_or_default();
                    heads.iter().any(|(replica, seq, _)| *replica == process.id && *seq > own)
                });
            let (manager, said) = (self.manager(at), Rc::new(Cell::new(false)));
            if let Some(manager) = manager {
                let told = Rc::clone(&said);
                self.executor.spawn(Some(at), async move {
                    told.set(manager.status().await.is_ok_and(|status| status.restored.is_some()));
                });
                self.settle()?;
            }
            if known && !said.get() {
                let id = self.processes[at].id;
                return fail("Y15 a restored store is noticed", format!("{id} has {own} of its commits"));
            }
        }
        Ok(())
    }

    /// What everybody has, for a message.
    fn explain(&self) -> String {
        let mut lines = Vec::new();
        for process in &self.processes {
            let heads =
                futures::executor::block_on(history::heads(&process.disk.image())).unwrap_or_default();
            let heads: Vec<_> =
                heads.iter().map(|(id, seq, _)| format!("{:x}:{seq}", id.0.as_u128())).collect();
            let Process { running, lost, rolled_back, .. } = process;
            let added = process.added.get();
            let id = process.id.0.as_u128();
            lines.push(format!(
                "{id:x}: {} running {running} lost {lost} restored {rolled_back} added {added}",
                heads.join(" ")
            ));
        }
        let happened = (0..).zip(MARKS).filter(|(bit, _)| self.marks.get() >> bit & 1 == 1);
        lines.push(happened.map(|(_, mark)| mark).collect::<Vec<_>>().join(", "));
        lines.join("\n")
    }
}

/// Whether somebody has to let a stream through, since nobody waits until its stamps are in the past.
fn is_held_for_long(stream: &StreamStatus) -> bool {
    let far_ms = EPOCH_MS + FAR_MS.unsigned_abs() / 2;
    matches!(stream.stopped, Some(StreamStop::Held { stamp, .. }) if stamp.wall().get() > far_ms)
}

/// Nobody says of itself or of another what is not so (H3), and no clock that is right is dragged ahead by others (H6).
fn check_status(status: &Status, rolled_back: bool, right_ms: Option<u64>) -> Result<(), Failure> {
    if let Some(restored) = status.restored.filter(|_| !rolled_back) {
        return fail("H3 only what was restored is called so", format!("{}: {restored}", status.replica));
    }
    for stream in &status.streams {
        if let Some(reason @ (StreamStop::Forked { .. } | StreamStop::Refused { .. })) = &stream.stopped {
            let detail = format!("{} stops {}: {reason}", status.replica, stream.replica);
            return fail("H3 honest streams are not stopped", detail);
        }
    }
    let ahead = right_ms.map(|now| status.clock.wall().get().saturating_sub(now)).unwrap_or_default();
    if ahead > Limits::default().max_drift_ms {
        return fail("H6 no clock is dragged ahead", format!("{} stands {ahead} ms ahead", status.replica));
    }
    Ok(())
}

/// Follows the events of one life of a replica: each stream's in the order of its commits, and none twice (C4).
async fn watch(mut events: syncline::Events, found: Rc<RefCell<Option<Failure>>>) {
    let mut last = BTreeMap::<ReplicaId, (u64, BTreeSet<String>)>::new();
    while let Some(event) = events.next().await {
        let Ok(Event::Changed(change)) = event else { continue };
        let seen = last.entry(change.stamp.replica()).or_default();
        if change.seq > seen.0 {
            *seen = (change.seq, BTreeSet::new());
        }
        if change.seq < seen.0 || !seen.1.insert(change.record.to_string()) {
            let detail = format!("commit {} of {} is told again", change.seq, change.stamp.replica());
            let failure = Failure { property: "C4 events come once, in order", detail, at_ms: 0 };
            *found.borrow_mut() = Some(failure);
        }
    }
}
