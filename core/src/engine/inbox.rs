//! What peers sent and the store has not taken yet: commits that were checked, in the order in which they may be applied.
//!
//! A commit is taken only as the next one of its stream, on the same history, with everything that it rests on here or
//! in front of it, so the inbox can be written front to back in as few writes as it fits. If a write fails, the rest
//! rests on what is not there, so all of it goes and is pulled again.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::merge::Received;
use super::wire::WireCommit;
use super::{Engine, Mark, STREAMS_MAX};
use crate::events::StreamStop;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, ReplicaId};
use crate::limits::Limit;
use crate::member::Member;
use crate::model;
use crate::stored::keys::RecordKey;
use crate::stored::log::chain;
use crate::stored::{Digest, Head, LogEntry, Point, digest};
use crate::syncable::Syncable;

/// Commits that wait to be applied.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) commits: VecDeque<Received>,
    pub(super) bytes: usize,
    /// The bytes of those that the last page brought.
    pub(super) last_page: usize,
    /// The heads of the streams once all of it is applied, where they differ from the durable ones.
    tips: BTreeMap<ReplicaId, Tip>,
    /// The members that it adds.
    members: BTreeMap<ReplicaId, DeviceId>,
    /// How many commits the write under way applies.
    pub(super) in_write: usize,
    /// How many commits are applied one by one, since one of them was refused by a projection or the store.
    pub(super) one_by_one: usize,
}

/// Where a stream is, or will be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip {
    pub(super) seq: u64,
    stamp: Hlc,
    digest: Digest,
}

impl Tip {
    pub(super) const fn point(&self) -> Point {
        Point { seq: self.seq, digest: self.digest }
    }
}

/// What became of a commit that a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It waits to be applied.
    Queued,
    /// It is here already.
    Duplicate,
    /// Its stream goes no further here, or is none that is listened to.
    Left,
    /// Something that it needs is not here: the commits before it, or one that it rests on.
    TooEarly,
    /// There is no room for it now.
    Full,
    /// It was not sent as its author made it.
    Wrong(&'static str),
}

impl Inbox {
    /// Forgets everything that waits, since a write of some of it failed. If it was a write of several, they come one by
    /// one the next time, in case a single one of them is why.
    pub(super) fn reset(&mut self) {
        let one_by_one = if self.in_write > 1 { self.in_write } else { self.one_by_one };
        *self = Self { one_by_one, ..Self::default() };
    }

    /// Takes note that what was taken from it is applied.
    pub(super) fn settle(&mut self) {
        if self.commits.is_empty() {
            self.tips.clear();
            self.members.clear();
        }
    }
}

impl Engine {
    /// The head of a stream once everything that waits is applied.
    pub(super) fn tip(&self, stream: ReplicaId) -> Tip {
        self.sync.inbox.tips.get(&stream).copied().unwrap_or_else(|| {
            let Head { seq, stamp, digest, .. } =
                self.pen.heads.get(&stream).copied().unwrap_or_else(|| Head::start(stream));
            Tip { seq, stamp, digest }
        })
    }

    /// The streams that are here or will be.
    pub(super) fn tips(&self) -> impl Iterator<Item = (ReplicaId, Point)> {
        let streams: std::collections::BTreeSet<_> =
            self.pen.heads.keys().chain(self.sync.inbox.tips.keys()).copied().collect();
        streams.into_iter().map(|stream| (stream, self.tip(stream).point())).filter(|(_, tip)| tip.seq > 0)
    }

    fn device_of(&self, stream: ReplicaId) -> Option<DeviceId> {
        let known = self.members.get(&stream).map(|member| member.device);
        known.or_else(|| self.sync.inbox.members.get(&stream).copied())
    }

    /// Whether the stream is one of a replica that is or was a member, or will be once everything is applied.
    pub(super) fn is_known_stream(&self, stream: ReplicaId) -> bool {
        self.device_of(stream).is_some()
            || self.is_joining() && self.has_room_for(stream)
            || !self.rules.authors_are_members
    }

    /// Whether a stream is here, or may be one more. A joiner takes those of whom it does not know yet that they are
    /// members, as many as a group may have.
    fn has_room_for(&self, stream: ReplicaId) -> bool {
        let (heads, tips, stops) = (&self.pen.heads, &self.sync.inbox.tips, &self.sync.stops);
        let here = heads.contains_key(&stream) || tips.contains_key(&stream) || stops.contains_key(&stream);
        here || heads.len() + tips.len() + stops.len() < STREAMS_MAX
    }

