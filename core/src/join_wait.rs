//! Why a replica still waits to be a member, in words that say what to do.

use std::fmt;

use crate::ids::{DeviceId, ReplicaId};

/// Why a joiner still waits for its own member record. See [`Status::joining`](crate::Status::joining).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JoinWait {
    /// The store was opened without a transport, so that it reaches nobody.
    NoTransport,
    /// No answer has come from the introducer.
    NoAnswer {
        /// The replica that the joiner was told to ask.
        introducer: ReplicaId,
        /// Whether the transport says that it reaches this replica.
        connected: bool,
    },
    /// The introducer is of another group than the one that the joiner was told to join.
    OtherGroup {
        /// The replica that the joiner was told to ask.
        introducer: ReplicaId,
    },
    /// The introducer does not know the joiner: nobody has added it yet, or the introducer has not heard of that.
    NotAdded {
        /// The replica that the joiner was told to ask.
        introducer: ReplicaId,
    },
    /// The introducer knows the joiner, which receives what came before it.
    Receiving {
        /// The replica that serves the joiner.
        introducer: ReplicaId,
    },
    /// The replica was added on another device than its own. A member that was at work meets this too, if two members
    /// added it at once: the first add counts. It commits no more until it is added again.
    OtherDevice {
        /// The device of its member record.
        added: DeviceId,
        /// The device of the replica.
        device: DeviceId,
    },
}

impl fmt::Display for JoinWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTransport => f.write_str("it was opened without a transport; pass one to the builder"),
            Self::NoAnswer { introducer, connected: false } => write!(
                f,
                "nobody can be reached as {introducer}; check that id, and that its app runs and has a connection"
            ),
            Self::NoAnswer { introducer, connected: true } => write!(
                f,
                "{introducer} can be reached and does not answer; check that its app runs, in a version that fits, and \
                 that it is a member itself"
            ),
            Self::OtherGroup { introducer } => write!(
                f,
                "{introducer} is of another group; open a new store with the group and the id of one replica of it"
            ),
            Self::NotAdded { introducer } => {
                write!(
                    f,
                    "{introducer} does not know it yet; call `add_member` with its id there, or `add_member_on` with its id and device \
                     at another member"
                )
            }
            Self::Receiving { introducer } => {
                write!(f, "{introducer} knows it and sends what came before it; wait")
            }
            Self::OtherDevice { added, device } => write!(
                f,
                "it was added on device {added} and is on {device}; call `add_member` with its id again, or `take_over` with \
                 {device} if that is another member's"
            ),
        }
    }
}
