//! Hybrid logical stamps and the generator that draws them.
//!
//! After S. Kulkarni, M. Demirbas, D. Madappa, B. Avva and M. Leone, *Logical Physical Clocks and Consistent
//! Snapshots in Globally Distributed Databases* (2014): a stamp follows physical time where that rises and
//! counts where it does not, so it never goes back and stays close to the time of day. Three rules are added.
//! The drift bound is measured against physical time, never against the generator's own stamps, so that peers
//! cannot ratchet each other forward. A full counter carries into the milliseconds. The replica breaks ties, the
//! same way everywhere.

use std::fmt;

use crate::clock::{ClockError, WallMs};
use crate::ids::ReplicaId;

/// A stamp: when, in the hybrid-logical sense, and by which replica.
///
/// Ordered by wall time, then counter, then replica: a strict total order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc {
    wall: WallMs,
    counter: u16,
    replica: ReplicaId,
}

impl Hlc {
    /// Bytes of an encoded stamp: 48 bits of milliseconds, 16 bits of counter, the replica.
    pub const LEN: usize = 24;

    /// Below every stamp that was ever drawn.
    pub(crate) const NEVER: Self = Self::new(WallMs::MIN, 0, ReplicaId::from_bytes([0; 16]));

    /// The stamp of `replica` at `wall` and `counter`.
    #[must_use]
    pub const fn new(wall: WallMs, counter: u16, replica: ReplicaId) -> Self {
        Self { wall, counter, replica }
    }

    /// The stamp's wall time, which may differ from the time of day by up to the drift bound.
    #[must_use]
    pub const fn wall(&self) -> WallMs {
        self.wall
    }

    /// The count of stamps within one wall time.
    #[must_use]
    pub const fn counter(&self) -> u16 {
        self.counter
    }

    /// The replica that drew the stamp.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The stamp as big-endian bytes, whose order is the order of stamps.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (time, replica) = bytes.split_at_mut(8);
        time.copy_from_slice(&self.time_bytes());
        replica.copy_from_slice(self.replica.as_bytes());
        bytes
    }

    /// The stamp with these bytes.
    ///
    /// # Errors
    /// [`HlcLengthError`] for any length but [`Hlc::LEN`]. Every 24 bytes are a stamp.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HlcLengthError> {
        let wrong = || HlcLengthError { len: bytes.len() };
        let bytes: &[u8; Self::LEN] = bytes.try_into().map_err(|_| wrong())?;
        let (time, replica) = bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
        let replica: [u8; 16] = replica.try_into().map_err(|_| wrong())?;
        Ok(Self::from_time_bytes(*time, ReplicaId::from_bytes(replica)))
    }

    /// Wall time and counter alone, for places that name the replica anyway.
    pub(crate) fn time_bytes(&self) -> [u8; 8] {
        (self.wall.get() << 16 | u64::from(self.counter)).to_be_bytes()
    }

    /// The inverse of [`Hlc::time_bytes`].
    pub(crate) fn from_time_bytes(bytes: [u8; 8], replica: ReplicaId) -> Self {
        let time = u64::from_be_bytes(bytes);
        // 64 - 16 = 48 bits always fit; the low 16 bits are the counter.
        let wall = WallMs::new(time >> 16).unwrap_or(WallMs::MAX);
        let counter = u16::try_from(time & u64::from(u16::MAX)).unwrap_or(u16::MAX);
        Self { wall, counter, replica }
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hlc({self})")
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.wall.get(), self.counter, self.replica)
    }
}

/// Bytes that are no stamp, because they are not [`Hlc::LEN`] long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stamp has 24 bytes, not {len}")]
pub struct HlcLengthError {
    /// How many there were.
    pub len: usize,
}

/// A stamp further ahead of physical time than the group tolerates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stamp {stamp} stands {ahead_ms} ms ahead of physical time, the bound is {max_drift_ms} ms")]
pub struct DriftError {
    /// The stamp that was refused.
    pub stamp: Hlc,
    /// How far it is ahead.
    pub ahead_ms: u64,
    /// How far it may be ahead.
    pub max_drift_ms: u64,
}

/// Draws the stamps of one replica: strictly rising, above everything followed, near physical time.
///
/// It is owned by whoever stamps (`&mut self`), so stamping needs no lock. What must outlive a restart is the
/// [high-water](HlcGenerator::high_water): store it in the same write as what was stamped.
///
/// ```
/// use syncline::{Hlc, HlcGenerator, ReplicaId, Uuid, WallMs};
///
/// let (me, other) = (ReplicaId(Uuid::from_u128(1)), ReplicaId(Uuid::from_u128(2)));
/// let mut clock = HlcGenerator::fresh(me, 5 * 60 * 1000);
/// let now = WallMs::new(1_800_000_000_000)?;
/// // What is received: see the time, check the stamp, and follow it once it is applied.
/// let received = Hlc::new(now.saturating_add(1000), 7, other);
/// clock.see(now);
/// clock.check_drift(received, now)?;
/// clock.follow(received);
/// assert!(clock.stamp(now)? > received);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HlcGenerator {
    /// The highest stamp issued or seen, as this replica's own.
    last: Hlc,
    /// The highest physical time seen, the base of the bound on carries.
    physical_max: WallMs,
    max_drift_ms: u64,
}