    /// Checks a commit that `from` sent, and takes it if it may be applied after those that wait.
    pub(super) fn admit(&mut self, from: ReplicaId, commit: &WireCommit) -> Admission {
        let admission = self.judge(from, commit);
        match admission {
            Admission::Duplicate => self.mark(Mark::Duplicate),
            Admission::TooEarly => self.mark(Mark::TooEarly),
            Admission::Full => self.mark(Mark::Full),
            Admission::Queued | Admission::Left | Admission::Wrong(_) => {}
        }
        // Whoever sends a commit has it, whatever becomes of it here.
        self.note_has(from, commit.stream, commit.seq);
        admission
    }

    fn judge(&mut self, from: ReplicaId, commit: &WireCommit) -> Admission {
        let (stream, seq) = (commit.stream, commit.seq);
        if stream == self.me() {
            if seq > self.pen.head().seq {
                self.note_restored(stream, seq);
            }
            return Admission::Duplicate;
        }
        if self.is_stopped_for(stream, from) || !self.is_known_stream(stream) {
            return Admission::Left;
        }
        let tip = self.tip(stream);
        if seq <= tip.seq {
            if seq == tip.seq && chain(&commit.previous, &commit.entry) != tip.digest {
                self.note_fork(stream, seq);
                return Admission::Left;
            }
            return Admission::Duplicate;
        }
        let follows = seq == tip.seq + 1;
        if !follows && self.rules.streams_have_no_holes {
            return Admission::TooEarly;
        }
        if follows && commit.previous != tip.digest && self.rules.chains_are_checked {
            if tip.seq == 0 {
                return Admission::Wrong("a stream begins with another digest than streams do");
            }
            self.note_fork(stream, tip.seq);
            return Admission::Left;
        }
        // From here on it is the next one of its history. What is wrong with it stays, unless another than its author
        // sent it.
        let changes_max = self.limits.commit_changes_max;
        let Ok(entry) = LogEntry::parse_capped(stream, &commit.entry, changes_max) else {
            let limit = Limit { name: "commit_changes_max", max: changes_max };
            let reason = format!("it is of a newer version, has more changes than {limit}, or is damaged");
            return self.refuse_commit(from, stream, seq, reason);
        };
        if let Err(reason) = self.check_entry(&tip, seq, &entry) {
            return self.refuse_commit(from, stream, seq, reason);
        }
        for (cause, cause_seq) in entry.after.clone() {
            if cause == self.me() && cause_seq > self.pen.head().seq {
                self.note_restored(cause, cause_seq);
            }
            if self.tip(cause).seq < cause_seq && self.rules.causes_come_first {
                // Whoever has a commit has what it rests on.
                self.note_has(from, cause, cause_seq);
                return Admission::TooEarly;
            }
        }
        if !self.is_within_drift(entry.stamp) && self.rules.drift_is_held {
            if self.pen.wall.is_err() {
                // Nobody can tell the time: it is asked for again.
                return Admission::TooEarly;
            }
            if !self.sync.released.contains(&stream) {
                self.stop_stream(stream, from, StreamStop::Held { seq, stamp: entry.stamp });
                return Admission::Left;
            }
        } else {
            self.sync.released.remove(&stream);
        }
        let values = match cut_values(commit, &entry, self.rules.values_are_checked) {
            Ok(values) => values,
            Err(wrong) => return Admission::Wrong(wrong),
        };
        let members = match members_in(&entry, &values) {
            Ok(members) => members,
            Err(reason) => return self.refuse_commit(from, stream, seq, reason.into()),
        };
        let known = self.members.len() + self.sync.inbox.members.len();
        if !members.is_empty() && known.saturating_add(members.len()) > STREAMS_MAX {
            let reason = format!("a group has no more than {STREAMS_MAX} members");
            return self.refuse_commit(from, stream, seq, reason);
        }
        self.queue(
            Received {
                stream,
                seq,
                previous: commit.previous,
                digest: chain(&commit.previous, &commit.entry),
                entry,
                raw: commit.entry.clone(),
                values,
            },
            members,
        )
    }

