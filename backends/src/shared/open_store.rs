//! An open store: its engine, the thread that writes to it, and the scans that still read it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use syncline::{Panicked, ReadError, ScanLimit, ScanPage, Visitor, Worker, WriteError};

use super::closing::{AwaitClosed, Closing, StillOpen};
use super::errors::{NotRead, NotWritten};
use super::health::{Failed, Health};
use super::show::Show;
use crate::OpenStoreError;

/// The handle of an open store. Dropping it closes the engine before it returns.
#[derive(Debug)]
pub(crate) struct OpenStore<E> {
    // Fields are dropped in this order: `writer` waits for the writes that were sent, `shared` gives up this handle's
    // part of the engine, and `_closed` waits for the scans that still read it.
    writer: Worker,
    shared: Arc<Shared<E>>,
    _closed: AwaitClosed,
}

/// The part that the handle shares with the write and the scans in progress. The last of them closes the engine.
#[derive(Debug)]
pub(crate) struct Shared<E> {
    /// `None` only inside `drop`, which takes the engine out to close it.
    engine: Option<E>,
    health: Health,
    closing: Closing,
    /// Dropped after the engine, so that [`AwaitClosed`] ends only once the engine is closed.
    _open: StillOpen,
}

/// The longest scan that runs on the caller's thread, as point reads do. A page of `list` is that long.
///
/// To hand a scan to another thread and back, and to free on one thread what the other one allocated, costs as much as
/// a scan of this length.
const SCAN_INLINE_ENTRIES_MAX: usize = 256;
/// The same in bytes.
const SCAN_INLINE_BYTES_MAX: usize = 4 << 20;

impl<E: Send + Sync + 'static> OpenStore<E> {
    /// Opens the store at `path` on `engine`, and starts its writing thread under the name `thread`.
    pub(crate) fn start(thread: &str, path: &Path, engine: E) -> Result<Self, OpenStoreError> {
        Self::start_with(path, engine, |_| Worker::start(thread))
    }

    /// As [`start`](Self::start); the writing thread does `idle` once no write has come for so long.
    pub(crate) fn start_idling(
        thread: &str,
        path: &Path,
        engine: E,
        after: Duration,
        mut idle: impl FnMut(&E) + Send + 'static,
    ) -> Result<Self, OpenStoreError> {
        Self::start_with(path, engine, |shared| {
            // Weak, so that the thread does not keep the engine open.
            let shared = Arc::downgrade(shared);
            let work = move || {
                if let Some(shared) = shared.upgrade()
                    && let Ok(engine) = shared.engine()
                {
                    idle(engine);
                }
            };
            Worker::start_idling(thread, after, work)
        })
    }

    fn start_with(
        path: &Path,
        engine: E,
        worker: impl FnOnce(&Arc<Shared<E>>) -> io::Result<Worker>,
    ) -> Result<Self, OpenStoreError> {
        let (open, closed) = AwaitClosed::new();
        let shared = Shared {
            engine: Some(engine),
            health: Health::new(path),
            closing: Closing::default(),
            _open: open,
        };
        let shared = Arc::new(shared);
        let writer = worker(&shared).map_err(|error| OpenStoreError::io(path, error))?;
        Ok(Self { writer, shared, _closed: closed })
    }

    /// Runs `work`, a read, on the caller's thread.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&E) -> Result<T, NotRead>) -> Result<T, ReadError> {
        self.shared.read(work)
    }

    /// Runs `work`, a visit, on the caller's thread.
    pub(crate) fn visit(
        &self,
        limit: ScanLimit,
        each: Visitor<'_>,
        work: impl FnOnce(&E, &mut Show<'_>, &Closing) -> Result<bool, NotRead>,
    ) -> Result<bool, ReadError> {
        let mut show = Show::new(limit, each);
        let more = self.shared.read(|engine| work(engine, &mut show, &self.shared.closing));
        show.end();
        more
    }

    /// Runs `work`, a scan: on the caller's thread if `limit` makes it short, on the `blocking` pool otherwise.
    pub(crate) async fn scan<W>(&self, limit: ScanLimit, work: W) -> Result<ScanPage, ReadError>
    where
        W: FnOnce(&Shared<E>) -> Result<ScanPage, ReadError> + Send + 'static,
    {
        let is_short = limit.entries <= SCAN_INLINE_ENTRIES_MAX && limit.bytes <= SCAN_INLINE_BYTES_MAX;
        if is_short || syncline::may_block() {
            return work(&self.shared);
        }
        let shared = Arc::clone(&self.shared);
        blocking::unblock(move || work(&shared)).await
    }

    /// Sends `work` to the writing thread at once, where it runs to its end even if the future is dropped.
    pub(crate) fn write<W>(&self, work: W) -> impl Future<Output = Result<(), WriteError>> + use<E, W>
    where
        W: FnOnce(&Shared<E>) -> Result<(), WriteError> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let outcome = self.writer.run(move || work(&shared));
        async { outcome.await.unwrap_or_else(|panicked| Err(WriteError::unknown(panicked))) }
    }

    /// Sends `work` to the writing thread, behind the writes that were sent. No caller waits for it.
    pub(crate) fn tidy(&self, work: impl FnOnce() + Send + 'static) {
        drop(self.writer.run(work));
    }

    pub(crate) fn location(&self) -> String {
        self.shared.health.location().to_owned()
    }
}

