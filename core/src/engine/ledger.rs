//! The ledger: the durable heads of all streams, and the clock. The next commit is numbered and stamped from it.
//!
//! Only a durable write moves a head. A write that decides while it runs (a joined write) reads the same ledger through
//! its [`Pen`](super::Pen), so lending costs nothing, however many streams there are.
//!
//! Owns: the heads, the clock and the part of it that is durable, the streams that moved since the last own commit, the
//! highest own commit with a kept value, the forgotten stamps. Holds always: heads only rise; a floor is at most its head;
//! a forgotten stamp only rises; the clock is at or above the stamp of every head, every forgotten stamp, and the durable
//! clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Now;
use crate::hlc::{Hlc, HlcGenerator};
use crate::ids::{GroupId, ReplicaId};
use crate::stored::log::digest_check;
use crate::stored::{Cause, Head, Point};

use super::context::Context;

/// The durable heads of all streams, and the clock.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    group: GroupId,
    me: ReplicaId,
    heads: BTreeMap<ReplicaId, Head>,
    clock: HlcGenerator,
    /// The clock's high-water that is stored. No other one may be shown, since a crash takes it back.
    durable_clock: Hlc,
    /// The streams of others that moved since the last own commit: the next own commit rests on them.
    moved: BTreeSet<ReplicaId>,
    /// No kept value of the own stream stands above this sequence number, so pruning need not look there.
    kept_up_to: u64,
    /// The highest stamp or epoch of a tombstone that was dropped here, for each model with its own merge.
    forgotten: BTreeMap<String, Hlc>,
}

impl Ledger {
    /// The ledger of a new store: no stream has a commit.
    pub(super) fn new(group: GroupId, clock: HlcGenerator) -> Self {
        Self::opened(group, BTreeMap::new(), clock)
    }

    /// The ledger of an opened store.
    ///
    /// Which streams had moved before the last own commit is not stored, so the next commit comes after all of them.
    pub(super) fn opened(group: GroupId, heads: BTreeMap<ReplicaId, Head>, clock: HlcGenerator) -> Self {
        let durable_clock = clock.high_water();
        let me = durable_clock.replica();
        let kept_up_to = heads.get(&me).map_or(0, |head| head.seq);
        let moved = heads.keys().copied().filter(|stream| *stream != me).collect();
        Self { group, me, heads, clock, durable_clock, moved, kept_up_to, forgotten: BTreeMap::new() }
    }

    /// The head of a stream; the start of the stream if no commit of it is here.
    pub(crate) fn head(&self, stream: ReplicaId) -> Head {
        self.heads.get(&stream).copied().unwrap_or_else(|| Head::start(self.group, stream))
    }

    /// The replica that has the ledger.
    pub(super) fn me(&self) -> ReplicaId {
        self.me
    }

    /// The head of the own stream.
    pub(crate) fn own(&self) -> Head {
        self.head(self.me)
    }

    /// The heads of all streams that have one here, by their authors.
    pub(crate) fn heads(&self) -> &BTreeMap<ReplicaId, Head> {
        &self.heads
    }

    /// Whether a stamp stands near enough to physical time. No stamp does while the wall clock fails.
    pub(super) fn is_within_drift(&self, stamp: Hlc, now: &Now) -> bool {
        now.wall.as_ref().is_ok_and(|wall| self.clock.check_drift(stamp, *wall).is_ok())
    }

    pub(crate) fn clock(&self) -> &HlcGenerator {
        &self.clock
    }

    /// The highest stamp that is durable.
    pub(super) fn durable_clock(&self) -> Hlc {
        self.durable_clock
    }

    pub(crate) fn kept_up_to(&self) -> u64 {
        self.kept_up_to
    }

    /// The epoch in which a record of a model with its own merge begins: the highest stamp that was forgotten of it here. A
    /// value of an earlier epoch may have been deleted with a tombstone that is no more here, and must not mix with a new one.
    pub(crate) fn forgotten(&self, model: &str) -> Hlc {
        self.forgotten.get(model).copied().unwrap_or(Hlc::NEVER)
    }

