//! A store whose writes or reads wait until a test lets them through.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use syncline::{
    JoinJob, JoinStorage, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, StoreLimits, Value,
    Visitor, WriteBatch, WriteError,
};

/// The handle that opens and closes a [`Gated`] store. Clones share one gate, which starts open.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: Vec<Waker>,
    passed: u64,
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes operations wait from now on.
    pub fn close(&self) {
        self.state().closed = true;
    }

    /// Lets operations through, also those that wait.
    pub fn open(&self) {
        let mut state = self.state();
        state.closed = false;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// How many operations have passed.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.state().passed
    }

    async fn pass(&self) {
        poll_fn(|context| {
            let mut state = self.state();
            if state.closed {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            state.passed += 1;
            Poll::Ready(())
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store whose operations of one kind wait at a [`Gate`] before they begin. The others pass.
#[derive(Debug)]
pub struct Gated<S> {
    inner: S,
    gate: Gate,
    reads: bool,
}

impl<S: Storage> Gated<S> {
    /// Puts `gate` before the writes of `inner`.
    pub const fn writes(inner: S, gate: Gate) -> Self {
        Self { inner, gate, reads: false }
    }

    /// Puts `gate` before the reads of `inner`.
    pub const fn reads(inner: S, gate: Gate) -> Self {
        Self { inner, gate, reads: true }
    }

    async fn pass(&self, read: bool) {
        if read == self.reads {
            self.gate.pass().await;
        }
    }
}

#[async_trait]
impl<S: Storage> Storage for Gated<S> {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.pass(true).await;
        self.inner.get_many(keys).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        self.pass(true).await;
        self.inner.scan(range, limit).await
    }

    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        self.pass(true).await;
        self.inner.visit(range, limit, each).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        self.pass(false).await;
        self.inner.write(batch).await
    }

    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

/// A joined write is a write: it waits before its job runs. The reads of the job inside the transaction do not wait.
#[async_trait]
impl<S: JoinStorage> JoinStorage for Gated<S> {
    type Tx<'t> = S::Tx<'t>;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        self.pass(false).await;
        self.inner.join(job).await
    }

    async fn join_without_foreign_keys(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        self.pass(false).await;
        self.inner.join_without_foreign_keys(job).await
    }

    async fn breaks_foreign_keys(&self) -> Result<bool, ReadError> {
        self.inner.breaks_foreign_keys().await
    }
}
