//! What a projection cannot take is a debt, which is seen, and paid when it can be; the records go on.

use futures::future::{join, join_all};
use syncline::{Builder, Clock as _, Error, ProjectionState, ProjectionStatus, Storage, TransactionManager};

use super::app::{
    ALL, BEGINNING, Ill, Rows, Store, TROUBLE, Trouble, assert_all_agree, assert_in_step, assert_same,
    note_rows, notes, projecting, rebuilt, rows,
};
use super::rebuilds::{MANY, fill};
use crate::models::{Note, note};
use crate::replica::app::{START_MS, assert_whole, run, run_on};
use crate::{Fault, FaultKind, Faults, JoinFixture, StepClock, poll};

/// The note that a projection cannot take: in the third page of a rebuild.
const ILL: u32 = 1_200;

async fn status_of_notes<S: Storage>(library: &TransactionManager<S>) -> ProjectionStatus {
    let all = library.status().await.expect("the driver runs").projections;
    all.into_iter().find(|one| one.name == "notes").expect("it is registered")
}

/// The builder of the app whose clock stands still, so that what is tried again for ever lets the test go on.
async fn patient<F: JoinFixture>(fixture: &F, trouble: &Trouble) -> Builder<Store<F>> {
    projecting(fixture, &Faults::new(), trouble).await.clock(StepClock::at(START_MS))
}

/// Waits until the projection of notes is complete and has this many debts.
async fn until_owes<S: Storage>(library: &TransactionManager<S>, debts: u64) -> ProjectionStatus {
    let mut events = library.events();
    loop {
        let status = status_of_notes(library).await;
        if status.state == ProjectionState::Complete && status.debts == debts {
            return status;
        }
        events.next().await.expect("the driver runs").ok();
    }
}

/// Asserts that the rows are those of the records but the one that is owed.
async fn assert_owes_only<F: JoinFixture>(library: &TransactionManager<Store<F>>, id: u32, when: &str) {
    let without = |rows: Rows| -> Rows { rows.into_iter().filter(|(of, _)| *of != u64::from(id)).collect() };
    let (found, expected) = (note_rows(&rows::<F, _>(library).await), notes(library).await);
    assert_same(&without(found), &without(expected), when, "projected notes, and the notes less the debt");
}

/// A record that fails in a rebuild is a debt, and the rebuild goes on. The debt is seen with its error, also after the
/// next opening. It is paid by a change of the record, after a change of another one, or at the opening, once the
/// projection takes the record.
pub async fn a_rebuild_owes_what_a_projection_cannot_take<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    fill(fixture, MANY).await;
    let trouble = Trouble::default();
    for (round, how) in [(1, Ill::Error), (2, Ill::Panic)] {
        run_on(fixture, async |library| drop(library.commit(note(9, format!("{how:?}"))).await.unwrap()))
            .await;
        trouble.make(ILL, how);
        for opening in 0..2 {
            let when = format!("{how:?}, opening {opening}");
            run(patient(fixture, &trouble).await, async |library| {
                let status = until_owes(&library, 1).await;
                let debt = status.first_debt.unwrap();
                assert_eq!(debt.record.id::<Note>(), Some(ILL), "{when}");
                assert!(debt.error.contains(TROUBLE), "{when}: {debt:?}");
                assert_eq!(rebuilt(&library).await["places"], ProjectionState::Complete, "{when}");
                assert_owes_only::<F>(&library, ILL, &when).await;
                // Commits of this replica are refused as ever, and all others go on.
                let refused = library.commit(note(ILL, &*when)).await;
                assert!(matches!(refused, Err(Error::Projection { .. })), "{when}: {refused:?}");
                library.commit(note(3, &*when)).await.unwrap();
                library.delete::<Note>(4).await.unwrap();
                assert_owes_only::<F>(&library, ILL, &when).await;
                assert_eq!(status_of_notes(&library).await.debts, 1, "{when}");
            })
            .await
            .unwrap();
            assert_whole(fixture, &when).await;
            assert_eq!(trouble.resets(), round, "{when}: it does not begin anew");
        }
        run(patient(fixture, &trouble).await, async |library| {
            until_owes(&library, 1).await;
            trouble.end();
            let other = if round == 1 { ILL } else { 3 };
            library.commit(note(other, "cured")).await.unwrap();
            assert_eq!(until_owes(&library, 0).await.first_debt, None);
            assert_in_step::<F>(&library, "after the next change").await;
        })
        .await
        .unwrap();
        // What is paid is stored as a debt no more: an opening would show it, since it could not be paid there.
        trouble.make(ILL, how);
        run(projecting(fixture, &Faults::new(), &trouble).await, async |library| {
            rebuilt(&library).await;
            assert_eq!(status_of_notes(&library).await.debts, 0, "{how:?}: it was paid");
        })
        .await
        .unwrap();
        trouble.end();
    }
    // An opening pays too.
    run_on(fixture, async |library| drop(library.commit(note(9, "again")).await.unwrap())).await;
    trouble.make(ILL, Ill::Error);
    run(patient(fixture, &trouble).await, async |library| {
        until_owes(&library, 1).await;
    })
    .await
    .unwrap();
    trouble.end();
    run(patient(fixture, &trouble).await, async |library| {
        until_owes(&library, 0).await;
        assert_in_step::<F>(&library, "after an opening").await;
    })
    .await
    .unwrap();
    assert_all_agree(fixture, "in the end").await;
}

