//! One replica's end of the network.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use syncline::{Incoming, ReplicaId, Transport, TransportError};
use tokio::sync::Notify;

use super::MemoryNetwork;
use super::end::Next;

/// One replica's end of a [`MemoryNetwork`].
///
/// A newer end that the same replica attaches takes over: the frames under way to and from the older end are lost,
/// peers see the replica go `Down` and `Up`, and the older end is closed. Dropping an end is a `Down` at its peers.
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    /// Set once a replica has attached this end.
    owner: OnceLock<Owner>,
}

/// The replica that attached an end, and the generation of that end.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) me: ReplicaId,
    pub(super) generation: u64,
    pub(super) changed: Arc<Notify>,
}

impl MemoryTransport {
    pub(super) const fn new(network: MemoryNetwork) -> Self {
        Self { network, owner: OnceLock::new() }
    }

    fn owner(&self) -> Result<&Owner, TransportError> {
        self.owner.get().ok_or_else(|| TransportError::refused("no replica has attached this end"))
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
        self.network.with(|state| {
            // Asked under the lock: otherwise the second of two calls at once would take over from the first.
            if self.owner.get().is_some() {
                return Err(TransportError::refused("a replica has attached this end already"));
            }
            let owner = state.attach(me);
            self.owner.get_or_init(|| owner);
            Ok(())
        })
    }

    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
        let owner = self.owner()?;
        self.network.with(|state| {
            state.own(owner)?;
            if !state.reaches(owner.me, to) {
                return Err(TransportError::Unreachable(to));
            }
            state.transmit(owner.me, to, &frame);
            Ok(())
        })
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        let owner = self.owner()?;
        loop {
            // Made before the queue is looked at, so that a frame that arrives between the look and the wait ends the
            // wait: otherwise that frame would be received only after the next one.
            let mut arrival = pin!(owner.changed.notified());
            // A frame that was taken is returned without a wait in between: a `receive` that is dropped while it waits
            // would lose the frame.
            let wait_ms = match self.network.with(|state| state.receive(owner))? {
                Next::Ready(incoming) => return Ok(incoming),
                Next::Due { wait_ms } => wait_ms,
                Next::Nothing => {
                    arrival.await;
                    continue;
                }
            };
            let mut due = self.network.clock.sleep(Duration::from_millis(wait_ms));
            poll_fn(|context| {
                if arrival.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                due.as_mut().poll(context)
            })
            .await;
        }
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        let Some(owner) = self.owner.get() else { return };
        self.network.with(|state| {
            if state.own(owner).is_ok() {
                state.detach(owner.me);
            }
        });
    }
}
