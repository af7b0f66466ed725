//! How far commits have come in the group: the answers of the calls that wait for peers.

use std::fmt;

use crate::events::Refusal;
use crate::ids::ReplicaId;
use crate::join_wait::JoinWait;

/// Names one commit: the replica that made it, and its sequence number in the stream of that replica.
///
/// [`last_commit`](crate::TransactionManager::last_commit) gives it after a commit, and
/// [`Change::commit`](crate::Change::commit) in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId {
    /// The replica that made the commit.
    pub replica: ReplicaId,
    /// The sequence number of the commit in the stream of that replica.
    pub seq: u64,
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit {} of {}", self.seq, self.replica)
    }
}

/// The members that have a commit in their stores, as far as this replica knows. See
/// [`durable_on`](crate::TransactionManager::durable_on).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the time may have run out before there were enough members"]
#[non_exhaustive]
pub struct DurableOn {
    /// The commit.
    pub commit: CommitId,
    /// The members that have it for certain, in the order of their ids: this replica, if the commit is here; its author, as
    /// soon as it is here; and every member that has acknowledged it to this replica.
    pub members: Vec<ReplicaId>,
    /// The members of which only another member says that they have it, in the order of their ids: those that this replica
    /// does not hear itself. Such a word is known of own commits alone, and is hearsay: see
    /// [`PeerStatus::acknowledged`](crate::PeerStatus::acknowledged).
    pub relayed: Vec<ReplicaId>,
}

impl DurableOn {
    /// How many members have the commit, those included of which another member says so.
    #[must_use]
    pub fn count(&self) -> usize {
        self.members.len().saturating_add(self.relayed.len())
    }

    /// Whether a member has the commit, or another member says that it has.
    #[must_use]
    pub fn contains(&self, member: ReplicaId) -> bool {
        self.members.contains(&member) || self.relayed.contains(&member)
    }
}

/// The answer of [`wait_synced`](crate::TransactionManager::wait_synced).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the time may have run out, or there may be nobody to sync with"]
#[non_exhaustive]
pub enum Synced {
    /// This replica and every member that it reaches have each other's commits.
    Level {
        /// The members that this replica reaches, in the order of their ids.
        with: Vec<ReplicaId>,
        /// The other members, which it does not reach: they may have commits that are missing here, and lack some that are
        /// here.
        away: Vec<ReplicaId>,
        /// The streams of which a member has more than is here, and which do not go on here:
        /// [`StreamStatus::stopped`](crate::StreamStatus::stopped) and its neighbours say why. Waiting does not end that.
        stopped: Vec<ReplicaId>,
    },
    /// This replica reaches no other member, so there is nobody to wait for.
    Alone {
        /// The other members. There are none in a group of one, and for a joiner, which does not know them yet.
        away: Vec<ReplicaId>,
    },
    /// The time ran out. It holds what still differs.
    NotYet(Unsynced),
}

impl Synced {
    /// Whether this replica is level with at least one other member, and no stream that it reaches is stopped here.
    #[must_use]
    pub fn is_level(&self) -> bool {
        matches!(self, Self::Level { stopped, .. } if stopped.is_empty())
    }
}

/// What still differs between this replica and the members that it reaches. See [`Synced::NotYet`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsynced {
    /// Why this replica is no member yet, if it waits for that: until it is one, it is level with nobody.
    pub joining: Option<JoinWait>,
    /// How many commits of peers were received and wait for the store.
    pub received: usize,
    /// The members that this replica reaches and is not level with, in the order of their ids.
    pub peers: Vec<PeerLag>,
}

/// What differs between this replica and a member that it reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerLag {
    /// The member.
    pub replica: ReplicaId,
    /// Whether the member was heard since it is connected, and not long ago. If not, nobody knows what it has.
    pub heard: bool,
    /// The streams of which the member has commits that are missing here, and how many, in the order of their ids.
    pub missing_here: Vec<(ReplicaId, u64)>,
    /// How many commits of this replica the member has not acknowledged.
    pub missing_there: u64,
    /// Whether the member says that its store was restored or cloned, so that it acknowledges nothing.
    pub restored: bool,
    /// Why the member takes no more of this replica's stream, if it said so.
    pub refuses: Option<Refusal>,
}
