//! The transport seam: the weakest promise on which replication works.
//!
//! A transport brings frames to peers and may lose any of them: the protocol pulls by stream and sequence number,
//! which makes up for the loss. How peers find each other, and whether frames are encrypted, is up to the transport.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::ReplicaId;
use crate::storage::BoxError;

/// A frame of a peer, or a change of which peers can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A frame of a peer.
    Frame {
        /// The replica that sent it, which the transport vouches for.
        from: ReplicaId,
        /// The bytes of the frame.
        bytes: Bytes,
    },
    /// A peer can be reached from now on.
    Up(ReplicaId),
    /// A peer can no longer be reached.
    Down(ReplicaId),
}

/// Brings frames to peers.
///
/// Authors of transports find a whole one, its tests and the answers to their questions in `docs/writing-a-transport.md`,
/// which is `syncline_testkit::docs::writing_a_transport` too.
///
/// Values are sent to members alone, each by name; a stranger only hears that it is no member. Members take each other
/// at their word: no bytes of a member do damage, but a member that lies about a stream can stop the stream here, as a
/// fork would, or make this replica believe that its store was restored.
///
/// # Contract
/// Each bullet is a property of the list in `syncline-testkit`, under the same name.
///
/// - `from_is_true`: `from` is the replica that attached the other end, and the transport makes sure of that. Otherwise a
///   stranger could pass for a member: read everything, and write into the group.
/// - `attach_twice_is_refused`: an end serves the replica that attached it first; another one is
///   [`Refused`](TransportError::Refused), and the first one goes on.
/// - `up_comes_before_the_first_frame`: [`Up`](Incoming::Up) comes before the first frame of a peer, and holds until
///   [`Down`](Incoming::Down). A transport without connections may say `Up` once for every peer it is configured with.
/// - `down_comes_after_up`: `Down` comes to both ends when a peer can be reached no longer, only after its `Up`, and no
///   frame of the peer comes between it and the next `Up`. A peer that went and came back before this end heard of it may
///   be told as neither.
/// - `dropping_an_end_is_a_down`: an end that is dropped is a `Down` at its peers, and its replica may attach a new one.
/// - `frames_come_whole`: a frame that comes was sent, and comes whole; its receiver notices a damaged one, which has no
///   effect. A frame may be lost, come twice, late, or before one that was sent earlier.
/// - `largest_frame_arrives`: a frame of [`Limits::frame_bytes_max`](crate::Limits::frame_bytes_max) bytes can arrive.
/// - `broadcast_reaches_the_named_and_no_other`: a broadcast goes to the peers that it names, also if one of them cannot be
///   reached, and to no other: that may be a stranger.
/// - `receive_is_cancel_safe`: a `receive` that is dropped loses nothing: the next one returns what it would have.
/// - `full_queue_drops`: `send` and `broadcast` hand a frame over and return: they neither wait for the peer to read nor for
///   the network. A transport whose queue to a peer is full drops frames; the peer catches up by pulling.
/// - `peers_take_turns`: a peer that floods an end keeps no other peer's frames from it for ever.
/// - `memory_is_bounded`: a transport holds a bounded number of frames and bytes, also of a peer that floods it.
/// - `closed_says_closed`: a transport that has ended for good says [`Closed`](TransportError::Closed), to the `receive` that
///   waits and to every later one.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Takes the id of the replica that this end belongs to. Called once, when the store is opened, before all else.
    ///
    /// # Errors
    /// [`TransportError::NotStarted`] if this end cannot start now, since its port is taken for example;
    /// [`TransportError::Refused`] if it will never serve that replica, since it serves another one or lacks the
    /// replica's credentials. The store is then not opened, and
    /// [`OpenError::Transport`](crate::OpenError::Transport) passes the error on.
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError>;

    /// Hands over a frame for a peer.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`] or [`TransportError::Refused`] if it is certain that the frame will not arrive. The
    /// caller goes on as if it were lost, and takes the peer for connected until [`Down`](Incoming::Down).
    ///
    /// # Cancel safety
    /// Dropping the future sends the frame or not.
    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError>;

    /// Hands over the same frame for several peers, and for no other: a replica that is not named may be a stranger.
    ///
    /// By default [sends](Transport::send) the frame to one after the other; a transport that can do better may.
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

    /// Waits for the next frame, or for a change of which peers can be reached.
    ///
    /// # Errors
    /// [`TransportError::Closed`] if nothing will ever come again. The replica goes on without its peers, and tells
    /// [`Event::TransportLost`](crate::Event::TransportLost), as it does if any call panics.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the next call returns what this one would have.
    async fn receive(&self) -> Result<Incoming, TransportError>;
}

/// Why a call of a transport failed, by what the app may do next.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The peer cannot be reached now.
    #[error("the replica {0} cannot be reached now")]
    Unreachable(ReplicaId),
    /// This end or the peer refuses: an end that serves another replica, a peer that does not accept this replica's
    /// credentials. The same call fails again until the app changes something.
    #[error(
        "the transport refuses: {0}; give each opening of a store an end of its own, with the replica's credentials"
    )]
    Refused(Arc<dyn std::error::Error + Send + Sync>),
    /// The transport cannot start: its port is taken, its network is off, a permission is missing. The same call may work
    /// later.
    #[error("the transport could not start: {0}; free or allow what it needs, then open the store again")]
    NotStarted(Arc<dyn std::error::Error + Send + Sync>),
    /// The transport has ended for good.
    #[error("the transport has ended: {0}; open the store again with a new one")]
    Closed(Arc<dyn std::error::Error + Send + Sync>),
}

impl TransportError {
    /// Makes the error of an end or a peer that refuses, because of `error`.
    pub fn refused(error: impl Into<BoxError>) -> Self {
        Self::Refused(Arc::from(error.into()))
    }

    /// Makes the error of a transport that cannot start, because of `error`.
    pub fn not_started(error: impl Into<BoxError>) -> Self {
        Self::NotStarted(Arc::from(error.into()))
    }

    /// Makes the error of a transport that has ended, because of `error`.
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
