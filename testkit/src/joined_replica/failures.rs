//! Rows, records and projections agree after every failure, and the app is told of it.

use futures::future::join;
use syncline::{ClockError, Error, StopReason, TransactionManager, WallMs};

use super::app::{
    Ill, PAIRED, Store, TROUBLE, Trouble, assert_all_agree, assert_in_step, assert_paired, assert_told,
    delete_pair, projecting, put_pair, rebuilt, rows, run_projecting,
};
use crate::models::{Note, note};
use crate::quiet::{be_quiet, is_quiet};
use crate::replica::app::{
    Ledger, START_MS, UNKNOWN_OUTCOMES, ask, assert_whole, at_most, drain, open_store, place, run, run_on,
    stops_for, try_run,
};
use crate::storage::sweep::Sweep;
use crate::{Fault, FaultKind, Faults, Faulty, JoinFixture, ManualClock, MediumFaultKind, panic_quietly};

/// A closure that returns an error, panics, stages a value that is refused, ends the transaction or gets no stamp
/// leaves nothing behind. The error says which of these it was, and the next commit works.
pub async fn a_failed_with_tx_leaves_nothing<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    run_on(fixture, async |library| {
        library.commit(note(1, "old")).await.unwrap();
        put_pair::<F, _>(&library, PAIRED, "old").await.unwrap();
        let before = (rows::<F, _>(&library).await, library.status().await.unwrap());
        let mut events = library.events();
        let mut step = 0;
        let mut expect_nothing = async |what: &str| {
            assert_eq!(drain(&mut events).await, [], "{what}: an event");
            let after = (rows::<F, _>(&library).await, library.status().await.unwrap());
            assert_eq!(after.0, before.0, "{what}: the rows");
            assert_eq!(after.1.commits, before.1.commits + step, "{what}: the commits");
            assert_eq!(library.get::<Note>(1).await.unwrap(), Some(note(1, "old")), "{what}: the record");
            // The next commits work, plain and joined.
            library.commit(note(2, format!("after {what}"))).await.unwrap();
            put_pair::<F, _>(&library, PAIRED, &format!("after {what}")).await.unwrap();
            put_pair::<F, _>(&library, PAIRED, "old").await.unwrap();
            drain(&mut events).await;
            step += 3;
        };

        let failed = library.with_tx::<(), _>(|tx| {
            F::put_row(tx.native(), 7, "lost")?;
            tx.put(&note(1, "lost"))?;
            Err("no".into())
        });
        let failed = failed.await;
        assert!(matches!(&failed, Err(Error::Aborted(error)) if error.to_string() == "no"), "{failed:?}");
        expect_nothing("an error").await;

        let failed = library.with_tx::<(), _>(|tx| {
            F::put_row(tx.native(), 7, "lost")?;
            tx.put(&note(1, "lost"))?;
            panic_quietly("no");
        });
        let failed = failed.await;
        assert!(matches!(&failed, Err(Error::Panicked { message }) if message == "no"), "{failed:?}");
        expect_nothing("a panic").await;

        let failed = library.with_tx(|tx| {
            F::put_row(tx.native(), 7, "lost")?;
            tx.put(&note(1, "lost"))?;
            Ok(tx.put(&note(3, "x".repeat(64 << 20)))?)
        });
        let failed = failed.await;
        assert!(matches!(&failed, Err(Error::TooLarge { .. })), "{failed:?}");
        expect_nothing("a value that is too large").await;

        for ending in F::endings() {
            for late in [false, true] {
                let (end, name) = (ending.end, ending.name);
                let failed = library.with_tx(move |tx| {
                    F::put_row(tx.native(), 7, "lost")?;
                    tx.put(&note(1, "lost"))?;
                    let refused = end(tx.native()).is_err();
                    if !late {
                        // The app goes on as if the transaction had not been ended; the statement may fail or not.
                        let _ = F::put_row(tx.native(), 8, "lost");
                    }
                    Ok(refused)
                });
                match failed.await {
                    Err(Error::TransactionEnded(_)) => expect_nothing(&format!("{name}, late: {late}")).await,
                    // The ending was refused and had no effect, so the closure was committed.
                    Ok(true) => {
                        let back = library.with_tx(|tx| {
                            F::delete_row(tx.native(), 7)?;
                            F::delete_row(tx.native(), 8)?;
                            Ok(tx.put(&note(1, "old"))?)
                        });
                        back.await.unwrap();
                    }
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
    })
    .await;
    assert_whole(fixture, "after failed joins").await;

    // The clock fails, so there is no stamp for a closure that has worked.
    let clock = ManualClock::at(START_MS);
    run(ask(open_store(fixture).await).clock(clock.clone()), async |library| {
        let before = (rows::<F, _>(&library).await, library.status().await.unwrap());
        clock.set_wall(Err(ClockError::Before1970));
        let failed = put_pair::<F, _>(&library, PAIRED, "lost").await;
        assert!(matches!(failed, Err(Error::Clock(_))), "{failed:?}");
        // A closure that commits no record needs no stamp and works.
        library.with_tx(|tx| F::delete_row(tx.native(), 9)).await.unwrap();
        assert_eq!((rows::<F, _>(&library).await, library.status().await.unwrap()), before);
        clock.set_wall(Ok(WallMs::new(START_MS).unwrap()));
        put_pair::<F, _>(&library, PAIRED, "kept").await.unwrap();
        assert_paired::<F, _>(&library, "after a clock that failed").await;
    })
    .await
    .unwrap();
    assert_whole(fixture, "after a clock that failed").await;
}

/// A projection that returns an error or panics rejects the whole commit, of any kind, and the error names it.
pub async fn a_failing_projection_rejects_the_commit<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let trouble = Trouble::default();
    let builder = projecting(fixture, &Faults::new(), &trouble).await;
    run(builder, async |library| {
        rebuilt(&library).await;
        library.commit(note(1, "old")).await.unwrap();
        library.commit(place(1, "old")).await.unwrap();
        put_pair::<F, _>(&library, PAIRED, "old").await.unwrap();
        for how in [Ill::Error, Ill::Panic] {
            for id in [1, PAIRED] {
                let mut events = library.events();
                let before = (rows::<F, _>(&library).await, library.status().await.unwrap());
                trouble.make(id, how);
                let mut results = vec![
                    library.commit(note(id, "new")).await.map(drop),
                    library.delete::<Note>(id).await,
                    library.update::<Note, _>(id, move |_| Ok(note(id, "new"))).await.map(drop),
                    library
                        .commit_batch(|batch| {
                            batch.put(&note(0, "before"))?;
                            batch.put(&note(id, "new"))?;
                            batch.put(&note(2_000, "behind"))?;
                            Ok(batch.put(&place(7, "beside"))?)
                        })
                        .await,
                ];
                if id == PAIRED {
                    results.push(put_pair::<F, _>(&library, id, "new").await);
                    results.push(delete_pair::<F, _>(&library, id).await);
                }
                trouble.end();
                for result in &results {
                    let Err(Error::Projection { projection: "notes", record, source }) = result else {
                        panic!("{how:?}: {result:?}");
                    };
                    assert_eq!(record.id::<Note>(), Some(id));
                    assert!(source.to_string().contains(TROUBLE), "{how:?}: {source}");
                }
                assert_eq!(drain(&mut events).await, [], "{how:?}: events");
                let after = (rows::<F, _>(&library).await, library.status().await.unwrap());
                assert_eq!(after, before, "{how:?}");
                assert_in_step::<F>(&library, "after a failing projection").await;
                library.commit(note(id + 1, format!("{how:?}"))).await.unwrap();
                delete_pair::<F, _>(&library, PAIRED + 1).await.unwrap();
                assert_in_step::<F>(&library, "after the next commit").await;
            }
        }
    })
    .await
    .unwrap();
    assert_all_agree(fixture, "after failing projections").await;
}

/// A joined commit whose future is dropped at any point leaves row, record and event, or none of them.
pub async fn cancelling_with_tx_leaves_all_or_nothing<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let (mut made, mut left_out, mut through) = (0, 0, false);
    for polls in 0..64 {
        if through {
            break;
        }
        let text = format!("after {polls} polls");
        run_projecting(fixture, async |library| {
            rebuilt(&library).await;
            let mut events = library.events();
            through = at_most(polls, put_pair::<F, _>(&library, PAIRED, &text)).await.is_some();
            // The next commit comes after the dropped one, if that is made.
            library.commit(note(3, &*text)).await.expect("the store goes on");
            assert_in_step::<F>(&library, &text).await;
            let there = library.get::<Note>(PAIRED).await.unwrap().is_some_and(|note| note.text == text);
            let told = drain(&mut events).await.len() - 1;
            assert_eq!(told, usize::from(there), "{text}: a commit has its event if it is there");
            assert!(there || !through, "{text}: an acknowledged commit is missing");
            if there {
                made += 1;
            } else {
                left_out += 1;
            }
        })
        .await;
        assert_all_agree(fixture, &text).await;
    }
    assert!(through && made > 0 && left_out > 0, "the sweep saw {made} commits made and {left_out} left out");
}

