//! Goal: a derived model is what its attributes and fields say, whatever else the app's module holds.
//! Method: small models, one per attribute; their constants, ids and ownership.

use serde::{Deserialize, Serialize};
use syncline::{BoxError, DeviceId, DeviceOwned, MODEL_BYTES_MAX, RecordId, Shared, SyncId, Syncable, Uuid};

const DEVICE: DeviceId = DeviceId::from_bytes([7; 16]);

fn is_shared<M: Syncable<Ownership = Shared>>(model: &M) -> M::Id {
    model.sync_id()
}

fn is_owned<M: Syncable<Ownership = DeviceOwned>>(model: &M) -> (DeviceId, M::Id) {
    model.sync_id()
}

#[derive(Clone, Serialize, Deserialize, Syncable)]
#[sync(model = "tag")]
struct Tag {
    #[sync(id)]
    id: Uuid,
    name: String,
}

#[test]
fn a_model_without_device_id_is_shared() {
    let tag = Tag { id: Uuid::from_u128(1), name: "urgent".into() };
    assert_eq!(Tag::SYNC_MODEL, "tag");
    assert_eq!(Tag::SCHEMA, 1);
    let id: RecordId<Tag> = is_shared(&tag);
    assert_eq!(id, tag.id);
    assert_eq!(tag.name, "urgent");
}

#[test]
fn a_model_with_device_id_is_owned() {
    #[derive(Clone, Serialize, Deserialize, Syncable)]
    #[sync(model = "location")]
    struct Location {
        // The order of the fields does not matter.
        device_id: DeviceId,
        path: String,
        #[sync(id)]
        id: Uuid,
    }

    let location = Location { id: Uuid::from_u128(2), device_id: DEVICE, path: "/photos".into() };
    assert_eq!(Location::SYNC_MODEL, "location");
    let id: RecordId<Location> = is_owned(&location);
    assert_eq!(id, (DEVICE, location.id));
    assert_eq!(location.path, "/photos");
}

#[test]
fn a_model_may_be_shared_although_it_names_a_device() {
    #[derive(Clone, Serialize, Deserialize, Syncable)]
    #[sync(model = "sighting", shared)]
    struct Sighting {
        #[sync(id)]
        id: u64,
        device_id: DeviceId,
    }

    assert_eq!(is_shared(&Sighting { id: 3, device_id: DEVICE }), 3);
}

#[test]
fn a_shared_model_may_have_a_device_as_its_id() {
    #[derive(Clone, Serialize, Deserialize, Syncable)]
    #[sync(model = "nickname", shared)]
    struct Nickname {
        #[sync(id)]
        device_id: DeviceId,
    }

    assert_eq!(is_shared(&Nickname { device_id: DEVICE }), DEVICE);
}

#[test]
fn shared_may_be_said_of_a_model_that_is_shared_anyway() {
    #[derive(Clone, Serialize, Deserialize, Syncable)]
    #[sync(model = "label", shared)]
    struct Label {
        #[sync(id)]
        id: u32,
    }

    assert_eq!(is_shared(&Label { id: 4 }), 4);
}

#[test]
fn an_id_may_be_a_string() {
    #[derive(Clone, Serialize, Deserialize, Syncable)]
    #[sync(model = "setting")]
    struct Setting {
        #[sync(id)]
        key: String,
        device_id: DeviceId,
    }

    let setting = Setting { key: "theme".into(), device_id: DEVICE };
    assert_eq!(is_owned(&setting), (DEVICE, "theme".to_owned()));
    assert_eq!(is_owned(&setting.clone()), setting.sync_id());
}

