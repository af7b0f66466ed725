//! The one place that reads the time.

use std::time::{Duration, Instant};

/// Measures the time since it was started.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    #[allow(
        clippy::disallowed_methods,
        reason = "measuring time is what this crate is for, and no figure is part of a test"
    )]
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// How often a second something happened that happened `count` times since the start.
    #[must_use]
    pub fn rate(self, count: usize) -> f64 {
        count as f64 / self.elapsed().as_secs_f64()
    }
}
