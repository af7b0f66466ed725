//! The limits that keep memory bounded, whatever callers and peers do: their defaults, and the sizes that follow from
//! them. [`check`] says which values they may have.

mod check;
mod store;

use std::fmt;

use crate::stored::keys::RecordKey;

/// Caps on the sizes and counts that a replica takes. Each is checked before any work is done.
///
/// When a replica is opened, they are lowered to what its store [takes](crate::Storage::limits). The stores of
/// `syncline-backends` take all that the machine can hold.
///
/// Memory holds, at most:
/// - commits that wait: [`queue_bytes_max`](Limits::queue_bytes_max). A caller that waits for room in the queue holds
///   its own commit beside that;
/// - the records that one round replaces and so reads: [`commit_changes_max`](Limits::commit_changes_max) times
///   [`value_bytes_max`](Limits::value_bytes_max), which is the number to lower where values are large;
/// - events that a slow subscriber has not taken: [`event_commits_max`](Limits::event_commits_max) times the keys of a
///   commit;
/// - the changes that `with_tx` stages, one call at a time: as much as one commit.
///
/// ```
/// let limits = syncline::Limits { value_bytes_max: 64 * 1024, ..syncline::Limits::default() };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest record id, encoded. Default 1 KiB.
    pub id_bytes_max: usize,
    /// The largest value, encoded. Default 1 MiB.
    pub value_bytes_max: usize,
    /// The most changes of one commit, and of the commits that share one write. Default 10,000.
    pub commit_changes_max: usize,
    /// The largest commit: the ids and values of its changes. Default 8 MiB.
    pub commit_bytes_max: usize,
    /// The longest log entry of a commit, which has 66 bytes, the name of the model and the id of each of its changes, and
    /// no value. A store holds it in one row. Default 1 MiB.
    pub entry_bytes_max: usize,
    /// The most bytes that commits occupy in memory while they wait for the store; callers wait beyond it. At least
    /// [`commit_bytes_max`](Limits::commit_bytes_max) and 256 bytes for each of
    /// [`commit_changes_max`](Limits::commit_changes_max). Default 64 MiB.
    pub queue_bytes_max: usize,
    /// The most commits that share one write. Default 1,024.
    pub round_commits_max: usize,
    /// How many commits a subscriber to events may fall behind before it is told that it lags. Default 1,024.
    pub event_commits_max: usize,
    /// The longest frame that is taken from a peer. A frame must hold the largest commit, and a hello that names
    /// [`members_max`](Limits::members_max) streams, so this limit is checked against the others. Commits that a peer
    /// sent and the store has not taken yet occupy at most as much again. The limits of all replicas of a group should
    /// be equal: a commit that is too large for one of them stops its stream there. Default 32 MiB.
    pub frame_bytes_max: usize,
    /// How many bytes of commits a page has at most, which a replica asks a peer for when it catches up: a page is shorter
    /// where the link is slow. A peer that has not acknowledged so many bytes of commits gets no more of them live, and
    /// pulls them. Default 1 MiB.
    pub page_bytes_max: usize,
    /// How many log entries are kept at most, those of all streams together. Beyond it the oldest go, though a member may lack
    /// them: that one gets a snapshot instead. An own commit stays until a peer has acknowledged it, and deletes are
    /// remembered as long as ever. Default: no limit, entries stay until every member has acknowledged them.
    pub retain_entries_max: usize,
    /// The same for the bytes of log entries and of the values that are kept for them. They are estimated, from the entries that
    /// were written last. Default: no limit.
    pub retain_bytes_max: usize,
    /// The most replicas of a group, past members included. Default 256.
    pub members_max: usize,
    /// How far a stamp may stand ahead of physical time, in milliseconds. Default 5 minutes.
    pub max_drift_ms: u64,
    /// How far the wall clock may step against the timer between two readings before
    /// [`Event::ClockJumped`](crate::Event::ClockJumped) is told, in milliseconds. Default 1 minute.
    pub max_jump_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            id_bytes_max: 1024,
            value_bytes_max: MIB,
            commit_changes_max: 10_000,
            commit_bytes_max: 8 * MIB,
            entry_bytes_max: MIB,
            queue_bytes_max: 64 * MIB,
            round_commits_max: 1024,
            event_commits_max: 1024,
            frame_bytes_max: 32 * MIB,
            page_bytes_max: MIB,
            retain_entries_max: usize::MAX,
            retain_bytes_max: usize::MAX,
            members_max: 256,
            max_drift_ms: 5 * 60 * 1000,
            max_jump_ms: 60 * 1000,
        }
    }
}