/// Tables that cannot be made, a projection that takes no record of a page, and a store that fails are tried again,
/// after ever longer pauses, and in the end nothing is missing. Meanwhile commits go on.
pub async fn a_rebuild_that_fails_is_tried_again<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let trouble = Trouble::default();
    fill(fixture, MANY).await;
    for (id, kind) in [
        (Some(BEGINNING), None),
        (Some(ALL), None),
        (None, Some(FaultKind::ReadError)),
        (None, Some(FaultKind::Rejected)),
        (None, Some(FaultKind::Undone)),
    ] {
        let when = format!("{id:?} {kind:?}");
        run_on(fixture, async |library| drop(library.commit(note(9, &*when)).await.unwrap())).await;
        let (faults, clock) = (Faults::new(), StepClock::at(START_MS));
        if let Some(id) = id {
            trouble.make(id, Ill::Error);
        }
        let builder = projecting(fixture, &faults, &trouble).await.clock(clock.clone());
        let (library, driver) = builder.open().await.expect("a projection that fails fails no opening");
        if let Some(kind) = kind {
            faults.arm(Fault::sticky(0, kind));
        }
        let app = async {
            let library = library;
            // The first try, and the pauses after it.
            for _ in 0..2 {
                poll::give_way().await;
                clock.advance(300);
            }
            for _ in 0..20 {
                poll::give_way().await;
            }
            let status = status_of_notes(&library).await;
            match id {
                Some(BEGINNING) => {
                    let failed =
                        matches!(&status.state, ProjectionState::Failed { error } if error.contains(TROUBLE));
                    assert!(failed, "{when}: {status:?}");
                }
                _ => {
                    assert!(matches!(status.state, ProjectionState::Rebuilding { .. }), "{when}: {status:?}");
                }
            }
            assert_eq!(status.debts, 0, "{when}: a page that takes nothing makes no debts at first");
            trouble.end();
            faults.disarm();
            if kind.is_none() {
                library.commit(note(9, "meanwhile")).await.unwrap();
            }
            let deadline = clock.mono();
            while status_of_notes(&library).await.state != ProjectionState::Complete {
                assert!(clock.mono().since(deadline) < 600_000, "{when}: it is never tried again");
                clock.advance(100);
                poll::give_way().await;
            }
            rebuilt(&library).await;
            assert_in_step::<F>(&library, &when).await;
        };
        join(app, driver.run()).await.1.unwrap();
        assert_all_agree(fixture, &when).await;
    }
    // What goes on taking nothing ends as debts, so that the rebuild ends.
    run_on(fixture, async |library| drop(library.commit(note(9, "in the end")).await.unwrap())).await;
    trouble.make(ALL, Ill::Error);
    let clock = StepClock::at(START_MS);
    let builder = projecting(fixture, &Faults::new(), &trouble).await.clock(clock.clone());
    let (library, driver) = builder.open().await.unwrap();
    let app = async {
        let library = library;
        let until = async |what: &str, debts: std::ops::Range<u64>| {
            for _ in 0..50_000 {
                let status = status_of_notes(&library).await;
                if status.state == ProjectionState::Complete && debts.contains(&status.debts) {
                    return;
                }
                clock.advance(100);
                poll::give_way().await;
            }
            panic!("{what}: {:?}", status_of_notes(&library).await);
        };
        until("all is owed", 500..u64::MAX).await;
        trouble.make(ILL, Ill::Error);
        until("all but one is paid", 1..2).await;
        // What is left is tried again once time has passed, and not all the time.
        let failures = trouble.failures();
        for _ in 0..500 {
            poll::give_way().await;
            status_of_notes(&library).await;
        }
        let tries = trouble.failures() - failures;
        assert!(tries <= 3, "{tries} tries while the clock stood still");
        trouble.end();
        until("all is paid", 0..1).await;
        assert_in_step::<F>(&library, "paid").await;
    };
    join(app, driver.run()).await.1.unwrap();
    assert_all_agree(fixture, "paid").await;
}

