//! A simulator: whole replicas, with their real drivers and engines, over stores, a network and clocks that fail as a
//! plan says, in virtual time and one step at a time.
//!
//! A [`Plan`] is drawn from a seed and kept as data: the commits of the apps, their code that fails, their other versions,
//! the crashes of processes, the faults of stores, links and clocks. [`run`] plays it. After each step an oracle judges
//! every store that was written, from the rows of the stores alone: the store is whole, its records are what its commits
//! make of them, no commit is there without its causes, no commit is there in part, nothing is there that was never
//! committed, the rows of an app are there with the commits that were made beside them, and a projection is its records
//! less its debts. Then the faults end, and within [`PEACE_MS`] every replica must have every commit of which an app was
//! told that it is made. At rest no projection owes anything, and no value waits to be merged.
//!
//! A run is a function of its plan: the same plan gives the same [digest](Report::digest). A plan that fails can be
//! [shortened](shrink), and is printed as one line that [`Plan::parse`] reads.
//!
//! ```
//! use syncline_testkit::sim::{Plan, run};
//!
//! let report = run(&Plan::generate(7), Default::default()).unwrap();
//! assert!(report.commits > 0);
//! ```

mod app;
mod deletes;
mod executor;
mod joined;
mod models;
mod oracle;
mod plan;
mod store;
mod tables;
mod time;
mod world;

use std::fmt;

use syncline::internals::Rules;

pub use app::{KINDS, Version};
pub use plan::{Action, Edit, Failing, Plan, Rate, Sizes, Step};
pub use store::StoreFault;
pub use tables::Trouble;
pub use time::Wall;

/// How long replicas have, in virtual time, to converge after the last fault: two rounds of hellos, and the longest pause
/// between two tries. Where a clock was wrong, they first wait until time has reached what was stamped meanwhile.
pub const PEACE_MS: u64 = 2 * 60 * 1000;

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// A hash of every poll of a task and of the stores at the end.
    pub digest: u64,
    /// How many commits returned `Ok`.
    pub commits: u64,
    /// How many times a task was polled.
    pub polls: u64,
    /// How often a process died in the middle of an operation of its store.
    pub deaths: u64,
    /// How many of these deaths came while the process opened its store.
    pub deaths_opening: u64,
    /// How many frames were sent.
    pub frames: u64,
    /// How long the replicas took to converge after the last fault, in virtual time.
    pub peace_ms: u64,
    /// How long the answer to a pull took that was lost at the end, after the link was good again; 0 if there was none.
    pub lost_pull_ms: u64,
    /// The marks that any engine has set, as bits of [`MARKS`](syncline::internals::MARKS).
    pub marks: u32,
    /// The kinds of things that the apps have met, as bits of [`KINDS`].
    pub kinds: u32,
}

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The number and name of the property.
    pub property: &'static str,
    /// Which replica breaks it, and how.
    pub detail: String,
    /// When it was found, in virtual time.
    pub at_ms: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {} ms): {}", self.property, self.at_ms, self.detail)
    }
}

impl std::error::Error for Failure {}

fn fail<T>(property: &'static str, detail: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { property, detail: detail.into(), at_ms: 0 })
}

/// Plays a plan.
///
/// # Errors
/// The first property that does not hold.
pub fn run(plan: &Plan, rules: Rules) -> Result<Report, Failure> {
    world::World::new(plan, rules).run()
}

/// Shortens a plan that fails: leaves out steps, from long stretches down to single ones, as long as the rest still
/// fails. The rest may break another property than the whole plan did.
#[must_use]
pub fn shrink(plan: &Plan, rules: Rules) -> Plan {
    let mut plan = plan.clone();
    let mut len = plan.steps.len().next_power_of_two() / 2;
    while len > 0 {
        let mut at = 0;
        while at < plan.steps.len() {
            let mut shorter = plan.clone();
            let end = (at + len).min(shorter.steps.len());
            shorter.steps.drain(at..end);
            if run(&shorter, rules).is_err() {
                plan = shorter;
            } else {
                at += len;
            }
        }
        len /= 2;
    }
    plan
}

/// Plays the plan of a seed, and explains a failure: the property, the shortened plan, and the line to repeat it.
///
/// # Errors
/// The explanation.
pub fn check(seed: u64, rules: Rules) -> Result<Report, String> {
    let plan = Plan::generate(seed);
    run(&plan, rules).map_err(|_| {
        let plan = shrink(&plan, rules);
        let failure = run(&plan, rules).err();
        let failure = failure.map_or_else(|| "it does not fail twice".into(), |failure| failure.to_string());
        format!("seed {seed}: {failure}\nrepeat: SYNCLINE_PLAN={}\n{:#?}", plan.to_line(), plan.steps)
    })
}
