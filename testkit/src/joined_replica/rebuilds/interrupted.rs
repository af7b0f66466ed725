//! Rebuilds that are interrupted by a crash or by a failure go on where they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join;
use syncline::{Error, JoinJob, JoinStorage as _, JoinTx as _, ProjectionState};

use super::{MANY, fill, told_until_rebuilt};
use crate::joined_replica::app::{
    BEGINNING, Ill, PAIRED, Rows, TROUBLE, Trouble, assert_all_agree, assert_in_step, assert_same, note_rows,
    notes, projecting, put_pair, rebuilt, rows, run_projecting,
};
use crate::models::{Note, note};
use crate::replica::app::{assert_whole, at_most, open_store, run, run_on, stops_for};
use crate::{Fault, FaultKind, Faults, JoinFixture};

/// How many rows are in the store.
async fn stored_rows<F: JoinFixture>(fixture: &F) -> usize {
    let found = Arc::new(AtomicUsize::new(0));
    let keep = Arc::clone(&found);
    let job: JoinJob<F::Store> = Box::new(move |tx| {
        keep.store(F::rows(tx.native())?.len(), Ordering::Relaxed);
        Ok(())
    });
    open_store(fixture).await.join(job).await.expect("the rows can be read");
    found.load(Ordering::Relaxed)
}

/// A rebuild whose driver is dropped at any point, or whose store fails at any operation, goes on at the next opening
/// where it was. It does not begin anew, and in the end the rows equal the records.
pub async fn a_rebuild_goes_on_after_a_crash<F: JoinFixture>(fixture: &F) {
    fill(fixture, MANY).await;
    let trouble = Trouble::default();
    let mut crashes = 0;
    let mut begun = None;
    for polls in 0.. {
        // Once there are rows, the rebuild has begun: from now on no other may begin.
        if begun.is_none() && stored_rows(fixture).await > 0 {
            begun = Some(trouble.resets());
        }
        let (library, driver) = projecting(fixture, &Faults::new(), &trouble).await.open().await.unwrap();
        let crash = at_most(polls, driver.run());
        let done = async {
            let done = library.status().await.is_ok_and(|status| {
                status.projections.iter().all(|one| one.state == ProjectionState::Complete)
            });
            library.shutdown().await.is_ok() && done
        };
        let (_, done) = join(crash, done).await;
        drop(library);
        if done {
            break;
        }
        crashes += 1;
        assert!(polls < 500, "the rebuild never ended");
    }
    // A fast store has several results ready at one poll, so how many crashes there are is not the same in every run.
    assert!(crashes > 2, "the driver crashed only {crashes} times");
    assert_eq!(begun, Some(trouble.resets()), "it began anew");
    assert_all_agree(fixture, "after crashes").await;

    // After a fault of the store the driver stops, or tries once more.
    for kind in FaultKind::ALL {
        for at in 0.. {
            let when = format!("a rebuild after {kind:?} at operation {at}");
            // A commit without the projections makes a rebuild necessary.
            run_on(fixture, async |library| drop(library.commit(note(9, &*when)).await.unwrap())).await;
            let faults = Faults::new();
            let (library, driver) = projecting(fixture, &faults, &trouble).await.open().await.unwrap();
            faults.arm(Fault::once(at, kind));
            let app = async {
                let library = library;
                loop {
                    let Ok(status) = library.status().await else { break };
                    let rebuilding = |one: &syncline::ProjectionStatus| {
                        matches!(one.state, ProjectionState::Rebuilding { .. })
                    };
                    if !status.projections.iter().any(rebuilding) {
                        let failed = |one: &syncline::ProjectionStatus| {
                            matches!(one.state, ProjectionState::Failed { .. })
                        };
                        assert!(!status.projections.iter().any(failed), "{when}");
                        break;
                    }
                    crate::poll::give_way().await;
                }
            };
            let (stopped, ()) = join(driver.run(), app).await;
            let goes_on = matches!(kind, FaultKind::ReadError | FaultKind::Rejected | FaultKind::Undone);
            let fits = match &stopped {
                Ok(()) => goes_on || !faults.fired(),
                Err(reason) => faults.fired() && stops_for(kind, reason),
            };
            assert!(fits, "{when}: the driver says {stopped:?}");
            assert_all_agree(fixture, &when).await;
            if !faults.fired() {
                break;
            }
        }
    }

    // A store that goes on failing ends the rebuild until the next opening, and nothing else.
    for kind in [FaultKind::ReadError, FaultKind::Rejected, FaultKind::Undone] {
        run_on(fixture, async |library| drop(library.commit(note(9, "again")).await.unwrap())).await;
        let faults = Faults::new();
        let (library, driver) = projecting(fixture, &faults, &trouble).await.open().await.unwrap();
        faults.arm(Fault::sticky(0, kind));
        let app = async {
            let library = library;
            let states = rebuilt(&library).await;
            let all_failed = states.values().all(|state| matches!(state, ProjectionState::Failed { .. }));
            assert!(all_failed, "{kind:?}: {states:?}");
            faults.disarm();
            library.commit(note(9, "it goes on")).await.unwrap();
        };
        join(app, driver.run()).await.1.unwrap();
        assert_all_agree(fixture, "after a store that went on failing").await;
    }
}

