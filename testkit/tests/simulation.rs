//! Goal: no history of commits, crashes, faults, losses and wrong clocks breaks a property, and the histories are rich
//! enough to need every rule of the protocol. Method: seeded plans, judged step by step; every rule switched off in
//! turn.
//!
//! `SYNCLINE_SEED` sets the first seed, `SYNCLINE_SIM_SEEDS` how many there are, and `SYNCLINE_PLAN` repeats one plan.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use syncline::internals::{MARKS, Rules};
use syncline_testkit::seed;
use syncline_testkit::sim::{Plan, check, run};

/// How many seeds are played. There are fewer in a debug build, where a step takes ten times as long.
fn seeds() -> u64 {
    let usual = if cfg!(debug_assertions) { 40 } else { 400 };
    let text = std::env::var("SYNCLINE_SIM_SEEDS").ok();
    text.map_or(usual, |text| text.parse().expect("SYNCLINE_SIM_SEEDS is a number"))
}

/// C1, C4, C6, C7, C9, C11, C12, C13, C14, Y1 to Y4, Y9 to Y11, Y14, Y15, Y17, Y20 to Y22, H2, H3, H6, I1 to I7, I12; see
/// the oracle.
#[test]
fn no_history_breaks_a_property() {
    if let Ok(line) = std::env::var("SYNCLINE_PLAN") {
        let plan = Plan::parse(&line).expect("SYNCLINE_PLAN is a line that a failure printed");
        println!("{:#?}", plan.steps);
        let report = run(&plan, Rules::ALL);
        println!("{report:#?}");
        assert!(report.is_ok(), "the plan breaks a property");
        return;
    }
    let first = seed();
    let (mut marks, mut deaths, mut deaths_opening, mut failures) = (0, 0, 0, Vec::new());
    for seed in first..first.saturating_add(seeds()) {
        match check(seed, Rules::ALL) {
            Ok(report) => {
                marks |= report.marks;
                deaths += report.deaths;
                deaths_opening += report.deaths_opening;
            }
            Err(explanation) => failures.push(explanation),
        }
        // To shorten a plan takes long: one is enough.
        if !failures.is_empty() {
            break;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    println!(
        "{deaths} processes died in the middle of something, {deaths_opening} of them while they opened"
    );
    // A run of a few seeds is there to look at them, and need not have met everything.
    if seeds() >= 40 {
        assert!(deaths_opening > 0, "no process died while it opened");
        assert!(deaths > deaths_opening, "no process died in the middle of its work");
    }
    let silent: Vec<_> = (0..).zip(MARKS).filter(|(bit, _)| marks >> bit & 1 == 0).collect();
    if !cfg!(debug_assertions) && seeds() >= 400 {
        assert!(silent.is_empty(), "the corpus never saw {silent:?}");
    }
}

/// A run is a function of its plan. One seed in twenty is played twice.
#[test]
fn the_same_plan_is_the_same_run() {
    for seed in (1..=seeds()).step_by(20) {
        let plan = Plan::generate(seed);
        assert_eq!(run(&plan, Rules::ALL), run(&plan, Rules::ALL), "seed {seed}");
    }
}

/// Plans that once broke a property.
#[test]
fn plans_that_failed_once_pass() {
    let mut played = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/plans")).unwrap() {
        let path = file.unwrap().path();
        let plan = Plan::parse(&std::fs::read_to_string(&path).unwrap());
        let plan = plan.unwrap_or_else(|| panic!("{} is no plan", path.display()));
        if let Err(failure) = run(&plan, Rules::ALL) {
            panic!("{}: {failure}", path.display());
        }
        played += 1;
    }
    assert!(played > 0);
}

/// If a rule is switched off, some history breaks a property. Some rules matter only against a hostile peer or two
/// histories of one stream: tests of the engine switch those off, with such a history written out.
#[test]
fn without_a_rule_some_history_breaks() {
    macro_rules! without {
        ($($rule:ident)*) => { [$((stringify!($rule), Rules { $rule: false, ..Rules::ALL })),*] };
    }
    let rules = without!(
        streams_have_no_holes causes_come_first drift_is_held clock_follows higher_stamp_wins
        epochs_are_kept_apart values_are_kept unmerged_lies_beside joiner_waits restores_are_noticed
        acks_are_durable
    );
    for (name, rules) in rules {
        let broken = (1..400).find_map(|seed| Some((seed, run(&Plan::generate(seed), rules).err()?)));
        let (seed, failure) = broken.unwrap_or_else(|| panic!("nothing breaks without `{name}`"));
        println!("without {name}: seed {seed}: {}", failure.property);
    }
}
