//! The one way of the tests into the engine, beside its inputs, its effects and its report. No other test file names a
//! private field or a private method of the engine, so that a change of its inside changes this file alone.

use super::*;
use crate::engine::Unwritten;
use crate::joined::Undone;

/// The write that is open: its id, and the decision if it is a joined write.
pub(super) type Open = (JobId, Option<Box<(Pen, Decision)>>);

impl World {
    /// Decides a joined write, with the pen that it was lent. A write that has nothing to write ends at once.
    pub(super) fn join(&mut self, effect: Effect) -> Option<WriteBatch> {
        let Effect::Join(job, ticket, mut pen) = effect else { panic!("{effect:?} is no joined write") };
        let commit = self.joins.remove(&ticket).unwrap();
        let keys: Vec<_> = commit.changes.iter().map(|change| change.record.as_bytes().to_vec()).collect();
        let values = block_on(self.store.get_many(&keys)).unwrap();
        let input = match pen.decide_alone(commit, values) {
            Err(error) => Input::Joined(job, Err(Undone::All(error))),
            Ok(decision) if decision.batch.is_empty() => Input::Joined(job, Ok(Box::new((*pen, decision)))),
            Ok(mut decision) => {
                let batch = std::mem::take(&mut decision.batch);
                self.open = Some((job, Some(Box::new((*pen, decision)))));
                return Some(batch);
            }
        };
        self.handle(input);
        None
    }

    /// Applies commits of others in a transaction, with the pen that was lent for it. Returns how many they are, and the
    /// input with which the write ends.
    pub(super) fn receive(&mut self, effect: Effect) -> (usize, Input) {
        let Effect::Receive(job, mut commits, mut pen) = effect else {
            panic!("{effect:?} receives nothing")
        };
        let (keys, places) = lend_keys(&mut commits);
        take_keys_back(&mut commits, keys.clone(), &places);
        let values = block_on(self.store.get_many(&keys)).unwrap();
        let mut decision = pen.receive(&commits, values, &places).unwrap();
        block_on(self.store.write(std::mem::take(&mut decision.batch))).unwrap();
        (commits.len(), Input::Joined(job, Ok(Box::new((*pen, decision)))))
    }

    /// Applies commits of the app in a transaction, with the pen that was lent for it; returns the input with which the write
    /// ends.
    pub(super) fn round(&mut self, effect: Effect) -> Input {
        let Effect::Round(job, mut round, mut pen) = effect else { panic!("{effect:?} is no round") };
        let (keys, places) = lend_keys(&mut round);
        let values = block_on(self.store.get_many(&keys)).unwrap();
        take_keys_back(&mut round, keys, &places);
        let mut decision = pen.decide(round, values, &places, None);
        block_on(self.store.write(std::mem::take(&mut decision.batch))).unwrap();
        Input::Joined(job, Ok(Box::new((*pen, decision))))
    }

    /// The input with which the write that is open ends, joined or not.
    pub(super) fn end_of_write(&mut self, result: Result<(), SharedError>) -> Input {
        let (job, joined) = self.open.take().expect("a write is open");
        match (joined, result) {
            (Some(joined), Ok(())) => Input::Joined(job, Ok(joined)),
            (Some(_), Err(error)) => Input::Joined(job, Err(Undone::All(Error::Rejected(error)))),
            (None, result) => Input::Written(job, result.map_err(Unwritten::Rejected)),
        }
    }

    /// The place of the own stream.
    pub(super) fn own_head(&self) -> Head {
        self.engine.ledger.own()
    }

    /// The writer of another history of the own stream, which goes on behind `seq`.
    pub(super) fn copy_at(&self, seq: u64) -> Author {
        let head = self.engine.ledger.own();
        Author::of_copy(seq, if seq == head.seq { head.digest } else { self.digest_of(seq) })
    }

    /// The digest of the own stream at one of its commits.
    pub(super) fn digest_of(&self, seq: u64) -> Digest {
        split_row(&self.get(keys::log(REPLICA, seq + 1)).expect("a later commit")).unwrap().0
    }

    pub(super) fn clock(&self) -> HlcGenerator {
        self.engine.ledger.clock().clone()
    }

    /// The highest stamp that was drawn or seen, stored or not.
    pub(super) fn drawn(&self) -> Hlc {
        self.engine.ledger.clock().high_water()
    }

    /// The heads of all streams here, as a member that has all of them names them.
    pub(super) fn heads(&self) -> Vec<WireHead> {
        self.engine.heads().0
    }

    /// How many streams have a head here.
    pub(super) fn known_heads(&self) -> usize {
        self.engine.ledger.heads().len()
    }

    /// How many streams have stopped here.
    pub(super) fn known_stops(&self) -> usize {
        self.engine.report().streams.iter().filter(|stream| stream.stopped.is_some()).count()
    }

    pub(super) fn inbox_bytes(&self) -> usize {
        self.engine.inbox.bytes()
    }

    /// Whether the commit that came last keeps no frame in memory.
    pub(super) fn last_waiting_has_own_bytes(&self) -> bool {
        let last = self.engine.inbox.last().expect("it waits");
        last.raw.is_unique() && last.values.iter().flatten().all(Bytes::is_unique)
    }

    /// How many peers wait for a page.
    pub(super) fn waiting_pulls(&self) -> usize {
        self.engine.serving.waiting()
    }

    /// How many places wait to be compared with the word of a peer.
    pub(super) fn waiting_checks(&self) -> usize {
        self.engine.looks.comparisons()
    }

    /// Whether a peer said that it cannot serve this commit.
    pub(super) fn cannot_serve(&self, peer: ReplicaId, stream: ReplicaId, seq: u64) -> bool {
        self.engine.damages.has_ended(peer, stream, seq - 1)
    }

    /// The effects that were not performed yet.
    pub(super) fn waiting_effects(&self) -> Vec<&Effect> {
        self.engine.effects.iter().collect()
    }

    /// The peer whose last page or silence was of no use.
    pub(super) fn useless_peer(&self) -> Option<ReplicaId> {
        self.engine.puller.useless()
    }

    /// Whether a peer rests.
    pub(super) fn backs_off(&self, peer: ReplicaId) -> bool {
        self.engine.peers.rests_now(peer)
    }

    /// Queues an event, as a frame may.
    pub(super) fn tell(&mut self, event: Event) {
        self.engine.tell(event);
    }

    /// Owes a peer a hello.
    pub(super) fn say_hello(&mut self, to: ReplicaId) {
        self.engine.peers.owe(to, |owed| owed.hello = true);
    }
}
