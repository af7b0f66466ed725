//! Records the operations of a store in order, by which a test shows that nothing is told before it is durable.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use syncline::{
    JoinJob, JoinStorage, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, StoreLimits, Value,
    WriteBatch, WriteError,
};

/// One line of a [`Trace`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceEvent {
    /// An operation began.
    Started {
        /// The number of the operation; they are counted from zero.
        operation: u64,
        /// What the caller asked for.
        request: Request,
    },
    /// An operation ended.
    Ended {
        /// The number of the operation.
        operation: u64,
        /// How it ended.
        outcome: TraceOutcome,
    },
    /// Something that the test saw outside the store, such as a reply.
    Mark(String),
}

/// What a caller asked of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `get_many` of these keys.
    GetMany(Vec<Key>),
    /// `scan` of this range, up to this limit.
    Scan(KeyRange, ScanLimit),
    /// `write` of this batch.
    Write(WriteBatch),
    /// `join` of a job. What the job does inside its transaction is not recorded.
    Join,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceOutcome {
    /// With `Ok`.
    Ok,
    /// With a [`ReadError`].
    ReadError,
    /// With [`WriteError::Rejected`].
    Rejected,
    /// With [`WriteError::TooLarge`].
    TooLarge,
    /// With [`WriteError::Unknown`].
    Unknown,
    /// With [`WriteError::Fenced`].
    Fenced,
    /// Its future was dropped, or panicked.
    Dropped,
}

/// The operations of a [`Recording`] store, in order. Clones share one trace, and it outlives the store.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Vec<TraceEvent>>>);

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mark, which shows where among the operations something else has happened.
    pub fn mark(&self, what: impl Into<String>) {
        self.lines().push(TraceEvent::Mark(what.into()));
    }

    /// Returns all lines so far.
    #[must_use]
    pub fn events(&self) -> Vec<TraceEvent> {
        self.lines().clone()
    }

    /// Returns all lines so far and removes them. The numbers of the operations go on.
    #[must_use]
    pub fn take(&self) -> Vec<TraceEvent> {
        std::mem::take(&mut *self.lines())
    }

    /// Returns the batches whose writes returned `Ok`, in the order in which they did; joined writes are left out. If
    /// `before` names a mark, only those that had returned when this mark was first made.
    #[must_use]
    pub fn written(&self, before: Option<&str>) -> Vec<WriteBatch> {
        let events = self.events();
        let end = before.and_then(|mark| {
            events.iter().position(|event| matches!(event, TraceEvent::Mark(made) if made == mark))
        });
        let events = &events[..end.unwrap_or(events.len())];
        let batch_of = |number: u64| {
            events.iter().find_map(|event| match event {
                TraceEvent::Started { operation, request: Request::Write(batch) } if *operation == number => {
                    Some(batch.clone())
                }
                _ => None,
            })
        };
        events
            .iter()
            .filter_map(|event| match event {
                TraceEvent::Ended { operation, outcome: TraceOutcome::Ok } => batch_of(*operation),
                _ => None,
            })
            .collect()
    }

    /// Whether a write, joined or not, ever started while another one ran, which is against the contract of a caller.
    #[must_use]
    pub fn writes_overlap(&self) -> bool {
        let mut running = None;
        for event in self.events() {
            match event {
                TraceEvent::Started { request: Request::Write(_) | Request::Join, .. }
                    if running.is_some() =>
                {
                    return true;
                }
                TraceEvent::Started { operation, request: Request::Write(_) | Request::Join } => {
                    running = Some(operation);
                }
                TraceEvent::Ended { operation, .. } if running == Some(operation) => running = None,
                _ => {}
            }
        }
        false
    }

    fn lines(&self) -> MutexGuard<'_, Vec<TraceEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store that adds every operation to a [`Trace`] and passes it on.
#[derive(Debug)]
pub struct Recording<S> {
    inner: S,
    trace: Trace,
    operations: Mutex<u64>,
}

impl<S: Storage> Recording<S> {
    /// Records the operations of `inner`.
    pub const fn new(inner: S, trace: Trace) -> Self {
        Self { inner, trace, operations: Mutex::new(0) }
    }

