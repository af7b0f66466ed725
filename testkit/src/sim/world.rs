//! A run of a plan: processes that come and go, the network between them, and one time for all.
//!
//! The world polls one task after the other and has every store that was written judged after each poll. Its parts:
//! `actions` does what a step of the plan says, `processes` starts and ends processes, `apps` commits, `calls` makes the
//! calls that run code of the app, `tables` looks at apps at rest, `chores` adds
//! joiners and reads statuses, `damage` looks at a disk with a bit that flipped, `histories` at a
//! stream that has two, `judging` asks the oracle,
//! `meanwhile` looks at those whose links are good, `peace` ends the faults and checks what is left, `probing`
//! looks at replicas that have converged, `telling` compares what subscribers are told with the stores, and `watching`
//! takes what tasks find wrong.

mod actions;
mod apps;
mod calls;
mod chores;
mod damage;
mod histories;
mod judging;
mod meanwhile;
mod peace;
mod probing;
mod processes;
mod tables;
mod telling;
mod watching;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use syncline::internals::Rules;
use syncline::{GroupId, Uuid};
use syncline_backends::MemoryNetwork;

use self::apps::Apps;
use self::chores::AcksSeen;
use self::meanwhile::Meanwhile;
use self::processes::Process;
use self::watching::Findings;
use super::app::{Kind, Kinds};
use super::executor::Executor;
use super::oracle::Oracle;
use super::plan::Plan;
use super::time::{SimClock, Timeline};
use super::{Failure, PEACE_MS, Report, fail};

const GROUP: GroupId = GroupId(Uuid::from_u128(0x6709));

/// More polls than any run needs. A run that takes more has tasks that wake each other for ever.
const POLLS_MAX: u64 = 3_000_000;

/// How often the [chores](World::do_chores) are done.
const CHORES_MS: u64 = 500;

/// How often that is once the replicas have converged, or while nothing happens.
const RARE_CHORES_MS: u64 = 10_000;

/// How long after a step they are done often.
const BUSY_MS: u64 = 10_000;

/// The state of a run.
pub(super) struct World {
    plan: Plan,
    rules: Rules,
    timeline: Timeline,
    network: MemoryNetwork,
    executor: Executor,
    /// Draws the order of the tasks, and the bytes of noise.
    rng: fastrand::Rng,
    processes: Vec<Process>,
    oracle: Rc<RefCell<Oracle>>,
    apps: Apps,
    findings: Findings,
    /// The marks that any engine has set, as bits of [`MARKS`](syncline::internals::MARKS).
    marks: Rc<Cell<u32>>,
    kinds: Kinds,
    polls: u64,
    deaths: u64,
    deaths_opening: u64,
    digest: Digest,
    next_chores_ms: u64,
    acks: AcksSeen,
    meanwhile: Meanwhile,
    /// Until when chores are done often: a while after the last step.
    busy_until_ms: u64,
    /// Whether some commits are too large for the limits of some replicas, whose streams stop there.
    limits_differ: bool,
    /// Whether a link was ever slow or bad.
    has_slow_links: bool,
    /// How long a page may still be on its way once the faults have ended.
    longest_page_ms: u64,
    /// How long a pull was lost in a probe; 0 if that was not tried.
    lost_pull_ms: u64,
    /// Whether the replicas, once they converged, had not all commits: some are too large or of another history.
    parted: bool,
    /// Whether the faults have ended.
    peace: bool,
    /// Whether the replicas have converged since.
    converged: bool,
}

impl World {
    pub(super) fn new(plan: &Plan, rules: Rules) -> Self {
        let timeline = Timeline::default();
        let network = MemoryNetwork::builder().seed(plan.seed).clock(SimClock::new(&timeline)).build();
        let oracle = Rc::<RefCell<Oracle>>::default();
        let kinds = Kinds::default();
        let mut world = Self {
            plan: plan.clone(),
            rules,
            timeline,
            network,
            executor: Executor::default(),
            rng: fastrand::Rng::with_seed(plan.seed),
            processes: Vec::new(),
            apps: Apps::new(&oracle, &kinds),
            oracle,
            findings: Findings::default(),
            marks: Rc::default(),
            kinds,
            polls: 0,
            deaths: 0,
            deaths_opening: 0,
            digest: Digest::new(),
            next_chores_ms: 0,
            acks: AcksSeen::default(),
            meanwhile: Meanwhile::new(&plan.steps),
            busy_until_ms: 0,
            limits_differ: plan.limits_differ(),
            has_slow_links: plan.has_slow_links(),
            longest_page_ms: plan.longest_page_ms(),
            lost_pull_ms: 0,
            parted: false,
            peace: false,
            converged: false,
        };
        world.add_process(None, None);
        for _ in 1..plan.replicas {
            world.add_process(Some(0), None);
        }
        world
    }

