//! The clock of a peer: how far it stands from the timer here, as its hellos show.
//!
//! A hello names the wall clock of its sender, and the timer here as the last hello from here named it. So the peer read
//! its clock after that hello was sent and before this one came: the two moments bound the difference, however long the
//! frames were on their way. Hellos of different speed narrow the bounds. The wall clock here is compared only when
//! somebody asks, so that a step of it shows at once.
//!
//! The same echo proves that a hello is none of long ago, which the transport may bring late.
//!
//! Owns: the first hello to the peer, the timer that the peer named last, the bounds. Holds always: the lower bound is
//! at most the upper one.

use crate::clock::{Mono, Now};

use super::super::wire::WireClock;

/// The clock of a peer.
#[derive(Debug, Default)]
pub(super) struct PeerClock {
    /// When the first hello went to the peer since the opening: the timer of before was another one.
    said: Option<Mono>,
    /// The timer of the peer in its last hello of this session.
    sent: Option<u64>,
    /// The wall clock of the peer less the timer here, in milliseconds: the least and the most that it can be.
    beyond_timer: Option<(i64, i64)>,
}

impl PeerClock {
    /// Takes note that the session of the peer is or may be a new one, whose timer may be another one. The bounds stay,
    /// since its wall clock is the same one.
    pub(super) fn is_of_new_session(&mut self) {
        self.sent = None;
    }

    /// Takes note that a hello goes to the peer; returns the timer of the peer to echo in it.
    pub(super) fn says_hello(&mut self, now: Mono) -> Option<u64> {
        self.said.get_or_insert(now);
        self.sent
    }

    /// Takes a hello of the peer; returns the moment after which it was sent, if it proves one.
    pub(super) fn heard(&mut self, clock: &WireClock, now: Mono) -> Option<Mono> {
        self.sent = Some(clock.sent);
        let after =
            clock.heard.map(Mono).filter(|at| *at <= now && self.said.is_some_and(|said| said <= *at));
        if let Some(wall) = clock.wall {
            let less = |timer: Mono| signed(wall).saturating_sub(signed(timer.0));
            let (least, most) = (less(now), after.map_or(i64::MAX, less));
            let (known_least, known_most) = self.beyond_timer.unwrap_or((i64::MIN, i64::MAX));
            let both = (least.max(known_least), most.min(known_most));
            // Bounds that exclude each other show that the peer's clock stepped: what was known is of no use.
            self.beyond_timer = Some(if both.0 <= both.1 { both } else { (least, most) });
        }
        after
    }

    /// By how many milliseconds the wall clock here stands ahead of the peer's; negative if it is behind, 0 if it may
    /// be level. Of all that the bounds allow, the least. `None` until the peer was heard.
    pub(super) fn ahead_ms(&self, now: &Now) -> Option<i64> {
        let (least, most) = self.beyond_timer?;
        let wall = now.wall.as_ref().ok()?;
        let here = signed(wall.get()).saturating_sub(signed(now.mono.0));
        let (at_least, at_most) = (here.saturating_sub(most), here.saturating_sub(least));
        Some(if at_least > 0 { at_least } else { at_most.min(0) })
    }

