//! The install of a snapshot: a replica that is further behind than the logs of its peers reach takes their records instead.
//!
//! Pages of records go to the stage, beside the live records, which nobody sees. Behind the last page comes the tail: the
//! log from the heads at which the snapshot began up to those that its pages rest on, which is applied to the stage. Then
//! one small write switches: the heads rise, and from that moment reads join the stage with the live records. A fold merges
//! the two, step by step; then the stage is cleared. A replica without any record needs no stage: its pages are put in
//! their places, and it reads as empty until the switch.
//!
//! | phase | goes on when | with |
//! |---|---|---|
//! | records | the last page is durable | tail |
//! | tail | the stage has all commits that its pages rest on | the switch, then fold |
//! | fold | all of it is folded | clear |
//! | clear | the stage is empty | nothing |
//! | records, tail | no peer covers it, or the logs do not reach back to it any more | nothing: it begins anew |
//!
//! The next page is asked for while the one before it is being written, so that neither the link nor the store waits for
//! the other.
//!
//! Owns: the row of the install, the stage's heads and members, the page and the tail that wait for the store, the peer
//! that they come from. Holds always: what its pages rest on only rises; nothing of a stage counts before the switch; of a
//! page and the tail only one waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::clock::Mono;
use crate::ids::ReplicaId;
use crate::member::Member;
use crate::storage::{Key, WriteBatch};
use crate::stored::{Head, InstallRow, Phase};
use crate::syncable::Syncable;

use super::Machine;
use super::acks::Moment;
use super::backoff::{Backoff, after};
use super::context::Context;
use super::ledger::Ledger;
use super::members::Members;
use super::stream::Streams;
use super::stream::inbox::Inbox;
use super::wire::{Rows, SnapshotHead};

/// How long a snapshot waits for a peer that can go on with it, before it begins anew with another one.
const PATIENCE_MS: u64 = 60_000;

/// Of how many pulls a late page will still do.
const ASKED_MAX: usize = 16;

/// A snapshot that is being installed, if one is.
#[derive(Debug, Default)]
pub(super) struct Install {
    stage: Option<Stage>,
    /// The row as it will be once the pages that were taken are durable, while one is not.
    newest: Option<InstallRow>,
    /// The peer that was asked last.
    source: Option<ReplicaId>,
    /// The pulls of what comes behind the last page. Any of their pages will do, however late it comes.
    asked: BTreeSet<u32>,
    /// The page whose heads are still to be compared with the log here, and its sender.
    heard: Option<Box<(ReplicaId, SnapshotHead, Rows)>>,
    /// The parts of pages that wait for the store.
    parts: VecDeque<Box<NewPart>>,
    /// Whether the stage is to be given up.
    gives_up: bool,
    /// Until when it waits for a peer that goes on with it.
    patience: Moment,
    /// Whether the last peer that was asked did not go on with it.
    refused: bool,
    /// Whether the next pull is one for the install.
    turn: bool,
    /// The pause after a page was refused, or the store failed.
    backoff: Backoff,
}

/// The state of a stage.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) row: InstallRow,
    /// The heads of the stage.
    pub(super) ledger: Arc<Ledger>,
    pub(super) streams: Streams,
    pub(super) members: Members,
    /// The tail that waits for the store.
    pub(super) inbox: Inbox,
}

/// A part of a page: as much as the store takes in a write, which mostly is all of it.
#[derive(Debug)]
pub(super) struct NewPart {
    /// The row once the part is durable.
    pub(super) row: InstallRow,
    pub(super) batch: WriteBatch,
    /// The heads of the stage, if it begins with this part.
    pub(super) heads: BTreeMap<ReplicaId, Head>,
    pub(super) members: Vec<Member>,
}

/// The content to ask a peer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The records behind a key.
    Records(Option<Key>),
    Tail,
}

/// The next write.
#[derive(Debug)]
pub(super) enum Work {
    /// Remove the stage, and begin anew.
    GiveUp,
    Part(Box<NewPart>),
    Tail,
    Switch,
    Fold,
    Clear,
}

