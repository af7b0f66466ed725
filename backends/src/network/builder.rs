//! How a network is set up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use syncline::Clock;

use super::state::State;
use super::{Link, MemoryNetwork};

/// Sets up a [`MemoryNetwork`].
pub struct MemoryNetworkBuilder {
    pub(super) seed: u64,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) queue_frames_max: usize,
    pub(super) queue_bytes_max: usize,
    pub(super) mesh: bool,
}

impl MemoryNetworkBuilder {
    /// Draws the fate of frames from this seed instead of a fixed one.
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

    /// Holds at most so many frames that are under way to one replica; 1024 unless set.
    #[must_use]
    pub const fn queue_frames_max(mut self, frames: usize) -> Self {
        self.queue_frames_max = frames;
        self
    }

    /// Holds at most so many bytes that are under way to one replica; 64 MiB unless set. A frame that is longer than
    /// that never arrives.
    #[must_use]
    pub const fn queue_bytes_max(mut self, bytes: usize) -> Self {
        self.queue_bytes_max = bytes;
        self
    }

    /// Lets only those replicas reach each other that are [connected](MemoryNetwork::connect): a line, a star, a ring.
    #[must_use]
    pub const fn unconnected(mut self) -> Self {
        self.mesh = false;
        self
    }

    /// The network.
    #[must_use]
    pub fn build(self) -> MemoryNetwork {
        let Self { seed, clock, queue_frames_max, queue_bytes_max, mesh } = self;
        let state = State {
            seed,
            clock: Arc::clone(&clock),
            queue_frames_max,
            queue_bytes_max,
            mesh,
            timed: false,
            link: Link::default(),
            ends: BTreeMap::new(),
            wires: BTreeMap::new(),
            connected: BTreeSet::new(),
            cut: BTreeSet::new(),
            order: 0,
            generation: 0,
            woken: Vec::new(),
        };
        MemoryNetwork { clock, state: Arc::new(Mutex::new(state)) }
    }
}

impl fmt::Debug for MemoryNetworkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetworkBuilder")
            .field("seed", &self.seed)
            .field("queue_frames_max", &self.queue_frames_max)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("mesh", &self.mesh)
            .finish_non_exhaustive()
    }
}

pub(super) const SEED: u64 = 0x5EED;

/// More than a replica that reads lets pile up; one that stopped reading costs no more than this.
pub(super) const QUEUE_FRAMES_MAX: usize = 1024;

pub(super) const QUEUE_BYTES_MAX: usize = 64 << 20;