#[test]
fn an_id_may_be_a_type_of_the_app() {
    #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    struct Isbn(u64);

    impl SyncId for Isbn {
        fn encode(&self, out: &mut Vec<u8>) {
            self.0.encode(out);
        }

        fn decode(bytes: &[u8]) -> Option<Self> {
            u64::decode(bytes).map(Isbn)
        }
    }

    #[derive(Clone, Serialize, Deserialize, Syncable)]
    #[sync(model = "book")]
    struct Book {
        #[sync(id)]
        r#type: Isbn,
    }

    assert_eq!(is_shared(&Book { r#type: Isbn(5) }), Isbn(5));
}

#[derive(Debug)]
struct OldNote(u16, Vec<u8>);

impl std::fmt::Display for OldNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "schema {}, {} bytes", self.0, self.1.len())
    }
}

impl std::error::Error for OldNote {}

/// A migration called `value`, like the argument of `migrate`: the two names must not clash.
fn value(schema: u16, value: &[u8]) -> Result<Note, OldNote> {
    match (schema, value) {
        (2, [id]) => Ok(Note { id: u32::from(*id), text: String::new() }),
        _ => Err(OldNote(schema, value.to_vec())),
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "note", schema = 3, migrate = value)]
struct Note {
    #[sync(id)]
    id: u32,
    text: String,
}

#[test]
fn older_values_are_migrated() {
    assert_eq!(Note::SCHEMA, 3);
    assert_eq!(Note::migrate(2, &[6]).unwrap(), Note { id: 6, text: String::new() });
}

#[test]
fn the_error_of_a_migration_is_kept() {
    let error = Note::migrate(1, &[6, 6]).unwrap_err();
    assert_eq!(error.to_string(), "schema 1, 2 bytes");
    assert!(error.is::<OldNote>());
}

#[test]
fn a_migration_may_be_a_method() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
    #[sync(model = "draft", schema = 65535, migrate = Self::from_older)]
    struct Draft {
        #[sync(id)]
        id: u32,
    }

    impl Draft {
        fn from_older(schema: u16, _value: &[u8]) -> Result<Self, BoxError> {
            Ok(Self { id: schema.into() })
        }
    }

    assert_eq!(Draft::SCHEMA, u16::MAX);
    assert_eq!(Draft::migrate(9, &[]).unwrap(), Draft { id: 9 });
}

#[test]
fn older_values_without_a_migration_are_an_error() {
    #[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
    #[sync(model = "page", schema = 2)]
    struct Page {
        #[sync(id)]
        id: u32,
    }

    assert!(Page::migrate(1, &[]).unwrap_err().to_string().contains("`page`"));
}

#[test]
fn keys_may_be_in_several_lists() {
    #[derive(Clone, Serialize, Deserialize, Syncable)]
    #[sync(shared)]
    #[sync(model = "photo")]
    #[sync()]
    #[sync(schema = 2u16)]
    struct Photo {
        #[sync()]
        #[sync(id)]
        id: [u8; 32],
        device_id: DeviceId,
    }

    assert_eq!((Photo::SYNC_MODEL, Photo::SCHEMA), ("photo", 2));
    assert_eq!(is_shared(&Photo { id: [8; 32], device_id: DEVICE }), [8; 32]);
}

/// A deprecated model. The derive must not count as a use of it, or this file would not build.
#[deny(deprecated)]
mod deprecated {
    use super::*;

    #[derive(Clone, Serialize, Deserialize, Syncable)]
    #[sync(model = "bookmark")]
    #[deprecated]
    pub(crate) struct Bookmark {
        #[sync(id)]
        pub(crate) id: u32,
    }
}

#[test]
#[allow(deprecated, reason = "the model is")]
fn a_model_may_be_deprecated() {
    assert_eq!(is_shared(&deprecated::Bookmark { id: 2 }), 2);
}

#[test]
fn the_longest_name_is_accepted() {
    #[derive(Clone, Serialize, Deserialize, Syncable)]
    #[sync(model = "a234567890123456789012345678901234567890123456789012345678901234")]
    struct Named {
        #[sync(id)]
        id: u32,
    }

    assert_eq!(Named::SYNC_MODEL.len(), MODEL_BYTES_MAX);
}

