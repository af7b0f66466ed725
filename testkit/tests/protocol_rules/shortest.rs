//! The search for the shortest history that breaks without a rule.

use std::ops::Range;

use syncline::internals::Rules;
use syncline_testkit::sim::{Action, Edit, Plan, Step, run, shrink};

/// Plays the plans of `seeds` without a rule, shortens up to `tries` of those that break a property, and the plan that is
/// known, and returns the shortest.
pub(crate) fn shortest(rules: Rules, known: Option<&Plan>, seeds: Range<u64>, tries: usize) -> Option<Plan> {
    let plans = seeds.map(Plan::generate).filter(|plan| run(plan, rules).is_err()).take(tries);
    let plans = plans.chain(known.cloned().filter(|plan| run(plan, rules).is_err()));
    let shortened = plans.map(|plan| simplify(shrink(&plan, rules), rules));
    // Without its rule alone: with all of them, each plan passes.
    shortened.filter(|plan| run(plan, Rules::ALL).is_ok()).min_by_key(weight)
}

/// The fewest steps, then the shortest waits, then the shortest and lowest numbers.
fn weight(plan: &Plan) -> (usize, u64, usize, u32) {
    let waits = plan.steps.iter().map(|step| u64::from(step.after_ms)).sum();
    let line = plan.to_line();
    (plan.steps.len(), waits, line.len(), line.chars().filter_map(|digit| digit.to_digit(16)).sum())
}

/// Makes what is left of a plan simpler, as long as it still breaks a property.
fn simplify(mut plan: Plan, rules: Rules) -> Plan {
    loop {
        let before = plan.clone();
        for simpler in of_the_whole(&before) {
            try_it(&mut plan, simpler, rules);
        }
        for at in 0..plan.steps.len() {
            for step in of_a_step(&plan.steps[at]) {
                let mut simpler = plan.clone();
                simpler.steps[at] = step;
                try_it(&mut plan, simpler, rules);
            }
        }
        plan = shrink(&plan, rules);
        if plan == before {
            return plan;
        }
    }
}

fn try_it(plan: &mut Plan, simpler: Plan, rules: Rules) {
    if weight(&simpler) < weight(plan) && run(&simpler, rules).is_err() {
        *plan = simpler;
    }
}

fn of_the_whole(plan: &Plan) -> Vec<Plan> {
    let mut plans: Vec<_> = (1..plan.replicas).map(|replicas| Plan { replicas, ..plan.clone() }).collect();
    plans.push(Plan { tight: 0, ..plan.clone() });
    plans.push(Plan { older_apps: 0, ..plan.clone() });
    plans.push(Plan { ids: 1, ..plan.clone() });
    plans.push(Plan { seed: 1, ..plan.clone() });
    plans
}

fn of_a_step(step: &Step) -> Vec<Step> {
    let Step { after_ms, action } = step;
    let mut steps: Vec<_> = [0, 100, 1_000, 10_000, 60_000]
        .into_iter()
        .filter(|ms| ms < after_ms)
        .map(|after_ms| Step { after_ms, action: action.clone() })
        .collect();
    let mut push = |action| steps.push(Step { after_ms: *after_ms, action });
    match action.clone() {
        Action::Commit { at, edits, cancelled } => {
            for edit in &edits {
                push(Action::Commit { at, edits: vec![*edit], cancelled: None });
                push(Action::Commit { at, edits: vec![*edit], cancelled });
            }
            push(Action::Commit { at, edits, cancelled: None });
        }
        Action::Many { at, .. } | Action::Pair { at } => {
            push(Action::Commit { at, edits: vec![Edit::Note(0, true)], cancelled: None });
            for count in [1, 2, 10] {
                push(Action::Many { at, count });
            }
        }
        Action::Crash { at, applied, down_ms: Some(_) } => {
            push(Action::Crash { at, applied, down_ms: Some(0) });
        }
        Action::Link { from, to, percent, delay_ms, blocked: false } => {
            for lost in 0..percent.len() {
                let mut percent = percent;
                percent[lost] = 0;
                push(Action::Link { from, to, percent, delay_ms, blocked: false });
                push(Action::Link { from, to, percent, delay_ms: 0, blocked: false });
            }
        }
        _ => {}
    }
    let others: Vec<_> = steps.iter().chain([step]).flat_map(at_another_place).collect();
    steps.extend(others);
    steps
}

/// The same at each lower place. A place that no process has counts round and round, which is hard to read.
fn at_another_place(step: &Step) -> Vec<Step> {
    (0..8)
        .map(|to| {
            let mut step = step.clone();
            match &mut step.action {
                Action::Commit { at, .. }
                | Action::Pair { at }
                | Action::Many { at, .. }
                | Action::Large { at, .. }
                | Action::Crash { at, .. }
                | Action::Slow { at, .. }
                | Action::Clock { at, .. }
                | Action::Backup { at }
                | Action::Restore { at }
                | Action::Disconnect { other: at, .. }
                | Action::Revive { at, .. } => *at = to,
                _ => {}
            }
            step
        })
        .collect()
}
