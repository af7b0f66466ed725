//! A store that fails when its [`Faults`] say so.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use syncline::{
    JoinJob, JoinStorage, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, StoreLimits, Value,
    Visitor, WriteBatch, WriteError,
};

use super::{FaultKind, Faults, Operation};
use crate::panic_quietly;

/// A store that fails as its [`Faults`] say, and otherwise passes everything on.
///
/// After an unknown outcome or a panic it refuses everything, as real stores do. A new one over the reopened store
/// works again, with the same [`Faults`].
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
    stopped: AtomicBool,
    fenced: AtomicBool,
}

impl<S: Storage> Faulty<S> {
    /// Puts `faults` before `inner`.
    pub const fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults, stopped: AtomicBool::new(false), fenced: AtomicBool::new(false) }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn stop_and_panic(&self, when: &str) -> ! {
        self.stop();
        panic_quietly(format!("injected panic {when} the operation"));
    }

    /// How the next write must fail, unless the store has stopped already.
    fn next_write(&self, operation: Operation) -> Result<Option<FaultKind>, WriteError> {
        if self.has_stopped() {
            return Err(WriteError::unknown("the store stopped after an injected fault, reopen it"));
        }
        if self.fenced.load(Ordering::SeqCst) {
            return Err(WriteError::Fenced);
        }
        Ok(self.faults.next(operation))
    }

    fn fence(&self) -> Result<(), WriteError> {
        self.fenced.store(true, Ordering::SeqCst);
        Err(WriteError::Fenced)
    }

    async fn read<T>(&self, read: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
        if self.has_stopped() {
            return Err(ReadError::new("the store stopped after an injected fault, reopen it"));
        }
        match self.faults.next(Operation::Read) {
            Some(FaultKind::ReadError) => Err(ReadError::new("injected read error")),
            Some(FaultKind::PanicBefore) => self.stop_and_panic("before"),
            Some(FaultKind::PanicAfter) => {
                drop(read.await);
                self.stop_and_panic("after")
            }
            _ => read.await,
        }
    }
}

#[async_trait]
impl<S: Storage> Storage for Faulty<S> {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.read(self.inner.get_many(keys)).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        self.read(self.inner.scan(range, limit)).await
    }

    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        self.read(self.inner.visit(range, limit, each)).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        match self.next_write(Operation::Write)? {
            None | Some(FaultKind::ReadError | FaultKind::Undone) => self.inner.write(batch).await,
            Some(FaultKind::Rejected) => Err(WriteError::rejected("injected rejection")),
            Some(FaultKind::UnknownApplied) => {
                self.inner.write(batch).await?;
                self.stop();
                Err(WriteError::unknown("injected, and the write was applied"))
            }
            Some(FaultKind::UnknownLost) => {
                self.stop();
                Err(WriteError::unknown("injected, and the write was not applied"))
            }
            Some(FaultKind::PanicBefore) => self.stop_and_panic("before"),
            Some(FaultKind::PanicAfter) => {
                self.inner.write(batch).await?;
                self.stop_and_panic("after")
            }
            Some(FaultKind::Fenced) => self.fence(),
        }
    }

    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    fn location(&self) -> String {
        format!("{}, with injected faults", self.inner.location())
    }
}

/// A joined write counts as a write. The reads of its job inside the transaction are neither counted nor made to fail:
/// that takes [`break_medium`](crate::Fixture::break_medium). If the job itself fails, its error is returned instead of
/// that of the fault.
#[async_trait]
impl<S: JoinStorage> JoinStorage for Faulty<S> {
    type Tx<'t> = S::Tx<'t>;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        self.join_by(job, true).await
    }

    async fn join_without_foreign_keys(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        self.join_by(job, false).await
    }

    async fn breaks_foreign_keys(&self) -> Result<bool, ReadError> {
        self.inner.breaks_foreign_keys().await
    }
}

impl<S: JoinStorage> Faulty<S> {
    async fn join_by(&self, job: JoinJob<Self>, foreign_keys: bool) -> Result<(), WriteError> {
        let join = async |job| match foreign_keys {
            true => self.inner.join(job).await,
            false => self.inner.join_without_foreign_keys(job).await,
        };
        match self.next_write(Operation::Join)? {
            None | Some(FaultKind::ReadError) => join(job).await,
            Some(FaultKind::Rejected) => Err(WriteError::rejected("injected rejection")),
            Some(FaultKind::Undone) => join(undone::<S>(job)).await,
            Some(FaultKind::UnknownApplied) => {
                join(job).await?;
                self.stop();
                Err(WriteError::unknown("injected, and the join was applied"))
            }
            Some(FaultKind::UnknownLost) => match join(undone::<S>(job)).await {
                Err(WriteError::Rejected(error)) if error.is::<Undone>() => {
                    self.stop();
                    Err(WriteError::unknown("injected, and the join was undone"))
                }
                other => other,
            },
            Some(FaultKind::PanicBefore) => self.stop_and_panic("before"),
            Some(FaultKind::PanicAfter) => {
                join(job).await?;
                self.stop_and_panic("after")
            }
            Some(FaultKind::Fenced) => self.fence(),
        }
    }
}

