//! The clock seam: wall time, elapsed time and waiting.
//!
//! The driver alone reads a [`Clock`]; the engine gets each reading as a [`Now`]. Nothing else in the workspace
//! reads the time (`clippy.toml` forbids it), so every run can be repeated by replaying its readings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::storage::BoxError;

/// Wall-clock time: milliseconds since 1970-01-01T00:00:00Z, below 2⁴⁸ (the year 10889).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallMs(u64);

impl WallMs {
    /// The start of 1970.
    pub const MIN: Self = Self(0);
    /// The last millisecond that a stamp can hold.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// Makes the time `ms` milliseconds after the start of 1970.
    ///
    /// # Errors
    /// [`ClockError::Beyond48Bits`] if a stamp cannot hold it.
    pub const fn new(ms: u64) -> Result<Self, ClockError> {
        if ms <= Self::MAX.0 { Ok(Self(ms)) } else { Err(ClockError::Beyond48Bits { ms }) }
    }

    /// Returns the milliseconds since 1970.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the time `ms` milliseconds later, but at most [`WallMs::MAX`].
    #[must_use]
    pub fn saturating_add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms).min(Self::MAX.0))
    }
}

/// Elapsed time: milliseconds on a timer that never steps and counts the time a device is suspended.
///
/// The zero has no meaning; only differences do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// Returns the milliseconds from `earlier` to `self`; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The reading that the driver took of its [`Clock`] just before it called the engine.
#[derive(Clone, Debug)]
pub struct Now {
    /// The wall clock, which may fail, step or stop.
    pub wall: Result<WallMs, ClockError>,
    /// The timer, which never fails.
    pub mono: Mono,
}

/// The milliseconds by which the wall clock moved more than the monotonic clock did.
pub(crate) fn jump_ms(before: (WallMs, Mono), after: (WallMs, Mono)) -> i64 {
    let wall = i128::from(after.0.get()) - i128::from(before.0.get());
    let mono = i128::from(after.1.since(before.1));
    i64::try_from(wall - mono).unwrap_or(if wall < mono { i64::MIN } else { i64::MAX })
}

/// Why no stamp could be drawn. Nothing was written, since stamps never go back.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClockError {
    /// The platform could not tell the time.
    #[error("the wall clock could not be read: {0}; retry")]
    Failed(Arc<dyn std::error::Error + Send + Sync>),
    /// The wall clock stands before 1970.
    #[error("the wall clock stands before 1970; set the device's clock, then retry")]
    Before1970,
    /// The wall clock stands beyond what a stamp can hold.
    #[error(
        "the wall clock reads {ms} ms since 1970, which is beyond 48 bits; set the device's clock, then retry"
    )]
    Beyond48Bits {
        /// The clock's reading.
        ms: u64,
    },
    /// The next stamp would run ahead of physical time by more than the group tolerates, since so many stamps were
    /// drawn within one reading.
    #[error(
        "the next stamp would stand more than {max_drift_ms} ms ahead of physical time; wait, then retry"
    )]
    Exhausted {
        /// The bound that would be passed.
        max_drift_ms: u64,
    },
}

impl ClockError {
    /// Wraps the error that the platform reported.
    pub fn failed(error: impl Into<BoxError>) -> Self {
        Self::Failed(Arc::from(error.into()))
    }
}

/// The source of time: a wall clock, a timer, and waiting.
///
/// # Contract
/// Each bullet is a property of the list in `syncline-testkit`, under the same name.
///
/// - `mono_never_goes_back`: [`mono`](Clock::mono) never goes back, whatever thread asks, and counts suspended time.
/// - `wall_counts_from_1970`: [`wall`](Clock::wall) shows milliseconds since 1970, or an error; it does not panic. It may step
///   back, stop or jump, as people and time servers set it: the hybrid logical clock absorbs that.
/// - `wall_and_mono_count_the_same`: as long as nobody sets the wall, both count the same milliseconds.
/// - `sleep_takes_about_its_time`: [`sleep`](Clock::sleep) ends and wakes its task. It may end early or late, since the driver
///   looks at the timer again, but not at once every time: the driver would spin.
/// - `sleeps_do_not_wait_for_each_other`: several may sleep at once; each ends in its own time.
/// - `a_dropped_sleep_is_over`: dropping a sleep ends the wait and does nothing else.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall clock's time.
    ///
    /// # Errors
    /// [`ClockError`] if it fails or stands outside 48 bits of milliseconds since 1970.
    fn wall(&self) -> Result<WallMs, ClockError>;

    /// Returns the timer's time.
    fn mono(&self) -> Mono;

    /// Waits for about `duration`.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait and does nothing else.
    async fn sleep(&self, duration: Duration);
}

#[async_trait]
impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn wall(&self) -> Result<WallMs, ClockError> {
        (**self).wall()
    }

    fn mono(&self) -> Mono {
        (**self).mono()
    }

    async fn sleep(&self, duration: Duration) {
        (**self).sleep(duration).await;
    }
}

/// The platform's clock.
///
/// The timer counts suspended time: `CLOCK_BOOTTIME` on Linux and Android, `CLOCK_MONOTONIC` on Apple systems, the
/// standard library's timer elsewhere, which counts it on Windows.
pub struct SystemClock {
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    started: std::time::Instant,
}

impl SystemClock {
    /// Opens the platform's clock.
    #[allow(clippy::new_without_default, reason = "it reads the platform, as a default should not")]
    #[must_use]
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android", target_vendor = "apple")),
        allow(clippy::disallowed_methods, reason = "the one place that reads the timer")
    )]
    pub fn new() -> Self {
        Self {
            #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
            started: std::time::Instant::now(),
        }
    }
}

impl fmt::Debug for SystemClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemClock")
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn wall(&self) -> Result<WallMs, ClockError> {
        let since_1970 = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_err(|_| ClockError::Before1970)?;
        WallMs::new(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    fn mono(&self) -> Mono {
        #[cfg(target_vendor = "apple")]
        const TIMER: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        #[cfg(not(target_vendor = "apple"))]
        const TIMER: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        let t = rustix::time::clock_gettime(TIMER);
        let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
        Mono(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    fn mono(&self) -> Mono {
        Mono(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that waits")]
    async fn sleep(&self, duration: Duration) {
        futures_timer::Delay::new(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: H8, no reading panics. Method: the edges of 48 and 64 bits.
    #[test]
    fn h8_out_of_range_is_an_error() {
        assert_eq!(WallMs::new(WallMs::MAX.get()).unwrap(), WallMs::MAX);
        for ms in [WallMs::MAX.get() + 1, u64::MAX] {
            assert!(matches!(WallMs::new(ms), Err(ClockError::Beyond48Bits { ms: found }) if found == ms));
        }
        assert_eq!(WallMs::MAX.saturating_add(1), WallMs::MAX);
    }

    #[test]
    fn the_system_clock_tells_the_time() {
        let clock = SystemClock::new();
        assert!(clock.wall().unwrap() > WallMs::new(1_700_000_000_000).unwrap());
        let before = clock.mono();
        assert!(clock.mono() >= before);
    }

    #[test]
    fn the_system_clock_waits() {
        let clock = SystemClock::new();
        let before = clock.mono();
        futures::executor::block_on(clock.sleep(Duration::from_millis(5)));
        assert!(clock.mono().since(before) >= 4, "at most one tick is lost to rounding");
    }
}
