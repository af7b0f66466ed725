//! The second storage seam, for stores with a transaction object: the app's own statements and a batch of the library
//! in one native transaction.
//!
//! `with_tx` and projections run on it.

use async_trait::async_trait;

use crate::storage::{BoxError, Key, ReadError, Storage, Value, WriteBatch, WriteError};

/// A native transaction that is open for writing.
pub trait JoinTx {
    /// The native transaction: `rusqlite::Transaction<'t>`, `redb::WriteTransaction`.
    type Native;

    /// Lends the native transaction, for the app's statements.
    fn native(&self) -> &Self::Native;

    /// Returns the values of `keys`, in their order, as this transaction sees them: its own operations included. There are
    /// at most [`GET_KEYS_MAX`](crate::GET_KEYS_MAX) of them.
    ///
    /// # Errors
    /// [`ReadError`] if the store could not read.
    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError>;

    /// Adds `batch` to the transaction. The batch is durable only once the transaction is. It may have more bytes than the
    /// [limits](crate::Storage::limits) of a write, as the app's own statements may: what it displaces is kept in the same
    /// transaction.
    ///
    /// # Errors
    /// The error that the store reports. The job must then fail, or half of a commit would be written.
    fn apply(&self, batch: &WriteBatch) -> Result<(), BoxError>;

    /// Runs `part` of the job. If it fails, undoes what it did, and nothing else.
    ///
    /// The part is code of the app, which does not panic here: the caller turns a panic into an error. Parts may lie
    /// inside parts. A store whose engine cannot undo a part of a transaction keeps this default: the caller then fails
    /// the job, and joins again without the part.
    fn attempt(&self, part: &mut dyn FnMut() -> Result<(), BoxError>) -> Attempt {
        match part() {
            Ok(()) => Attempt::Done,
            Err(error) => Attempt::Spoiled(error),
        }
    }
}

/// The outcome of a [part](JoinTx::attempt) of a job.
#[derive(Debug)]
pub enum Attempt {
    /// The part succeeded, and belongs to the transaction.
    Done,
    /// The part failed with this error, and was undone. The transaction is as it was before it.
    Undone(BoxError),
    /// The part failed with this error, and could not be undone alone. The job must fail.
    Spoiled(BoxError),
}

/// Work inside one native transaction: `Ok` commits it, an error undoes all of it.
pub type JoinJob<S> = Box<dyn for<'t> FnOnce(&<S as JoinStorage>::Tx<'t>) -> Result<(), BoxError> + Send>;

/// The native transaction of a store, as the app's statements see it.
pub type Native<'t, S> = <<S as JoinStorage>::Tx<'t> as JoinTx>::Native;

/// A store that lends its native transaction.
///
/// # Contract
/// One property each in `syncline-testkit`, under the same name. A joined write is a write: everything that
/// [`Storage`] promises of writes holds for it, and the caller never has two writes in flight, joined or not.
///
/// - `join_is_atomic`: the job's own statements and the batches that it applied are there together, or nothing of
///   either, after any error, panic or crash.
/// - `join_survives_reopening`: once `join` has returned `Ok`, both survive every fault that the store claims to survive,
///   as of a [`write`](Storage::write).
/// - `join_sees_its_own_writes`: `get_many` sees the state that the last write left, and the batches that this
///   transaction has applied; other readers do not see these before the transaction is committed.
/// - `join_error_leaves_no_trace`: if the job fails or panics, `join` returns [`WriteError::Rejected`] with the error
///   of the job, nothing of the job is there, and the store goes on.
/// - `join_runs_its_job_once`: a job never runs twice, and is left out only if `join` fails.
/// - `join_cannot_be_ended_from_inside`: a statement of the app that ends the transaction, or undoes all of it, makes
///   `join` fail with [`WriteError::Rejected`] of a [`TransactionEnded`] whatever the job returned, and nothing of the
///   job is there. If a statement failed and the store undid everything for that, the error of the job is returned
///   instead, if it has one. A store whose native transaction cannot be ended through a shared reference need do
///   nothing for this.
/// - `join_undoes_a_part`: a [part](JoinTx::attempt) that failed leaves no trace if it is said to be undone, and what
///   the job did before and after it is there.
/// - If the store refuses a statement of the app, or a constraint of the app's own tables fails only when the
///   transaction is committed, `join` fails with [`WriteError::Rejected`] of a [`StatementError`] that says so.
/// - `joins_and_writes_are_ordered`: joins and writes take effect in the order in which they were called.
/// - `cancelled_join_is_all_or_nothing`: a future dropped at any point leaves all or nothing, and the store usable.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no transaction that the app's own statements could join",
    label = "this store does not implement `JoinStorage`",
    note = "`with_tx` and projections need a store with a native transaction: `SqliteStorage`, `RedbStorage`"
)]
pub trait JoinStorage: Storage + Sized {
    /// The transaction that a job gets: the native one, and the library's operations in it.
    type Tx<'t>: JoinTx;

    /// Runs `job` in one native transaction, off the async threads, and returns once that is durable.
    ///
    /// # Errors
    /// [`WriteError`], whose variants say whether the transaction was committed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves all of the transaction or nothing of it.
    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError>;

    /// As [`join`](JoinStorage::join), for a job that makes tables of the app anew: the store enforces no foreign keys
    /// meanwhile. With them, a parent's table could not be dropped, or its children would be emptied with it.
    ///
    /// A store without foreign keys keeps this default.
    ///
    /// # Errors
    /// As [`join`](JoinStorage::join).
    async fn join_without_foreign_keys(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        self.join(job).await
    }

    /// Whether a row breaks a foreign key, since a table was made anew without them.
    ///
    /// A store without foreign keys keeps this default.
    ///
    /// # Errors
    /// [`ReadError`] if the store could not read.
    async fn breaks_foreign_keys(&self) -> Result<bool, ReadError> {
        Ok(false)
    }
}

/// The error of a job whose statements ended the transaction that they were part of. All of it was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a statement of the app began, ended or undid the transaction it was part of (`BEGIN`, `COMMIT`, `ROLLBACK`, \
     `OR ROLLBACK`); nothing of it was kept: leave that to `with_tx`, return an error to undo it, use savepoints inside"
)]
pub struct TransactionEnded;

/// The error of a job whose statements the store refused for a reason that the engine's own error does not tell. All of
/// the job was undone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// The statement may not run in a joined write: it would outlive the transaction, or change how the store stores.
    #[error("{statement} is not allowed in a joined write: {reason}")]
    Forbidden {
        /// The statement, such as `ATTACH`.
        statement: String,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// A constraint that is checked when the transaction is committed, such as a deferred foreign key, does not hold.
    #[error(
        "at the end of the transaction a constraint of the app's own tables does not hold: {0}; doing the same again fails \
         again: write the rows that the constraint asks for in the same transaction"
    )]
    Constraint(#[source] BoxError),
}
