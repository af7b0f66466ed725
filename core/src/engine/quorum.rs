//! The quorum: how far each member has acknowledged each stream, as far as that lets anything be pruned.
//!
//! An acknowledgement *counts* once its digest was compared with the one here. The place may be one that is not here yet, or
//! one whose digest stands in the log: then it is *open* until it was compared. Only the oldest open place is compared, and
//! then the newest, so that a member that is always ahead is not compared never.
//!
//! An acknowledgement is *covered* once every head of the hello that brought it is here too. So any membership change that the
//! member knew is known here: a tombstone must not go before a member of whom nothing is known has it.
//!
//! The words of a member about others never count.
//!
//! Owns: for each member the places that it acknowledged, and the oldest of its hellos that is not covered. Holds always: what
//! counts and what is covered only rises, until the store of the member turns out to be restored; an open place is above what
//! counts, and the newest above the oldest.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::ids::ReplicaId;
use crate::stored::{Digest, Head, Point};

use super::Machine;
use super::ledger::Ledger;
use super::members::Members;
use super::rules::Rules;
use super::wire::WireHead;

/// The acknowledgements of all members.
#[derive(Debug)]
pub(super) struct Quorum {
    voices: BTreeMap<ReplicaId, Voice>,
    /// When the store was opened: nothing is known of how long a member has been behind before that.
    opened: Mono,
}

/// The acknowledgements of a member.
#[derive(Debug, Default)]
struct Voice {
    streams: BTreeMap<ReplicaId, Acked>,
    /// The oldest hello of its session that is not covered.
    waiting: Option<Waiting>,
}

/// A hello of which not all heads are here.
#[derive(Debug)]
struct Waiting {
    heads: Vec<WireHead>,
    /// The first head that is not here; those before it are.
    at: usize,
}

/// The acknowledgement of a stream by a member.
#[derive(Debug, Default)]
struct Acked {
    counts: u64,
    /// When `counts` rose, if it did since the opening.
    rose: Option<Mono>,
    /// The oldest place that was not compared.
    open: Option<Point>,
    /// The newest such place.
    newest: Option<Point>,
    covered: u64,
}

/// A member that holds the floor of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) member: ReplicaId,
    /// How far it has acknowledged the stream.
    pub(super) acknowledged: u64,
    pub(super) since: Mono,
}

impl Acked {
    fn count(&mut self, seq: u64, now: Mono) {
        if seq > self.counts {
            (self.counts, self.rose) = (seq, Some(now));
        }
        self.open.take_if(|open| open.seq <= self.counts);
        self.newest.take_if(|newest| newest.seq <= self.counts);
        if self.open.is_none() {
            self.open = self.newest.take();
        }
    }

    /// How far it may count once the places that are here were compared.
    fn reach(&self, head: &Head) -> u64 {
        let can_be_compared = |point: &&Point| (head.floor..=head.seq).contains(&point.seq);
        let open = self.open.iter().chain(&self.newest).filter(can_be_compared);
        open.map(|point| point.seq).chain([self.counts]).max().unwrap_or(0)
    }

    fn highest(&self) -> u64 {
        self.newest.or(self.open).map_or(self.counts, |point| point.seq)
    }
}

impl Quorum {
    pub(super) fn opened(opened: Mono) -> Self {
        Self { voices: BTreeMap::new(), opened }
    }

    /// Takes what the store has of a member: none of it was compared since the opening.
    pub(super) fn remember(
        &mut self,
        member: ReplicaId,
        acked: &BTreeMap<ReplicaId, Point>,
        covered: &BTreeMap<ReplicaId, u64>,
    ) {
        let voice = self.voices.entry(member).or_default();
        for (stream, point) in acked {
            let covered = covered.get(stream).copied().unwrap_or(0);
            let acked = Acked { open: Some(*point), covered, ..Acked::default() };
            voice.streams.insert(*stream, acked);
        }
    }

    /// Takes an acknowledgement of a member, which has named its session and was not restored. `head` is the one here.
    pub(super) fn acked(
        &mut self,
        member: ReplicaId,
        stream: ReplicaId,
        point: Point,
        head: &Head,
        rules: &Rules,
        now: Mono,
    ) {
        let acked = self.voices.entry(member).or_default().streams.entry(stream).or_default();
        if point.seq <= acked.highest() {
            return;
        }
        if !rules.ack_needs_cover {
            acked.covered = acked.covered.max(point.seq);
        }
        if !rules.acks_are_compared || point == head.point() {
            acked.count(point.seq, now);
        } else if acked.open.is_none() {
            acked.open = Some(point);
        } else {
            acked.newest = Some(point);
        }
    }

