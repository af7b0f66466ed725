//! The errors of calls, sorted by what the caller may do next.

mod open;

use std::fmt;
use std::sync::Arc;

use crate::clock::ClockError;
use crate::events::{Damage, RecordKey, Restored};
use crate::ids::{DeviceId, ReplicaId};
use crate::join::{StatementError, TransactionEnded};
use crate::join_wait::JoinWait;
use crate::limits::Limit;
use crate::storage::{BoxError, ReadError};
use crate::stored::FormatError;
use crate::syncable::{RecordId, Syncable};

pub use open::OpenError;

/// An error that several callers share.
pub type SharedError = Arc<dyn std::error::Error + Send + Sync + 'static>;

/// Why a call on a [`TransactionManager`](crate::TransactionManager) failed.
///
/// Nothing of the call has been written, unless the error is [`Error::Unknown`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Fix the call.
    /// The model was not registered when the store was opened.
    #[error(
        "model `{model}` is not registered; add `.model::<{ty}>()` to the builder (registered: {registered})"
    )]
    UnregisteredModel {
        /// The model's name.
        model: &'static str,
        /// The type of the call.
        ty: &'static str,
        /// The names that are registered.
        registered: String,
    },
    /// Another type is registered under the model's name.
    #[error(
        "model `{model}` is registered for `{registered}`, not for `{ty}`; call with the registered type, or rename one"
    )]
    OtherModel {
        /// The model's name.
        model: &'static str,
        /// The type of the call.
        ty: &'static str,
        /// The type that is registered.
        registered: &'static str,
    },
    /// The model is the library's own, and the library alone commits it.
    #[error("`{model}` is the library's own model, which apps only read")]
    ReservedModel {
        /// The model's name.
        model: &'static str,
    },
    /// The record belongs to another device, and only its owner may change it.
    #[error("the `{model}` record belongs to device {owner}, this is device {device}; commit it there")]
    NotOwner {
        /// The model's name.
        model: &'static str,
        /// The device that the record belongs to.
        owner: DeviceId,
        /// The device of this replica.
        device: DeviceId,
    },
    /// A value, an id, a commit or the number of its changes is above its limit.
    #[error("{size} is above the limit {limit}; make it smaller, split the commit or raise the limit")]
    TooLarge {
        /// The size in bytes, or the number of changes if the limit counts changes.
        size: usize,
        /// The limit that was passed.
        limit: Limit,
    },
    /// The closure of `update` returned a model with another id.
    #[error(
        "`update` of a `{model}` record changed its id; an update keeps the id, put a new record instead"
    )]
    IdChanged {
        /// The model's name.
        model: &'static str,
    },
    /// The call came from inside a closure that this replica runs: one of `update`, `change`, `commit_batch` or
    /// `with_tx`, a [`merge`](Syncable::merge) or a projection. It would wait until the closure has ended, which waits
    /// for the call.
    #[error(
        "a closure that the replica runs called the replica, which would wait for the closure for ever; change records \
         through what the closure is given or returns, or make the call before or after"
    )]
    InsideClosure,
    /// Nobody runs the driver, so that nothing would ever answer. Nothing of the call was done.
    #[error(
        "nobody runs the driver of this replica; spawn `driver.run()` of the driver that `open` returned beside the \
         manager, then call again"
    )]
    DriverNotRun,
    /// A newer version of the app wrote the record.
    #[error("the record {record} has schema {stored}, this app knows schema {known}; update the app")]
    NewerSchema {
        /// The name of the record.
        record: RecordKey,
        /// The schema of the record.
        stored: u16,
        /// The schema of the type.
        known: u16,
    },
    /// The model could not be encoded.
    #[error("the `{model}` model could not be encoded: {source}")]
    Encode {
        /// The model's name.
        model: &'static str,
        /// The error of the codec or of the type.
        source: BoxError,
    },
    /// A stored value could not be read as the type.
    #[error(
        "the record {record} could not be read as `{ty}`: {source}; if the type's fields changed, raise its `schema` and \
         give it a `migrate`; if they did not, look for serde attributes that the table in `Syncable` refuses"
    )]
    Decode {
        /// The name of the record.
        record: RecordKey,
        /// The type.
        ty: &'static str,
        /// The error of the codec or of the migration.
        source: BoxError,
    },

    /// The record was written by another app, or another version of this one, that merges its model in another way.
    #[error(
        "the record {record} was written by an app that merges its model in another way; use one merge everywhere"
    )]
    OtherMerge {
        /// The name of the record.
        record: RecordKey,
    },
    /// The replica is a member already, on another device, and at work there.
    #[error(
        "the replica {replica} is a member on device {stored} and at work there, so it cannot be moved to {asked}; add a \
         new replica on that device"
    )]
    MemberOnOtherDevice {
        /// The replica.
        replica: ReplicaId,
        /// The device of its member record.
        stored: DeviceId,
        /// The device of the call.
        asked: DeviceId,
    },
    /// The replica does not say on which device it wants to be added: it is not connected, or does not wait to be added.
    #[error(
        "the replica {replica} does not knock here; call `add_member` at the member that it was told to join, or \
         `add_member_on` with its device; a new store knocks here if it is opened with `join` of this replica {me} and its \
         group"
    )]
    NotKnocking {
        /// The replica that shall be added.
        replica: ReplicaId,
        /// This replica.
        me: ReplicaId,
    },
    /// The replica knocks, and says that it is on another device than the one of the call.
    #[error(
        "the replica {replica} knocks and says that it is on {knocks}, not on {asked}; name that device: `add_member`, or \
         `take_over` if it is another member's"
    )]
    KnocksOnOtherDevice {
        /// The replica that shall be added.
        replica: ReplicaId,
        /// The device that the replica names.
        knocks: DeviceId,
        /// The device of the call.
        asked: DeviceId,
    },
    /// The device is that of another member. A replica on this device could change all that the device owns.
    #[error(
        "the device {device} is that of the member {member}, and {replica} could change all that it owns; if {replica} \
         shall take it over, call `take_over`, otherwise let it join with another device"
    )]
    DeviceOfMember {
        /// The replica that shall be added.
        replica: ReplicaId,
        /// The device on which it shall be added.
        device: DeviceId,
        /// The member that is on this device.
        member: ReplicaId,
    },
    /// The stream is not held, so there is nothing to release.
    #[error("the stream of {stream} is not held; `status()` says which are")]
    NotHeld {
        /// The replica that writes the stream.
        stream: ReplicaId,
    },

    // Wait, or give up.
    /// This replica is joining its group and may not commit before its own member record has arrived. Or it was added on
    /// two devices at once, and is no member on its own one until that is put right.
    #[error("the replica {replica} is no member of its group now: {wait}")]
    Joining {
        /// This replica.
        replica: ReplicaId,
        /// What it waits for, and what to do.
        wait: JoinWait,
    },
    /// This store was restored from a backup, or cloned, and so must not go on writing its stream.
    #[error(
        "this store was restored from a backup or cloned, {0}; it can be read, but to commit, open a new store and join"
    )]
    Restored(Restored),

    /// The end of this replica's own log is damaged in its store. To go on from there could make a second history, so this
    /// replica commits nothing until [`check_log`](crate::TransactionManager::check_log) has mended it.
    #[error(
        "{0}; to commit, call `check_log` while a member is connected that has it, or open a new store and join; this one \
         can be read"
    )]
    LogDamaged(Damage),

    // The app's own closure.
    /// The app's closure returned this error.
    #[error("it was abandoned, and nothing of it is there: {0}")]
    Aborted(#[source] BoxError),
    /// The app's closure panicked with this message.
    #[error("it was abandoned, since its closure panicked, and nothing of it is there: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },

    /// A statement of the app's closure ended the transaction. Nothing of it was kept.
    #[error(transparent)]
    TransactionEnded(#[from] TransactionEnded),
    /// A statement of the app's closure may not run in a joined write, or broke a constraint of the app's own tables.
    /// Nothing of the closure was kept.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A projection refused a change, so its commit was undone.
    #[error("the projection `{projection}` refused the record {record}: {source}; nothing was written")]
    Projection {
        /// The projection's name.
        projection: &'static str,
        /// The name of the record.
        record: RecordKey,
        /// The error that the projection reported.
        source: BoxError,
    },

    // Retry, or report.
    /// No stamp could be drawn.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The store could not read.
    #[error(
        "the store could not read: {0}; retry, and if that fails too, shut down and open the store again"
    )]
    Read(#[source] SharedError),
    /// The store rejected the write. Nothing was written.
    #[error("the store rejected the write: {0}; nothing was written, retry")]
    Rejected(#[source] SharedError),
    /// The store takes no write as large as this, though its limits let it through. Nothing was written, and the same call
    /// will fail again.
    #[error(
        "the write is too large for the store: {0}; nothing was written, split the commit or make it smaller, and have the \
         store's `limits()` corrected"
    )]
    TooLargeForStore(#[source] SharedError),
    /// A stored row cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),

    // Reopen.
    /// The store does not know whether this commit was written: it is there whole or not at all.
    #[error("it is not known whether the commit was written, because {0}; reopen the store and look")]
    Unknown(StopReason),
    /// The driver has stopped. Nothing of this call was written.
    #[error("the driver has stopped, because {0}; open the store again")]
    Stopped(StopReason),
}

