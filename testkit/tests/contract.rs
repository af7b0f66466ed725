//! The lists and the contracts match: there is a property for each bullet, and a bullet for each property.
#![allow(clippy::unwrap_used, reason = "a helper of tests, not itself marked as one")]

use syncline_testkit::transport::{self, MemoryNetworkFixture};
use syncline_testkit::{Disk, clocks, join, storage};

/// The names of the bullets in a source file of the library.
fn bullets(file: &str) -> Vec<String> {
    let source =
        std::fs::read_to_string(format!("{}/../core/src/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    source
        .lines()
        .filter_map(|line| line.strip_prefix("/// - `")?.split_once("`:"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn every_bullet_of_the_contract_is_a_property() {
    let mut expected = bullets("storage.rs");
    expected.push("behaves_like_a_sorted_map".into());
    let names: Vec<_> = storage::properties::<Disk>().iter().map(|property| property.name).collect();
    assert_eq!(names, expected);
}

#[test]
fn every_bullet_of_the_contract_of_joins_is_a_property() {
    let names: Vec<_> = join::properties::<Disk>().iter().map(|property| property.name).collect();
    assert_eq!(names, bullets("join.rs"));
}

#[test]
fn every_bullet_of_the_contract_of_transports_is_a_property() {
    let names: Vec<_> = transport::properties::<MemoryNetworkFixture>().iter().map(|one| one.name).collect();
    assert_eq!(names, bullets("transport.rs"));
}

#[test]
fn every_bullet_of_the_contract_of_clocks_is_a_property() {
    let names: Vec<_> = clocks::properties::<syncline::SystemClock>().iter().map(|one| one.name).collect();
    assert_eq!(names, bullets("clock.rs"));
}