    pub(super) fn check(&self) {
        assert!(self.beyond_timer.is_none_or(|(least, most)| least <= most), "{self:?}");
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use crate::clock::{ClockError, WallMs};

    use super::*;

    /// The time that the clocks here show at `timer`, where the wall clock is `wall` ahead of the timer.
    fn here(timer: u64, wall: u64) -> Now {
        Now { wall: WallMs::new(timer + wall), mono: Mono(timer) }
    }

    fn hello(wall: u64, heard: Option<u64>) -> WireClock {
        WireClock { wall: Some(wall), sent: 7, heard }
    }

    /// A clock that was asked at 1,000 and answered at 1,100, that it is `wall`.
    fn answered(wall: u64) -> PeerClock {
        let mut clock = PeerClock::default();
        assert_eq!(clock.says_hello(Mono(1_000)), None);
        assert_eq!(clock.heard(&hello(wall, Some(1_000)), Mono(1_100)), Some(Mono(1_000)));
        clock.check();
        clock
    }

    /// The peer read its clock somewhere in the round trip of 100 ms: no more is said than is certain.
    #[test]
    fn a_clock_stands_ahead_by_no_more_than_the_round_trip_leaves_certain() {
        let cases = [
            ("an hour ahead, answered at once", 3_600_000, 1_000, 3_600_000),
            ("an hour ahead, read just before it came", 3_600_000, 1_100, 3_599_900),
            ("level", 0, 1_050, 0),
            ("less ahead than the frames took", 40, 1_050, 0),
            ("less behind than the frames took", 0, 1_090, 0),
            ("an hour behind", 0, 3_601_050, -3_599_950),
        ];
        for (name, ahead, theirs, says) in cases {
            let clock = answered(theirs);
            for at in [1_100, 99_000] {
                assert_eq!(clock.ahead_ms(&here(at, ahead)), Some(says), "{name}, asked at {at}");
            }
        }
    }

    #[test]
    fn hellos_narrow_what_is_known_and_a_step_of_either_clock_shows() {
        let mut clock = answered(1_090);
        assert_eq!(clock.ahead_ms(&here(1_100, 500)), Some(410));
        // The echo is old, and the frame was fast.
        clock.heard(&hello(31_002, Some(1_000)), Mono(31_003));
        assert_eq!(clock.ahead_ms(&here(40_000, 500)), Some(410), "the older one said more of this side");
        assert_eq!(clock.ahead_ms(&here(40_000, 9)), Some(0));
        assert_eq!(clock.ahead_ms(&here(40_000, 3_600_000)), Some(3_599_910), "the clock here was set");
        clock.heard(&hello(3_650_000, Some(49_990)), Mono(50_000));
        clock.check();
        assert_eq!(clock.ahead_ms(&here(50_000, 500)), Some(-3_599_500), "the clock there was set");
    }

    /// A device that was suspended finds old frames when it wakes up.
    #[test]
    fn a_frame_that_was_long_on_its_way_makes_nobody_wrong() {
        for heard in [None, Some(0), Some(9_999_999)] {
            let mut clock = PeerClock::default();
            clock.says_hello(Mono(500));
            assert_eq!(clock.heard(&hello(1_000, heard), Mono(3_600_000)), None, "{heard:?} is no echo");
            assert_eq!(clock.ahead_ms(&here(3_600_000, 0)), Some(0));
            assert_eq!(clock.ahead_ms(&Now { wall: WallMs::new(10), mono: Mono(3_600_000) }), Some(-990));
        }
    }

    #[test]
    fn the_timer_of_a_peer_goes_back_to_the_session_that_named_it_alone() {
        let mut clock = answered(1_000);
        assert_eq!(clock.says_hello(Mono(1_200)), Some(7));
        clock.is_of_new_session();
        assert_eq!(clock.says_hello(Mono(1_300)), None);
        assert_eq!(clock.heard(&hello(1_400, Some(1_200)), Mono(1_400)), Some(Mono(1_200)));
        assert_eq!(clock.says_hello(Mono(1_400)), Some(7));
        assert!(clock.ahead_ms(&here(1_500, 0)).is_some(), "the wall clock is the one that it was");
    }

    #[test]
    fn only_what_was_said_since_the_opening_and_until_now_is_an_echo() {
        let mut clock = answered(1_000);
        for (heard, proves) in [(999, false), (1_000, true), (2_000, true), (2_001, false)] {
            let after = clock.heard(&hello(1_500, Some(heard)), Mono(2_000));
            assert_eq!(after, Some(Mono(heard)).filter(|_| proves), "{heard}");
        }
    }

    #[test]
    fn nothing_is_said_of_clocks_that_cannot_be_read() {
        let mut clock = PeerClock::default();
        clock.says_hello(Mono(0));
        assert_eq!(clock.heard(&WireClock { wall: None, ..hello(0, Some(0)) }, Mono(1)), Some(Mono(0)));
        assert_eq!(clock.ahead_ms(&here(1, 0)), None);
        let failed = Now { wall: Err(ClockError::Before1970), mono: Mono(1_100) };
        assert_eq!(answered(1_000).ahead_ms(&failed), None);
        for wall in [0, u64::MAX] {
            let mut clock = answered(wall);
            clock.heard(&hello(u64::MAX - wall, Some(1_000)), Mono(u64::MAX));
            clock.check();
            assert!(clock.ahead_ms(&here(1 << 40, 0)).is_some(), "no reading overflows");
        }
    }
}
