//! A simulator for apps: their models, their merges and their work, on several replicas whose processes, stores, network and
//! clocks fail as a seed says.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use syncline::Syncable;
//! use syncline_testkit::app_sim::AppSim;
//!
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
//! #[sync(model = "task")]
//! struct Task {
//!     #[sync(id)]
//!     id: u32,
//!     title: String,
//!     done: bool,
//! }
//!
//! let report = AppSim::play(|| {
//!     AppSim::new()
//!         .model::<Task>()
//!         .workload(async |mut random, manager| {
//!             let id = random.u32(..8);
//!             match manager.get::<Task>(id).await? {
//!                 Some(task) => manager.commit(Task { done: true, ..task }).await?,
//!                 None => manager.commit(Task { id, title: format!("task {id}"), done: false }).await?,
//!             };
//!             Ok(())
//!         })
//!         // An invariant of the app: what all replicas agree on is what a title must be.
//!         .check(async |replicas| {
//!             for replica in replicas {
//!                 for id in 0..8 {
//!                     if let Some(task) = replica.get::<Task>(id).await.unwrap() {
//!                         assert_eq!(task.title, format!("task {id}"));
//!                     }
//!                 }
//!             }
//!         })
//!         .seeds(3)
//! });
//! assert!(report.crashes > 0 && report.works > 0);
//! ```
//!
//! A history is a list of steps, drawn from a seed: pieces of work, each on a replica that the seed picks; processes that die
//! between two steps or in the middle of one; stores that fail, or do not say what became of a write; connections that
//! go and come; links that lose, repeat, delay, reorder and damage frames; wall clocks that are set. Then everything works
//! again. All replicas must agree, to the byte; every store must be [whole](syncline::audit); and the app's
//! [check](AppSim::check) must hold.
//!
//! Nothing waits for real time, and nothing is drawn but from the seed, so the same seed is the same history, as long as the
//! app's work draws from the generator that it is given and from nothing else. A history that fails is shortened, and
//! printed with its seed; `SYNCLINE_SEED` is the first seed to be played.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;

use fastrand::Rng;
use futures::future::{Either, LocalBoxFuture, select};
use syncline::{BoxError, Builder, Entry, Syncable, TransactionManager};
use syncline_backends::Link;

use super::peer::{Peer, Store};
use super::world::{GROUP, World, knocks, play_seeded};
use crate::quiet::{catch_quietly, text_of};
use crate::{Disk, Fault, FaultKind, seed};

/// The store of a replica in the simulator: in memory, correct but for the faults of the history.
pub type SimStore = Store<Disk>;

/// The manager of a replica in the simulator.
pub type SimManager = TransactionManager<SimStore>;

type Setup = fn(Builder<SimStore>) -> Builder<SimStore>;
type Work = Rc<dyn Fn(Rng, SimManager) -> LocalBoxFuture<'static, Result<(), BoxError>>>;
type Check = Rc<dyn Fn(Vec<SimManager>) -> LocalBoxFuture<'static, ()>>;

/// An app in the simulator.
pub struct AppSim {
    models: Vec<Setup>,
    work: Vec<Work>,
    check: Vec<Check>,
    without: Vec<SimFault>,
    replicas: u8,
    steps: usize,
    seeds: u64,
}

/// What a history may do to an app. All of it happens, unless a kind is left [out](AppSim::without).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SimFault {
    /// Processes die, also in the middle of a piece of work.
    Crashes,
    /// Stores fail to read or write, or do not say what became of a write.
    Stores,
    /// Replicas lose their connection.
    Partitions,
    /// Links lose, repeat, delay, reorder and damage frames.
    Links,
    /// Wall clocks are set, by up to two minutes, or stop.
    Clocks,
}

/// The account of what was played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimReport {
    /// How many histories.
    pub seeds: u64,
    /// How many pieces of work returned `Ok`.
    pub works: u64,
    /// How many pieces of work returned an error, as most do whose process died or whose store failed.
    pub works_failed: u64,
    /// How many processes died.
    pub crashes: u64,
    /// How often a replica stopped because of its store.
    pub stops: u64,
}

