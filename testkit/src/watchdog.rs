//! A test that hangs fails, and says at which step.

use std::cell::RefCell;
use std::fmt::Display;
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::quiet::text_of;

/// How long a test may take, unless [`TEST_SECONDS`] is set. No test of a list takes a tenth of it, so only a call that
/// never returns does.
const TEST_TIME_MAX: Duration = Duration::from_secs(120);

/// The variable that says how many seconds a test may take: for machines that are slow, and for suites that are long.
const TEST_SECONDS: &str = "SYNCLINE_TEST_SECONDS";

type Step = Arc<Mutex<String>>;

/// The step of a test that has noted none.
const START: &str = "the start";

thread_local! {
    /// The step that the test on this thread is at, if a watchdog looks at it.
    static STEP: RefCell<Option<Step>> = const { RefCell::new(None) };
}

/// Notes what the test on this thread does next, for the message of the watchdog.
pub(crate) fn step(step: impl Display) {
    STEP.with_borrow(|at| {
        if let Some(at) = at {
            *at.lock().unwrap_or_else(PoisonError::into_inner) = step.to_string();
        }
    });
}

/// The step of the test on this thread, for a thread that does a part of the test.
pub(crate) fn watcher() -> Option<Step> {
    STEP.with_borrow(Clone::clone)
}

/// Lets this thread note the steps of the test that has started it.
pub(crate) fn note_for(watcher: Option<Step>) {
    STEP.set(watcher);
}

/// Runs a test on a thread of its own, and fails if the thread does not end.
///
/// # Panics
/// If the test does, or if it hangs.
#[doc(hidden)]
pub fn watched(name: &str, test: impl FnOnce() + Send + 'static) {
    let seconds = std::env::var(TEST_SECONDS).ok().map(|text| match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => panic!("{TEST_SECONDS} is no number of seconds: {text:?}"),
    });
    watched_for(seconds.unwrap_or(TEST_TIME_MAX), name, test);
}

/// As [`watched`], with so much time.
#[doc(hidden)]
pub fn watched_for(time_max: Duration, name: &str, test: impl FnOnce() + Send + 'static) {
    let at = Arc::new(Mutex::new(START.to_owned()));
    let (running, ended) = channel::<()>();
    let watched = Arc::clone(&at);
    let run = move || {
        let _running = running;
        STEP.set(Some(watched));
        test();
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread starts");
    if ended.recv_timeout(time_max) == Err(RecvTimeoutError::Timeout) {
        // The thread is left behind: a call that never returns cannot be ended from outside.
        let at = at.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let seconds = time_max.as_secs();
        panic!("{name}: it hangs at this step: {at} (no end in {seconds} s, see {TEST_SECONDS})");
    }
    let Err(panic) = thread.join() else { return };
    let at = at.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let text = text_of(&*panic);
    // A property names its step by itself. A panic of the store does not, and neither do the lists that note no steps.
    if at == START || text.starts_with(name) {
        resume_unwind(panic);
    }
    panic!("{name}: it panicked at this step: {at}: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "hung: it hangs at this step: the second opener waits")]
    fn a_test_that_hangs_fails_and_names_its_step() {
        watched_for(Duration::from_millis(50), "hung", || {
            step("the second opener waits");
            loop {
                thread::park();
            }
        });
    }

    #[test]
    #[should_panic(expected = "panics: it panicked at this step: a scan: the reason")]
    fn a_panic_of_a_store_names_the_step() {
        watched("panics", || {
            step("a scan");
            panic!("the reason");
        });
    }

    #[test]
    #[should_panic(expected = "the reason")]
    fn a_test_that_panics_fails_as_it_does_alone() {
        watched("panics", || panic!("the reason"));
    }
}
