//! The app that the properties run: its projections into a table of rows, and the checks that rows and records agree.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt as _;
use syncline::{
    BoxError, Builder, Error, JoinStorage, Native, Projection, ProjectionState, Storage, Syncable,
    TransactionManager, audit,
};

use crate::models::{Note, Place, note};
use crate::replica::app::{Ledger, ask, open_store, run};
use crate::{Faults, Faulty, Fixture, JoinFixture, panic_quietly};

pub(super) type Rows = BTreeMap<u64, String>;

/// The fixture's store, which fails on demand.
pub(super) type Store<F> = Faulty<<F as Fixture>::Store>;

/// The upper half of a row's key is its kind: the app's own, or one of a projection.
const APP: u64 = 0;
const NOTES: u64 = 1 << 32;
const PLACES: u64 = 2 << 32;
const KIND: u64 = u64::MAX << 32;

/// Notes with ids from here on have a row of the app beside them, which `with_tx` puts and deletes with the note.
pub(super) const PAIRED: u32 = 100_000;

/// Makes a projection fail on demand. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    with: Option<(u32, Ill)>,
    resets: u32,
    failures: u32,
}

/// The id by which [`Trouble::make`] means the beginning of a rebuild.
pub(super) const BEGINNING: u32 = u32::MAX;

/// The id by which [`Trouble::make`] means every note.
pub(super) const ALL: u32 = u32::MAX - 1;

/// How a projection fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ill {
    Error,
    Panic,
}

impl Trouble {
    /// Makes the projection fail at the record `id`, or at the beginning of a rebuild.
    pub(super) fn make(&self, id: u32, how: Ill) {
        self.state().with = Some((id, how));
    }

    pub(super) fn end(&self) {
        self.state().with = None;
    }

    /// How many times a rebuild has begun.
    pub(super) fn resets(&self) -> u32 {
        self.state().resets
    }

    /// How many times the projection has failed on demand.
    pub(super) fn failures(&self) -> u32 {
        self.state().failures
    }

