//! The names of devices, replicas and groups.

use std::fmt;

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
    };
}

id! {
    /// Names a device: a phone or a laptop of a user. It never changes; a device **owns** records.
    ///
    /// Draw the id once per installation and keep it where the app keeps its settings.
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
