//! The weight of a log beside that of all records: a puller that is far behind may need fewer bytes if it takes these.
//!
//! A log has every value that a record ever had, as long as some member lacks it. Where records are written again and again,
//! that is many times what they are now. The values of now are the same in both, so the rest decides: the values that were
//! kept for the log, and its rows. All of it is counted only for a log that takes several pages, and once a session; the
//! records are counted again only once the group has written a good part more.
//!
//! Owns: what is on the scales, and the bytes of all records as they were counted last. Holds always: a snapshot is advised
//! only if the log has more beside the values of now than all records have.

use std::collections::VecDeque;

use crate::ids::ReplicaId;
use crate::storage::KeyRange;
use crate::stored::keys;

use super::super::ledger::Ledger;

/// A log shorter than so many of the longest pages is always the way.
const PAGES_MIN: u64 = 4;
/// The bytes of a commit in a page, beside its values.
const COMMIT_BYTES: u64 = 48;
/// The count of all records holds until the group has written such a part more.
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
    records: Option<Weight>,
    /// The bytes of the log beside the values that records still have, as far as it is counted; `None` if it is short.
    log: Option<u64>,
    /// The ranges that are still to be counted.
    counting: VecDeque<(Part, KeyRange)>,
}

/// The kind of rows that is counted.
#[derive(Clone, Copy, Debug)]
enum Part {
    Records,
    LogRows,
    Kept,
}

/// The result of weighing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Weighed {
    /// Whether a log was on the scales, and all of it was counted.
    pub(super) log: bool,
    /// Whether the log is the longer way.
    pub(super) longer: bool,
    /// The weight of all records, for the next time.
    pub(super) records: Option<Weight>,
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
            records: known.filter(|weight| weight.is_of_now(commits)),
            log: None,
            counting: VecDeque::new(),
        }
    }

    /// Puts a log on the scales: these parts of streams, of which so many commits have so many bytes.
    pub(super) fn put(&mut self, missing: &[(ReplicaId, u64, u64)], commits: usize, bytes: usize) {
        let (commits, bytes) = (commits.try_into().unwrap_or(u64::MAX), bytes.try_into().unwrap_or(u64::MAX));
        let all = missing.iter().map(|(_, first, last)| last - first + 1).fold(0, u64::saturating_add);
        let about = all.saturating_mul(bytes).checked_div(commits).unwrap_or(0);
        if about <= self.page_bytes_max.saturating_mul(PAGES_MIN) {
            return;
        }
        self.log = Some(0);
        if self.records.is_none() {
            self.records = Some(Weight { bytes: 0, commits: self.commits });
            self.counting.extend([(Part::Records, keys::records()), (Part::Records, keys::besides())]);
        }
        for (stream, first, last) in missing {
            let [log, kept] = keys::log_and_kept(*stream, *first, *last);
            self.counting.extend([(Part::LogRows, log), (Part::Kept, kept)]);
        }
    }

    /// The next range to count.
    pub(super) fn step(&self) -> Option<&KeyRange> {
        self.counting.front().map(|(_, range)| range)
    }

    /// Takes the rows of the range, and their bytes.
    pub(super) fn take(&mut self, rows: u64, bytes: u64) {
        let Some((part, _)) = self.counting.pop_front() else { return };
        let (sum, more) = match part {
            Part::Records => (self.records.as_mut().map(|records| &mut records.bytes), bytes),
            Part::LogRows => (self.log.as_mut(), rows.saturating_mul(COMMIT_BYTES)),
            Part::Kept => (self.log.as_mut(), bytes),
        };
        if let Some(sum) = sum {
            *sum = sum.saturating_add(more);
        }
    }

    /// The result. A page that ends before all was counted says nothing.
    pub(super) fn finish(&self) -> Weighed {
        let records = self.records.filter(|_| self.counting.is_empty());
        let longer = records.is_some_and(|records| self.log.is_some_and(|log| log > records.bytes));
        Weighed { log: self.log.is_some() && records.is_some(), longer, records }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::made::{B, C, ledger};
    use super::*;

    const KNOWN: Weight = Weight { bytes: 1_000, commits: 100 };

    fn scales(known: Option<Weight>, commits: u64) -> Scales {
        let known = known.filter(|weight| weight.is_of_now(commits));
        Scales { commits, records: known, ..Scales::new(None, 100, &ledger([])) }
    }

    /// The result for a log of ten commits with `kept` bytes beside the values of now, and how many ranges were counted.
    fn weigh(mut scales: Scales, page: (usize, usize), kept: u64) -> (Weighed, usize) {
        let mut counts = 0;
        scales.put(&[(B, 1, 7), (C, 3, 5)], page.0, page.1);
        while let Some(range) = scales.step() {
            counts += 1;
            let of = |stream, first, last| keys::log_and_kept(stream, first, last);
            let (rows, bytes) = match range {
                range if *range == keys::records() => (9, 900),
                range if *range == keys::besides() => (1, 100),
                range if *range == of(B, 1, 7)[0] => (7, 77_777),
                range if *range == of(C, 3, 5)[0] => (3, 77_777),
                range if *range == of(B, 1, 7)[1] => (1, kept / 2),
                range if *range == of(C, 3, 5)[1] => (1, kept - kept / 2),
                range => panic!("{range:?} is of no use"),
            };
            assert_eq!(scales.finish(), Weighed::default(), "not before all is counted");
            scales.take(rows, bytes);
        }
        (scales.finish(), counts)
    }

    #[test]
    fn a_snapshot_is_advised_if_the_log_has_more_beside_the_values_of_now() {
        let records = Some(Weight { commits: 7, ..KNOWN });
        assert_eq!(weigh(scales(None, 7), (1, 60), 520), (Weighed { log: true, longer: false, records }, 6));
        assert_eq!(weigh(scales(None, 7), (2, 120), 521), (Weighed { log: true, longer: true, records }, 6));
        let short = Weighed::default();
        assert_eq!(
            weigh(scales(None, 7), (1, 40), 9_999),
            (short, 0),
            "so short a log is the way in any case"
        );
        assert_eq!(
            weigh(scales(None, 7), (0, 0), 9_999),
            (short, 0),
            "a page without commits weighs nothing"
        );
    }

    #[test]
    fn records_are_counted_again_only_once_there_are_more() {
        let known = Weighed { log: true, longer: true, records: Some(KNOWN) };
        assert_eq!(weigh(scales(Some(KNOWN), 125), (1, 60), 521), (known, 4));
        assert_eq!(weigh(scales(Some(KNOWN), 126), (1, 60), 521).1, 6);
        let all = ledger([]);
        assert_eq!(Scales::new(Some(KNOWN), 100, &all).records, Some(KNOWN), "there are not more");
    }

    /// Until its session ends, since each page would count anew.
    #[test]
    fn a_log_is_weighed_once_a_session() {
        let mut serving = super::super::Serving::default();
        serving.weighed(B, Weighed { log: true, longer: false, records: Some(KNOWN) });
        serving.weighed(C, Weighed::default());
        assert_eq!((serving.weighs_for(B), serving.weighs_for(C)), (false, true));
        assert_eq!(serving.weight(), Some(KNOWN), "a short log says nothing of the records");
        serving.forget(B);
        assert!(serving.weighs_for(B));
    }
}
