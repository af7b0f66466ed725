//! The weight of a log beside that of all records: a puller that is far behind may need fewer bytes if it takes these.
//!
//! A log has every value that a record ever had, as long as some member lacks it. Where records are written again and again,
//! that is many times what they are now. All records are counted only if the log is long enough for it to matter, and
//! again only once the group has written a good part more.
//!
//! Owns: the bytes of all records, as they were counted last. Holds always: a snapshot is advised only if it is the
//! smaller by half.

use std::collections::VecDeque;

use crate::storage::KeyRange;
use crate::stored::keys;

use super::super::ledger::Ledger;

/// A log shorter than so many of the longest pages is always the way.
const PAGES_MIN: u64 = 4;
/// A snapshot is advised if the log has more than so many times the bytes of all records.
const TIMES: u64 = 2;
/// The count holds until the group has written such a part more.
const GROWTH: u64 = 4;

/// The bytes of all records, and when they were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Weight {
    bytes: u64,
    /// How many commits of the group were here.
    commits: u64,
}

/// Weighs the log that a puller lacks.
#[derive(Debug)]
pub(super) struct Scales {
    page_bytes_max: u64,
    commits: u64,
    known: Option<Weight>,
    log: u64,
    /// The ranges that are still to be counted, and the bytes of the others.
    counting: VecDeque<KeyRange>,
    counted: u64,
}

impl Weight {
    fn is_of_now(&self, commits: u64) -> bool {
        commits <= self.commits.saturating_add(self.commits / GROWTH)
    }
}

impl Scales {
    pub(super) fn new(known: Option<Weight>, page_bytes_max: usize, ledger: &Ledger) -> Self {
        let commits = ledger.heads().values().map(|head| head.seq).fold(0, u64::saturating_add);
        Self {
            page_bytes_max: page_bytes_max.try_into().unwrap_or(u64::MAX),
            commits,
            known: known.filter(|weight| weight.is_of_now(commits)),
            log: 0,
            counting: VecDeque::new(),
            counted: 0,
        }
    }

    /// Puts the log on the scales: so many commits, of which these bring records of so many bytes.
    pub(super) fn put(&mut self, missing: u64, commits: usize, bytes: u64) {
        let commits = commits.try_into().unwrap_or(u64::MAX);
        self.log = missing.saturating_mul(bytes).checked_div(commits).unwrap_or(0);
        if self.is_long() && self.known.is_none() {
            self.counting = VecDeque::from([keys::records(), keys::besides()]);
        }
    }

    fn is_long(&self) -> bool {
        self.log > self.page_bytes_max.saturating_mul(PAGES_MIN)
    }

    /// The next range to count.
    pub(super) fn step(&self) -> Option<&KeyRange> {
        self.counting.front()
    }

    /// Takes the bytes of the range.
    pub(super) fn take(&mut self, bytes: u64) {
        self.counted = self.counted.saturating_add(bytes);
        self.counting.pop_front();
        if self.counting.is_empty() {
            self.known = Some(Weight { bytes: self.counted, commits: self.commits });
        }
    }

    /// Whether the log is the longer way, and the count of all records for the next time.
    pub(super) fn finish(&self) -> (bool, Option<Weight>) {
        let longer = self.is_long()
            && self.known.is_some_and(|records| self.log > records.bytes.saturating_mul(TIMES));
        (longer, self.known)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::made::ledger;
    use super::*;

    fn scales(known: Option<Weight>, commits: u64) -> Scales {
        Scales { commits, ..Scales::new(known, 100, &ledger([])) }
    }

    /// What the scales say of a log of so many bytes beside so many of records; and how many ranges they counted.
    fn weigh(mut scales: Scales, log: u64, records: u64) -> (bool, Option<Weight>, usize) {
        let mut counts = 0;
        scales.put(10, 1, log / 10);
        while scales.step().is_some() {
            counts += 1;
            scales.take(records / 2);
        }
        let (longer, weight) = scales.finish();
        (longer, weight, counts)
    }

    #[test]
    fn a_snapshot_is_advised_if_it_has_less_than_half_the_bytes() {
        assert_eq!(weigh(scales(None, 7), 400, 0), (false, None, 0), "so short a log is the way in any case");
        let weight = |bytes| Some(Weight { bytes, commits: 7 });
        assert_eq!(weigh(scales(None, 7), 1_000, 500), (false, weight(500), 2));
        assert_eq!(weigh(scales(None, 7), 1_010, 500), (true, weight(500), 2));
    }

    #[test]
    fn records_are_counted_again_only_once_there_are_more() {
        let known = Weight { bytes: 100, commits: 100 };
        assert_eq!(weigh(scales(Some(known), 125), 1_000, 800), (true, Some(known), 0));
        let known =
            |commits| Scales::new(Some(known), 100, &ledger([])).known.filter(|w| w.is_of_now(commits));
        assert!(known(125).is_some() && known(126).is_none());
        assert_eq!(scales(None, 0).finish(), (false, None), "nothing was weighed");
    }

    #[test]
    fn a_page_without_commits_weighs_nothing() {
        let mut scales = scales(None, 1);
        scales.put(1_000, 0, 0);
        assert!(scales.step().is_none() && !scales.finish().0);
    }
}