impl<E> Drop for OpenStore<E> {
    fn drop(&mut self) {
        self.shared.closing.begin();
    }
}

impl<E> Shared<E> {
    pub(crate) const fn closing(&self) -> &Closing {
        &self.closing
    }

    /// Runs `work`, a read, unless the store has failed.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&E) -> Result<T, NotRead>) -> Result<T, ReadError> {
        let engine = self.engine().map_err(ReadError::new)?;
        let done = Panicked::catch(|| work(engine))
            .map_err(|panicked| ReadError::new(self.health.fail(&panicked)))?;
        done.map_err(|error| match error {
            // Does not end the store: the writes that were sent before it was dropped still have to run.
            NotRead::Closing => ReadError::new(self.health.failed("it is being closed")),
            NotRead::Failed(error) => ReadError(error),
            NotRead::InDoubt(error) => ReadError::new(self.health.fail(&error)),
        })
    }

    /// Runs `work`, a write, unless the store has failed. Only the writing thread calls this.
    pub(crate) fn write(&self, work: impl FnOnce(&E) -> Result<(), NotWritten>) -> Result<(), WriteError> {
        let engine = self.engine().map_err(WriteError::unknown)?;
        let doubt = self.health.doubt();
        let outcome = work(engine);
        doubt.lift();
        outcome.map_err(|error| match error {
            NotWritten::Rejected(error) => WriteError::Rejected(error),
            NotWritten::InDoubt(error) => WriteError::unknown(self.health.fail(&error)),
        })
    }

    fn engine(&self) -> Result<&E, Failed> {
        self.health.check()?;
        self.engine.as_ref().ok_or_else(|| self.health.failed("it is being closed"))
    }
}

impl<E> Drop for Shared<E> {
    fn drop(&mut self) {
        let engine = self.engine.take();
        // Closing an engine writes what makes the next opening faster, and may fail or, after a failure, panic. That
        // loses nothing: every write was durable when it was acknowledged, and the next opening repairs the rest.
        drop(Panicked::catch(move || drop(engine)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use futures::FutureExt as _;

    use super::*;

    /// An engine that says that it is closed.
    #[derive(Debug)]
    struct Engine(Arc<AtomicBool>);

    impl Drop for Engine {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// Goal: dropping a store lasts until its engine is closed, and not as long as a scan that nobody waits for. Method: a
    /// scan that runs until the store closes, or has given up its part of the engine without closing.
    #[test]
    fn a_dropped_store_ends_its_scans_and_waits_for_their_end() {
        let closed = Arc::new(AtomicBool::new(false));
        let engine = Engine(Arc::clone(&closed));
        let store = OpenStore::start("a store", Path::new("a store"), engine).unwrap();
        let (begins, begun) = mpsc::channel();
        let (tells, told) = mpsc::channel();
        let shared = Arc::clone(&store.shared);
        let work = move |of_scan: &Shared<Engine>| {
            begins.send(()).unwrap();
            // The scan has one handle, and this closure another.
            while !of_scan.closing().has_begun() && Arc::strong_count(&shared) > 2 {
                std::thread::yield_now();
            }
            tells.send(of_scan.closing().has_begun()).unwrap();
            // Time for the store to be gone too early, if it would.
            (0..10_000).for_each(|_| std::thread::yield_now());
            Ok(ScanPage::default())
        };
        {
            let mut scan = Box::pin(store.scan(ScanLimit::NONE, work));
            assert!(scan.as_mut().now_or_never().is_none());
            begun.recv().unwrap();
        }
        drop(store);
        assert!(closed.load(Ordering::SeqCst), "the engine is still open");
        assert_eq!(told.recv(), Ok(true), "the scan is told to end");
    }
}