    /// The highest stamps that were forgotten, by their models.
    pub(crate) fn all_forgotten(&self) -> &BTreeMap<String, Hlc> {
        &self.forgotten
    }

    /// Takes note that tombstones of a model up to this stamp or epoch were dropped, once that is durable. It never falls.
    pub(super) fn forget(&mut self, model: &str, stamp: Hlc) {
        if stamp > self.forgotten(model) {
            self.forgotten.insert(model.to_owned(), stamp);
        }
    }

    /// The heads that moved since the last own commit: the causes of the next one.
    pub(crate) fn causes(&self) -> Vec<Cause> {
        let moved =
            self.moved.iter().map(|stream| (*stream, self.head(*stream))).filter(|(_, head)| head.seq > 0);
        let cause =
            |(stream, head): (_, Head)| Cause { stream, seq: head.seq, check: digest_check(&head.digest) };
        moved.map(cause).collect()
    }

    /// Adds the empty own stream of a store that joins a group.
    pub(super) fn begin_own_stream(&mut self) -> Head {
        *self.heads.entry(self.me).or_insert_with(|| Head::start(self.group, self.me))
    }

    /// The group, whose streams begin with digests of their own.
    pub(super) fn group(&self) -> GroupId {
        self.group
    }

    /// Takes back the clock and `kept_up_to` of a pen. A stamp that the pen drew is never drawn again, whatever becomes
    /// of its write.
    pub(super) fn take_back(&mut self, clock: HlcGenerator, kept_up_to: u64) {
        debug_assert!(clock.high_water() >= self.clock.high_water(), "a pen never sets the clock back");
        self.clock = clock;
        self.kept_up_to = self.kept_up_to.max(kept_up_to);
    }

    /// Takes note that a write is durable: the heads that it moved, and the clock that it stored.
    ///
    /// A write that moves no stream has stored no clock either.
    pub(super) fn apply(&mut self, moved: Vec<(ReplicaId, Head)>, clock: Hlc) {
        if moved.is_empty() {
            return;
        }
        debug_assert!(
            clock >= self.durable_clock,
            "the stored clock rises: {clock} after {}",
            self.durable_clock
        );
        self.durable_clock = clock;
        for (stream, head) in moved {
            let before = self.head(stream);
            debug_assert!(head.seq > before.seq, "{stream} falls from {} to {}", before.seq, head.seq);
            if stream == self.me {
                self.moved.clear();
            } else {
                self.moved.insert(stream);
            }
            self.heads.insert(stream, head);
        }
    }

    /// Takes the head that the log of a stream proves, in the place of a damaged one.
    pub(super) fn mend(&mut self, stream: ReplicaId, head: Head) {
        self.heads.insert(stream, head);
        if stream == self.me {
            self.kept_up_to = self.kept_up_to.max(head.seq);
        } else {
            self.moved.insert(stream);
        }
    }

    /// The head of a stream whose log begins behind `floor`.
    pub(super) fn begins_at(&self, stream: ReplicaId, floor: Point) -> Head {
        Head { floor: floor.seq, floor_digest: floor.digest, ..self.head(stream) }
    }

    /// Takes note that the log of a stream begins behind `floor`, once that is durable.
    pub(super) fn prune(&mut self, stream: ReplicaId, floor: Point) {
        if let Some(head) = self.heads.get_mut(&stream) {
            debug_assert!(
                (head.floor + 1..=head.seq).contains(&floor.seq),
                "{stream}: {floor:?} in {head:?}"
            );
            (head.floor, head.floor_digest) = (floor.seq, floor.digest);
        }
    }

    /// Lets the next own commit rest on nothing of a stream, since its head is damaged.
    pub(super) fn leave_out(&mut self, stream: ReplicaId) {
        self.moved.remove(&stream);
    }