/// If the store does not know the outcome of a joined write, the commit returns `Unknown`, the driver stops, and
/// reopening shows whether the commit was made.
pub async fn an_unknown_with_tx_is_said_to_be_unknown<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    for (kind, applied) in UNKNOWN_OUTCOMES {
        let text = format!("{kind:?}");
        let faults = Faults::new();
        run_on(fixture, async |library| delete_pair::<F, _>(&library, PAIRED).await.unwrap()).await;
        let store = Faulty::new(open_store(fixture).await, faults.clone());
        let (library, driver) = ask(store).open().await.expect("it opens");
        faults.arm(Fault::once(0, kind));
        let app = async {
            let first = put_pair::<F, _>(&library, PAIRED, &text).await;
            (first, put_pair::<F, _>(&library, PAIRED + 1, "later").await)
        };
        let (stopped, (first, later)) = join(driver.run(), app).await;
        let reason = |reason: &StopReason| stops_for(kind, reason);
        assert!(matches!(&stopped, Err(stop) if reason(stop)), "{kind:?}: the driver says {stopped:?}");
        assert!(matches!(&first, Err(Error::Unknown(stop)) if reason(stop)), "{kind:?}: it says {first:?}");
        assert!(matches!(&later, Err(Error::Stopped(stop)) if reason(stop)), "{kind:?}: the next {later:?}");
        run_on(fixture, async |library| {
            assert_eq!(library.get::<Note>(PAIRED).await.unwrap().is_some(), applied, "{kind:?}");
            assert_eq!(library.get::<Note>(PAIRED + 1).await.unwrap(), None, "{kind:?}");
            assert_paired::<F, _>(&library, &text).await;
        })
        .await;
        assert_whole(fixture, &text).await;
    }
    // After the others it is certain that nothing was committed. The driver goes on, or it stops because it is fenced.
    for kind in [FaultKind::Rejected, FaultKind::Undone, FaultKind::Fenced] {
        let faults = Faults::new();
        run_on(fixture, async |library| delete_pair::<F, _>(&library, PAIRED).await.unwrap()).await;
        let store = Faulty::new(open_store(fixture).await, faults.clone());
        let (library, driver) = ask(store).open().await.expect("it opens");
        faults.arm(Fault::once(0, kind));
        let app = async {
            let library = library;
            let first = put_pair::<F, _>(&library, PAIRED, "lost").await;
            (first, put_pair::<F, _>(&library, PAIRED + 1, "next").await)
        };
        let (stopped, (first, next)) = join(driver.run(), app).await;
        if kind == FaultKind::Fenced {
            assert!(matches!(stopped, Err(StopReason::Fenced)), "{stopped:?}");
            assert!(matches!(first, Err(Error::Stopped(StopReason::Fenced))), "{first:?}");
            assert!(matches!(next, Err(Error::Stopped(StopReason::Fenced))), "{next:?}");
        } else {
            assert!(stopped.is_ok() && next.is_ok(), "{kind:?}: {stopped:?}, {next:?}");
            assert!(matches!(first, Err(Error::Rejected(_))), "{kind:?}: {first:?}");
        }
        run_on(fixture, async |library| {
            assert_eq!(library.get::<Note>(PAIRED).await.unwrap(), None, "{kind:?}");
            assert_paired::<F, _>(&library, "a certain outcome").await;
        })
        .await;
        assert_whole(fixture, "a certain outcome").await;
    }
}

