//! The app that the properties run: how it is opened, what it does, and a ledger of what it was told.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;

use futures::FutureExt as _;
use futures::future::{Either, join, join_all, select};
use syncline::internals::Rules;
use syncline::{
    Builder, DeviceId, Error, Event, Events, GroupId, OpenError, ReplicaId, StopReason, Storage,
    TransactionManager, Uuid, audit,
};

use crate::models::{self, Note, Place, note};
use crate::{FaultKind, Fixture, ManualClock};

pub(crate) const DEVICE: DeviceId = DeviceId(Uuid::from_u128(0xd0));
pub(crate) const GROUP: GroupId = GroupId(Uuid::from_u128(0x60));
pub(crate) const REPLICA: ReplicaId = ReplicaId(Uuid::from_u128(0xe0));

/// The wall time at which the clocks of the properties start.
pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// A place of [`DEVICE`].
pub(crate) fn place(id: u32, text: impl Into<String>) -> Place {
    models::place(DEVICE, id, text)
}

/// The builder of the app over `storage`. Its ids and its clock are fixed, so that a test does the same every time.
pub(crate) fn ask<S: Storage>(storage: S) -> Builder<S> {
    TransactionManager::builder(storage)
        .device(DEVICE)
        .found(GROUP)
        .replica(REPLICA)
        .model::<Note>()
        .model::<Place>()
        .clock(ManualClock::at(START_MS))
}

/// Rules under which no log entry is pruned, as if another member had not acknowledged any.
pub(crate) const UNPRUNED: Rules = Rules { prune: false, ..Rules::ALL };

/// Opens the fixture's store, which must work.
pub(crate) async fn open_store<F: Fixture>(fixture: &F) -> F::Store {
    fixture.open().await.expect("the store opens")
}

/// Runs `app` with a manager, beside its driver, until the app is done and its managers are gone.
pub(crate) async fn run<S: Storage, T>(
    builder: Builder<S>,
    app: impl AsyncFnOnce(TransactionManager<S>) -> T,
) -> Result<T, OpenError> {
    let (manager, driver) = builder.open().await?;
    // Poll the app first: it may subscribe to events, and must not miss any.
    let (result, _) = join(app(manager), driver.run()).await;
    Ok(result)
}

/// As [`run`], on the fixture's store, where the opening must work.
pub(crate) async fn run_on<F: Fixture, T>(
    fixture: &F,
    app: impl AsyncFnOnce(TransactionManager<F::Store>) -> T,
) -> T {
    run(ask(open_store(fixture).await), app).await.expect("the store opens as a replica")
}

/// As [`run`], over a store that may fail and panic while it is opened.
pub(crate) async fn try_run<S: Storage>(builder: Builder<S>, app: impl AsyncFnOnce(TransactionManager<S>)) {
    let Ok(Ok((manager, driver))) = AssertUnwindSafe(builder.open()).catch_unwind().await else { return };
    // The driver may stop because of a fault.
    let _ = join(app(manager), driver.run()).await;
}

