//! Goal: each rule of the protocol is needed, and the shortest history that shows it can be read. Method: a fixed plan for
//! each rule, which breaks a property without the rule, and none with it; the page is made from what the plans do.
//!
//! `cargo test -p syncline-testkit --test protocol_rules -- --ignored --nocapture` searches for shorter plans, from
//! `SYNCLINE_SEED` on, for the rule in `SYNCLINE_RULE` or for all of them, and prints the lines of `plans.txt`. It shortens as
//! many plans for each rule as `SYNCLINE_TRIES` says, 12 by default.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod rules;
mod shortest;
mod words;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rules::{each_off, sources, written_out};
use syncline::internals::Rules;
use syncline_testkit::seed;
use syncline_testkit::sim::{Failure, Plan, run};

/// A line for each rule that a plan breaks: the name of the rule, and the plan.
const PLANS: &str = include_str!("plans.txt");

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/src/engine/rules.rs");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol-rules.md");
const UPDATE: &str = "SYNCLINE_UPDATE_DOCS";

/// With the rule the plan passes; without it a property breaks, which the page names.
#[test]
fn each_rule_has_the_shortest_history_that_breaks_without_it() {
    let plans = plans();
    let sentences = sentences();
    let sources = sources();
    let mut page = head();
    for (rule, off) in each_off() {
        write!(page, "\n## `{rule}`\n\n{}\n\n", sentences[rule]).unwrap();
        match (plans.get(rule), written_out(rule)) {
            (Some(plan), None) => {
                let failure = replay(rule, plan, off);
                words::history(&mut page, plan);
                let detail = words::by_number(&failure.detail);
                write!(page, "\nThen **{}** does not hold: {detail}.\n", failure.property).unwrap();
            }
            (None, Some(test)) => {
                let (file, doc) = doc_of(&sources, test);
                let doc = if doc.is_empty() { String::new() } else { format!(": {doc}") };
                writeln!(page, "A plan does not show this. Written out in `{file}`, `{test}`{doc}").unwrap();
            }
            _ => panic!("{rule} has either a line in plans.txt or a test in WRITTEN_OUT"),
        }
    }
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let there = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(there == page, "docs/protocol-rules.md is not what the plans do: {UPDATE}=1 makes it anew");
}

/// Not run by CI: takes minutes a rule.
#[test]
#[ignore = "searches; run it by name when a plan no longer breaks, or to find shorter ones"]
fn find_shorter_plans() {
    let only = std::env::var("SYNCLINE_RULE").ok();
    let tries = std::env::var("SYNCLINE_TRIES").map_or(12, |tries| tries.parse().expect("a number"));
    let (first, known) = (seed(), plans());
    for (rule, off) in each_off() {
        if written_out(rule).is_none() && only.as_ref().is_none_or(|only| only == rule) {
            match shortest::shortest(off, known.get(rule), first..first + 2_000, tries) {
                Some(plan) => println!("{rule} {}", plan.to_line()),
                None => println!("{rule}: nothing breaks"),
            }
        }
    }
}

fn replay(rule: &str, plan: &Plan, off: Rules) -> Failure {
    if let Err(failure) = run(plan, Rules::ALL) {
        panic!("{rule}: the plan breaks with the rule too: {failure}");
    }
    match run(plan, off) {
        Err(failure) => failure,
        Ok(_) => panic!(
            "{rule}: the plan in plans.txt breaks nothing without the rule: find_shorter_plans finds another"
        ),
    }
}

fn plans() -> BTreeMap<&'static str, Plan> {
    PLANS
        .lines()
        .map(|line| {
            let (rule, plan) = line.split_once(' ').expect("a line has a name and a plan");
            (rule, Plan::parse(plan).unwrap_or_else(|| panic!("{rule}: the line is no plan")))
        })
        .collect()
}

/// The documentation of each rule.
fn sentences() -> BTreeMap<String, String> {
    let source = std::fs::read_to_string(RULES).unwrap();
    let mut sentences = BTreeMap::new();
    let mut doc = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            doc.push(text);
        } else if let Some(rule) = line.strip_prefix("pub ").and_then(|line| line.strip_suffix(": bool,")) {
            sentences.insert(rule.to_owned(), doc.join(" "));
            doc.clear();
        } else {
            doc.clear();
        }
    }
    sentences
}

/// Returns the file of a test, and its documentation.
fn doc_of(sources: &[(String, String)], test: &str) -> (String, String) {
    let name = format!("fn {test}(");
    let (file, source) = sources.iter().find(|(_, source)| source.contains(&name)).expect("the test exists");
    let before: Vec<_> = source.lines().take_while(|line| !line.contains(&name)).map(str::trim).collect();
    let attributes = before.iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
    let mut doc: Vec<_> = attributes.filter_map(|line| line.strip_prefix("/// ")).collect();
    doc.reverse();
    (file.clone(), doc.join(" "))
}

fn head() -> String {
    format!(
        "# What breaks without each rule\n\nTests can switch off each rule of the [protocol](protocol.md), one at a time. Below each \
         rule stands the shortest history that was found to break a [property](properties.md) without it, and that breaks none \
         with it. `cargo test -p syncline-testkit --test protocol_rules` plays these histories in the simulator, and fails if one no \
         longer does that; `{UPDATE}=1` makes this page anew. After the last step the faults end, and the replicas have time to agree.\n\n\
         Replica 0 founds the group. At the beginning it adds the others, which are commits of its own. Where there is no step, \
         these break the property. A note and a set are shared by all, a place belongs to a device.\n"
    )
}