impl HlcGenerator {
    /// A generator whose stamps are all above `high_water` and carry its replica.
    #[must_use]
    pub fn new(high_water: Hlc, max_drift_ms: u64) -> Self {
        Self { last: high_water, physical_max: high_water.wall, max_drift_ms }
    }

    /// A generator for a replica that has neither issued nor seen a stamp.
    #[must_use]
    pub fn fresh(replica: ReplicaId, max_drift_ms: u64) -> Self {
        Self::new(Hlc::new(WallMs::MIN, 0, replica), max_drift_ms)
    }

    /// Draws the next stamp at physical time `now`.
    ///
    /// # Errors
    /// [`ClockError::Exhausted`] if the counter is full and carrying would pass the highest physical time seen
    /// by more than the drift bound, [`ClockError::Beyond48Bits`] if it would leave 48 bits. The generator is as
    /// before.
    pub fn stamp(&mut self, now: WallMs) -> Result<Hlc, ClockError> {
        let physical_max = self.physical_max.max(now);
        let next = if now > self.last.wall {
            Hlc { wall: now, counter: 0, ..self.last }
        } else if let Some(counter) = self.last.counter.checked_add(1) {
            Hlc { counter, ..self.last }
        } else {
            let wall = WallMs::new(self.last.wall.get() + 1)?;
            if wall > physical_max.saturating_add(self.max_drift_ms) {
                return Err(ClockError::Exhausted { max_drift_ms: self.max_drift_ms });
            }
            Hlc { wall, counter: 0, ..self.last }
        };
        self.last = next;
        self.physical_max = physical_max;
        Ok(next)
    }

    /// Takes note of physical time, the base of the bound on carries: call it with every reading of the wall clock.
    pub fn see(&mut self, now: WallMs) {
        self.physical_max = self.physical_max.max(now);
    }

    /// Checks that a stamp of another replica stands no further ahead of physical time than the drift bound.
    ///
    /// The stamps drawn here do not count for that: a bound above them would move up with every stamp that is let
    /// through.
    ///
    /// # Errors
    /// [`DriftError`] if it stands further ahead of `now`.
    pub fn check_drift(&self, stamp: Hlc, now: WallMs) -> Result<(), DriftError> {
        let ahead_ms = stamp.wall.get().saturating_sub(now.get());
        if ahead_ms <= self.max_drift_ms {
            return Ok(());
        }
        Err(DriftError { stamp, ahead_ms, max_drift_ms: self.max_drift_ms })
    }

    /// Takes note of a stamp of another replica: every later stamp is above it.
    ///
    /// Call it in the write that applies what was stamped, after [`check_drift`](HlcGenerator::check_drift): a stamp
    /// that is not applied must not move the clock. It does not check again, since an operator may let a stamp through
    /// that is beyond the drift bound; counting then goes on from there.
    pub fn follow(&mut self, stamp: Hlc) {
        if stamp.wall > self.physical_max.saturating_add(self.max_drift_ms) {
            self.physical_max = stamp.wall;
        }
        if (stamp.wall, stamp.counter) > (self.last.wall, self.last.counter) {
            self.last = Hlc { replica: self.last.replica, ..stamp };
        }
    }

