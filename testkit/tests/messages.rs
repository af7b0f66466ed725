//! The message of a failure names the property and the step, and says how to repeat it.
#![allow(clippy::unwrap_used, reason = "a helper of tests, not itself marked as one")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use syncline_testkit::storage::properties;
use syncline_testkit::{BrokenDisk, Flaw};

fn message(flaw: Flaw) -> String {
    let properties = properties::<BrokenDisk>();
    let property = properties.iter().find(|property| property.name == flaw.named_by()).unwrap();
    let failure = catch_unwind(AssertUnwindSafe(|| property.check(&BrokenDisk::new(flaw)))).unwrap_err();
    failure.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn a_failure_names_the_property_and_the_step() {
    assert_eq!(
        message(Flaw::LeavesHole),
        "writes_are_ordered: batches 1 to 2, reopened: a hole or a swap: against all batches: \
         missing \"mark/\\x00\\x00\\x00\\x01\""
    );
    assert_eq!(
        message(Flaw::SignedOrder),
        "scan_is_ordered: nasty keys, \"\".., limit 1: found [\"\\x80\"=\"value 10\"], expected [\"\\x00\"=\"\"]"
    );
}

#[test]
fn a_random_failure_names_its_seed_and_the_fewest_steps() {
    let message = message(Flaw::DeleteLeavesEmpty);
    assert!(message.starts_with("behaves_like_a_sorted_map: SYNCLINE_SEED="), "{message}");
    assert!(message.contains("\n  0: write [delete "), "{message}");
    assert_eq!(message.lines().count(), 2, "{message}");
}
