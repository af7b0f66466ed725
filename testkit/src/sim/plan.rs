//! What happens in a run, as data, so that it can be shortened, printed and repeated.

mod apps;
mod crowd;
mod rates;
mod sizes;
mod snapshots;
mod swarm;

use serde::{Deserialize, Serialize};

use super::app::Version;
use super::store::StoreFault;
use super::tables::Trouble;
use super::time::Wall;
pub use rates::Rate;
pub use sizes::Sizes;

/// A whole run: how many replicas there are, and what happens to them, step by step.
///
/// A process is named by its place, counted from the founder on. A place that no process has counts round and round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The seed of everything that the steps leave open: the order of tasks, losses, delays.
    pub seed: u64,
    /// How many replicas there are at first.
    pub replicas: u8,
    /// How many different ids of each model are used. Few of them make concurrent changes of one record frequent.
    pub ids: u32,
    /// The bytes of a page of commits.
    pub page_bytes: u32,
    /// The replicas whose other limits are as small as they may be: one bit each.
    pub tight: u8,
    /// The replicas whose app does not know sets until the faults end: one bit each.
    pub older_apps: u8,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// How long after the step before it.
    pub after_ms: u32,
    /// What happens.
    pub action: Action,
}

/// What can happen in a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// An app commits.
    Commit {
        /// The place of its process.
        at: u8,
        /// The changes of the commit.
        edits: Vec<Edit>,
        /// After how many polls the app drops the call; never, if this is `None`.
        cancelled: Option<u8>,
    },
    /// An app commits both notes of the pair, so that a reader must always find them equal.
    Pair {
        /// The place of its process.
        at: u8,
    },
    /// A process dies, and comes back.
    Crash {
        /// The place of the process.
        at: u8,
        /// Whether a write that the crash cuts off is applied.
        applied: bool,
        /// How long the process is away; for ever, if this is `None`.
        down_ms: Option<u32>,
    },
    /// A process shuts down in order, and starts again.
    Stop {
        /// The place of the process.
        at: u8,
        /// How long the process is away.
        down_ms: u32,
    },
    /// One operation of a store fails.
    Fault {
        /// The place of the store's process.
        at: u8,
        /// How many operations of the store come before the one that fails.
        after: u8,
        /// How it fails.
        fault: StoreFault,
    },
    /// A disk becomes full, or has space again.
    Full {
        /// The place of the disk's process.
        at: u8,
        /// Whether it is full.
        full: bool,
    },
    /// Writes of a store take this long from now on.
    Slow {
        /// The place of the store's process.
        at: u8,
        /// How long a write takes.
        write_ms: u16,
    },
    /// A copy of a disk is kept for a later [`Restore`](Self::Restore).
    Backup {
        /// The place of the disk's process.
        at: u8,
    },
    /// A process dies and comes back with the copy of its disk. From then on its app only reads.
    Restore {
        /// The place of the process.
        at: u8,
    },
    /// The link from one replica to another changes.
    Link {
        /// The place of the sender.
        from: u8,
        /// The place of the receiver.
        to: u8,
        /// How many of a hundred frames are lost, repeated, reordered and damaged.
        percent: [u8; 4],
        /// The longest delay of a frame.
        delay_ms: u16,
        /// Whether no frame passes at all.
        blocked: bool,
    },
    /// The network is cut in two.
    Partition {
        /// The replicas of one side: one bit each.
        mask: u8,
    },
    /// Two replicas are disconnected, and both are told.
    Disconnect {
        /// The place of one replica.
        one: u8,
        /// The place of the other one.
        other: u8,
    },
    /// All links are as they were at the beginning.
    Heal,
    /// A wall clock shows something else from now on.
    Clock {
        /// The place of the clock's process.
        at: u8,
        /// What it shows.
        wall: Wall,
    },
    /// A process hangs for a while.
    Pause {
        /// The place of the process.
        at: u8,
        /// For how long.
        ms: u32,
    },
    /// Another replica joins.
    Join {
        /// The place of the replica that introduces it. Nothing reads this: the founder introduces all of them.
        introducer: u8,
    },
    /// Two replicas are disconnected and connected again, several times in a row.
    Flap {
        /// The place of one replica.
        one: u8,
        /// The place of the other one.
        other: u8,
        /// How many times.
        times: u8,
    },
    /// A peer sends bytes that are no message of the protocol.
    Noise {
        /// The place of the sender.
        from: u8,
        /// The place of the receiver.
        to: u8,
        /// The kind of message that the frame claims to be, with a length and a checksum that fit; no frame at all, if
        /// this is `None`.
        kind: Option<u8>,
        /// How many bytes.
        len: u16,
    },
    /// A frame that was sent long ago arrives once more.
    Late {
        /// The place of its sender.
        from: u8,
        /// The place of its receiver.
        to: u8,
        /// How many frames ago it was sent.
        ago: u8,
    },
    /// Reads of a store take this long from now on.
    SlowReads {
        /// The place of the store's process.
        at: u8,
        /// How long a read takes.
        read_ms: u16,
    },
    /// A subscriber takes this long for each event from now on.
    SlowSubscriber {
        /// The place of the subscriber's process.
        at: u8,
        /// How long it takes.
        event_ms: u16,
    },
    /// Two replicas reach each other over a slow link from now on.
    Rate {
        /// The place of one replica.
        one: u8,
        /// The place of the other one.
        other: u8,
        /// How slow it is.
        rate: Rate,
    },
    /// An app commits a large value.
    Large {
        /// The place of its process.
        at: u8,
        /// The id of the record.
        id: u32,
        /// How large the value is.
        kib: u16,
    },
    /// An app makes many small commits.
    Many {
        /// The place of its process.
        at: u8,
        /// How many.
        count: u16,
    },
    /// A bit of a row flips on the disk of one process, the same one in all of a run. Its app deletes nothing from then on.
    Flip {
        /// The place of the process.
        at: u8,
        /// The place of the row, among those of logs and of values.
        row: u32,
        /// The place of the bit.
        bit: u32,
    },
    /// A process dies and never comes back, whichever it is, if another one can add joiners.
    Lose {
        /// The place of the process.
        at: u8,
    },
    /// A process dies and comes back with the copy of its disk, and its app goes on writing: its stream may get a second
    /// history.
    Revive {
        /// The place of the process.
        at: u8,
        /// The network is cut in two, with these replicas on one side: one bit each. It stays whole, if this is 0.
        mask: u8,
    },
    /// Another replica joins through a member.
    JoinThrough {
        /// The place of the member. Once that is lost, another one takes its place.
        introducer: u8,
        /// The place of a process on whose device the replica is; on its own, if this is `None`.
        device_of: Option<u8>,
    },
    /// An app writes a row of its own in one transaction with a change of a record.
    Joined {
        /// The place of its process.
        at: u8,
        /// The change, always a put; only the row is written, if this is `None`.
        edit: Option<Edit>,
        /// How the code of the app fails once it has done both; not at all, if this is `None`.
        failing: Option<Failing>,
    },
    /// An app changes a note as its own code says that is given the note.
    Change {
        /// The place of its process.
        at: u8,
        /// The id of the note.
        id: u32,
        /// How the code of the app fails; not at all, if this is `None`.
        failing: Option<Failing>,
    },
    /// A process dies and comes back with another version of its app.
    Update {
        /// The place of the process.
        at: u8,
        /// The version.
        to: Version,
    },
    /// The projections of an app fail from now on, or no more.
    Trouble {
        /// The place of its process.
        at: u8,
        /// How they fail.
        trouble: Option<Trouble>,
    },
    /// A process dies and comes back with other limits.
    Limits {
        /// The place of the process.
        at: u8,
        /// Its limits.
        sizes: Sizes,
    },
}

