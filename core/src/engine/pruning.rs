//! A chapter of the engine: pruning of the logs, by what the members have acknowledged, and of tombstones behind them.
//!
//! A step keeps the write lane from its first read to the end of its write, so that nothing moves in between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::events::{Damage, DamagedPart};
use crate::ids::ReplicaId;
use crate::status::FloorHolder;
use crate::storage::{Key, ReadError, ScanPage, Value, WriteBatch};
use crate::stored::log::{chain, split_row};
use crate::stored::{Digest, Head, LogEntry, Point, forgotten_value, keys};

use super::looks::{Place, Purpose};
use super::pruner::{Span, Step, Work};
use super::quorum::Holder;
use super::wire::Hello;
use super::writes::{Doing, Source};
use super::{Decision, Effect, Engine};

/// The most log rows that one step reads to compare acknowledgements. Those that are left are compared by the next one.
const ROWS_MAX: usize = 32;

impl Engine {
    // --- what is heard ----------------------------------------------------------------------------------------------

    /// Takes an acknowledgement of a peer, which has named its session and was not restored.
    pub(super) fn note_acked(&mut self, from: ReplicaId, stream: ReplicaId, point: Point) {
        let head = self.ledger.head(stream);
        self.quorum.acked(from, stream, point, &head, &self.context.rules, self.now.mono);
        self.floors_may_rise([stream]);
    }

    /// Takes the heads of a hello as a whole.
    pub(super) fn note_hello(&mut self, from: ReplicaId, hello: &Hello) {
        if !hello.restored && self.quorum.hello(from, &hello.heads.0, &self.ledger) {
            self.rows.peer(from);
            self.tombstones.limits_rise();
        }
    }

    /// Takes note that the floors of streams may rise, since one of them moved here or a member acknowledged it.
    pub(super) fn floors_may_rise(&mut self, streams: impl IntoIterator<Item = ReplicaId>) {
        if !self.context.rules.prunes_by_acks {
            return;
        }
        let streams: Vec<_> = streams.into_iter().collect();
        for stream in &streams {
            let head = self.ledger.head(*stream);
            // Where no log is left, no step of the pruner compares anything: without this, tombstones that came with a snapshot
            // would stay until somebody writes.
            if head.floor == head.seq && self.quorum.compare_with_head(*stream, &head, self.now.mono) {
                self.tombstones.limits_rise();
            }
        }
        self.pruner.moved(streams, self.now.mono);
    }

    // --- what may be pruned -----------------------------------------------------------------------------------------

    /// The sequence numbers above which the logs are needed beside the acknowledgements, by stream: by snapshots.
    fn pins(&self) -> BTreeMap<ReplicaId, u64> {
        self.pins.needed()
    }

    /// The member that holds the floor of a stream, for the status.
    pub(super) fn held_by(&self, stream: ReplicaId) -> Option<FloorHolder> {
        let Holder { member, acknowledged, since } =
            self.quorum.holder(stream, &self.members, &self.ledger)?;
        let since = Duration::from_millis(self.now.mono.since(since));
        Some(FloorHolder { member, since, commits: self.ledger.head(stream).seq - acknowledged })
    }

    /// Whether this replica may drop anything that others could need.
    fn may_prune(&self) -> bool {
        let alone = self.members.is_alone() && !self.context.networked;
        self.context.rules.prunes_by_acks
            && !alone
            && self.members.is_member()
            && !self.members.awaits_membership()
            && self.streams.restored().is_none()
            && !self.closing
    }

    /// Whether nothing is wrong with a stream here: what is in doubt, has two histories or is damaged at its end stays.
    fn is_whole(&self, stream: ReplicaId) -> bool {
        self.damages.head_is_whole(stream) && !self.streams.is_forked(stream) && !self.doubts.is_open(stream)
    }

    /// Whether a step or a page waits for the write lane. Plans what is due.
    pub(super) fn prunes(&mut self) -> bool {
        if !self.may_prune() {
            return false;
        }
        if self.install.is_under_way() {
            // A staged put that a dropped tombstone has beaten would come back.
            self.tombstones.nothing_is_known();
            return false;
        }
        if self.writes.is_idle() {
            self.plan_step();
            self.plan_walk();
        }
        self.pruner.waits() || self.tombstones.waits()
    }

