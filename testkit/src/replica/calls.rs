//! Calls that could only wait for ever, and changes that the app decides when it sees the record.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join;
use syncline::{CommitId, Error, StopReason, Storage, TransactionManager, Update};
use syncline_backends::MemoryStorage;

use super::app::{DEVICE, REPLICA, ask, assert_whole, drain, open_store, run_on};
use crate::Fixture;
use crate::models::{Note, note};

/// The first commit of the replica.
const COMMIT: CommitId = CommitId { replica: REPLICA, seq: 1 };
const LONG: Duration = Duration::from_secs(60);

/// The answers of the first poll to every call that waits for the driver.
pub(crate) fn first_answers<S: Storage>(
    library: &TransactionManager<S>,
) -> Vec<(&'static str, Option<Result<(), Error>>)> {
    let changed = |_: Option<Note>| Ok(Update::Keep);
    vec![
        ("commit", library.commit(note(9, "lost")).now_or_never().map(|done| done.map(drop))),
        ("delete", library.delete::<Note>(9).now_or_never()),
        ("update", library.update(9, |_| Ok(note(9, "lost"))).now_or_never().map(|done| done.map(drop))),
        ("change", library.change(9, changed).now_or_never().map(|done| done.map(drop))),
        ("batch", library.commit_batch(|batch| Ok(batch.put(&note(9, "lost"))?)).now_or_never()),
        ("status", library.status().now_or_never().map(|status| status.map(drop))),
        ("durable", library.durable_on(COMMIT).now_or_never().map(|durable| durable.map(drop))),
        (
            "wait for a commit",
            library.wait_durable_on(2, COMMIT, LONG).now_or_never().map(|done| done.map(drop)),
        ),
        ("wait for all", library.wait_synced(LONG).now_or_never().map(|done| done.map(drop))),
        ("release", library.release_held(REPLICA).now_or_never()),
        ("member", library.add_member_on(REPLICA, DEVICE).now_or_never()),
        ("shutdown", library.shutdown().now_or_never()),
    ]
}

/// Asserts that every call that was made inside a closure was refused at once.
pub(crate) fn assert_refused_inside(answers: &[(&'static str, Option<Result<(), Error>>)]) {
    for (call, answer) in answers {
        assert!(matches!(answer, Some(Err(Error::InsideClosure))), "{call} inside a closure: {answer:?}");
    }
}

/// X5: a call inside a closure that the replica runs is refused at once, whichever it is, and does nothing. The closure,
/// its commit and the replica go on. A call of another replica is not refused.
pub async fn a_call_from_inside_a_closure_is_refused<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let (other, _driver) =
        ask(MemoryStorage::new()).replica(syncline::ReplicaId::new()).open().await.unwrap();
    run_on(fixture, async |library| {
        let (inner, elsewhere) = (library.clone(), other.clone());
        let update = library.update::<Note, _>(1, move |_| {
            assert_refused_inside(&first_answers(&inner));
            let call = elsewhere.status().now_or_never();
            assert!(call.is_none(), "another replica answers in its own time: {call:?}");
            Ok(note(1, "updated"))
        });
        assert_eq!(update.await.unwrap(), note(1, "updated"));
        let inner = &library;
        let batch = library.commit_batch(|batch| {
            assert_refused_inside(&first_answers(inner));
            Ok(batch.put(&note(2, "batched"))?)
        });
        batch.await.unwrap();
        // The error tells what is wrong when the closure passes it on.
        let inner = library.clone();
        let passed = library.update::<Note, _>(1, move |_| {
            inner.commit(note(9, "lost")).now_or_never().ok_or("it waits")??;
            Ok(note(1, "lost"))
        });
        let passed = passed.await;
        assert!(matches!(passed, Err(Error::InsideClosure)), "{passed:?}");
        library.commit(note(3, "after")).await.unwrap();
        assert_eq!(library.status().await.unwrap().commits, 4);
        assert_eq!(library.get::<Note>(9).await.unwrap(), None);
    })
    .await;
    assert_whole(fixture, "after calls inside closures").await;
}

/// X5: a call to a driver that nobody runs says so, and nothing of it is done once the driver is run after all. Reads
/// need no driver.
pub async fn a_driver_that_nobody_runs_is_reported<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let (library, driver) = ask(open_store(fixture).await).open().await.unwrap();
    let calls: Vec<Result<(), Error>> = vec![
        library.commit(note(9, "lost")).await.map(drop),
        library.delete::<Note>(9).await,
        library.update(9, |_| Ok(note(9, "lost"))).await.map(drop),
        library.commit_batch(|batch| Ok(batch.put(&note(9, "lost"))?)).await,
        library.status().await.map(drop),
        library.durable_on(COMMIT).await.map(drop),
        library.wait_durable_on(2, COMMIT, LONG).await.map(drop),
        library.wait_synced(LONG).await.map(drop),
        library.release_held(REPLICA).await,
        library.add_member(REPLICA).await,
        library.add_member_on(REPLICA, DEVICE).await,
        library.shutdown().await,
    ];
    for (at, call) in calls.iter().enumerate() {
        assert!(matches!(call, Err(Error::DriverNotRun)), "call {at}: {call:?}");
    }
    assert_eq!(library.get::<Note>(9).await.unwrap(), None);
    let app = async move {
        assert_eq!(library.status().await.unwrap().commits, 1, "nothing was done later");
        library.commit(note(1, "a")).await.unwrap();
    };
    join(driver.run(), app).await.0.unwrap();

    let (library, driver) = ask(open_store(fixture).await).open().await.unwrap();
    drop(driver);
    let dropped = library.commit(note(9, "lost")).await;
    assert!(matches!(dropped, Err(Error::Stopped(StopReason::DriverDropped))), "{dropped:?}");
    let dropped = library.status().await;
    assert!(matches!(dropped, Err(Error::Stopped(StopReason::DriverDropped))), "{dropped:?}");
    assert_whole(fixture, "after a driver that was not run").await;
}

/// A change puts, deletes or keeps the record that it sees, and returns the record as it is then. What it keeps is no
/// commit.
pub async fn a_change_puts_deletes_or_keeps<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    run_on(fixture, async |library| {
        let mut events = library.events();
        let steps: [(Update<Note>, Option<Note>, u64); 6] = [
            (Update::Keep, None, 0),
            (Update::Delete, None, 0),
            (note(1, "a").into(), Some(note(1, "a")), 1),
            (Update::Keep, Some(note(1, "a")), 0),
            (Update::Delete, None, 1),
            (Update::Keep, None, 0),
        ];
        let mut before = None;
        for (at, (update, after, commits)) in steps.into_iter().enumerate() {
            let count = library.status().await.unwrap().commits;
            let saw = before.clone();
            let left = library.change::<Note, _>(1, move |old| {
                assert_eq!(old, saw, "step {at}");
                Ok(update)
            });
            assert_eq!(left.await.unwrap(), after, "step {at}");
            assert_eq!(library.status().await.unwrap().commits, count + commits, "step {at}");
            assert_eq!(drain(&mut events).await.len() as u64, commits, "step {at}");
            assert_eq!(library.get::<Note>(1).await.unwrap(), after, "step {at}");
            before = after;
        }
        let moved = library.change::<Note, _>(1, |_| Ok(note(2, "moved").into())).await;
        assert!(matches!(moved, Err(Error::IdChanged { .. })), "{moved:?}");
    })
    .await;
    assert_whole(fixture, "after changes").await;
}
