//! The caps that keep memory bounded, whatever callers and peers do: their defaults, and the sizes that follow from
//! them. [`check`] says which values they may have.

mod check;

use std::fmt;

/// Caps on what a replica takes. Everything is checked before any work is done with it.
///
/// What bounds memory: commits that wait, by [`queue_bytes_max`](Limits::queue_bytes_max); the records that one round
/// replaces and so reads, by [`commit_changes_max`](Limits::commit_changes_max) times
/// [`value_bytes_max`](Limits::value_bytes_max), which is the number to lower where values are large; events that a
/// slow subscriber has not taken, by [`event_commits_max`](Limits::event_commits_max) times the keys of a commit. A
/// caller that waits for the queue holds its own commit. What `with_tx` stages, one call at a time, is bounded as a
/// commit is.
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
    /// The most changes of one commit, and of the commits that share one write. Default 65,536.
    pub commit_changes_max: usize,
    /// The largest commit: the ids and values of its changes. Default 16 MiB.
    pub commit_bytes_max: usize,
    /// What commits may hold in memory while they wait for the store; callers wait beyond it. At least
    /// [`commit_bytes_max`](Limits::commit_bytes_max). Default 64 MiB.
    pub queue_bytes_max: usize,
    /// The most commits that share one write. Default 1,024.
    pub round_commits_max: usize,
    /// How many commits a subscriber to events may fall behind before it is told that it lags. Default 1,024.
    pub event_commits_max: usize,
    /// The longest frame that is taken from a peer. It must hold the largest commit, so it is checked against the
    /// limits above. Commits that a peer sent and the store has not taken yet occupy at most as much again. The limits
    /// of all replicas of a group should be equal: a commit that is too large for one of them stops its stream there.
    /// Default 32 MiB.
    pub frame_bytes_max: usize,
    /// How many bytes of commits a replica asks a peer for at once when it catches up. Default 1 MiB.
    pub page_bytes_max: usize,
    /// The most replicas of a group, those that were and those that are. Default 256.
    pub members_max: usize,
    /// How far a stamp may stand ahead of physical time, in milliseconds. Default 5 minutes.
    pub max_drift_ms: u64,
    /// How far the wall clock may step against the timer between two readings before an event says so, in
    /// milliseconds. Default 1 minute.
    pub max_jump_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            id_bytes_max: 1024,
            value_bytes_max: MIB,
            commit_changes_max: 65_536,
            commit_bytes_max: 16 * MIB,
            queue_bytes_max: 64 * MIB,
            round_commits_max: 1024,
            event_commits_max: 1024,
            frame_bytes_max: 32 * MIB,
            page_bytes_max: MIB,
            members_max: 256,
            max_drift_ms: 5 * 60 * 1000,
            max_jump_ms: 60 * 1000,
        }
    }
}

impl Limits {
    /// The most bytes of ids and values in one commit. A single record always fits, also where its id and its value
    /// together are above [`commit_bytes_max`](Limits::commit_bytes_max).
    pub(crate) const fn commit_bytes_most(&self) -> usize {
        let record = self.value_bytes_max.saturating_add(self.id_bytes_max);
        if record > self.commit_bytes_max { record } else { self.commit_bytes_max }
    }

    /// The longest frame that one commit can need.
    pub(crate) const fn frame_bytes_least(&self) -> usize {
        let changes = self.commit_changes_max.saturating_mul(CHANGE_FRAME_BYTES);
        self.commit_bytes_most().saturating_add(changes).saturating_add(self.frame_bytes_around())
    }

    /// What a frame of one commit can hold beside the commit's changes.
    const fn frame_bytes_around(&self) -> usize {
        self.members_max.saturating_mul(CAUSE_FRAME_BYTES).saturating_add(COMMIT_FRAME_BYTES)
    }

    /// What the largest commit of the app occupies of the queue.
    pub(crate) const fn queue_bytes_least(&self) -> usize {
        weight(self.commit_bytes_max, self.commit_changes_max)
    }
}

/// What a commit of so many changes occupies in memory while it waits, if `bytes` are those of its ids and values.
pub(crate) const fn weight(bytes: usize, changes: usize) -> usize {
    changes.saturating_mul(CHANGE_QUEUE_BYTES).saturating_add(bytes)
}

/// What a change occupies in the queue beside its id and its value: key, header, digest and the containers around
/// them, about.
const CHANGE_QUEUE_BYTES: usize = 256;
/// What a change takes in a frame beside its id and its value: flags, names, digest, schema, length and epoch.
const CHANGE_FRAME_BYTES: usize = 136;
/// What each member takes in a frame: a commit names a head of its stream, in 24 bytes, if it rests on that.
const CAUSE_FRAME_BYTES: usize = 32;
/// What begins a log entry, a commit and the page that it comes in.
const COMMIT_FRAME_BYTES: usize = 512;

/// One of the [`Limits`], named, so that an error says which one to raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The field of [`Limits`].
    pub name: &'static str,
    /// Its value.
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
