//! The reasons for which a projection is rebuilt.

use std::marker::PhantomData;

use futures::future::join;
use serde::{Deserialize, Serialize};
use syncline::{BoxError, Builder, Native, Projection, ProjectionState, Syncable, TransactionManager};

use super::{MANY, fill, told_until_rebuilt};
use crate::joined_replica::app::{
    Notes, Rows, Store, Trouble, assert_in_step, assert_same, clear, note_rows, notes, projected, projecting,
    rebuilt, rows,
};
use crate::models::{Note, note};
use crate::replica::app::{DEVICE, GROUP, REPLICA, START_MS, ask, assert_whole, open_store, run, run_on};
use crate::{Faults, Faulty, JoinFixture, ManualClock};

/// The builder of the app over the fixture's store, with one version of the projection of notes and no other.
async fn only_notes<F: JoinFixture, const VERSION: u32>(fixture: &F, trouble: &Trouble) -> Builder<Store<F>> {
    let store = Faulty::new(open_store(fixture).await, Faults::new());
    ask(store).project(Notes::<F, VERSION>::new(trouble))
}

/// A projection is rebuilt if it is new, if it has another version, if its model has another schema, or if a commit may
/// have been made without it; otherwise it is not. A rebuild goes by pages and has an event at its beginning and its
/// end.
pub async fn a_projection_is_rebuilt_when_it_must_be<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    fill(fixture, MANY).await;
    let (trouble, faults) = (Trouble::default(), Faults::new());
    let (library, driver) = projecting(fixture, &faults, &trouble).await.open().await.unwrap();
    let made = faults.writes();
    let app = async {
        let library = library;
        let told = told_until_rebuilt(&library).await;
        assert_eq!(told, [ProjectionState::Rebuilding { records: 256 }, ProjectionState::Complete]);
        // The tables are made in the opening. The notes take three pages, the places one.
        assert_eq!(faults.writes() - made, 4, "a rebuild goes by pages");
        assert_in_step::<F>(&library, "new").await;
        assert_eq!(library.status().await.unwrap().commits, 3, "a rebuild is no commit");
    };
    join(app, driver.run()).await.1.unwrap();
    assert_eq!(trouble.resets(), 1);

    // If nothing has changed, nothing is rebuilt.
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

    // A commit in an opening without the projection is a reason.
    run_on(fixture, async |library| {
        library.commit(note(1, "missed")).await.unwrap();
        library.delete::<Note>(2).await.unwrap();
    })
    .await;
    expect_resets(2, "after an opening without it").await;
    expect_resets(2, "unchanged again").await;

    // Another version is a reason, up and down.
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

    // Another schema of its model is a reason.
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

    // The older app cannot read the record that the newer one has put, so that has no row until the app is updated. The
    // projection is not to blame.
    run(projecting(fixture, &Faults::new(), &trouble).await, async |library| {
        assert_eq!(rebuilt(&library).await["notes"], ProjectionState::Complete);
        let found = note_rows(&rows::<F, _>(&library).await);
        assert_eq!((found.get(&4), found[&1].as_str()), (None, "followed"));
        let projections = library.status().await.unwrap().projections;
        assert!(projections.iter().all(|status| status.debts == 0), "{projections:?}");
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
        let Note { id, text } = syncline::decode(value)?;
        Ok(Self { id, text: text + ", migrated", mark: 0 })
    }
}

/// The projection of notes in the next version of the app: the same one, over the newer model.
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
