//! A thread of its own for a driver, on which the store may block.
//!
//! On a thread of an executor a store must not block, so it hands each write to a thread of its own and back: two more
//! changes of threads for a commit that has nothing to overlap with. On the driver's own thread it writes in place.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::Builder;

// The executor of `futures` panics inside of another one, and a closure of the app may wait for a future on this thread.
use futures_lite::future::block_on;
use tokio::sync::oneshot;

use crate::error::StopReason;
use crate::storage::Storage;

use super::Driver;

thread_local! {
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether a [`Storage`] may block the thread that calls it, for a write or a long read: the thread belongs to
/// a driver, and nothing else waits for it. Stores ask it.
#[must_use]
pub fn may_block() -> bool {
    MAY_BLOCK.get()
}

/// Runs `work`, and lets stores that are called in it [block](may_block) this thread.
///
/// [`Driver::run_on_thread`] does this. It is for apps whose transport needs an async runtime around it:
///
/// ```
/// # use syncline::{Driver, Storage};
/// # fn example<S: Storage>(driver: Driver<S>, block_on: impl FnOnce(futures::future::BoxFuture<'static, ()>) + Send + 'static) {
/// // `block_on` of a runtime that is the driver's alone, such as `tokio::runtime::Builder::new_current_thread()`.
/// std::thread::spawn(move || syncline::blocking(|| block_on(Box::pin(async { drop(driver.run().await) }))));
/// # }
/// ```
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            MAY_BLOCK.set(self.0);
        }
    }
    let _before = Before(MAY_BLOCK.replace(true));
    work()
}

impl<S: Storage> Driver<S> {
    /// Runs the driver on a thread of its own instead of spawning [`run`](Driver::run). It works on any runtime, and
    /// without one.
    ///
    /// The store then writes on that thread, which spares a single caller two changes of threads for each commit. While it
    /// writes, frames of peers wait. The thread has no async runtime around it: a transport that needs one must bring its own, or see
    /// [`blocking`].
    ///
    /// # Errors
    /// The error of the system if it cannot start a thread. The driver is dropped.
    pub fn run_on_thread(self) -> io::Result<DriverThread> {
        let (ends, ended) = oneshot::channel();
        let run = move || {
            let result = blocking(|| block_on(self.run()));
            // The app may not wait for the end.
            drop(ends.send(result));
        };
        Builder::new().name("syncline-driver".into()).spawn(run)?;
        Ok(DriverThread(ended))
    }
}

/// The end of a driver that runs [on its own thread](Driver::run_on_thread): a future of what
/// [`run`](Driver::run) returns. Dropping it does not stop the driver; a
/// [shutdown](crate::TransactionManager::shutdown), or dropping the last manager, does.
#[derive(Debug)]
#[must_use = "it is how the app hears that its replica has stopped"]
pub struct DriverThread(oneshot::Receiver<Result<(), StopReason>>);

impl DriverThread {
    /// Blocks until the driver has ended. Its store is closed then.
    ///
    /// # Errors
    /// As [`run`](Driver::run); [`StopReason::DriverDropped`] if the driver panicked.
    pub fn join(self) -> Result<(), StopReason> {
        block_on(self)
    }
}

impl Future for DriverThread {
    type Output = Result<(), StopReason>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The sender is dropped without a word only if the thread panicked, which dropped the driver.
        Pin::new(&mut self.0).poll(cx).map(|ended| ended.unwrap_or(Err(StopReason::DriverDropped)))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_may_block_while_it_does_blocking_work() {
        assert!(!may_block());
        blocking(|| {
            assert!(may_block());
            blocking(|| assert!(may_block()));
            assert!(may_block(), "the outer work goes on");
            assert!(!thread::spawn(may_block).join().unwrap(), "another thread may not");
        });
        assert!(!may_block());
        catch_unwind(AssertUnwindSafe(|| blocking(|| panic!("the work fails")))).unwrap_err();
        assert!(!may_block(), "after a panic too");
    }
}