impl Stage {
    pub(super) fn new(
        row: InstallRow,
        heads: BTreeMap<ReplicaId, Head>,
        members: impl IntoIterator<Item = Member>,
        context: &Context,
        here: (&Ledger, &Members),
    ) -> Self {
        let (ledger, known) = here;
        let mut all = Ledger::opened(ledger.group(), heads, ledger.clock().clone());
        for (stream, head) in ledger.heads() {
            if head.seq > all.head(*stream).seq {
                all.mend(*stream, *head);
            }
        }
        let before =
            known.ids().filter_map(|id| known.get(id).cloned()).map(|member| (member.replica, member));
        let mut shadow = Self {
            row,
            streams: Streams::opened(context.me(), &all),
            ledger: Arc::new(all),
            members: Members::new(context, before.collect(), known.introducer()),
            inbox: Inbox::default(),
        };
        shadow.add_members(members);
        shadow
    }

    /// Takes members that were staged.
    pub(super) fn add_members(&mut self, members: impl IntoIterator<Item = Member>) {
        let known = |member: Member| match self.members.get(member.replica) {
            Some(before) => before.clone().merge(member),
            None => member,
        };
        let members = members.into_iter().map(known).collect();
        self.members.apply(members);
    }

    /// Takes the heads of the live records that have passed those of the stage: what they have is not asked for again.
    pub(super) fn follow(&mut self, here: &Ledger) {
        if !self.inbox.is_empty() {
            return;
        }
        let behind = |(stream, head): &(&ReplicaId, &Head)| head.seq > self.ledger.head(**stream).seq;
        let passed: Vec<_> =
            here.heads().iter().filter(behind).map(|(stream, head)| (*stream, *head)).collect();
        for (stream, head) in passed {
            Arc::make_mut(&mut self.ledger).mend(stream, head);
            if stream != here.clock().high_water().replica() {
                self.streams.mend(stream, &head);
            }
        }
    }

    /// The streams of which the tail still has to come.
    pub(super) fn lacks(&self) -> impl Iterator<Item = ReplicaId> {
        let missing = |(stream, seq): &(&ReplicaId, &u64)| self.ledger.head(**stream).seq < **seq;
        self.row.need.iter().filter(missing).map(|(stream, _)| *stream)
    }
}

impl Install {
    /// The install that the store has, from an opening on.
    pub(super) fn opened(stage: Option<Stage>) -> Self {
        Self { stage, ..Self::default() }
    }

    pub(super) fn stage(&self) -> Option<&Stage> {
        self.stage.as_ref()
    }

    pub(super) fn stage_mut(&mut self) -> Option<&mut Stage> {
        self.stage.as_mut()
    }

    /// The row, with all pages that were taken.
    pub(super) fn row(&self) -> Option<&InstallRow> {
        self.newest.as_ref().or(self.stage.as_ref().map(|stage| &stage.row))
    }

    /// Whether records arrive, or their tail.
    pub(super) fn is_arriving(&self) -> bool {
        self.row().is_some_and(|row| row.phase.is_before_switch())
    }

    /// Whether records are put in their places as they arrive, so that nothing may be read or received meanwhile.
    pub(super) fn is_in_place(&self) -> bool {
        self.is_arriving() && self.row().is_some_and(|row| row.in_place)
    }

    /// Whether the stage counts, and is being folded.
    pub(super) fn is_folding(&self) -> bool {
        self.stage.as_ref().is_some_and(|stage| stage.row.phase == Phase::Fold)
    }

    /// Whether there is anything of an install.
    pub(super) fn is_under_way(&self) -> bool {
        self.row().is_some() || !self.asked.is_empty() || self.heard.is_some()
    }

    pub(super) fn source(&self) -> Option<ReplicaId> {
        self.source
    }

    // --- asking -----------------------------------------------------------------------------------------------------

    /// The content to ask for next, if anything is and nothing of a page waits for the store. The part that is being written
    /// keeps no further page from being asked for; the tail comes only behind pages that are durable.
    pub(super) fn wants(&self) -> Option<Wanted> {
        if !self.backoff.is_over() || !self.has_room() {
            return None;
        }
        let Some(row) = self.row() else { return Some(Wanted::Records(None)) };
        if row.phase == Phase::Records {
            return Some(Wanted::Records(row.cursor.clone()));
        }
        let stage = self.stage.as_ref().filter(|stage| stage.row.phase == Phase::Tail)?;
        (stage.inbox.is_empty() && stage.lacks().next().is_some()).then_some(Wanted::Tail)
    }

