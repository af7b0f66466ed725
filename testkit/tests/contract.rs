//! The list and the contract say the same: a bullet without a property, or the other way round, fails here.

use syncline_testkit::Disk;
use syncline_testkit::storage::properties;

#[test]
fn every_bullet_of_the_contract_is_a_property() {
    let source =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../core/src/storage.rs")).unwrap();
    let bullets: Vec<_> = source
        .lines()
        .filter_map(|line| line.strip_prefix("/// - `")?.split_once("`:"))
        .map(|(name, _)| name)
        .collect();
    let names: Vec<_> = properties::<Disk>().iter().map(|property| property.name).collect();
    assert_eq!(names.split_last(), Some((&"behaves_like_a_sorted_map", bullets.as_slice())));
}