    /// Takes all heads of a hello; returns whether more is covered by it.
    ///
    /// A member leaves out a stream whose head is damaged there. Such a hello does not say all that the member knows, nor does a
    /// late one.
    pub(super) fn hello(&mut self, member: ReplicaId, heads: &[WireHead], ledger: &Ledger) -> bool {
        let voice = self.voices.entry(member).or_default();
        let named: BTreeMap<_, _> = heads.iter().map(|head| (head.stream, head.seq)).collect();
        let is_named = |(stream, acked): (&ReplicaId, &Acked)| {
            named.get(stream).is_some_and(|seq| *seq >= acked.highest()) || acked.highest() == 0
        };
        let is_news = heads.iter().any(|head| voice.covered(head.stream) < head.seq);
        if !is_news || !voice.streams.iter().all(is_named) {
            return false;
        }
        let mut hello = Waiting { heads: heads.to_vec(), at: 0 };
        if hello.is_covered(ledger) {
            voice.cover(&hello);
            return true;
        }
        voice.waiting.get_or_insert(hello);
        false
    }

    /// The members of whom more is covered, since all heads of their hellos are here now.
    pub(super) fn poll_covered(&mut self, ledger: &Ledger) -> Vec<ReplicaId> {
        let mut members = Vec::new();
        for (member, voice) in &mut self.voices {
            if let Some(hello) = voice.waiting.take_if(|hello| hello.is_covered(ledger)) {
                voice.cover(&hello);
                members.push(*member);
            }
        }
        members
    }

    /// Takes note that a member is in a new session: its store may be another one than the one of its hello that waits.
    pub(super) fn greets(&mut self, member: ReplicaId) {
        if let Some(voice) = self.voices.get_mut(&member) {
            voice.waiting = None;
        }
    }

    /// Forgets all acknowledgements of a member, since its store was restored.
    pub(super) fn was_restored(&mut self, member: ReplicaId) {
        self.voices.remove(&member);
    }

    /// Forgets what a member is said to have acknowledged of a stream and was not compared, since the stream never was so.
    pub(super) fn forget_open(&mut self, member: ReplicaId, stream: ReplicaId) {
        if let Some(acked) = self.voices.get_mut(&member).and_then(|voice| voice.streams.get_mut(&stream)) {
            (acked.open, acked.newest) = (None, None);
        }
    }

    /// The open places of a stream that can be compared with the log here, each with its member.
    pub(super) fn open(&self, stream: ReplicaId, head: &Head) -> Vec<(ReplicaId, Point)> {
        let open = |(member, voice): (&ReplicaId, &Voice)| {
            let open = voice.streams.get(&stream)?.open?;
            (open.seq <= head.seq).then_some((*member, open))
        };
        self.voices.iter().filter_map(open).collect()
    }

    /// Compares the open places of a stream with its head alone; returns whether more counts.
    pub(super) fn compare_with_head(&mut self, stream: ReplicaId, head: &Head, now: Mono) -> bool {
        let mut counts = false;
        for acked in self.voices.values_mut().filter_map(|voice| voice.streams.get_mut(&stream)) {
            if [acked.open, acked.newest].contains(&Some(head.point())) {
                acked.count(head.seq, now);
                counts = true;
            }
        }
        counts
    }

    /// Takes the digest of the stream here at an open place; `None` if it is not here. Returns whether the member has another
    /// one.
    pub(super) fn compared(
        &mut self,
        (member, stream): (ReplicaId, ReplicaId),
        point: Point,
        ours: Option<Digest>,
        now: Mono,
    ) -> bool {
        let Some(acked) = self.voices.get_mut(&member).and_then(|voice| voice.streams.get_mut(&stream))
        else {
            return false;
        };
        if acked.open == Some(point) {
            acked.open = acked.newest.take();
            if ours == Some(point.digest) {
                acked.count(point.seq, now);
            }
        }
        ours.is_some_and(|ours| ours != point.digest)
    }

    /// How far the acknowledgement of a stream by a member counts.
    fn counts(&self, member: ReplicaId, stream: ReplicaId) -> u64 {
        self.acked_of(member, stream).map_or(0, |acked| acked.counts)
    }

    /// How far a member has acknowledged a stream with hellos that are covered.
    pub(super) fn covered(&self, member: ReplicaId, stream: ReplicaId) -> u64 {
        self.voices.get(&member).map_or(0, |voice| voice.covered(stream))
    }

