//! Pauses: how long an attempt waits after failures in a row.

use crate::clock::Mono;

/// The first pause after a failure. It doubles with every failure in a row, up to the longest.
const BACKOFF_MS: u64 = 250;
const BACKOFF_MS_MAX: u64 = 60_000;

/// The pause after failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    until: Option<Mono>,
    tries: u32,
}

impl Backoff {
    /// Takes note of a failure: the pause is twice as long as the one before.
    pub(super) fn again(&mut self, now: Mono, rng: &mut fastrand::Rng) {
        let ms = (BACKOFF_MS << self.tries.min(16)).min(BACKOFF_MS_MAX);
        self.tries = self.tries.saturating_add(1);
        self.until = Some(after(now, jittered(ms, rng)));
    }

    /// Takes note of a success.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether there is no pause, or it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.until.is_none()
    }

    /// How many failures there were in a row.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    /// When the pause ends.
    pub(super) fn until(&self) -> Option<Mono> {
        self.until
    }

    /// Ends the pause if its time has passed; returns whether it ended now. The number of failures stays.
    pub(super) fn expire(&mut self, now: Mono) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }
}

/// The moment `ms` milliseconds after `now`.
pub(super) fn after(now: Mono, ms: u64) -> Mono {
    Mono(now.0.saturating_add(ms))
}

/// `ms`, give or take a quarter, so that replicas that failed together do not try again in step.
pub(super) fn jittered(ms: u64, rng: &mut fastrand::Rng) -> u64 {
    ms - ms / 4 + rng.u64(0..=ms / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_success() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut backoff = Backoff::default();
        let mut pause = |backoff: &mut Backoff| {
            backoff.again(Mono(1000), &mut rng);
            backoff.until().unwrap().since(Mono(1000))
        };
        for nominal in [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            let ms = pause(&mut backoff);
            assert!((nominal * 3 / 4..=nominal * 5 / 4).contains(&ms), "{ms} for {nominal}");
        }
        assert!(!backoff.expire(Mono(1000)));
        assert!(backoff.expire(Mono(100_000)) && backoff.is_over());
        assert!(pause(&mut backoff) > 40_000, "an ended pause is no success");
        backoff.reset();
        assert!(pause(&mut backoff) < 400);
    }

    #[test]
    fn a_pause_ends_exactly_when_it_says() {
        let mut backoff = Backoff::default();
        backoff.again(Mono(0), &mut fastrand::Rng::with_seed(1));
        let until = backoff.until().unwrap();
        assert!(!backoff.expire(Mono(until.0 - 1)) && !backoff.is_over());
        assert!(backoff.expire(until) && backoff.is_over());
        assert!(!backoff.expire(until), "it ends once");
    }
}
