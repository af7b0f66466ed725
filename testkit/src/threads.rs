//! Threads whose panics fail the test that has started them.

use std::panic::resume_unwind;
use std::thread;

use futures::executor::block_on;
use futures::future::BoxFuture;

/// Runs each task on a thread of its own until all have ended. Panics if one of them has.
pub(crate) fn run_all(tasks: Vec<BoxFuture<'_, ()>>) {
    let failures: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = tasks.into_iter().map(|task| scope.spawn(move || block_on(task))).collect();
        threads.into_iter().filter_map(|thread| thread.join().err()).collect()
    });
    if let Some(failure) = failures.into_iter().next() {
        resume_unwind(failure);
    }
}
