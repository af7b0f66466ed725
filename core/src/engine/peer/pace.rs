//! The pace of a peer: how much is asked of it at once, and how long its answer may take.
//!
//! A page has as many bytes as the link to the peer brings in a few seconds, or in a round trip if that is longer. So a
//! slow link is lost to a page for no longer than that, and a page that a lost connection cuts off costs little. Before
//! the rate is known pages begin small and grow. The word that a page is coming is sent just ahead of it, so the time
//! between the two tells the rate, whatever else waited on the link before them.
//!
//! A connection that cuts a page off leaves one thing to the next one: its first page is shorter. On a link that comes and
//! goes, a page that never fits between the two would otherwise be asked for, and lost, for ever.
//!
//! Owns: the measured round trip and rate of one connection. Holds always: a page is asked for with at most the limit,
//! and never with less than `LEAST_BYTES`, unless the limit is less, or connections cut pages off.

/// The bytes of the first page of a connection: 8 s at the slowest rate that this is made for.
const FIRST_BYTES: usize = 16 << 10;
/// The bytes of the smallest page: the bytes around its commits are few beside them.
const LEAST_BYTES: usize = 4 << 10;
/// How much longer a page may be than the one before it, while the rate is being learned.
const GROWTH: usize = 4;
/// The fewest bytes of the first page of a connection after others were cut off.
const CUT_BYTES: usize = 256;
/// How long a page takes on its way, about.
const PAGE_MS: u64 = 4_000;
/// How long a peer may take to answer, beside the time on the link.
const WAIT_MS: u64 = 10_000;
/// The round trip and the rate, in bytes a second, that are assumed before one was measured.
const ROUND_TRIP_MS: u64 = 5_000;
const RATE: u64 = 2_000;
/// The longest round trip that is assumed because a peer did not answer.
const ROUND_TRIP_MS_MAX: u64 = 15_000;
/// The longest round trip and the lowest rate that are believed: a link that is worse may as well be silent. A device that
/// slept, or many pages that were lost, would otherwise let the next page take hours.
const ROUND_TRIP_MS_BELIEVED: u64 = 60_000;
const RATE_BELIEVED: u64 = 100;

/// The link to a peer, as its last pages show it.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Pace {
    round_trip_ms: Option<u64>,
    /// In bytes a second.
    rate: Option<u64>,
    /// How long pages have become.
    grown: usize,
    /// How long the first page of the next connection is.
    first: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { round_trip_ms: None, rate: None, grown: FIRST_BYTES, first: FIRST_BYTES }
    }
}

impl Pace {
    /// A pace that follows no link: whatever it is, a page is as long as it may be, and has 10 s.
    pub(in crate::engine) const FIXED: Self =
        Self { round_trip_ms: Some(0), rate: None, grown: usize::MAX, first: FIRST_BYTES };

    /// The bytes of the next page, where the limit is `max`.
    pub(in crate::engine) fn page_bytes(&self, max: usize) -> usize {
        let by_rate = self.rate.map_or(usize::MAX, |rate| {
            bytes_in(rate, PAGE_MS.max(self.round_trip_ms.unwrap_or_default())).max(LEAST_BYTES)
        });
        by_rate.min(self.grown).min(max)
    }

    /// The bytes that fit on the link, and half as many: with fewer asked for, the link would stand idle while a pull is
    /// on its way.
    pub(in crate::engine) fn bytes_on_the_way(&self) -> usize {
        let bytes = bytes_in(self.rate.unwrap_or_default(), self.round_trip_ms.unwrap_or_default());
        bytes.saturating_add(bytes / 2)
    }

    /// How long the first sign of an answer may take.
    pub(in crate::engine) fn wait_ms(&self) -> u64 {
        self.round_trip_ms.unwrap_or(ROUND_TRIP_MS).saturating_mul(4).saturating_add(WAIT_MS)
    }

    /// How long so many bytes may take on the link: twice as long as they should.
    pub(in crate::engine) fn transfer_ms(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(2_000) / self.rate.unwrap_or(RATE).max(RATE_BELIEVED)
    }

    /// Takes note that a round trip took no longer than this. A peer answers a hello with its next one, so a bound above
    /// what is known or assumed says nothing.
    pub(in crate::engine) fn took_at_most(&mut self, ms: u64) {
        if ms < self.round_trip_ms.unwrap_or(ROUND_TRIP_MS) {
            self.round_trip_ms = Some(ms);
        }
    }

    /// Takes a round trip that was measured.
    pub(in crate::engine) fn answered_in(&mut self, ms: u64) {
        let ms = ms.min(ROUND_TRIP_MS_BELIEVED);
        self.round_trip_ms = Some(self.round_trip_ms.map_or(ms, |known| known.midpoint(ms)));
    }

    /// Takes the time that a page took on the link.
    pub(in crate::engine) fn brought(&mut self, bytes: u64, ms: u64) {
        let rate = bytes.saturating_mul(1_000) / ms.max(1);
        self.rate = Some(self.rate.map_or(rate, |known| known.midpoint(rate)));
    }

    /// Takes note that a page was filled: the next ones may be longer.
    pub(in crate::engine) fn filled(&mut self, max: usize) {
        self.first = self.first.saturating_mul(2).min(FIRST_BYTES);
        self.grown = self.grown.saturating_mul(GROWTH).min(max.max(FIRST_BYTES));
    }

    /// Takes note that the connection ended while a page was on its way.
    pub(in crate::engine) fn cut_off(&mut self, max: usize) {
        self.first = (self.page_bytes(max) / 2).clamp(CUT_BYTES, FIRST_BYTES);
    }