    fn acked_of(&self, member: ReplicaId, stream: ReplicaId) -> Option<&Acked> {
        self.voices.get(&member).and_then(|voice| voice.streams.get(&stream))
    }

    /// The members whose acknowledgements are asked for: all others, also those that were never heard of.
    fn voters<'a>(
        &'a self,
        members: &'a Members,
        me: ReplicaId,
        rules: &'a Rules,
    ) -> impl Iterator<Item = ReplicaId> + 'a {
        let heard = |member: &ReplicaId| rules.members_never_heard_count || self.voices.contains_key(member);
        members.ids().filter(move |member| *member != me).filter(heard)
    }

    /// The sequence number up to which every member has a stream, this one included.
    pub(super) fn stable(&self, stream: ReplicaId, members: &Members, ledger: &Ledger, rules: &Rules) -> u64 {
        let voters = self.voters(members, ledger.me(), rules);
        voters.map(|member| self.counts(member, stream)).fold(ledger.head(stream).seq, u64::min)
    }

    /// The same, counting only what is covered.
    pub(super) fn stable_covered(
        &self,
        stream: ReplicaId,
        members: &Members,
        ledger: &Ledger,
        rules: &Rules,
    ) -> u64 {
        let covered = |acked: &Acked| acked.counts.min(acked.covered);
        let voters = self.voters(members, ledger.me(), rules);
        let counts = voters.map(|member| self.acked_of(member, stream).map_or(0, covered));
        counts.fold(ledger.head(stream).seq, u64::min)
    }

    /// How far [`stable`](Quorum::stable) may rise once the open places that are here were compared.
    pub(super) fn reach(&self, stream: ReplicaId, members: &Members, ledger: &Ledger, rules: &Rules) -> u64 {
        let head = ledger.head(stream);
        let voters = self.voters(members, ledger.me(), rules);
        let reach = |member| self.acked_of(member, stream).map_or(0, |acked| acked.reach(&head));
        voters.map(reach).fold(head.seq, u64::min)
    }

    /// The most of a stream that any other member has.
    pub(super) fn most(&self, stream: ReplicaId, members: &Members, ledger: &Ledger) -> u64 {
        let others = members.ids().filter(|member| *member != ledger.me());
        others.map(|member| self.counts(member, stream)).max().unwrap_or(0)
    }

    /// The member that is behind all others in a stream, if any is behind this one: nothing above its acknowledgement is
    /// pruned. Of several, the one that has been there for the longest time.
    pub(super) fn holder(&self, stream: ReplicaId, members: &Members, ledger: &Ledger) -> Option<Holder> {
        let holder = |member| {
            let acked = self.acked_of(member, stream);
            let since = acked.and_then(|acked| acked.rose).unwrap_or(self.opened);
            Holder { member, acknowledged: acked.map_or(0, Acked::highest), since }
        };
        let others = members.ids().filter(|member| *member != ledger.me()).map(holder);
        let last = others.min_by_key(|holder| (holder.acknowledged, holder.since))?;
        (last.acknowledged < ledger.head(stream).seq).then_some(last)
    }
}

impl Voice {
    fn covered(&self, stream: ReplicaId) -> u64 {
        self.streams.get(&stream).map_or(0, |acked| acked.covered)
    }

    fn cover(&mut self, hello: &Waiting) {
        for head in &hello.heads {
            let acked = self.streams.entry(head.stream).or_default();
            acked.covered = acked.covered.max(head.seq);
        }
    }
}

impl Waiting {
    /// Whether all heads are here, going on at the first one that was not.
    fn is_covered(&mut self, ledger: &Ledger) -> bool {
        let is_here = |head: &WireHead| {
            let ours = ledger.head(head.stream);
            ours.seq > head.seq || ours.seq == head.seq && ours.digest == head.digest
        };
        while self.heads.get(self.at).is_some_and(is_here) {
            self.at += 1;
        }
        self.at == self.heads.len()
    }
}