impl Limits {
    /// The most bytes of ids and values in one commit. A single record always fits, also if its id and its value
    /// together are above [`commit_bytes_max`](Limits::commit_bytes_max).
    pub(crate) const fn commit_bytes_most(&self) -> usize {
        let record = self.value_bytes_max.saturating_add(self.id_bytes_max);
        if record > self.commit_bytes_max { record } else { self.commit_bytes_max }
    }

    /// The longest frame that one commit or one hello can need.
    pub(crate) const fn frame_bytes_least(&self) -> usize {
        let changes = self.commit_changes_max.saturating_mul(CHANGE_FRAME_BYTES);
        let commit =
            self.commit_bytes_most().saturating_add(changes).saturating_add(self.frame_bytes_around());
        let hello = self.members_max.saturating_mul(MEMBER_HELLO_BYTES).saturating_add(COMMIT_FRAME_BYTES);
        if hello > commit { hello } else { commit }
    }

    /// The bytes that a frame of one commit can hold beside the commit's changes.
    const fn frame_bytes_around(&self) -> usize {
        self.members_max.saturating_mul(CAUSE_FRAME_BYTES).saturating_add(COMMIT_FRAME_BYTES)
    }

    /// The bytes of the queue that the largest commit of the app occupies.
    pub(crate) const fn queue_bytes_least(&self) -> usize {
        weight(self.commit_bytes_max, self.commit_changes_max)
    }
}

/// The most bytes that a change of such a record has in the log entry of its commit.
pub(crate) fn entry_bytes(record: &RecordKey) -> usize {
    ENTRY_CHANGE_BYTES + record.model().len() + record.id_bytes().len()
}

/// The bytes that a waiting commit of so many changes occupies in memory, if its ids and values have `bytes`.
pub(crate) const fn weight(bytes: usize, changes: usize) -> usize {
    changes.saturating_mul(CHANGE_QUEUE_BYTES).saturating_add(bytes)
}

/// About the bytes that a change occupies in the queue beside its id and its value: key, header, digest and the
/// containers around them.
const CHANGE_QUEUE_BYTES: usize = 256;
/// The bytes of a change in a log entry beside its id and the name of its model: flags, two lengths, epoch, schema, the
/// length of the value and its digest.
const ENTRY_CHANGE_BYTES: usize = 1 + 1 + 2 + 24 + 2 + 4 + 32;
/// The bytes of a change in a frame beside its id and its value: flags, names, digest, schema, length and epoch.
const CHANGE_FRAME_BYTES: usize = 136;
/// The bytes that each member can take in the frame of a commit: if its stream is a cause, 32, and some room.
const CAUSE_FRAME_BYTES: usize = 40;
/// The most bytes that each member can take in a hello: its head, and the word on what it has acknowledged. A group in
/// which no hello fits a frame could never begin to talk.
const MEMBER_HELLO_BYTES: usize = 128;
/// The bytes of a frame in front of the causes and changes: of the log entry, of the commit and of its page.
const COMMIT_FRAME_BYTES: usize = 512;

/// One of the [`Limits`], by name, so that an error says which one to raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The name of the field of [`Limits`].
    pub name: &'static str,
    /// The value of the field.
    pub max: usize,
}

impl PartialEq<usize> for Limit {
    fn eq(&self, other: &usize) -> bool {
        self.max == *other
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`Limits::{}` = {}", self.name, self.max)
    }
}
