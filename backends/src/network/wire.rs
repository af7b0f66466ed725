//! The wire of a link that has a rate: frames leave it one behind the other, and wait in a queue of limited length.
//!
//! The queue itself is not kept: how many bytes wait follows from the moment at which the last of them will have left.

use syncline::Mono;

use super::Link;

/// The sender's end of a link.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wire {
    /// When the last frame that was taken has left, in microseconds: a small frame on a fast link takes less than a
    /// millisecond.
    busy_until_us: u64,
}

impl Wire {
    /// Takes a frame of so many bytes at `now`; returns when its last byte has left. `None` if the queue is full, and the
    /// frame is dropped.
    pub(super) fn take(&mut self, now: Mono, bytes: usize, link: &Link) -> Option<Mono> {
        let Some(rate) = link.bytes_a_second else { return Some(now) };
        let (rate, bytes) = (u128::from(rate.max(1)), bytes as u128);
        let now_us = now.0.saturating_mul(1000);
        let waits_us = self.busy_until_us.saturating_sub(now_us);
        let waiting = u128::from(waits_us) * rate / 1_000_000;
        // A long frame must get through behind a short one that was sent with it.
        if waiting > 0 && waiting >= link.queue_bytes_max as u128 {
            return None;
        }
        let takes_us = u64::try_from((bytes * 1_000_000).div_ceil(rate)).unwrap_or(u64::MAX);
        self.busy_until_us = now_us.max(self.busy_until_us).saturating_add(takes_us);
        Some(Mono(self.busy_until_us.div_ceil(1000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_leave_one_behind_the_other_also_several_in_a_millisecond() {
        let link = Link { bytes_a_second: Some(4_000), ..Link::default() };
        let mut wire = Wire::default();
        let left: Vec<_> =
            (0..4_000).map(|_| wire.take(Mono(7), 1, &link).expect("there is room").0).collect();
        assert_eq!((left[0], left[3], left[4], left[3_999]), (8, 8, 9, 1_007));
        assert_eq!(wire.take(Mono(5_000), 4_000, &link), Some(Mono(6_000)), "it was free again");
    }

    #[test]
    fn a_full_queue_takes_nothing_and_an_empty_one_any_frame() {
        let link = Link { bytes_a_second: Some(1_000), queue_bytes_max: 100, ..Link::default() };
        let mut wire = Wire::default();
        assert_eq!(wire.take(Mono(0), 500, &link), Some(Mono(500)));
        assert_eq!(wire.take(Mono(0), 1, &link), None);
        assert_eq!(wire.take(Mono(450), 50, &link), Some(Mono(550)), "50 wait, and 50 come");
        assert_eq!(wire.take(Mono(450), 1, &link), None);
        assert_eq!(wire.take(Mono(451), 500, &link), Some(Mono(1_050)), "99 wait: there is room for a frame");
    }

    #[test]
    fn a_link_without_a_rate_has_no_queue() {
        let link = Link { queue_bytes_max: 0, ..Link::default() };
        let mut wire = Wire::default();
        assert_eq!(wire.take(Mono(3), usize::MAX, &link), Some(Mono(3)));
        assert_eq!(wire.take(Mono(3), usize::MAX, &link), Some(Mono(3)));
    }
}
