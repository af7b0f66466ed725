//! A chapter of the engine: checks of the logs here, and the mending of what they find.

use crate::error::Error;
use crate::events::{Damage, DamagedPart, Event};
use crate::ids::ReplicaId;
use crate::storage::{ReadError, Value, WriteBatch};
use crate::stored::keys::{self, RecordKey};
use crate::stored::log::{self, chain};
use crate::stored::{Head, LogEntry, Point};

use super::checks::{Mend, Place, Step};
use super::io::{Answer, Effect, Ticket};
use super::mender::Mender;
use super::pull::Kind;
use super::reads::Reader;
use super::stream::admission::cut_values;
use super::wire::{self, Packed, Rebuilt, Show};
use super::writes::{Doing, Source};
use super::{Decision, Engine};

impl Engine {
    /// Takes a call that wants the logs here checked.
    pub(super) fn check_log(&mut self, ticket: Ticket) {
        self.checks.call(ticket);
    }

    /// Goes on with the check: asks for its next read, asks a peer for a damaged place, or answers the calls.
    pub(super) fn go_on_with_check(&mut self) {
        if self.closing {
            return;
        }
        self.checks.begin(&self.ledger, |stream| self.damages.head_is_whole(stream));
        while let Some(step) = self.checks.step(&self.ledger, self.context.me()) {
            match step {
                Step::Read(query) => self.reads.want(Reader::Check, query),
                Step::Found(damage) => self.note_damage(damage),
                Step::Sound(stream, seqs) => self.damages.forget(stream, seqs),
                // A wrong floor ends no stream.
                Step::Begins(stream, Point { seq, .. }) => {
                    self.tell(Event::Damaged(Damage { stream, seq, part: DamagedPart::Floor }));
                }
            }
        }
        if self.checks.has_mend() {
            self.begin_write();
        }
        self.ask_for_damaged();
        if self.checks.poll_news() {
            // Peers leave out what they heard that is damaged here, until the next hello.
            self.hellos.now();
        }
        if let Some((callers, result)) = self.checks.poll_end() {
            for ticket in callers {
                self.effects.push_back(Effect::Checked(ticket, Ok(result.clone())));
            }
        }
        // A call may have waited for a walk behind a mended row, which no other call waits for.
        if self.checks.may_begin() {
            self.go_on_with_check();
        }
    }

    /// Takes the answer to a read of the check.
    pub(super) fn check_read(&mut self, answer: Result<Answer, ReadError>) {
        match answer {
            Ok(answer) => self.checks.take(answer),
            Err(error) => {
                let error = std::sync::Arc::from(error.0);
                for ticket in self.checks.fail() {
                    let error = Error::Read(std::sync::Arc::clone(&error));
                    self.effects.push_back(Effect::Checked(ticket, Err(error)));
                }
            }
        }
    }

    /// Asks the next peer for the next damaged place: for a row by its place, for values by a pull of its commit alone.
    fn ask_for_damaged(&mut self) {
        let Self { checks, peers, members, context, puller, inbox, .. } = self;
        // A stream whose head is damaged here may go any length at peers.
        let able = |(stream, seq): (ReplicaId, u64), place: &Place| {
            let able = peers.iter().filter(|(replica, peer)| {
                let has = *replica == stream
                    || place.part == DamagedPart::Head
                    || peer.acked_of(stream).max(peer.has_of(stream)) >= seq;
                has && peer.is_greeted()
                    && !place.tried.contains(replica)
                    && members.trusts(*replica, context)
            });
            able.map(|(replica, _)| replica).max_by_key(|replica| *replica == stream)
        };
        let can_pull = puller.is_free() && inbox.has_room_for_a_page(&context.limits);
        let Some(((stream, seq), place, peer)) = checks.choose(can_pull, able) else { return };
        let pull = match place {
            Place { part: DamagedPart::Value, previous: Some(digest), .. } => {
                let excluded = self.all_streams_but(stream, peer);
                Some(self.send_pull(
                    peer,
                    Kind::One,
                    excluded,
                    Some((stream, Point { seq: seq - 1, digest })),
                ))
            }
            _ => {
                self.send(peer, wire::show(self.context.group(), &Show { stream, seq, checked: false }));
                None
            }
        };
        self.checks.asks((stream, seq), peer, pull, self.now.mono);
    }

    /// Takes a page that was asked for the values of a commit; returns whether it is one.
    pub(super) fn hear_values(&mut self, from: ReplicaId, pull: u32, packed: &Packed) -> bool {
        let Some(((stream, seq), digest)) = self.checks.is_page(from, pull) else { return false };
        let most = self.context.limits.frame_bytes_max;
        let commits = packed.rebuild(from, most, true, |run, stream| self.base_of(run, stream));
        let found = commits.unwrap_or_default().into_iter().find_map(|commit| match commit {
            Rebuilt::Commit(commit) if (commit.stream, commit.seq) == (stream, seq) => Some(commit),
            _ => None,
        });
        // The entry has the digests of the values that came, so values that are others make another entry.
        let found = found.filter(|commit| chain(&commit.previous, &commit.entry) == digest);
        self.checks.brought(found.and_then(|commit| {
            let entry = LogEntry::parse(stream, &commit.entry).ok()?;
            let values = cut_values(&commit, &entry).ok()?;
            Some((entry, values))
        }));
        true
    }

    // --- writing ------------------------------------------------------------------------------------------------------

