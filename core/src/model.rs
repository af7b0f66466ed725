//! The models an app registered, and how their values become bytes and back.

use std::any::{TypeId, type_name};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::engine::{Current, NewValue};
use crate::error::{Error, OpenError, panic_message};
use crate::events::RecordKey;
use crate::limits::Limit;
use crate::member::{Member, RESERVED_PREFIX};
use crate::storage::BoxError;
use crate::stored::{digest, record};
use crate::syncable::{MODEL_BYTES_MAX, Ownership, RecordId, Syncable};
use crate::update::put_over;

/// A registered model: the type behind a name, and the kind of its records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    id: TypeId,
    pub(crate) ty: &'static str,
    pub(crate) schema: u16,
    pub(crate) device_owned: bool,
    /// The merge that the model brings, if it brings one.
    pub(crate) merge: Option<Merge>,
}

/// Makes one value of two; fails if this version of the app cannot merge them.
pub(crate) type Merge = fn(Current<'_>, Current<'_>) -> Result<NewValue, BoxError>;

/// The registered models, by name.
#[derive(Clone, Debug)]
pub(crate) struct Registry(BTreeMap<&'static str, Model>);

impl Registry {
    /// A registry that has the library's own models alone.
    pub(crate) fn new() -> Self {
        let mut registry = Self(BTreeMap::new());
        registry.insert::<Member>();
        registry
    }

    /// Adds one of the app's models.
    pub(crate) fn add<M: Syncable>(&mut self) -> Result<(), OpenError> {
        let (model, ty) = (M::SYNC_MODEL, type_name::<M>());
        if model.is_empty() || model.len() > MODEL_BYTES_MAX || model.starts_with(RESERVED_PREFIX) {
            return Err(OpenError::ModelName { model, ty });
        }
        match self.insert::<M>() {
            Some(first) if first.id != TypeId::of::<M>() => {
                Err(OpenError::DuplicateModel { model, first: first.ty, second: ty })
            }
            _ => Ok(()),
        }
    }

    fn insert<M: Syncable>(&mut self) -> Option<Model> {
        const {
            assert!(
                !(M::OWN_MERGE && M::Ownership::DEVICE_OWNED),
                "a device-owned model has no merge of its own"
            );
        };
        let model = Model {
            id: TypeId::of::<M>(),
            ty: type_name::<M>(),
            schema: M::SCHEMA,
            device_owned: M::Ownership::DEVICE_OWNED,
            merge: M::OWN_MERGE.then_some(merge::<M> as Merge),
        };
        self.0.insert(M::SYNC_MODEL, model)
    }

    /// Checks that `M` is registered, so that its records may be read.
    pub(crate) fn check<M: Syncable>(&self) -> Result<(), Error> {
        let (model, ty) = (M::SYNC_MODEL, type_name::<M>());
        match self.0.get(model) {
            Some(found) if found.id == TypeId::of::<M>() => Ok(()),
            Some(found) => Err(Error::OtherModel { model, ty, registered: found.ty }),
            None => {
                let names: Vec<_> =
                    self.0.keys().filter(|name| !name.starts_with(RESERVED_PREFIX)).copied().collect();
                let registered = if names.is_empty() { "none".into() } else { names.join(", ") };
                Err(Error::UnregisteredModel { model, ty, registered })
            }
        }
    }

    /// Checks that the app may commit `M`: the library's own models are committed by the library alone.
    pub(crate) fn check_commit<M: Syncable>(&self) -> Result<(), Error> {
        if M::SYNC_MODEL.starts_with(RESERVED_PREFIX) {
            return Err(Error::ReservedModel { model: M::SYNC_MODEL });
        }
        self.check::<M>()
    }

    /// The merge that the model `model` brings; `None` if it brings none, or if this app does not know the model.
    pub(crate) fn merge_of(&self, model: &str) -> Option<Merge> {
        self.0.get(model).and_then(|model| model.merge)
    }

    /// Whether the model `model` brings its own merge; `None` if this app does not know the model.
    pub(crate) fn kind_of(&self, model: &str) -> Option<bool> {
        self.0.get(model).map(|model| model.merge.is_some())
    }

    pub(crate) fn models(&self) -> impl Iterator<Item = (&'static str, &Model)> {
        self.0.iter().map(|(name, model)| (*name, model))
    }
}

/// Encodes a model's value behind room for its record's header, so that the value need not be copied into the record.
pub(crate) fn encode<M: Syncable>(model: &M, value_bytes_max: usize) -> Result<NewValue, Error> {
    let record = codec::encode(model, record::with_room(M::OWN_MERGE, VALUE_BYTES_GUESS))
        .map_err(|source| Error::Encode { model: M::SYNC_MODEL, source: source.into() })?;
    let value = record::value_of(&record);
    if value.len() > value_bytes_max {
        let limit = Limit { name: "value_bytes_max", max: value_bytes_max };
        return Err(Error::TooLarge { size: value.len(), limit });
    }
    let digest = digest(value);
    Ok(NewValue { schema: M::SCHEMA, record, digest })
}

/// Makes one value of two of the model `M`. Decoding, merging and encoding are the app's code, so a panic in them is
/// an error and does not stop the replica.
fn merge<M: Syncable>(one: Current<'_>, other: Current<'_>) -> Result<NewValue, BoxError> {
    let merged = || {
        let (one, other) = (read::<M>(one)?, read::<M>(other)?);
        Ok(encode(&put_over(Some(one), other), usize::MAX)?)
    };
    catch_unwind(AssertUnwindSafe(merged)).unwrap_or_else(|panic| Err(panic_message(&*panic).into()))
}

/// Decodes a value and does not look at its id.
#[inline]
fn read<M: Syncable>(Current { schema, value }: Current<'_>) -> Result<M, BoxError> {
    if schema > M::SCHEMA {
        return Err(format!("schema {schema} is newer than {}", M::SCHEMA).into());
    }
    if schema == M::SCHEMA { decode_bytes(value) } else { M::migrate(schema, value) }
}

/// The room for a value before it is encoded: most values are smaller, so that one allocation is enough.
const VALUE_BYTES_GUESS: usize = 220;

/// Decodes the stored value of the record `id` as the model `M`, migrating it if an older schema wrote it.
#[inline]
pub(crate) fn decode<M: Syncable>(id: &RecordId<M>, current: Current<'_>) -> Result<M, Error> {
    let Current { schema, .. } = current;
    if schema > M::SCHEMA {
        return Err(Error::NewerSchema { record: RecordKey::new::<M>(id), stored: schema, known: M::SCHEMA });
    }
    read(current).map_err(|error| Error::decode::<M>(id, error))
}

/// Decodes a value as the library stored it, for [`Syncable::migrate`]: the value that an earlier version of the app
/// committed, read as the type that it had then, or as a tuple of its fields.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use syncline::{BoxError, Syncable};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
/// #[sync(model = "tag", schema = 2, migrate = Tag::older)]
/// struct Tag { #[sync(id)] id: u64, name: String, color: u32 }
///
/// impl Tag {
///     fn older(_schema: u16, value: &[u8]) -> Result<Self, BoxError> {
///         let (id, name) = syncline::decode(value)?; // schema 1 had these two fields
///         Ok(Self { id, name, color: 0 })
///     }
/// }
///
/// let older = syncline::encode(&(7_u64, "red"))?;
/// assert_eq!(Tag::migrate(1, &older)?, Tag { id: 7, name: "red".into(), color: 0 });
/// # Ok::<(), BoxError>(())
/// ```
///
/// # Errors
/// The error of the codec, if `value` is not a `T`. Bytes that are left over are an error too: the value is then of
/// another type.
#[inline]
pub fn decode_bytes<T: DeserializeOwned>(value: &[u8]) -> Result<T, BoxError> {
    Ok(codec::decode(value)?)
}

/// Encodes a value as the library stores it, for tests of [`Syncable::migrate`]: what [`decode`](crate::decode) reads.
///
/// # Errors
/// The error of the codec, if the value cannot be encoded: it leaves a field out, or is nested too deep.
pub fn encode_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, BoxError> {
    Ok(codec::encode_to(value, Vec::new())?)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::{DeviceId, ReplicaId};
    use crate::member::{Added, MemberState};

    #[test]
    fn golden_member() {
        let member = Member {
            replica: ReplicaId(Uuid::from_u128(1)),
            device: DeviceId(Uuid::from_u128(2)),
            corrections: 3,
            state: MemberState::Active,
            added: 300,
            others: vec![Added { device: DeviceId(Uuid::from_u128(4)), corrections: 1, added: 5 }],
        };
        let mut golden = vec![16];
        golden.extend(1u128.to_be_bytes());
        golden.push(16);
        golden.extend(2u128.to_be_bytes());
        // Corrections, the time of the add; one other add; the state.
        golden.extend([3, 0xac, 0x02, 1, 16]);
        golden.extend(4u128.to_be_bytes());
        golden.extend([1, 5, 0]);
        let encoded = encode(&member, usize::MAX).unwrap();
        assert_eq!(record::value_of(&encoded.record), golden);
        assert_eq!(encoded.digest, digest(&golden));
        assert_eq!(decode::<Member>(&member.replica, Current { schema: 1, value: &golden }).unwrap(), member);
        golden.push(0);
        assert!(matches!(
            decode::<Member>(&member.replica, Current { schema: 1, value: &golden }),
            Err(Error::Decode { .. })
        ));
    }

    /// A thing in its third schema. Its name tells which schema it was migrated from.
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Thing {
        id: u32,
        name: String,
    }

    impl Syncable for Thing {
        const SYNC_MODEL: &'static str = "thing";
        type Id = u32;
        type Ownership = crate::syncable::Shared;
        const OWN_MERGE: bool = true;
        const SCHEMA: u16 = 3;

        fn sync_id(&self) -> u32 {
            self.id
        }

        fn merge(self, other: Self) -> Self {
            Self { name: self.name.max(other.name), ..self }
        }

        fn migrate(schema: u16, value: &[u8]) -> Result<Self, BoxError> {
            Ok(Self { id: decode_bytes(value)?, name: format!("of {schema}") })
        }
    }

    /// An app may skip versions: a value of each of them is migrated by what it was then.
    #[test]
    fn a_migration_is_told_the_schema_that_wrote_the_value() {
        let value = encode_bytes(&7_u32).unwrap();
        for schema in [1, 2] {
            let thing: Thing = decode(&7, Current { schema, value: &value }).unwrap();
            assert_eq!(thing, Thing { id: 7, name: format!("of {schema}") });
        }
    }

    /// The layouts may fit by chance: a value of a newer schema is neither read nor merged as one of this version.
    #[test]
    fn a_value_of_a_newer_schema_is_left_to_a_newer_app() {
        let value = encode_bytes(&Thing { id: 7, name: "new".into() }).unwrap();
        let (known, newer) = (Current { schema: 3, value: &value }, Current { schema: 4, value: &value });
        assert!(decode::<Thing>(&7, known).is_ok());
        assert!(matches!(decode::<Thing>(&7, newer), Err(Error::NewerSchema { stored: 4, known: 3, .. })));
        let older = encode_bytes(&7_u32).unwrap();
        let merged = merge::<Thing>(Current { schema: 2, value: &older }, known).unwrap();
        assert_eq!(decode_bytes::<Thing>(record::value_of(&merged.record)).unwrap().name, "of 2");
        assert!(merge::<Thing>(known, newer).is_err() && merge::<Thing>(newer, known).is_err());
    }
}
