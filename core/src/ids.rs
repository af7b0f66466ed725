//! The names of devices, replicas and groups.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Draws a new random id.
            #[allow(clippy::new_without_default, reason = "a default that differs at every call would surprise")]
            #[allow(clippy::disallowed_methods, reason = "the one place where ids are drawn")]
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::new_v4())
            }

            /// Returns the 16 bytes of the id; their order is the order of ids.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Returns the id with these 16 bytes.
            #[inline]
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            /// Reads an id as `Display` writes it: 36 characters, hexadecimal digits of either case and hyphens.
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse(text).map(Self).ok_or_else(|| ParseIdError::new(stringify!($name), text))
            }
        }
    };
}

impl ReplicaId {
    /// The ends of the order of ids.
    pub(crate) const MIN: Self = Self::from_bytes([0; 16]);
    pub(crate) const MAX: Self = Self::from_bytes([0xff; 16]);
}

/// The id that is written as `text`. Of the forms that a UUID may have this is the one that ids are printed in: an id
/// then has one text, and texts can be compared.
fn parse(text: &str) -> Option<Uuid> {
    (text.len() == HYPHENATED_BYTES).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// The length of a UUID that is written with hyphens. No other form of a UUID is as long.
const HYPHENATED_BYTES: usize = 36;

/// A text that is no [`DeviceId`], [`ReplicaId`] or [`GroupId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no {id}; give all 36 characters of an id as it is printed, such as \
     67e55044-10b1-426f-9247-bb680e5fe0c8"
)]
pub struct ParseIdError {
    id: &'static str,
    text: String,
}

impl ParseIdError {
    fn new(id: &'static str, text: &str) -> Self {
        // Anything may have been pasted: show no more of it than an id would need.
        Self { id, text: text.chars().take(HYPHENATED_BYTES + 1).collect() }
    }
}

id! {
    /// Names a device: a phone or a laptop of a user. It never changes; a device **owns** records.
    ///
    /// A new store draws it. Keep a copy where it outlives the store, such as the app's settings: after the loss of the
    /// store, only a replica that is opened with the same device may change the records that it owned.
    DeviceId
}

id! {
    /// Names a replica: one store's life. It is drawn when the store is created; a replica **writes** a stream.
    ///
    /// A wiped, restored or re-joined device is the same device and a new replica, so that no two stores ever
    /// write the same stream.
    ReplicaId
}

id! {
    /// Names a group: the replicas that share one data set.
    GroupId
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an id that was printed is read again, and nothing else is. Method: both ways, and the other forms of UUIDs.
    #[test]
    fn an_id_is_read_as_it_is_printed() {
        let text = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let id: ReplicaId = text.parse().unwrap();
        assert_eq!((id.to_string(), format!("{id:?}")), (text.into(), format!("ReplicaId({text})")));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        assert_eq!(id.to_string().parse::<DeviceId>(), Ok(DeviceId(id.0)));
        assert_eq!(id.to_string().parse::<GroupId>().map(|id| id.0), Ok(id.0));
        let other_forms = [id.0.simple().to_string(), id.0.urn().to_string(), id.0.braced().to_string()];
        let cut = text[..35].to_owned();
        let wrong = format!("{cut}g");
        for no_id in other_forms.into_iter().chain([cut, wrong, format!(" {text}"), String::new()]) {
            let error = no_id.parse::<ReplicaId>().unwrap_err();
            assert!(error.to_string().contains("is no ReplicaId; give all 36 characters"), "{error}");
        }
        let long = "ä".repeat(1_000).parse::<GroupId>().unwrap_err().to_string();
        assert!(long.len() < 250, "{long}");
    }
}
