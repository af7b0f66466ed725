//! The fixture of the network in memory.

use std::sync::Arc;

use async_trait::async_trait;
use syncline::{BoxError, Clock, ReplicaId, Transport as _};
use syncline_backends::{MemoryNetwork, MemoryTransport};

use super::{Holds, TransportFixture};
use crate::ManualClock;

/// A [`MemoryNetwork`] for the list. What does not come at once never comes there, so no test waits.
#[derive(Debug, Default)]
pub struct MemoryNetworkFixture {
    network: MemoryNetwork,
}

/// The limits of a network that was built without naming any.
const MEMORY_HOLDS: Holds = Holds { frames_max: 1024, bytes_max: 64 << 20 };

impl MemoryNetworkFixture {
    /// A network of perfect links, without ends.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) const fn over(network: MemoryNetwork) -> Self {
        Self { network }
    }
}

#[async_trait]
impl TransportFixture for MemoryNetworkFixture {
    type End = MemoryTransport;

    async fn end(&self, _: ReplicaId) -> Result<MemoryTransport, BoxError> {
        Ok(self.network.transport())
    }

    fn holds(&self) -> Holds {
        MEMORY_HOLDS
    }

    async fn disconnect(&self, a: ReplicaId, b: ReplicaId) -> Result<(), BoxError> {
        self.network.disconnect(a, b);
        Ok(())
    }

    async fn connect(&self, a: ReplicaId, b: ReplicaId) -> Result<(), BoxError> {
        self.network.connect(a, b);
        Ok(())
    }

    /// A newer end of the same replica takes over.
    async fn close(&self, me: ReplicaId) -> Result<(), BoxError> {
        Ok(self.network.transport().attach(me).await?)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(ManualClock::at(0))
    }
}
