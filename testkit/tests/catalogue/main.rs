//! Goal: the catalogue of properties, the tests and the pages say the same. Method: the table of the catalogue against
//! the sources of the workspace, read as text, and against the lists of the kit.
//!
//! A test proves a property if its name begins with the property's number (`h4_…`), if the comment above it cites the
//! number (`/// C9, Y10: …`), or if the table names it. A property without a test must say why, and one that says why must
//! have none. The simulator proves those that its failures begin with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod properties;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use properties::{GROUPS, PROPERTIES, Proof, Property};
use sources::{Sources, numbers_in, root};

/// The pages that people write, and that cite properties or tests.
const PAGES: [&str; 4] = ["README.md", "CHANGELOG.md", "docs/protocol.md", "docs/storage-format.md"];
/// The page that the catalogue makes.
const CATALOGUE: &str = "docs/properties.md";
const UPDATE: &str = "SYNCLINE_UPDATE_DOCS";

#[test]
fn numbers_are_given_once_and_in_order() {
    let mut last = ("", 0);
    for Property { id, .. } in PROPERTIES {
        let (group, number) = id.split_at(1);
        let number: u32 = number.parse().unwrap();
        let expected = if group == last.0 { last.1 + 1 } else { 1 };
        assert_eq!(number, expected, "{id} comes after {}{}", last.0, last.1);
        last = (group, number);
    }
    let mut groups: Vec<_> = PROPERTIES.iter().map(|property| &property.id[..1]).collect();
    groups.dedup();
    assert_eq!(groups, GROUPS.map(|(group, _)| group));
}

#[test]
fn every_cited_number_is_in_the_catalogue() {
    let known: BTreeSet<_> = PROPERTIES.iter().map(|property| property.id.to_owned()).collect();
    let sources = Sources::read();
    let mut unknown = Vec::new();
    for (name, numbers) in &sources.tests {
        unknown.extend(numbers.difference(&known).map(|number| format!("{number}, by the test `{name}`")));
    }
    for (number, place) in &sources.cited {
        if !known.contains(number) {
            unknown.push(format!("{number}, in {place}"));
        }
    }
    for page in PAGES {
        let numbers: BTreeSet<_> = numbers_in(&read(page)).into_iter().collect();
        unknown.extend(numbers.difference(&known).map(|number| format!("{number}, in {page}")));
    }
    assert!(
        unknown.is_empty(),
        "no such property in testkit/tests/catalogue/properties.rs: {unknown:#?}\n\
         Add an entry for a new property, or cite the one that is meant."
    );
}

#[test]
fn every_property_has_a_test_or_says_why_not() {
    let sources = Sources::read();
    let mut wrong = Vec::new();
    for property in PROPERTIES {
        let tests = tests_of(property, &sources);
        match property.proof {
            Proof::Tests(named) => {
                wrong.extend(named.iter().filter(|name| !sources.tests.contains_key(**name)).map(|name| {
                    format!("{} names the test `{name}`, which does not exist", property.id)
                }));
                if tests.is_empty() {
                    wrong.push(format!("{} has no test: name one, or say why there is none", property.id));
                }
            }
            Proof::WhyNot(_) if tests.is_empty() => {}
            Proof::WhyNot(reason) => wrong.push(format!(
                "{} says that it has no test ({reason}), and has {tests:?}: make it `Tests`, or correct the citations",
                property.id
            )),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_test_that_a_page_names_exists() {
    let sources = Sources::read();
    let mut missing = Vec::new();
    for page in PAGES {
        let text = read(page);
        let named: BTreeSet<_> = tests_named_in(&text).collect();
        missing.extend(
            named
                .into_iter()
                .filter(|name| !exists(name, &sources))
                .map(|name| format!("`{name}` in {page}")),
        );
    }
    assert!(missing.is_empty(), "there are no such tests: {missing:#?}");
}

#[test]
fn the_page_says_what_the_table_says() {
    let made = page(&Sources::read());
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(root().join(CATALOGUE), &made).unwrap();
    }
    let there = std::fs::read_to_string(root().join(CATALOGUE)).unwrap_or_default();
    let differs = there.lines().zip(made.lines()).find(|(there, made)| there != made);
    assert!(
        there == made,
        "{CATALOGUE} is not what the catalogue makes, first here: {differs:#?}\n\
         Make it anew: {UPDATE}=1 cargo test -p syncline-testkit --test catalogue"
    );
}

/// Everything that proves a property, in the order of the names.
fn tests_of<'a>(property: &Property, sources: &'a Sources) -> BTreeSet<&'a str> {
    let citing = sources.tests.iter().filter(|(_, numbers)| numbers.contains(property.id));
    let named: &[&str] = match property.proof {
        Proof::Tests(named) => named,
        Proof::WhyNot(_) => &[],
    };
    let named = named.iter().filter_map(|name| sources.tests.get_key_value(*name));
    citing.chain(named).map(|(name, _)| name.as_str()).collect()
}

/// The tests that a page says prove something: behind `Test:` or `Tests:`, and in the last column of a table whose
/// heading speaks of the test that proves it.
fn tests_named_in(page: &str) -> impl Iterator<Item = String> {
    let mut in_table = false;
    let mut names = Vec::new();
    for line in page.lines() {
        let is_row = line.starts_with('|');
        in_table = is_row && (in_table || line.contains("the test that proves it"));
        let named = if in_table {
            line.trim_end_matches('|').rsplit('|').next()
        } else {
            line.strip_prefix("Test: ").or_else(|| line.strip_prefix("Tests: "))
        };
        names.extend(
            named.into_iter().flat_map(|named| named.split('`').skip(1).step_by(2)).map(str::to_owned),
        );
    }
    names.into_iter()
}

/// Whether there is such a test, such a file of tests or such a macro that makes tests.
fn exists(name: &str, sources: &Sources) -> bool {
    if let Some(list) = name.strip_suffix('!') {
        return sources.macros.contains(list);
    }
    sources.tests.contains_key(name) || sources.files.iter().any(|file| file.ends_with(&format!("/{name}")))
}

/// The page.
fn page(sources: &Sources) -> String {
    let mut page = String::from(include_str!("head.md"));
    let mut entries: BTreeMap<&str, String> = BTreeMap::new();
    for property in PROPERTIES {
        let entry = entries.entry(&property.id[..1]).or_default();
        write_entry(entry, property, &tests_of(property, sources)).unwrap();
    }
    for (group, heading) in GROUPS {
        write!(page, "\n## {group}: {heading}\n{}", entries[group]).unwrap();
    }
    page
}

fn write_entry(page: &mut String, property: &Property, tests: &BTreeSet<&str>) -> std::fmt::Result {
    let Property { id, says, method, catches, limits, proof } = property;
    write!(page, "\n### {id}\n\n{says}\n\n- Method: {method}\n- Must catch: {catches}\n")?;
    if !limits.is_empty() {
        writeln!(page, "- Not claimed: {limits}")?;
    }
    match proof {
        Proof::WhyNot(reason) => writeln!(page, "- No test: {reason}."),
        Proof::Tests(_) => {
            let tests: Vec<_> = tests.iter().map(|name| format!("`{name}`")).collect();
            writeln!(page, "- Tests: {}", tests.join(", "))
        }
    }
}

fn read(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}