    fn meet(&self, id: u32) -> Result<(), BoxError> {
        let with = self.state().with;
        let with = with.map(|(ill, how)| if ill == ALL && id != BEGINNING { (id, how) } else { (ill, how) });
        match with {
            Some((ill, Ill::Error)) if ill == id => {
                self.state().failures += 1;
                Err(TROUBLE.into())
            }
            Some((ill, Ill::Panic)) if ill == id => panic_quietly(TROUBLE),
            _ => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of a projection that fails on demand.
pub(super) const TROUBLE: &str = "the projection fails on purpose";

/// The texts of the notes, by id.
pub(super) struct Notes<F, const VERSION: u32 = 1>(pub(super) Trouble, PhantomData<fn() -> F>);

/// The texts of the places of this device, by id.
pub(super) struct Places<F>(PhantomData<fn() -> F>);

impl<F, const VERSION: u32> Notes<F, VERSION> {
    pub(super) fn new(trouble: &Trouble) -> Self {
        Self(trouble.clone(), PhantomData)
    }
}

impl<F: JoinFixture, const VERSION: u32> Projection<Store<F>> for Notes<F, VERSION> {
    type Model = Note;
    const NAME: &'static str = "notes";
    const VERSION: u32 = VERSION;

    fn reset(&self, tx: &Native<'_, Store<F>>) -> Result<(), BoxError> {
        self.0.state().resets += 1;
        clear::<F>(tx, NOTES)?;
        self.0.meet(BEGINNING)
    }

    fn put(&self, tx: &Native<'_, Store<F>>, note: &Note) -> Result<(), BoxError> {
        // Put the row before failing, so that there is something to be undone.
        F::put_row(tx, NOTES | u64::from(note.id), &projected::<VERSION>(&note.text))?;
        self.0.meet(note.id)
    }

    fn delete(&self, tx: &Native<'_, Store<F>>, id: &u32) -> Result<(), BoxError> {
        F::delete_row(tx, NOTES | u64::from(*id))?;
        self.0.meet(*id)
    }
}

/// The text that a version of the projection puts into its rows.
pub(super) fn projected<const VERSION: u32>(text: &str) -> String {
    if VERSION == 1 { text.to_owned() } else { format!("{VERSION}: {text}") }
}

impl<F: JoinFixture> Projection<Store<F>> for Places<F> {
    type Model = Place;
    const NAME: &'static str = "places";
    const VERSION: u32 = 1;

    fn reset(&self, tx: &Native<'_, Store<F>>) -> Result<(), BoxError> {
        clear::<F>(tx, PLACES)
    }

    fn put(&self, tx: &Native<'_, Store<F>>, place: &Place) -> Result<(), BoxError> {
        F::put_row(tx, PLACES | u64::from(place.id), &place.text)
    }

    fn delete(&self, tx: &Native<'_, Store<F>>, id: &syncline::RecordId<Place>) -> Result<(), BoxError> {
        F::delete_row(tx, PLACES | u64::from(id.1))
    }
}

pub(super) fn clear<F: JoinFixture>(tx: &Native<'_, F::Store>, kind: u64) -> Result<(), BoxError> {
    for (key, _) in F::rows(tx)? {
        if key & KIND == kind {
            F::delete_row(tx, key)?;
        }
    }
    Ok(())
}

/// The builder of the app over the fixture's store, with both projections.
pub(super) async fn projecting<F: JoinFixture>(
    fixture: &F,
    faults: &Faults,
    trouble: &Trouble,
) -> Builder<Store<F>> {
    let store = Faulty::new(open_store(fixture).await, faults.clone());
    ask(store).project(Notes::<F>::new(trouble)).project(Places::<F>(PhantomData))
}

/// Runs `app` over the fixture's store with both projections, where the opening must work.
pub(super) async fn run_projecting<F: JoinFixture, T>(
    fixture: &F,
    app: impl AsyncFnOnce(TransactionManager<Store<F>>) -> T,
) -> T {
    let builder = projecting(fixture, &Faults::new(), &Trouble::default()).await;
    run(builder, app).await.expect("the store opens as a replica")
}

/// Puts a note and a row of the app with the same text.
pub(super) async fn put_pair<F, S>(library: &TransactionManager<S>, id: u32, text: &str) -> Result<(), Error>
where
    F: JoinFixture,
    S: for<'t> JoinStorage<Tx<'t> = <F::Store as JoinStorage>::Tx<'t>>,
{
    let note = note(id, text);
    let put = library.with_tx(move |tx| {
        F::put_row(tx.native(), APP | u64::from(note.id), &note.text)?;
        Ok(tx.put(&note)?)
    });
    put.await
}

/// Deletes a note and its row of the app.
pub(super) async fn delete_pair<F, S>(library: &TransactionManager<S>, id: u32) -> Result<(), Error>
where
    F: JoinFixture,
    S: for<'t> JoinStorage<Tx<'t> = <F::Store as JoinStorage>::Tx<'t>>,
{
    let delete = library.with_tx(move |tx| {
        tx.delete::<Note>(id)?;
        F::delete_row(tx.native(), APP | u64::from(id))
    });
    delete.await
}

/// Reads all rows.
pub(super) async fn rows<F, S>(library: &TransactionManager<S>) -> Rows
where
    F: JoinFixture,
    S: for<'t> JoinStorage<Tx<'t> = <F::Store as JoinStorage>::Tx<'t>>,
{
    let rows = library.with_tx(|tx| F::rows(tx.native())).await.expect("the rows can be read");
    rows.into_iter().collect()
}

fn of_kind(rows: &Rows, kind: u64) -> Rows {
    rows.range(kind..=kind | !KIND).map(|(key, text)| (key & !KIND, text.clone())).collect()
}

/// The rows of the projected notes.
pub(super) fn note_rows(rows: &Rows) -> Rows {
    of_kind(rows, NOTES)
}

async fn listed<M: Syncable, S: Storage>(
    library: &TransactionManager<S>,
    row: impl Fn(M) -> (u32, String),
) -> Rows {
    let all: Vec<M> =
        library.list::<M>().into_stream().try_collect().await.expect("the records can be listed");
    all.into_iter().map(row).map(|(id, text)| (u64::from(id), text)).collect()
}

/// The texts of the notes, by id, as the records have them.
pub(super) async fn notes<S: Storage>(library: &TransactionManager<S>) -> Rows {
    listed(library, |note: Note| (note.id, note.text)).await
}

/// Asserts that `found` is `expected`. The message has only the rows that differ.
pub(super) fn assert_same(found: &Rows, expected: &Rows, when: &str, what: &str) {
    let lacking: Vec<_> = expected.iter().filter(|(id, text)| found.get(*id) != Some(text)).take(9).collect();
    let wrong: Vec<_> = found.iter().filter(|(id, text)| expected.get(*id) != Some(text)).take(9).collect();
    assert!(found == expected, "{when}: {what}: found {wrong:?}, expected {lacking:?}");
}

/// Asserts that the app's own rows agree with the notes that `with_tx` has put beside them.
pub(super) async fn assert_paired<F, S>(library: &TransactionManager<S>, when: &str)
where
    F: JoinFixture,
    S: for<'t> JoinStorage<Tx<'t> = <F::Store as JoinStorage>::Tx<'t>>,
{
    let rows = rows::<F, S>(library).await;
    let paired: Rows = notes(library).await.into_iter().filter(|(id, _)| *id >= u64::from(PAIRED)).collect();
    assert_same(&of_kind(&rows, APP), &paired, when, "the app's rows, and the notes beside them");
}

/// Asserts that the projections are exactly the records, and that the app's own rows agree with their notes.
pub(super) async fn assert_in_step<F: JoinFixture>(library: &TransactionManager<Store<F>>, when: &str) {
    assert_paired::<F, _>(library, when).await;
    let rows = rows::<F, _>(library).await;
    assert_same(&of_kind(&rows, NOTES), &notes(library).await, when, "projected notes, and the notes");
    let places = listed(library, |place: Place| (place.id, place.text)).await;
    assert_same(&of_kind(&rows, PLACES), &places, when, "projected places, and the places");
}

/// Waits until no projection is being rebuilt, and returns their states by name.
pub(super) async fn rebuilt<S: Storage>(
    library: &TransactionManager<S>,
) -> BTreeMap<&'static str, ProjectionState> {
    // Subscribe before the first look at the status, so that no event after it is missed.
    let mut events = library.events();
    loop {
        let all = library.status().await.expect("the driver runs").projections;
        if !all.iter().any(|one| matches!(one.state, ProjectionState::Rebuilding { .. })) {
            return all.into_iter().map(|one| (one.name, one.state)).collect();
        }
        events.next().await.expect("the driver runs").ok();
    }
}

/// Asserts that the store is whole, and that its rows agree with its records once the rebuilds have ended.
pub(super) async fn assert_all_agree<F: JoinFixture>(fixture: &F, when: &str) {
    assert_told(fixture, None, when).await;
}

/// As [`assert_all_agree`], and that the records are what the app was told.
pub(super) async fn assert_told<F: JoinFixture>(fixture: &F, ledger: Option<&mut Ledger>, when: &str) {
    let violations = audit(&open_store(fixture).await).await;
    assert!(violations.is_empty(), "{when}: the store is not whole: {violations:#?}");
    run_projecting(fixture, async |library| {
        assert_paired::<F, _>(&library, when).await;
        let states = rebuilt(&library).await;
        assert!(
            states.len() == 2 && states.values().all(|state| *state == ProjectionState::Complete),
            "{when}: {states:?}"
        );
        assert_in_step::<F>(&library, when).await;
        if let Some(ledger) = ledger {
            ledger.check(&library, when).await;
        }
    })
    .await;
}
