//! Projections that are rebuilt: when, in which steps, and what happens meanwhile.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::{join, join_all};
use serde::{Deserialize, Serialize};
use syncline::{
    BoxError, Builder, Error, Event, Events, JoinJob, JoinStorage as _, JoinTx as _, Native, Projection,
    ProjectionState, StopReason, Storage, Syncable, TransactionManager,
};

use super::app::{
    BEGINNING, Ill, Notes, PAIRED, Rows, Store, TROUBLE, Trouble, assert_all_agree, assert_in_step,
    assert_same, clear, note_rows, notes, projected, projecting, put_pair, rebuilt, rows, run_projecting,
};
use crate::models::{Note, note};
use crate::replica::app::{
    DEVICE, GROUP, REPLICA, START_MS, ask, assert_whole, at_most, drain, open_store, place, run, run_on,
};
use crate::{Fault, FaultKind, Faults, Faulty, JoinFixture, ManualClock, seed};

/// More than two pages of a rebuild.
const MANY: u32 = 700;

/// Puts notes with even ids and places, without any projection.
async fn fill<F: JoinFixture>(fixture: &F, many: u32) {
    run_on(fixture, async |library| {
        let filled = library.commit_batch(|batch| {
            (0..many).try_for_each(|id| batch.put(&note(id * 2, format!("old {id}"))))?;
            Ok((0..40).try_for_each(|id| batch.put(&place(id, "old")))?)
        });
        filled.await.unwrap();
        // Tombstones are met too.
        library.delete::<Note>(8).await.unwrap();
    })
    .await;
}

/// What was told of the projection of notes.
async fn told(events: &mut Events) -> Vec<ProjectionState> {
    let events = drain(events).await.into_iter();
    let of_notes = events.filter_map(|event| match event {
        Event::Projection(status) if status.name == "notes" => Some(status.state),
        _ => None,
    });
    of_notes.collect()
}

/// Waits for the rebuilds, and returns what was told of the notes meanwhile.
async fn told_until_rebuilt<S: Storage>(library: &TransactionManager<S>) -> Vec<ProjectionState> {
    let mut events = library.events();
    rebuilt(library).await;
    told(&mut events).await
}

/// The fixture's store with one version of the projection of notes alone.
async fn only_notes<F: JoinFixture, const VERSION: u32>(fixture: &F, trouble: &Trouble) -> Builder<Store<F>> {
    let store = Faulty::new(open_store(fixture).await, Faults::new());
    ask(store).project(Notes::<F, VERSION>::new(trouble))
}

