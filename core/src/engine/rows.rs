//! The rows that ride on any write: acknowledgements of peers, and streams with two histories.
//!
//! Acknowledgements are stored now and then, since every commit would pay for them; a fork is stored at once.
//!
//! Owns: the rows that are due, and those that the write under way has. Holds always: a row that was taken is stored or
//! comes back.

use std::collections::BTreeSet;

use crate::clock::Mono;
use crate::ids::ReplicaId;

use super::Machine;
use super::backoff::Backoff;

/// The rows that are not stored yet.
#[derive(Debug, Default)]
pub(super) struct Rows {
    due: Due,
    /// The rows that the write under way stores.
    writing: Due,
    /// Whether the rows of peers are to be written even if there is no other write.
    flush: bool,
    /// The pause after a write of rows alone failed.
    backoff: Backoff,
}

/// Rows that are due, by their kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Peers of which the store does not have the latest acknowledgements.
    pub(super) peers: BTreeSet<ReplicaId>,
    /// Streams with two histories.
    pub(super) forks: BTreeSet<ReplicaId>,
}

impl Due {
    fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.forks.is_empty()
    }
}

impl Rows {
    /// Takes note that the acknowledgements of a peer have changed.
    pub(super) fn peer(&mut self, peer: ReplicaId) {
        self.due.peers.insert(peer);
    }

    /// Takes note that a stream has two histories.
    pub(super) fn fork(&mut self, stream: ReplicaId) {
        self.due.forks.insert(stream);
    }

    /// Makes the rows of peers urgent.
    pub(super) fn flush(&mut self) {
        self.flush = true;
    }

    /// Whether there are urgent rows, which wait for no other write.
    pub(super) fn are_urgent(&self) -> bool {
        let due = !self.due.forks.is_empty() || self.flush && !self.due.peers.is_empty();
        due && self.backoff.is_over()
    }

    /// Takes the rows that are due for the write that begins.
    pub(super) fn take(&mut self) -> &Due {
        debug_assert!(self.writing.is_empty(), "one write at a time: {:?}", self.writing);
        let Due { peers, forks } = std::mem::take(&mut self.due);
        let (peers, later) = if self.flush { (peers, BTreeSet::new()) } else { (BTreeSet::new(), peers) };
        self.due.peers = later;
        self.flush = false;
        self.writing = Due { peers, forks };
        &self.writing
    }

    /// Takes note that the rows that were taken are durable.
    pub(super) fn written(&mut self) {
        self.writing = Due::default();
        self.backoff.reset();
    }

    /// Takes note that the rows that were taken are not stored: they are due again.
    pub(super) fn put_back(&mut self) {
        let Due { peers, forks } = std::mem::take(&mut self.writing);
        self.flush |= !peers.is_empty();
        self.due.peers.extend(peers);
        self.due.forks.extend(forks);
    }

    /// Takes note that a write of rows alone failed: the next one waits.
    pub(super) fn failed(&mut self, now: Mono, rng: &mut fastrand::Rng) {
        self.backoff.again(now, rng);
    }
}

impl Machine for Rows {
    fn next_timeout(&self) -> Option<Mono> {
        self.backoff.until()
    }

    fn expire(&mut self, now: Mono) {
        self.backoff.expire(now);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const A: ReplicaId = ReplicaId(Uuid::from_u128(0xa));

    #[test]
    fn acknowledgements_wait_for_the_flush_and_forks_do_not() {
        let mut rows = Rows::default();
        rows.peer(A);
        assert!(!rows.are_urgent());
        assert_eq!(*rows.take(), Due::default());
        rows.written();
        rows.flush();
        assert!(rows.are_urgent());
        assert_eq!(rows.take().peers, BTreeSet::from([A]));
        rows.written();
        assert!(!rows.are_urgent());
        rows.fork(A);
        assert!(rows.are_urgent());
    }

    #[test]
    fn what_was_taken_comes_back_when_the_write_fails() {
        let mut rows = Rows::default();
        rows.peer(A);
        rows.fork(A);
        rows.flush();
        rows.take();
        assert!(!rows.are_urgent());
        rows.put_back();
        rows.failed(Mono(0), &mut fastrand::Rng::with_seed(1));
        assert!(!rows.are_urgent(), "not at once");
        rows.expire(rows.next_timeout().unwrap());
        assert!(rows.are_urgent());
        let taken = rows.take();
        assert_eq!((taken.peers.len(), taken.forks.len()), (1, 1), "both, without another flush");
    }

    /// Nothing else may happen to a replica whose disk was full.
    #[test]
    fn a_fork_that_was_not_stored_wakes_the_engine_by_itself() {
        let mut rows = Rows::default();
        rows.fork(A);
        rows.take();
        rows.put_back();
        rows.failed(Mono(0), &mut fastrand::Rng::with_seed(1));
        let at = rows.next_timeout().expect("a moment to try again");
        rows.expire(at);
        assert!(rows.are_urgent() && rows.next_timeout().is_none());
    }

    #[test]
    fn pauses_begin_anew_after_a_write() {
        let (mut rows, mut rng) = (Rows::default(), fastrand::Rng::with_seed(1));
        let mut fail = |rows: &mut Rows| {
            rows.fork(A);
            rows.take();
            rows.put_back();
            rows.failed(Mono(0), &mut rng);
            let at = rows.next_timeout().unwrap();
            rows.expire(at);
            at.0
        };
        assert!((0..8).map(|_| fail(&mut rows)).max() > Some(10_000));
        rows.take();
        rows.written();
        assert!(fail(&mut rows) < 400);
    }
}
