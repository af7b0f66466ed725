//! A transport that remembers the frames it has sent, so that a test can replay or damage one at any later time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use syncline::{Incoming, ReplicaId, Transport, TransportError};

/// How many frames of a replica are remembered: enough to have some of every kind.
const FRAMES_MAX: usize = 4096;

/// The last frames that a replica has sent, with their receivers. Clones share them, and they outlive its process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tap(Arc<Mutex<VecDeque<(ReplicaId, Bytes)>>>);

impl Tap {
    pub(crate) fn frames(&self) -> Vec<Bytes> {
        let frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frames.iter().map(|(_, frame)| frame.clone()).collect()
    }

    /// Forgets all frames so far.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The frame that was sent to `to` so many frames ago. If there are not so many, the count begins anew.
    pub(crate) fn frame(&self, to: ReplicaId, ago: u8) -> Option<Bytes> {
        let frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let to: Vec<_> = frames.iter().rev().filter(|(receiver, _)| *receiver == to).collect();
        let at = usize::from(ago) % to.len().max(1);
        to.get(at).map(|(_, frame)| frame.clone())
    }

    fn note(&self, to: ReplicaId, frame: &Bytes) {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() == FRAMES_MAX {
            frames.pop_front();
        }
        frames.push_back((to, frame.clone()));
    }
}

/// A transport that adds every frame it sends to a [`Tap`].
pub(crate) struct Tapped<T> {
    inner: T,
    tap: Tap,
}

impl<T> Tapped<T> {
    pub(crate) const fn new(inner: T, tap: Tap) -> Self {
        Self { inner, tap }
    }
}

#[async_trait]
impl<T: Transport> Transport for Tapped<T> {
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
        self.inner.attach(me).await
    }

    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
        self.tap.note(to, &frame);
        self.inner.send(to, frame).await
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        self.inner.receive().await
    }
}
