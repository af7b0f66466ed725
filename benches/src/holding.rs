//! Keeps what comes for a replica back, to be taken all at once: what it costs to make it is then no part of what it
//! costs to take it.

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{Either, select};
use syncline::{Incoming, ReplicaId, Transport, TransportError};
use tokio::sync::watch;

/// Says whether what comes is kept back; at first it is not.
#[derive(Clone, Debug)]
pub struct Hold(watch::Sender<bool>);

impl Hold {
    /// Puts a hold on what comes over `transport`.
    #[must_use]
    pub fn on<T: Transport>(transport: T) -> (Self, Holding<T>) {
        let (hold, held) = watch::channel(false);
        (Self(hold), Holding { transport, held })
    }

    /// Keeps back what comes from now on.
    pub fn keep(&self) {
        self.0.send_replace(true);
    }

    /// Lets through what was kept back, and all that comes.
    pub fn release(&self) {
        self.0.send_replace(false);
    }
}

/// A transport whose frames may be kept back.
#[derive(Debug)]
pub struct Holding<T> {
    transport: T,
    held: watch::Receiver<bool>,
}

#[async_trait]
impl<T: Transport> Transport for Holding<T> {
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
        self.transport.attach(me).await
    }

    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
        self.transport.send(to, frame).await
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        let mut held = self.held.clone();
        loop {
            // Once nobody can keep anything back, nothing is.
            if held.wait_for(|held| !held).await.is_err() {
                return self.transport.receive().await;
            }
            let kept = async {
                if held.wait_for(|held| *held).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            if let Either::Right((incoming, _)) = select(kept.boxed(), self.transport.receive()).await {
                return incoming;
            }
        }
    }
}
