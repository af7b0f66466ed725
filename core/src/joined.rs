//! Joined writes: a commit that is read, decided and written inside one native transaction of the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::engine::{self, Commit, Decision, Pen, Received};
use crate::error::{Error, StopReason};
use crate::ids::ReplicaId;
use crate::inside;
use crate::join::{JoinJob, JoinStorage, JoinTx, StatementError, TransactionEnded};
use crate::projection::Projections;
use crate::storage::{BoxError, Key, ReadError, Value, WriteBatch, WriteError};

/// Runs the app's code inside a joined write. A panic becomes an error, since the driver must outlive it.
pub(crate) fn inside<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    inside_of(None, work)
}

/// As [`inside`], for the replica `me`, if it is known.
fn inside_of<T>(me: Option<ReplicaId>, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let _inside = inside::enter(me);
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::from_panic(&*panic)))
}

/// A joined write, for the driver to perform when its turn comes.
pub(crate) type Work<S> =
    Box<dyn for<'a> FnOnce(&'a S, Pen) -> BoxFuture<'a, Result<Joined, StopReason>> + Send>;

/// The end of a joined write: durable, with the pen as the write left it and the decision; or certainly undone.
pub(crate) type Joined = Result<Box<(Pen, Decision)>, Error>;

/// Returns the joined write that commits the changes that `stage` stages in the transaction, and projects them.
pub(crate) fn work<S: JoinStorage>(
    stage: impl FnOnce(&S::Tx<'_>) -> Result<Commit, Error> + Send + 'static,
    projections: Option<Arc<Projections<S>>>,
) -> Work<S> {
    Box::new(move |store, pen| {
        in_transaction(store, Some(pen.me()), move |tx| {
            let commit = stage(tx)?;
            perform(tx, projections.as_deref(), pen, commit)
        })
    })
}

/// Returns the joined write that applies commits of others, and projects them.
pub(crate) fn receive<S: JoinStorage>(
    mut commits: Vec<Received>,
    projections: Arc<Projections<S>>,
) -> Work<S> {
    Box::new(move |store, mut pen| {
        in_transaction(store, Some(pen.me()), move |tx| {
            let keys = engine::lend_keys(&mut commits);
            let values = read(tx, &keys)?;
            engine::take_keys_back(&mut commits, keys);
            let mut decision = pen.receive(&commits, values)?;
            apply(tx, Some(&*projections), &std::mem::take(&mut decision.batch))?;
            Ok(Box::new((pen, decision)))
        })
    })
}

/// Writes `batch` and projects it. The inner result is durable, or certainly undone.
pub(crate) fn write<S: JoinStorage>(
    store: &S,
    batch: WriteBatch,
    projections: Arc<Projections<S>>,
) -> BoxFuture<'_, Result<Result<(), Error>, StopReason>> {
    in_transaction(store, None, move |tx| apply(tx, Some(&*projections), &batch))
}

/// Runs `job` in a native transaction of the store, for the replica `me` if it is known. The transaction commits if the
/// job succeeds.
fn in_transaction<S: JoinStorage, T: Send + 'static>(
    store: &S,
    me: Option<ReplicaId>,
    job: impl FnOnce(&S::Tx<'_>) -> Result<T, Error> + Send + 'static,
) -> BoxFuture<'_, Result<Result<T, Error>, StopReason>> {
    async move {
        let slot = Arc::new(Mutex::new(None));
        let fill = Arc::clone(&slot);
        let job: JoinJob<S> = Box::new(move |tx| {
            let outcome = inside_of(me, || job(tx));
            let result = match &outcome {
                Ok(_) => Ok(()),
                Err(error) => Err(BoxError::from(error.to_string())),
            };
            *fill.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            result
        });
        let joined = store.join(job).await;
        let outcome = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        match joined {
            Ok(()) => match outcome {
                Some(Ok(done)) => Ok(Ok(done)),
                _ => Err(StopReason::Unknown(Arc::from(BoxError::from(COMMITTED_A_FAILURE)))),
            },
            Err(WriteError::Rejected(error)) if error.is::<TransactionEnded>() => {
                Ok(Err(TransactionEnded.into()))
            }
            Err(WriteError::Rejected(error)) => match (error.downcast::<StatementError>(), outcome) {
                (Ok(error), _) => Ok(Err(Error::Statement(*error))),
                (Err(_), Some(Err(own))) => Ok(Err(own)),
                (Err(error), _) => Ok(Err(Error::Rejected(Arc::from(error)))),
            },
            Err(WriteError::Unknown(error)) => Err(StopReason::Unknown(Arc::from(error))),
            Err(WriteError::Fenced) => Err(StopReason::Fenced),
        }
    }
    .boxed()
}

/// The reason to stop if a store commits a job that failed, or that it never ran: it has lost track of its writes.
const COMMITTED_A_FAILURE: &str = "the store committed a joined write whose job had failed";

fn perform<S: JoinStorage>(
    tx: &S::Tx<'_>,
    projections: Option<&Projections<S>>,
    mut pen: Pen,
    mut commit: Commit,
) -> Joined {
    let keys: Vec<Key> = commit.changes.iter_mut().map(|change| change.record.lend()).collect();
    let values = read(tx, &keys)?;
    commit.changes.iter_mut().zip(keys).for_each(|(change, key)| change.record.take_back(key));
    let mut decision = pen.decide_alone(commit, values)?;
    apply(tx, projections, &std::mem::take(&mut decision.batch))?;
    Ok(Box::new((pen, decision)))
}

fn read(tx: &impl JoinTx, keys: &[Key]) -> Result<Vec<Option<Value>>, Error> {
    let values = tx.get_many(keys)?;
    if values.len() != keys.len() {
        return Err(ReadError::new(format!("{} values for {} keys", values.len(), keys.len())).into());
    }
    Ok(values)
}

/// Writes a batch into the transaction, and projects it.
fn apply<S: JoinStorage>(
    tx: &S::Tx<'_>,
    projections: Option<&Projections<S>>,
    batch: &WriteBatch,
) -> Result<(), Error> {
    if !batch.is_empty() {
        tx.apply(batch).map_err(|error| Error::Rejected(Arc::from(error)))?;
        if let Some(projections) = projections {
            projections.project(tx, batch)?;
        }
    }
    Ok(())
}