mod vendor {
    pub(crate) mod renamed {
        // Every name that the derived code of a device-owned model uses.
        pub(crate) use syncline::{BoxError, DeviceId, DeviceOwned, RecordId, Syncable};
    }
}

#[test]
fn syncline_may_have_another_path() {
    fn empty(_schema: u16, _value: &[u8]) -> Result<Track, &'static str> {
        Err("empty")
    }

    #[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
    #[sync(crate = vendor::renamed, model = "track", schema = 2, migrate = empty)]
    struct Track {
        #[sync(id)]
        id: u32,
        device_id: DeviceId,
    }

    assert_eq!(is_owned(&Track { id: 9, device_id: DEVICE }), (DEVICE, 9));
    assert_eq!(Track::migrate(1, &[]).unwrap_err().to_string(), "empty");
}

/// An app whose own names are those of the prelude, of the standard library and of `syncline`.
mod shadowed {
    #![allow(dead_code, non_camel_case_types, reason = "the names are here only to be in the way")]

    pub(crate) mod core {}
    pub(crate) mod std {}
    pub(crate) mod syncline {}

    pub(crate) struct Result;
    pub(crate) struct Option;
    pub(crate) struct Vec;
    pub(crate) struct Box;
    pub(crate) struct Ok;
    pub(crate) struct Err;
    pub(crate) struct BoxError;
    pub(crate) struct DeviceId;
    pub(crate) struct Shared;
    pub(crate) struct DeviceOwned;
    pub(crate) struct RecordId;
    pub(crate) struct u16;
    pub(crate) struct str;
    pub(crate) trait Clone {
        fn clone(&self) {}
    }
    pub(crate) trait Into {
        fn into(&self) {}
    }
    pub(crate) trait Syncable {}
    impl<T> Clone for T {}
    impl<T> Into for T {}

    #[derive(Debug, ::syncline::Syncable)]
    #[sync(model = "order", schema = 2, migrate = super::no_order)]
    pub(crate) struct Order {
        #[sync(id)]
        pub(crate) id: ::std::string::String,
        pub(crate) device_id: ::syncline::DeviceId,
    }
}

// Write these outside the module, since the derives of `Clone` and serde do not compile inside it.
impl Clone for shadowed::Order {
    fn clone(&self) -> Self {
        Self { id: self.id.clone(), device_id: self.device_id }
    }
}

impl Serialize for shadowed::Order {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.id, &self.device_id).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for shadowed::Order {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(deserializer).map(|(id, device_id)| Self { id, device_id })
    }
}

fn no_order(_schema: u16, _value: &[u8]) -> Result<shadowed::Order, String> {
    Err("no order".into())
}

#[test]
fn names_of_the_app_are_not_in_the_way() {
    let order = shadowed::Order { id: "a".into(), device_id: DEVICE };
    assert_eq!(is_owned(&order), (DEVICE, "a".to_owned()));
    assert_eq!(shadowed::Order::migrate(1, &[]).unwrap_err().to_string(), "no order");
}

#[test]
fn a_macro_may_write_the_model() {
    macro_rules! model {
        ($model:ident, $name:expr, $schema:literal, $migrate:expr, $id:ident: $type:ty) => {
            #[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
            #[sync(crate = $crate::vendor::renamed, model = $name, schema = $schema, migrate = $migrate)]
            struct $model {
                #[sync(id)]
                $id: $type,
                device_id: DeviceId,
            }
        };
    }

    model!(Cat, "cat", 2, Cat::from_older, id: u32);

    impl Cat {
        fn from_older(_schema: u16, _value: &[u8]) -> Result<Self, BoxError> {
            Ok(Self { id: 1, device_id: DEVICE })
        }
    }

    assert_eq!((Cat::SYNC_MODEL, Cat::SCHEMA), ("cat", 2));
    assert_eq!(is_owned(&Cat::migrate(1, &[]).unwrap()), (DEVICE, 1));
}