impl AppSim {
    /// An app without models and work, on three replicas: 20 histories of 60 steps.
    #[allow(clippy::new_without_default, reason = "an app without work is nothing to play")]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            models: Vec::new(),
            work: Vec::new(),
            check: Vec::new(),
            without: Vec::new(),
            replicas: 3,
            steps: 60,
            seeds: 20,
        }
    }

    /// Registers a model.
    #[must_use]
    pub fn model<M: Syncable>(mut self) -> Self {
        self.models.push(Builder::model::<M>);
        self
    }

    /// Adds a piece of work, which a history does any number of times on any replica. It draws from the generator alone.
    ///
    /// An error is no failure: a store that fails and a process that dies make errors, and the work is then over. What must
    /// not happen is asserted, here or in [`check`](Self::check).
    #[must_use]
    pub fn workload<W>(mut self, work: W) -> Self
    where
        W: AsyncFn(Rng, SimManager) -> Result<(), BoxError> + 'static,
    {
        let work = Rc::new(work);
        self.work.push(Rc::new(move |random, manager| {
            let work = Rc::clone(&work);
            Box::pin(async move { work(random, manager).await })
        }));
        self
    }

    /// Adds an invariant of the app: called at the end of each history, when all replicas agree, with the managers of all.
    #[must_use]
    pub fn check<C: AsyncFn(Vec<SimManager>) + 'static>(mut self, check: C) -> Self {
        let check = Rc::new(check);
        self.check.push(Rc::new(move |managers| {
            let check = Rc::clone(&check);
            Box::pin(async move { check(managers).await })
        }));
        self
    }

    /// Leaves a kind of fault out.
    #[must_use]
    pub fn without(mut self, fault: SimFault) -> Self {
        self.without.push(fault);
        self
    }

    /// Sets how many replicas there are, two to seven.
    #[must_use]
    pub const fn replicas(mut self, replicas: u8) -> Self {
        assert!(2 <= replicas && replicas <= 7, "two to seven replicas");
        self.replicas = replicas;
        self
    }

    /// Sets how many steps a history has.
    #[must_use]
    pub const fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Sets how many histories are played.
    #[must_use]
    pub const fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = seeds;
        self
    }

    /// Plays the histories of an app that `app` makes, anew for each of them: what its closures remember begins anew too.
    ///
    /// # Panics
    /// If replicas do not agree, a store is not whole, a piece of work never returns, or an assertion of the app fails. The
    /// message has the shortened history and its seed.
    pub fn play(app: impl Fn() -> Self) -> SimReport {
        let Self { seeds, .. } = app();
        let first = seed();
        let mut sum = SimReport::default();
        for seed in first..first.saturating_add(seeds) {
            let steps = app().draw(seed);
            match app().history(seed, &steps) {
                Ok(report) => {
                    sum.seeds += 1;
                    sum.works += report.works;
                    sum.works_failed += report.works_failed;
                    sum.crashes += report.crashes;
                    sum.stops += report.stops;
                }
                Err(message) => {
                    let (steps, message) = shortened(&app, seed, steps, message);
                    let steps = steps.iter().fold(String::new(), |text, step| format!("{text}\n  {step:?}"));
                    panic!(
                        "{message}\nThis is what a history of {seed} comes to. Play it again: SYNCLINE_SEED={seed}. Its steps, \
                         shortened:{steps}"
                    );
                }
            }
        }
        sum
    }

    /// Plays one history, and returns the message if it fails.
    fn history(self, seed: u64, steps: &[Step]) -> Result<SimReport, String> {
        let played = catch_quietly(|| futures::executor::block_on(self.play_steps(seed, steps)));
        played.map_err(|panic| text_of(&*panic).to_owned())
    }

    async fn play_steps(&self, seed: u64, steps: &[Step]) -> SimReport {
        let mut report = SimReport::default();
        play_seeded(
            seed,
            &Disk::new,
            |network| network,
            async |world| {
                let mut app = Running { sim: self, world, peers: Vec::new(), report: SimReport::default() };
                app.found().await;
                for step in steps {
                    app.act(step).await;
                }
                app.come_to_rest().await;
                report = app.report;
            },
        )
        .await;
        report
    }

    fn draw(&self, seed: u64) -> Vec<Step> {
        let mut random = Rng::with_seed(seed);
        (0..self.steps).map(|_| self.draw_step(&mut random)).collect()
    }

    fn draw_step(&self, random: &mut Rng) -> Step {
        let at = random.usize(..usize::from(self.replicas));
        let other = (at + 1 + random.usize(..usize::from(self.replicas) - 1)) % usize::from(self.replicas);
        let work = random.usize(..self.work.len().max(1));
        let seed = random.u64(..);
        // Every step draws the same numbers, so that leaving out a kind of fault leaves the rest of a history as it is.
        let (number, kind) = (random.u8(..), random.usize(..UNSURE.len()));
        let by_ms = random.i64(-120_000..=120_000);
        let (step, fault) = match number % 16 {
            0 => (Step::Crash { at }, SimFault::Crashes),
            1 | 2 => (Step::CrashDuring { at, work, seed, polls: number / 16 }, SimFault::Crashes),
            3 => (Step::StoreFails { at, operation: number / 32, kind: UNSURE[kind] }, SimFault::Stores),
            4 => (Step::Disconnect { at, other }, SimFault::Partitions),
            5 => (Step::Connect { at, other }, SimFault::Partitions),
            6 if number < 128 => (Step::BadLinks, SimFault::Links),
            6 => (Step::GoodLinks, SimFault::Links),
            7 if number < 224 => (Step::SetClock { at, by_ms }, SimFault::Clocks),
            7 => (Step::StopClock { at }, SimFault::Clocks),
            8 | 9 => return Step::Pass { ms: by_ms.unsigned_abs() / 4 },
            _ => return Step::Work { at, work, seed },
        };
        if self.without.contains(&fault) { Step::Work { at, work, seed } } else { step }
    }
}

