//! Which replicas have a connection with each other.

use std::collections::BTreeSet;
use std::mem;

use syncline::ReplicaId;

/// Two replicas in the one order that both directions share.
type Pair = (ReplicaId, ReplicaId);

/// The connections between replicas, whether or not these are attached yet.
#[derive(Debug)]
pub(super) struct Topology {
    /// Whether every pair starts connected. Otherwise only the pairs in `connected` are.
    mesh: bool,
    /// The pairs that a test connected.
    connected: BTreeSet<Pair>,
    /// The pairs that a test disconnected, which `mesh` and `connected` do not overrule.
    cut: BTreeSet<Pair>,
}

impl Topology {
    pub(super) const fn new(mesh: bool) -> Self {
        Self { mesh, connected: BTreeSet::new(), cut: BTreeSet::new() }
    }

    /// Whether `a` and `b` have a connection. A replica has none with itself.
    pub(super) fn connects(&self, a: ReplicaId, b: ReplicaId) -> bool {
        let pair = pair(a, b);
        a != b && (self.mesh || self.connected.contains(&pair)) && !self.cut.contains(&pair)
    }

    pub(super) fn connect(&mut self, a: ReplicaId, b: ReplicaId) {
        self.cut.remove(&pair(a, b));
        self.connected.insert(pair(a, b));
    }

    pub(super) fn cut(&mut self, a: ReplicaId, b: ReplicaId) {
        self.cut.insert(pair(a, b));
    }

    /// Takes every cut back, and returns the pairs that were cut.
    pub(super) fn heal(&mut self) -> BTreeSet<Pair> {
        mem::take(&mut self.cut)
    }
}

fn pair(a: ReplicaId, b: ReplicaId) -> Pair {
    if a <= b { (a, b) } else { (b, a) }
}
