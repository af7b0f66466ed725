//! The list for clocks, and the list for stamps that rise.

use std::time::Duration;

use syncline::SystemClock;
use syncline_testkit::{
    BrokenClock, BrokenClockDisk, BrokenDisk, ClockFlaw, Disk, Flaw, RiseFlaw, clock_rises,
    clock_rises_tests, clock_tests, clocks, watched_for,
};

use crate::matrix::every_flaw_is_caught;

clock_tests!(system, SystemClock::new);
clock_rises_tests!(reference, Disk::new);

#[test]
fn every_broken_clock_is_caught() {
    let names: Vec<_> = clocks::properties::<BrokenClock>().iter().map(|property| property.name).collect();
    every_flaw_is_caught(&names, ClockFlaw::ALL, ClockFlaw::named_by, |name, flaw| {
        // A sleep that never ends is one of the flaws.
        watched_for(Duration::from_secs(1), name, move || {
            let list = clocks::properties::<BrokenClock>();
            list.iter().find(|property| property.name == name).unwrap().check(&|| BrokenClock::new(flaw));
        });
    });
}

#[test]
fn every_clock_that_goes_back_is_caught() {
    let list = clock_rises::properties::<BrokenClockDisk>();
    let names: Vec<_> = list.iter().map(|property| property.name).collect();
    every_flaw_is_caught(&names, RiseFlaw::ALL, RiseFlaw::named_by, |name, flaw| {
        let property = list.iter().find(|property| property.name == name).unwrap();
        property.check(&|| BrokenClockDisk::new(flaw));
    });
}

/// Goal: a store that loses or mixes up writes is found by the clock too. Method: the broken stores whose flaw can turn the
/// clock back.
#[test]
fn a_store_that_turns_the_clock_back_is_caught() {
    let list = clock_rises::properties::<BrokenDisk>();
    for flaw in [Flaw::LosesLastBatch, Flaw::SwapsLastBatches] {
        let caught = list.iter().any(|property| {
            let check = || property.check(&|| BrokenDisk::new(flaw));
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err()
        });
        assert!(caught, "{flaw} passes the list");
    }
}