impl Error {
    pub(crate) fn decode<M: Syncable>(id: &RecordId<M>, source: impl Into<BoxError>) -> Self {
        let record = RecordKey::new::<M>(id);
        Self::Decode { record, ty: std::any::type_name::<M>(), source: source.into() }
    }

    /// Makes the error of an app's closure: an [`Error`] about a change that the closure staged as it is, any other as
    /// [`Error::Aborted`].
    ///
    /// Any other [`Error`] may come from another replica: passed on, it could say that this replica has stopped.
    pub(crate) fn from_closure(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(own) if own.is_about_the_call() => *own,
            Ok(other) => Self::Aborted(other),
            Err(error) => Self::Aborted(error),
        }
    }

    fn is_about_the_call(&self) -> bool {
        matches!(
            self,
            Self::UnregisteredModel { .. }
                | Self::OtherModel { .. }
                | Self::ReservedModel { .. }
                | Self::NotOwner { .. }
                | Self::TooLarge { .. }
                | Self::Encode { .. }
                | Self::InsideClosure
        )
    }

    /// Makes the error of an app's closure that panicked.
    pub(crate) fn from_panic(panic: &(dyn std::any::Any + Send)) -> Self {
        Self::Panicked { message: panic_message(panic) }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        Self::Read(Arc::from(error.0))
    }
}

