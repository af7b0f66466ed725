//! The ends of logs: whether a log proves its head, and the search for the end of a log that does not.
//!
//! A stream that goes on from a wrong head gets a second history, or loses what stands behind it. So at the opening each
//! head is compared with the last row of its log, which is one read for each stream.
//!
//! Owns, while it searches: the last row that follows the ones before it. Holds always: whatever is read follows the chain
//! from the floor on.

use crate::hlc::Hlc;
use crate::ids::{GroupId, ReplicaId};
use crate::storage::{Entry, Key, Value};
use crate::stored::keys::{self, StoredKey};
use crate::stored::log::{chain, chain_start, split_row};
use crate::stored::{Digest, Head, LogEntry};

use super::io::{Answer, Query};
use super::reads::READ;

/// The end of a log, as it was found at the place of its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// The digest of the row at the head, and its stamp, unless only a later version can read it.
    row: Option<(Digest, Option<Hlc>)>,
}

impl LogEnd {
    /// The stream of a head, and the key of its last log row. A head that cannot be read has none: the store is not opened.
    pub(crate) fn key(head: &Entry) -> Option<(ReplicaId, Key)> {
        let Some(StoredKey::Head(stream)) = StoredKey::parse(&head.key) else { return None };
        let head = Head::parse(stream, &head.value).ok()?;
        Some((stream, keys::log(stream, head.seq)))
    }

    /// The end of the log of `stream`, given that row.
    pub(crate) fn of(stream: ReplicaId, row: Option<&Value>) -> Self {
        let read = |row: &Value| {
            let (previous, entry) = split_row(row).ok()?;
            Some((chain(&previous, entry), LogEntry::parse(stream, entry).ok().map(|entry| entry.stamp)))
        };
        Self { row: row.and_then(read) }
    }

    /// The head as the log proves it; `None` if it does not. The digest of the head proves its last row, and this the stamp.
    pub(super) fn proves(&self, group: GroupId, stream: ReplicaId, head: &Head) -> Option<Head> {
        let mut head = *head;
        if head.floor == 0 {
            head.floor_digest = chain_start(group, stream);
        }
        // A log without rows has its head at the floor.
        if (head.seq, head.digest) == (head.floor, head.floor_digest) {
            return Some(head);
        }
        let (digest, stamp) = self.row?;
        let stamp = stamp.unwrap_or(head.stamp);
        (digest == head.digest).then_some(Head { stamp, ..head })
    }
}

/// The search for the end of a log.
#[derive(Debug)]
pub(super) struct Search {
    stream: ReplicaId,
    /// The head as the rows that were read make it.
    end: Head,
    /// Whether a row was met that does not follow.
    broken: bool,
    done: bool,
}

impl Search {
    pub(super) fn new(stream: ReplicaId, head: &Head) -> Self {
        let end = Head { seq: head.floor, digest: head.floor_digest, ..*head };
        Self { stream, end, broken: false, done: false }
    }

    pub(super) const fn stream(&self) -> ReplicaId {
        self.stream
    }

    /// The next read; `None` once the end is found.
    pub(super) fn step(&self) -> Option<Query> {
        if self.done {
            return None;
        }
        let next = self.end.seq + 1;
        Some(Query::Scan(keys::logs_from(self.stream, next), READ))
    }

    pub(super) fn take(&mut self, answer: Answer) {
        let Answer::Page(page) = answer else { return debug_assert!(false, "{answer:?} are no rows") };
        self.done = !page.more;
        for Entry { key, value } in page.entries {
            let is_next = StoredKey::parse(&key) == Some(StoredKey::Log(self.stream, self.end.seq + 1));
            let read = || {
                let (previous, entry) = split_row(&value).ok()?;
                let parsed = LogEntry::parse(self.stream, entry).ok()?;
                (previous == self.end.digest).then(|| (parsed.stamp, chain(&previous, entry)))
            };
            let Some((stamp, digest)) = is_next.then(read).flatten() else {
                (self.broken, self.done) = (true, true);
                return;
            };
            self.end = self.end.next(stamp, digest);
        }
    }

