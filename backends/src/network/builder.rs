//! Setting up a network.

use std::fmt;
use std::sync::Arc;

use syncline::{Clock, SystemClock};

use super::MemoryNetwork;
use super::end::QueueLimits;
use super::links::Links;
use super::state::State;
use super::topology::Topology;

/// Sets up a [`MemoryNetwork`].
pub struct MemoryNetworkBuilder {
    seed: u64,
    clock: Arc<dyn Clock>,
    limits: QueueLimits,
    /// Whether every replica reaches every other without being connected.
    mesh: bool,
}

/// Any fixed number: a run that names no seed repeats too.
const SEED_DEFAULT: u64 = 0x5EED;

/// More than piles up at a replica that reads. A replica that stopped reading costs no more memory than this.
const LIMITS_DEFAULT: QueueLimits = QueueLimits { frames_max: 1024, bytes_max: 64 << 20 };

impl MemoryNetworkBuilder {
    pub(super) fn new() -> Self {
        Self { seed: SEED_DEFAULT, clock: Arc::new(SystemClock::new()), limits: LIMITS_DEFAULT, mesh: true }
    }

    /// Draws what happens to frames from this seed instead of a fixed one.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Delays by this clock instead of the platform's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how many frames may be under way to one replica; 1024 unless set. More are dropped.
    #[must_use]
    pub const fn queue_frames_max(mut self, frames: usize) -> Self {
        self.limits.frames_max = frames;
        self
    }

    /// Sets how many bytes may be under way to one replica; 64 MiB unless set. More are dropped, and so is every frame
    /// that is longer than this by itself.
    #[must_use]
    pub const fn queue_bytes_max(mut self, bytes: usize) -> Self {
        self.limits.bytes_max = bytes;
        self
    }

    /// Lets replicas reach each other only if they were [connected](MemoryNetwork::connect): to build a line, a star, a
    /// ring.
    #[must_use]
    pub const fn unconnected(mut self) -> Self {
        self.mesh = false;
        self
    }

    /// Builds the network.
    #[must_use]
    pub fn build(self) -> MemoryNetwork {
        let Self { seed, clock, limits, mesh } = self;
        let state = State::new(Links::new(seed), Topology::new(mesh), Arc::clone(&clock), limits);
        MemoryNetwork::new_on(clock, state)
    }
}

impl fmt::Debug for MemoryNetworkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetworkBuilder")
            .field("seed", &self.seed)
            .field("limits", &self.limits)
            .field("mesh", &self.mesh)
            .finish_non_exhaustive()
    }
}
