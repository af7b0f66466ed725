//! The pruner: which logs are pruned next, and how much of them in one step.
//!
//! A commit of the app waits for one step at most. So a step takes as many entries as the store drops in some tens of
//! milliseconds, and no more than a few hundred: dropping them then costs about as much as the durable write itself. A
//! step is a write of its own, so few entries wait until they are worth one, or until the last step was a while ago.
//!
//! Owns: the streams whose floor may rise, when to look at them, the step under way, how many entries fit one. Holds always: one
//! step at a time; a floor never rises above what is stable, nor above a pin; a step that failed is followed by a pause.

use std::collections::BTreeSet;

use crate::clock::Mono;
use crate::ids::ReplicaId;
use crate::stored::Point;

use super::Machine;
use super::acks::Moment;
use super::backoff::{Backoff, after};

/// So many entries are worth a step at once.
const WORTH: u64 = 64;
/// Fewer entries are worth one if the last step was so long ago.
const EVERY_MS: u64 = 30_000;
/// Acknowledgements come in bursts, and are looked at together.
const LOOK_MS: u64 = 200;
/// The time that a step should take, with its reads.
const STEP_MS: (u64, u64) = (20, 50);
/// The entries of the first step, and the bounds of a later one.
const FIRST: u64 = 64;
const STEP_ENTRIES: (u64, u64) = (16, 512);
/// The most streams of one step.
const STEP_STREAMS_MAX: usize = 16;

/// The part of a log that may be pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) stream: ReplicaId,
    pub(super) floor: u64,
    /// How far the floor may rise, if every open acknowledgement turns out to count.
    pub(super) reach: u64,
}

impl Span {
    const fn len(&self) -> u64 {
        self.reach.saturating_sub(self.floor)
    }
}

/// The step under way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Step {
    #[default]
    None,
    /// It waits for the write lane.
    Planned(Vec<Span>),
    /// Reading the digests at open places: of these members.
    Comparing(Vec<Span>, Vec<(ReplicaId, ReplicaId, Point)>),
    /// Reading the first rows of these logs, to find the oldest one, since there are too many entries.
    Oldest(Vec<Span>),
    /// Reading the last rows to go: the stream, its floor and its next floor.
    Ending(Vec<(ReplicaId, u64, u64)>),
    /// Writing: the streams and their next floors.
    Writing(Vec<(ReplicaId, Point)>),
}

/// What is pruned next.
#[derive(Debug)]
pub(super) struct Pruner {
    /// The streams whose floor may rise.
    moved: BTreeSet<ReplicaId>,
    look: Moment,
    step: Step,
    /// When the step under way began.
    began: Mono,
    /// How many entries a step may have.
    entries: u64,
    /// How many entries of the step are too many, though not all members have them.
    excess: u64,
    /// From when on a few entries are worth a step.
    few_from: Mono,
    backoff: Backoff,
    /// The work that had the last turn of the upkeep.
    last: Work,
}

/// The kinds of work that take turns in the upkeep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A step of pruning.
    Step,
    /// A page of tombstones.
    Page,
    /// Folding or mending.
    Other,
}

impl Pruner {
    pub(super) fn opened(now: Mono) -> Self {
        Self {
            moved: BTreeSet::new(),
            look: Moment::Never,
            step: Step::None,
            began: now,
            entries: FIRST,
            excess: 0,
            few_from: after(now, EVERY_MS),
            backoff: Backoff::default(),
            last: Work::Other,
        }
    }

    /// Takes note that the floor of streams may rise.
    pub(super) fn moved(&mut self, streams: impl IntoIterator<Item = ReplicaId>, now: Mono) {
        self.moved.extend(streams);
        let soon = after(now, LOOK_MS);
        // A few entries may have waited until later, and be many now.
        let waits = self.look == Moment::Never || self.look.at().is_some_and(|at| at > soon);
        if waits && !self.moved.is_empty() {
            self.look = Moment::At(soon);
        }
    }

    /// Whether it is time to plan a step.
    pub(super) fn is_due(&self) -> bool {
        self.look == Moment::Now && self.step == Step::None && self.backoff.is_over()
    }

    /// Plans the next step, if one is worth it. `span` says what may be pruned of a stream that moved.
    pub(super) fn plan(&mut self, members: usize, now: Mono, span: impl Fn(ReplicaId) -> Option<Span>) {
        let mut spans: Vec<_> = self.moved.iter().filter_map(|stream| span(*stream)).collect();
        spans.retain(|span| span.len() > 0);
        self.moved = spans.iter().map(|span| span.stream).collect();
        self.look = Moment::Never;
        let all = spans.iter().map(Span::len).fold(0, u64::saturating_add);
        if all == 0 {
            return;
        }
        if all < worth(members) && now < self.few_from {
            self.look = Moment::At(self.few_from);
            return;
        }
        spans.sort_by_key(|span| std::cmp::Reverse(span.len()));
        spans.truncate(STEP_STREAMS_MAX);
        self.step = Step::Planned(spans);
        self.excess = 0;
    }

