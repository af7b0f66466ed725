//! The list for clocks: one property for each bullet of the [contract](syncline::Clock).
//!
//! An app that brings its own clock writes one line:
//!
//! ```
//! syncline_testkit::clock_tests!(system, syncline::SystemClock::new);
//! # // The tests of a documentation example do not run, so the list runs by hand.
//! # for property in syncline_testkit::clocks::properties() {
//! #     property.check(&syncline::SystemClock::new);
//! # }
//! ```
//!
//! The properties wait for real, some tenths of a second together, and allow for a machine that is busy: they name a clock
//! that is wrong, not one that is late. A clock that is moved by hand, as [`ManualClock`](crate::ManualClock) is, keeps
//! none of this.
//!
//! What is not checked: that the timer counts the time for which the device is suspended, and what the wall says when the
//! platform has no time. No test can bring that about.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use futures::future::{Either, select};
use syncline::{Clock, Mono, WallMs};

use crate::quiet::{catch_quietly, text_of};
use crate::storage::Property;
use crate::watchdog;

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all properties.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_clock_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            mono_never_goes_back
            wall_counts_from_1970
            wall_and_mono_count_the_same
            sleep_takes_about_its_time
            sleeps_do_not_wait_for_each_other
            a_dropped_sleep_is_over
        }
    };
}

/// Makes a module of the given name with one test for each property of the contract of clocks.
///
/// The expression is a function that makes a clock; see the [list](mod@crate::clocks).
#[macro_export]
macro_rules! clock_tests {
    ($module:ident, $clock:expr $(,)?) => {
        $crate::for_each_clock_property! {
            [$crate::watched_test_module]
            ($) clocks, $module, $clock, {}
        }
    };
}

/// Runs a property to its end.
#[doc(hidden)]
pub fn run<C>(clock: &C, property: impl FnOnce(&C) -> Pin<Box<dyn Future<Output = ()> + '_>>) {
    futures::executor::block_on(property(clock));
}

/// Returns all properties, in the order of the contract.
#[must_use]
pub fn properties<C: Clock>() -> Vec<Property<C>> {
    macro_rules! list {
        ([] $($property:ident)*) => {
            vec![$(Property {
                name: stringify!($property),
                check: |fresh| run(&fresh(), |clock| Box::pin($property(clock))),
            }),*]
        };
    }
    for_each_clock_property!([list])
}

