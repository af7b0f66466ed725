//! A commit is made whole or not at all, and the app is told which.

use futures::future::{join, join3};
use syncline::{ChangeKind, Error, Event, StopReason};

use super::app::{
    Ledger, UNKNOWN_OUTCOMES, ask, assert_whole, at_most, drain, open_store, run_on, settle, soon, stops_for,
    try_run,
};
use crate::models::{Note, note};
use crate::{Fault, FaultKind, Faults, Faulty, Fixture, Gate, Gated};

/// C1, I1, I3: a fault of any kind at any operation leaves a whole store, which has exactly the commits of which the
/// app was told.
pub async fn every_fault_leaves_a_whole_store<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let (mut ledger, mut round) = (Ledger::default(), 0);
    for kind in FaultKind::ALL {
        for sticky in [false, true] {
            for at in 0.. {
                let when = format!("after {kind:?} at operation {at}, sticky: {sticky}");
                round += 1;
                let faults = Faults::new();
                faults.arm(Fault { at, kind, sticky });
                let store = Faulty::new(open_store(fixture).await, faults.clone());
                try_run(ask(store), async |library| ledger.work(&library, round).await).await;
                assert_whole(fixture, &when).await;
                run_on(fixture, async |library| ledger.check(&library, &when).await).await;
                if !faults.fired() {
                    break;
                }
            }
        }
    }
    assert!(round > 100, "the sweep injected only {round} faults");
}

/// C12: if the store does not know the outcome of a write, its commits return `Unknown`, the driver stops, and
/// reopening shows whether they were made. Commits that were waiting are certainly not made.
pub async fn an_unknown_outcome_is_said_to_be_unknown<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    for (kind, applied) in UNKNOWN_OUTCOMES {
        let text = format!("{kind:?}");
        let faults = Faults::new();
        run_on(fixture, async |library| library.delete::<Note>(1).await.expect("it is deleted")).await;
        let store = Faulty::new(open_store(fixture).await, faults.clone());
        let (library, driver) = ask(store).open().await.expect("it opens");
        // A commit reads before it writes, and a panic can hit either: arm the fault for the write.
        let at = u64::from(matches!(kind, FaultKind::PanicBefore | FaultKind::PanicAfter));
        faults.arm(Fault::once(at, kind));
        let app = async {
            let first = library.commit(note(1, &*text)).await;
            let later = library.commit(note(2, "later")).await;
            (first, later, library.get::<Note>(1).await)
        };
        let (stopped, (first, later, read)) = join(driver.run(), app).await;
        let reason = |reason: &StopReason| stops_for(kind, reason);
        assert!(matches!(&stopped, Err(stop) if reason(stop)), "{kind:?}: the driver says {stopped:?}");
        assert!(
            matches!(&first, Err(Error::Unknown(stop)) if reason(stop)),
            "{kind:?}: the commit says {first:?}"
        );
        assert!(
            matches!(&later, Err(Error::Stopped(stop)) if reason(stop)),
            "{kind:?}: the next says {later:?}"
        );
        assert!(matches!(&read, Err(Error::Stopped(stop)) if reason(stop)), "{kind:?}: a read says {read:?}");
        run_on(fixture, async |library| {
            assert_eq!(library.get::<Note>(1).await.unwrap().is_some(), applied, "{kind:?}");
            assert_eq!(library.get::<Note>(2).await.unwrap(), None, "{kind:?}");
        })
        .await;
    }
}

/// S2, C5: a rejected write leaves nothing behind, and the same commit succeeds if it is made again.
pub async fn a_rejected_commit_can_be_retried<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let faults = Faults::new();
    let (library, driver) = ask(Faulty::new(open_store(fixture).await, faults.clone())).open().await.unwrap();
    let app = async {
        let library = library;
        let mut events = library.events();
        for (kind, at) in [(FaultKind::Rejected, 0), (FaultKind::ReadError, 0)] {
            faults.arm(Fault::once(at, kind));
            let failed = library.commit(note(1, "a")).await;
            match kind {
                FaultKind::Rejected => assert!(matches!(failed, Err(Error::Rejected(_))), "{failed:?}"),
                _ => assert!(matches!(failed, Err(Error::Read(_))), "{failed:?}"),
            }
            assert_eq!(library.get::<Note>(1).await.unwrap(), None);
        }
        assert_eq!(drain(&mut events).await, []);
        library.commit(note(1, "a")).await.unwrap();
        let commits = library.status().await.unwrap().commits;
        let seqs: Vec<_> = drain(&mut events).await.into_iter().map(changed).collect();
        assert_eq!(seqs, [(ChangeKind::Insert, 2)]);
        assert_eq!(commits, 2, "a failed commit takes no sequence number");
    };
    join(driver.run(), app).await.0.unwrap();
    assert_whole(fixture, "after a retried commit").await;
}