    /// The pace of the next connection, which may be over another network.
    pub(in crate::engine) fn of_next(self) -> Self {
        Self { grown: self.first, first: self.first, ..Self::default() }
    }

    /// Takes note that a page did not come in time. The link may be slower than it was, or the page lost.
    pub(in crate::engine) fn timed_out(&mut self) {
        self.grown = (self.page_bytes(self.grown) / 2).max(LEAST_BYTES);
        self.rate = self.rate.map(|rate| (rate / 2).max(RATE_BELIEVED.min(rate)));
        let known = self.round_trip_ms.unwrap_or(ROUND_TRIP_MS);
        let doubled = known.saturating_mul(2).clamp(1_000, ROUND_TRIP_MS_MAX);
        self.round_trip_ms = Some(known.max(doubled));
    }
}

fn bytes_in(rate: u64, ms: u64) -> usize {
    usize::try_from(rate.saturating_mul(ms) / 1_000).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    #[test]
    fn pages_begin_small_and_grow_up_to_the_limit() {
        let mut pace = Pace::default();
        let mut pages = Vec::new();
        for _ in 0..5 {
            pages.push(pace.page_bytes(MAX));
            pace.filled(MAX);
        }
        assert_eq!(pages, [16 << 10, 64 << 10, 256 << 10, MAX, MAX]);
        assert_eq!(pace.page_bytes(100), 100, "a limit below the least");
        assert_eq!(pace.bytes_on_the_way(), 0, "one page at a time, until the rate is known");
    }

    #[test]
    fn a_connection_that_cuts_a_page_off_lets_the_next_one_begin_with_a_shorter_one() {
        let mut pace = Pace::default();
        let mut firsts = Vec::new();
        for _ in 0..8 {
            pace.cut_off(MAX);
            pace = pace.of_next();
            firsts.push(pace.page_bytes(MAX));
        }
        assert_eq!(firsts, [8192, 4096, 2048, 1024, 512, 256, 256, 256]);
        pace.filled(MAX);
        assert_eq!((pace.page_bytes(MAX), pace.of_next().page_bytes(MAX)), (1024, 512), "one fitted");
        let mut fast = Pace { grown: MAX, rate: Some(10 << 20), ..Pace::default() };
        fast.cut_off(MAX);
        assert_eq!(fast.of_next().page_bytes(MAX), FIRST_BYTES, "no longer than any first one");
    }

    #[test]
    fn a_page_takes_a_few_seconds_or_a_round_trip() {
        for (rate, round_trip_ms, page, on_the_way) in [
            (2_000, 100, 8_000, 300),
            (2_000, 15_000, 30_000, 45_000),
            (60_000, 200, 240_000, 18_000),
            (60_000, 15_000, 900_000, 1_350_000),
            (100, 100, LEAST_BYTES, 15),
            (40_000_000, 200, MAX, 12_000_000),
        ] {
            let mut pace = Pace::default();
            pace.answered_in(round_trip_ms);
            pace.brought(rate, 1_000);
            (0..9).for_each(|_| pace.filled(MAX));
            assert_eq!(pace.page_bytes(MAX), page, "{rate} {round_trip_ms}");
            assert_eq!(pace.bytes_on_the_way(), on_the_way, "{rate} {round_trip_ms}");
        }
    }

    #[test]
    fn the_wait_follows_the_round_trip_and_the_rate() {
        let mut pace = Pace::default();
        assert_eq!((pace.wait_ms(), pace.transfer_ms(1_000_000)), (30_000, 1_000_000));
        pace.took_at_most(42_000);
        assert_eq!(pace.wait_ms(), 30_000, "a bound above what is assumed");
        pace.took_at_most(40);
        pace.took_at_most(29_000);
        assert_eq!(pace.wait_ms(), 10_160, "a hello that was sent late proves nothing");
        pace.answered_in(15_000);
        pace.answered_in(15_000);
        pace.brought(6_000, 1_000);
        assert!(pace.wait_ms() > 55_000);
        assert_eq!(pace.transfer_ms(1_000_000), 333_333);
    }

    #[test]
    fn a_page_that_did_not_come_halves_the_next_one_and_doubles_the_wait() {
        let mut pace = Pace::default();
        pace.answered_in(1_000);
        pace.brought(10_000, 1_000);
        let (page, transfer) = (pace.page_bytes(MAX), pace.transfer_ms(1_000));
        pace.timed_out();
        assert_eq!((pace.page_bytes(MAX), pace.transfer_ms(1_000)), (page / 2, 2 * transfer));
        assert_eq!(pace.wait_ms(), 18_000);
        (0..60).for_each(|_| pace.timed_out());
        assert_eq!((pace.page_bytes(MAX), pace.wait_ms()), (LEAST_BYTES, 70_000));
        pace.answered_in(40_000);
        pace.answered_in(40_000);
        pace.timed_out();
        assert!(pace.wait_ms() > 130_000, "what was measured is not forgotten");
    }

    /// However long a link was silent or a device slept, one page that is lost afterwards costs minutes, not hours.
    #[test]
    fn what_is_learned_of_a_bad_time_has_a_bound() {
        let mut pace = Pace::default();
        pace.answered_in(8 * 3_600_000);
        pace.brought(1_000_000, 100);
        (0..60).for_each(|_| pace.timed_out());
        assert!(pace.wait_ms() <= 300_000, "{} ms", pace.wait_ms());
        let page_ms = pace.transfer_ms(LEAST_BYTES as u64);
        assert!(page_ms <= 120_000, "{page_ms} ms");
        let mut slept = Pace::default();
        slept.brought(4_000, 8 * 3_600_000);
        let page_ms = slept.transfer_ms(LEAST_BYTES as u64);
        assert!(page_ms <= 120_000, "{page_ms} ms");
    }
}