/// Goal: the timer never goes back, whoever asks. Method: four threads, none of which may read less than any of them has
/// read before; and readings around sleeps.
///
/// # Panics
/// If the clock breaks the property.
pub async fn mono_never_goes_back(clock: &impl Clock) {
    const THREADS: u32 = 4;
    const READINGS: u32 = 2_000;
    let highest = AtomicU64::new(0);
    let read = || {
        for _ in 0..READINGS {
            let before = highest.load(Ordering::SeqCst);
            let Mono(now) = clock.mono();
            assert!(now >= before, "mono_never_goes_back: it read {now} after {before}");
            highest.fetch_max(now, Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(read)).collect();
        for thread in threads {
            // Its message, not that of the scope.
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    let mut before = clock.mono();
    for ms in [1, 3, 1, 5] {
        sleep(clock, ms).await;
        let now = clock.mono();
        assert!(
            now >= before,
            "mono_never_goes_back: it read {now:?} after {before:?} and a sleep of {ms} ms"
        );
        before = now;
    }
}

/// Goal: the wall shows milliseconds since 1970, and never panics. Method: some readings, against the years in which
/// this can run.
///
/// # Panics
/// If the clock breaks the property.
pub async fn wall_counts_from_1970(clock: &impl Clock) {
    /// The years 2020 and 2200.
    const YEARS: std::ops::Range<u64> = 1_577_836_800_000..7_258_118_400_000;
    for _ in 0..10 {
        let wall = catch_quietly(|| clock.wall());
        let wall =
            wall.unwrap_or_else(|panic| panic!("wall_counts_from_1970: `wall` panics: {}", text_of(&*panic)));
        match wall {
            Ok(wall) => assert!(
                YEARS.contains(&wall.get()),
                "wall_counts_from_1970: the wall shows {} ms since 1970, which is no time between 2020 and 2200",
                wall.get()
            ),
            Err(error) => panic!("wall_counts_from_1970: the wall cannot be read: {error}"),
        }
    }
}

/// Goal: the wall and the timer count the same milliseconds, as long as nobody sets the wall. Method: both are read around
/// a sleep. If somebody sets the wall meanwhile, they are read again.
///
/// # Panics
/// If the clock breaks the property.
pub async fn wall_and_mono_count_the_same(clock: &impl Clock) {
    /// Both round to milliseconds, and a time server may let the wall run a little faster or slower.
    const TOLERANCE_MS: u64 = 3;
    const TRIES: u32 = 5;
    let read = || -> (Mono, Result<WallMs, _>, Mono) {
        let before = clock.mono();
        let wall = clock.wall();
        (before, wall, clock.mono())
    };
    let mut found = String::new();
    for _ in 0..TRIES {
        let (first, start, second) = read();
        sleep(clock, 60).await;
        let (third, end, fourth) = read();
        let (Ok(start), Ok(end)) = (start, end) else {
            panic!("wall_and_mono_count_the_same: the wall cannot be read");
        };
        let (least, most) = (third.since(second), fourth.since(first));
        let passed = end.get().saturating_sub(start.get());
        // A sleep may end early, but not at once: then nothing was measured.
        let measured = passed.max(most) >= 10;
        if measured && passed + TOLERANCE_MS >= least && passed <= most + TOLERANCE_MS {
            return;
        }
        found = format!(
            "during a sleep of 60 ms the wall moved by {passed} ms and the timer by {least} to {most} ms"
        );
    }
    panic!("wall_and_mono_count_the_same: {found}, and so in {TRIES} tries");
}

/// Goal: a sleep ends, and takes about its time. Method: sleeps again and again until the timer says that the time has
/// come, as the driver does: few must be enough.
///
/// # Panics
/// If the clock breaks the property.
pub async fn sleep_takes_about_its_time(clock: &impl Clock) {
    const SLEEPS_MAX: u32 = 8;
    /// How much later than asked a sleep may end on a busy machine.
    const LATE_MS_MAX: u64 = 10_000;
    for ms in [0, 1, 5, 30] {
        let start = clock.mono();
        sleep(clock, ms).await;
        let mut sleeps = 1;
        while clock.mono().since(start) < ms {
            assert!(
                sleeps < SLEEPS_MAX,
                "sleep_takes_about_its_time: after {sleeps} sleeps until {ms} ms have passed, the timer has moved by {} ms",
                clock.mono().since(start)
            );
            sleep(clock, ms - clock.mono().since(start)).await;
            sleeps += 1;
        }
        let passed = clock.mono().since(start);
        assert!(
            passed <= ms + LATE_MS_MAX,
            "sleep_takes_about_its_time: a sleep of {ms} ms took {passed} ms"
        );
    }
}

/// Goal: many may wait at once. Method: a short sleep beside a long one that began before.
///
/// # Panics
/// If the clock breaks the property.
pub async fn sleeps_do_not_wait_for_each_other(clock: &impl Clock) {
    watchdog::step("a short sleep beside a long one does not end");
    let long = clock.sleep(Duration::from_secs(600));
    match select(long, clock.sleep(Duration::from_millis(10))).await {
        Either::Right(_) => {}
        Either::Left(_) => {
            panic!("sleeps_do_not_wait_for_each_other: a sleep of 600 s ended before one of 10 ms")
        }
    }
}

/// Goal: a sleep that is dropped does nothing else. Method: long ones are begun and dropped; the timer and the next sleeps
/// are as if they had never been.
///
/// # Panics
/// If the clock breaks the property.
pub async fn a_dropped_sleep_is_over(clock: &impl Clock) {
    const LONG: Duration = Duration::from_secs(600);
    let start = clock.mono();
    for _ in 0..20 {
        drop(clock.sleep(LONG));
        let mut begun = pin!(clock.sleep(LONG));
        let polled = begun.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled == Poll::Pending, "a_dropped_sleep_is_over: a sleep of 600 s ended at once");
    }
    sleep(clock, 5).await;
    let passed = clock.mono().since(start);
    assert!(passed < 300_000, "a_dropped_sleep_is_over: the timer moved by {passed} ms");
}

async fn sleep(clock: &impl Clock, ms: u64) {
    watchdog::step(format_args!("a sleep of {ms} ms does not end"));
    clock.sleep(Duration::from_millis(ms)).await;
}
