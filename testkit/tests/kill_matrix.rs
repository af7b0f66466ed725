//! The list finds what it looks for: every broken store fails the property that names its flaw, every property fails
//! some broken store, and the correct one passes them all.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of a test, not themselves marked as one"
)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::thread;

use syncline_testkit::storage::{Property, properties};
use syncline_testkit::{BrokenDisk, Disk, Fixture, Flaw};

/// The thread of the test itself. The others panic because a store is broken, which is what they are for.
const MATRIX: &str = "every_broken_store_is_caught";

#[test]
fn every_broken_store_is_caught() {
    only_news_is_printed();
    for disk in [Disk::new, Disk::fencing] {
        for property in properties::<Disk>() {
            assert!(!fails(&property, &disk()), "the correct store fails {}", property.name);
        }
    }
    let properties = properties::<BrokenDisk>();
    let killed_by = run_all(&properties);
    print(&properties, &killed_by);

    let mut survivors = Vec::new();
    for (flaw, killers) in Flaw::ALL.iter().zip(&killed_by) {
        assert!(
            properties.iter().any(|property| property.name == flaw.named_by()),
            "{flaw} is named by no property of the list"
        );
        if !killers.contains(flaw.named_by()) {
            survivors.push(format!("{flaw} passes {}", flaw.named_by()));
        }
    }
    assert!(survivors.is_empty(), "{survivors:#?}");
    for property in &properties {
        assert!(
            Flaw::ALL.iter().any(|flaw| flaw.named_by() == property.name),
            "{} names no flaw: nothing shows that it can fail",
            property.name
        );
    }
}

/// For each flaw, the properties that it fails.
fn run_all(properties: &[Property<BrokenDisk>]) -> Vec<BTreeSet<&'static str>> {
    let killed_by: Vec<_> = Flaw::ALL.iter().map(|_| Mutex::new(BTreeSet::new())).collect();
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let cell = next.fetch_add(1, Ordering::Relaxed);
                    let Some(flaw) = Flaw::ALL.get(cell / properties.len()) else { break };
                    let property = &properties[cell % properties.len()];
                    if fails(property, &BrokenDisk::new(*flaw)) {
                        killed_by[cell / properties.len()].lock().unwrap().insert(property.name);
                    }
                }
            });
        }
    });
    killed_by.into_iter().map(|killers| killers.into_inner().unwrap()).collect()
}

fn fails<F: Fixture>(property: &Property<F>, fixture: &F) -> bool {
    catch_unwind(AssertUnwindSafe(|| property.check(fixture))).is_err()
}

/// One line per flaw, one column per property: `X` where the property that names the flaw caught it, `x` where another
/// did.
fn print(properties: &[Property<BrokenDisk>], killed_by: &[BTreeSet<&'static str>]) {
    for (column, property) in properties.iter().enumerate() {
        println!("{:26}{}{}", "", "| ".repeat(column), property.name);
    }
    for (flaw, killers) in Flaw::ALL.iter().zip(killed_by) {
        let cells: String = properties
            .iter()
            .map(|property| match killers.contains(property.name) {
                true if property.name == flaw.named_by() => "X ",
                true => "x ",
                false => ". ",
            })
            .collect();
        println!("{:26}{cells}", flaw.to_string());
    }
}

fn only_news_is_printed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if thread::current().name() == Some(MATRIX) {
                print(panic);
            }
        }));
    });
}
