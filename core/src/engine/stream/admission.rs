//! Admission: whether a commit that a peer sent may be applied after those that wait. It only reads the machines, and
//! changes none.

use bytes::Bytes;

use crate::clock::Now;
use crate::events::StreamStop;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, ReplicaId};
use crate::limits::{Limit, entry_bytes};
use crate::member::Member;
use crate::model;
use crate::stored::LogEntry;
use crate::stored::keys::RecordKey;
use crate::stored::log::chain;
use crate::syncable::Syncable;

use super::super::commit::Received;
use super::super::context::Context;
use super::super::damages::Damages;
use super::super::doubts::Doubts;
use super::super::ledger::Ledger;
use super::super::members::Members;
use super::super::wire::{STREAMS_MAX, WireCommit};
use super::inbox::Inbox;
use super::{Streams, Tip};

/// The result of admission.
#[derive(Debug)]
pub(in crate::engine) enum Admission {
    /// The commit may be applied next. `members` are those that it adds; `beyond_bound` says that its stamp is beyond
    /// the drift bound and was let through.
    Next { commit: Box<Received>, members: Vec<Member>, beyond_bound: bool },
    /// The commit is here already.
    Duplicate,
    /// The stream of the commit is stopped here, or is none that is listened to.
    Ignored,
    /// Something that the commit needs is not here: the commits before it, or this cause, which its sender has.
    TooEarly(Option<(ReplicaId, u64)>),
    /// There is no room for the commit now.
    Full,
    /// The commit was not sent as its author made it.
    Wrong(&'static str),
    /// The commit stops its stream.
    Stops(StreamStop),
    /// The stream of the commit has another history here, which differs at this place.
    OtherHistory(u64),
    /// The commit proves that this replica once had more of its own stream than now, at this place. The inner admission
    /// is the one of the commit itself.
    Restored(u64, Box<Admission>),
}

/// The machines that admission reads.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Admitting<'a> {
    pub(in crate::engine) context: &'a Context,
    pub(in crate::engine) now: &'a Now,
    pub(in crate::engine) ledger: &'a Ledger,
    pub(in crate::engine) members: &'a Members,
    pub(in crate::engine) streams: &'a Streams,
    pub(in crate::engine) inbox: &'a Inbox,
    pub(in crate::engine) damages: &'a Damages,
    pub(in crate::engine) doubts: &'a Doubts,
}

