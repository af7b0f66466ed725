//! A clock for several replicas at once, with one timer for all and a wall for each, which a test moves by hand.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use syncline::{Clock, ClockError, Mono, WallMs};

/// A clock that stands still until it is [advanced](Self::advance), which wakes the sleepers that are due.
///
/// A sleeper waits and does not move the clock, unlike with [`ManualClock`](crate::ManualClock), so the drivers of
/// several replicas can wait beside each other. Clones show the same time; the clock of [another](Self::another) device
/// has a wall of its own and shares the timer.
#[derive(Clone, Debug)]
pub struct StepClock {
    timer: Arc<Mutex<Timer>>,
    wall: Arc<Mutex<Wall>>,
}

#[derive(Debug)]
struct Timer {
    now: Mono,
    sleepers: BTreeMap<(Mono, u64), Waker>,
    last_sleeper: u64,
}

/// What the wall showed when the timer stood at `since`.
#[derive(Clone, Debug)]
struct Wall {
    shown: Result<WallMs, ClockError>,
    since: Mono,
    frozen: bool,
}

impl StepClock {
    /// A clock whose wall stands at `wall_ms`, and a timer of its own.
    ///
    /// # Panics
    /// If a stamp cannot hold it.
    #[must_use]
    pub fn at(wall_ms: u64) -> Self {
        let shown = Ok(WallMs::new(wall_ms).expect("a stamp holds it"));
        let wall = Wall { shown, since: Mono(0), frozen: false };
        let timer = Timer { now: Mono(0), sleepers: BTreeMap::new(), last_sleeper: 0 };
        Self { timer: Arc::new(Mutex::new(timer)), wall: Arc::new(Mutex::new(wall)) }
    }

    /// The clock of another device. It shows the same time, until one of the two is set.
    #[must_use]
    pub fn another(&self) -> Self {
        let wall = lock(&self.wall).clone();
        Self { timer: Arc::clone(&self.timer), wall: Arc::new(Mutex::new(wall)) }
    }

    /// Lets time pass for every clock that shares the timer.
    pub fn advance(&self, ms: u64) {
        let due = {
            let mut timer = lock(&self.timer);
            timer.now.0 += ms;
            let next = Mono(timer.now.0 + 1);
            let later = timer.sleepers.split_off(&(next, 0));
            std::mem::replace(&mut timer.sleepers, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// Returns how long the first sleeper still has to wait; `None` if there is no sleeper.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        let timer = lock(&self.timer);
        timer.sleepers.keys().next().map(|(due, _)| due.since(timer.now))
    }

    /// Sets the wall, as a user or a time server would, or makes it fail. The wall goes on from there with the timer.
    pub fn set_wall(&self, shown: Result<WallMs, ClockError>) {
        let since = self.mono();
        *lock(&self.wall) = Wall { shown, since, frozen: false };
    }

    /// Sets the wall ahead by so many milliseconds, or back if they are negative.
    ///
    /// # Panics
    /// If the wall fails, or a stamp could not hold the new time.
    pub fn step_wall(&self, by_ms: i64) {
        let wall = self.wall().expect("the wall can be read").get();
        let wall = wall.checked_add_signed(by_ms).expect("it stays after 1970");
        self.set_wall(WallMs::new(wall));
    }

    /// Stops the wall, until it is set. The timer goes on.
    pub fn freeze_wall(&self) {
        let (shown, since) = (self.wall(), self.mono());
        *lock(&self.wall) = Wall { shown, since, frozen: true };
    }
}

#[async_trait]
impl Clock for StepClock {
    fn wall(&self) -> Result<WallMs, ClockError> {
        let now = self.mono();
        let Wall { shown, since, frozen } = lock(&self.wall).clone();
        let passed_ms = if frozen { 0 } else { now.since(since) };
        shown.map(|wall| wall.saturating_add(passed_ms))
    }

    fn mono(&self) -> Mono {
        lock(&self.timer).now
    }

    async fn sleep(&self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let slot = {
            let mut timer = lock(&self.timer);
            timer.last_sleeper += 1;
            (Mono(timer.now.0.saturating_add(ms)), timer.last_sleeper)
        };
        let _bed = Bed { timer: &self.timer, slot };
        poll_fn(|context| {
            let mut timer = lock(&self.timer);
            if timer.now >= slot.0 {
                return Poll::Ready(());
            }
            let before = timer.sleepers.insert(slot, context.waker().clone());
            // Give the lock back before the old waker is dropped: that may run a destructor that asks for the time.
            drop(timer);
            drop(before);
            Poll::Pending
        })
        .await;
    }
}

/// The place of a sleeper among the sleepers, until the sleep is dropped.
struct Bed<'a> {
    timer: &'a Mutex<Timer>,
    slot: (Mono, u64),
}

impl Drop for Bed<'_> {
    fn drop(&mut self) {
        // Give the lock back before the waker is dropped, as in `sleep`.
        let waker = lock(self.timer).sleepers.remove(&self.slot);
        drop(waker);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// Goal: time moves by hand alone, and a sleeper wakes when it is due. Method: one sleeper, polled after every
    /// step.
    #[test]
    fn sleepers_wake_when_the_timer_says_so() {
        let clock = StepClock::at(1_000);
        assert_eq!(clock.next_wake_ms(), None);
        let mut sleep = clock.sleep(Duration::from_millis(30));
        assert_eq!((&mut sleep).now_or_never(), None);
        assert_eq!(clock.next_wake_ms(), Some(30));
        clock.advance(29);
        assert_eq!(((&mut sleep).now_or_never(), clock.next_wake_ms()), (None, Some(1)));
        clock.advance(1);
        assert_eq!((sleep.now_or_never(), clock.next_wake_ms()), (Some(()), None));
        let mut dropped = clock.sleep(Duration::from_millis(30));
        assert_eq!((&mut dropped).now_or_never(), None);
        drop(dropped);
        assert_eq!(clock.next_wake_ms(), None);
    }

    /// Goal: each device has a wall of its own. Method: three walls, one stepped, one frozen, one left alone.
    #[test]
    fn walls_are_set_by_themselves() {
        let clock = StepClock::at(10_000);
        let (stepped, frozen) = (clock.another(), clock.another());
        clock.advance(5);
        stepped.step_wall(-1_000);
        frozen.freeze_wall();
        clock.advance(5);
        let shown = [&clock, &stepped, &frozen].map(|clock| clock.wall().unwrap().get());
        assert_eq!(shown, [10_010, 9_010, 10_005]);
        frozen.set_wall(WallMs::new(20_000));
        clock.advance(1);
        assert_eq!((frozen.wall().unwrap().get(), frozen.mono()), (20_001, clock.mono()));
    }
}
