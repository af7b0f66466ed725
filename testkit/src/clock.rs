//! A clock that tests move by hand.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use syncline::{Clock, ClockError, Mono, WallMs};

/// A clock that stands still until it is moved. Clones show the same time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Reading>>);

#[derive(Debug)]
struct Reading {
    wall: Result<WallMs, ClockError>,
    mono: Mono,
}

impl ManualClock {
    /// A clock whose wall stands at `wall_ms`.
    ///
    /// # Panics
    /// If a stamp cannot hold it.
    #[must_use]
    pub fn at(wall_ms: u64) -> Self {
        let wall = Ok(WallMs::new(wall_ms).expect("a stamp holds it"));
        Self(Arc::new(Mutex::new(Reading { wall, mono: Mono(0) })))
    }

    /// Moves both the wall and the timer on by so many milliseconds.
    pub fn advance(&self, ms: u64) {
        let mut reading = self.reading();
        if let Ok(wall) = &mut reading.wall {
            *wall = wall.saturating_add(ms);
        }
        reading.mono.0 += ms;
    }

    /// Sets the wall, as a user or a time server would, or makes it fail. The timer goes on.
    pub fn set_wall(&self, wall: Result<WallMs, ClockError>) {
        self.reading().wall = wall;
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn wall(&self) -> Result<WallMs, ClockError> {
        self.reading().wall.clone()
    }

    fn mono(&self) -> Mono {
        self.reading().mono
    }

    /// Moves the clock on by the duration and returns at once.
    async fn sleep(&self, duration: Duration) {
        self.advance(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }
}