    /// Plans the next step, if one is due.
    fn plan_step(&mut self) {
        if !self.pruner.is_due() {
            return;
        }
        for member in self.quorum.poll_covered(&self.ledger) {
            self.rows.peer(member);
            self.tombstones.limits_rise();
        }
        let peers = &self.peers;
        self.pins.end(|peer, stream| peers.get(peer).map_or(0, |peer| peer.acked_of(stream)));
        let pins = self.pins();
        let streams = self.ledger.heads().keys().copied();
        let whole: BTreeSet<_> = streams.filter(|stream| self.is_whole(*stream)).collect();
        let Self { pruner, quorum, members, ledger, context, .. } = self;
        pruner.plan(members.len(), self.now.mono, |stream| {
            let floor = ledger.head(stream).floor;
            let reach = quorum.reach(stream, members, ledger, &context.rules);
            let reach = pins.get(&stream).map_or(reach, |pin| reach.min(*pin));
            whole.contains(&stream).then_some(Span { stream, floor, reach })
        });
        self.plan_retention();
    }

    /// Plans a step for the entries that are too many, if some of them may go.
    fn plan_retention(&mut self) {
        let entries = self.ledger.heads().values().map(|head| head.seq - head.floor).sum();
        let excess = self.retention.excess(entries, &self.context.limits);
        if excess == 0 {
            return;
        }
        let own = self.ledger.own();
        let opens = !self.quorum.open(self.context.me(), &own).is_empty();
        if opens || !self.retainable().is_empty() {
            let own = Span { stream: self.context.me(), floor: own.floor, reach: own.floor };
            self.pruner.plan_excess(excess, own, self.now.mono);
        }
    }

    /// The parts of the logs that may go if they are too many, the longest first. An own commit stays until some member has it.
    fn retainable(&self) -> Vec<Span> {
        let pins = self.pins();
        let span = |(stream, head): (&ReplicaId, &Head)| {
            let own = *stream == self.context.me();
            let reach = if own { self.quorum.most(*stream, &self.members, &self.ledger) } else { head.seq };
            let reach = pins.get(stream).map_or(reach, |pin| reach.min(*pin)).min(head.seq);
            let span = Span { stream: *stream, floor: head.floor, reach };
            (reach > head.floor && self.is_whole(*stream)).then_some(span)
        };
        let mut spans: Vec<_> = self.ledger.heads().iter().filter_map(span).collect();
        spans.sort_by_key(|span| std::cmp::Reverse(span.reach - span.floor));
        spans.truncate(ROWS_MAX);
        spans
    }

    /// Plans a walk over the tombstones, if some may go: those that every member has, by what is covered, and whose log is gone.
    fn plan_walk(&mut self) {
        if !self.tombstones.may_begin() {
            return;
        }
        let Self { quorum, members, ledger, context, .. } = self;
        let limit = |(stream, head): (&ReplicaId, &Head)| {
            let covered = quorum.stable_covered(*stream, members, ledger, &context.rules);
            let waits = context.rules.tombstones_wait_for_their_log;
            (*stream, if waits { covered.min(head.floor) } else { covered })
        };
        let limits = ledger.heads().iter().map(limit).collect();
        self.tombstones.begin(limits);
    }

    /// Begins a step or a page; `false` if other upkeep has the turn.
    pub(super) fn begin_pruning(&mut self) -> bool {
        match self.pruner.turn(self.tombstones.waits(), self.upkeep.waits()) {
            Work::Step => self.begin_step(),
            Work::Page => self.begin_page(),
            Work::Other => return false,
        }
        true
    }

    // --- a step -----------------------------------------------------------------------------------------------------

    /// Begins the step that waits: reads the digests with which acknowledgements are compared.
    fn begin_step(&mut self) {
        let spans = self.pruner.begin(self.now.mono);
        let (mut open, mut keys) = (Vec::new(), BTreeSet::new());
        for span in &spans {
            let head = self.ledger.head(span.stream);
            for (member, point) in self.quorum.open(span.stream, &head) {
                match digest_at(&head, point.seq) {
                    Digests::Known(digest) => self.ack_is_compared(member, span.stream, point, Some(digest)),
                    Digests::Nowhere => self.ack_is_compared(member, span.stream, point, None),
                    Digests::Row(seq) => {
                        let key = keys::log(span.stream, seq);
                        if keys.len() < ROWS_MAX || keys.contains(&key) {
                            keys.insert(key);
                            open.push((member, span.stream, point));
                        }
                    }
                }
            }
        }
        if keys.is_empty() {
            return self.end_logs(&spans);
        }
        self.pruner.goes_on(Step::Comparing(spans, open));
        let job = self.writes.begin(Doing::Pruning);
        self.effects.push_back(Effect::Read(job, keys.into_iter().collect()));
    }

