//! Rebuilds of projections: when there is one, what interrupts it, and what is committed meanwhile.

mod commits_meanwhile;
mod interrupted;
mod reasons;

use syncline::{Event, Events, ProjectionState, Storage, TransactionManager};

pub use commits_meanwhile::commits_go_on_during_a_rebuild;
pub use interrupted::a_rebuild_goes_on_after_a_crash;
pub use reasons::a_projection_is_rebuilt_when_it_must_be;

use super::app::rebuilt;
use crate::JoinFixture;
use crate::models::{Note, note};
use crate::replica::app::{drain, place, run_on};

/// How many notes there are: more than two pages of a rebuild.
pub(super) const MANY: u32 = 700;

/// Opens the store without projections, and puts notes with even ids, and places.
pub(super) async fn fill<F: JoinFixture>(fixture: &F, many: u32) {
    run_on(fixture, async |library| {
        let filled = library.commit_batch(|batch| {
            (0..many).try_for_each(|id| batch.put(&note(id * 2, format!("old {id}"))))?;
            Ok((0..40).try_for_each(|id| batch.put(&place(id, "old")))?)
        });
        filled.await.unwrap();
        // A rebuild meets tombstones too.
        library.delete::<Note>(8).await.unwrap();
    })
    .await;
}

/// The states of the projection of notes in the events that are there by now.
async fn told(events: &mut Events) -> Vec<ProjectionState> {
    let events = drain(events).await.into_iter();
    let of_notes = events.filter_map(|event| match event {
        Event::Projection(status) if status.name == "notes" => Some(status.state),
        _ => None,
    });
    of_notes.collect()
}

/// Waits for the rebuilds, and returns the states of the projection of notes in the events meanwhile.
async fn told_until_rebuilt<S: Storage>(library: &TransactionManager<S>) -> Vec<ProjectionState> {
    let mut events = library.events();
    rebuilt(library).await;
    told(&mut events).await
}
