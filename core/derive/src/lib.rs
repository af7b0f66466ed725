#![forbid(unsafe_code)]
//! The `Syncable` derive macro of `syncline`, which re-exports it.

mod expand;
mod keys;
mod model;
mod serde_attributes;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives the trait `Syncable` for a struct with named fields: its values replicate as records of one model.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use syncline::{DeviceId, Syncable, Uuid};
///
/// // No field `device_id`, so the model is `Shared`: every member may change every record.
/// #[derive(Clone, Serialize, Deserialize, Syncable)]
/// #[sync(model = "tag")]
/// struct Tag {
///     #[sync(id)]
///     id: Uuid,
///     name: String,
/// }
///
/// // A field `device_id`, so the model is `DeviceOwned`: only that device may change the record.
/// #[derive(Clone, Serialize, Deserialize, Syncable)]
/// #[sync(model = "location")]
/// struct Location {
///     #[sync(id)]
///     id: Uuid,
///     device_id: DeviceId,
///     path: String,
/// }
///
/// let tag = Tag { id: Uuid::from_u128(1), name: "urgent".into() };
/// assert_eq!(Tag::SYNC_MODEL, "tag");
/// assert_eq!(tag.sync_id(), tag.id);
///
/// let device_id = DeviceId::new();
/// let location = Location { id: Uuid::from_u128(2), device_id, path: "/photos".into() };
/// assert_eq!(location.sync_id(), (device_id, location.id));
/// ```
///
/// # On the struct
/// The keys of `#[sync(..)]`, in one list or in several:
///
/// | key | meaning |
/// |---|---|
/// | `model = "tag"` | The model's name, the same on all devices and for ever: 1 to 64 bytes, not starting with `syncline.`. Required |
/// | `schema = 2` | The version of the fields, 1 to 65535. 1 if absent |
/// | `migrate = path::to::function` | The function that reads values of earlier schemas: `fn(u16, &[u8]) -> Result<Self, E>`, where `E: Into<BoxError>`. Without it such values cannot be read |
/// | `merge = path::to::function` | The function that makes one value of two, for a shared model: `fn(Self, Self) -> Self`, see `Syncable::merge`. Without it the later commit wins |
/// | `shared` | The model is shared even if it has a field `device_id`. On a model without that field it changes nothing now, and keeps the model shared if the field is added later |
/// | `crate = path` | The path of `syncline`, if it is not `::syncline` |
///
/// # On a field
/// `#[sync(id)]`, on exactly one field, makes it the record's id; its type is a `SyncId`. A field `device_id` that
/// makes the model device-owned is a `DeviceId`, and is not itself the id.
///
/// # Changing the fields
/// Values are not self-describing, so every change of the fields is a new schema:
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use syncline::{BoxError, Syncable};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
/// #[sync(model = "note", schema = 2, migrate = Note::from_older)]
/// struct Note {
///     #[sync(id)]
///     id: u64,
///     text: String,
///     pinned: bool,
/// }
///
/// impl Note {
///     fn from_older(schema: u16, value: &[u8]) -> Result<Self, BoxError> {
///         assert_eq!(schema, 1);
///         let (id, text) = syncline::decode(value)?; // schema 1 was the id and the text
///         Ok(Note { id, text, pinned: false })
///     }
/// }
///
/// assert_eq!(Note::SCHEMA, 2);
/// let note = Note::migrate(1, &syncline::encode(&(7_u64, "milk"))?)?;
/// assert_eq!(note, Note { id: 7, text: "milk".into(), pinned: false });
/// # Ok::<(), BoxError>(())
/// ```
///
/// `value` is what `syncline::encode` made of the earlier struct: keep that struct, or a tuple of its fields, and decode
/// with `syncline::decode`.
///
/// A generic struct is refused: each of its instances would be another type under the same name.
#[proc_macro_derive(Syncable, attributes(sync))]
pub fn derive_syncable(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    model::read(&input).map_or_else(|errors| errors.to_compile_error(), |model| expand::expand(&model)).into()
}
