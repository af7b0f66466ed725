//! Joined writes: commits that are read, decided and written inside one native transaction of the store.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::engine::{self, Commit, Decision, Pen, Received, Ticket};
use crate::error::{Error, StopReason};
use crate::ids::ReplicaId;
use crate::inside;
use crate::join::{Attempt, JoinJob, JoinStorage, JoinTx, StatementError, TransactionEnded};
use crate::projection::{Account, Manner, Projections, PutOff, Settled, Settlement};
use crate::storage::{BoxError, GET_KEYS_MAX, Key, ReadError, Value, WriteBatch, WriteError};
use crate::stored::{FormatError, record};

/// Runs the app's code inside a joined write of the replica `me`, if it is known. A panic becomes an error, since the
/// driver must outlive it.
fn inside<T>(me: Option<ReplicaId>, work: impl FnOnce() -> Result<T, Halt>) -> Result<T, Halt> {
    let _inside = inside::enter(me);
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::from_panic(&*panic).into()))
}

/// A joined write, for the driver to perform when its turn comes.
pub(crate) type Work<S> =
    Box<dyn for<'a> FnOnce(&'a S, Pen) -> BoxFuture<'a, Result<Joined, StopReason>> + Send>;

/// The end of a joined write: durable, with the pen as the write left it and the decision; or certainly undone.
pub(crate) type Joined = Result<Box<(Pen, Decision)>, Undone>;

/// Why a joined write is undone, for those who wait for it.
#[derive(Debug)]
pub(crate) enum Undone {
    /// The write failed for all of them.
    All(Error),
    /// One of several commits failed, and nobody knows which: each alone may be made.
    OneOf(Error),
}

impl From<Halt> for Undone {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::NotCommitted(_) | Halt::Spoiled { .. } => Self::OneOf(halt.into()),
            Halt::Error(error) => Self::All(error),
        }
    }
}

/// Why a joined write was undone.
#[derive(Debug)]
pub(crate) enum Halt {
    Error(Error),
    /// The job succeeded, and the store refused its transaction: a constraint that is checked at the end, perhaps.
    NotCommitted(BoxError),
    /// A projection did not take a record, and what it had done could not be undone alone.
    Spoiled {
        at: usize,
        record: Key,
        error: Error,
    },
}

impl From<Halt> for Error {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Error(error) | Halt::Spoiled { error, .. } => error,
            Halt::NotCommitted(error) if error.is::<TransactionEnded>() => TransactionEnded.into(),
            Halt::NotCommitted(error) => match error.downcast::<StatementError>() {
                Ok(error) => Self::Statement(*error),
                Err(error) => Self::Rejected(error.into()),
            },
        }
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<FormatError> for Halt {
    fn from(error: FormatError) -> Self {
        Self::Error(error.into())
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) | Self::Spoiled { error, .. } => error.fmt(f),
            Self::NotCommitted(error) => error.fmt(f),
        }
    }
}

/// Returns the joined write that commits the changes that `stage` stages in the transaction, and projects them.
pub(crate) fn work<S: JoinStorage>(
    stage: impl FnOnce(&S::Tx<'_>) -> Result<Commit, Error> + Send + 'static,
    projections: Option<Arc<Projections<S>>>,
) -> Work<S> {
    Box::new(move |store, mut pen| {
        let (all, me) = (projections.clone(), pen.me());
        let job = move |tx: &S::Tx<'_>| -> Result<_, Halt> {
            let mut commit = stage(tx)?;
            let keys: Vec<Key> = commit.changes.iter_mut().map(|change| change.record.lend()).collect();
            let values = read(tx, &keys)?;
            commit.changes.iter_mut().zip(keys).for_each(|(change, key)| change.record.take_back(key));
            let mut decision = pen.decide_alone(commit, values)?;
            let batch = std::mem::take(&mut decision.batch);
            let mut account = Account::default();
            apply(tx, &batch)?;
            let Some(all) = all else { return Ok((pen, decision, Settlement::default())) };
            all.project(tx, &batch.puts(), all.manner(), &PutOff::default(), &mut account)?;
            let settlement = account.close(tx, &all)?;
            Ok((pen, decision, settlement))
        };
        async move { Ok(ended(in_transaction(store, Some(me), job).await?, projections.as_deref())) }.boxed()
    })
}

