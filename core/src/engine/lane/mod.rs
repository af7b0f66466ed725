//! A chapter of the engine: the write lane, which is jobs for the store, and what their results change.

mod received;
mod upkeep;

use std::sync::Arc;

use crate::error::{Error, SharedError, StopReason};
use crate::events::{Damage, DamagedPart, Event, StreamStop};
use crate::joined::{Joined, Undone};
use crate::member::Member;
use crate::storage::{BoxError, Key, ReadError, ScanPage, Value, WriteBatch};
use crate::stored::{FormatError, Head, keys, peer_value, record};

use super::commit::Elsewhere;
use super::rows::Due;
use super::writes::{Call, Doing, Source, Turn, Waiting};
use super::{
    Commit, Decision, Effect, Engine, JobId, Ledger, Mark, Pen, Places, Refusal, Ticket, Unwritten,
    lend_keys, take_keys_back,
};

impl Engine {
    // --- calls ------------------------------------------------------------------------------------------------------

    /// Takes a call, unless it commits and this replica may not. A joined write may turn out to have the app's own
    /// statements alone, which need no right to commit: its pen refuses the changes of records.
    pub(in crate::engine) fn take_call(&mut self, ticket: Ticket, call: Call) {
        match (self.refusal(), &call) {
            (Some(refusal), Call::Commit(_)) => self.reply(ticket, Err(refusal.error(self.context.me()))),
            _ => {
                self.portion.called(self.now.mono);
                self.writes.call(ticket, call);
            }
        }
    }

    fn reply(&mut self, ticket: Ticket, result: Result<(), Error>) {
        self.effects.push_back(Effect::Reply(ticket, result));
    }

    /// The reason for which this replica may not commit, if there is one.
    pub(in crate::engine) fn refusal(&self) -> Option<Refusal> {
        if let Some(restored) = self.streams.restored() {
            return Some(Refusal::Restored(restored));
        }
        let me = self.context.me();
        if !self.damages.head_is_whole(me) {
            let (seq, part) = (self.ledger.own().seq, DamagedPart::Head);
            return Some(Refusal::Damaged(Damage { stream: me, seq, part }));
        }
        let wait = self.join_wait().filter(|_| self.context.rules.joiner_waits)?;
        Some(Refusal::Joining(wait))
    }

    fn refuse(&mut self, tickets: impl IntoIterator<Item = Ticket>) {
        for ticket in tickets {
            if let Some(refusal) = self.refusal() {
                self.reply(ticket, Err(refusal.error(self.context.me())));
            }
        }
    }

    /// Answers the commits that the store does not have yet, since this replica may not commit any more.
    pub(in crate::engine) fn refuse_calls(&mut self) {
        let mut refused = self.writes.take_commits();
        // Take back an effect that was not performed yet: its write must not reach the store.
        let begun = self.effects.iter().position(|effect| match self.writes.doing() {
            Doing::Writing(_, Source::App) => matches!(effect, Effect::Write(..)),
            Doing::Joining(_) => matches!(effect, Effect::Join(..)),
            Doing::JoiningRound(..) => matches!(effect, Effect::Round(..)),
            _ => false,
        });
        if let Some(at) = begun {
            self.effects.remove(at);
            match self.writes.give_up() {
                Doing::Writing(decision, _) => {
                    self.rows.put_back();
                    refused.extend(decision.waiting.into_iter().map(|(ticket, _)| ticket));
                }
                // A joined write gets a pen that refuses changes when its turn comes again; its own statements stand.
                Doing::Joining(ticket) => self.writes.put_back_join(ticket),
                Doing::JoiningRound(tickets, _) => refused.extend(tickets),
                other => debug_assert!(false, "{other:?} is no write of the app"),
            }
        }
        self.refuse(refused);
    }

    /// Ends the engine: answers every call that is still open, truthfully. The result of a write under way is unknown,
    /// unless the store was fenced: then it was not written.
    pub(crate) fn stop(&mut self, reason: &StopReason) -> Vec<(Ticket, Error)> {
        let mut open = Vec::new();
        let written = if matches!(reason, StopReason::Fenced) { Error::Stopped } else { Error::Unknown };
        match self.writes.give_up() {
            Doing::ReadingRound(round, _) => {
                open.extend(round.into_iter().map(|(ticket, _)| (ticket, Error::Stopped(reason.clone()))));
            }
            Doing::Joining(ticket) => open.push((ticket, written(reason.clone()))),
            Doing::JoiningRound(tickets, _) => {
                open.extend(tickets.into_iter().map(|ticket| (ticket, written(reason.clone()))));
            }
            Doing::Writing(decision, _) => {
                open.extend(decision.waiting.into_iter().map(|(ticket, result)| {
                    let error = if result.is_ok() { written } else { Error::Stopped };
                    (ticket, error(reason.clone()))
                }));
            }
            // No call waits for commits of others, nor for upkeep.
            Doing::Nothing
            | Doing::ReadingCauses(..)
            | Doing::ReadingReceived(..)
            | Doing::Receiving { .. }
            | Doing::ReadingBesides
            | Doing::ReadingMend(_)
            | Doing::Pruning
            | Doing::MendingProjected
            | Doing::FoldingProjected
            | Doing::Installing(_)
            | Doing::Mending => {}
        }
        let calls = self.writes.take_calls().into_iter();
        open.extend(calls.map(|ticket| (ticket, Error::Stopped(reason.clone()))));
        open
    }