    /// Takes the rows of a step.
    pub(super) fn pruning_read(&mut self, keys: &[Key], values: Result<Vec<Option<Value>>, ReadError>) {
        let Ok(values) = values else { return self.pruner.failed(self.now.mono, &mut self.rng) };
        let rows: BTreeMap<_, _> = keys.iter().map(Vec::as_slice).zip(&values).collect();
        let row = |stream, seq| {
            let value = rows.get(keys::log(stream, seq).as_slice())?.as_deref()?;
            split_row(value).ok()
        };
        match self.pruner.take() {
            Step::Comparing(spans, open) => {
                for (member, stream, point) in open {
                    let ours = row(stream, point.seq + 1).map(|(previous, _)| previous);
                    self.ack_is_compared(member, stream, point, ours);
                }
                self.end_logs(&spans);
            }
            Step::Oldest(spans) => {
                let stamp = |span: &Span| {
                    let (_, entry) = row(span.stream, span.floor + 1)?;
                    Some((LogEntry::parse(span.stream, entry).ok()?.stamp, *span))
                };
                let oldest = spans.iter().filter_map(stamp).min_by_key(|(stamp, _)| *stamp);
                let Some((_, Span { stream, floor, reach })) = oldest else {
                    return self.pruner.failed(self.now.mono, &mut self.rng);
                };
                self.read_ends(vec![(stream, floor, reach.min(floor + self.pruner.excess()))]);
            }
            Step::Ending(targets) => {
                let mut floors = Vec::new();
                for (stream, floor, to) in targets {
                    // The digest at the new floor is the last word on what was pruned, so both rows must vouch for it.
                    let head = self.ledger.head(stream);
                    let last = row(stream, to).map(|(previous, entry)| chain(&previous, entry));
                    let behind = match digest_at(&head, to) {
                        Digests::Known(digest) => Some(digest),
                        _ => row(stream, to + 1).map(|(previous, _)| previous),
                    };
                    match last.filter(|last| Some(*last) == behind) {
                        Some(digest) => floors.push((stream, floor, Point { seq: to, digest })),
                        None => self.note_damage(Damage { stream, seq: to, part: DamagedPart::Row }),
                    }
                }
                self.write_floors(floors);
            }
            other => debug_assert!(false, "rows were read during {other:?}"),
        }
    }

    /// Takes the digest here at an acknowledged place. Another one asks for a look, which tells a damaged row from another
    /// history.
    fn ack_is_compared(&mut self, member: ReplicaId, stream: ReplicaId, point: Point, ours: Option<Digest>) {
        if self.quorum.compared((member, stream), point, ours, self.now.mono)
            && self.looks.has_room_for(member, stream)
        {
            let place = Place { stream, seq: point.seq + 1, walks: false, digest: point.digest };
            self.looks.want(Purpose::Compare { peer: member, stream }, place);
        }
    }

    /// Reads the last rows of what the step prunes.
    fn end_logs(&mut self, spans: &[Span]) {
        let pins = self.pins();
        let Self { pruner, quorum, members, ledger, context, .. } = self;
        let targets = pruner.targets(spans, |span| {
            let stable = quorum.stable(span.stream, members, ledger, &context.rules);
            pins.get(&span.stream).map_or(stable, |pin| stable.min(*pin))
        });
        if targets.is_empty() {
            return self.read_oldest();
        }
        self.read_ends(targets);
    }

    /// Reads the first rows of the logs, if entries are too many.
    fn read_oldest(&mut self) {
        let spans = if self.pruner.excess() > 0 { self.retainable() } else { Vec::new() };
        if spans.is_empty() {
            self.pruner.ended(false, self.now.mono);
            return self.begin_write();
        }
        let keys = spans.iter().map(|span| keys::log(span.stream, span.floor + 1)).collect();
        self.pruner.goes_on(Step::Oldest(spans));
        let job = self.writes.begin(Doing::Pruning);
        self.effects.push_back(Effect::Read(job, keys));
    }

