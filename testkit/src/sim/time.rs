//! Virtual time: one timeline on which all tasks sleep, and a clock for each replica.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use syncline::{Clock, ClockError, Mono, WallMs};

/// True time, in milliseconds since the run began. The world moves it on when no task can go on. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Timeline(Arc<Mutex<Sleepers>>);

#[derive(Default)]
struct Sleepers {
    now_ms: u64,
    next: u64,
    /// The sleepers, by the time at which they wake. Those of one time wake in the order in which they went to sleep.
    waiting: BTreeMap<(u64, u64), Waker>,
}

impl Timeline {
    fn lock(&self) -> MutexGuard<'_, Sleepers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.lock().now_ms
    }

    /// When the next sleeper wakes.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.lock().waiting.keys().next().map(|(due, _)| *due)
    }

    /// Moves to `to_ms`, and wakes the sleepers that are due by then.
    pub(super) fn advance(&self, to_ms: u64) {
        let mut sleepers = self.lock();
        sleepers.now_ms = sleepers.now_ms.max(to_ms);
        let later = sleepers.waiting.split_off(&(to_ms + 1, 0));
        let due = std::mem::replace(&mut sleepers.waiting, later);
        drop(sleepers);
        due.into_values().for_each(Waker::wake);
    }

    pub(super) async fn sleep(&self, ms: u64) {
        let mut place = Place { timeline: self.clone(), key: None };
        let due = self.now_ms().saturating_add(ms);
        poll_fn(move |context| {
            let mut sleepers = place.timeline.lock();
            if sleepers.now_ms >= due {
                return Poll::Ready(());
            }
            let key = place.key.unwrap_or((due, sleepers.next));
            if place.key.is_none() {
                sleepers.next += 1;
            }
            sleepers.waiting.insert(key, context.waker().clone());
            drop(sleepers);
            place.key = Some(key);
            Poll::Pending
        })
        .await;
    }
}

/// The place of a sleeper. Dropping a sleep gives the place up, so that no waker stays behind.
struct Place {
    timeline: Timeline,
    key: Option<(u64, u64)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timeline.lock().waiting.remove(&key);
        }
    }
}

/// What a right clock shows when the run begins.
pub(super) const EPOCH_MS: u64 = 1_700_000_000_000;

/// The clock of a replica: its timer is right, its wall shows what the plan says. Clones share it.
#[derive(Clone)]
pub(super) struct SimClock {
    timeline: Timeline,
    /// What the wall shows, and since when.
    wall: Arc<Mutex<(Wall, u64)>>,
}

/// What a wall clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Wall {
    /// The time plus so many milliseconds, or minus, if they are negative.
    Off(i64),
    /// Always the same time, so many milliseconds after the beginning of the run.
    Frozen(u64),
    /// A time before 1970, which is an error.
    Before1970,
    /// Nothing: it cannot be read.
    Fails,
    /// The time, from which it moves away by so many milliseconds a second.
    Drifts(i16),
}

impl SimClock {
    pub(super) fn new(timeline: &Timeline) -> Self {
        Self { timeline: timeline.clone(), wall: Arc::new(Mutex::new((Wall::Off(0), 0))) }
    }

    pub(super) fn set(&self, wall: Wall) {
        *self.wall.lock().unwrap_or_else(PoisonError::into_inner) = (wall, self.timeline.now_ms());
    }
}

#[async_trait]
impl Clock for SimClock {
    fn wall(&self) -> Result<WallMs, ClockError> {
        let (wall, since_ms) = *self.wall.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.timeline.now_ms();
        let off = |ms| WallMs::new((EPOCH_MS + now_ms).saturating_add_signed(ms));
        match wall {
            Wall::Off(ms) => off(ms),
            Wall::Drifts(a_second) => {
                off(i64::try_from((now_ms - since_ms) / 1000).unwrap_or(i64::MAX) * i64::from(a_second))
            }
            Wall::Frozen(ms) => WallMs::new(EPOCH_MS + ms),
            Wall::Before1970 => Err(ClockError::Before1970),
            Wall::Fails => Err(ClockError::failed("the clock fails")),
        }
    }

    fn mono(&self) -> Mono {
        Mono(self.timeline.now_ms())
    }

    async fn sleep(&self, duration: Duration) {
        self.timeline.sleep(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).await;
    }
}
