//! Why a store could not be opened.

use crate::clock::ClockError;
use crate::ids::{DeviceId, GroupId};
use crate::storage::{ReadError, WriteError};
use crate::stored::FormatError;
use crate::transport::TransportError;

/// Why a store could not be opened. Nothing of it was changed, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store belongs to another group.
    #[error("{location} belongs to group {stored}, not to {asked}; open the store of that group")]
    OtherGroup {
        /// Where the store lies.
        location: String,
        /// Its group.
        stored: GroupId,
        /// The group that was asked for.
        asked: GroupId,
    },
    /// The store belongs to another device.
    #[error(
        "{location} belongs to device {stored}, not to {asked}; keep the device id with the app's settings, \
         a store is not copied between devices"
    )]
    OtherDevice {
        /// Where the store lies.
        location: String,
        /// Its device.
        stored: DeviceId,
        /// The device that was asked for.
        asked: DeviceId,
    },
    /// The store is new and nothing says to which group it shall belong.
    #[error(
        "{location} is empty; call `.found(group)` to found a group in it, or `.join(group, introducer)`"
    )]
    NoGroup {
        /// Where the store lies.
        location: String,
    },
    /// The store is new and nothing says to which device it shall belong.
    #[error("{location} is empty; call `.device(id)` to say whose it is")]
    NoDevice {
        /// Where the store lies.
        location: String,
    },
    /// The keyspace holds something else.
    #[error("{location} holds entries but no syncline store; use an empty store, or a key prefix of its own")]
    NotAStore {
        /// Where the store lies.
        location: String,
    },
    /// A stored row is of another version, or damaged.
    #[error("{location}: {source}")]
    Format {
        /// Where the store lies.
        location: String,
        /// What cannot be read.
        source: FormatError,
    },
    /// Two types have the same model name.
    #[error("both `{first}` and `{second}` are the model `{model}`; rename one")]
    DuplicateModel {
        /// The name.
        model: &'static str,
        /// The type that was registered first.
        first: &'static str,
        /// The type that was registered second.
        second: &'static str,
    },
    /// A model's name is empty, too long, or reserved.
    #[error(
        "`{ty}` cannot be the model `{model}`: a name has 1 to 64 bytes and does not begin with `syncline.`"
    )]
    ModelName {
        /// The name.
        model: &'static str,
        /// The type.
        ty: &'static str,
    },
    /// Two projections have the same name, or a name is empty or too long.
    #[error("`{projection}` cannot be the name of a projection here: {rule}")]
    ProjectionName {
        /// The name.
        projection: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// A model that was shared is device-owned now, or the other way round.
    #[error(
        "{location} has `{model}` as a {} model and `{ty}` is {}; give the type a new model name",
        ownership(*.stored_device_owned), ownership(!*.stored_device_owned)
    )]
    OwnershipChanged {
        /// Where the store lies.
        location: String,
        /// The model's name.
        model: &'static str,
        /// The type.
        ty: &'static str,
        /// What the store has.
        stored_device_owned: bool,
    },
    /// A model that brought its own merge does so no more, or the other way round.
    #[error(
        "{location} has `{model}` as a model that {} and `{ty}` is one that {}; give the type a new model name",
        merge_kind(*.stored_own_merge), merge_kind(!*.stored_own_merge)
    )]
    MergeChanged {
        /// Where the store lies.
        location: String,
        /// The model's name.
        model: &'static str,
        /// The type.
        ty: &'static str,
        /// What the store has.
        stored_own_merge: bool,
    },
    /// The transport cannot serve this replica.
    #[error("{location} was not opened: {source}")]
    Transport {
        /// Where the store lies.
        location: String,
        /// What the transport reported.
        source: TransportError,
    },
    /// The limits contradict each other or what a store can hold.
    #[error("{name} = {value} cannot be: {rule}")]
    Limits {
        /// The field of [`Limits`](crate::Limits).
        name: &'static str,
        /// Its value.
        value: usize,
        /// What it must be, in numbers that follow from the other limits.
        rule: String,
    },
    /// No stamp could be drawn for the first commit.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The store could not read.
    #[error("{location}: {source}")]
    Read {
        /// Where the store lies.
        location: String,
        /// What it reported.
        source: ReadError,
    },
    /// The store could not write; [`WriteError`] says whether it did.
    #[error("{location}: {source}")]
    Write {
        /// Where the store lies.
        location: String,
        /// What it reported.
        source: WriteError,
    },
}

fn ownership(device_owned: bool) -> &'static str {
    if device_owned { "device-owned" } else { "shared" }
}

fn merge_kind(own_merge: bool) -> &'static str {
    if own_merge { "brings its own merge" } else { "the later commit wins" }
}
