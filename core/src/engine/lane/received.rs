//! A chapter of the engine: received commits on their way from the inbox into the store, and what becomes of those that
//! the store or a projection does not take.

use crate::error::Error;
use crate::events::{Event, StreamStop};
use crate::ids::ReplicaId;
use crate::storage::{Key, ReadError, ScanPage, Value};

use super::super::commit::{Causes, Digests};
use super::super::reads::READ;
use super::super::writes::{Doing, Source};
use super::super::{Effect, Engine, Mark, Places, Received, lend_keys, take_keys_back};

impl Engine {
    /// Begins a write with the commits at the front of the inbox.
    pub(super) fn begin_receiving(&mut self) {
        let weight_max = self.portion.weight_max(self.writes.has_calls());
        let commits = self.inbox.take(&self.context.limits, weight_max);
        if commits.is_empty() {
            return;
        }
        self.portion.begin(commits.iter().map(Received::weight).sum(), self.now.mono);
        let causes = Causes::new(&self.context, &self.ledger, &commits);
        self.read_causes(commits, causes);
    }

    /// Reads the rows of causes, then goes on with the write.
    fn read_causes(&mut self, commits: Vec<Received>, mut causes: Causes) {
        match causes.step() {
            Some(rows) => {
                let job = self.writes.begin(Doing::ReadingCauses(commits, causes));
                self.effects.push_back(Effect::Scan(job, rows, READ));
            }
            None => self.go_on_receiving(commits, causes.digests()),
        }
    }

    /// Takes rows of causes.
    pub(super) fn causes_read(
        &mut self,
        commits: Vec<Received>,
        mut causes: Causes,
        page: Result<ScanPage, ReadError>,
    ) {
        match page {
            Ok(page) => {
                causes.take(page);
                self.read_causes(commits, causes);
            }
            Err(error) => {
                let first = commits.first().map(|commit| (commit.stream, commit.seq));
                self.receive_failed(first, commits.len(), &Error::from(error));
            }
        }
    }

    /// Reads the records that received commits name, or applies the commits in a native transaction.
    fn go_on_receiving(&mut self, mut commits: Vec<Received>, digests: Digests) {
        let Some(first) = commits.first() else { return };
        let mut records =
            commits.iter().flat_map(|commit| &commit.entry.changes).map(|change| &change.record);
        if records.any(|record| self.context.is_projected(record)) {
            debug_assert!(
                !self.install.is_folding(),
                "a projection takes no commit before the fold has ended"
            );
            let (stream, seq, count) = (first.stream, first.seq, commits.len());
            let job = self.writes.begin(Doing::Receiving { stream, seq, count });
            self.effects.push_back(Effect::Receive(job, commits, Box::new(self.pen().comparing(digests))));
        } else {
            let (mut keys, places) = lend_keys(&mut commits);
            self.add_staged(&mut keys);
            let job = self.writes.begin(Doing::ReadingReceived(commits, places, digests));
            self.effects.push_back(Effect::Read(job, keys));
        }
    }

    pub(super) fn decide_received(
        &mut self,
        mut commits: Vec<Received>,
        places: &Places,
        digests: Digests,
        mut keys: Vec<Key>,
        values: Result<Vec<Option<Value>>, ReadError>,
    ) {
        let mut pen = self.pen().comparing(digests);
        let values =
            values.map_err(Error::from).and_then(|values| Ok(self.join_staged(&mut pen, &mut keys, values)?));
        take_keys_back(&mut commits, keys, places);
        match values.and_then(|values| pen.receive(&commits, values, places)) {
            Ok(decision) => {
                self.used(pen);
                if decision.batch.is_empty() {
                    // Its first commit rests on another history.
                    return self.announce(decision);
                }
                self.write(decision, Source::Peers(commits.len()));
            }
            Err(error) => {
                let first = commits.first().map(|commit| (commit.stream, commit.seq));
                self.receive_failed(first, commits.len(), &error);
            }
        }
    }

    // --- commits that fail ------------------------------------------------------------------------------------------

    /// Takes note that received commits could not be written. All that waits rests on them, so it is let go too, and
    /// asked for again later, one by one. A commit that fails alone stops its own stream and no other.
    pub(super) fn receive_failed(
        &mut self,
        first: Option<(ReplicaId, u64)>,
        count: usize,
        error: &dyn std::fmt::Display,
    ) {
        self.marks.note(Mark::ReceiveFailed);
        self.portion.failed();
        if let Some((stream, seq)) = first.filter(|_| count == 1) {
            return self.put_off(stream, StreamStop::NotStored { seq, error: error.to_string() }, count);
        }
        self.let_go(count);
        self.puller.store_failed(self.now.mono, &mut self.rng);
        self.tell(Event::ReceiveFailed { error: error.to_string() });
    }

    /// Stops a stream whose next commit could not be applied: the commit is tried again later. The commits that waited
    /// behind it are let go, and asked for now.
    pub(super) fn put_off(&mut self, stream: ReplicaId, reason: StreamStop, count: usize) {
        self.let_go(count);
        let told = self.streams.put_off(stream, reason, &self.now, &self.context, &mut self.rng);
        self.tell_of_streams(told);
    }

    /// Lets go of everything that waits, since the `in_write` commits on which it rests are not stored. All of it is
    /// pulled again. A page on its way rests on them too.
    pub(in crate::engine) fn let_go(&mut self, in_write: usize) {
        self.inbox.fail(in_write);
        self.puller.let_go();
        let (fell, told) = self.streams.fall_back(&self.ledger);
        for stream in fell {
            self.peers.tip_fell(stream, self.streams.tip(stream).seq);
        }
        self.tell_of_streams(told);
    }
}
