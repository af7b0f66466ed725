//! Draws the steps that are of apps: joined writes, projections and their troubles, calls that fail, other versions.

use super::{Action, Edit, Failing, Step};
use crate::sim::app::Version;
use crate::sim::models::SCHEMA_MAX;
use crate::sim::tables::Trouble;

/// Of ten plans so many have steps of apps.
const APPS: u8 = 4;

/// Which kinds of steps a plan has.
struct Kinds {
    joined: bool,
    calls: bool,
    projects: bool,
    troubles: bool,
    versions: bool,
}

impl Kinds {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        let [joined, calls, projects, troubles, versions] = std::array::from_fn(|_| rng.bool());
        Self { joined, calls, projects, troubles: troubles && projects, versions }
    }
}

/// Adds steps of apps to those of the plan with this seed.
///
/// These steps are drawn apart from the others, so that the other steps of a seed stay as they are.
pub(super) fn add_steps(seed: u64, replicas: u8, ids: u32, steps: &mut Vec<Step>) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x6170_7073);
    if rng.u8(0..10) >= APPS {
        return;
    }
    let kinds = Kinds::draw(&mut rng);
    let many = (steps.len() / 6).clamp(2, 12);
    let mut add = |rng: &mut fastrand::Rng, early: bool, action: Action| {
        let end = if early { steps.len() / 3 } else { steps.len() };
        let after_ms = *rng.choice(&[0, 0, 3, 200]).unwrap_or(&0);
        steps.insert(rng.usize(0..=end), Step { after_ms, action });
    };
    if kinds.joined {
        for _ in 0..many {
            let edit = *rng.choice(&[None, Some(0), Some(1), Some(2)]).unwrap_or(&None);
            let edit = edit.map(|kind| edit_of(&mut rng, kind, ids));
            let failing = failing(&mut rng);
            let at = rng.u8(0..replicas);
            add(&mut rng, false, Action::Joined { at, edit, failing });
        }
    }
    if kinds.calls {
        for _ in 0..many {
            let (at, id, failing) = (rng.u8(0..replicas), rng.u32(0..ids), failing(&mut rng));
            add(&mut rng, false, Action::Change { at, id, failing });
        }
    }
    if kinds.versions {
        // Values for the versions to differ in.
        for _ in 0..many {
            let (at, edit) = (rng.u8(0..replicas), edit_of(&mut rng, 2, ids.min(4)));
            add(&mut rng, false, Action::Commit { at, edits: vec![edit], cancelled: None });
        }
        for _ in 0..rng.usize(1..6) {
            let (at, schema, ill) = (rng.u8(0..replicas), rng.u16(1..=SCHEMA_MAX), rng.u8(0..3) == 0);
            let projects = *rng.choice(&[0, 1, 1, 2]).unwrap_or(&0);
            let projects = if kinds.projects { projects } else { 0 };
            add(&mut rng, false, Action::Update { at, to: Version { schema, ill, projects } });
        }
    }
    if kinds.projects {
        let first = rng.u8(0..replicas);
        for at in 0..replicas {
            if at == first || rng.bool() {
                let to = Version { schema: 1, ill: false, projects: 1 };
                add(&mut rng, true, Action::Update { at, to });
            }
        }
    }
    if kinds.troubles {
        let troubles = [
            None,
            Some(Trouble::Error),
            Some(Trouble::Error),
            Some(Trouble::Panic),
            Some(Trouble::Panic),
            Some(Trouble::Everywhere),
            Some(Trouble::Reset),
        ];
        for _ in 0..rng.usize(1..6) {
            let (at, trouble) = (rng.u8(0..replicas), *rng.choice(&troubles).unwrap_or(&None));
            let trouble = Step { after_ms: 0, action: Action::Trouble { at, trouble } };
            let place = rng.usize(0..=steps.len());
            // Commits that come during a write share the next one, in which some are refused and others are not.
            let burst = if rng.bool() { 6 } else { 0 };
            let slow = (burst > 0).then_some(Step { after_ms: 0, action: Action::Slow { at, write_ms: 5 } });
            let commit = |rng: &mut fastrand::Rng| {
                let edits = vec![edit_of(rng, 0, ids)];
                Step { after_ms: 0, action: Action::Commit { at, edits, cancelled: None } }
            };
            let burst: Vec<_> = (0..burst).map(|_| commit(&mut rng)).collect();
            steps.splice(place..place, std::iter::once(trouble).chain(slow).chain(burst));
        }
    }
}

/// A put of a note, a place or a set.
fn edit_of(rng: &mut fastrand::Rng, kind: u8, ids: u32) -> Edit {
    let id = rng.u32(0..ids);
    match kind {
        0 => Edit::Note(id, true),
        1 => Edit::Place(id, true),
        _ => Edit::Set(id, true),
    }
}

fn failing(rng: &mut fastrand::Rng) -> Option<Failing> {
    *rng.choice(&[None, None, None, Some(Failing::Error), Some(Failing::Panic)]).unwrap_or(&None)
}
