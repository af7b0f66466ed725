//! Slow links of a plan: how many bytes pass in a second, and how long they are on their way.

use serde::{Deserialize, Serialize};
use syncline_backends::Link;

use super::{Action, Plan, Step};

/// How slow the way between two replicas is, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many bytes pass in a second.
    pub bytes_a_second: u32,
    /// How long a frame and its answer are on their way, beside their bytes.
    pub round_trip_ms: u16,
    /// How many bytes wait to leave. More are dropped.
    pub queue_bytes: u32,
}

impl Plan {
    /// Whether a link is slow or bad at some time.
    pub(in crate::sim) fn has_slow_links(&self) -> bool {
        let is_bad = |step: &Step| matches!(step.action, Action::Link { .. } | Action::Rate { .. });
        self.steps.iter().any(is_bad)
    }

    /// How long the largest value of the plan is on its way at most, on the slowest link: one that leaves just before the
    /// faults end arrives so much later, and is not sent twice.
    pub(in crate::sim) fn longest_page_ms(&self) -> u64 {
        let actions = || self.steps.iter().map(|step| &step.action);
        let bytes = actions().filter_map(|action| match action {
            Action::Large { kib, .. } => Some(u64::from(*kib) * 1024),
            _ => None,
        });
        let rate = actions().filter_map(|action| match action {
            Action::Rate { rate, .. } => Some(u64::from(rate.bytes_a_second)),
            _ => None,
        });
        let (bytes, rate) = (bytes.max().unwrap_or(0), rate.min());
        rate.map_or(0, |rate| bytes * 1_000 / rate.max(1))
    }
}

impl Rate {
    pub(super) fn draw(rng: &mut fastrand::Rng) -> Self {
        Self {
            bytes_a_second: *rng.choice(&[2_000, 6_000, 20_000, 60_000, 1_000_000]).unwrap_or(&2_000),
            round_trip_ms: *rng.choice(&[0, 20, 200, 2_000, 15_000]).unwrap_or(&200),
            queue_bytes: *rng.choice(&[2_000, 64_000, 1_000_000]).unwrap_or(&64_000),
        }
    }

    pub(in crate::sim) fn link(self) -> Link {
        let delay_ms = u64::from(self.round_trip_ms / 2);
        Link {
            delay_ms: delay_ms..=delay_ms,
            bytes_a_second: Some(u64::from(self.bytes_a_second)),
            queue_bytes_max: self.queue_bytes as usize,
            ..Link::default()
        }
    }
}
