//! The read lane: reads for peers and for checks, beside the writes, one at a time.
//!
//! Owns: the reads that wait, each with its reader, and the read under way. Holds always: at most one read is under
//! way; each reader has at most one in the lane, so the readers take turns.

use std::collections::VecDeque;

use crate::storage::ScanLimit;

use super::Machine;
use super::io::{JobId, Query};

/// The most bytes that one read may take, unless a single entry is longer, and the most entries.
pub(super) const READ_BYTES_MAX: usize = 1 << 20;
pub(super) const READ_ROWS_MAX: usize = 256;
/// The most that one read of a log may take.
pub(super) const READ: ScanLimit = ScanLimit { entries: READ_ROWS_MAX, bytes: READ_BYTES_MAX };

/// The purpose of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// A page that answers a pull.
    Page,
    /// A page of a snapshot.
    Records,
    /// A look at the log.
    Look,
    /// A check of the logs.
    Check,
}

/// The read lane.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: VecDeque<(Reader, Query)>,
    under_way: Option<(JobId, Reader)>,
    job: u64,
}

impl Reads {
    /// Takes a read that a reader wants.
    pub(super) fn want(&mut self, reader: Reader, query: Query) {
        debug_assert!(
            self.waiting.iter().all(|(other, _)| *other != reader),
            "{reader:?} wants one read at a time"
        );
        self.waiting.push_back((reader, query));
    }

    /// The next read, if none is under way.
    pub(super) fn poll(&mut self) -> Option<(JobId, Query)> {
        if self.under_way.is_some() {
            return None;
        }
        let (reader, query) = self.waiting.pop_front()?;
        self.job += 1;
        let job = JobId(self.job);
        self.under_way = Some((job, reader));
        Some((job, query))
    }

    /// Ends the read under way; returns whose it was.
    pub(super) fn end(&mut self, job: JobId) -> Option<Reader> {
        let ended = self.under_way.take_if(|(under_way, _)| *under_way == job);
        debug_assert!(ended.is_some(), "read {job:?} ended, {:?} is under way", self.under_way);
        ended.map(|(_, reader)| reader)
    }
}

impl Machine for Reads {
    fn check(&self) {
        let count = |reader| {
            let under_way = self.under_way.iter().filter(|(_, other)| *other == reader).count();
            under_way + self.waiting.iter().filter(|(other, _)| *other == reader).count()
        };
        assert!(
            [Reader::Page, Reader::Records, Reader::Look, Reader::Check]
                .into_iter()
                .all(|reader| count(reader) <= 1),
            "{self:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_take_turns() {
        let mut reads = Reads::default();
        let query = || Query::Get(Vec::new());
        reads.want(Reader::Page, query());
        let mut order = Vec::new();
        for _ in 0..4 {
            let (job, _) = reads.poll().unwrap();
            assert_eq!(reads.poll(), None, "one at a time");
            if order.is_empty() {
                reads.want(Reader::Look, query());
            }
            let reader = reads.end(job).unwrap();
            order.push(reader);
            // A reader that was answered wants more at once.
            reads.want(reader, query());
        }
        assert_eq!(order, [Reader::Page, Reader::Look, Reader::Page, Reader::Look]);
        reads.check();
    }
}
