//! Goal: a whole replica on redb survives loss of power and a full disk at every operation of the medium: every
//! acknowledged commit is there, every commit is whole, the audit finds nothing. Method: the operations of some commits
//! on the medium are recorded and cut after each of them, and each medium that could be left is opened; then the disk
//! is full from each write on, gets space again, and is opened.
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

use futures::executor::block_on;
use futures::future::{join, join_all};
use serde::{Deserialize, Serialize};
use support::Rng;
use support::crash_disk::{CrashDisk, Fault, How, Kind, PowerCuts};
use syncline::{DeviceId, Error, GroupId, ReplicaId, Syncable, TransactionManager, Uuid, audit};
use syncline_backends::{OpenStoreError, RedbStorage};
use syncline_testkit::ManualClock;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "note")]
struct Note {
    #[sync(id)]
    id: u32,
    text: String,
}

/// The ids of the notes that commit `n` writes. All of them get the same text.
const NOTES: [&[u32]; 4] = [&[1], &[1, 2, 3], &[4], &[2, 3, 4]];
const COMMITS: usize = 8;

fn open_store(disk: &CrashDisk) -> Result<RedbStorage, OpenStoreError> {
    RedbStorage::builder().open_backend(disk.clone())
}

/// Commits one after the other, and calls `after_each` with the outcome of each commit.
async fn live(store: RedbStorage, mut after_each: impl FnMut(usize, &Result<(), Error>)) {
    let opened = TransactionManager::builder(store)
        .device(DeviceId(Uuid::from_u128(1)))
        .found(GroupId(Uuid::from_u128(2)))
        .replica(ReplicaId(Uuid::from_u128(3)))
        .model::<Note>()
        .clock(ManualClock::at(1_700_000_000_000))
        .open()
        .await;
    let Ok((library, driver)) = opened else { return };
    let commits = async {
        let library = library;
        for n in 0..COMMITS {
            let staged = library.commit_batch(|batch| {
                Ok(NOTES[n % NOTES.len()]
                    .iter()
                    .try_for_each(|id| batch.put(&Note { id: *id, text: "x".repeat(n * 500) }))?)
            });
            after_each(n, &staged.await);
        }
    };
    let _ = join(driver.run(), commits).await;
}

/// The length of each note's text after the first `commits` commits.
fn expected(commits: usize) -> Vec<Option<usize>> {
    let mut notes = vec![None; 5];
    for n in 0..commits {
        NOTES[n % NOTES.len()].iter().for_each(|id| notes[*id as usize] = Some(n * 500));
    }
    notes
}

/// Opens the medium again. It must have the first n commits for an n in `possible`.
async fn check(disk: &CrashDisk, possible: std::ops::RangeInclusive<usize>, when: &str) {
    let store = open_store(disk).unwrap_or_else(|error| panic!("{when}: {error}"));
    let violations = audit(&store).await;
    assert!(violations.is_empty(), "{when}: {violations:?}");
    let opened = TransactionManager::builder(store).model::<Note>().open().await;
    let (library, driver) = match opened {
        // The cut may have come before the founding of the group.
        Err(syncline::OpenError::NoGroup { .. }) if *possible.start() == 0 => return,
        opened => opened.unwrap_or_else(|error| panic!("{when}: {error}")),
    };
    let look = async {
        let library = library;
        let notes = library.get_many::<Note>(&[0, 1, 2, 3, 4]).await.unwrap();
        notes.into_iter().map(|note| note.map(|note| note.text.len())).collect::<Vec<_>>()
    };
    let found = join(driver.run(), look).await.1;
    assert!(
        possible.clone().any(|n| expected(n) == found),
        "{when}: {found:?} is not after {possible:?} commits"
    );
}

#[test]
fn power_lost_at_any_operation_leaves_a_whole_store() {
    let disk = CrashDisk::default();
    let mut acknowledged = Vec::new();
    block_on(live(open_store(&disk).unwrap(), |_, result| {
        assert!(result.is_ok());
        acknowledged.push(disk.ops());
    }));
    assert_eq!(acknowledged.len(), COMMITS);
    let mut random = Rng::new(17);
    let mut cuts = PowerCuts::new(Vec::new(), disk.trace());
    let mut media = 0;
    loop {
        let told = acknowledged.iter().filter(|ops| **ops <= cuts.at()).count();
        for (left, image) in cuts.images(&mut random) {
            let when = format!("cut after {}, left {left}", cuts.at());
            block_on(check(&CrashDisk::with(image), told..=(told + 1).min(COMMITS), &when));
            media += 1;
        }
        if !cuts.advance() {
            break;
        }
    }
    assert!(media > 200, "only {media} media: the workload no longer exercises the store");
}

#[test]
fn a_disk_that_fills_up_loses_nothing_acknowledged() {
    for at in 0.. {
        let disk = CrashDisk::default();
        let (mut told, mut doubtful) = (0, 0);
        if let Ok(store) = open_store(&disk) {
            let full = How::Error(ErrorKind::StorageFull);
            disk.set_fault(Fault { on: Kind::Write, at, sticky: true, how: full });
            block_on(live(store, |n, result| match result {
                Ok(()) => told = n + 1,
                Err(Error::Unknown(_)) => doubtful = 1,
                Err(Error::Stopped(_) | Error::Rejected(_) | Error::Read(_)) => {}
                Err(other) => panic!("full at write {at}: commit {n} says {other}"),
            }));
        }
        let struck = disk.has_failed();
        disk.set_fault(None);
        // With space again, the store has every acknowledged commit, and the commit in doubt or not.
        block_on(check(&disk, told..=told + doubtful, &format!("full at write {at}")));
        if !struck {
            assert_eq!(told, COMMITS);
            assert!(at > 20, "only {at} writes: the workload no longer exercises the store");
            return;
        }
    }
}

#[test]
fn many_callers_share_what_a_flush_costs() {
    let disk = CrashDisk::default();
    let store = open_store(&disk).unwrap();
    block_on(async {
        let (library, driver) = TransactionManager::builder(store)
            .device(DeviceId(Uuid::from_u128(1)))
            .found(GroupId(Uuid::from_u128(2)))
            .model::<Note>()
            .open()
            .await
            .unwrap();
        let commits = async {
            let library = library;
            let before = disk.syncs();
            for round in 0..10 {
                let notes = (0..64).map(|id| library.commit(Note { id, text: round.to_string() }));
                join_all(notes).await.into_iter().for_each(|saved| drop(saved.unwrap()));
            }
            // A write takes two flushes, and one more if the file grows, which begins small and doubles. The commits of
            // 64 callers that commit at the same time share one write.
            let flushes = disk.syncs() - before;
            assert!(flushes <= 2 * 10 + 4, "640 commits took {flushes} flushes");
        };
        join(driver.run(), commits).await.0.unwrap();
    });
}