    // --- whose turn it is -------------------------------------------------------------------------------------------

    /// Begins a write, if one waits and none is under way.
    pub(in crate::engine) fn begin_write(&mut self) {
        let prunes = self.prunes();
        // A joined write may read any record, so everything must be folded before it; a round that was put back waits for
        // its records. Commits behind them wait too: calls keep their order.
        let folds = self.upkeep.is_folding() || self.install.is_folding();
        let joins = folds && self.writes.next_is_join(|record| self.context.is_projected(record));
        let blocked = joins || self.upkeep.is_urgent();
        let installs = self.install.has_work();
        let waiting = Waiting {
            rows: self.rows.are_urgent(),
            app: self.writes.has_calls() && !blocked && !self.is_in_suspense(),
            // A projection takes no commit whose record may still be staged.
            peers: !self.closing
                && !self.inbox.is_empty()
                && (!self.install.is_folding() || self.context.projected.is_empty()),
            upkeep: (!self.closing || blocked)
                && (installs || self.upkeep.waits() || self.checks.has_mend() || prunes),
            urgent: blocked,
        };
        match self.writes.turn(waiting) {
            Some(Turn::Rows) => self.write_rows(),
            Some(Turn::Peers) => self.begin_receiving(),
            Some(Turn::App) => self.begin_round(),
            Some(Turn::Upkeep) if installs && !self.upkeep.is_urgent() => self.begin_install(),
            Some(Turn::Upkeep) if self.checks.has_mend() && !blocked => self.begin_mend(),
            Some(Turn::Upkeep) if prunes && !blocked && self.begin_pruning() => {}
            Some(Turn::Upkeep) => self.begin_upkeep(),
            None => {}
        }
    }

    /// Whether the app's commits wait, since a peer may be about to show that this store was restored.
    fn is_in_suspense(&self) -> bool {
        self.doubts.keeps_in_suspense() && !self.closing
    }

    /// The pen for the next write.
    pub(in crate::engine) fn pen(&self) -> Pen {
        let own = self.ledger.own();
        // A replica alone in its group needs no log. With a transport it may get other members, which would need its
        // log.
        let prunes = self.context.rules.prune && self.members.is_alone() && !self.context.networked;
        let stable = if prunes { own.seq } else { own.floor };
        Pen::new(&self.context, &self.ledger, self.now.wall.clone(), stable, self.peers.any_up())
            .refusing(self.refusal())
    }

    pub(in crate::engine) fn ledger_mut(&mut self) -> &mut Ledger {
        Arc::make_mut(&mut self.ledger)
    }

    /// Takes back a pen that was used, whatever becomes of its write.
    pub(in crate::engine) fn used(&mut self, pen: Pen) {
        self.marks.add(pen.marks());
        // Drop the pen's share of the ledger first: otherwise changing the ledger would copy it.
        let (clock, kept_up_to) = pen.into_parts();
        self.ledger_mut().take_back(clock, kept_up_to);
    }

    /// Begins a write with the commits at the front of the queue, or with the joined write that stands there.
    fn begin_round(&mut self) {
        let context = Arc::clone(&self.context);
        let (mut round, projected) =
            self.writes.take_round(&context.limits, |record| context.is_projected(record));
        if round.is_empty() {
            if let Some(ticket) = self.writes.take_join() {
                let job = self.writes.begin(Doing::Joining(ticket));
                self.effects.push_back(Effect::Join(job, ticket, Box::new(self.pen())));
            }
            return;
        }
        self.portion.begin_own(self.now.mono);
        if projected {
            let tickets = round.iter().map(|(ticket, _)| *ticket).collect();
            // A commit alone is not tried again, so it needs no copy.
            let copies = if round.len() == 1 { None } else { copies(&round) };
            let job = self.writes.begin(Doing::JoiningRound(tickets, copies.unwrap_or_default()));
            self.effects.push_back(Effect::Round(job, round, Box::new(self.pen())));
            return;
        }
        let (mut keys, places) = lend_keys(&mut round);
        self.add_staged(&mut keys);
        let job = self.writes.begin(Doing::ReadingRound(round, places));
        self.effects.push_back(Effect::Read(job, keys));
    }