/// Polls `future` at most `polls` times, then drops it, beside other futures of the task.
pub(crate) async fn at_most<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut left = polls;
    let mut future = pin!(future);
    poll_fn(|context| {
        if left > 0
            && let Poll::Ready(output) = future.as_mut().poll(context)
        {
            return Poll::Ready(Some(output));
        }
        left = left.saturating_sub(1);
        if left == 0 { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// Gives way so often that everything else in the task has run until it waits for something outside.
pub(crate) async fn settle() {
    for _ in 0..64 {
        crate::poll::give_way().await;
    }
}

/// The output of `future`, if it has one by the time that everything else has settled; otherwise drops it.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
    match select(pin!(future), pin!(settle())).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}

/// Takes the events that are there by now.
pub(crate) async fn drain(events: &mut Events) -> Vec<Event> {
    let mut seen = Vec::new();
    while let Some(Some(Ok(event))) = at_most(1, events.next()).await {
        seen.push(event);
    }
    seen
}

/// The faults after which the outcome of a write is unknown, and whether the write was applied.
pub(crate) const UNKNOWN_OUTCOMES: [(FaultKind, bool); 4] = [
    (FaultKind::UnknownApplied, true),
    (FaultKind::UnknownLost, false),
    (FaultKind::PanicBefore, false),
    (FaultKind::PanicAfter, true),
];

/// Whether `reason` is the one for which a driver stops after a fault of this kind.
pub(crate) fn stops_for(kind: FaultKind, reason: &StopReason) -> bool {
    match kind {
        FaultKind::ReadError | FaultKind::Rejected | FaultKind::Undone => false,
        FaultKind::UnknownApplied | FaultKind::UnknownLost => matches!(reason, StopReason::Unknown(_)),
        FaultKind::PanicBefore | FaultKind::PanicAfter => matches!(reason, StopReason::Panicked(_)),
        FaultKind::Fenced => matches!(reason, StopReason::Fenced),
    }
}

/// Asserts that the store of the fixture is whole.
pub(crate) async fn assert_whole<F: Fixture>(fixture: &F, when: &str) {
    let store = open_store(fixture).await;
    let violations = audit(&store).await;
    assert!(violations.is_empty(), "{when}: the store is not whole: {violations:#?}");
}

/// What the app was told of its commits, and so which texts it may find.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The texts that a note may have, `None` if it may be deleted: the one that was acknowledged last, and those whose
    /// outcome was unknown since.
    notes: BTreeMap<u32, Vec<Option<String>>>,
}

/// The ids of two notes that are only ever changed in one batch, so that they must always be equal.
const PAIR: [u32; 2] = [10, 11];

impl Ledger {
    /// Notes that the app was told `result` of giving a note this text.
    pub(crate) fn note(&mut self, id: u32, text: Option<String>, result: &Result<(), Error>) {
        let allowed = self.notes.entry(id).or_insert_with(|| vec![None]);
        match result {
            Ok(()) => *allowed = vec![text],
            // The outcome is unknown, so both texts are allowed.
            Err(Error::Unknown(_)) => allowed.push(text),
            Err(_) => {}
        }
    }

    /// Makes commits of every kind, whose texts name the `round`. Every call must return, whatever happens to the
    /// store.
    pub(crate) async fn work<S: Storage>(&mut self, library: &TransactionManager<S>, round: u64) {
        let put = async |id: u32, text: String| library.commit_shared(note(id, text)).await.map(drop);
        let batch = async |text: String| {
            library
                .commit_batch(|batch| Ok(PAIR.iter().try_for_each(|id| batch.put(&note(*id, &*text)))?))
                .await
        };

        let text = format!("put {round}");
        let result = put(1, text.clone()).await;
        self.note(1, Some(text), &result);

        let text = format!("pair {round}");
        let result = batch(text.clone()).await;
        PAIR.iter().for_each(|id| self.note(*id, Some(text.clone()), &result));

        let result = library.delete::<Note>(1).await;
        self.note(1, None, &result);

        // Calls that are made together, one of which fails.
        let ids = [20, 21, 22];
        let failing = library.update::<Note, _>(30, |_| Err("no".into()));
        let group = join(join_all(ids.map(|id| put(id, format!("group {round}")))), failing);
        let (results, failed) = group.await;
        for (id, result) in ids.into_iter().zip(&results) {
            self.note(id, Some(format!("group {round}")), result);
        }
        assert!(failed.is_err());

        let text = format!("updated {round}");
        let update = {
            let text = text.clone();
            library.update::<Note, _>(20, move |old| {
                let old = old.ok_or("there is no such note")?;
                Ok(Note { text, ..old })
            })
        };
        let result = update.await.map(drop);
        self.note(20, Some(text), &result);
    }

    /// Asserts that every note has a text that the app was told of.
    pub(crate) async fn check<S: Storage>(&mut self, library: &TransactionManager<S>, when: &str) {
        for (id, allowed) in &mut self.notes {
            let found = library.get::<Note>(*id).await.expect("the note can be read").map(|note| note.text);
            assert!(allowed.contains(&found), "{when}: note {id} is {found:?}, the app was told {allowed:?}");
            *allowed = vec![found];
        }
        let pair = library.get_many::<Note>(&PAIR).await.expect("the notes can be read");
        let [first, second] = &pair[..] else { panic!("{when}: two notes were asked for") };
        let text = |note: &Option<Note>| note.as_ref().map(|note| note.text.clone());
        assert_eq!(text(first), text(second), "{when}: half of a batch is there");
        assert_eq!(
            library.get::<Note>(30).await.expect("it can be read"),
            None,
            "{when}: a failed update is there"
        );
    }
}
