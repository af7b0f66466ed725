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
use super::state::Next;

/// One replica's end of a [`MemoryNetwork`].
///
/// A newer end that the same replica attaches takes over: what was under way to and from the older one is gone, peers
/// see the replica go `Down` and `Up`, and the older end is closed. Dropping an end is a `Down` at its peers.
#[derive(Debug)]
pub struct MemoryTransport {
    pub(super) network: MemoryNetwork,
    pub(super) owner: OnceLock<Owner>,
}

/// What an end learns when it is attached.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) me: ReplicaId,
    pub(super) generation: u64,
    pub(super) changed: Arc<Notify>,
}

impl MemoryTransport {
    fn owner(&self) -> Result<&Owner, TransportError> {
        self.owner.get().ok_or_else(|| TransportError::closed("no replica has attached this end"))
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
        self.network.with(|state| {
            // Under the lock: of two calls at once, the second must not take over from the first.
            if self.owner.get().is_some() {
                return Err(TransportError::closed("a replica has attached this end already"));
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
            // Before the look at the queue: what arrives between the look and the wait must end the wait.
            let mut arrival = pin!(owner.changed.notified());
            // What is taken is returned at once: no wait lies in between in which it could be dropped.
            let wait_ms = match self.network.with(|state| state.take(owner))? {
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
