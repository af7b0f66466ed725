//! The message of a failure names the property and the step, and says how to repeat it.
#![allow(clippy::unwrap_used, reason = "a helper of tests, not itself marked as one")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

use syncline::WriteOp;
use syncline_testkit::storage::{Step, properties, replay};
use syncline_testkit::{BrokenDisk, Disk, Flaw, be_patient_for};

fn message(flaw: Flaw) -> String {
    message_of(flaw.named_by(), flaw)
}

fn message_of(property: &str, flaw: Flaw) -> String {
    let properties = properties::<BrokenDisk>();
    let property = properties.iter().find(|one| one.name == property).unwrap();
    let failure = catch_unwind(AssertUnwindSafe(|| property.check(&|| BrokenDisk::new(flaw)))).unwrap_err();
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
        "scan_is_ordered: nasty keys, \"\".., limit 1: found [\"\\x80\"=\"value 14\"], expected [\"\\x00\"=\"\"]"
    );
}

#[test]
fn a_random_failure_names_its_seed_and_the_fewest_steps() {
    let message = message(Flaw::DeleteLeavesEmpty);
    assert!(message.starts_with("behaves_like_a_sorted_map: SYNCLINE_SEED="), "{message}");
    let lines: Vec<_> = message.lines().skip(1).collect();
    let history = [
        "  0: write [delete \"a\"]",
        "To play them again: syncline_testkit::storage::replay(&fixture, &[Step::Write(vec![WriteOp::Delete { key: b\"a\".to_vec() }])])",
    ];
    assert_eq!(lines, history, "{message}");
}

/// Goal: a history is cut down by what fresh stores do, and to the keys that it needs. Method: the places are counted; a
/// flaw that needs three steps, and one that needs its keys as they are.
#[test]
fn a_failure_is_cut_down_with_a_fresh_place_for_each_try() {
    let places = AtomicU32::new(0);
    let properties = properties::<BrokenDisk>();
    let property = properties.iter().find(|one| one.name == "behaves_like_a_sorted_map").unwrap();
    let fresh = || {
        places.fetch_add(1, Ordering::SeqCst);
        BrokenDisk::new(Flaw::LosesLastDeletes)
    };
    let failure = catch_unwind(AssertUnwindSafe(|| property.check(&fresh))).unwrap_err();
    let message = failure.downcast_ref::<String>().unwrap();
    let lines: Vec<_> = message.lines().skip(1).collect();
    let history = ["  0: write [put \"b\"=\"\"]", "  1: write [delete \"a\"..\"c\"]", "  2: reopen"];
    assert_eq!(lines[..3], history, "{message}");
    let places = places.into_inner();
    assert!((20..1_100).contains(&places), "{places} places");

    let kept = message_of("behaves_like_a_sorted_map", Flaw::IgnoresCase);
    assert!(kept.contains("\"A\"") && kept.contains("\"a\""), "these keys are the fault: {kept}");
}

#[test]
fn a_history_can_be_played_again() {
    let history = [Step::Write(vec![WriteOp::Delete { key: b"a".to_vec() }])];
    replay(&Disk::new(), &history);
    let failure = catch_unwind(|| replay(&BrokenDisk::new(Flaw::DeleteLeavesEmpty), &history)).unwrap_err();
    let message = failure.downcast_ref::<String>().unwrap();
    assert!(
        message.starts_with("replay: the steps: after the last step: the state differs: unexpected \"a\""),
        "{message}"
    );
}

#[test]
fn a_write_that_fails_prints_its_batch() {
    let message = message(Flaw::ThousandthWriteSaysRejected);
    assert!(message.contains("the write failed: the store rejected the write"), "{message}");
    assert!(message.contains("; its batch: 1 operations, 13 bytes: [put \"life/"), "{message}");
}

#[test]
fn a_fault_of_scans_is_not_said_to_be_one_of_deletes() {
    let message = message_of("delete_range_stays_inside", Flaw::OpenScanStopsEarly);
    assert!(message.contains("`get_many` finds what is expected, but `scan` does not: missing"), "{message}");
}

#[test]
fn an_opener_that_waits_is_said_to_wait() {
    be_patient_for(1);
    assert_eq!(
        message(Flaw::SecondOpenerWaits),
        "second_owner_is_fenced: a second opener: it has waited for 1 s: it must be refused, or take over"
    );
}
