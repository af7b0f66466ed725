//! A simulator: whole replicas, with their real drivers and engines, over stores, a network and clocks that fail as a
//! plan says, in virtual time and one step at a time.
//!
//! A [`Plan`] is drawn from a seed and kept as data: who commits what, which processes die, which stores fail, what
//! becomes of links and clocks. [`run`] plays it. While it plays, every store is judged by an oracle that knows only
//! what lies in the stores' logs: it is whole, it holds exactly what its commits come to, causes before effects, both
//! halves of what belongs together, nothing that was never committed. Then the faults end, and within
//! [`PEACE_MS`] everybody must have everything that any app was told is committed.
//!
//! Everything is a function of the plan: the same plan gives the same [digest](Report::digest). A failure can be
//! [shortened](shrink), and is printed as one line that [`Plan::parse`] reads.
//!
//! ```
//! use syncline_testkit::sim::{Plan, run};
//!
//! let report = run(&Plan::generate(7), Default::default()).unwrap();
//! assert!(report.commits > 0);
//! ```

mod executor;
mod models;
mod oracle;
mod plan;
mod store;
mod time;
mod world;

use std::fmt;

use syncline::internals::Rules;

pub use plan::{Action, Edit, Plan, Step};
pub use store::StoreFault;
pub use time::Wall;

/// How long replicas have, in virtual time, to converge after the last fault.
pub const PEACE_MS: u64 = 45 * 60 * 1000;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// A hash of every step that was taken and of the stores at the end.
    pub digest: u64,
    /// How many values the apps were told are committed.
    pub commits: u64,
    /// How many steps were taken.
    pub polls: u64,
    /// How often a process died in the middle of an operation of its store.
    pub deaths: u64,
    /// How often of these it had not been opened yet.
    pub deaths_opening: u64,
    /// How many frames were sent.
    pub frames: u64,
    /// How long it took to converge after the last fault, in virtual time.
    pub peace_ms: u64,
    /// What has happened, by the bits of [`MARKS`](syncline::internals::MARKS).
    pub marks: u32,
}

/// What a run has broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The property, by its number and name.
    pub property: &'static str,
    /// Where.
    pub detail: String,
    /// When, in virtual time.
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

/// Shortens a plan that fails: leaves out what it fails without, from long stretches down to single steps.
///
/// Whatever property a shorter plan breaks, it is as good.
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
