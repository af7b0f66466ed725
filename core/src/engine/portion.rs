//! The portion of received writes: how much of the inbox one write takes, so that a commit of the app, which waits for the
//! write under way, does not wait long.
//!
//! While the app commits, a received write is as heavy as the store can make durable in [`WAIT_MS`]. A store whose every
//! write takes long, as one with a slow flush, would be slower for nothing: there a received write takes as long as
//! [`OWN_TIMES`] light writes of the app. While the app does not commit, nothing but the limits bounds a received write.
//!
//! Owns: until when the app counts as committing, the write under way, how long writes took. Holds always: a write that
//! failed says nothing about the next one.

use crate::clock::Mono;

use super::Machine;
use super::backoff::after;

/// The time that a received write takes while the app commits.
const WAIT_MS: u64 = 80;
/// A received write may take as long as so many light writes of the app: so a tenth of the rate is lost at most.
const OWN_TIMES: u64 = 10;
/// How long the app counts as committing after each of its calls.
const COMMITS_MS: u64 = 10_000;
/// The weight of a received write before one was measured.
const FIRST_WEIGHT: u64 = 512 * 1024;
/// The weight that a received write may have however long writes take: some commits of one record. Otherwise a store whose
/// received writes take long whatever they hold would get one commit at a time.
const LEAST_WEIGHT: u64 = 16 * 1024;

/// How much of the inbox one write takes.
#[derive(Debug, Default)]
pub(super) struct Portion {
    /// Until when the app counts as committing.
    commits_until: Option<Mono>,
    /// When the write under way began, and the weight that it has if it is a received one.
    under_way: Option<(Mono, Option<u64>)>,
    /// The time of a light write of the app, in milliseconds.
    own_ms: Option<u64>,
    /// The weight of a received write that takes about as long as it may; `None` until one was measured.
    fits: Option<u64>,
}

impl Portion {
    /// Takes note of a call of the app.
    pub(super) fn called(&mut self, now: Mono) {
        self.commits_until = Some(after(now, COMMITS_MS));
    }

    /// The most weight of the next received write. `waits` says whether a call of the app waits.
    pub(super) fn weight_max(&self, waits: bool) -> usize {
        if !waits && self.commits_until.is_none() {
            return usize::MAX;
        }
        usize::try_from(self.fits.unwrap_or(FIRST_WEIGHT)).unwrap_or(usize::MAX)
    }

    /// Takes note that commits of the app begin to be written.
    pub(super) fn begin_own(&mut self, now: Mono) {
        self.under_way = Some((now, None));
    }

    /// Takes note that a received write begins.
    pub(super) fn begin(&mut self, weight: usize, now: Mono) {
        self.under_way = Some((now, Some(weight as u64)));
    }

    /// Takes note that the write under way was not made.
    pub(super) fn failed(&mut self) {
        self.under_way = None;
    }

    /// Takes note that the write under way is durable.
    pub(super) fn durable(&mut self, now: Mono) {
        match self.under_way.take() {
            Some((began, None)) => self.learn_own(now.since(began)),
            Some((began, Some(weight))) => self.learn(weight, now.since(began)),
            None => {}
        }
    }

    /// Learns how long a light write of the app takes: the lightest of the last ones counts.
    fn learn_own(&mut self, ms: u64) {
        self.own_ms = Some(self.own_ms.map_or(ms, |own_ms| ms.min(own_ms + own_ms / 2 + 1)));
    }

    /// Learns which weight fits from a received write. One write may take long for any reason, so it halves or doubles
    /// what fits at most.
    fn learn(&mut self, weight: u64, ms: u64) {
        let own_ms = self.own_ms.unwrap_or(0);
        let most_ms = WAIT_MS.max(OWN_TIMES.saturating_mul(own_ms));
        let fits = weight.saturating_mul(most_ms - own_ms) / ms.saturating_sub(own_ms).max(1);
        let before = self.fits.unwrap_or(if ms > most_ms { fits } else { FIRST_WEIGHT });
        self.fits = Some(if ms > most_ms {
            fits.clamp(before / 2, before).max(LEAST_WEIGHT)
        } else {
            // A light write that is quick does not say that a heavier one would be slow.
            before.max(fits.min(before.saturating_mul(2)))
        });
    }
}

