//! What the stores hold: entries, which are this device's own, and tags, which all devices share.

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Syncable};

use crate::path_id::PathId;

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "entry")]
pub struct Entry {
    /// Where it lies.
    #[sync(id)]
    pub path: PathId,
    /// Whose disk it lies on.
    pub device_id: DeviceId,
    /// The directory it lies in; `None` if that is the walked one, which has no entry.
    pub parent: Option<PathId>,
    /// Its name as it is shown: what is not UTF-8 in it shows as `�`, and is kept in `path`.
    pub name: String,
    /// The id of its [`Tag`].
    pub kind: String,
    /// The length of a file, or of a link's target; 0 for everything else.
    pub size: u64,
    /// When its content changed last, in milliseconds since 1970, negative before; `None` if the system cannot say.
    pub modified_ms: Option<i64>,
}

/// A kind of entry, such as `image`.
///
/// Tags stay when the last entry of their kind goes: they are shared, and another device may use them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "tag")]
pub struct Tag {
    /// The kind's name. The same on all devices, so that they mean the same record without asking each other.
    #[sync(id)]
    pub id: String,
    /// The name as it is shown.
    pub name: String,
}

impl Tag {
    /// The tag of a kind.
    #[must_use]
    pub fn of_kind(kind: &str) -> Self {
        let mut name = kind.to_owned();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Self { id: kind.to_owned(), name }
    }
}
