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

/// A stamp: when, in the hybrid-logical sense, and by which replica a commit was made.
///
/// Stamps are ordered by wall time, then counter, then replica: a strict total order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc {
    wall: WallMs,
    counter: u16,
    replica: ReplicaId,
}

impl Hlc {
    /// The bytes of an encoded stamp: 48 bits of milliseconds, 16 bits of counter, the replica.
    pub const LEN: usize = 24;

    /// A stamp below every stamp that was ever drawn.
    pub(crate) const NEVER: Self = Self::new(WallMs::MIN, 0, ReplicaId::MIN);

    /// Makes the stamp of `replica` at `wall` and `counter`.
    #[must_use]
    pub const fn new(wall: WallMs, counter: u16, replica: ReplicaId) -> Self {
        Self { wall, counter, replica }
    }

    /// Returns the stamp's wall time, which may differ from the time of day by up to the drift bound.
    #[must_use]
    pub const fn wall(&self) -> WallMs {
        self.wall
    }

    /// Returns the stamp's count within its wall time.
    #[must_use]
    pub const fn counter(&self) -> u16 {
        self.counter
    }

    /// Returns the replica that drew the stamp.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Returns the stamp as big-endian bytes, whose order is the order of stamps.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (time, replica) = bytes.split_at_mut(8);
        time.copy_from_slice(&self.time_bytes());
        replica.copy_from_slice(self.replica.as_bytes());
        bytes
    }

    /// Reads the stamp with these bytes.
    ///
    /// # Errors
    /// [`HlcLengthError`] for any length but [`Hlc::LEN`]. Any 24 bytes are a stamp.
    #[inline]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HlcLengthError> {
        let wrong = || HlcLengthError { len: bytes.len() };
        let bytes: &[u8; Self::LEN] = bytes.try_into().map_err(|_| wrong())?;
        let (time, replica) = bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
        let replica: [u8; 16] = replica.try_into().map_err(|_| wrong())?;
        Ok(Self::from_time_bytes(*time, ReplicaId::from_bytes(replica)))
    }

    /// Returns wall time and counter alone, for rows that name the replica anyway.
    pub(crate) fn time_bytes(&self) -> [u8; 8] {
        (self.wall.get() << 16 | u64::from(self.counter)).to_be_bytes()
    }

    /// The inverse of [`Hlc::time_bytes`].
    #[inline]
    pub(crate) fn from_time_bytes(bytes: [u8; 8], replica: ReplicaId) -> Self {
        let time = u64::from_be_bytes(bytes);
        // The high 48 bits always fit a `WallMs`, the low 16 bits a `u16`: neither fallback is ever taken.
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

/// The error for bytes that are no stamp, because they are not [`Hlc::LEN`] long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stamp has 24 bytes, not {len}")]
pub struct HlcLengthError {
    /// How many bytes there were.
    pub len: usize,
}

/// The error for a stamp further ahead of physical time than the group tolerates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stamp {stamp} stands {ahead_ms} ms ahead of physical time, the bound is {max_drift_ms} ms")]
pub struct DriftError {
    /// The stamp that was refused.
    pub stamp: Hlc,
    /// How far the stamp is ahead.
    pub ahead_ms: u64,
    /// How far a stamp may be ahead.
    pub max_drift_ms: u64,
}

/// Draws the stamps of one replica: strictly rising, above everything followed, near physical time.
///
/// The owner stamps through `&mut self`, so stamping needs no lock. The [high-water](HlcGenerator::high_water) must
/// outlive a restart: store it in the same write as the commit that was stamped, or a stamp may be drawn twice.
///
/// ```
/// use syncline::{Hlc, HlcGenerator, ReplicaId, Uuid, WallMs};
///
/// let (me, other) = (ReplicaId(Uuid::from_u128(1)), ReplicaId(Uuid::from_u128(2)));
/// let mut clock = HlcGenerator::fresh(me, 5 * 60 * 1000);
/// let now = WallMs::new(1_800_000_000_000)?;
/// // To receive a commit: see the time, check the stamp, and follow it once the commit is applied.
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
    /// Makes a generator whose stamps are all above `high_water` and carry its replica.
    #[must_use]
    pub fn new(high_water: Hlc, max_drift_ms: u64) -> Self {
        Self { last: high_water, physical_max: high_water.wall, max_drift_ms }
    }

    /// Makes a generator for a replica that has neither issued nor seen a stamp.
    #[must_use]
    pub fn fresh(replica: ReplicaId, max_drift_ms: u64) -> Self {
        Self::new(Hlc::new(WallMs::MIN, 0, replica), max_drift_ms)
    }

    /// Draws the next stamp at physical time `now`.
    ///
    /// # Errors
    /// [`ClockError::Exhausted`] if the counter is full and carrying would pass the highest physical time seen
    /// by more than the drift bound, [`ClockError::Beyond48Bits`] if it would leave 48 bits. The generator is then
    /// unchanged.
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
    /// The bound is measured against physical time and not against the stamps drawn here: they follow every stamp that
    /// is let through, so the bound would move up with each of them.
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
    /// Call it in the write that applies the stamp's commit, after [`check_drift`](HlcGenerator::check_drift): a
    /// stamp whose commit is not applied must not move the clock. The drift is not checked again, since an operator
    /// may let a stamp through that is beyond the bound; counting then goes on from there.
    pub fn follow(&mut self, stamp: Hlc) {
        if stamp.wall > self.physical_max.saturating_add(self.max_drift_ms) {
            self.physical_max = stamp.wall;
        }
        if (stamp.wall, stamp.counter) > (self.last.wall, self.last.counter) {
            self.last = Hlc { replica: self.last.replica, ..stamp };
        }
    }

    /// Checks a stamp of another replica and takes note of it at once.
    ///
    /// Does [`see`](HlcGenerator::see), [`check_drift`](HlcGenerator::check_drift) and
    /// [`follow`](HlcGenerator::follow) in one call, for a caller that applies the commit without a write in between.
    ///
    /// # Errors
    /// [`DriftError`] if the stamp stands further ahead of `now` than the drift bound. No stamp has been followed.
    pub fn observe(&mut self, stamp: Hlc, now: WallMs) -> Result<(), DriftError> {
        self.check_drift(stamp, now)?;
        self.see(now);
        self.follow(stamp);
        Ok(())
    }

    /// Returns the highest stamp issued or seen, as this replica's own. It must be durable before a stamp is shown.
    #[must_use]
    pub const fn high_water(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests;