    /// Plays the plan to its end.
    pub(super) fn run(mut self) -> Result<Report, Failure> {
        self.play().map_err(|failure| Failure { at_ms: self.timeline.now_ms(), ..failure })
    }

    fn play(&mut self) -> Result<Report, Failure> {
        for step in std::mem::take(&mut self.plan.steps) {
            self.run_until(self.timeline.now_ms() + u64::from(step.after_ms))?;
            let now = self.timeline.now_ms();
            self.busy_until_ms = now + BUSY_MS;
            self.meanwhile.take(&step.action, self.processes.len(), now);
            self.act(step.action)?;
            self.settle()?;
        }
        self.run_until(self.timeline.now_ms() + 1_000)?;
        self.make_peace();
        let peace_began = self.timeline.now_ms();
        let (faults_end, mut pause) = (peace_began + self.longest_page_ms, 100);
        let views = loop {
            self.run_until(self.timeline.now_ms() + pause)?;
            if let Some(views) = self.converged()? {
                break views;
            }
            if self.timeline.now_ms() > self.holds_until_ms().max(faults_end) + PEACE_MS {
                return fail("Y1 peers converge", format!("{}\n{}", self.explain(), self.explain_stops()?));
            }
            pause = (pause * 2).min(10_000);
        };
        self.converged = true;
        let peace_ms = self.timeline.now_ms() - peace_began;
        let excuses = self.excuses()?;
        let trusted = |at: usize| !self.processes[at].lost && self.processes[at].is_sound();
        let author = |at: usize| trusted(at).then(|| self.processes[at].id);
        self.oracle.borrow().judge_all(&views, &excuses, author)?;
        self.check_rest()?;
        for record in views.iter().flat_map(|view| &view.records) {
            self.digest.mix(record.record.to_string().as_bytes());
            self.digest.mix(record.value.as_deref().unwrap_or(b"deleted"));
        }
        if self.processes.iter().any(|process| process.disk.has_cut_joins()) {
            self.kinds.note(Kind::JoinedCut);
        }
        Ok(Report {
            digest: self.digest.0,
            commits: self.apps.committed(),
            polls: self.polls,
            deaths: self.deaths,
            deaths_opening: self.deaths_opening,
            frames: self.network.total().sent_frames,
            peace_ms,
            lost_pull_ms: self.lost_pull_ms,
            marks: self.marks.get(),
            kinds: self.kinds.bits(),
        })
    }

    /// Lets time pass until `end_ms`: polls every task that can go on, moves to the next time at which something is
    /// due, and so on.
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
                let rarely = self.converged || !self.peace && next > self.busy_until_ms;
                self.next_chores_ms = next + if rarely { RARE_CHORES_MS } else { CHORES_MS };
                self.do_chores();
                self.look_meanwhile()?;
            }
            if next >= end_ms {
                return self.settle();
            }
        }
    }

    /// Polls tasks until none can go on, while time stands still.
    fn settle(&mut self) -> Result<(), Failure> {
        loop {
            self.start_due();
            let now = self.timeline.now_ms();
            let processes = &self.processes;
            let Some(polled) = self.executor.step(&mut self.rng, |at| processes[at].paused_until > now)
            else {
                return self.compare_told();
            };
            self.polls += 1;
            self.digest.mix(&polled.number.to_be_bytes());
            self.digest.mix(&now.to_be_bytes());
            if let Some(panic) = polled.panic {
                return fail("nothing panics", panic);
            }
            if let Some(failure) = self.findings.take() {
                return Err(failure);
            }
            if self.polls > POLLS_MAX {
                return fail("nobody runs in circles", self.explain());
            }
            self.restart_ended();
            self.judge(false)?;
        }
    }
}

/// A hash of everything that has happened (FNV-1a), by which two runs are compared.
struct Digest(u64);

impl Digest {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