impl Admitting<'_> {
    /// The device of a member, once everything that waits is applied.
    pub(in crate::engine) fn device_of(&self, stream: ReplicaId) -> Option<DeviceId> {
        match (self.members.get(stream), self.inbox.member(stream)) {
            (Some(here), Some(waiting)) => Some(here.clone().merge(waiting.clone()).device),
            (here, waiting) => here.or(waiting).map(|member| member.device),
        }
    }

    /// Whether a member was ever added on a device: then a commit that it made there is taken, also if another device counts
    /// by now. Its author did not know that, and whoever takes the commit must not depend on what is known here.
    fn was_on(&self, stream: ReplicaId, device: DeviceId) -> bool {
        let records = [self.members.get(stream), self.inbox.member(stream)];
        records.into_iter().flatten().any(|member| member.was_on(device))
    }

    /// Whether the author of a stream is or was a member, or will be one once everything is applied. A joiner does not
    /// know the members yet, so it takes other streams too, as many as a group may have.
    pub(in crate::engine) fn is_known_stream(&self, stream: ReplicaId) -> bool {
        let has_room = || self.streams.contains(stream) || self.streams.len() + 1 < STREAMS_MAX;
        self.device_of(stream).is_some()
            || self.members.awaits_membership() && has_room()
            || !self.context.rules.authors_are_members
    }

    /// Whether commits of a stream are to be asked of `peer`.
    pub(in crate::engine) fn wants(&self, stream: ReplicaId, peer: ReplicaId) -> bool {
        self.may_take(stream, peer) && self.can_serve(stream, peer) && !self.streams.is_tried_again(stream)
    }

    /// Whether the next commit of a stream alone is to be asked of `peer`, since the store refused it the last time.
    pub(in crate::engine) fn wants_one(&self, stream: ReplicaId, peer: ReplicaId) -> bool {
        self.streams.is_tried_again(stream)
            && !self.streams.waits(stream)
            && self.may_take(stream, peer)
            && self.can_serve(stream, peer)
    }

    /// Whether the next commit of a stream is none that `peer` said that it cannot serve.
    fn can_serve(&self, stream: ReplicaId, peer: ReplicaId) -> bool {
        !self.damages.has_ended(peer, stream, self.streams.tip(stream).seq)
    }

    /// Whether commits of a stream would be taken of `peer`, if it sent them.
    pub(in crate::engine) fn may_take(&self, stream: ReplicaId, peer: ReplicaId) -> bool {
        stream != self.context.me()
            && !self.streams.is_stopped_for(stream, peer)
            && !self.doubts.any(peer, stream)
            && self.damages.head_is_whole(stream)
            && self.is_known_stream(stream)
    }

    /// The last commit of a stream that is here or waits; for the own stream, its durable head.
    fn seq_of(&self, stream: ReplicaId) -> u64 {
        if stream == self.context.me() { self.ledger.own().seq } else { self.streams.tip(stream).seq }
    }

    /// Judges a commit of which only the place in its stream can be read here. What is not here is pulled.
    pub(in crate::engine) fn admit_unreadable(
        &self,
        from: ReplicaId,
        stream: ReplicaId,
        seq: u64,
    ) -> Admission {
        self.left(from, stream, seq).unwrap_or_else(|| {
            let here = seq <= self.streams.tip(stream).seq;
            if here { Admission::Duplicate } else { Admission::TooEarly(None) }
        })
    }

    /// The reason for which a commit is left, whatever it says.
    fn left(&self, from: ReplicaId, stream: ReplicaId, seq: u64) -> Option<Admission> {
        if stream == self.context.me() {
            let proof = seq > self.ledger.own().seq;
            let duplicate = Admission::Duplicate;
            return Some(if proof { Admission::Restored(seq, Box::new(duplicate)) } else { duplicate });
        }
        let left = self.streams.is_stopped_for(stream, from)
            || self.doubts.any(from, stream)
            || !self.damages.head_is_whole(stream)
            || !self.is_known_stream(stream);
        left.then_some(Admission::Ignored)
    }

    /// Judges a commit that `from` sent.
    pub(in crate::engine) fn admit(&self, from: ReplicaId, commit: &WireCommit) -> Admission {
        let (stream, seq, rules) = (commit.stream, commit.seq, &self.context.rules);
        if let Some(left) = self.left(from, stream, seq) {
            return left;
        }
        let tip = self.streams.tip(stream);
        if seq <= tip.seq {
            let other = seq == tip.seq && chain(&commit.previous, &commit.entry) != tip.digest;
            return if other { Admission::OtherHistory(seq) } else { Admission::Duplicate };
        }
        let is_next = seq == tip.seq + 1;
        if !is_next && rules.streams_have_no_holes {
            return Admission::TooEarly(None);
        }
        if is_next && commit.previous != tip.digest && rules.chains_are_checked {
            if tip.seq == 0 {
                return Admission::Wrong("a stream begins with another digest than streams do");
            }
            return Admission::OtherHistory(tip.seq);
        }
        // The commit is the next one of its history. A fault in it stays, unless a peer other than its author made it
        // up.
        let changes_max = self.context.limits.commit_changes_max;
        let Ok(entry) = LogEntry::parse_capped(stream, &commit.entry, changes_max) else {
            let limit = Limit { name: "commit_changes_max", max: changes_max };
            let reason = format!("it is of a newer version, has more changes than {limit}, or is damaged");
            return refused(seq, reason);
        };
        if let Err(reason) = self.check_entry(&tip, seq, &entry) {
            return refused(seq, reason);
        }
        let own = self.ledger.own().seq;
        let proof = entry.after.iter().find(|cause| cause.stream == self.context.me() && cause.seq > own);
        let proof = proof.map(|cause| cause.seq);
        let admission = self.admit_next(from, commit, entry);
        match proof {
            Some(seq) => Admission::Restored(seq, Box::new(admission)),
            None => admission,
        }
    }

    /// Judges a commit that is the next one of its stream: whether its causes are here, and its values as its entry
    /// says.
    fn admit_next(&self, from: ReplicaId, commit: &WireCommit, entry: LogEntry) -> Admission {
        let (stream, seq, rules) = (commit.stream, commit.seq, &self.context.rules);
        let missing = entry.after.iter().find(|cause| self.seq_of(cause.stream) < cause.seq);
        if let Some(cause) = missing.filter(|_| rules.causes_come_first) {
            // The sender has the commit, and so its causes too.
            return Admission::TooEarly(Some((cause.stream, cause.seq)));
        }
        // Its author's member record is a cause of a commit, so the device is checked behind the causes: before them,
        // a record that was put right since would refuse what its author may commit.
        let device = self.device_of(stream).filter(|_| rules.devices_are_checked);
        if let Some(device) = device.filter(|_| !self.was_on(stream, entry.device)) {
            return refused(seq, format!("it names device {}, its author is on {device}", entry.device));
        }
        let beyond_bound = rules.drift_is_held && !self.ledger.is_within_drift(entry.stamp, self.now);
        if beyond_bound && self.now.wall.is_err() {
            // Without the wall clock the stamp cannot be checked: the commit is asked for again.
            return Admission::TooEarly(None);
        }
        if beyond_bound && !self.streams.is_released(stream) {
            return Admission::Stops(StreamStop::Held { seq, stamp: entry.stamp });
        }
        let values = match cut_values(commit, &entry) {
            Ok(values) => values,
            Err(wrong) => return Admission::Wrong(wrong),
        };
        let members = match members_in(&entry, &values) {
            Ok(members) => members,
            Err(reason) => return refused(seq, reason.into()),
        };
        let is_new = |replica: &ReplicaId| self.members.device_of(*replica).is_none();
        let waiting = self.inbox.new_members().filter(is_new).count();
        let more = members.iter().filter(|member| is_new(&member.replica)).count();
        if more > 0 && self.members.len().saturating_add(waiting).saturating_add(more) > STREAMS_MAX {
            return refused(seq, format!("a group has no more than {STREAMS_MAX} members"));
        }
        let commit = Received {
            from,
            stream,
            seq,
            previous: commit.previous,
            digest: chain(&commit.previous, &commit.entry),
            entry,
            raw: commit.entry.clone(),
            values,
        };
        if !self.inbox.has_room_for(&commit, &self.context.limits) {
            return Admission::Full;
        }
        Admission::Next { commit: Box::new(commit), members, beyond_bound }
    }

    /// Checks an entry against the rules and the limits here.
    fn check_entry(&self, tip: &Tip, seq: u64, entry: &LogEntry) -> Result<(), String> {
        let limits = &self.context.limits;
        if entry.stamp <= tip.stamp || seq == u64::MAX {
            return Err("its stamp does not rise".into());
        }
        let check = |size: usize, name, max| {
            let limit = Limit { name, max };
            if size > max { Err(format!("{size} is above the limit {limit} here; raise it")) } else { Ok(()) }
        };
        let (mut total, mut named) = (0_usize, 0_usize);
        for change in &entry.changes {
            if change.value.is_some() && change.epoch.is_some_and(|epoch| epoch >= entry.stamp) {
                return Err(format!("it puts {} in an epoch that comes after it", change.record));
            }
            let known = self.context.models.kind_of(change.record.model());
            if known.is_some_and(|own_merge| own_merge != change.epoch.is_some()) {
                return Err(format!("its app merges {} in another way", change.record));
            }
            let len = change.value.map_or(0, |value| value.len());
            check(len, "value_bytes_max", limits.value_bytes_max)?;
            let id = change.record.id_bytes().len();
            check(id, "id_bytes_max", limits.id_bytes_max)?;
            total = total.saturating_add(len).saturating_add(id);
            named = named.saturating_add(entry_bytes(&change.record));
        }
        check(named, "entry_bytes_max", limits.entry_bytes_max)?;
        check(total, "commit_bytes_max", limits.commit_bytes_most())?;
        // Two replicas may add members at the same time, so a group may pass `members_max`: check the most streams that
        // a group can have.
        check(entry.after.len(), "members_max", STREAMS_MAX)
    }
}

fn refused(seq: u64, reason: String) -> Admission {
    Admission::Stops(StreamStop::Refused { seq, reason })
}

/// Cuts the values of a commit where its entry says. Their digests are in the entry because it was rebuilt from them.
pub(in crate::engine) fn cut_values(
    commit: &WireCommit,
    entry: &LogEntry,
) -> Result<Vec<Option<Bytes>>, &'static str> {
    let mut rest = commit.values.clone();
    let mut values = Vec::with_capacity(entry.changes.len());
    for change in &entry.changes {
        let Some(value) = change.value else {
            values.push(None);
            continue;
        };
        let len = value.len();
        if len > rest.len() {
            return Err("a value is missing");
        }
        values.push(Some(rest.split_to(len)));
    }
    if rest.is_empty() { Ok(values) } else { Err("there are more values than changes") }
}

/// The members that a commit adds or changes. A member record may only be put: any other change of it is refused.
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
        if !member.is_possible_at(entry.stamp) {
            return Err("a member record has adds that come after it, or in another order than theirs");
        }
        members.push(member);
    }
    Ok(members)
}

#[cfg(test)]
mod tests;
