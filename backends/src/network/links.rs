//! All links of a network, each with a generator and counters of its own.

use std::collections::BTreeMap;

use fastrand::Rng;
use syncline::ReplicaId;

use super::wire::Wire;
use super::{Link, Traffic};

/// The links by sender and receiver, whether or not these are attached yet.
pub(super) struct Links {
    seed: u64,
    /// The settings of every link that no test has set by name.
    default: Link,
    used: BTreeMap<(ReplicaId, ReplicaId), UsedLink>,
    have_delayed: bool,
}

/// A link that a frame has passed, or that a test has set by name.
pub(super) struct UsedLink {
    pub(super) link: Link,
    /// Made from the seed and the two ids, so that a frame on one link changes nothing on another one.
    pub(super) random: Rng,
    pub(super) wire: Wire,
    pub(super) traffic: Traffic,
}

impl Links {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, default: Link::default(), used: BTreeMap::new(), have_delayed: false }
    }

    /// Whether any link has ever delayed frames.
    pub(super) const fn have_delayed(&self) -> bool {
        self.have_delayed
    }

    pub(super) fn set(&mut self, from: ReplicaId, to: ReplicaId, link: Link) {
        self.have_delayed |= link.delays();
        self.get(from, to).link = link;
    }

    /// Sets every link, and those that are used later.
    pub(super) fn set_all(&mut self, link: Link) {
        self.have_delayed |= link.delays();
        for used in self.used.values_mut() {
            used.link = link.clone();
        }
        self.default = link;
    }

    pub(super) fn link(&self, from: ReplicaId, to: ReplicaId) -> &Link {
        self.used.get(&(from, to)).map_or(&self.default, |used| &used.link)
    }

    pub(super) fn get(&mut self, from: ReplicaId, to: ReplicaId) -> &mut UsedLink {
        self.used.entry((from, to)).or_insert_with(|| UsedLink {
            link: self.default.clone(),
            random: generator(self.seed, from, to),
            wire: Wire::default(),
            traffic: Traffic::default(),
        })
    }

    pub(super) fn counters(&mut self, from: ReplicaId, to: ReplicaId) -> &mut Traffic {
        &mut self.get(from, to).traffic
    }

    pub(super) fn traffic(&self, from: ReplicaId, to: ReplicaId) -> Traffic {
        self.used.get(&(from, to)).map_or_else(Traffic::default, |used| used.traffic)
    }

    pub(super) fn total(&self) -> Traffic {
        self.used.values().fold(Traffic::default(), |sum, used| sum.plus(used.traffic))
    }

    pub(super) fn reset_traffic(&mut self) {
        for used in self.used.values_mut() {
            used.traffic = Traffic::default();
        }
    }
}

fn generator(seed: u64, from: ReplicaId, to: ReplicaId) -> Rng {
    let (from, to) = (from.0.as_u64_pair(), to.0.as_u64_pair());
    let seed =
        [from.0, from.1, to.0, to.1].into_iter().fold(seed, |seed, half| Rng::with_seed(seed ^ half).u64(..));
    Rng::with_seed(seed)
}