/// A projection that is new, that has another version or whose model has another schema is rebuilt, and so is one that
/// a commit may have missed; any other is not. In pages, with news of its beginning and its end.
pub async fn a_projection_is_rebuilt_when_it_must_be<F: JoinFixture>(fixture: &F) {
    fill(fixture, MANY).await;
    let (trouble, faults) = (Trouble::default(), Faults::new());
    let (library, driver) = projecting(fixture, &faults, &trouble).await.open().await.unwrap();
    faults.disarm();
    let app = async {
        let library = library;
        let told = told_until_rebuilt(&library).await;
        assert_eq!(told, [ProjectionState::Rebuilding { records: 0 }, ProjectionState::Complete]);
        // Notes: a beginning and three pages; places: a beginning and one page.
        assert_eq!(faults.writes(), 6, "a rebuild goes by pages");
        assert_in_step::<F>(&library, "new").await;
        assert_eq!(library.status().await.unwrap().commits, 3, "a rebuild is no commit");
    };
    join(app, driver.run()).await.1.unwrap();
    assert_eq!(trouble.resets(), 1);

    // Nothing has changed: nothing is rebuilt.
    let expect_resets = async |resets: u32, when: &str| {
        let before = trouble.resets();
        let builder = projecting(fixture, &Faults::new(), &trouble).await;
        run(builder, async |library| {
            let told = told_until_rebuilt(&library).await;
            assert_eq!(told.is_empty(), resets == before, "{when}: {told:?}");
            assert_in_step::<F>(&library, when).await;
        })
        .await
        .unwrap();
        assert_eq!(trouble.resets(), resets, "{when}");
    };
    expect_resets(1, "unchanged").await;

    // Opened once without it, so that a commit went by.
    run_on(fixture, async |library| {
        library.commit(note(1, "missed")).await.unwrap();
        library.delete::<Note>(2).await.unwrap();
    })
    .await;
    expect_resets(2, "after an opening without it").await;
    expect_resets(2, "unchanged again").await;

    // Another version, up and down.
    run(only_notes::<F, 2>(fixture, &trouble).await, async |library| {
        assert_eq!(rebuilt(&library).await["notes"], ProjectionState::Complete);
        let expected: Rows =
            notes(&library).await.into_iter().map(|(id, text)| (id, projected::<2>(&text))).collect();
        assert_same(&note_rows(&rows::<F, _>(&library).await), &expected, "another version", "its rows");
        library.commit(note(1, "followed")).await.unwrap();
        assert_eq!(note_rows(&rows::<F, _>(&library).await)[&1], "2: followed");
    })
    .await
    .unwrap();
    assert_eq!(trouble.resets(), 3);
    expect_resets(4, "the version before").await;

    // Another schema of its model.
    let store = Faulty::new(open_store(fixture).await, Faults::new());
    let builder = TransactionManager::builder(store).device(DEVICE).found(GROUP).replica(REPLICA);
    let builder = builder.clock(ManualClock::at(START_MS)).project(Newer::<F>(PhantomData));
    run(builder, async |library| {
        assert_eq!(rebuilt(&library).await["notes"], ProjectionState::Complete);
        let found = note_rows(&rows::<F, _>(&library).await);
        assert_eq!(found[&1], "followed, migrated", "another schema");
        assert_eq!(found.len(), MANY as usize - 1);
        library.commit(NewNote { id: 4, text: "newer".into(), mark: 1 }).await.unwrap();
    })
    .await
    .unwrap();
    assert_whole(fixture, "after rebuilds").await;

    // Back to the older app, which cannot read what the newer one wrote: it is not there until that is updated.
    run(projecting(fixture, &Faults::new(), &trouble).await, async |library| {
        assert_eq!(rebuilt(&library).await["notes"], ProjectionState::Complete);
        let found = note_rows(&rows::<F, _>(&library).await);
        assert_eq!((found.get(&4), found[&1].as_str()), (None, "followed"));
    })
    .await
    .unwrap();
    assert_eq!(trouble.resets(), 5);
}

/// The model of notes in the next version of the app.
#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "note", schema = 2, migrate = Self::from_older)]
struct NewNote {
    #[sync(id)]
    id: u32,
    text: String,
    mark: u8,
}

impl NewNote {
    fn from_older(_schema: u16, value: &[u8]) -> Result<Self, BoxError> {
        let Note { id, text } = postcard::from_bytes(value)?;
        Ok(Self { id, text: text + ", migrated", mark: 0 })
    }
}

/// The projection of notes in the next version of the app: the same, over the newer model.
struct Newer<F>(PhantomData<fn() -> F>);

impl<F: JoinFixture> Projection<Store<F>> for Newer<F> {
    type Model = NewNote;
    const NAME: &'static str = "notes";
    const VERSION: u32 = 1;

    fn reset(&self, tx: &Native<'_, Store<F>>) -> Result<(), BoxError> {
        clear::<F>(tx, 1 << 32)
    }

    fn put(&self, tx: &Native<'_, Store<F>>, note: &NewNote) -> Result<(), BoxError> {
        F::put_row(tx, 1 << 32 | u64::from(note.id), &note.text)
    }