/// Returns the joined write that commits a round of commits, and projects them. A commit that a projection refuses
/// fails alone, if the store can undo a part of a transaction; otherwise the whole round is undone.
pub(crate) fn round<S: JoinStorage>(
    mut round: Vec<(Ticket, Commit)>,
    projections: Arc<Projections<S>>,
) -> Work<S> {
    Box::new(move |store, pen| {
        async move {
            let (mut put_off, me) = (PutOff::default(), pen.me());
            loop {
                // A commit that is not refused is tried again without the calls that spoil it, as received ones are.
                let again = match (projections.manner(), round.as_slice()) {
                    (Manner::Owe, [(ticket, commit)]) => commit.copy().map(|commit| (*ticket, commit)),
                    _ => None,
                };
                let (all, pen, without) = (Arc::clone(&projections), pen.clone(), put_off.clone());
                let job = move |tx: &S::Tx<'_>| commit_round(tx, &all, pen, round, &without);
                let halt = match (in_transaction(store, Some(me), job).await?, &again) {
                    (Err(halt @ (Halt::NotCommitted(_) | Halt::Spoiled { .. })), Some(_)) => halt,
                    (done, _) => return Ok(ended(done, Some(&*projections))),
                };
                if let Err(error) = put_off.learn(halt) {
                    return Ok(Err(Undone::All(error)));
                }
                round = Vec::from_iter(again);
            }
        }
        .boxed()
    })
}

/// Commits a round in the transaction.
fn commit_round<S: JoinStorage>(
    tx: &S::Tx<'_>,
    projections: &Projections<S>,
    mut pen: Pen,
    mut round: Vec<(Ticket, Commit)>,
    put_off: &PutOff,
) -> Result<(Pen, Decision, Settlement), Halt> {
    let (keys, places) = engine::lend_keys(&mut round);
    let values = read(tx, &keys)?;
    engine::take_keys_back(&mut round, keys, &places);
    let (manner, is_alone) = (projections.manner(), round.len() == 1);
    let (mut account, mut spoiled) = (Account::default(), None);
    let mut project = |records: &[(&[u8], &[u8])]| -> Result<(), Error> {
        // What was not undone is in the transaction, so nothing more may be done there.
        if spoiled.is_some() {
            return Err(spoiled_round());
        }
        let (mut own, mut outcome) = (Account::default(), Ok(()));
        let mut part = || {
            outcome = projections.project(tx, &records.iter().copied(), manner, put_off, &mut own);
            outcome.as_ref().map_or_else(|halt| Err(BoxError::from(halt.to_string())), |()| Ok(()))
        };
        // With its only commit the whole transaction is undone, so that needs no part.
        let attempt = match is_alone {
            true => part().map_or_else(Attempt::Spoiled, |()| Attempt::Done),
            false => tx.attempt(&mut part),
        };
        match (attempt, outcome) {
            (Attempt::Done, _) => {
                account.add(own);
                Ok(())
            }
            (Attempt::Undone(_), Err(halt)) => Err(halt.into()),
            (Attempt::Undone(error) | Attempt::Spoiled(error), Ok(())) => {
                spoiled = Some(Halt::Error(Error::Rejected(error.into())));
                Err(spoiled_round())
            }
            (Attempt::Spoiled(_), Err(halt)) => {
                spoiled = Some(halt);
                Err(spoiled_round())
            }
        }
    };
    let mut decision = pen.decide(round, values, &places, Some(&mut project));
    match spoiled {
        // One of several commits: which records spoiled it does not matter.
        Some(Halt::Error(error)) if !is_alone => {
            return Err(Halt::Spoiled { at: 0, record: Key::new(), error });
        }
        Some(halt) => return Err(halt),
        None => {}
    }
    apply(tx, &std::mem::take(&mut decision.batch))?;
    let settlement = account.close(tx, projections)?;
    Ok((pen, decision, settlement))
}

/// The error of commits behind the one that spoiled their round. Nobody sees it: the round is undone.
fn spoiled_round() -> Error {
    Error::Rejected(Arc::from(BoxError::from("another commit of the round failed")))
}

