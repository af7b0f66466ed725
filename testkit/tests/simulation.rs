//! Goal: no history of commits, crashes, faults, losses and skews breaks a property. Method: seeded plans, judged step by
//! step; `SYNCLINE_SEED` moves the corpus, `SYNCLINE_SIM_SEEDS` makes it longer, `SYNCLINE_PLAN` repeats one plan.

use syncline::{MARKS, Rules};
use syncline_testkit::sim::{Plan, check, run};
use syncline_testkit::seed;

fn seeds() -> u64 {
    std::env::var("SYNCLINE_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

#[test]
fn no_history_breaks_a_property() {
    if let Ok(line) = std::env::var("SYNCLINE_PLAN") {
        let plan = Plan::parse(&line).expect("SYNCLINE_PLAN is a line that a failure printed");
        println!("{:#?}", plan.steps);
        println!("{:#?}", run(&plan, Rules::ALL).map_err(|failure| failure.to_string()));
        return;
    }
    let first = seed();
    let (mut marks, mut failures) = (0, Vec::new());
    for seed in first..first + seeds() {
        match check(seed, Rules::ALL) {
            Ok(report) => marks |= report.marks,
            Err(explanation) => failures.push(explanation),
        }
        if failures.len() >= 5 { break; }
    }
    for failure in &failures { println!("{failure}\n"); }
    let silent: Vec<_> = (0..).zip(MARKS).filter(|(bit, _)| marks >> bit & 1 == 0).map(|(_, mark)| mark).collect();
    println!("silent: {silent:?}");
    assert!(failures.is_empty());
}