    fn start(&self, request: Request) -> Running<'_> {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = *operations;
        *operations += 1;
        // Add the line under the lock, so that the lines come in the order of their numbers.
        self.trace.lines().push(TraceEvent::Started { operation, request });
        Running { trace: &self.trace, operation, outcome: TraceOutcome::Dropped }
    }
}

/// An operation that has started. It adds its second line when it is dropped.
struct Running<'a> {
    trace: &'a Trace,
    operation: u64,
    outcome: TraceOutcome,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.trace.lines().push(TraceEvent::Ended { operation: self.operation, outcome: self.outcome });
    }
}

impl Running<'_> {
    fn end<T, E>(mut self, result: Result<T, E>, of_error: impl FnOnce(&E) -> TraceOutcome) -> Result<T, E> {
        self.outcome = result.as_ref().map_or_else(of_error, |_| TraceOutcome::Ok);
        result
    }
}

#[async_trait]
impl<S: Storage> Storage for Recording<S> {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let running = self.start(Request::GetMany(keys.to_vec()));
        running.end(self.inner.get_many(keys).await, |_| TraceOutcome::ReadError)
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let running = self.start(Request::Scan(range.clone(), limit));
        running.end(self.inner.scan(range, limit).await, |_| TraceOutcome::ReadError)
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let running = self.start(Request::Write(batch.clone()));
        running.end(self.inner.write(batch).await, outcome)
    }

    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

/// A joined write has two lines, as any other operation. What its job does has none.
#[async_trait]
impl<S: JoinStorage> JoinStorage for Recording<S> {
    type Tx<'t> = S::Tx<'t>;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        let running = self.start(Request::Join);
        running.end(self.inner.join(job).await, outcome)
    }

    async fn join_without_foreign_keys(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        let running = self.start(Request::Join);
        running.end(self.inner.join_without_foreign_keys(job).await, outcome)
    }

    async fn breaks_foreign_keys(&self) -> Result<bool, ReadError> {
        self.inner.breaks_foreign_keys().await
    }
}

const fn outcome(error: &WriteError) -> TraceOutcome {
    match error {
        WriteError::Rejected(_) => TraceOutcome::Rejected,
        WriteError::TooLarge(_) => TraceOutcome::TooLarge,
        WriteError::Unknown(_) => TraceOutcome::Unknown,
        WriteError::Fenced => TraceOutcome::Fenced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disk, Fixture as _, block_on, interleave, poll_at_most};

    fn put(key: &[u8]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(key, *b"");
        batch
    }

    fn recording() -> (Recording<crate::Reference>, Trace) {
        let trace = Trace::new();
        (Recording::new(block_on(Disk::new().open()).unwrap(), trace.clone()), trace)
    }

    #[test]
    fn a_trace_has_starts_ends_and_marks_in_order() {
        let (store, trace) = recording();
        block_on(store.write(put(b"a"))).unwrap();
        trace.mark("reply");
        assert_eq!(poll_at_most(1, store.write(put(b"b"))).map(|result| result.is_ok()), None);
        block_on(store.write(put(b"c"))).unwrap();
        assert_eq!(trace.written(Some("reply")), [put(b"a")]);
        assert_eq!(trace.written(None), [put(b"a"), put(b"c")]);
        assert!(!trace.writes_overlap());
        assert_eq!(
            trace.take()[2..5],
            [
                TraceEvent::Mark("reply".into()),
                TraceEvent::Started { operation: 1, request: Request::Write(put(b"b")) },
                TraceEvent::Ended { operation: 1, outcome: TraceOutcome::Dropped },
            ]
        );
    }

    #[test]
    fn overlapping_writes_are_seen() {
        let (store, trace) = recording();
        let (first, second, overlapped) = interleave(1, store.write(put(b"a")), store.write(put(b"b")));
        assert!(first.is_ok() && second.is_ok() && overlapped);
        assert!(trace.writes_overlap());

        let (store, trace) = recording();
        block_on(store.join(Box::new(|_| Ok(())))).unwrap();
        assert!(!trace.writes_overlap() && trace.written(None).is_empty());
        let (first, second, overlapped) =
            interleave(1, store.join(Box::new(|_| Ok(()))), store.write(put(b"b")));
        assert!(first.is_ok() && second.is_ok() && overlapped);
        assert!(trace.writes_overlap());
    }
}