    /// Plans a step for entries that are too many, unless one is planned. It compares what was acknowledged of the stream `own`.
    pub(super) fn plan_excess(&mut self, excess: u64, own: Span, now: Mono) {
        if excess == 0 || self.waits() {
            return;
        }
        // Look once more after the step.
        self.moved.insert(own.stream);
        if excess < WORTH && now < self.few_from {
            self.look = Moment::At(self.few_from);
            return;
        }
        self.look = Moment::Never;
        self.step = Step::Planned(vec![own]);
        self.excess = excess;
    }

    /// How many entries the step drops at most because they are too many.
    pub(super) fn excess(&self) -> u64 {
        self.excess.min(self.entries)
    }

    /// Whether a step waits for the write lane.
    pub(super) fn waits(&self) -> bool {
        matches!(self.step, Step::Planned(_))
    }

    /// The work that has the next turn, given what else waits.
    pub(super) fn turn(&mut self, page: bool, other: bool) -> Work {
        let (step, page, other) = ((Work::Step, self.waits()), (Work::Page, page), (Work::Other, other));
        let order = match self.last {
            Work::Step => [page, other, step],
            Work::Page => [other, step, page],
            Work::Other => [step, page, other],
        };
        self.last = order.into_iter().find(|(_, waits)| *waits).map_or(Work::Other, |(work, _)| work);
        self.last
    }

    /// Begins the step that waits.
    pub(super) fn begin(&mut self, now: Mono) -> Vec<Span> {
        self.began = now;
        match std::mem::take(&mut self.step) {
            Step::Planned(spans) => spans,
            other => {
                self.step = other;
                Vec::new()
            }
        }
    }

    /// Takes the step under way; [`goes_on`](Pruner::goes_on) puts back what becomes of it.
    pub(super) fn take(&mut self) -> Step {
        std::mem::take(&mut self.step)
    }

    pub(super) fn goes_on(&mut self, step: Step) {
        self.step = step;
    }

    /// The next floors, given what is stable of each stream.
    pub(super) fn targets(
        &self,
        spans: &[Span],
        stable: impl Fn(&Span) -> u64,
    ) -> Vec<(ReplicaId, u64, u64)> {
        let mut left = self.entries;
        let target = |span: &Span| {
            let to = stable(span).min(span.floor.saturating_add(left));
            left -= to.saturating_sub(span.floor);
            (to > span.floor).then_some((span.stream, span.floor, to))
        };
        spans.iter().filter_map(target).collect()
    }

    /// Takes note that the step has ended: with a write that is durable, or with nothing to write.
    pub(super) fn ended(&mut self, wrote: bool, now: Mono) {
        self.step = Step::None;
        if wrote {
            let ms = now.since(self.began);
            let (least, most) = STEP_ENTRIES;
            self.entries = match ms {
                _ if ms > STEP_MS.1 => (self.entries / 2).max(least),
                _ if ms < STEP_MS.0 => (self.entries * 2).min(most),
                _ => self.entries,
            };
            self.few_from = after(now, EVERY_MS);
            self.backoff.reset();
        }
        self.look = if self.moved.is_empty() { Moment::Never } else { Moment::Now };
    }

    /// Takes note that the step failed.
    pub(super) fn failed(&mut self, now: Mono, rng: &mut fastrand::Rng) {
        self.step = Step::None;
        self.entries = (self.entries / 2).max(STEP_ENTRIES.0);
        self.backoff.again(now, rng);
        self.look = Moment::Now;
    }
}

/// How many entries are worth a step at once. The acknowledgements of all members are written with it, and they grow with the
/// square of their number.
fn worth(members: usize) -> u64 {
    let members = u64::try_from(members).unwrap_or(u64::MAX);
    WORTH.max(members.saturating_mul(members) / 8)
}

impl Machine for Pruner {
    fn next_timeout(&self) -> Option<Mono> {
        [self.look.at(), self.backoff.until()].into_iter().flatten().min()
    }

    fn expire(&mut self, now: Mono) {
        self.look.expire(now);
        self.backoff.expire(now);
    }

