//! The rules of the protocol, each of which tests can switch off to see that something fails without it.

/// The rules in force: all of them, except in tests.
#[allow(clippy::struct_excessive_bools, reason = "each rule is there or not, by itself")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A replica alone in its group, and without a transport, prunes its log.
    pub prune: bool,
    /// Frames of other groups are refused.
    pub groups_are_checked: bool,
    /// Frames of replicas that are no members are refused.
    pub peers_are_members: bool,
    /// Commits of streams whose author never was a member are refused.
    pub authors_are_members: bool,
    /// A commit's device is that of its author's member record.
    pub devices_are_checked: bool,
    /// A commit is applied only as the next one of its stream.
    pub streams_have_no_holes: bool,
    /// A commit is applied only on the history that its author wrote it on.
    pub chains_are_checked: bool,
    /// A commit is applied only after those it rests on.
    pub causes_come_first: bool,
    /// A commit is applied only on the history of its causes that its author had seen.
    pub causes_are_compared: bool,
    /// A run that was rebuilt must end with the digest that its message names.
    pub ends_are_checked: bool,
    /// A stamp beyond the drift bound holds its stream.
    pub drift_is_held: bool,
    /// The clock follows every stamp that is applied.
    pub clock_follows: bool,
    /// The higher stamp wins, not the later arrival.
    pub higher_stamp_wins: bool,
    /// Values of different epochs are not merged.
    pub epochs_are_kept_apart: bool,
    /// A value that a log entry here needs and no record holds is kept.
    pub values_are_kept: bool,
    /// A value that cannot be merged yet lies beside its record until it can.
    pub unmerged_lies_beside: bool,
    /// A joiner commits only once its own member record is here.
    pub joiner_waits: bool,
    /// A replica that learns that its store was restored or cloned stops committing.
    pub restores_are_noticed: bool,
    /// Acknowledgements of a store that was restored, or may have been, do not count.
    pub acks_of_restored_are_void: bool,
    /// An acknowledgement covers only what is durable.
    pub acks_are_durable: bool,
    /// A pull leaves out held and forked streams, so that they do not keep others from a page.
    pub pulls_exclude: bool,
    /// A log row and a value are served only undamaged.
    pub served_rows_are_checked: bool,
    /// A peer that says that a stream has two histories must show it.
    pub accusers_show: bool,
    /// The bytes of a page, and the time that it may take, follow what the last pages took on the link.
    pub pages_follow_the_link: bool,
    /// A commit is sent live only to those who have all that comes before it.
    pub live_follows: bool,
    /// A snapshot is staged, and becomes visible in one switch.
    pub staged: bool,
    /// The switch waits for the log up to all that the pages of a snapshot rest on.
    pub need_tail: bool,
    /// Another peer continues a snapshot only if its heads cover what that rests on.
    pub resume_needs_cover: bool,
    /// A record that is missing in a snapshot is removed only if the sender had its commit.
    pub absence_needs_cover: bool,
    /// An install takes over the highest tombstone stamps that its sender has dropped.
    pub takes_forgotten: bool,
    /// The logs that every member has acknowledged are pruned, and then their tombstones.
    pub prunes_by_acks: bool,
    /// An acknowledgement counts only where its digest is the one here.
    pub acks_are_compared: bool,
    /// An acknowledgement lets a tombstone go only once every head of its hello is here too.
    pub ack_needs_cover: bool,
    /// A tombstone goes only after its log.
    pub tombstones_wait_for_their_log: bool,
    /// A member that was never heard of has acknowledged nothing.
    pub members_never_heard_count: bool,
}

impl Rules {
    /// All rules.
    pub const ALL: Self = Self {
        prune: true,
        groups_are_checked: true,
        peers_are_members: true,
        authors_are_members: true,
        devices_are_checked: true,
        streams_have_no_holes: true,
        chains_are_checked: true,
        causes_come_first: true,
        causes_are_compared: true,
        ends_are_checked: true,
        drift_is_held: true,
        clock_follows: true,
        higher_stamp_wins: true,
        epochs_are_kept_apart: true,
        values_are_kept: true,
        unmerged_lies_beside: true,
        joiner_waits: true,
        restores_are_noticed: true,
        acks_of_restored_are_void: true,
        acks_are_durable: true,
        pulls_exclude: true,
        served_rows_are_checked: true,
        accusers_show: true,
        pages_follow_the_link: true,
        live_follows: true,
        staged: true,
        need_tail: true,
        resume_needs_cover: true,
        absence_needs_cover: true,
        takes_forgotten: true,
        prunes_by_acks: true,
        acks_are_compared: true,
        ack_needs_cover: true,
        tombstones_wait_for_their_log: true,
        members_never_heard_count: true,
    };
}

impl Default for Rules {
    fn default() -> Self {
        Self::ALL
    }
}

/// Something that happened in a replica. Tests whose histories never set a mark prove less than they seem to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Mark {
    /// A commit came that was here already.
    Duplicate,
    /// A commit came before one that it rests on.
    TooEarly,
    /// A stamp was beyond the drift bound.
    Held,
    /// A held stream went on.
    Resumed,
    /// A value was beaten on arrival.
    Beaten,
    /// A tombstone beat a put that came later.
    LatePut,
    /// Two values made a new one.
    Mixed,
    /// A value of another epoch was kept apart.
    OtherEpoch,
    /// A value could not be merged yet.
    Beside,
    /// A page did not hold everything.
    MorePages,
    /// A peer did not answer in time.
    TimedOut,
    /// A commit of another replica was served.
    Relayed,
    /// Received commits could not be written.
    ReceiveFailed,
    /// A joiner became a member.
    BecameMember,
    /// A store learned that it was restored.
    Restored,
    /// A stream had two histories.
    Forked,
    /// A frame was refused.
    Rejected,
    /// There was no room for a commit.
    Full,
    /// Two stamps had the same wall time.
    TieOnWall,
    /// Two stamps differed in their replica alone.
    TieOnCounter,
    /// A peer said that it takes no more of the own stream.
    Refused,
    /// A damaged place was found in a log here.
    Damaged,
    /// The word of a peer on a stream contradicted what was here.
    Doubted,
    /// A page of a snapshot was served.
    ServedRecords,
    /// A snapshot was installed.
    Installed,
    /// A snapshot began anew, and what was staged was given up.
    InstallBeganAnew,
    /// The log had been pruned behind the place where a snapshot began.
    TailPruned,
    /// A snapshot began since the log of every peer was much longer.
    LongerLog,
}

/// The marks that were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u32);

impl Marks {
    pub(crate) fn note(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u32;
    }

    #[cfg(test)]
    pub(crate) fn has(self, mark: Mark) -> bool {
        self.0 >> mark as u32 & 1 == 1
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    #[cfg(feature = "internals-for-tests")]
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }
}

/// The names of all marks, in the order of their bits.
#[cfg(feature = "internals-for-tests")]
pub const MARKS: [&str; 28] = [
    "duplicate",
    "too early",
    "held",
    "resumed",
    "beaten",
    "late put",
    "mixed",
    "other epoch",
    "beside",
    "more pages",
    "timed out",
    "relayed",
    "receive failed",
    "joined",
    "restored",
    "forked",
    "rejected",
    "full",
    "tie on wall",
    "tie on counter",
    "refused",
    "damaged",
    "doubted",
    "served records",
    "installed",
    "install began anew",
    "tail pruned",
    "longer log",
];