    /// Reads the last rows that go, and those behind them.
    fn read_ends(&mut self, targets: Vec<(ReplicaId, u64, u64)>) {
        let Self { pruner, ledger, .. } = self;
        let rows = |(stream, _, to): &(ReplicaId, u64, u64)| {
            let behind = (*to < ledger.head(*stream).seq).then(|| keys::log(*stream, to + 1));
            [Some(keys::log(*stream, *to)), behind]
        };
        let keys = targets.iter().flat_map(rows).flatten().collect();
        pruner.goes_on(Step::Ending(targets));
        let job = self.writes.begin(Doing::Pruning);
        self.effects.push_back(Effect::Read(job, keys));
    }

    /// Writes the new floors, without the rows below them.
    fn write_floors(&mut self, floors: Vec<(ReplicaId, u64, Point)>) {
        if floors.is_empty() {
            return self.pruner.failed(self.now.mono, &mut self.rng);
        }
        let mut batch = WriteBatch::new();
        for (stream, floor, point) in &floors {
            for range in keys::log_and_kept(*stream, floor + 1, point.seq) {
                batch.delete_range(range);
            }
            batch.put(keys::head(*stream), self.ledger.begins_at(*stream, *point).to_value());
        }
        // Store what the members acknowledged with it: a member that has less later has lost it, which the rows can show no
        // more.
        self.rows.flush();
        let floors = floors.into_iter().map(|(stream, _, point)| (stream, point)).collect();
        self.pruner.goes_on(Step::Writing(floors));
        let decision = Decision { batch, ..Decision::nothing(self.ledger.durable_clock()) };
        self.write(decision, Source::Prune);
    }

    /// Takes the result of a write of the pruner.
    pub(super) fn pruned(&mut self, ok: bool) {
        if self.tombstones.is_in_page() {
            return self.end_page(ok);
        }
        let Step::Writing(floors) = self.pruner.take() else {
            return debug_assert!(false, "no step was written");
        };
        if !ok {
            return self.pruner.failed(self.now.mono, &mut self.rng);
        }
        for (stream, point) in floors {
            let first = self.ledger.head(stream).floor + 1;
            self.damages.forget(stream, first..=point.seq);
            self.ledger_mut().prune(stream, point);
            self.tombstones.limits_rise();
        }
        self.pruner.ended(true, self.now.mono);
    }
}

impl Engine {
    // --- a page of tombstones -----------------------------------------------------------------------------------------

    fn begin_page(&mut self) {
        if let Some((range, limit)) =
            self.tombstones.read(self.context.limits.commit_changes_max, self.now.mono)
        {
            let job = self.writes.begin(Doing::Pruning);
            self.effects.push_back(Effect::Scan(job, range, limit));
        }
    }

    /// Takes the records of a page, and drops the tombstones that may go.
    pub(super) fn tombstones_read(&mut self, page: Result<ScanPage, ReadError>) {
        let Ok(page) = page else { return self.end_page(false) };
        let Self { tombstones, context, upkeep, .. } = self;
        // A projection that owes the delete of a record learns of it from the tombstone.
        let dropped = tombstones.take(&page, |key| !(upkeep.mends() && context.is_projected(key)));
        if dropped.keys.is_empty() {
            return self.end_page(true);
        }
        let mut batch = WriteBatch::new();
        for key in dropped.keys {
            batch.delete(key);
        }
        for (model, stamp) in dropped.forgets {
            if stamp > self.ledger.forgotten(&model) {
                batch.put(keys::forgotten(&model), forgotten_value(stamp));
            }
        }
        let decision = Decision { batch, ..Decision::nothing(self.ledger.durable_clock()) };
        self.write(decision, Source::Prune);
    }

    fn end_page(&mut self, ok: bool) {
        if !ok {
            return self.tombstones.failed(self.now.mono, &mut self.rng);
        }
        for (model, stamp) in self.tombstones.page_ended(self.now.mono) {
            self.ledger_mut().forget(&model, stamp);
        }
    }
}

/// Where the digest of a stream at a place stands.
enum Digests {
    Known(Digest),
    /// In this row of the log.
    Row(u64),
    /// Nowhere: it was pruned, or is not here yet.
    Nowhere,
}

fn digest_at(head: &Head, seq: u64) -> Digests {
    match seq {
        _ if seq == head.seq => Digests::Known(head.digest),
        _ if seq == head.floor => Digests::Known(head.floor_digest),
        _ if (head.floor..head.seq).contains(&seq) => Digests::Row(seq + 1),
        _ => Digests::Nowhere,
    }
}
