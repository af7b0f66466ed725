//! Rebuilds that are interrupted by a crash or by a fault of the store go on where they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join;
use syncline::{JoinJob, JoinStorage as _, JoinTx as _, ProjectionState};

use super::{MANY, fill};
use crate::joined_replica::app::{Trouble, assert_all_agree, projecting};
use crate::models::note;
use crate::replica::app::{START_MS, at_most, open_store, run_on, stops_for};
use crate::{Fault, FaultKind, Faults, JoinFixture, StepClock};

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
pub async fn a_rebuild_goes_on_after_a_crash<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
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
            let clock = StepClock::at(START_MS);
            let builder = projecting(fixture, &faults, &trouble).await.clock(clock.clone());
            let (library, driver) = builder.open().await.unwrap();
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
                    // The next try comes after a pause.
                    clock.advance(100);
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
}