    fn delete(&self, tx: &Native<'_, Store<F>>, id: &u32) -> Result<(), BoxError> {
        F::delete_row(tx, 1 << 32 | u64::from(*id))
    }
}

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
/// where it was, without beginning anew, and ends equal.
pub async fn a_rebuild_goes_on_after_a_crash<F: JoinFixture>(fixture: &F) {
    fill(fixture, MANY).await;
    let trouble = Trouble::default();
    let mut crashes = 0;
    let mut begun = None;
    for polls in 0.. {
        // Whatever is there stays: it goes on behind it.
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
    assert!(crashes > 4, "the driver crashed only {crashes} times");
    assert_eq!(begun, Some(trouble.resets()), "it began anew");
    assert_all_agree(fixture, "after crashes").await;

    // A store that fails stops the driver, or is asked once more.
    for kind in FaultKind::ALL {
        for at in 0.. {
            let when = format!("a rebuild after {kind:?} at operation {at}");
            // An opening without the projections makes them new.
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
            let fits = match kind {
                FaultKind::ReadError | FaultKind::Rejected | FaultKind::Undone => stopped.is_ok(),
                _ if !faults.fired() => stopped.is_ok(),
                FaultKind::UnknownApplied | FaultKind::UnknownLost => {
                    matches!(stopped, Err(StopReason::Unknown(_)))
                }
                FaultKind::PanicBefore | FaultKind::PanicAfter => {
                    matches!(stopped, Err(StopReason::Panicked(_)))
                }
                FaultKind::Fenced => matches!(stopped, Err(StopReason::Fenced)),
            };
            assert!(fits, "{when}: the driver says {stopped:?}");
            assert_all_agree(fixture, &when).await;
            if !faults.fired() {
                break;
            }
        }
    }

    // One that goes on failing ends the rebuild until the next opening, and nothing else.
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

/// Commits before, at and behind the place where a rebuild is are all there in the end, whenever they come, and a
/// rebuild that has not come to a record yet does not project it.
pub async fn commits_go_on_during_a_rebuild<F: JoinFixture>(fixture: &F) {
    const STEPS: u32 = 6;
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for kind in ["put", "delete", "update", "batch", "joined"] {
        fill(fixture, 3 * MANY).await;
        let when = format!("SYNCLINE_SEED={seed:#x}, {kind} during a rebuild");
        let builder = projecting(fixture, &Faults::new(), &Trouble::default()).await;
        run(builder, async |library| {
            let mut during = 0;
            for step in 0..STEPS {
                let state = library.status().await.unwrap().projections[0].state.clone();
                during += u32::from(matches!(state, ProjectionState::Rebuilding { .. }));
                // Around the ends of pages, and anywhere. All of them come between two pages.
                let edges = [0, 1, 508, 509, 510, 511, 512, 1_020, 1_022, 1_023, 1_024, 2_799, 5_000];
                let mut ids: Vec<_> =
                    edges.into_iter().chain((0..20).map(|_| random.u32(0..6 * MANY))).collect();
                random.shuffle(&mut ids);
                let text = format!("{kind} {step}");
                let calls = ids.iter().map(|id| call::<F>(&library, kind, *id, step, &text));
                join_all(calls).await.into_iter().for_each(|done| done.expect("commits go on"));
                // What a rebuild has of a record is never something else than the record.
                let (found, expected) = (note_rows(&rows::<F, _>(&library).await), notes(&library).await);
                let wrong = found.iter().find(|(id, text)| expected.get(*id) != Some(text));
                assert_eq!(wrong, None, "{when}, step {step}");
            }
            assert!(during > 1, "{when}: only {during} steps came during the rebuild");
            rebuilt(&library).await;
            assert_in_step::<F>(&library, &when).await;
        })
        .await
        .unwrap();
        assert_all_agree(fixture, &when).await;
    }
}

/// One commit of a kind.
async fn call<F: JoinFixture>(
    library: &TransactionManager<Store<F>>,
    kind: &str,
    id: u32,
    step: u32,
    text: &str,
) -> Result<(), Error> {
    let new = note(id, text);
    match kind {
        "delete" if step.is_multiple_of(2) => library.delete::<Note>(id).await,
        "put" | "delete" => library.commit(new).await.map(drop),
        "update" => library.update::<Note, _>(id, move |_| Ok(new)).await.map(drop),
        "batch" => {
            let batch = library.commit_batch(|batch| {
                batch.put(&new)?;
                batch.delete::<Note>(id + 2)?;
                Ok(batch.put(&place(id, text))?)
            });
            batch.await
        }
        _ => put_pair::<F, _>(library, PAIRED + id, text).await,
    }
}

/// A rebuild that fails says so in the status and in an event; commits go on, also of what it had taken already, and
/// the next opening goes on where it was.
pub async fn a_failed_rebuild_goes_on_at_the_next_opening<F: JoinFixture>(fixture: &F) {
    const ILL: u32 = 1_200;
    /// The last record of the second page: even ids, and two odd ones.
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
                // It has the records of the pages before, and follows those.
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
    // One that cannot even begin has nothing, and follows nothing.
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
    // A commit that a failed rebuild had covered is still refused by name.
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