    /// The highest stamp issued or seen, as this replica's own: what must be durable before a stamp is shown.
    #[must_use]
    pub const fn high_water(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    //! Goal: properties H1, H4 to H7, H9 and H10. Method: scripts of readings, of own stamps and of received ones
    //! against the definitions, boundaries by hand.

    use std::hash::{BuildHasher, RandomState};

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const DRIFT: u64 = 300_000;

    fn replica(n: u128) -> ReplicaId {
        ReplicaId(Uuid::from_u128(n))
    }

    fn wall(ms: u64) -> WallMs {
        WallMs::new(ms).unwrap()
    }

    fn any_hlc() -> impl Strategy<Value = Hlc> {
        // Few distinct values, so that ties happen.
        let wall = prop_oneof![0..4u64, Just(WallMs::MAX.get()), 0..=WallMs::MAX.get()];
        let counter = prop_oneof![0..3u16, Just(u16::MAX)];
        (wall, counter, 0..3u128).prop_map(|(w, c, r)| Hlc::new(WallMs::new(w).unwrap(), c, replica(r)))
    }

    /// What the engine does with a stamp that it receives: it sees the time with every input, checks the stamp when it
    /// takes the commit, and follows it when the commit is applied.
    fn receive(clock: &mut HlcGenerator, stamp: Hlc, now: WallMs) -> Result<(), DriftError> {
        clock.see(now);
        clock.check_drift(stamp, now)?;
        clock.follow(stamp);
        Ok(())
    }

    #[derive(Clone, Debug)]
    enum Step {
        See(u64),
        Stamp(u64),
        /// Checks a stamp at one time and follows it at another: the wall clock moves between the check and the write.
        Receive(Hlc, u64, u64),
    }

    fn any_script() -> impl Strategy<Value = Vec<Step>> {
        let reading = || prop_oneof![0..5u64, 1_000_000..1_000_010u64, Just(WallMs::MAX.get() - 1)];
        let step = prop_oneof![
            reading().prop_map(Step::See),
            reading().prop_map(Step::Stamp),
            (any_hlc(), reading(), reading()).prop_map(|(h, now, later)| Step::Receive(h, now, later)),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        /// H1, H4, H5 and H6 at once: for every interleaving and every reading.
        #[test]
        fn h1_stamps_strictly_rise(script in any_script(), drift in prop_oneof![Just(0u64), Just(2), Just(DRIFT)]) {
            let mut clock = HlcGenerator::fresh(replica(9), drift);
            let (mut highest, mut physical_max) = (None, 0);
            for step in script {
                let before = clock.clone();
                match step {
                    Step::See(now) => {
                        clock.see(wall(now));
                        physical_max = physical_max.max(now);
                        prop_assert_eq!(clock.high_water(), before.high_water());
                    }
                    Step::Stamp(now) => {
                        physical_max = physical_max.max(now);
                        match clock.stamp(wall(now)) {
                            Ok(stamp) => {
                                prop_assert!(Some(stamp) > highest, "{stamp} after {highest:?}");
                                highest = Some(stamp);
                            }
                            Err(_) => prop_assert_eq!(&clock, &before),
                        }
                    }
                    Step::Receive(remote, now, later) => {
                        clock.see(wall(now));
                        physical_max = physical_max.max(now);
                        let tolerated = remote.wall().get() <= now + drift;
                        prop_assert_eq!(clock.check_drift(remote, wall(now)).is_ok(), tolerated);
                        if tolerated {
                            clock.see(wall(later));
                            physical_max = physical_max.max(later);
                            clock.follow(remote);
                            highest = highest.max(Some(Hlc { replica: replica(9), ..remote }));
                        } else {
                            prop_assert_eq!(clock.high_water(), before.high_water());
                        }
                    }
                }
                prop_assert!(clock.high_water().wall().get() <= physical_max.saturating_add(drift));
            }
        }

        #[test]
        fn h4_the_next_stamp_is_above_what_was_observed(remote in any_hlc(), now in 0..6u64) {
            let mut clock = HlcGenerator::fresh(replica(0), u64::MAX);
            receive(&mut clock, remote, wall(now)).unwrap();
            if let Ok(next) = clock.stamp(wall(now)) {
                prop_assert!((next.wall(), next.counter()) > (remote.wall(), remote.counter()));
            }
        }

        #[test]
        fn h9_the_order_is_strict_and_total(a in any_hlc(), b in any_hlc(), c in any_hlc()) {
            prop_assert_eq!(a == b, a.cmp(&b).is_eq());
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
            let hasher = RandomState::new();
            if a == b {
                prop_assert_eq!(hasher.hash_one(a), hasher.hash_one(b));
            }
        }

        #[test]
        fn h10_byte_order_is_order(a in any_hlc(), b in any_hlc()) {
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
            prop_assert_eq!(Hlc::from_bytes(&a.to_bytes()).unwrap(), a);
        }

        #[test]
        fn h10_other_lengths_are_errors(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(Hlc::from_bytes(&bytes).is_ok(), bytes.len() == Hlc::LEN);
        }
    }

    #[test]
    fn h5_the_drift_bound_is_exact() {
        for (ahead, tolerated) in [(DRIFT - 1, true), (DRIFT, true), (DRIFT + 1, false)] {
            let mut clock = HlcGenerator::fresh(replica(1), DRIFT);
            clock.stamp(wall(1000)).unwrap();
            let before = clock.clone();
            let remote = Hlc::new(wall(1000 + ahead), 7, replica(2));
            let received = receive(&mut clock, remote, wall(1000));
            let drift = DriftError { stamp: remote, ahead_ms: ahead, max_drift_ms: DRIFT };
            assert_eq!(received, if tolerated { Ok(()) } else { Err(drift) });
            assert_eq!(clock == before, !tolerated, "a refused stamp leaves the clock bit-identical");
        }
    }

    #[test]
    fn h5_the_drift_bound_is_measured_against_physical_time() {
        // The clock stands at the bound itself, and physical time steps back.
        let mut clock = HlcGenerator::fresh(replica(1), DRIFT);
        receive(&mut clock, Hlc::new(wall(1000 + DRIFT), 0, replica(2)), wall(1000)).unwrap();
        for now in [1000, 400] {
            clock.see(wall(now));
            assert!(clock.check_drift(Hlc::new(wall(now + DRIFT), 9, replica(2)), wall(now)).is_ok());
            assert!(clock.check_drift(Hlc::new(wall(now + DRIFT + 1), 0, replica(2)), wall(now)).is_err());
        }
    }

    #[test]
    fn h6_peers_cannot_ratchet_each_other_forward() {
        // Each of two replicas runs ahead of physical time by what the other one accepted.
        let (mut a, mut b) = (HlcGenerator::fresh(replica(1), DRIFT), HlcGenerator::fresh(replica(2), DRIFT));
        let now = wall(1_000_000);
        receive(&mut a, Hlc::new(wall(1_000_000 + DRIFT), u16::MAX - 1, replica(3)), now).unwrap();
        for _ in 0..10 {
            if let Ok(stamp) = a.stamp(now) {
                let _ = receive(&mut b, stamp, now);
            }
            if let Ok(stamp) = b.stamp(now) {
                let _ = receive(&mut a, stamp, now);
            }
        }
        assert!(
            a.high_water().wall() <= wall(1_000_000 + DRIFT)
                && b.high_water().wall() <= wall(1_000_000 + DRIFT)
        );
    }

    #[test]
    fn h7_a_full_counter_carries_into_the_milliseconds() {
        let mut clock = HlcGenerator::new(Hlc::new(wall(1000), u16::MAX - 1, replica(1)), 1);
        assert_eq!(clock.stamp(wall(1000)).unwrap(), Hlc::new(wall(1000), u16::MAX, replica(1)));
        assert_eq!(clock.stamp(wall(1000)).unwrap(), Hlc::new(wall(1001), 0, replica(1)));
        assert_eq!(clock.stamp(wall(1000)).unwrap(), Hlc::new(wall(1001), 1, replica(1)));
    }

    #[test]
    fn h7_a_carry_beyond_the_drift_bound_is_refused() {
        let mut clock = HlcGenerator::new(Hlc::new(wall(1000), 0, replica(1)), 1);
        receive(&mut clock, Hlc::new(wall(1001), u16::MAX, replica(2)), wall(1000)).unwrap();
        let before = clock.clone();
        assert!(matches!(clock.stamp(wall(1000)), Err(ClockError::Exhausted { max_drift_ms: 1 })));
        assert_eq!(clock, before);
        assert_eq!(clock.stamp(wall(1001)).unwrap(), Hlc::new(wall(1002), 0, replica(1)), "time heals it");

        let mut last = HlcGenerator::new(Hlc::new(WallMs::MAX, u16::MAX, replica(1)), 1);
        assert!(matches!(last.stamp(WallMs::MAX), Err(ClockError::Beyond48Bits { .. })));
    }

    #[test]
    fn h7_counting_goes_on_from_a_stamp_that_was_let_through() {
        let mut clock = HlcGenerator::fresh(replica(1), 1);
        let far = Hlc::new(wall(5000), u16::MAX, replica(2));
        clock.see(wall(1000));
        clock.check_drift(far, wall(1000)).unwrap_err();
        clock.follow(far);
        assert_eq!(clock.stamp(wall(1000)).unwrap(), Hlc::new(wall(5001), 0, replica(1)));
        assert!(clock.check_drift(far, wall(1000)).is_err(), "it is let through once, the bound stays");
    }

    #[test]
    fn a_clock_that_steps_back_does_not_stop_the_stamps() {
        let mut clock = HlcGenerator::fresh(replica(1), DRIFT);
        let before = clock.stamp(wall(10_000_000)).unwrap();
        for _ in 0..200_000 {
            clock.stamp(wall(1)).unwrap();
        }
        assert_eq!(clock.high_water().wall(), wall(before.wall().get() + 3));
    }

    #[test]
    fn h10_golden_bytes() {
        let stamp =
            Hlc::new(wall(0x0102_0304_0506), 0x0708, replica(0x1112_1314_1516_1718_191a_1b1c_1d1e_1f20));
        let bytes: Vec<u8> = (1..=8).chain(0x11..=0x20).collect();
        assert_eq!(stamp.to_bytes().to_vec(), bytes);
    }
}