/// A rebuild that fails says so in the status and in an event. Commits go on, also of records that it has projected
/// already, and the next opening goes on where it was.
pub async fn a_failed_rebuild_goes_on_at_the_next_opening<F: JoinFixture>(fixture: &F) {
    const ILL: u32 = 1_200;
    /// The last id of the second page: of 512 records, 510 have even ids and two have odd ones.
    const TAKEN: u64 = 1_018;
    fill(fixture, MANY).await;
    run_on(fixture, async |library| drop(library.commit(note(3, "odd")).await.unwrap())).await;
    let trouble = Trouble::default();
    for (round, how) in [(1, Ill::Error), (2, Ill::Panic)] {
        run_on(fixture, async |library| drop(library.commit(note(9, format!("{how:?}"))).await.unwrap()))
            .await;
        trouble.make(ILL, how);
        for opening in 0..2 {
            let when = format!("{how:?}, opening {opening}");
            run(projecting(fixture, &Faults::new(), &trouble).await, async |library| {
                let told = told_until_rebuilt(&library).await;
                let states = rebuilt(&library).await;
                let ProjectionState::Failed { error } = &states["notes"] else {
                    panic!("{when}: {states:?}")
                };
                assert!(error.contains(TROUBLE), "{when}: {error}");
                assert_eq!(told.last(), Some(&states["notes"]), "{when}: it is told");
                assert_eq!(states["places"], ProjectionState::Complete, "{when}: the others go on");
                // The projection has the records of the pages before the failure, and follows their commits.
                let taken = note_rows(&rows::<F, _>(&library).await);
                assert_eq!(taken.keys().max(), Some(&TAKEN), "{when}: two pages");
                library.commit(note(3, &*when)).await.unwrap();
                library.delete::<Note>(4).await.unwrap();
                library.commit(note(4, &*when)).await.unwrap();
                library.commit(note(1_399, &*when)).await.unwrap();
                library.commit(note(ILL, &*when)).await.unwrap();
                put_pair::<F, _>(&library, PAIRED, &when).await.unwrap();
                let found = note_rows(&rows::<F, _>(&library).await);
                assert_eq!((&found[&3], &found[&4]), (&when, &when));
                assert!(!found.contains_key(&1_399) && !found.contains_key(&u64::from(PAIRED)));
                let expected: Rows =
                    notes(&library).await.into_iter().filter(|(id, _)| *id <= TAKEN).collect();
                assert_same(&found, &expected, &when, "the projection as far as it got");
            })
            .await
            .unwrap();
            assert_whole(fixture, &when).await;
            assert_eq!(trouble.resets(), round, "{when}: it does not begin anew");
        }
        trouble.end();
        run(projecting(fixture, &Faults::new(), &trouble).await, async |library| {
            rebuilt(&library).await;
            assert_in_step::<F>(&library, "cured").await;
        })
        .await
        .unwrap();
        assert_eq!(trouble.resets(), round, "cured: it goes on where it was");
        assert_all_agree(fixture, "cured").await;
    }
    // A rebuild that fails at its beginning changes no row, and the projection follows no commit.
    for how in [Ill::Error, Ill::Panic] {
        run_on(fixture, async |library| {
            drop(library.commit(note(9, format!("{how:?}, anew"))).await.unwrap());
        })
        .await;
        trouble.make(BEGINNING, how);
        run(projecting(fixture, &Faults::new(), &trouble).await, async |library| {
            let before = note_rows(&rows::<F, _>(&library).await);
            let states = rebuilt(&library).await;
            assert!(matches!(states["notes"], ProjectionState::Failed { .. }), "{states:?}");
            library.commit(note(9, "unseen")).await.unwrap();
            library.delete::<Note>(3).await.unwrap();
            let after = note_rows(&rows::<F, _>(&library).await);
            assert_same(&after, &before, "a rebuild that cannot begin", "what was there before");
        })
        .await
        .unwrap();
        trouble.end();
        assert_all_agree(fixture, "begun at last").await;
    }
    // The projection can still refuse a commit of a record that a failed rebuild has projected.
    run_on(fixture, async |library| drop(library.commit(note(9, "anew")).await.unwrap())).await;
    trouble.make(ILL, Ill::Error);
    run(projecting(fixture, &Faults::new(), &trouble).await, async |library| {
        rebuilt(&library).await;
        trouble.make(6, Ill::Error);
        let refused = library.commit(note(6, "refused")).await;
        assert!(matches!(refused, Err(Error::Projection { projection: "notes", .. })), "{refused:?}");
        trouble.end();
    })
    .await
    .unwrap();
    run_projecting(fixture, async |library| {
        rebuilt(&library).await;
        assert_in_step::<F>(&library, "in the end").await;
    })
    .await;
}