/// Runs `job`, and fails if that has succeeded, so that the store undoes it.
fn undone<S: JoinStorage>(job: JoinJob<S>) -> JoinJob<S> {
    Box::new(move |tx| {
        job(tx)?;
        Err(Undone.into())
    })
}

/// The error of an [`undone`] job.
#[derive(Debug)]
struct Undone;

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("injected rejection after the job")
    }
}

impl std::error::Error for Undone {}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::{Arc, Mutex};

    use futures::FutureExt as _;
    use syncline::JoinTx as _;

    use super::*;
    use crate::{Disk, Fault, Fixture as _, block_on};

    fn put(key: &[u8]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(key, *b"");
        batch
    }

    async fn has(store: &impl Storage, key: &[u8]) -> bool {
        store.get_many(&[key.to_vec()]).await.unwrap()[0].is_some()
    }

    #[test]
    fn each_fault_applies_the_write_or_not_as_it_says() {
        for (kind, applied, goes_on) in [
            (FaultKind::Rejected, false, true),
            (FaultKind::UnknownApplied, true, false),
            (FaultKind::UnknownLost, false, false),
            (FaultKind::PanicBefore, false, false),
            (FaultKind::PanicAfter, true, false),
            (FaultKind::Fenced, false, false),
        ] {
            block_on(async {
                let (disk, faults) = (Disk::new(), Faults::new());
                let store = Faulty::new(disk.open().await.unwrap(), faults.clone());
                faults.arm(Fault::once(1, kind));
                store.write(put(b"before")).await.unwrap();
                let failed = AssertUnwindSafe(store.write(put(b"failed"))).catch_unwind().await;
                assert!(!matches!(failed, Ok(Ok(()))) && faults.fired(), "{kind:?}");
                assert_eq!(store.write(put(b"later")).await.is_ok(), goes_on, "{kind:?}");

                drop(store);
                let store = Faulty::new(disk.open().await.unwrap(), faults.clone());
                assert!(has(&store, b"before").await, "{kind:?}");
                assert_eq!(has(&store, b"failed").await, applied, "{kind:?}");
                assert_eq!(has(&store, b"later").await, goes_on, "{kind:?}");
                store.write(put(b"reopened")).await.unwrap();
            });
        }
    }

    #[test]
    fn each_fault_makes_the_join_or_not_as_it_says() {
        for (kind, applied, goes_on, runs) in [
            (FaultKind::Rejected, false, true, 0),
            (FaultKind::Undone, false, true, 1),
            (FaultKind::UnknownApplied, true, false, 1),
            (FaultKind::UnknownLost, false, false, 1),
            (FaultKind::PanicBefore, false, false, 0),
            (FaultKind::PanicAfter, true, false, 1),
            (FaultKind::Fenced, false, false, 0),
        ] {
            block_on(async {
                let (disk, faults) = (Disk::new(), Faults::new());
                let store = Faulty::new(disk.open().await.unwrap(), faults.clone());
                faults.arm(Fault::once(0, kind));
                let ran = Arc::new(Mutex::new(0));
                let count = Arc::clone(&ran);
                let job: JoinJob<crate::Reference> = Box::new(move |tx| {
                    *count.lock().unwrap() += 1;
                    tx.native().put(1, "row")?;
                    tx.apply(&put(b"joined"))
                });
                let failed = AssertUnwindSafe(store.join(job)).catch_unwind().await;
                assert!(!matches!(failed, Ok(Ok(()))) && faults.fired(), "{kind:?}");
                assert_eq!(store.join(Box::new(|_| Ok(()))).await.is_ok(), goes_on, "{kind:?}");
                assert_eq!((*ran.lock().unwrap(), faults.writes()), (runs, if goes_on { 2 } else { 1 }));
                drop(store);
                let store = disk.open().await.unwrap();
                assert_eq!(has(&store, b"joined").await, applied, "{kind:?}");
            });
        }
    }

    #[test]
    fn a_sticky_fault_goes_on_and_other_operations_do_not_count() {
        block_on(async {
            let faults = Faults::new();
            let store = Faulty::new(Disk::new().open().await.unwrap(), faults.clone());
            faults.arm(Fault::sticky(1, FaultKind::ReadError));
            let mut read = Vec::new();
            for _ in 0..3 {
                read.push(store.get_many(&[]).await.is_ok());
                store.write(WriteBatch::new()).await.unwrap();
            }
            assert_eq!(read, [true, false, false]);
            assert_eq!((faults.reads(), faults.writes(), faults.operations()), (3, 3, 6));
            faults.disarm();
            assert!(store.scan(KeyRange::all(), ScanLimit::entries(1)).await.is_ok() && !faults.fired());
        });
    }

    #[test]
    fn wrappers_take_any_store_behind_a_pointer() {
        let store: Arc<dyn Storage> = Arc::new(block_on(Disk::new().open()).unwrap());
        let store: Arc<dyn Storage> = Arc::new(Faulty::new(store, Faults::new()));
        block_on(store.write(put(b"key"))).unwrap();
    }
}