/// Returns the joined write that applies commits of others, and projects them. A record that a projection does not take
/// is a debt.
pub(crate) fn receive<S: JoinStorage>(
    mut commits: Vec<Received>,
    projections: Arc<Projections<S>>,
) -> Work<S> {
    Box::new(move |store, pen| {
        let (keys, places) = engine::lend_keys(&mut commits);
        engine::take_keys_back(&mut commits, keys.clone(), &places);
        let (all, commits, me) = (Arc::clone(&projections), Arc::new(commits), pen.me());
        let job = move |tx: &S::Tx<'_>, put_off: &PutOff| -> Result<_, Halt> {
            let mut pen = pen.clone();
            let mut decision = pen.receive(&commits, read(tx, &keys)?, &places)?;
            let settlement = write_owing(tx, &std::mem::take(&mut decision.batch), &all, put_off)?;
            Ok((pen, decision, settlement))
        };
        async move {
            let done = putting_off(store, Some(me), job).await?.map_err(Halt::Error);
            Ok(ended(done, Some(&*projections)))
        }
        .boxed()
    })
}

/// Writes `batch` and projects it. A record that a projection does not take is a debt.
pub(crate) async fn write<S: JoinStorage>(
    store: &S,
    batch: WriteBatch,
    projections: Arc<Projections<S>>,
) -> Result<Result<Settled, Error>, StopReason> {
    let (all, batch) = (Arc::clone(&projections), Arc::new(batch));
    let job = move |tx: &S::Tx<'_>, put_off: &PutOff| write_owing(tx, &batch, &all, put_off);
    Ok(putting_off(store, None, job).await?.map(|settlement| projections.settle(settlement)))
}

fn write_owing<S: JoinStorage>(
    tx: &S::Tx<'_>,
    batch: &WriteBatch,
    projections: &Projections<S>,
    put_off: &PutOff,
) -> Result<Settlement, Halt> {
    apply(tx, batch)?;
    let mut account = Account::default();
    // A record that is removed is as good as a deleted one.
    let gone = record::gone();
    let shown = batch.puts().chain(batch.deletes().map(|key| (key, gone.as_slice())));
    projections.project(tx, &shown, Manner::Owe, put_off, &mut account)?;
    Ok(account.close(tx, projections)?)
}

/// Takes note of the debts of a write that has ended.
fn ended<S: JoinStorage>(
    done: Result<(Pen, Decision, Settlement), Halt>,
    projections: Option<&Projections<S>>,
) -> Joined {
    let (pen, mut decision, settlement) = done?;
    if let Some(projections) = projections {
        let Settled { notices, owes } = projections.settle(settlement);
        decision.notices.extend(notices);
        decision.owes = owes;
    }
    Ok(Box::new((pen, decision)))
}

/// Runs `job` in a native transaction, again and again, each time without the calls of projections that spoiled it
/// before.
pub(crate) async fn putting_off<S: JoinStorage, T: Send + 'static>(
    store: &S,
    me: Option<ReplicaId>,
    job: impl Fn(&S::Tx<'_>, &PutOff) -> Result<T, Halt> + Send + Sync + 'static,
) -> Result<Result<T, Error>, StopReason> {
    let (job, mut put_off) = (Arc::new(job), PutOff::default());
    loop {
        let (job, without) = (Arc::clone(&job), put_off.clone());
        match in_transaction(store, me, move |tx| job(tx, &without)).await? {
            Ok(done) => return Ok(Ok(done)),
            Err(halt) => {
                if let Err(error) = put_off.learn(halt) {
                    return Ok(Err(error));
                }
            }
        }
    }
}

/// Runs `job` in a native transaction of the store, for the replica `me` if it is known. The transaction commits if the
/// job succeeds.
pub(crate) async fn in_transaction<S: JoinStorage, T: Send + 'static>(
    store: &S,
    me: Option<ReplicaId>,
    job: impl FnOnce(&S::Tx<'_>) -> Result<T, Halt> + Send + 'static,
) -> Result<Result<T, Halt>, StopReason> {
    let (job, slot) = kept(me, job);
    judge(store.join(job).await, &slot)
}

/// As [`in_transaction`], in a transaction without foreign keys.
pub(crate) async fn without_foreign_keys<S: JoinStorage, T: Send + 'static>(
    store: &S,
    job: impl FnOnce(&S::Tx<'_>) -> Result<T, Halt> + Send + 'static,
) -> Result<Result<T, Halt>, StopReason> {
    let (job, slot) = kept(None, job);
    judge(store.join_without_foreign_keys(job).await, &slot)
}

