//! The app's types: models, the ownership of their records, and the names of records.

use std::fmt::Debug;
use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::storage::BoxError;

/// A type whose values replicate as records of one model.
///
/// Derive it, or write it by hand in five lines:
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use syncline::{DeviceId, DeviceOwned, Syncable, Uuid};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Location { id: Uuid, device_id: DeviceId, path: String }
///
/// impl Syncable for Location {
///     const SYNC_MODEL: &'static str = "location";
///     type Id = Uuid;
///     type Ownership = DeviceOwned;
///
///     fn sync_id(&self) -> (DeviceId, Uuid) {
///         (self.device_id, self.id)
///     }
/// }
/// ```
///
/// # Contract
/// - `SYNC_MODEL` never changes and no other model of the app has it. Names that begin with `syncline.` are reserved.
/// - The [`Ownership`] of a model never changes.
/// - `sync_id` depends on the value alone: a value that was saved under an id returns that id when read back.
/// - When the fields change, [`SCHEMA`](Syncable::SCHEMA) rises and [`migrate`](Syncable::migrate) reads the values of
///   the earlier versions. Values are encoded with postcard, which is not self-describing, so even a field added at
///   the end is such a change.
///
/// # What serde may do here
/// A commit is refused, before any work, if its value would be read back as anything but what was put
/// ([`Error::Encode`](crate::Error::Encode) names the attribute). The derive refuses the attributes that lose data for
/// every value.
///
/// | attribute or type | |
/// |---|---|
/// | `rename`, `rename_all`, `default`, `transparent`, `from`/`into`, `with` that reads what it writes | may be used; names are not stored |
/// | `skip`, `skip_serializing`, `skip_deserializing` on a field | refused by the derive: the field would be lost. In a type inside the model the derive cannot see it: do not use it there |
/// | `skip_serializing_if` | a value that leaves the field out is refused: postcard has no names by which a reader could tell |
/// | `flatten`, `untagged`, `tag = ".."`, `serde_json::Value` | refused: they need a format that says which type comes |
/// | `skip` on a variant | values of the variants behind it are refused, since they would be read as others; let it be the last one |
/// | `HashMap` | may be used: maps are stored in the order of their encoded keys, so that equal maps are equal bytes |
/// | `HashSet` | reads back, but equal sets are different bytes, and so different values of a record: use `BTreeSet` |
/// | nested types | up to 128 deep; deeper values are refused, here and from peers |
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a model",
    note = "add `#[derive(Syncable)]` and `#[sync(model = \"...\")]` to it"
)]
pub trait Syncable: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The model's name, the same on all devices: 1 to [`MODEL_BYTES_MAX`] bytes.
    const SYNC_MODEL: &'static str;

    /// The version of the model's fields. Starts at 1 and rises when they change.
    const SCHEMA: u16 = 1;

    /// The app's own id of a record.
    type Id: SyncId;

    /// Who may change the records: [`Shared`] or [`DeviceOwned`].
    type Ownership: Ownership;

    /// Whether the model brings its own [`merge`](Syncable::merge). Only a shared model may: a device-owned record
    /// has one author. This never changes; a store that has seen the model the other way is not opened.
    const OWN_MERGE: bool = false;

    /// Returns the name of the record: its id, with its device before it if the model is device-owned.
    fn sync_id(&self) -> RecordId<Self>;

    /// Makes one value of two that may have been committed at once.
    ///
    /// It is called only if [`OWN_MERGE`](Syncable::OWN_MERGE) is set; otherwise the commit with the higher stamp
    /// wins.
    ///
    /// Every put is merged into the stored value, here and on every other device. So a value can only grow, as a set
    /// that is united or a counter per device. A delete begins anew: a put whose author did not know of the delete is
    /// dropped, a put after the delete stays.
    ///
    /// Two values that each fit may make one that is longer than `value_bytes_max`. Such a value is stored and sent
    /// on, but no app can put a change to it until the limit is raised or the record is deleted: leave room for
    /// growth.
    ///
    /// # Contract
    /// For all values `a`, `b` and `c` of one record, `a.merge(b)` has the same encoding as `b.merge(a)`,
    /// `a.merge(b).merge(c)` as `a.merge(b.merge(c))`, and `a.merge(a)` as `a`; the id stays. Otherwise devices end
    /// with different values. After a panic both values stay, and a later version of the app merges them.
    #[must_use]
    fn merge(self, other: Self) -> Self {
        let _ = other;
        self
    }

    /// Reads a value that an older version of the app wrote under `schema`, which is below
    /// [`SCHEMA`](Syncable::SCHEMA).
    ///
    /// # Errors
    /// The error that the app reports; by default, that the app has no way to read the schema.
    fn migrate(schema: u16, value: &[u8]) -> Result<Self, BoxError> {
        let _ = value;
        Err(format!("model `{}` has no migration from schema {schema}", Self::SYNC_MODEL).into())
    }
}

/// The longest model name, in bytes.
pub const MODEL_BYTES_MAX: usize = 64;

