//! A large group, in a few plans: what grows with the number of members shows there.

use super::{Action, Edit, Plan, Step};

/// One plan of so many has a large group.
pub(super) const CROWD_EVERY: u64 = 397;

/// How many replicas that has.
const CROWD: u8 = 60;

impl Plan {
    /// Draws the plan of a large group. It is short, since each step costs much there.
    pub(super) fn crowd(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        // All are members after a while.
        let mut steps = vec![Step { after_ms: 30_000, action: Action::Heal }];
        for _ in 0..rng.usize(4..10) {
            let (at, after_ms) = (rng.u8(0..CROWD), *rng.choice(&[3, 200, 3_000]).unwrap_or(&3));
            let action = match rng.u8(0..8) {
                0 => Action::Crash { at, applied: rng.bool(), down_ms: Some(2_000) },
                1 => Action::Partition { mask: rng.u8(..) },
                2 => Action::Heal,
                _ => Action::Commit { at, edits: vec![Edit::Note(rng.u32(0..3), true)], cancelled: None },
            };
            steps.push(Step { after_ms, action });
        }
        // Not one of the plans whose replicas are silent for long at the end.
        let seed = rng.u64(..) & !7 | 2;
        Self { seed, replicas: CROWD, ids: 3, page_bytes: 1_000_000, tight: 0, older_apps: 0, steps }
    }
}