/// Where a job leaves its outcome.
type Slot<T> = Arc<Mutex<Option<Result<T, Halt>>>>;

/// The job for the store, and the place where it leaves its outcome.
fn kept<S: JoinStorage, T: Send + 'static>(
    me: Option<ReplicaId>,
    job: impl FnOnce(&S::Tx<'_>) -> Result<T, Halt> + Send + 'static,
) -> (JoinJob<S>, Slot<T>) {
    let slot = Slot::<T>::default();
    let fill = Arc::clone(&slot);
    let job: JoinJob<S> = Box::new(move |tx| {
        let outcome = inside(me, || job(tx));
        let result = outcome.as_ref().map(|_| ()).map_err(|halt| BoxError::from(halt.to_string()));
        *fill.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        result
    });
    (job, slot)
}

/// Returns the outcome of a job, given how its transaction ended.
fn judge<T>(joined: Result<(), WriteError>, slot: &Slot<T>) -> Result<Result<T, Halt>, StopReason> {
    let outcome = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    match joined {
        Ok(()) => match outcome {
            Some(Ok(done)) => Ok(Ok(done)),
            _ => Err(StopReason::Unknown(Arc::from(BoxError::from(COMMITTED_A_FAILURE)))),
        },
        Err(WriteError::TooLarge(error)) if matches!(outcome, Some(Ok(_))) => {
            Ok(Err(Halt::Error(Error::TooLargeForStore(Arc::from(error)))))
        }
        Err(WriteError::Rejected(error) | WriteError::TooLarge(error)) => Ok(Err(match outcome {
            Some(Err(spoiled @ Halt::Spoiled { .. })) => spoiled,
            Some(Err(_)) if error.is::<TransactionEnded>() => Halt::Error(TransactionEnded.into()),
            Some(Err(own)) => error.downcast().map_or(own, |error| Halt::Error(Error::Statement(*error))),
            Some(Ok(_)) => Halt::NotCommitted(error),
            None => Halt::Error(Error::Rejected(Arc::from(error))),
        })),
        Err(WriteError::Unknown(error)) => Err(StopReason::Unknown(Arc::from(error))),
        Err(WriteError::Fenced) => Err(StopReason::Fenced),
    }
}

/// The reason to stop if a store commits a job that failed, or that it never ran: it has lost track of its writes.
const COMMITTED_A_FAILURE: &str = "the store committed a joined write whose job had failed";

/// Reads the values of `keys` in the transaction.
pub(crate) fn read(tx: &impl JoinTx, keys: &[Key]) -> Result<Vec<Option<Value>>, Error> {
    let mut values = Vec::with_capacity(keys.len());
    for piece in keys.chunks(GET_KEYS_MAX) {
        let found = tx.get_many(piece)?;
        if found.len() != piece.len() {
            return Err(ReadError::new(format!("{} values for {} keys", found.len(), piece.len())).into());
        }
        values.extend(found);
    }
    Ok(values)
}

/// Writes a batch into the transaction.
fn apply(tx: &impl JoinTx, batch: &WriteBatch) -> Result<(), Error> {
    if batch.is_empty() {
        return Ok(());
    }
    tx.apply(batch).map_err(|error| Error::Rejected(Arc::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction that finds so many values, whatever it is asked for.
    struct Finds(usize);

    impl JoinTx for Finds {
        type Native = ();

        fn native(&self) -> &() {
            &()
        }

        fn get_many(&self, _: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
            Ok(vec![None; self.0])
        }

        fn apply(&self, _: &WriteBatch) -> Result<(), BoxError> {
            Ok(())
        }
    }

    /// Values and keys are zipped, so a commit would be decided on some of its records alone.
    #[test]
    fn a_store_that_finds_another_number_of_values_than_keys_fails_the_write() {
        let keys = [vec![1], vec![2]];
        assert_eq!(read(&Finds(2), &keys).unwrap(), [None, None]);
        for found in [0, 1, 3] {
            assert!(matches!(read(&Finds(found), &keys), Err(Error::Read(_))), "{found} values for two keys");
        }
    }
}
