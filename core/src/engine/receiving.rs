//! Commits of others on their way from the inbox into the store: many in one write, in turn with the app's own.

use super::group::Decision;
use super::merge::{self, Received};
use super::{Effect, Engine, Mark, Source, Step};
use crate::error::Error;
use crate::events::{Event, StreamStop};
use crate::ids::ReplicaId;
use crate::storage::{Key, ReadError, Value};

impl Engine {
    /// Takes the commits at the front of the inbox, as many as fit into one write, and begins to apply them.
    pub(super) fn form_received(&mut self) {
        let limits = &self.limits;
        let inbox = &mut self.sync.inbox;
        let (mut changes, mut bytes) = (0, 0);
        let most = if inbox.one_by_one > 0 { 1 } else { limits.event_commits_max };
        inbox.one_by_one = inbox.one_by_one.saturating_sub(1);
        let fitting = inbox.commits.iter().take(most).take_while(|next| {
            (changes, bytes) = (changes + next.values.len(), bytes + next.weight());
            changes <= limits.commit_changes_max && bytes <= limits.frame_bytes_max
        });
        // One fits always.
        let count = fitting.count().max(1).min(inbox.commits.len());
        let mut commits: Vec<_> = inbox.commits.drain(..count).collect();
        inbox.bytes = inbox.bytes.saturating_sub(commits.iter().map(Received::weight).sum());
        inbox.in_write = count;
        let Some(first) = commits.first() else { return };
        let mut records =
            commits.iter().flat_map(|commit| &commit.entry.changes).map(|change| &change.record);
        if records.any(|record| self.projected.iter().any(|range| range.contains(record.as_bytes()))) {
            self.step = Step::Receiving { stream: first.stream, seq: first.seq };
            self.effects.push_back(Effect::Receive(commits, Box::new(self.pen.clone())));
        } else {
            self.effects.push_back(Effect::Read(merge::lend_keys(&mut commits)));
            self.step = Step::ReadingReceived(commits);
        }
        // There may be room for another page now.
        self.maybe_pull();
    }

    /// The records of `commits` were read: decides what becomes of them.
    pub(super) fn receive(
        &mut self,
        mut commits: Vec<Received>,
        keys: Vec<Key>,
        values: Result<Vec<Option<Value>>, ReadError>,
    ) {
        merge::take_keys_back(&mut commits, keys);
        match values.map_err(Error::from).and_then(|values| self.pen.receive(&commits, values)) {
            Ok(decision) => self.perform(decision, Source::Peers),
            Err(error) => {
                let first = commits.first().map(|commit| (commit.stream, commit.seq));
                self.receive_failed(first, &error);
            }
        }
    }

    /// What was received could not be written: all that rests on it goes too, and is asked for again later, one by one.
    /// One commit that fails alone stops its own stream and no other.
    pub(super) fn receive_failed(&mut self, first: Option<(ReplicaId, u64)>, error: &dyn std::fmt::Display) {
        self.mark(Mark::ReceiveFailed);
        if let Some((stream, seq)) = first
            && self.sync.inbox.in_write == 1
        {
            return self.put_off(stream, StreamStop::NotStored { seq, error: error.to_string() });
        }
        self.forget_received();
        self.sync.failing.again(self.mono, &mut self.sync.rng);
        self.tell(Event::ReceiveFailed { error: error.to_string() });
    }

    /// Lets go of everything that waits, since what it rests on is not stored: it comes again. A page that is on its way
    /// rests on it too.
    pub(super) fn forget_received(&mut self) {
        self.sync.inbox.reset();
        if let Some(pull) = &mut self.sync.pull {
            pull.void = true;
        }
    }

    /// What others committed has become durable here.
    pub(super) fn announce_received(&mut self, decision: Decision) {
        let streams: Vec<_> = decision.heads.iter().map(|(stream, _)| *stream).collect();
        self.pen.moved.extend(streams.iter().copied());
        self.pen.heads.extend(decision.heads);
        self.durable_clock = decision.clock;
        self.effects.extend(decision.notices.into_iter().map(Effect::Notify));
        self.sync.inbox.settle();
        self.sync.failing.reset();
        for stream in &streams {
            self.sync.refusing.remove(stream);
        }
        self.take_members(decision.members);
        self.acknowledge_later(streams);
        self.maybe_pull();
    }
}
