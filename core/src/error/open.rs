//! Why a store could not be opened.

use crate::clock::ClockError;
use crate::ids::{DeviceId, GroupId};
use crate::storage::{ReadError, WriteError};
use crate::stored::FormatError;
use crate::transport::TransportError;

/// Why a replica could not be opened on a store. Nothing of the store was changed, unless the variant says otherwise.
///
/// The files of a store are opened before that, by the store's own crate and with its own error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store belongs to another group.
    #[error(
        "{location} belongs to group {stored}, not to {asked}; open the store of that group, or call `.found_new()` \
         instead of `.found(group)`, and no `.join`, since a store keeps its group"
    )]
    OtherGroup {
        /// The place of the store, as [`Storage::location`](crate::Storage::location) tells it.
        location: String,
        /// The group of the store.
        stored: GroupId,
        /// The group that was asked for.
        asked: GroupId,
    },
    /// The store belongs to another device.
    #[error(
        "{location} belongs to device {stored}, not to {asked}; leave `.device(id)` out, since a store keeps its device, \
         and never copy a store from one device to another"
    )]
    OtherDevice {
        /// The place of the store, as [`Storage::location`](crate::Storage::location) tells it.
        location: String,
        /// The device of the store.
        stored: DeviceId,
        /// The device that was asked for.
        asked: DeviceId,
    },
    /// The store is new, and the app named no group for it.
    #[error("{location} is empty; call `.found_new()` to found a group in it, or `.join(group, introducer)`")]
    NoGroup {
        /// The place of the store, as [`Storage::location`](crate::Storage::location) tells it.
        location: String,
    },
    /// The store takes so little at once that no replica fits into it.
    #[error(
        "{location} takes {takes} as its `StoreLimits::{name}`, and a replica needs {least}; use another store"
    )]
    StoreTooSmall {
        /// The place of the store, as [`Storage::location`](crate::Storage::location) tells it.
        location: String,
        /// The field of [`StoreLimits`](crate::StoreLimits).
        name: &'static str,
        /// The size that the store declares.
        takes: usize,
        /// The size that a replica needs.
        least: usize,
    },
    /// The keyspace holds entries of something else than this library.
    #[error("{location} holds entries but no syncline store; use an empty store, or a key prefix of its own")]
    NotAStore {
        /// The place of the store, as [`Storage::location`](crate::Storage::location) tells it.
        location: String,
    },
    /// A stored row is of another version, or damaged.
    #[error("{location} cannot be opened: {source}")]
    Format {
        /// The place of the store, as [`Storage::location`](crate::Storage::location) tells it.
        location: String,
        /// The row that cannot be read.
        source: FormatError,
    },
    /// Two types have the same model name.
    #[error("both `{first}` and `{second}` are the model `{model}`; rename one")]
    DuplicateModel {
        /// The model's name.
        model: &'static str,
        /// The type that was registered first.
        first: &'static str,
        /// The type that was registered second.
        second: &'static str,
    },
    /// A model's name is empty, too long, or reserved.
    #[error(
        "`{ty}` cannot be the model `{model}`: a name has 1 to 64 bytes and does not begin with `syncline.`; choose another one"
    )]
    ModelName {
        /// The model's name.
        model: &'static str,
        /// The type.
        ty: &'static str,
    },
    /// Two projections have the same name, or a name is empty or too long.
    #[error("`{projection}` cannot be the name of a projection here: {rule}")]
    ProjectionName {
        /// The projection's name.
        projection: &'static str,
        /// The rule that the name breaks.
        rule: &'static str,
    },
    /// A model that was shared is device-owned now, or the other way round.
    #[error(
        "{location} has `{model}` as a {} model and `{ty}` is {}; give the type a new model name",
        ownership(*.stored_device_owned), ownership(!*.stored_device_owned)
    )]
    OwnershipChanged {
        /// The place of the store, as [`Storage::location`](crate::Storage::location) tells it.
        location: String,
        /// The model's name.
        model: &'static str,
        /// The type.
        ty: &'static str,
        /// Whether the model is device-owned in the store.
        stored_device_owned: bool,
    },
    /// A model that brought its own merge does so no more, or the other way round.
    #[error(
        "{location} has `{model}` as a model that {} and `{ty}` is one that {}; give the type a new model name",
        merge_kind(*.stored_own_merge), merge_kind(!*.stored_own_merge)
    )]
    MergeChanged {
        /// The place of the store, as [`Storage::location`](crate::Storage::location) tells it.
        location: String,
        /// The model's name.
        model: &'static str,
        /// The type.
        ty: &'static str,
        /// Whether the model brings its own merge in the store.
        stored_own_merge: bool,
    },
    /// The transport cannot serve this replica.
    #[error("{location} was not opened, because its transport failed: {source}")]
    Transport {
        /// The place of the store, as [`Storage::location`](crate::Storage::location) tells it.
        location: String,
        /// The error that the transport reported.
        source: TransportError,
    },
    /// The limits contradict each other or what a store can hold.
    #[error("{name} = {value} cannot be: {rule}")]
    Limits {
        /// The field of [`Limits`](crate::Limits).
        name: &'static str,
        /// The value of the limit.
        value: usize,
        /// The values that it may have, which follow from the other limits.
        rule: String,
    },
    /// No stamp could be drawn for the first commit.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The store could not read.
    #[error("{location} could not be read: {source}; open the store anew and try again")]
    Read {
        /// The place of the store, as [`Storage::location`](crate::Storage::location) tells it.
        location: String,
        /// The error that the store reported.
        source: ReadError,
    },
    /// The store could not write; [`WriteError`] says whether it did.
    #[error("{location} could not be written: {source}; open the store anew and try again")]
    Write {
        /// The place of the store, as [`Storage::location`](crate::Storage::location) tells it.
        location: String,
        /// The error that the store reported.
        source: WriteError,
    },
}

fn ownership(device_owned: bool) -> &'static str {
    if device_owned { "device-owned" } else { "shared" }
}

fn merge_kind(own_merge: bool) -> &'static str {
    if own_merge { "brings its own merge" } else { "the later commit wins" }
}