    /// Adds the keys under which records are staged, while these are being folded: a write is decided on both.
    pub(in crate::engine) fn add_staged(&self, keys: &mut Vec<Key>) {
        if self.install.is_folding() {
            let staged: Vec<_> = keys.iter().map(|key| keys::staged(key)).collect();
            keys.extend(staged);
        }
    }

    /// Joins the records that a write has read with the staged ones that were read with them.
    pub(in crate::engine) fn join_staged(
        &self,
        pen: &mut Pen,
        keys: &mut Vec<Key>,
        mut values: Vec<Option<Value>>,
    ) -> Result<Vec<Option<Value>>, FormatError> {
        let live = keys.iter().position(|key| keys::unstaged(key).is_some());
        let (Some(count), Some(stage)) = (live, self.install.stage()) else { return Ok(values) };
        let staged = values.split_off(count.min(values.len()));
        keys.truncate(count);
        pen.joins(&stage.row.as_of, keys, values, &staged)
    }

    /// Writes the urgent rows alone.
    fn write_rows(&mut self) {
        let mut batch = WriteBatch::new();
        self.add_rows(&mut batch);
        if batch.is_empty() {
            self.rows.written();
            return self.begin_write();
        }
        let nothing = Box::new(Decision::nothing(self.ledger.durable_clock()));
        let job = self.writes.begin(Doing::Writing(nothing, Source::Rows));
        self.effects.push_back(Effect::Write(job, batch));
    }

    /// Adds the due rows to a write.
    fn add_rows(&mut self, batch: &mut WriteBatch) {
        let Due { peers, forks } = self.rows.take();
        for replica in peers {
            if let Some(peer) = self.peers.get(*replica) {
                let covered = |stream| self.quorum.covered(*replica, stream);
                batch.put(keys::peer(*replica), peer_value(peer.acked_points(), covered));
            }
        }
        for stream in forks {
            if let Some(proof) = self.streams.proof_of(*stream) {
                batch.put(keys::fork(*stream), proof.to_value());
            }
        }
    }

    /// Writes a decision, with the due rows.
    pub(in crate::engine) fn write(&mut self, mut decision: Decision, source: Source) {
        for (ticket, result) in decision.settled.drain(..) {
            self.reply(ticket, result);
        }
        let mut batch = std::mem::take(&mut decision.batch);
        if !batch.is_empty() {
            self.add_rows(&mut batch);
            let job = self.writes.begin(Doing::Writing(Box::new(decision), source));
            self.effects.push_back(Effect::Write(job, batch));
        }
    }

    // --- results of reads -------------------------------------------------------------------------------------------

    /// Takes the records that a write touches.
    pub(in crate::engine) fn records_read(
        &mut self,
        job: JobId,
        keys: Vec<Key>,
        values: Result<Vec<Option<Value>>, ReadError>,
    ) {
        let asked = keys.len();
        let values = values.and_then(|values| match values.len() {
            got if got == asked => Ok(values),
            got => Err(ReadError(format!("{got} values for {asked} keys").into())),
        });
        match self.writes.end(job) {
            Doing::ReadingRound(round, places) => self.decide_round(round, &places, keys, values),
            Doing::ReadingReceived(commits, places, digests) => {
                self.decide_received(commits, &places, digests, keys, values);
            }
            Doing::ReadingBesides => self.decide_fold(values),
            Doing::Installing(installing) => self.install_read(installing, keys, values),
            Doing::Pruning => self.pruning_read(&keys, values),
            Doing::ReadingMend(found) => self.decide_mend(found, values),
            other => debug_assert!(false, "records were read during {other:?}"),
        }
    }

    /// Takes rows that a write needs before its records.
    pub(in crate::engine) fn rows_read(&mut self, job: JobId, page: Result<ScanPage, ReadError>) {
        match self.writes.end(job) {
            Doing::ReadingBesides => self.besides_read(page),
            Doing::ReadingCauses(commits, causes) => self.causes_read(commits, causes, page),
            Doing::Installing(installing) => self.install_scanned(installing, page),
            Doing::Pruning => self.tombstones_read(page),
            other => debug_assert!(false, "rows were read during {other:?}"),
        }
    }