    /// Asserts the invariants.
    pub(super) fn check(&self, context: &Context) {
        let high_water = self.clock.high_water();
        assert!(self.durable_clock <= high_water, "what is durable was drawn");
        let time = |stamp: Hlc| (stamp.wall(), stamp.counter());
        for (model, stamp) in &self.forgotten {
            let covered = time(*stamp) <= time(high_water) || !context.rules.clock_follows;
            assert!(covered, "{model}: the clock {high_water} is behind the forgotten {stamp}");
        }
        for (stream, head) in &self.heads {
            assert!(
                head.floor <= head.seq,
                "{stream}: the floor {} is above the head {}",
                head.floor,
                head.seq
            );
            let covered = time(head.stamp) <= time(high_water) || !context.rules.clock_follows;
            assert!(covered, "{stream}: the clock {high_water} is behind {}", head.stamp);
        }
        assert!(!self.moved.contains(&self.me), "a commit rests on those before it without saying so");
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::ClockError;

    use super::super::made::{B, C, GROUP, ME, complaint, context, head, ledger, now, stamp};
    use super::*;

    /// A ledger with three commits of its own and five of `B`.
    fn some() -> Ledger {
        ledger([(ME, head(ME, 3)), (B, head(B, 5))])
    }

    #[test]
    fn heads_rise_and_nothing_else_moves_them() {
        let mut ledger = some();
        ledger.apply(vec![(B, head(B, 6)), (C, head(C, 1))], stamp(6, ME));
        assert_eq!([ME, B, C].map(|stream| ledger.head(stream).seq), [3, 6, 1]);
        assert_eq!((ledger.own(), ledger.heads().len()), (head(ME, 3), 3));
        for seq in [5, 6] {
            let falls = complaint(|| some().apply(vec![(B, head(B, 6)), (B, head(B, seq))], stamp(6, ME)));
            assert!(falls.is_some_and(|falls| falls.contains("falls from 6")), "to {seq}");
        }
    }

    /// Which of the other streams moved before an opening is not stored, so all of them count.
    #[test]
    fn a_commit_rests_on_what_moved_since_the_own_commit_before_it() {
        let mut ledger = some();
        let cause = |stream, seq| Cause { stream, seq, check: digest_check(&head(stream, seq).digest) };
        assert_eq!(ledger.causes(), [cause(B, 5)], "all of them after an opening");
        ledger.apply(vec![(ME, head(ME, 4))], stamp(5, ME));
        assert_eq!(ledger.causes(), []);
        ledger.apply(vec![(C, head(C, 1))], stamp(5, ME));
        ledger.apply(vec![(C, head(C, 2))], stamp(5, ME));
        assert_eq!(ledger.causes(), [cause(C, 2)], "the last commit of each stream");
        let mut empty = super::super::made::ledger([(B, head(B, 0))]);
        empty.check(&context());
        assert_eq!(empty.causes(), [], "a stream without a commit is nothing to rest on");
        assert_eq!((empty.begin_own_stream().seq, empty.causes()), (0, vec![]));
    }

    #[test]
    fn a_stamp_that_was_drawn_is_not_drawn_again_whatever_became_of_its_write() {
        let mut ledger = some();
        let mut pen = ledger.clock().clone();
        let drawn = pen.stamp(now(9).wall.unwrap()).unwrap();
        ledger.take_back(pen, 0);
        assert!(ledger.clock().clone().stamp(now(9).wall.unwrap()).unwrap() > drawn);
        let back = complaint(|| ledger.take_back(some().clock, 0));
        assert!(back.is_some_and(|back| back.contains("never sets the clock back")));
    }

    /// A crash takes back what was drawn and not stored.
    #[test]
    fn only_the_clock_that_a_write_stored_is_shown() {
        let mut ledger = some();
        let mut pen = ledger.clock().clone();
        let drawn = pen.stamp(now(9).wall.unwrap()).unwrap();
        ledger.take_back(pen, 0);
        ledger.apply(Vec::new(), drawn);
        assert_eq!(ledger.durable_clock(), stamp(5, ME), "a write that moves no stream stores no clock");
        ledger.apply(vec![(ME, head(ME, 4))], drawn);
        assert_eq!(ledger.durable_clock(), drawn);
        let falls = complaint(|| ledger.apply(vec![(ME, head(ME, 5))], stamp(5, ME)));
        assert!(falls.is_some_and(|falls| falls.contains("the stored clock rises")));
    }

    /// Pruning looks for kept values only up to there, so what is too high costs a little and too low loses rows.
    #[test]
    fn kept_values_are_looked_for_up_to_the_highest_own_commit_that_may_have_one() {
        let mut ledger = some();
        assert_eq!(ledger.kept_up_to(), 3, "up to the head after an opening");
        for (kept, known) in [(5, 5), (4, 5), (0, 5)] {
            ledger.take_back(ledger.clock().clone(), kept);
            assert_eq!(ledger.kept_up_to(), known);
        }
        assert_eq!(
            Ledger::new(GROUP, ledger.clock().clone()).kept_up_to(),
            0,
            "nothing is kept in a new store"
        );
    }

    /// A record that began in an epoch that was forgotten would mix with values that were deleted.
    #[test]
    fn a_model_begins_in_the_highest_epoch_that_was_forgotten_of_it() {
        let mut ledger = some();
        assert_eq!(ledger.forgotten("bag"), Hlc::NEVER);
        for (forgets, begins) in [(3, 3), (2, 3), (4, 4)] {
            ledger.forget("bag", stamp(forgets, B));
            assert_eq!((ledger.forgotten("bag"), ledger.forgotten("set")), (stamp(begins, B), Hlc::NEVER));
        }
        ledger.check(&context());
    }

    #[test]
    fn the_own_stream_of_a_joiner_begins_empty_and_once() {
        let mut ledger = Ledger::new(GROUP, some().clock);
        assert_eq!((ledger.begin_own_stream(), ledger.heads().len()), (Head::start(GROUP, ME), 1));
        ledger.apply(vec![(ME, head(ME, 1))], stamp(5, ME));
        assert_eq!(ledger.begin_own_stream(), head(ME, 1));
    }

    #[test]
    fn a_stamp_is_near_physical_time_only_if_that_can_be_told() {
        let (ledger, bound) = (some(), context().limits.max_drift_ms);
        for (ahead, near) in [(bound, true), (bound + 1, false)] {
            assert_eq!(ledger.is_within_drift(stamp(1000 + ahead, B), &now(1000)), near, "{ahead}");
        }
        let unknown = Now { wall: Err(ClockError::Before1970), ..now(1000) };
        assert!(!ledger.is_within_drift(stamp(1, B), &unknown));
    }

    #[test]
    fn the_check_finds_what_must_never_be() {
        type Break = fn(&mut Ledger);
        let breaks: [(&str, Break); 5] = [
            ("is behind the forgotten", |ledger| ledger.forget("bag", stamp(6, B))),
            ("the floor 6 is above", |ledger| ledger.heads.get_mut(&B).unwrap().floor = 6),
            ("is behind", |ledger| ledger.heads.get_mut(&B).unwrap().stamp = stamp(6, B)),
            ("what is durable was drawn", |ledger| ledger.durable_clock = stamp(6, ME)),
            ("without saying so", |ledger| _ = ledger.moved.insert(ME)),
        ];
        some().check(&context());
        for (says, broken) in breaks {
            let mut ledger = some();
            broken(&mut ledger);
            let complaint = complaint(|| ledger.check(&context()));
            assert!(complaint.as_ref().is_some_and(|found| found.contains(says)), "{says}: {complaint:?}");
        }
        let mut context = context();
        context.rules.clock_follows = false;
        let mut ledger = some();
        ledger.heads.insert(B, head(B, 6));
        ledger.check(&context);
    }
}