/// How code of an app fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failing {
    /// The code returns an error.
    Error,
    /// The code panics.
    Panic,
}

/// A change that an app makes to the record with this id: a put if the flag is set, otherwise a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edit {
    /// Of a shared record.
    Note(u32, bool),
    /// Of a record of the device.
    Place(u32, bool),
    /// Of a shared record with its own merge.
    Set(u32, bool),
}

/// How far ahead a clock may be set: so far that no run waits until time has caught up with it.
pub(super) const FAR_MS: i64 = 10 * 365 * 24 * 3600 * 1000;

/// The most replicas of a run, unless it begins with more.
pub(super) const REPLICAS_MAX: u8 = 7;

impl Plan {
    /// The most processes of the run.
    pub(super) fn places_max(&self) -> usize {
        usize::from(self.replicas.max(REPLICAS_MAX))
    }

    /// Whether some commits are too large for the limits of some replicas, whose streams stop there.
    pub(super) fn limits_differ(&self) -> bool {
        let has = |is: fn(&Action) -> bool| self.steps.iter().any(|step| is(&step.action));
        let is_small = |action: &Action| match action {
            Action::Limits { sizes, .. } => matches!(sizes, Sizes::Small | Sizes::SmallValues),
            _ => false,
        };
        (self.tight != 0 || has(is_small)) && has(|action| matches!(action, Action::Large { .. }))
    }

    /// Writes the plan in one line, for [`Plan::parse`].
    #[must_use]
    pub fn to_line(&self) -> String {
        let bytes = postcard::to_allocvec(self).expect("a plan can be encoded");
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads the plan of a line that [`to_line`](Self::to_line) wrote; `None` if the line is no plan.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let digits = line.trim();
        let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
        postcard::from_bytes(&bytes?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_comes_back_from_its_line() {
        for seed in 0..50 {
            let plan = Plan::generate(seed);
            assert_eq!(Plan::generate(seed), plan);
            assert_eq!(Plan::parse(&plan.to_line()), Some(plan));
        }
        assert_eq!(Plan::parse("zz"), None);
        assert_eq!(Plan::parse("0"), None);
    }
}
