//! Threads whose panics fail the test that has started them.

use std::panic::resume_unwind;
use std::thread;

use futures::executor::block_on;
use futures::future::BoxFuture;

use crate::quiet::{be_quiet, is_quiet};
use crate::watchdog;

/// Runs each task on a thread of its own until all have ended. Panics if one of them has. The threads have the name of this
/// one, and a number.
pub(crate) fn run_all(tasks: Vec<BoxFuture<'_, ()>>) {
    let (watcher, quiet) = (&watchdog::watcher(), is_quiet());
    let failures: Vec<_> = thread::scope(|scope| {
        let run = |(number, task)| {
            let name = format!("{} {number}", thread::current().name().unwrap_or("a test"));
            let run = move || {
                watchdog::note_for(watcher.clone());
                be_quiet(quiet);
                block_on(task);
            };
            thread::Builder::new().name(name).spawn_scoped(scope, run).expect("a thread starts")
        };
        let threads: Vec<_> = (1..).zip(tasks).map(run).collect();
        threads.into_iter().filter_map(|thread| thread.join().err()).collect()
    });
    if let Some(failure) = failures.into_iter().next() {
        resume_unwind(failure);
    }
}
