//! The portion of received writes: how much of the inbox one write takes, so that a commit of the app, which waits for the
//! write under way, does not wait long.
//!
//! A write costs the store a fixed time, a flush above all, and a time for what it holds. Both are known from the writes
//! before. While the app commits, a received write is as heavy as [`WAIT_MS`] allows, but never so light that the fixed
//! time would be most of it: a store that is slow at every write would be slower for nothing. While the app does not
//! commit, nothing but the limits bounds a received write.
//!
//! Owns: until when the app counts as committing, the received write under way, what the last ones took. Holds always:
//! a write that failed says nothing about the next one.

use crate::clock::Mono;

use super::Machine;
use super::backoff::after;

/// The time that a received write takes while the app commits.
const WAIT_MS: u64 = 60;
/// How long the app counts as committing after each of its calls.
const COMMITS_MS: u64 = 10_000;
/// A write takes at least so many times its fixed time: so a tenth of the rate is lost at most.
const FIXED_TIMES: u64 = 10;
/// Of so many long writes in a row one is light, to learn what the fixed time is now.
const LONG_MAX: u32 = 16;

/// How much of the inbox one write takes.
#[derive(Debug, Default)]
pub(super) struct Portion {
    /// Until when the app counts as committing.
    commits_until: Option<Mono>,
    /// When the received write under way began, with its weight.
    under_way: Option<(Mono, u64)>,
    /// An earlier write, until one comes that is much lighter or heavier.
    earlier: Option<Measured>,
    /// The time of a write that does not depend on its weight, in milliseconds, once it is known.
    fixed_ms: Option<u64>,
    /// How many writes in a row took longer than [`WAIT_MS`].
    long: u32,
    /// The weight of the last write.
    last_weight: u64,
    /// The weight of a write that takes about as long as it should; `None` until one was measured.
    fits: Option<u64>,
}

/// The weight of a write, and the time from its first read until it was durable.
#[derive(Clone, Copy, Debug)]
struct Measured {
    weight: u64,
    ms: u64,
}

impl Portion {
    /// Takes note of a call of the app.
    pub(super) fn called(&mut self, now: Mono) {
        self.commits_until = Some(after(now, COMMITS_MS));
    }

    /// The most weight of the next received write. `waits` says whether a call of the app waits.
    pub(super) fn weight_max(&self, waits: bool) -> usize {
        let fits = self.fits.filter(|_| waits || self.commits_until.is_some());
        let fits = fits.map(|fits| if self.long >= LONG_MAX { fits.min(self.last_weight / 4) } else { fits });
        fits.map_or(usize::MAX, |fits| usize::try_from(fits).unwrap_or(usize::MAX))
    }

    /// Takes note that a received write begins.
    pub(super) fn begin(&mut self, weight: usize, now: Mono) {
        self.under_way = Some((now, weight.max(1) as u64));
    }

    /// Takes note that the received write was not made.
    pub(super) fn failed(&mut self) {
        self.under_way = None;
    }

    /// Takes note that the received write is durable.
    pub(super) fn durable(&mut self, now: Mono) {
        let Some((began, weight)) = self.under_way.take() else { return };
        let this = Measured { weight, ms: now.since(began) };
        self.long = if this.ms <= WAIT_MS || self.long >= LONG_MAX { 0 } else { self.long + 1 };
        self.last_weight = weight;
        self.learn_fixed(this);
        let fixed_ms = self.fixed_ms.unwrap_or(0);
        let most_ms = WAIT_MS.max(FIXED_TIMES.saturating_mul(fixed_ms));
        let own_ms = this.ms.saturating_sub(fixed_ms).max(1);
        let fits = (weight.saturating_mul(most_ms - fixed_ms) / own_ms).max(1);
        self.fits = Some(match self.fits {
            None => fits,
            // A light write that is quick does not say that a heavier one would be slow.
            Some(before) if this.ms <= most_ms => before.max(fits.min(before.saturating_mul(2))),
            Some(before) => fits.clamp(before / 2, before).max(1),
        });
    }

    /// Learns the fixed time of writes from one more of them.
    fn learn_fixed(&mut self, this: Measured) {
        let earlier = *self.earlier.get_or_insert(this);
        if let Some(found) = fixed_ms(earlier, this) {
            // One write may take long for any reason, so it changes what is known by a quarter.
            self.fixed_ms = Some(self.fixed_ms.map_or(found, |known| (3 * known + found) / 4));
            self.earlier = Some(this);
        }
        self.fixed_ms = self.fixed_ms.map(|known| known.min(this.ms));
    }
}

/// The fixed time of writes, if these two differ enough to tell: the line through both, at no weight.
fn fixed_ms(one: Measured, other: Measured) -> Option<u64> {
    let (light, heavy) = if one.weight < other.weight { (one, other) } else { (other, one) };
    if heavy.weight / 2 < light.weight {
        return None;
    }
    let more_ms = heavy.ms.saturating_sub(light.ms);
    let own_ms = more_ms.saturating_mul(light.weight) / (heavy.weight - light.weight);
    Some(light.ms.saturating_sub(own_ms))
}