    /// Whether a page could be taken.
    fn has_room(&self) -> bool {
        self.heard.is_none() && self.parts.is_empty() && !self.gives_up
    }

    /// Whether it is the turn of the install to pull, and not that of the log.
    pub(super) fn has_turn(&self) -> bool {
        self.turn
    }

    /// Takes note that the log was pulled.
    pub(super) fn log_had_turn(&mut self) {
        self.turn = true;
    }

    /// Takes note that a peer is asked, by the pull with this id.
    pub(super) fn asks(&mut self, peer: ReplicaId, id: u32, wanted: &Wanted) {
        (self.source, self.turn) = (Some(peer), false);
        if matches!(wanted, Wanted::Records(_)) {
            self.asked.insert(id);
            if self.asked.len() > ASKED_MAX {
                self.asked.pop_first();
            }
        }
    }

    /// Takes note that nobody is asked for records any more: a page that comes late begins no snapshot.
    pub(super) fn asks_nobody(&mut self) {
        self.asked.clear();
    }

    /// Whether the last peer that was asked did not go on with the snapshot.
    pub(super) fn was_refused(&self) -> bool {
        self.refused
    }

    /// Takes note that no peer goes on with the snapshot, though there is another way; returns whether it has waited for
    /// long enough.
    pub(super) fn waits_for_cover(&mut self, now: Mono) -> bool {
        if self.patience == Moment::Never {
            self.patience = Moment::At(after(now, PATIENCE_MS));
        }
        self.patience == Moment::Now
    }

    // --- what arrives -----------------------------------------------------------------------------------------------

    /// Whether the page that answers the pull with this id goes on where the last one ended.
    pub(super) fn is_next(&mut self, id: u32) -> bool {
        let is_next = self.asked.contains(&id) && self.has_room();
        if is_next {
            self.asked.clear();
        }
        is_next
    }

    /// Keeps a page until its heads have been compared.
    pub(super) fn hold(&mut self, from: ReplicaId, head: SnapshotHead, rows: Rows) {
        self.heard = Some(Box::new((from, head, rows)));
    }

    /// The sender of the page that is kept.
    pub(super) fn held_from(&self) -> Option<ReplicaId> {
        self.heard.as_ref().map(|heard| heard.0)
    }

    /// Gives back the page that is kept.
    pub(super) fn take_held(&mut self) -> Option<Box<(ReplicaId, SnapshotHead, Rows)>> {
        self.heard.take()
    }

    /// Takes a page, whose parts wait for the store.
    pub(super) fn take_page(&mut self, parts: impl IntoIterator<Item = NewPart>) {
        debug_assert!(self.parts.is_empty(), "one page at a time");
        self.parts.extend(parts.into_iter().map(Box::new));
        self.newest = self.parts.back().map(|part| part.row.clone()).or(self.newest.take());
    }

    /// Drops what is not durable. A part that is being written is not followed by any other.
    fn drop_pages(&mut self) {
        (self.heard, self.newest) = (None, None);
        self.parts.clear();
        self.asked.clear();
    }

    /// Takes note that a peer could not go on: it is asked again after a pause, or another one is.
    pub(super) fn failed(&mut self, now: Mono, rng: &mut fastrand::Rng) {
        self.asked.clear();
        self.refused = true;
        self.backoff.again(now, rng);
    }

    /// Takes note that it goes on.
    fn goes_on(&mut self) {
        (self.refused, self.patience) = (false, Moment::Never);
        self.backoff.reset();
    }

    /// Takes note that a peer went down.
    pub(super) fn went_down(&mut self, peer: ReplicaId) {
        self.heard.take_if(|heard| heard.0 == peer);
        if self.source == Some(peer) {
            self.asked.clear();
            self.source = None;
        }
    }

    /// Gives up what has been staged, so that the snapshot begins anew.
    pub(super) fn give_up(&mut self) {
        // A page that is being written gives its stage up once it is durable.
        self.gives_up = self.is_arriving();
        self.drop_pages();
    }