    /// Begins to write what mends a place.
    pub(super) fn begin_mend(&mut self) {
        self.checks.begin_write();
        match self.checks.mend() {
            // Rows below the floor were pruned since the check began: a mend must not bring them back.
            Some(((stream, seq), Mend::Row { .. } | Mend::Values(..)))
                if seq <= self.ledger.head(stream).floor =>
            {
                self.mend_written(true);
                self.begin_write();
            }
            Some(((stream, seq), Mend::Row { previous, entry })) => {
                let mut batch = WriteBatch::new();
                batch.put(keys::log(stream, seq), log::row(previous, entry));
                if let Some(head) = self.head_with(stream, seq, entry) {
                    batch.put(keys::head(stream), head.to_value());
                }
                self.write_mend(batch);
            }
            Some(((stream, _), Mend::Head(head))) => {
                let mut batch = WriteBatch::new();
                batch.put(keys::head(stream), head.to_value());
                self.write_mend(batch);
            }
            Some(((stream, _), Mend::Floor(point))) => {
                let mut batch = WriteBatch::new();
                batch.put(keys::head(stream), self.ledger.begins_at(stream, *point).to_value());
                self.write_mend(batch);
            }
            Some(((stream, seq), Mend::Values(entry, _))) => {
                let records = entry.changes.iter().map(|change| &change.record);
                let kept = records.clone().map(|record| keys::kept(stream, seq, record));
                let keys = records.map(|record| record.as_bytes().to_vec()).chain(kept).collect();
                let job = self.writes.begin(Doing::ReadingMend(Vec::new()));
                self.effects.push_back(Effect::Read(job, keys));
            }
            None => {}
        }
    }

    /// Takes what a mended commit touches: its records and its kept values, `found`; and behind that the log rows of the
    /// commits of which its records say that they are. No other write has come between.
    pub(super) fn decide_mend(
        &mut self,
        mut found: Vec<Option<Value>>,
        values: Result<Vec<Option<Value>>, ReadError>,
    ) {
        let Ok(mut values) = values else { return self.mend_written(false) };
        let Some(((stream, seq), Mend::Values(entry, brought))) = self.checks.mend() else { return };
        let is_first = found.is_empty();
        if is_first {
            std::mem::swap(&mut found, &mut values);
        }
        let mender = Mender { stream, seq, entry, brought, found: &found, ledger: &self.ledger };
        let dots = mender.dots();
        if is_first && !dots.is_empty() {
            let keys = dots.into_iter().map(|(stream, seq)| keys::log(stream, seq)).collect();
            let job = self.writes.begin(Doing::ReadingMend(found));
            return self.effects.push_back(Effect::Read(job, keys));
        }
        let batch = mender.batch(dots.into_iter().zip(values).collect());
        self.write_mend(batch);
    }

    /// The head of a stream whose last row is this one, if its head was not proven.
    fn head_with(&self, stream: ReplicaId, seq: u64, entry: &[u8]) -> Option<Head> {
        let head = self.ledger.head(stream);
        let is_open = !self.damages.head_is_whole(stream) && head.seq == seq;
        let entry = is_open.then(|| LogEntry::parse(stream, entry).ok()).flatten()?;
        Some(Head { stamp: entry.stamp, ..head })
    }

    /// Takes note that a head is the right one: its stream goes on.
    fn head_is_mended(&mut self, stream: ReplicaId, head: Head) {
        self.damages.head_is_mended(stream, head.seq);
        let before = self.streams.tip(stream).seq;
        self.ledger_mut().mend(stream, head);
        if stream != self.context.me() {
            self.streams.mend(stream, &head);
            if head.seq < before {
                self.peers.tip_fell(stream, head.seq);
            } else {
                self.peers.tip_rose(stream, head.seq);
            }
            self.peers.all_are_useful();
        }
    }

    fn write_mend(&mut self, batch: WriteBatch) {
        if batch.is_empty() {
            return self.mend_written(true);
        }
        let is_projected =
            |key| RecordKey::from_bytes(key).is_some_and(|key| self.context.is_projected(&key));
        if batch.puts().any(|(key, _)| is_projected(key)) {
            // A projection has made something of the damaged value, which is wrong too.
            let job = self.writes.begin(Doing::MendingProjected);
            return self.effects.push_back(Effect::WriteProjected(job, batch));
        }
        let decision = Decision { batch, ..Decision::nothing(self.ledger.durable_clock()) };
        self.write(decision, Source::Mend);
    }

    /// Takes the result of the write.
    pub(super) fn mend_written(&mut self, ok: bool) {
        let Some((damage, mend)) = self.checks.written(ok, |stream| self.ledger.head(stream).floor) else {
            return;
        };
        let Damage { stream, seq, .. } = damage;
        match mend {
            Mend::Row { entry, .. } => {
                if let Some(head) = self.head_with(stream, seq, &entry) {
                    self.head_is_mended(stream, head);
                }
            }
            Mend::Head(head) => self.head_is_mended(stream, head),
            Mend::Floor(point) => {
                let head = self.ledger.begins_at(stream, point);
                self.ledger_mut().mend(stream, head);
                return self.tell(Event::Mended(damage));
            }
            Mend::Values(..) => {}
        }
        self.damages.forget(stream, seq..=seq);
        for peer in self.doubts.hear_again(stream) {
            self.peers.compares_again(peer, stream);
        }
        self.tell(Event::Mended(damage));
    }
}
