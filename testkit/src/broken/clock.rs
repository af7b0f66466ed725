//! Clocks that break the contract, one way each, over the platform's.

use std::future::{Future as _, pending, poll_fn};
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use syncline::{Clock, ClockError, Mono, SystemClock, WallMs};

use super::flaw::flaws;
use super::lock;
use crate::on_drop::OnDrop;

flaws! {
    /// The fault of a [`BrokenClock`].
    ClockFlaw

    mono_never_goes_back {
        /// Every hundredth reading is a second behind.
        MonoGoesBack,
        /// Each reading that is not the last thread's is 50 ms behind.
        MonoOfEachThread,
    }
    wall_counts_from_1970 {
        /// The wall shows seconds.
        WallInSeconds,
        /// The wall shows microseconds.
        WallInMicroseconds,
        /// The wall shows how long the device is up.
        WallFromUptime,
        /// The wall panics now and then.
        WallPanics,
    }
    wall_and_mono_count_the_same {
        /// The timer counts seconds.
        MonoInSeconds,
        /// The timer counts microseconds.
        MonoInMicroseconds,
        /// The timer stands while something sleeps.
        MonoStandsAsleep,
        /// The wall is read once.
        WallStands,
    }
    sleep_takes_about_its_time {
        /// No sleep ends.
        SleepNeverEnds,
        /// A sleep ends, but wakes nobody.
        SleepWakesNobody,
        /// Every sleep ends at once.
        SleepEndsAtOnce,
        /// A sleep takes seconds for milliseconds.
        SleepsForSeconds,
    }
    sleeps_do_not_wait_for_each_other {
        /// One sleep at a time.
        SleepsOneByOne,
        /// A sleep blocks its thread.
        LongestSleepFirst,
    }
    a_dropped_sleep_is_over {
        /// After a dropped sleep, no other one ends.
        DroppedSleepKeepsItsPlace,
        /// A dropped sleep moves the timer as if it had ended.
        DroppedSleepMovesTheTimer,
    }
}

/// A clock with one flaw, and otherwise the platform's.
#[derive(Debug)]
pub struct BrokenClock {
    flaw: ClockFlaw,
    inner: SystemClock,
    readings: AtomicU64,
    /// Milliseconds by which the timer is wrong.
    moved_ms: AtomicU64,
    /// How many sleeps have begun and not ended.
    asleep: AtomicU64,
    dropped: AtomicU64,
    shown: Mutex<Option<WallMs>>,
    /// The thread that reads, so that others can be treated apart.
    reader: Mutex<Option<std::thread::ThreadId>>,
}

impl BrokenClock {
    /// A clock with `flaw`.
    #[must_use]
    pub fn new(flaw: ClockFlaw) -> Self {
        Self {
            flaw,
            inner: SystemClock::new(),
            readings: AtomicU64::new(0),
            moved_ms: AtomicU64::new(0),
            asleep: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            shown: Mutex::new(None),
            reader: Mutex::new(None),
        }
    }
}

#[async_trait]
impl Clock for BrokenClock {
    fn wall(&self) -> Result<WallMs, ClockError> {
        let wall = self.inner.wall()?;
        match self.flaw {
            ClockFlaw::WallInSeconds => WallMs::new(wall.get() / 1000),
            ClockFlaw::WallInMicroseconds => WallMs::new(wall.get() * 1000),
            ClockFlaw::WallFromUptime => WallMs::new(self.inner.mono().0),
            ClockFlaw::WallPanics if self.readings.fetch_add(1, SeqCst) % 4 == 3 => {
                panic!("the clock has no time")
            }
            ClockFlaw::WallStands => Ok(*lock(&self.shown).get_or_insert(wall)),
            _ => Ok(wall),
        }
    }

    fn mono(&self) -> Mono {
        let Mono(now) = self.inner.mono();
        let moved_ms = self.moved_ms.load(SeqCst);
        Mono(match self.flaw {
            ClockFlaw::MonoGoesBack if self.readings.fetch_add(1, SeqCst) % 100 == 99 => now - 1_000,
            ClockFlaw::MonoOfEachThread => {
                let me = std::thread::current().id();
                let reader = *lock(&self.reader).get_or_insert(me);
                if reader == me { now } else { now - 50 }
            }
            ClockFlaw::MonoInSeconds => now / 1000,
            ClockFlaw::MonoInMicroseconds => now * 1000,
            ClockFlaw::MonoStandsAsleep => now - moved_ms,
            ClockFlaw::DroppedSleepMovesTheTimer => now + moved_ms,
            _ => now,
        })
    }

    async fn sleep(&self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        match self.flaw {
            ClockFlaw::SleepNeverEnds => pending().await,
            ClockFlaw::SleepWakesNobody => {
                let mut sleep = pin!(self.inner.sleep(duration));
                poll_fn(|_| sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()))).await;
            }
            ClockFlaw::SleepEndsAtOnce => {}
            ClockFlaw::SleepsForSeconds => self.inner.sleep(duration * 1000).await,
            ClockFlaw::SleepsOneByOne => {
                if self.asleep.fetch_add(1, SeqCst) > 0 {
                    pending::<()>().await;
                }
                let _awake = OnDrop::new(|| {
                    self.asleep.fetch_sub(1, SeqCst);
                });
                self.inner.sleep(duration).await;
            }
            ClockFlaw::LongestSleepFirst => {
                let longest = self.asleep.fetch_max(ms, SeqCst).max(ms);
                let mut sleep = pin!(self.inner.sleep(duration));
                poll_fn(|context| {
                    // A short sleep is due only once the longest one was begun and seen to end.
                    let due = sleep.as_mut().poll(context).is_ready();
                    if due && (ms == longest || longest < 1_000) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            ClockFlaw::DroppedSleepKeepsItsPlace => {
                if self.dropped.load(SeqCst) > 0 {
                    pending::<()>().await;
                }
                let dropped = OnDrop::new(|| {
                    self.dropped.fetch_add(1, SeqCst);
                });
                self.inner.sleep(duration).await;
                dropped.disarm();
            }
            ClockFlaw::DroppedSleepMovesTheTimer => {
                let dropped = OnDrop::new(|| {
                    self.moved_ms.fetch_add(ms, SeqCst);
                });
                self.inner.sleep(duration).await;
                dropped.disarm();
            }
            ClockFlaw::MonoStandsAsleep => {
                let before = self.inner.mono();
                self.inner.sleep(duration).await;
                self.moved_ms.fetch_add(self.inner.mono().since(before), SeqCst);
            }
            _ => self.inner.sleep(duration).await,
        }
    }
}