    fn decide_round(
        &mut self,
        mut round: Vec<(Ticket, Commit)>,
        places: &Places,
        mut keys: Vec<Key>,
        values: Result<Vec<Option<Value>>, ReadError>,
    ) {
        let mut pen = self.pen();
        let values =
            values.map_err(Error::from).and_then(|values| Ok(self.join_staged(&mut pen, &mut keys, values)?));
        take_keys_back(&mut round, keys, places);
        match values {
            // A proof that this store was restored may have come while the records were read.
            Ok(_) if self.refusal().is_some() => self.refuse(round.into_iter().map(|(ticket, _)| ticket)),
            // A doubt about the own stream may have come, too: its end decides.
            Ok(_) if self.is_in_suspense() => self.writes.put_back(round),
            Ok(values) => {
                if self.upkeep.is_folding() && self.folds_first(&round, places, &values) {
                    return self.writes.put_back(round);
                }
                let mut decision = pen.decide(round, values, places, None);
                self.used(pen);
                self.writes.put_back(std::mem::take(&mut decision.undecided));
                self.write(decision, Source::App);
            }
            Err(error) => {
                let error: SharedError = match error {
                    Error::Read(error) => error,
                    other => Arc::from(BoxError::from(other.to_string())),
                };
                for (ticket, _) in round {
                    self.reply(ticket, Err(Error::Read(Arc::clone(&error))));
                }
            }
        }
    }

    /// Whether values that can be merged lie beside records of the round. These records are folded first, so that the
    /// app's commits see them whole.
    fn folds_first(&mut self, round: &[(Ticket, Commit)], places: &Places, values: &[Option<Value>]) -> bool {
        let changes = round.iter().flat_map(|(_, commit)| &commit.changes);
        let is_open = |value: &Option<Value>| {
            let header =
                value.as_deref().and_then(|value| record::parse(value).ok()).map(|(header, _)| header);
            header.and_then(|header| header.merge).is_some_and(|merge| merge.beside)
        };
        let open =
            changes.enumerate().filter(|(at, _)| values.get(places.of_change(*at)).is_some_and(is_open));
        let open = open.map(|(_, change)| change.record.clone());
        self.upkeep.hurry(open)
    }

    // --- results of writes ------------------------------------------------------------------------------------------

    /// Takes the result of a write: it is durable, or certainly not applied.
    pub(in crate::engine) fn written(&mut self, job: JobId, result: Result<(), Unwritten>) {
        let (decision, source) = match self.writes.end(job) {
            Doing::Writing(decision, source) => (decision, source),
            Doing::Installing(installing) => return self.install_written(installing, result.is_ok()),
            other => return debug_assert!(false, "a write ended during {other:?}"),
        };
        match &result {
            Ok(()) => self.rows.written(),
            Err(_) => self.rows.put_back(),
        }
        match (result, source) {
            (Ok(()), Source::App | Source::Peers(_)) => {
                self.portion.durable(self.now.mono);
                self.announce(*decision);
            }
            (Ok(()), Source::Rows) => {}
            (Ok(()), Source::Fold) => self.page_is_folded(),
            (result, Source::Mend) => self.mend_written(result.is_ok()),
            (result, Source::Prune) => self.pruned(result.is_ok()),
            // Head and log are as before. The clock is not set back: a stamp is never drawn twice.
            (Err(error), Source::App) => {
                let others = decision.waiting.len() > 1;
                for (ticket, _) in decision.waiting {
                    self.reply(ticket, Err(error.error(others)));
                }
            }
            (Err(error), Source::Peers(count)) => {
                let first = decision.heads.first().map(|(stream, head)| (*stream, head.seq));
                self.receive_failed(first, count, &error);
            }
            (Err(_), Source::Rows) => self.rows.failed(self.now.mono, &mut self.rng),
            (Err(_), Source::Fold) => self.upkeep.fold_failed(self.now.mono, &mut self.rng),
        }
    }