/// The message of a panic, if it has one.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// Why the driver stopped.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// [`shutdown`](crate::TransactionManager::shutdown) was called, or the last manager was dropped.
    Shutdown,
    /// The driver was dropped before it had ended.
    DriverDropped,
    /// Another owner has opened the store.
    Fenced,
    /// The store could not tell whether it had applied a write.
    Unknown(SharedError),
    /// The store panicked with this message.
    Panicked(String),
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("it was shut down"),
            Self::DriverDropped => f.write_str("the driver was dropped"),
            Self::Fenced => f.write_str("another owner has opened the store"),
            Self::Unknown(error) => write!(f, "the outcome of a write is unknown: {error}"),
            Self::Panicked(message) => write!(f, "the store panicked: {message}"),
        }
    }
}

impl std::error::Error for StopReason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_to_do() {
        let limit = Limit { name: "value_bytes_max", max: 10 };
        assert_eq!(
            Error::TooLarge { size: 11, limit }.to_string(),
            "11 is above the limit `Limits::value_bytes_max` = 10; make it smaller, split the commit or raise the limit"
        );
        // A joiner is told what to wait for, what to look at, and the way out.
        let device = DeviceId(uuid::Uuid::nil());
        let wait = JoinWait::OtherDevice { added: device, device };
        let joining = Error::Joining { replica: ReplicaId(uuid::Uuid::nil()), wait }.to_string();
        assert!(joining.contains("add_member"), "{joining}");
        let changed = OpenError::OwnershipChanged {
            location: "a.redb".into(),
            model: "tag",
            ty: "app::Tag",
            stored_device_owned: false,
        };
        assert_eq!(
            changed.to_string(),
            "a.redb has `tag` as a shared model and `app::Tag` is device-owned; give the type a new model name"
        );
    }

    #[test]
    fn a_closure_passes_our_own_errors_on() {
        let own: BoxError = Box::new(Error::Encode { model: "tag", source: "no".into() });
        assert!(matches!(Error::from_closure(own), Error::Encode { .. }));
        // An error of another replica: this one has not stopped.
        let foreign: BoxError = Box::new(Error::Stopped(StopReason::Shutdown));
        assert!(matches!(Error::from_closure(foreign), Error::Aborted(_)));
        assert!(matches!(Error::from_closure("no".into()), Error::Aborted(_)));
    }
}