impl Machine for Portion {
    fn expire(&mut self, now: Mono) {
        self.commits_until.take_if(|until| *until <= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store whose writes take `fixed_us` and `per_thousand_us` for each thousand of weight.
    struct Store {
        portion: Portion,
        now_us: u64,
        fixed_us: u64,
        per_thousand_us: u64,
    }

    impl Store {
        fn of(fixed_us: u64, per_thousand_us: u64) -> Self {
            Self { portion: Portion::default(), now_us: 0, fixed_us, per_thousand_us }
        }

        fn now(&self) -> Mono {
            Mono(self.now_us / 1000)
        }

        /// Writes a commit of the app.
        fn commit(&mut self, weight: u64) {
            self.portion.called(self.now());
            self.portion.begin_own(self.now());
            self.take(weight);
        }

        /// Writes as much as may be written at once of [`ALL`]; returns the weight and the time in ms.
        fn receive(&mut self) -> (u64, u64) {
            self.portion.expire(self.now());
            let weight = self.portion.weight_max(false).min(ALL);
            self.portion.begin(weight, self.now());
            (weight as u64, self.take(weight as u64))
        }

        fn take(&mut self, weight: u64) -> u64 {
            let took_us = self.fixed_us + weight * self.per_thousand_us / 1000;
            self.now_us += took_us;
            self.portion.durable(self.now());
            took_us / 1000
        }

        /// The time in ms of the received writes between commits of the app, once the portion has settled.
        fn settled(&mut self) -> Vec<u64> {
            let one = |store: &mut Self| {
                store.commit(LIGHT);
                store.receive().1
            };
            (0..20).for_each(|_| _ = one(self));
            (0..40).map(|_| one(self)).collect()
        }
    }

    /// All that waits.
    const ALL: usize = 100_000_000;
    /// A commit of one record.
    const LIGHT: u64 = 1000;

    #[test]
    fn a_received_write_is_as_long_as_a_commit_may_wait() {
        for (fixed_us, per_thousand_us) in [(0, 10), (1_000, 100), (5_000, 30), (9_000, 1_000), (20_000, 100)]
        {
            let times = Store::of(fixed_us, per_thousand_us).settled();
            let most = WAIT_MS.max(OWN_TIMES * (fixed_us / 1000 + 1)) * 5 / 4;
            assert!(
                times.iter().all(|ms| (WAIT_MS / 2..=most).contains(ms)),
                "{fixed_us} {per_thousand_us}: {times:?}"
            );
        }
    }

    #[test]
    fn nothing_bounds_a_received_write_while_the_app_does_not_commit() {
        let mut store = Store::of(1_000, 100);
        for _ in 0..20 {
            assert_eq!(store.receive().0, ALL as u64);
        }
        store.commit(LIGHT);
        let times: Vec<_> = (0..20).map(|_| store.receive().1).collect();
        assert!(times.iter().all(|ms| *ms <= WAIT_MS * 5 / 4), "for a while after the call: {times:?}");
        store.now_us += COMMITS_MS * 1000;
        assert_eq!(store.receive().0, ALL as u64);
        assert!(store.portion.weight_max(true) < ALL, "but not while a call waits");
    }

    #[test]
    fn the_first_received_write_beside_commits_is_not_all_that_waits() {
        let mut store = Store::of(1_000, 100);
        store.commit(LIGHT);
        assert_eq!(store.receive().0, FIRST_WEIGHT);
    }

    /// A disk that takes its time for every flush would take it for every few commits: nothing would be won.
    #[test]
    fn a_slow_flush_is_not_paid_for_a_little() {
        for fixed_us in [20_000, 60_000, 200_000] {
            let mut store = Store::of(fixed_us, 100);
            let times = store.settled();
            let least = fixed_us / 1000 * (OWN_TIMES - 2);
            assert!(times.iter().all(|ms| *ms >= least), "{fixed_us}: {times:?}");
        }
    }

    /// A store may take long for received writes alone, as for a projection of them.
    #[test]
    fn a_received_write_has_a_least_weight() {
        let mut store = Store::of(1_000, 100);
        store.settled();
        for _ in 0..40 {
            store.commit(LIGHT);
            store.fixed_us = 200_000;
            store.receive();
            store.fixed_us = 1_000;
        }
        assert_eq!(store.receive().0, 16_384, "not one commit at a time");
    }

    /// An app that commits a lot at once, now and then, does not make its light commits wait longer.
    #[test]
    fn the_light_writes_of_the_app_count() {
        let mut store = Store::of(5_000, 100);
        store.settled();
        store.commit(10_000_000);
        let next: Vec<_> = (0..3).map(|_| store.receive().1).collect();
        assert!(next.iter().all(|ms| *ms <= WAIT_MS * 5 / 4), "before the next light one: {next:?}");
        let times = store.settled();
        assert!(times.iter().all(|ms| *ms <= WAIT_MS * 5 / 4), "{times:?}");
    }

    /// A store that was slow for a while, as a disk that wakes up, is not taken for a slow one for ever, nor for a quick
    /// one.
    #[test]
    fn the_time_of_a_flush_is_unlearned() {
        let mut store = Store::of(200_000, 100);
        assert!(store.settled().iter().all(|ms| *ms > 1_000));
        store.fixed_us = 1_000;
        let times = store.settled();
        assert!(times.iter().all(|ms| *ms <= WAIT_MS * 5 / 4), "{times:?}");
        store.fixed_us = 60_000;
        store.settled();
        let times = store.settled();
        assert!(times.iter().all(|ms| *ms >= 400), "{times:?}");
    }

    #[test]
    fn one_write_that_took_long_halves_the_next_one_at_most() {
        let mut store = Store::of(1_000, 100);
        store.settled();
        let before = store.portion.weight_max(true);
        store.portion.begin(before, Mono(0));
        store.portion.durable(Mono(30_000));
        assert!(store.portion.weight_max(true) >= before / 2);
        store.settled();
        assert!(store.portion.weight_max(true) >= before * 3 / 4, "and it grows again");
    }

    #[test]
    fn one_write_that_was_quick_doubles_the_next_one_at_most() {
        let mut store = Store::of(1_000, 100);
        store.settled();
        let (before, now) = (store.portion.weight_max(true), store.now());
        store.portion.begin(before, now);
        store.portion.durable(now);
        let then = store.portion.weight_max(true);
        assert!(before < then && then <= 2 * before, "{before}, {then}");
    }

    #[test]
    fn light_writes_and_failed_ones_say_nothing_against_heavy_ones() {
        let mut store = Store::of(10_000, 100);
        store.settled();
        let before = store.portion.weight_max(true);
        for _ in 0..40 {
            store.portion.begin(ALL, Mono(0));
            store.portion.failed();
            store.portion.durable(Mono(90_000));
            store.portion.begin(1, store.now());
            store.take(1);
        }
        assert!(store.portion.weight_max(true) >= before);
    }
}