    // --- writing ----------------------------------------------------------------------------------------------------

    /// Whether something waits for the store.
    pub(super) fn has_work(&self) -> bool {
        if !self.backoff.is_over() {
            return false;
        }
        if !self.parts.is_empty() || self.gives_up {
            return true;
        }
        self.stage.as_ref().is_some_and(|stage| match stage.row.phase {
            Phase::Records => false,
            Phase::Tail => !stage.inbox.is_empty() || stage.lacks().next().is_none(),
            Phase::Fold | Phase::Clear => true,
        })
    }

    /// The next write.
    pub(super) fn work(&mut self) -> Option<Work> {
        if !self.has_work() {
            return None;
        }
        if std::mem::take(&mut self.gives_up) {
            return Some(Work::GiveUp);
        }
        if let Some(part) = self.parts.pop_front() {
            return Some(Work::Part(part));
        }
        let stage = self.stage.as_ref()?;
        Some(match stage.row.phase {
            Phase::Records => return None,
            Phase::Tail if stage.inbox.is_empty() => Work::Switch,
            Phase::Tail => Work::Tail,
            Phase::Fold => Work::Fold,
            Phase::Clear => Work::Clear,
        })
    }

    /// Takes note that a part of a page is durable.
    pub(super) fn part_written(&mut self, part: NewPart, context: &Context, here: (&Ledger, &Members)) {
        let NewPart { row, heads, members, .. } = part;
        self.goes_on();
        if self.parts.is_empty() {
            self.newest = None;
        }
        match &mut self.stage {
            Some(stage) => {
                stage.row = row;
                stage.add_members(members);
            }
            None => self.stage = Some(Stage::new(row, heads, members, context, here)),
        }
    }

    /// Takes note that the store took a write, which leaves the row like this.
    pub(super) fn written(&mut self, row: Option<InstallRow>) {
        self.goes_on();
        match (row, &mut self.stage) {
            (Some(row), Some(stage)) => stage.row = row,
            (Some(_), None) => debug_assert!(false, "there is no stage"),
            (None, stage) => {
                *stage = None;
                (self.newest, self.source) = (None, None);
            }
        }
    }

    /// Takes note that the store did not take a write. Pages behind it are asked for again.
    pub(super) fn not_written(&mut self, now: Mono, rng: &mut fastrand::Rng) {
        self.drop_pages();
        self.backoff.again(now, rng);
    }
}

impl Machine for Install {
    fn next_timeout(&self) -> Option<Mono> {
        [self.backoff.until(), self.patience.at()].into_iter().flatten().min()
    }

    fn expire(&mut self, now: Mono) {
        self.backoff.expire(now);
        self.patience.expire(now);
    }

    fn check(&self) {
        assert!(self.parts.is_empty() || self.newest.is_some(), "a page that waits is in the newest row");
        let Some(stage) = &self.stage else { return };
        assert!(stage.inbox.is_empty() || stage.row.phase == Phase::Tail, "a tail comes behind all records");
        assert!(
            self.parts.is_empty() || stage.row.phase == Phase::Records,
            "no page comes behind the last one"
        );
        for (stream, seq) in &stage.row.as_of {
            assert!(stage.row.need.get(stream) >= Some(seq), "{stream}: it rests on less than it began with");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{B, C};
    use super::*;

    /// A slow peer may answer after another one was asked for the same, but not for what comes behind that.
    #[test]
    fn a_late_page_will_do_as_long_as_nothing_came_in_its_place() {
        let mut install = Install::default();
        let records = Wanted::Records(None);
        install.asks(B, 1, &records);
        install.asks(C, 2, &records);
        assert!(!install.is_next(7) && install.is_next(1), "the first one, although the second was asked");
        assert!(!install.is_next(2), "it goes on from where the first one did");
        install.asks(C, 3, &records);
        assert!(!install.is_next(2) && install.is_next(3));
        install.asks(B, 4, &Wanted::Tail);
        assert!(!install.is_next(4), "it is asked for a log");
        for id in (10..).take(ASKED_MAX + 1) {
            install.asks(B, id, &records);
        }
        assert!(!install.is_next(10) && install.is_next(11));
    }
}