impl fmt::Debug for AppSim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppSim")
            .field("replicas", &self.replicas)
            .field("steps", &self.steps)
            .field("seeds", &self.seeds)
            .field("without", &self.without)
            .finish_non_exhaustive()
    }
}

/// The faults of a store that a history draws. A read that panics panics in the app that reads, so panics are left out.
const UNSURE: [FaultKind; 4] =
    [FaultKind::ReadError, FaultKind::Rejected, FaultKind::UnknownApplied, FaultKind::UnknownLost];

/// One step of a history. Replicas, and pieces of work, are counted from zero.
#[derive(Clone, Debug)]
enum Step {
    Work { at: usize, work: usize, seed: u64 },
    Crash { at: usize },
    CrashDuring { at: usize, work: usize, seed: u64, polls: u8 },
    StoreFails { at: usize, operation: u8, kind: FaultKind },
    Disconnect { at: usize, other: usize },
    Connect { at: usize, other: usize },
    BadLinks,
    GoodLinks,
    SetClock { at: usize, by_ms: i64 },
    StopClock { at: usize },
    Pass { ms: u64 },
}

/// Leaves out steps as long as the rest still fails, from long stretches down to single ones.
fn shortened(
    app: &impl Fn() -> AppSim,
    seed: u64,
    mut steps: Vec<Step>,
    mut message: String,
) -> (Vec<Step>, String) {
    let mut len = steps.len().next_power_of_two() / 2;
    while len > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut shorter = steps.clone();
            shorter.drain(at..(at + len).min(steps.len()));
            match app().history(seed, &shorter) {
                Err(still) => (steps, message) = (shorter, still),
                Ok(_) => at += len,
            }
        }
        len /= 2;
    }
    (steps, message)
}

/// A history that is played.
struct Running<'s, 'w, 'f> {
    sim: &'s AppSim,
    world: &'w World<'f, Disk>,
    peers: Vec<Peer<Disk>>,
    report: SimReport,
}

/// How many turns a piece of work may take: far more than any that ends.
const TURNS_MAX: usize = 20_000;