/// Makes joined commits of every kind, whose texts name the `round`. Every call must return. Returns whether all have
/// worked.
async fn work<F: JoinFixture>(
    library: &TransactionManager<Store<F>>,
    ledger: &mut Ledger,
    round: u64,
) -> bool {
    let text = format!("pair {round}");
    let put = put_pair::<F, _>(library, PAIRED, &text).await;
    ledger.note(PAIRED, Some(text.clone()), &put);
    let batch = library.commit_batch(|batch| {
        batch.put(&place(1, &*text))?;
        batch.put(&note(50, &*text))?;
        Ok(batch.delete::<Note>(51)?)
    });
    let batch = batch.await;
    ledger.note(50, Some(text.clone()), &batch);
    ledger.note(51, None, &batch);
    let delete = delete_pair::<F, _>(library, PAIRED).await;
    ledger.note(PAIRED, None, &delete);
    let again = put_pair::<F, _>(library, PAIRED + 1, &text).await;
    ledger.note(PAIRED + 1, Some(text), &again);
    [put, batch, delete, again].iter().all(Result::is_ok)
}

/// After a fault of any kind at any operation of the store, rows, records, log and projections agree, and have exactly
/// the commits of which the app was told.
pub async fn every_fault_leaves_rows_and_records_in_agreement<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let (mut ledger, mut round) = (Ledger::default(), 0);
    for kind in FaultKind::ALL {
        // After the other kinds the store has stopped, so that a sticky fault would change nothing.
        let goes_on = matches!(kind, FaultKind::ReadError | FaultKind::Rejected | FaultKind::Undone);
        for sticky in if goes_on { &[false, true][..] } else { &[false] } {
            for at in 0.. {
                let when = format!("after {kind:?} at operation {at}, sticky: {sticky}");
                round += 1;
                let faults = Faults::new();
                faults.arm(Fault { at, kind, sticky: *sticky });
                let builder = projecting(fixture, &faults, &Trouble::default()).await;
                try_run(builder, async |library| {
                    ledger.work(&library, round).await;
                    work::<F>(&library, &mut ledger, round).await;
                })
                .await;
                assert_told(fixture, Some(&mut ledger), &when).await;
                if !faults.fired() {
                    break;
                }
            }
        }
    }
    assert!(round > 60, "the sweep injected only {round} faults");
}

/// The same for faults of the medium under the store, which also hit the app's own statements. A fixture that cannot
/// break its medium has nothing to check.
pub async fn every_medium_fault_leaves_rows_and_records_in_agreement<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let (mut ledger, mut round) = (Ledger::default(), 0);
    let mut sweep = Sweep::of(fixture);
    while let Some(fault) = sweep.next_fault() {
        round += 1;
        let builder = projecting(fixture, &Faults::new(), &Trouble::default()).await;
        let (library, driver) = builder.open().await.expect("the store opens");
        let app = async {
            let library = library;
            rebuilt(&library).await;
            fixture.break_medium(Some(fault));
            let well = work::<F>(&library, &mut ledger, round).await;
            fixture.break_medium(None);
            well
        };
        // After a panic of the medium an engine may panic too, when its locks are poisoned.
        let outer = is_quiet();
        be_quiet(outer || fault.kind == MediumFaultKind::Panic);
        let (_, well) = join(driver.run(), app).await;
        be_quiet(outer);
        sweep.went_well(well);
        let when = format!("after {fault}");
        assert_told(fixture, Some(&mut ledger), &when).await;
    }
}
