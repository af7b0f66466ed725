//! Draws the steps that lead to snapshots: logs are cut short, a replica is away for longer than they reach, and a fault
//! meets its install.

use super::{Action, Edit, Rate, Sizes, Step};

/// Of ten plans so many have snapshots of this kind.
const SNAPSHOTS: u8 = 2;

/// Adds such steps to those of the plan with this seed.
///
/// These steps are drawn apart from the others, so that the other steps of a seed stay as they are.
pub(super) fn add_steps(seed: u64, replicas: u8, ids: u32, steps: &mut Vec<Step>) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x736e_6170);
    if rng.u8(0..10) >= SNAPSHOTS {
        return;
    }
    let first = rng.u8(0..replicas);
    for at in 0..replicas {
        if at == first || rng.bool() {
            let early = rng.usize(0..=steps.len() / 3);
            steps.insert(early, Step { after_ms: 0, action: Action::Limits { at, sizes: Sizes::ShortLog } });
        }
    }
    for _ in 0..rng.usize(1..4) {
        let place = rng.usize(steps.len() / 3..=steps.len());
        let story = away(&mut rng, replicas, ids);
        steps.splice(place..place, story);
    }
}

/// A replica is away while others write, and comes back; a fault meets what follows.
fn away(rng: &mut fastrand::Rng, replicas: u8, ids: u32) -> Vec<Step> {
    let at = rng.u8(0..replicas);
    let other = (at + rng.u8(1..replicas)) % replicas;
    let commit = |rng: &mut fastrand::Rng| {
        let (id, put) = (rng.u32(0..ids), rng.u8(0..10) < 7);
        let edit = if rng.bool() { Edit::Note(id, put) } else { Edit::Set(id, put) };
        let at = if rng.u8(0..5) == 0 { at } else { other };
        let pair = rng.u8(0..4) == 0;
        if pair { Action::Pair { at } } else { Action::Commit { at, edits: vec![edit], cancelled: None } }
    };
    let mut steps = vec![(0, Action::Heal), (3_000, Action::Partition { mask: 1 << at })];
    for _ in 0..rng.usize(8..24) {
        steps.push((*rng.choice(&[0, 3, 200]).unwrap_or(&0), commit(rng)));
    }
    // Logs are cut short a while after they have grown.
    steps.push((3_000, Action::Slow { at, write_ms: *rng.choice(&[0, 5, 300]).unwrap_or(&0) }));
    if rng.u8(0..3) == 0 {
        // Records arrive slowly, and their sender forgets in the middle of them that it keeps its log for somebody.
        steps.push((0, Action::Heal));
        steps.push((0, Action::Rate { one: at, other, rate: Rate::draw(rng) }));
        steps.push((0, Action::Slow { at, write_ms: 300 }));
        steps.push((*rng.choice(&[200, 500, 1_500]).unwrap_or(&500), Action::Partition { mask: 1 << at }));
        steps.push((0, Action::Crash { at: other, applied: true, down_ms: Some(1) }));
        steps.extend((0..10).map(|_| (3, commit(rng))));
    }
    steps.push((3_000, Action::Heal));
    for _ in 0..rng.usize(0..4) {
        let down_ms = Some(*rng.choice(&[1, 50, 2_000]).unwrap_or(&50));
        let (applied, times) = (rng.bool(), rng.u8(1..4));
        let faults = [
            Action::Crash { at, applied, down_ms },
            Action::Crash { at: other, applied, down_ms },
            Action::Disconnect { one: at, other },
            Action::Flap { one: at, other, times },
            Action::Partition { mask: 1 << at | 1 << other },
            Action::Partition { mask: 1 << other },
            commit(rng),
            commit(rng),
        ];
        let [fault] = rng.choose_multiple(faults, 1).try_into().unwrap_or([Action::Heal]);
        steps.push((*rng.choice(&[3, 50, 200, 3_000]).unwrap_or(&50), fault));
    }
    steps.into_iter().map(|(after_ms, action)| Step { after_ms, action }).collect()
}
