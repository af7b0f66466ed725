//! Goal: no history of commits, crashes, faults, losses and wrong clocks breaks a property, and the histories are rich
//! enough to need every rule of the protocol. Method: seeded plans, judged step by step; every rule switched off in
//! turn.
//!
//! `SYNCLINE_SEED` sets the first seed, `SYNCLINE_SIM_SEEDS` how many there are, and `SYNCLINE_PLAN` repeats one plan.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "protocol_rules/rules.rs"]
mod rules;

use rules::{WRITTEN_OUT, each_off, sources, written_out};
use syncline::internals::{MARKS, Rules};
use syncline_testkit::seed;
use syncline_testkit::sim::{KINDS, Plan, check, run};

/// How many seeds are played. There are fewer in a debug build, where a step takes ten times as long.
fn seeds() -> u64 {
    let usual = if cfg!(debug_assertions) { 40 } else { 400 };
    let text = std::env::var("SYNCLINE_SIM_SEEDS").ok();
    text.map_or(usual, |text| text.parse().expect("SYNCLINE_SIM_SEEDS is a number"))
}

/// C1, C4, C6 to C9, C11 to C14, C17 to C19, Y1 to Y4, Y9 to Y11, Y14, Y15, Y17, Y20 to Y22, H2, H3, H6, I1 to I7, I12; see
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
    let (mut marks, mut kinds, mut deaths, mut deaths_opening, mut failures) = (0, 0, 0, 0, Vec::new());
    for seed in first..first.saturating_add(seeds()) {
        match check(seed, Rules::ALL) {
            Ok(report) => {
                marks |= report.marks;
                kinds |= report.kinds;
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
    let is_silent = |(bit, _): &(u32, &str)| marks >> bit & 1 == 0;
    let silent: Vec<_> = (0..).zip(MARKS).filter(is_silent).collect();
    let unmet: Vec<_> = (0..).zip(KINDS).filter(|(bit, _)| kinds >> bit & 1 == 0).collect();
    if !cfg!(debug_assertions) && seeds() >= 400 {
        assert!(silent.is_empty(), "the corpus never saw {silent:?}");
        assert!(unmet.is_empty(), "the apps of the corpus never met {unmet:?}");
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

/// A rule that no plan breaks has a test of the engine that switches it off.
#[test]
fn each_rule_that_no_plan_breaks_has_its_history_written_out() {
    let sources = sources();
    for (rule, test) in WRITTEN_OUT {
        let name = format!("fn {test}(");
        let after = sources.iter().find_map(|(_, source)| source.split_once(&name)).map(|(_, after)| after);
        let after = after.unwrap_or_else(|| panic!("{rule}: there is no test `{test}`"));
        let body = after.split("#[test]").next().unwrap_or(after);
        let code: Vec<_> = body.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let off = [format!("without!({rule})"), format!("{rule}: false"), format!("Rules {{ {rule}, ..")];
        let is_off = off.iter().any(|off| code.iter().any(|line| line.contains(off)));
        assert!(is_off, "`{test}` does not switch `{rule}` off");
    }
}

/// If a rule is switched off, some history breaks a property. No rule is forgotten: all fields of [`Rules`] are switched
/// off here, or have a test in [`WRITTEN_OUT`] that does it.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes unless it is optimised: `.ci/run` does so")]
fn without_a_rule_some_history_breaks() {
    let mut unbroken = Vec::new();
    for (name, rules) in each_off() {
        if written_out(name).is_some() {
            continue;
        }
        let broken = (1..400).find_map(|seed| Some((seed, run(&Plan::generate(seed), rules).err()?)));
        match broken {
            Some((seed, failure)) => println!("without {name}: seed {seed}: {}", failure.property),
            None => unbroken.push(name),
        }
    }
    assert!(unbroken.is_empty(), "nothing breaks without {unbroken:?}");
}