impl Running<'_, '_, '_> {
    fn models(&self) -> impl Fn(Builder<SimStore>) -> Builder<SimStore> + use<> {
        let models = self.sim.models.clone();
        move |builder| models.iter().fold(builder, |builder, model| model(builder))
    }

    async fn found(&mut self) {
        for n in 0..self.sim.replicas {
            let mut peer = self.world.device(n);
            let models = self.models();
            let opened = match self.peers.first() {
                None => peer.open(self.world, |builder| models(builder).found(GROUP)).await,
                Some(first) => peer.open(self.world, |builder| models(builder).join(GROUP, first.id)).await,
            };
            opened.expect("a replica opens");
            if let Some(first) = self.peers.first() {
                self.world.until("a joiner knocks", async || knocks(first, peer.id).await).await;
                first.add_member(peer.id).await.expect("it is added");
                let is_member = async || peer.status().await.expect("it runs").joining.is_none();
                self.world.until("a joiner is a member", is_member).await;
            }
            self.peers.push(peer);
        }
    }

    async fn act(&mut self, step: &Step) {
        match *step {
            Step::Work { at, work, seed } => self.work(at, work, seed, None).await,
            Step::CrashDuring { at, work, seed, polls } => {
                self.work(at, work, seed, Some(usize::from(polls) + 1)).await;
            }
            Step::Crash { at } => self.crash(at).await,
            Step::StoreFails { at, operation, kind } => {
                self.peers[at].faults.arm(Fault::once(u64::from(operation), kind));
            }
            Step::Disconnect { at, other } => {
                self.world.network.disconnect(self.peers[at].id, self.peers[other].id);
            }
            Step::Connect { at, other } => {
                self.world.network.connect(self.peers[at].id, self.peers[other].id);
            }
            Step::BadLinks => self.world.network.set_all(Link {
                loss: 0.2,
                duplicate: 0.1,
                reorder: 0.2,
                corrupt: 0.05,
                delay_ms: 0..=400,
                duplicate_delay_ms: 0..=5_000,
                ..Link::default()
            }),
            Step::GoodLinks => self.world.network.set_all(Link::default()),
            Step::SetClock { at, by_ms } => {
                // From the right time, so that many steps do not add up to more than a group tolerates.
                let right = self.world.clock.another();
                right.step_wall(by_ms);
                self.peers[at].clock.set_wall(syncline::Clock::wall(&right));
            }
            Step::StopClock { at } => self.peers[at].clock.freeze_wall(),
            Step::Pass { ms } => self.world.pass(ms).await,
        }
        self.mend().await;
    }

    /// Does a piece of work, and lets the process die after so many turns, if there is a number.
    async fn work(&mut self, at: usize, work: usize, seed: u64, mut turns: Option<usize>) {
        let Some(work) = self.sim.work.get(work) else { return };
        let manager: SimManager = (*self.peers[at]).clone();
        let mut doing = work(Rng::with_seed(seed), manager);
        for turn in 0..TURNS_MAX {
            if turns.is_some_and(|turns| turn >= turns) {
                turns = None;
                self.crash(at).await;
            }
            match self.turn(&mut doing).await {
                Some(Ok(())) => {
                    self.report.works += 1;
                    return;
                }
                Some(Err(_)) => {
                    self.report.works_failed += 1;
                    return;
                }
                None => {}
            }
        }
        panic!("a piece of work never returns:\n{}", self.world.report().await);
    }

    /// Polls the work, and everything else once; if nothing can go on, lets time pass.
    async fn turn<T>(&self, doing: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        match select(doing, pin!(self.world.settle_or_pass())).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }

    async fn crash(&mut self, at: usize) {
        self.report.crashes += 1;
        self.peers[at].kill(self.world).await;
        self.reopen(at).await;
    }

    async fn reopen(&mut self, at: usize) {
        let models = self.models();
        // A store that fails while it is opened is opened again, as an app would be started again.
        self.peers[at].faults.disarm();
        let opened = self.peers[at].open(self.world, models).await;
        opened.expect("a replica opens again");
    }

    /// Opens again what has stopped because of its store.
    async fn mend(&mut self) {
        for at in 0..self.peers.len() {
            if self.peers[at].status().await.is_err() {
                self.report.stops += 1;
                self.peers[at].kill(self.world).await;
                self.reopen(at).await;
            }
        }
    }

    /// Lets everything work again, and checks all that must hold then.
    async fn come_to_rest(&mut self) {
        self.world.network.heal();
        for peer in &self.peers {
            peer.faults.disarm();
            peer.clock.set_wall(syncline::Clock::wall(&self.world.clock.another()));
        }
        self.mend().await;
        self.world.converged(&self.peers.iter().collect::<Vec<_>>()).await;
        for check in &self.sim.check {
            let managers = self.peers.iter().map(|peer| (**peer).clone()).collect();
            let mut checking = check(managers);
            let mut turns = 0;
            while self.turn(&mut checking).await.is_none() {
                turns += 1;
                assert!(turns < TURNS_MAX, "a check never returns:\n{}", self.world.report().await);
            }
        }
        let mut first: Option<Vec<Entry>> = None;
        for peer in &mut self.peers {
            peer.close(self.world).await;
            let mut records = peer.entries().await;
            records.retain(|entry| RECORDS.contains(&entry.key.first().copied().unwrap_or_default()));
            let first = first.get_or_insert_with(|| records.clone());
            let differs = first.iter().zip(&records).find(|(one, other)| one != other);
            let shown =
                |entry: &Entry| format!("{} = {}", entry.key.escape_ascii(), entry.value.escape_ascii());
            assert!(
                first.len() == records.len() && differs.is_none(),
                "replicas have the same commits and other records: {} and {} rows, first here: {:?}. A merge that does not keep \
                 its laws does that: see `merge_laws!`",
                first.len(),
                records.len(),
                differs.map(|(one, other)| [shown(one), shown(other)])
            );
        }
    }
}

/// The first bytes of the keys of records.
const RECORDS: std::ops::Range<u8> = 0x10..0xd0;