impl Machine for Portion {
    fn expire(&mut self, now: Mono) {
        self.commits_until.take_if(|until| *until <= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store whose writes take `fixed_us` and `per_weight_us` for each unit of weight, and what is left to write.
    struct Store {
        portion: Portion,
        now_us: u64,
        fixed_us: u64,
        per_weight_us: u64,
    }

    impl Store {
        fn of(fixed_us: u64, per_weight_us: u64) -> Self {
            Self { portion: Portion::default(), now_us: 0, fixed_us, per_weight_us }
        }

        fn now(&self) -> Mono {
            Mono(self.now_us / 1000)
        }

        /// Writes as much as may be written at once, of the `waiting` weight; returns the weight and the time in ms.
        fn write(&mut self, waiting: usize, commits: bool) -> (usize, u64) {
            let now = self.now();
            if commits {
                self.portion.called(now);
            }
            self.portion.expire(now);
            let weight = self.portion.weight_max(false).min(waiting);
            self.portion.begin(weight, now);
            let took_us = self.fixed_us + weight as u64 * self.per_weight_us;
            self.now_us += took_us;
            self.portion.durable(self.now());
            (weight, took_us / 1000)
        }
    }

    /// All that waits: in a quarter of a second at the quickest.
    const ALL: usize = 10_000;

    #[test]
    fn a_received_write_is_as_long_as_a_commit_may_wait() {
        for (fixed_us, per_weight_us) in [(0, 25), (1_000, 100), (5_000, 30), (9_000, 1_000)] {
            let mut store = Store::of(fixed_us, per_weight_us);
            let (weight, first_ms) = store.write(ALL, true);
            assert!(weight == ALL && first_ms > 200, "nothing is known yet");
            let times: Vec<_> = (0..60).map(|_| store.write(ALL, true).1).collect();
            let settled = &times[20..];
            let most = WAIT_MS.max(FIXED_TIMES * fixed_us / 1000) * 5 / 4;
            assert!(
                settled.iter().all(|ms| (WAIT_MS / 3..=most).contains(ms)),
                "{fixed_us} {per_weight_us}: {times:?}"
            );
        }
    }

    #[test]
    fn nothing_bounds_a_received_write_while_the_app_does_not_commit() {
        let mut store = Store::of(1_000, 100);
        for _ in 0..20 {
            assert_eq!(store.write(ALL, false).0, ALL);
        }
        store.portion.called(store.now());
        assert!(store.write(ALL, false).1 <= WAIT_MS * 5 / 4, "what the writes before took is known");
        assert!(store.write(ALL, false).0 < ALL, "for a while after the call");
        store.now_us += COMMITS_MS * 1000;
        assert_eq!(store.write(ALL, false).0, ALL);
        assert!(store.portion.weight_max(true) < ALL, "but not while a call waits");
    }

    /// A disk that takes its time for every flush would take it for every few commits: nothing would be won.
    #[test]
    fn a_slow_flush_is_not_paid_for_a_little() {
        for fixed_us in [20_000, 60_000, 200_000] {
            let mut store = Store::of(fixed_us, 100);
            (0..40).for_each(|_| _ = store.write(ALL, true));
            let (weight, ms) = store.write(ALL, true);
            let own_ms = weight as u64 * 100 / 1000;
            assert!(own_ms * 3 >= ms, "{fixed_us}: {own_ms} of {ms} ms are of use");
        }
    }

    /// A store that was slow for a while, as a disk that wakes up, is not taken for a slow one for ever.
    #[test]
    fn a_fixed_time_is_unlearned() {
        let mut store = Store::of(200_000, 100);
        (0..40).for_each(|_| _ = store.write(ALL, true));
        store.fixed_us = 1_000;
        (0..100).for_each(|_| _ = store.write(ALL / 5, true));
        let times: Vec<_> = (0..20).map(|_| store.write(ALL / 5, true).1).collect();
        assert!(times.iter().all(|ms| *ms <= WAIT_MS * 5 / 4), "{times:?}");
    }

    #[test]
    fn one_write_that_took_long_halves_the_next_one_at_most() {
        let mut store = Store::of(1_000, 100);
        (0..40).for_each(|_| _ = store.write(ALL, true));
        let before = store.portion.weight_max(true);
        store.now_us += 1_000_000;
        store.portion.begin(before, Mono(0));
        store.portion.durable(Mono(30_000));
        assert!(store.portion.weight_max(true) >= before / 2);
        (0..40).for_each(|_| _ = store.write(ALL, true));
        assert!(store.portion.weight_max(true) >= before * 3 / 4, "and it grows again");
    }

    #[test]
    fn light_writes_and_failed_ones_say_nothing_against_heavy_ones() {
        let mut store = Store::of(10_000, 100);
        (0..40).for_each(|_| _ = store.write(ALL, true));
        let before = store.portion.weight_max(true);
        for _ in 0..40 {
            store.portion.begin(ALL, Mono(0));
            store.portion.failed();
            store.portion.durable(Mono(90_000));
            store.write(1, true);
        }
        assert!(store.portion.weight_max(true) >= before);
    }
}
