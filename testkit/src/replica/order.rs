//! The order of commits: none is told before it is durable, sequence numbers have no holes, stamps rise.

use futures::future::{join, join_all};
use syncline::{Change, Error, Event, Hlc, WallMs};

use super::app::{START_MS, ask, assert_whole, drain, open_store, place, run, run_on, settle, soon};
use crate::models::{Note, note};
use crate::{Fault, FaultKind, Faults, Faulty, Fixture, Gate, Gated, ManualClock};

fn changes(events: Vec<Event>) -> Vec<Change> {
    let change = |event| match event {
        Event::Changed(change) => change,
        other => panic!("{other:?} is no change"),
    };
    events.into_iter().map(change).collect()
}

/// C2, I3: neither the reply nor the event comes before the store has said that the write is durable; both come after.
pub async fn nothing_is_told_before_it_is_durable<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let gate = Gate::new();
    let (library, driver) = ask(Gated::writes(open_store(fixture).await, gate.clone())).open().await.unwrap();
    let app = async {
        let library = library;
        let mut events = library.events();
        gate.close();
        let commit = library.commit(note(1, "a"));
        let outside = async {
            settle().await;
            assert_eq!(drain(&mut events).await, [], "an event before the write");
            assert_eq!(library.get::<Note>(1).await.unwrap(), None, "visible before the write");
            assert_eq!(library.status().await.unwrap().commits, 1, "counted before the write");
            let again = soon(library.commit(note(1, "a"))).await;
            assert!(again.is_none(), "a commit of the same value was answered before the write");
            gate.open();
        };
        let replied_early = async {
            let reply = soon(commit).await;
            assert!(reply.is_none(), "a reply before the write: {reply:?}");
        };
        join(replied_early, outside).await;
        // The replica makes the dropped commits all the same, and answers the next one after them.
        library.commit(note(2, "b")).await.unwrap();
        let seqs: Vec<_> = changes(drain(&mut events).await).iter().map(|change| change.seq).collect();
        assert_eq!(seqs, [2, 3]);
    };
    join(driver.run(), app).await.0.unwrap();
    assert_whole(fixture, "after waiting for the store").await;
}

/// C4, H12: every change of every commit has one event, in the order of sequence numbers and of stamps; also if many
/// callers commit at once.
pub async fn events_come_once_in_commit_order<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    const CALLERS: u32 = 8;
    const COMMITS: u32 = 6;
    run_on(fixture, async |library| {
        let (mut first, mut second) = (library.events(), library.events());
        let caller = async |caller: u32| {
            for n in 0..COMMITS {
                let text = format!("{caller} {n}");
                let staged = library.commit_batch(|batch| {
                    batch.put(&note(caller, &*text))?;
                    Ok(batch.put(&place(caller, &*text))?)
                });
                staged.await.unwrap();
            }
        };
        join_all((0..CALLERS).map(caller)).await;
        let seen = changes(drain(&mut first).await);
        assert_eq!(seen, changes(drain(&mut second).await), "two subscribers hear the same");
        assert_eq!(seen.len(), usize::try_from(CALLERS * COMMITS * 2).unwrap());
        for (pair, seq) in seen.chunks(2).zip(2..) {
            let [one, other] = pair else { panic!("two changes a commit") };
            assert_eq!((one.seq, other.seq, one.stamp), (seq, seq, other.stamp));
            assert_ne!(one.record, other.record);
        }
        assert!(seen.chunks(2).map(|pair| pair[0].stamp).is_sorted_by(|before, after| before < after));
        assert_eq!(library.status().await.unwrap().clock, seen[seen.len() - 1].stamp);
    })
    .await;
}

/// C5, I4: commits that fail, are rejected, change nothing or have an unknown outcome leave no hole in the stream.
pub async fn sequence_numbers_have_no_holes<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut commits = 1;
    for round in 0..12_u32 {
        let faults = Faults::new();
        let store = Faulty::new(open_store(fixture).await, faults.clone());
        run(ask(store), async |library| {
            let before = library.status().await.unwrap().commits;
            // The last commit, whose outcome was unknown, may be there or not. All others are as the app was told.
            assert!(
                before == commits || before == commits + 1,
                "{before} commits, {commits} were acknowledged"
            );
            commits = before;
            let text = format!("{round}");
            library.commit(note(1, &*text)).await.unwrap();
            library.commit(note(1, &*text)).await.unwrap();
            library.update::<Note, _>(2, |_| Err("no".into())).await.unwrap_err();
            faults.arm(Fault::once(0, FaultKind::Rejected));
            library.commit(note(3, &*text)).await.unwrap_err();
            library.commit(note(4, &*text)).await.unwrap();
            commits += 2;
            assert_eq!(library.status().await.unwrap().commits, commits);
            let kind = [FaultKind::UnknownApplied, FaultKind::UnknownLost][round as usize % 2];
            faults.arm(Fault::once(0, kind));
            assert!(matches!(library.commit(note(5, &*text)).await, Err(Error::Unknown(_))));
        })
        .await
        .unwrap();
        assert_whole(fixture, &format!("in round {round}")).await;
    }
}

/// H2, I5: after any crash, also if the wall clock was set back, every new stamp is above all stamps that were durable
/// or told before.
pub async fn stamps_rise_across_crashes<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut highest: Option<Hlc> = None;
    let clock = ManualClock::at(START_MS);
    for round in 0..24_u32 {
        // The wall shows the start, an hour before it, 1970, and some time after the start.
        let wall = [START_MS, START_MS - 3_600_000, 0, START_MS + u64::from(round)][round as usize % 4];
        clock.set_wall(WallMs::new(wall));
        let faults = Faults::new();
        let store = Faulty::new(open_store(fixture).await, faults.clone());
        run(ask(store).clock(clock.clone()), async |library| {
            let mut events = library.events();
            let kind = [FaultKind::UnknownApplied, FaultKind::UnknownLost, FaultKind::PanicAfter]
                [round as usize % 3];
            faults.arm(Fault::once(u64::from(round % 4), kind));
            for n in 0..4 {
                let _ = library.commit(note(n, format!("{round}"))).await;
            }
            for change in changes(drain(&mut events).await) {
                assert!(Some(change.stamp) > highest, "round {round}: {} after {highest:?}", change.stamp);
                highest = Some(change.stamp);
            }
        })
        .await
        .unwrap();
        let reopened = ask(open_store(fixture).await).clock(clock.clone());
        let durable = run(reopened, async |library| library.status().await.unwrap().clock).await.unwrap();
        assert!(Some(durable) >= highest, "round {round}: the clock {durable} is behind what was told");
        highest = Some(durable);
    }
}
