//! Goal: a row of the app and a batch of the store, written in one redb transaction, are both there or neither is,
//! whatever fails. Method: joins on a medium that fails at each operation in turn, and loses power at each; the app's
//! table must count as many joins as the store has.
#![cfg(feature = "redb")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use futures::executor::block_on;
use redb::{ReadableTable, TableDefinition, TableError};
use support::crash_disk::{CrashDisk, Fault, How, Kind, PowerCuts};
use support::{Rng, content, put, write};
use syncline::{BoxError, JoinStorage, JoinTx, WriteBatch, WriteError};
use syncline_backends::RedbStorage;
use syncline_backends::redb::RedbTx;

/// The app's own table, which counts the joins.
const JOINS: TableDefinition<'_, &str, u64> = TableDefinition::new("joins");

fn open(disk: &CrashDisk) -> Result<RedbStorage, syncline_backends::OpenStoreError> {
    // Almost no cache, so that reads reach the medium too.
    RedbStorage::builder().cache_bytes(1).open_backend(disk.clone())
}

fn join(
    store: &RedbStorage,
    job: impl FnOnce(&RedbTx<'_>) -> Result<(), BoxError> + Send + 'static,
) -> Result<(), WriteError> {
    block_on(store.join(Box::new(move |tx| job(tx))))
}

/// Adds one to the count in the app's table.
fn count(tx: &RedbTx<'_>) -> Result<(), BoxError> {
    let mut table = tx.native().open_table(JOINS)?;
    let joins = table.get("n")?.map_or(0, |n| n.value());
    table.insert("n", joins + 1)?;
    Ok(())
}

/// Reads the count of the app's table, in a transaction that changes nothing.
fn counted(store: &RedbStorage) -> u64 {
    let (found, counted) = mpsc::channel();
    join(store, move |tx| {
        let n = tx.native().open_table(JOINS)?.get("n")?.map_or(0, |n| n.value());
        Ok(found.send(n)?)
    })
    .unwrap();
    counted.recv().unwrap()
}

fn batch(n: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(format!("k{n}"), vec![0; 3000]);
    batch
}

/// Asserts that the store and the app's table have the same number of joins, and that the number is `possible`.
fn check(image: Vec<u8>, possible: impl std::ops::RangeBounds<u64>, context: &str) {
    let store = open(&CrashDisk::with(image)).unwrap_or_else(|error| panic!("{context}: {error}"));
    let (rows, joins) = (content(&store).unwrap().len() as u64, counted(&store));
    assert_eq!(rows, joins, "{context}: the store has {rows} joins, the app's table {joins}");
    assert!(possible.contains(&joins), "{context}: {joins} joins");
}

#[test]
fn a_power_cut_takes_or_leaves_both() {
    let disk = CrashDisk::default();
    let store = open(&disk).unwrap();
    let mut acknowledged = vec![(disk.ops(), 0)];
    for n in 1..=4 {
        join(&store, move |tx| {
            count(tx)?;
            tx.apply(&batch(n))
        })
        .unwrap();
        acknowledged.push((disk.ops(), n));
    }
    drop(store);
    let created = acknowledged[0].0;
    let mut cuts = PowerCuts::new(Vec::new(), disk.trace());
    loop {
        let at = cuts.at();
        if at >= created {
            let told = acknowledged.iter().rfind(|(ops, _)| *ops <= at).unwrap().1;
            for (left, image) in cuts.images(&mut Rng::new(at as u64)) {
                check(image, told..=told + 1, &format!("cut at {at}, left {left}"));
            }
        }
        if !cuts.advance() {
            break;
        }
    }
    assert!(cuts.at() > created + 8, "{} operations", cuts.at());
}

/// The job ignores an error of `apply`, as an app's closure might.
#[test]
fn a_job_cannot_hide_that_redb_failed() {
    let mut failed = [0, 0];
    for sticky in [false, true] {
        for at in 0.. {
            let disk = CrashDisk::default();
            let store = open(&disk).unwrap();
            join(&store, |tx| count(tx).and_then(|()| tx.apply(&batch(1)))).unwrap();
            disk.set_fault(Fault { on: Kind::Any, at, sticky, how: How::Error(ErrorKind::Other) });
            let outcome = join(&store, |tx| {
                count(tx)?;
                let _ = tx.apply(&batch(2));
                Ok(())
            });
            if !disk.has_failed() {
                outcome.unwrap();
                break;
            }
            disk.set_fault(None);
            let context = format!("operation {at} fails, sticky {sticky}: {outcome:?}");
            match outcome {
                Ok(()) => panic!("{context}"),
                Err(WriteError::Rejected(_)) => {
                    failed[0] += 1;
                    check(disk.image(), 1..=1, &context);
                }
                Err(_) => {
                    failed[1] += 1;
                    assert!(write(&store, &put("more", "")).is_err(), "{context}: it goes on");
                    drop(store);
                    check(disk.image(), 1..=2, &context);
                }
            }
        }
    }
    println!("rejected, unknown: {failed:?}");
    assert!(failed[1] > 4);
}

#[test]
fn a_table_of_the_store_that_the_app_holds_is_the_apps_mistake() {
    let store = open(&CrashDisk::default()).unwrap();
    write(&store, &put("k", "")).unwrap();
    let outcome = join(&store, |tx| {
        count(tx)?;
        let theirs = TableDefinition::<&[u8], &[u8]>::new("syncline/6b");
        let _held = tx.native().open_table(theirs)?;
        tx.apply(&put("k2", ""))
    });
    assert!(matches!(outcome, Err(WriteError::Rejected(_))), "{outcome:?}");
    write(&store, &put("k3", "")).unwrap();
    assert_eq!((content(&store).unwrap().len(), counted(&store)), (2, 0));
}

/// If the app's code panics in the middle of a change of a table, redb refuses to commit the transaction.
#[test]
fn a_panic_that_the_app_hides_inside_redb_commits_nothing() {
    let disk = CrashDisk::default();
    let store = open(&disk).unwrap();
    join(&store, |tx| count(tx).and_then(|()| tx.apply(&batch(1)))).unwrap();
    let outcome = join(&store, |tx| {
        tx.apply(&batch(2))?;
        let mut table = tx.native().open_table(JOINS)?;
        let hidden = catch_unwind(AssertUnwindSafe(|| table.retain(|_, _| panic!("in the middle"))));
        assert!(hidden.is_err());
        Ok(())
    });
    assert!(outcome.is_err());
    drop(store);
    check(disk.image(), 1..=1, "after the panic");
}

#[test]
fn a_table_can_be_opened_again_after_a_job_failed_with_it_open() {
    let store = open(&CrashDisk::default()).unwrap();
    for _ in 0..3 {
        let outcome = join(&store, |tx| {
            count(tx)?;
            tx.apply(&batch(1))?;
            let _table = tx.native().open_table(JOINS)?;
            match tx.native().open_table(JOINS) {
                Err(error @ TableError::TableAlreadyOpen(..)) => Err(error.into()),
                _ => panic!("it is open"),
            }
        });
        assert!(matches!(outcome, Err(WriteError::Rejected(_))), "{outcome:?}");
        join(&store, |tx| {
            count(tx)?;
            let _table = tx.native().open_table(JOINS)?;
            panic!("with a table open")
        })
        .unwrap_err();
    }
    assert_eq!((content(&store).unwrap().len(), counted(&store)), (0, 0));
}

/// A joined write may hold values of peers too, so it is flushed in two steps as every other write is.
#[test]
fn a_joined_write_is_two_phase_as_every_write_is() {
    let disk = CrashDisk::default();
    let store = open(&disk).unwrap();
    let syncs_of = |work: &dyn Fn()| {
        let before = disk.syncs();
        work();
        disk.syncs() - before
    };
    let written = syncs_of(&|| write(&store, &put("key", "value")).unwrap());
    let joined = syncs_of(&|| join(&store, |tx| tx.apply(&put("key", "other"))).unwrap());
    assert_eq!((written, joined), (2, 2));
}
