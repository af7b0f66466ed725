//! Commits that come while a projection is rebuilt.

use futures::future::join_all;
use syncline::{Error, ProjectionState, TransactionManager};

use super::{MANY, fill};
use crate::joined_replica::app::{
    PAIRED, Store, Trouble, assert_all_agree, assert_in_step, note_rows, notes, projecting, put_pair,
    rebuilt, rows,
};
use crate::models::{Note, note};
use crate::replica::app::{place, run};
use crate::{Faults, JoinFixture, seed};

/// Commits of records that a rebuild has passed, has just reached or has not reached yet are all projected in the end.
/// A record that the rebuild has not reached has no row before.
pub async fn commits_go_on_during_a_rebuild<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
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
                // Ids around the ends of pages, and random ones. Their commits come between two pages.
                let edges = [0, 1, 508, 509, 510, 511, 512, 1_020, 1_022, 1_023, 1_024, 2_799, 5_000];
                let mut ids: Vec<_> =
                    edges.into_iter().chain((0..20).map(|_| random.u32(0..6 * MANY))).collect();
                random.shuffle(&mut ids);
                let text = format!("{kind} {step}");
                let calls = ids.iter().map(|id| call::<F>(&library, kind, *id, step, &text));
                join_all(calls).await.into_iter().for_each(|done| done.expect("commits go on"));
                // A row that the rebuild has is always that of the record as it is now.
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

/// Makes one commit of the kind.
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
