//! Retention: how much of the logs is kept at most, whoever has not acknowledged it.
//!
//! Entries are counted exactly, as the heads less their floors. Their bytes are estimated, since to count them all would read all
//! logs: an entry is taken for as long as the last ones were that were written since the opening, with the values that these
//! displaced. Before the first one nothing is dropped for its bytes.
//!
//! Owns: the mean length of the last entries.

use crate::limits::Limits;

/// The last entry counts for so much of the mean: 1 / 16.
const SHARE: u64 = 16;

/// How much of the logs is kept at most.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// The mean bytes of an entry with what is kept for it.
    entry_bytes: Option<u64>,
}

impl Retention {
    /// Takes note of a write that logged so many commits, in so many bytes.
    pub(super) fn wrote(&mut self, commits: u64, bytes: u64) {
        let Some(each) = bytes.checked_div(commits) else { return };
        let mean = |mean: u64| mean.saturating_mul(SHARE - 1).saturating_add(each) / SHARE;
        self.entry_bytes = Some(self.entry_bytes.map_or(each, mean));
    }

    /// How many of so many entries are too many.
    pub(super) fn excess(&self, entries: u64, limits: &Limits) -> u64 {
        let limit = |most: usize| u64::try_from(most).unwrap_or(u64::MAX);
        let by_bytes = self.entry_bytes.map_or(u64::MAX, |each| limit(limits.retain_bytes_max) / each.max(1));
        entries.saturating_sub(limit(limits.retain_entries_max).min(by_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_limit_counts_and_bytes_do_once_they_are_known() {
        let limits = |entries, bytes| Limits {
            retain_entries_max: entries,
            retain_bytes_max: bytes,
            ..Limits::default()
        };
        let mut retention = Retention::default();
        assert_eq!(retention.excess(1_000_000, &Limits::default()), 0, "there is no limit unless one is set");
        assert_eq!(retention.excess(100, &limits(30, usize::MAX)), 70);
        assert_eq!(retention.excess(100, &limits(usize::MAX, 1)), 0);
        retention.wrote(10, 5_000);
        assert_eq!(retention.excess(100, &limits(usize::MAX, 10_000)), 80);
        assert_eq!(retention.excess(100, &limits(10, 10_000)), 90);
        retention.wrote(0, 100);
        (0..200).for_each(|_| retention.wrote(1, 1_000));
        assert!((88..=90).contains(&retention.excess(100, &limits(usize::MAX, 10_000))), "{retention:?}");
    }
}
