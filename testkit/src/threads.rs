//! Threads whose panics fail the test that has started them.

use std::panic::resume_unwind;
use std::thread;

use futures::executor::block_on;
use futures::future::BoxFuture;

use crate::watchdog;

/// Runs each task on a thread of its own until all have ended. Panics if one of them has.
pub(crate) fn run_all(tasks: Vec<BoxFuture<'_, ()>>) {
    let watcher = &watchdog::watcher();
    let failures: Vec<_> = thread::scope(|scope| {
        let run = |task| {
            scope.spawn(move || {
                watchdog::note_for(watcher.clone());
                block_on(task);
            })
        };
        let threads: Vec<_> = tasks.into_iter().map(run).collect();
        threads.into_iter().filter_map(|thread| thread.join().err()).collect()
    });
    if let Some(failure) = failures.into_iter().next() {
        resume_unwind(failure);
    }
}