    /// Takes the result of a joined write: it is durable, or certainly undone.
    pub(in crate::engine) fn joined(&mut self, job: JobId, result: Joined) {
        if let Ok(joined) = &result {
            self.upkeep.projected(joined.1.owes);
        }
        match self.writes.end(job) {
            Doing::Joining(ticket) => match result {
                Ok(joined) => {
                    let (pen, mut decision) = *joined;
                    self.used(pen);
                    decision.waiting.push((ticket, Ok(())));
                    self.announce(decision);
                }
                Err(Undone::All(error) | Undone::OneOf(error)) => self.reply(ticket, Err(error)),
            },
            Doing::JoiningRound(tickets, copies) => match result {
                Ok(joined) => {
                    self.portion.durable(self.now.mono);
                    let (pen, mut decision) = *joined;
                    self.used(pen);
                    self.writes.put_back(std::mem::take(&mut decision.undecided));
                    for (ticket, result) in decision.settled.drain(..) {
                        self.reply(ticket, result);
                    }
                    self.announce(decision);
                }
                // A proof that this store was restored may have come while the round was written.
                Err(_) if self.refusal().is_some() => self.refuse(tickets),
                // Each alone shows which of them it was.
                Err(Undone::OneOf(_)) if !copies.is_empty() => self.writes.put_back_alone(copies),
                Err(Undone::All(error) | Undone::OneOf(error)) => {
                    let shared = match &error {
                        Error::Rejected(error) | Error::Read(error) => Arc::clone(error),
                        other => Arc::from(BoxError::from(other.to_string())),
                    };
                    let mut tickets = tickets.into_iter();
                    if let Some(first) = tickets.next() {
                        self.reply(first, Err(error));
                    }
                    for ticket in tickets {
                        self.reply(ticket, Err(Error::Rejected(Arc::clone(&shared))));
                    }
                }
            },
            Doing::Receiving { stream, seq, count } => match result {
                Ok(joined) => {
                    self.portion.durable(self.now.mono);
                    let (pen, decision) = *joined;
                    self.used(pen);
                    self.announce(decision);
                }
                Err(Undone::All(error) | Undone::OneOf(error)) => {
                    self.receive_failed(Some((stream, seq)), count, &error);
                }
            },
            other => debug_assert!(false, "a joined write ended during {other:?}"),
        }
    }

    /// Tells the app and the peers of a decision that has become durable.
    fn announce(&mut self, decision: Decision) {
        let me = self.context.me();
        let streams: Vec<_> = decision.heads.iter().map(|(stream, _)| *stream).collect();
        self.floors_may_rise(streams.iter().copied());
        self.tombstones.came(decision.tombstones);
        let commits = |(stream, head): &(_, Head)| head.seq.saturating_sub(self.ledger.head(*stream).seq);
        self.retention.wrote(decision.heads.iter().map(commits).sum(), decision.logged_bytes);
        let before = self.ledger.own().seq;
        let ledger = self.ledger_mut();
        ledger.apply(decision.heads, decision.clock);
        if decision.elsewhere.is_some() {
            // The commits that wait may rest on the one that was left out, and the tip of its stream counts it.
            self.let_go(0);
        }
        // Events come before replies: a caller that has its reply finds its events, and one that subscribes after it
        // hears none of them.
        self.effects.extend(decision.notices.into_iter().map(Effect::Notify));
        let replies = decision.waiting.into_iter();
        self.effects.extend(replies.map(|(ticket, result)| Effect::Reply(ticket, result)));
        if streams.contains(&me) {
            match decision.frame {
                // A restore may have been detected while this write was in flight: then do not broadcast it.
                Some(frame) if !self.streams.has_two_histories(me) => self.send_live(before, frame),
                Some(_) => {}
                // The round is too long for a frame: an acknowledgement tells peers that there is something to pull.
                None if self.peers.any_up() => self.acks.later([me], self.peers.up(), self.now.mono),
                None => {}
            }
        } else if !streams.is_empty() {
            self.inbox.settle();
            if self.inbox.is_empty() {
                self.streams.settled();
            }
            if self.streams.applied(streams.iter().copied()) {
                self.peers.nothing_is_passed_over();
            }
            self.puller.store_works();
            self.acks.later(streams, self.peers.up(), self.now.mono);
        }
        self.take_members(decision.members);
        if let Some(Elsewhere { from, stream, seq, reason, .. }) = decision.elsewhere {
            self.stop_stream(stream, from, StreamStop::Refused { seq, reason });
        }
    }

    /// Takes members that were added or changed. Hellos go out at once: a peer that was a stranger until now may wait
    /// for one.
    pub(in crate::engine) fn take_members(&mut self, members: Vec<Member>) {
        if members.is_empty() {
            return;
        }
        let was_moved = self.members.moved_to().is_some();
        if self.members.apply(members) {
            self.marks.note(Mark::BecameMember);
            self.tell(Event::Joined);
        }
        if !was_moved && self.members.moved_to().is_some() && self.refusal().is_some() {
            // Commits that wait would name a device on which this replica is no member.
            self.refuse_calls();
        }
        self.hellos.now();
    }
}

/// Copies of the commits of a round; `None` if one of them can be decided only once.
fn copies(round: &[(Ticket, Commit)]) -> Option<Vec<(Ticket, Commit)>> {
    round.iter().map(|(ticket, commit)| commit.copy().map(|copy| (*ticket, copy))).collect()
}
