//! The transport seam: the weakest promise that works.
//!
//! Replication needs a way to bring frames to peers, and next to nothing of it: pulling by stream and sequence number
//! is the protocol, and makes up for whatever a transport loses. Nothing here says how peers find each other or
//! whether the way is encrypted; that is the transport's.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::ReplicaId;
use crate::storage::BoxError;

/// What a transport brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A frame of a peer.
    Frame {
        /// The replica that sent it, which the transport vouches for.
        from: ReplicaId,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A peer can be reached from now on.
    Up(ReplicaId),
    /// A peer can no longer be reached.
    Down(ReplicaId),
}

/// Brings frames to peers.
///
/// Values go to members alone, each named; strangers hear that they are none. Members take each other at their word:
/// whatever bytes one sends break nothing, but one that lies about a stream can stop it here, as a second history would,
/// or make this replica believe that its store was restored.
///
/// # Contract
/// - A frame may be lost, come twice, late, or before one that was sent earlier. A frame that comes is one that was
///   sent, whole; a damaged one is noticed by its receiver and has no effect.
/// - `from` is true: it is the replica that attached the other end, however the transport knows. Everything that a
///   replica does for its members alone rests on it.
/// - `send` and `broadcast` hand a frame over and return: they neither wait for the peer to read nor for the network.
///   A transport whose queue to a peer is full drops frames; the peer catches up by pulling.
/// - A peer that is [`Up`](Incoming::Up) is told as such before its first frame, and is so until
///   [`Down`](Incoming::Down). A transport without connections may say `Up` once for every peer it is configured with.
/// - It holds a bounded number of frames and bytes, also of a peer that floods it.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Says which replica this end belongs to. Called once, when the store is opened and before anything else.
    ///
    /// # Errors
    /// [`TransportError`] if this end cannot serve that replica. The store is then not opened.
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError>;

    /// Hands over a frame for a peer.
    ///
    /// # Errors
    /// [`TransportError`] if it is certain that the frame will not arrive. The caller goes on as if it were lost.
    ///
    /// # Cancel safety
    /// Dropping the future sends the frame or not.
    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError>;

    /// Hands over the same frame for several peers, and for nobody else: whoever is not named is no member.
    ///
    /// [Sends](Transport::send) it to one after the other; a transport that can do better may.
    ///
    /// # Errors
    /// As `send`, if none of them will get it.
    ///
    /// # Cancel safety
    /// Dropping the future sends the frame to some, to all or to none.
    async fn broadcast(&self, to: &[ReplicaId], frame: Bytes) -> Result<(), TransportError> {
        let mut failed = Ok(());
        let mut sent = false;
        for peer in to {
            match self.send(*peer, frame.clone()).await {
                Ok(()) => sent = true,
                Err(error) => failed = Err(error),
            }
        }
        if sent { Ok(()) } else { failed }
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    /// [`TransportError`] if nothing will ever come again. The replica goes on without its peers, and says so.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the next call returns what this one would have.
    async fn receive(&self) -> Result<Incoming, TransportError>;
}

/// Why a transport could not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The peer cannot be reached now.
    #[error("the replica {0} cannot be reached now")]
    Unreachable(ReplicaId),
    /// The transport has ended for good.
    #[error("the transport has ended: {0}; open the store again with a new one")]
    Closed(Arc<dyn std::error::Error + Send + Sync>),
}

impl TransportError {
    /// The transport has ended, because of `error`.
    pub fn closed(error: impl Into<BoxError>) -> Self {
        Self::Closed(Arc::from(error.into()))
    }
}

macro_rules! transport_behind_a_pointer {
    ($pointer:ident) => {
        #[async_trait]
        impl<T: Transport + ?Sized> Transport for $pointer<T> {
            async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
                (**self).attach(me).await
            }

            async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
                (**self).send(to, frame).await
            }

            async fn broadcast(&self, to: &[ReplicaId], frame: Bytes) -> Result<(), TransportError> {
                (**self).broadcast(to, frame).await
            }

            async fn receive(&self) -> Result<Incoming, TransportError> {
                (**self).receive().await
            }
        }
    };
}

transport_behind_a_pointer!(Box);
transport_behind_a_pointer!(Arc);

impl fmt::Debug for dyn Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}
