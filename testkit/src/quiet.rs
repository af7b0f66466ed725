//! Panics that a property looks for, and that are not printed: thousands of them would hide the one that is news.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls `act`, and returns its panic, which is not printed.
pub(crate) fn catch_quietly<T>(act: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    let outer = is_quiet();
    be_quiet(true);
    let result = catch_unwind(AssertUnwindSafe(act));
    be_quiet(outer);
    result
}

/// Panics without a word on the standard error: for panics that a test provokes and catches, whose text would only hide
/// that of a failure. A [`Fixture`](crate::Fixture) whose medium panics on demand calls it.
///
/// # Panics
/// Always.
pub fn panic_quietly(text: impl Into<String>) -> ! {
    // This is a panic like any other, but for the hook that prints it, which is not called.
    resume_unwind(Box::new(text.into()))
}

/// Whether the panics of this thread are not printed.
pub(crate) fn is_quiet() -> bool {
    QUIET.get()
}

/// Prints no panics of this thread, if `quiet`: for a thread that does a part of a test.
pub(crate) fn be_quiet(quiet: bool) {
    static HOOK: Once = Once::new();
    if quiet {
        HOOK.call_once(|| {
            let print = take_hook();
            set_hook(Box::new(move |panic| {
                if !QUIET.get() {
                    print(panic);
                }
            }));
        });
    }
    QUIET.set(quiet);
}

/// The text of a panic.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| Some(panic.downcast_ref::<String>()?.as_str())).unwrap_or("something that is no text")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use futures::FutureExt as _;

    use super::*;
    use crate::threads;

    /// Goal: what is printed are those panics alone that nobody looks for. Method: a hook that counts the panics of threads
    /// that are not quiet; panics of each kind, on this thread and on one that it has started.
    #[test]
    fn panics_that_are_looked_for_are_not_printed() {
        static PRINTED: AtomicU8 = AtomicU8::new(0);
        let print = take_hook();
        set_hook(Box::new(move |panic| match panic.payload_as_str() {
            Some(text) if text.starts_with("counted") => {
                PRINTED.fetch_add(u8::from(!is_quiet()), Ordering::SeqCst);
            }
            _ => print(panic),
        }));
        let on_a_thread = || {
            threads::run_all(vec![async { panic!("counted, on a thread") }.boxed()]);
        };
        let panic = catch_quietly(|| panic!("counted")).expect_err("it panics");
        assert_eq!(text_of(&*panic), "counted");
        assert!(catch_quietly(on_a_thread).is_err());
        let panic = catch_unwind(|| panic_quietly("counted")).expect_err("it panics");
        assert_eq!(text_of(&*panic), "counted");
        assert_eq!(PRINTED.load(Ordering::SeqCst), 0);
        assert!(catch_unwind(on_a_thread).is_err());
        assert_eq!(PRINTED.load(Ordering::SeqCst), 1);
    }
}