/// If another owner has taken the store over, the driver stops with `Fenced`, and nothing of the commit is there.
pub async fn a_fenced_store_stops_its_driver<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let faults = Faults::new();
    let (library, driver) = ask(Faulty::new(open_store(fixture).await, faults.clone())).open().await.unwrap();
    faults.arm(Fault::once(0, FaultKind::Fenced));
    let app =
        async { (library.commit(note(1, "a")).await, library.status().await, library.shutdown().await) };
    let (stopped, (commit, status, shutdown)) = join(driver.run(), app).await;
    assert!(matches!(stopped, Err(StopReason::Fenced)));
    assert!(matches!(commit, Err(Error::Stopped(StopReason::Fenced))), "{commit:?}");
    assert!(matches!(status, Err(Error::Stopped(StopReason::Fenced))), "{status:?}");
    assert!(matches!(shutdown, Err(Error::Stopped(StopReason::Fenced))), "{shutdown:?}");
    run_on(fixture, async |library| assert_eq!(library.get::<Note>(1).await.unwrap(), None)).await;
}

/// X1, X2: a commit whose future is dropped at any point is made whole, with its events, or not at all.
pub async fn cancelling_leaves_all_or_nothing<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let (mut made, mut left_out, mut through) = (0, 0, false);
    for polls in 0..64 {
        if through {
            break;
        }
        let text = format!("after {polls} polls");
        run_on(fixture, async |library| {
            let mut events = library.events();
            let batch = library.commit_batch(|batch| {
                batch.put(&note(1, &*text))?;
                Ok(batch.put(&note(2, &*text))?)
            });
            through = at_most(polls, batch).await.is_some();
            // The next commit comes after the dropped one, if that is made.
            library.commit(note(3, &*text)).await.expect("the store goes on");
            let pair = library.get_many::<Note>(&[1, 2]).await.unwrap();
            let there: Vec<_> =
                pair.iter().map(|note| note.as_ref().is_some_and(|note| note.text == text)).collect();
            assert!(there == [true, true] || there == [false, false], "{text}: half of the batch is there");
            let told = drain(&mut events).await.len() - 1;
            assert_eq!(told, if there[0] { 2 } else { 0 }, "{text}: a commit has its events if it is there");
            if there[0] {
                made += 1;
            } else {
                left_out += 1;
            }
            assert!(there[0] || !through, "{text}: an acknowledged commit is missing");
        })
        .await;
        assert_whole(fixture, &text).await;
    }
    assert!(through && made > 0 && left_out > 0, "the sweep saw {made} commits made and {left_out} left out");
}

/// X3: a driver that is dropped at any point loses nothing that was acknowledged. Every call returns that it was
/// dropped, and the store can be opened again at once.
pub async fn dropping_the_driver_loses_nothing<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut ledger = Ledger::default();
    for polls in 0..200 {
        let when = format!("after the driver was polled {polls} times");
        let (library, driver) = ask(open_store(fixture).await).open().await.expect("the store was released");
        let work = async {
            ledger.work(&library, polls).await;
            library.shutdown().await.is_ok()
        };
        let second = library.clone();
        let beside = async {
            for id in 40..44 {
                // The commit may be made or not: the audit finds out whether it is whole.
                let _ = second.commit(note(id, &*when)).await;
            }
        };
        let driver = at_most(usize::try_from(polls).unwrap(), driver.run());
        let (ended, shut_down, ()) = join3(driver, work, beside).await;
        assert_eq!(ended.is_some(), shut_down, "{when}");
        let reason = if shut_down { StopReason::Shutdown } else { StopReason::DriverDropped };
        let told =
            |error: &Error| matches!(error, Error::Stopped(stop) if stop.to_string() == reason.to_string());
        assert!(matches!(library.commit(note(9, "late")).await, Err(error) if told(&error)), "{when}");
        assert!(matches!(library.status().await, Err(error) if told(&error)), "{when}");
        // The handles are still there, which must not keep the store from being opened.
        assert_whole(fixture, &when).await;
        run_on(fixture, async |library| ledger.check(&library, &when).await).await;
        if shut_down {
            assert!(polls > 4, "the work was over after {polls} polls");
            return;
        }
    }
    panic!("the work never ended");
}

/// A call that fails because the driver has stopped returns only after the store was released, so that it can be opened
/// again at once; also if a read was under way.
pub async fn a_failed_call_returns_after_the_store_is_released<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let gate = Gate::new();
    let (library, driver) = ask(Gated::reads(open_store(fixture).await, gate.clone())).open().await.unwrap();
    gate.close();
    let read = library.get::<Note>(1);
    let fail = async {
        settle().await;
        // Drop the driver with a commit that it has taken, while the read waits.
        let mut commit = Box::pin(library.commit(note(1, "a")));
        assert!(at_most(1, &mut commit).await.is_none());
        at_most(1, driver.run()).await;
        assert!(soon(&mut commit).await.is_none(), "the call returned before the store was released");
        gate.open();
        assert!(matches!(commit.await, Err(Error::Stopped(StopReason::DriverDropped))));
        assert_whole(fixture, "at once").await;
    };
    let (read, ()) = join(read, fail).await;
    assert_eq!(read.unwrap(), None);
}

fn changed(event: Event) -> (ChangeKind, u64) {
    match event {
        Event::Changed(change) => (change.kind, change.seq),
        other => panic!("{other:?} is no change"),
    }
}