/// Commits of projected models that come together share writes. A commit that a projection refuses fails alone: the
/// others are there, each with its answer, and the log has no hole.
pub async fn a_projection_refuses_one_commit_of_a_round<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    const CALLERS: u32 = 16;
    let (trouble, faults) = (Trouble::default(), Faults::new());
    run(projecting(fixture, &faults, &trouble).await.clock(StepClock::at(START_MS)), async |library| {
        rebuilt(&library).await;
        for (step, ill) in [None, Some(0), Some(7), Some(CALLERS - 1)].into_iter().enumerate() {
            let when = format!("the ill one is {ill:?}");
            if let Some(ill) = ill {
                trouble.make(ill, Ill::Error);
            }
            let (writes, before) = (faults.writes(), library.status().await.unwrap().commits);
            let calls = (0..CALLERS).map(|id| library.commit(note(id, format!("step {step}"))));
            let results = join_all(calls).await;
            trouble.end();
            for (id, result) in results.iter().enumerate() {
                let refused = matches!(result, Err(Error::Projection { projection: "notes", .. }));
                assert_eq!(
                    (refused, result.is_ok()),
                    (ill == u32::try_from(id).ok(), ill != u32::try_from(id).ok()),
                    "{when}: {id}: {result:?}"
                );
            }
            let made = u64::from(CALLERS) - u64::from(ill.is_some());
            assert_eq!(library.status().await.unwrap().commits, before + made, "{when}");
            if ill.is_none() {
                let writes = faults.writes() - writes;
                assert!(
                    writes < u64::from(CALLERS) / 2,
                    "{writes} writes for {CALLERS} commits that came together"
                );
            }
            assert_in_step::<F>(&library, &when).await;
        }
        // An update runs once, so it shares its write with no other; it is no exception otherwise.
        let calls = (0..CALLERS).map(|id| {
            let append =
                move |old: Option<Note>| Ok(note(id, old.map_or_else(String::new, |old| old.text) + "!"));
            library.update::<Note, _>(id, append)
        });
        assert!(join_all(calls).await.iter().all(Result::is_ok));
        assert_in_step::<F>(&library, "updates").await;
    })
    .await
    .unwrap();
    assert_all_agree(fixture, "after rounds").await;
}