impl Machine for Quorum {
    fn check(&self) {
        for (member, voice) in &self.voices {
            for (stream, acked) in &voice.streams {
                let Acked { counts, open, newest, .. } = acked;
                assert!(open.is_none_or(|open| open.seq > *counts), "{member} {stream}: {acked:?}");
                let rises = |newest: Point| open.is_some_and(|open| open.seq < newest.seq);
                assert!(newest.is_none_or(rises), "{member} {stream}: {acked:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{B, C, ME, context, head, ledger, member};
    use super::*;

    const RULES: Rules = Rules::ALL;

    fn members(all: &[ReplicaId]) -> Members {
        let records = all.iter().map(|replica| (*replica, member(*replica))).collect();
        Members::new(&context(), records, None)
    }

    /// A ledger with nine commits of its own and five of `B`.
    fn some() -> Ledger {
        ledger([(ME, head(ME, 9)), (B, head(B, 5))])
    }

    fn wire(stream: ReplicaId, seq: u64) -> WireHead {
        WireHead { stream, seq, digest: head(stream, seq).digest }
    }

    fn acks(quorum: &mut Quorum, member: ReplicaId, stream: ReplicaId, seq: u64, ledger: &Ledger) {
        let point = head(stream, seq).point();
        quorum.acked(member, stream, point, &ledger.head(stream), &RULES, Mono(7));
        quorum.check();
    }

    fn compare(quorum: &mut Quorum, stream: ReplicaId, ledger: &Ledger) {
        for (member, point) in quorum.open(stream, &ledger.head(stream)) {
            assert!(!quorum.compared((member, stream), point, Some(head(stream, point.seq).digest), Mono(8)));
            quorum.check();
        }
    }

    #[test]
    fn what_every_member_has_is_stable() {
        let (ledger, all) = (some(), members(&[ME, B, C]));
        let mut quorum = Quorum::opened(Mono(1));
        let stable = |quorum: &Quorum| quorum.stable(ME, &all, &ledger, &RULES);
        assert_eq!(stable(&quorum), 0);
        acks(&mut quorum, B, ME, 9, &ledger);
        assert_eq!(stable(&quorum), 0, "C was never heard of");
        assert_eq!(quorum.stable(ME, &members(&[ME, B]), &ledger, &RULES), 9, "nobody asks a stranger");
        assert_eq!(quorum.stable(ME, &members(&[ME]), &ledger, &RULES), 9, "nor anybody else");
        acks(&mut quorum, C, ME, 4, &ledger);
        assert_eq!((stable(&quorum), quorum.reach(ME, &all, &ledger, &RULES)), (0, 4), "not compared");
        compare(&mut quorum, ME, &ledger);
        assert_eq!(stable(&quorum), 4);
        quorum.was_restored(C);
        assert_eq!(stable(&quorum), 0);
        let off = Rules { members_never_heard_count: false, ..RULES };
        assert_eq!(quorum.stable(ME, &all, &ledger, &off), 9);
    }

    /// The commits at the place are others than those here.
    #[test]
    fn a_place_with_another_digest_does_not_count() {
        let (ledger, all) = (some(), members(&[ME, B]));
        for (rules, stable) in [(RULES, 0), (Rules { acks_are_compared: false, ..RULES }, 4)] {
            let mut quorum = Quorum::opened(Mono(1));
            let point = Point { seq: 4, digest: [0xee; 32] };
            quorum.acked(B, ME, point, &ledger.head(ME), &rules, Mono(7));
            if let [(member, open)] = quorum.open(ME, &ledger.head(ME))[..] {
                let ours = Some(head(ME, 4).digest);
                assert!(quorum.compared((member, ME), open, ours, Mono(7)), "it is told");
            }
            assert_eq!(quorum.stable(ME, &all, &ledger, &rules), stable);
            quorum.check();
        }
    }

    /// A snapshot moves a head to the newest place of a member, and leaves no log in which the open one could be compared.
    #[test]
    fn a_head_that_moves_to_the_newest_place_counts() {
        let all = members(&[ME, C]);
        let mut quorum = Quorum::opened(Mono(1));
        let before = ledger([(B, head(B, 1))]);
        acks(&mut quorum, C, B, 4, &before);
        acks(&mut quorum, C, B, 9, &before);
        assert!(!quorum.compare_with_head(B, &head(B, 7), Mono(8)));
        assert!(quorum.compare_with_head(B, &head(B, 9), Mono(8)));
        quorum.check();
        assert_eq!(quorum.stable(B, &all, &ledger([(B, head(B, 9))]), &RULES), 9);
    }

    /// A member is ahead whenever it acknowledges, and its acknowledgements are compared all the same.
    #[test]
    fn a_member_that_is_always_ahead_is_compared_when_the_place_comes() {
        let all = members(&[ME, C]);
        let mut quorum = Quorum::opened(Mono(1));
        let mut compared = Vec::new();
        for seq in 5..12 {
            let ledger = ledger([(ME, head(ME, 1)), (B, head(B, seq))]);
            acks(&mut quorum, C, B, seq + 2, &ledger);
            assert!(quorum.reach(B, &all, &ledger, &RULES) <= seq);
            compare(&mut quorum, B, &ledger);
            compared.push(quorum.stable(B, &all, &ledger, &RULES));
        }
        assert_eq!(compared, [0, 0, 7, 7, 9, 9, 11]);
    }

    #[test]
    fn what_counts_never_moves_back() {
        let (ledger, all) = (some(), members(&[ME, C]));
        let mut quorum = Quorum::opened(Mono(1));
        acks(&mut quorum, C, ME, 9, &ledger);
        quorum.greets(C);
        quorum.forget_open(C, ME);
        assert!(!quorum.compared((C, ME), Point { seq: 3, digest: [0; 32] }, None, Mono(8)));
        assert_eq!(quorum.stable(ME, &all, &ledger, &RULES), 9);
    }

    /// After an opening nothing was compared, and what was covered is so still.
    #[test]
    fn an_opening_compares_anew_what_the_store_has() {
        let (ledger, all) = (some(), members(&[ME, C]));
        let mut quorum = Quorum::opened(Mono(1));
        let acked = BTreeMap::from([(ME, head(ME, 6).point())]);
        quorum.remember(C, &acked, &BTreeMap::from([(ME, 5)]));
        assert_eq!(quorum.stable(ME, &all, &ledger, &RULES), 0);
        compare(&mut quorum, ME, &ledger);
        let stable =
            (quorum.stable(ME, &all, &ledger, &RULES), quorum.stable_covered(ME, &all, &ledger, &RULES));
        assert_eq!(stable, (6, 5));
    }

    #[test]
    fn a_hello_covers_once_all_that_it_names_is_here() {
        let all = members(&[ME, B]);
        let before = some();
        let mut quorum = Quorum::opened(Mono(1));
        let covered = |quorum: &Quorum, ledger: &Ledger| quorum.stable_covered(ME, &all, ledger, &RULES);
        acks(&mut quorum, B, ME, 9, &before);
        assert_eq!(covered(&quorum, &before), 0, "an acknowledgement alone hides what the member knows");
        assert!(!quorum.hello(B, &[wire(ME, 9), wire(C, 2)], &before));
        assert!(!quorum.hello(B, &[wire(ME, 9), wire(C, 3)], &before), "the oldest one waits");
        assert!(quorum.poll_covered(&before).is_empty());
        let after = ledger([(ME, head(ME, 9)), (B, head(B, 5)), (C, head(C, 2))]);
        assert_eq!(quorum.poll_covered(&after), [B]);
        assert_eq!((covered(&quorum, &after), quorum.covered(B, C)), (9, 2));
        let other = WireHead { digest: [0xee; 32], ..wire(C, 2) };
        assert!(!quorum.hello(B, &[wire(ME, 10), other], &after), "the head is another one");
        quorum.greets(B);
        assert!(quorum.poll_covered(&ledger([(ME, head(ME, 10)), (C, head(C, 3))])).is_empty());
    }

    /// The member leaves out the stream in which another member was added, since its head is damaged there.
    #[test]
    fn a_hello_that_leaves_out_what_its_sender_has_covers_nothing() {
        let ledger = some();
        let mut quorum = Quorum::opened(Mono(1));
        acks(&mut quorum, B, B, 7, &ledger);
        for named in [&[wire(ME, 9)][..], &[wire(ME, 9), wire(B, 6)]] {
            assert!(!quorum.hello(B, named, &ledger));
        }
        assert!(!quorum.hello(B, &[wire(ME, 9), wire(B, 7)], &ledger));
        let later = super::super::made::ledger([(ME, head(ME, 9)), (B, head(B, 7))]);
        assert_eq!((quorum.poll_covered(&later), quorum.covered(B, ME)), (vec![B], 9), "that one waits");
    }

    #[test]
    fn the_member_that_holds_a_stream_is_named() {
        let (ledger, all) = (some(), members(&[ME, B, C]));
        let mut quorum = Quorum::opened(Mono(1));
        acks(&mut quorum, B, ME, 9, &ledger);
        let holder = |member, acknowledged, since| Some(Holder { member, acknowledged, since: Mono(since) });
        assert_eq!(quorum.holder(ME, &all, &ledger), holder(C, 0, 1), "it was never heard of");
        acks(&mut quorum, C, ME, 4, &ledger);
        compare(&mut quorum, ME, &ledger);
        assert_eq!(quorum.holder(ME, &all, &ledger), holder(C, 4, 8));
        assert_eq!(quorum.most(ME, &all, &ledger), 9);
        acks(&mut quorum, C, ME, 9, &ledger);
        assert_eq!(quorum.holder(ME, &all, &ledger), None);
    }
}