    fn refuse_commit(&mut self, from: ReplicaId, stream: ReplicaId, seq: u64, reason: String) -> Admission {
        self.stop_stream(stream, from, StreamStop::Refused { seq, reason });
        Admission::Left
    }

    fn queue(&mut self, commit: Received, members: Vec<Member>) -> Admission {
        let inbox = &mut self.sync.inbox;
        let weight = commit.weight();
        if !inbox.commits.is_empty() && inbox.bytes.saturating_add(weight) > self.limits.frame_bytes_max {
            return Admission::Full;
        }
        let Received { stream, seq, digest, .. } = commit;
        inbox.tips.insert(stream, Tip { seq, stamp: commit.entry.stamp, digest });
        inbox.members.extend(members.into_iter().map(|member| (member.replica, member.device)));
        inbox.bytes += weight;
        inbox.commits.push_back(commit);
        self.end_stop(stream);
        Admission::Queued
    }

    /// Checks what a commit says against the rules and the limits here.
    fn check_entry(&self, tip: &Tip, seq: u64, entry: &LogEntry) -> Result<(), String> {
        let limits = &self.limits;
        if entry.stamp <= tip.stamp || seq == u64::MAX {
            return Err("its stamp does not rise".into());
        }
        let device = self.device_of(entry.stamp.replica()).filter(|_| self.rules.devices_are_checked);
        if let Some(device) = device.filter(|device| *device != entry.device) {
            return Err(format!("it names device {}, its author is on {device}", entry.device));
        }
        let check = |size: usize, name, max| {
            let limit = Limit { name, max };
            if size > max { Err(format!("{size} is above the limit {limit} here; raise it")) } else { Ok(()) }
        };
        let mut total = 0_usize;
        for change in &entry.changes {
            if change.value.is_some() && change.epoch.is_some_and(|epoch| epoch >= entry.stamp) {
                return Err(format!("it puts {} in an epoch that comes after it", change.record));
            }
            let known = self.pen.models.kind_of(change.record.model());
            if known.is_some_and(|own_merge| own_merge != change.epoch.is_some()) {
                return Err(format!("its app merges {} in another way", change.record));
            }
            let len = change.value.map_or(0, |value| usize::try_from(value.len).unwrap_or(usize::MAX));
            check(len, "value_bytes_max", limits.value_bytes_max)?;
            let id = change.record.id_bytes().len();
            check(id, "id_bytes_max", limits.id_bytes_max)?;
            total = total.saturating_add(len).saturating_add(id);
        }
        check(total, "commit_bytes_max", limits.commit_bytes_most())?;
        // Members may be added at the same time at two places, so the limit itself can be passed.
        check(entry.after.len(), "members_max", STREAMS_MAX)
    }
}

/// Cuts the values of a commit where its entry says, and checks each against its digest.
fn cut_values(
    commit: &WireCommit,
    entry: &LogEntry,
    check: bool,
) -> Result<Vec<Option<Bytes>>, &'static str> {
    let mut rest = commit.values.clone();
    let mut values = Vec::with_capacity(entry.changes.len());
    for change in &entry.changes {
        let Some(value) = change.value else {
            values.push(None);
            continue;
        };
        let len = usize::try_from(value.len).unwrap_or(usize::MAX);
        if len > rest.len() {
            return Err("a value is missing");
        }
        let bytes = rest.split_to(len);
        if check && digest(&bytes) != value.digest {
            return Err("a value is another one than its commit says");
        }
        values.push(Some(bytes));
    }
    if rest.is_empty() { Ok(values) } else { Err("there are more values than changes") }
}

/// The members that a commit adds or changes. Nothing else may be done to a member record.
fn members_in(entry: &LogEntry, values: &[Option<Bytes>]) -> Result<Vec<Member>, &'static str> {
    let mut members = Vec::new();
    for (change, value) in entry.changes.iter().zip(values) {
        if change.record.model() != Member::SYNC_MODEL {
            continue;
        }
        let first_epoch = change.epoch == Some(Hlc::NEVER);
        let (Some(value), None, true) = (value, change.record.owner(), first_epoch) else {
            return Err("a member record is only ever put");
        };
        let member: Member =
            model::decode_bytes(value).map_err(|_| "a member record is damaged, or of a newer version")?;
        if RecordKey::new::<Member>(&member.replica) != change.record {
            return Err("a member record is under another replica's key");
        }
        members.push(member);
    }
    Ok(members)
}