    /// The head that the log has, and whether it proves it: it ends with the digest of the stored `head`. `None` if the log
    /// ends elsewhere than there, so that nothing can be said.
    pub(super) fn end(&self, head: &Head) -> Option<(Head, bool)> {
        let proven = self.end.digest == head.digest;
        let fits = !self.broken && (proven || self.end.seq == head.seq);
        fits.then_some((self.end, proven))
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{Author, B, GROUP};
    use super::*;
    use crate::storage::ScanPage;

    /// Whether a head of a log of five rows is proven, and what the search for its end finds.
    fn judged(head: Head, damage: impl Fn(&mut Vec<Option<Value>>)) -> (Option<Head>, Option<(Head, bool)>) {
        let mut b = Author::new(B);
        let mut rows: Vec<_> = (0..5).map(|_| Some(b.note(1, "a").row)).collect();
        damage(&mut rows);
        let row = |seq: u64| {
            let at = usize::try_from(seq).unwrap().checked_sub(1)?;
            rows.get(at).and_then(Option::as_ref)
        };
        let proven = LogEnd::of(B, row(head.seq)).proves(GROUP, B, &head);
        let mut search = Search::new(B, &head);
        while let Some(query) = search.step() {
            let Query::Scan(range, limit) = query else { panic!("{query:?} reads no rows") };
            let entries = (1..=9).filter_map(|seq| Some((keys::log(B, seq), row(seq)?)));
            let found = entries.filter(|(key, _)| range.contains(key));
            search.take(Answer::Page(ScanPage::of(found, limit)));
        }
        (proven, search.end(&head))
    }

    fn whole() -> Head {
        let mut b = Author::new(B);
        (0..5).for_each(|_| drop(b.note(1, "a")));
        b.head
    }

    #[test]
    fn a_log_proves_its_head_and_the_stamp_of_it() {
        let head = whole();
        assert_eq!(judged(head, |_| {}), (Some(head), Some((head, true))));
        let other = Head { stamp: super::super::made::stamp(1, B), floor_digest: [7; 32], ..head };
        assert_eq!(judged(other, |_| {}).0, Some(head), "what the log proves is put right");
        let empty = Head::start(GROUP, B);
        assert_eq!(judged(empty, Vec::clear), (Some(empty), Some((empty, true))));
        let pruned = Head { floor: 5, floor_digest: head.digest, ..head };
        assert_eq!(judged(pruned, |rows| rows.fill(None)).0, Some(pruned));
    }

    #[test]
    fn a_wrong_head_is_noticed_and_the_log_tells_the_right_one() {
        let head = whole();
        let mut flipped = head.digest;
        flipped[3] ^= 4;
        for (wrong, found) in [
            (Head { seq: 3, ..head }, Some((head, true))),
            (Head { seq: 7, ..head }, Some((head, true))),
            (Head { digest: flipped, ..head }, Some((head, false))),
            (Head { seq: 3, digest: flipped, ..head }, None),
        ] {
            assert_eq!(judged(wrong, |_| {}), (None, found), "{wrong:?}");
        }
        assert_eq!(judged(Head { seq: 0, ..head }, |_| {}).0, None);
    }

    #[test]
    fn a_damaged_last_row_proves_no_head() {
        let head = whole();
        let flip = |at: usize| move |rows: &mut Vec<Option<Value>>| rows[4].as_mut().unwrap()[at] ^= 1;
        assert_eq!(judged(head, flip(3)), (None, None), "the digest before it");
        let (proven, found) = judged(head, flip(56));
        assert!(proven.is_none() && found.is_some_and(|(end, proven)| !proven && end.seq == 5));
        assert_eq!(judged(head, |rows| rows[4] = None), (None, None));
    }
}