/// The name of a record of the model `M`: `Id` for a shared model, `(DeviceId, Id)` for a device-owned one.
pub type RecordId<M> = <<M as Syncable>::Ownership as Ownership>::Record<<M as Syncable>::Id>;

/// Who may change the records of a model: [`Shared`] or [`DeviceOwned`].
pub trait Ownership: sealed::Sealed + Send + Sync + 'static {
    /// The name of a record.
    type Record<Id: SyncId>: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static;

    /// Whether the records belong to devices.
    const DEVICE_OWNED: bool;

    /// Splits a record's name into its owner and its id.
    fn split<Id: SyncId>(record: &Self::Record<Id>) -> (Option<DeviceId>, &Id);

    /// Joins an owner and an id; `None` if an owner is missing, or given for a shared model.
    fn join<Id: SyncId>(owner: Option<DeviceId>, id: Id) -> Option<Self::Record<Id>>;
}

/// The ownership of a shared model: every member may change every record, and the stamps decide.
#[derive(Clone, Copy, Debug)]
pub enum Shared {}

/// The ownership of a device-owned model: only the device that a record names may change the record.
#[derive(Clone, Copy, Debug)]
pub enum DeviceOwned {}

impl Ownership for Shared {
    type Record<Id: SyncId> = Id;
    const DEVICE_OWNED: bool = false;

    fn split<Id: SyncId>(record: &Id) -> (Option<DeviceId>, &Id) {
        (None, record)
    }

    fn join<Id: SyncId>(owner: Option<DeviceId>, id: Id) -> Option<Id> {
        owner.is_none().then_some(id)
    }
}

impl Ownership for DeviceOwned {
    type Record<Id: SyncId> = (DeviceId, Id);
    const DEVICE_OWNED: bool = true;

    fn split<Id: SyncId>(record: &(DeviceId, Id)) -> (Option<DeviceId>, &Id) {
        (Some(record.0), &record.1)
    }

    fn join<Id: SyncId>(owner: Option<DeviceId>, id: Id) -> Option<(DeviceId, Id)> {
        owner.map(|owner| (owner, id))
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Shared {}
    impl Sealed for super::DeviceOwned {}
}

/// A record id, encoded as bytes whose order is the order in which `list` returns records.
///
/// # Contract
/// Equal ids have equal bytes and different ids different ones, on every platform; `decode` undoes `encode`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a record id",
    note = "ids are `Uuid`, `String`, integers, byte arrays and `Vec<u8>`, or any type that implements `SyncId`"
)]
pub trait SyncId: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static {
    /// Appends the id's bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the id with these bytes; `None` if no id has them.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

macro_rules! fixed_bytes_id {
    ($($id:ty: $to:expr, $from:expr;)*) => {$(
        impl SyncId for $id {
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                let to: fn(&$id) -> _ = $to;
                out.extend_from_slice(&to(self));
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Option<Self> {
                let from: fn(_) -> $id = $from;
                Some(from(bytes.try_into().ok()?))
            }
        }
    )*};
}

// Integers are big-endian, signed ones with the sign bit flipped, so that byte order is number order.
fixed_bytes_id! {
    Uuid: |id| *id.as_bytes(), Uuid::from_bytes;
    DeviceId: |id| *id.as_bytes(), DeviceId::from_bytes;
    ReplicaId: |id| *id.as_bytes(), ReplicaId::from_bytes;
    GroupId: |id| *id.as_bytes(), GroupId::from_bytes;
    u32: |id| id.to_be_bytes(), u32::from_be_bytes;
    u64: |id| id.to_be_bytes(), u64::from_be_bytes;
    u128: |id| id.to_be_bytes(), u128::from_be_bytes;
    i32: |id| (id ^ i32::MIN).to_be_bytes(), |bytes| i32::from_be_bytes(bytes) ^ i32::MIN;
    i64: |id| (id ^ i64::MIN).to_be_bytes(), |bytes| i64::from_be_bytes(bytes) ^ i64::MIN;
}

impl<const N: usize> SyncId for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

impl SyncId for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl SyncId for String {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(id: &impl SyncId) -> Vec<u8> {
        let mut out = Vec::new();
        id.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn ids_come_back_and_keep_their_order(a: (i64, i32, u64, u128, String), b: (i64, i32, u64, u128, String)) {
            macro_rules! check { ($($n:tt)*) => {$(
                prop_assert_eq!(SyncId::decode(&bytes(&a.$n)), Some(a.$n.clone()));
                prop_assert_eq!(bytes(&a.$n).cmp(&bytes(&b.$n)), a.$n.cmp(&b.$n));
            )*} }
            check!(0 1 2 3 4);
        }
    }

    #[test]
    fn bytes_that_are_no_id_are_refused() {
        assert_eq!(Uuid::decode(&[0; 15]), None);
        assert_eq!(u32::decode(&[0; 5]), None);
        assert_eq!(String::decode(&[0xff]), None);
    }
}
