//! The ledger: the durable heads of all streams, and the clock. The next commit is numbered and stamped from it.
//!
//! Only a durable write moves a head. A write that decides while it runs (a joined write) reads the same ledger through
//! its [`Pen`](super::Pen), so lending costs nothing, however many streams there are.
//!
//! Owns: the heads, the clock and the part of it that is durable, the streams that moved since the last own commit, the
//! highest own commit with a kept value. Holds always: heads only rise; a floor is at most its head; the clock is at or
//! above the stamp of every head, and at or above the durable clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Now;
use crate::hlc::{Hlc, HlcGenerator};
use crate::ids::ReplicaId;
use crate::stored::Head;

use super::context::Context;

/// The durable heads of all streams, and the clock.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    me: ReplicaId,
    heads: BTreeMap<ReplicaId, Head>,
    clock: HlcGenerator,
    /// The clock's high-water that is stored. No other one may be shown, since a crash takes it back.
    durable_clock: Hlc,
    /// The streams of others that moved since the last own commit: the next own commit rests on them.
    moved: BTreeSet<ReplicaId>,
    /// No kept value of the own stream stands above this sequence number, so pruning need not look there.
    kept_up_to: u64,
}

impl Ledger {
    /// The ledger of a new store: no stream has a commit.
    pub(super) fn new(clock: HlcGenerator) -> Self {
        Self::opened(BTreeMap::new(), clock)
    }

    /// The ledger of an opened store.
    ///
    /// Which streams had moved before the last own commit is not stored, so the next commit comes after all of them.
    pub(super) fn opened(heads: BTreeMap<ReplicaId, Head>, clock: HlcGenerator) -> Self {
        let durable_clock = clock.high_water();
        let me = durable_clock.replica();
        let kept_up_to = heads.get(&me).map_or(0, |head| head.seq);
        let moved = heads.keys().copied().filter(|stream| *stream != me).collect();
        Self { me, heads, clock, durable_clock, moved, kept_up_to }
    }

    /// The head of a stream; the start of the stream if no commit of it is here.
    pub(crate) fn head(&self, stream: ReplicaId) -> Head {
        self.heads.get(&stream).copied().unwrap_or_else(|| Head::start(stream))
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

    /// The heads that moved since the last own commit: the causes of the next one.
    pub(crate) fn causes(&self) -> Vec<(ReplicaId, u64)> {
        let moved = self.moved.iter().map(|stream| (*stream, self.head(*stream).seq));
        moved.filter(|(_, seq)| *seq > 0).collect()
    }

    /// Adds the empty own stream of a store that joins a group.
    pub(super) fn begin_own_stream(&mut self) -> Head {
        *self.heads.entry(self.me).or_insert_with(|| Head::start(self.me))
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

    /// Asserts the invariants.
    pub(super) fn check(&self, context: &Context) {
        let high_water = self.clock.high_water();
        assert!(self.durable_clock <= high_water, "what is durable was drawn");
        for (stream, head) in &self.heads {
            assert!(
                head.floor <= head.seq,
                "{stream}: the floor {} is above the head {}",
                head.floor,
                head.seq
            );
            let time = |stamp: Hlc| (stamp.wall(), stamp.counter());
            let covered = time(head.stamp) <= time(high_water) || !context.rules.clock_follows;
            assert!(covered, "{stream}: the clock {high_water} is behind {}", head.stamp);
        }
        assert!(!self.moved.contains(&self.me), "a commit rests on those before it without saying so");
    }
}