    fn check(&self) {
        assert!(self.look == Moment::Never || !self.moved.is_empty(), "{self:?}");
        let (least, most) = STEP_ENTRIES;
        assert!((least..=most).contains(&self.entries), "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{B, C};
    use super::*;

    fn span(stream: ReplicaId, floor: u64, reach: u64) -> Span {
        Span { stream, floor, reach }
    }

    /// Lets the streams move and looks at them; returns the step that waits.
    fn planned(pruner: &mut Pruner, now: u64, spans: &[Span]) -> Option<Vec<Span>> {
        pruner.moved(spans.iter().map(|span| span.stream), Mono(now));
        pruner.expire(Mono(now + LOOK_MS));
        if pruner.is_due() {
            let of = |stream| spans.iter().find(|span| span.stream == stream).copied();
            pruner.plan(2, Mono(now + LOOK_MS), of);
        }
        pruner.check();
        pruner.waits().then(|| pruner.begin(Mono(now + LOOK_MS)))
    }

    #[test]
    fn few_entries_wait_and_many_do_not() {
        for (reach, now, waits) in [(63, 0, false), (64, 0, true), (1, EVERY_MS, true), (0, EVERY_MS, false)]
        {
            let mut pruner = Pruner::opened(Mono(0));
            assert_eq!(planned(&mut pruner, now, &[span(B, 0, reach)]).is_some(), waits, "{reach} {now}");
        }
        let mut pruner = Pruner::opened(Mono(0));
        assert!(planned(&mut pruner, 0, &[span(B, 10, 11)]).is_none());
        assert_eq!(pruner.next_timeout(), Some(Mono(EVERY_MS)), "it wakes by itself");
        assert!(planned(&mut pruner, 0, &[span(B, 11, 11)]).is_none());
        let streams = [span(B, 0, 30), span(C, 0, 34)];
        assert_eq!(planned(&mut pruner, 100, &streams), Some(vec![span(C, 0, 34), span(B, 0, 30)]));
    }

    #[test]
    fn large_groups_wait_for_more() {
        assert_eq!([1, 10, 50, 256].map(worth), [64, 64, 312, 8192]);
    }

    #[test]
    fn a_step_has_as_many_entries_as_the_store_drops_in_its_time() {
        let mut pruner = Pruner::opened(Mono(0));
        let mut sizes = Vec::new();
        let mut now = 0;
        for us_each in [100, 100, 100, 100, 100, 100, 100, 100, 10_000, 10_000, 10_000, 10_000] {
            let spans = planned(&mut pruner, now, &[span(B, 0, 1_000_000)]).unwrap();
            let targets = pruner.targets(&spans, |span| span.reach);
            let [(_, 0, to)] = targets[..] else { panic!("{targets:?}") };
            pruner.goes_on(Step::Writing(Vec::new()));
            now += LOOK_MS + 1 + to * us_each / 1000;
            pruner.ended(true, Mono(now));
            sizes.push(to);
        }
        assert_eq!(sizes, [64, 128, 256, 256, 256, 256, 256, 256, 256, 128, 64, 32]);
    }

    #[test]
    fn the_streams_of_a_step_share_its_entries_and_none_goes_above_what_is_stable() {
        let pruner = Pruner::opened(Mono(0));
        let spans = [span(B, 5, 55), span(C, 0, 40)];
        assert_eq!(pruner.targets(&spans, |span| span.reach), [(B, 5, 55), (C, 0, 14)]);
        assert_eq!(pruner.targets(&spans, |span| span.reach.min(20)), [(B, 5, 20), (C, 0, 20)]);
        assert_eq!(pruner.targets(&spans, |_| 3), [(C, 0, 3)]);
    }

    #[test]
    fn a_step_that_failed_is_tried_after_a_pause() {
        let (mut pruner, mut rng) = (Pruner::opened(Mono(0)), fastrand::Rng::with_seed(1));
        assert!(planned(&mut pruner, 0, &[span(B, 0, 100)]).is_some());
        pruner.failed(Mono(300), &mut rng);
        assert!(!pruner.is_due());
        let at = pruner.next_timeout().unwrap();
        pruner.expire(at);
        assert!(at > Mono(300) && pruner.is_due());
    }

    #[test]
    fn other_upkeep_takes_turns_with_steps() {
        let mut pruner = Pruner::opened(Mono(0));
        let turns = |pruner: &mut Pruner, page, other| [(); 4].map(|()| pruner.turn(page, other));
        assert_eq!(turns(&mut pruner, true, false), [Work::Page; 4]);
        pruner.step = Step::Planned(Vec::new());
        assert_eq!(turns(&mut pruner, false, false), [Work::Step; 4]);
        assert_eq!(turns(&mut pruner, true, true), [Work::Page, Work::Other, Work::Step, Work::Page]);
        assert_eq!(turns(&mut pruner, false, true), [Work::Other, Work::Step, Work::Other, Work::Step]);
    }
}
