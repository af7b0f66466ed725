//! A transport that remembers what was sent, so that it can come once more, after anything that has happened since.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use syncline::{Incoming, ReplicaId, Transport, TransportError};

/// How many frames of a replica are remembered.
const FRAMES_MAX: usize = 256;

/// The last frames that a replica sent, and to whom. Clones share them, and they outlive its process.
#[derive(Clone, Default)]
pub(super) struct Tape(Arc<Mutex<VecDeque<(ReplicaId, Bytes)>>>);

impl Tape {
    fn note(&self, to: ReplicaId, frame: &Bytes) {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() == FRAMES_MAX {
            frames.pop_front();
        }
        frames.push_back((to, frame.clone()));
    }

    /// The frame to `to` that was sent so many frames ago, counted round and round.
    pub(super) fn frame(&self, to: ReplicaId, ago: u8) -> Option<Bytes> {
        let frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let to: Vec<_> = frames.iter().rev().filter(|(receiver, _)| *receiver == to).collect();
        let at = usize::from(ago) % to.len().max(1);
        to.get(at).map(|(_, frame)| frame.clone())
    }
}

/// A transport with a tape.
pub(super) struct Taped<T> {
    pub(super) inner: T,
    pub(super) tape: Tape,
}

#[async_trait]
impl<T: Transport> Transport for Taped<T> {
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
        self.inner.attach(me).await
    }

    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
        self.tape.note(to, &frame);
        self.inner.send(to, frame).await
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        self.inner.receive().await
    }
}
