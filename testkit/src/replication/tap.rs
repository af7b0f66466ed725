//! A transport that remembers what was sent, so that a scenario can send it again, or something like it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use syncline::{Incoming, ReplicaId, Transport, TransportError};

/// The frames that a replica sent. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tap(Arc<Mutex<Vec<Bytes>>>);

/// Enough for every kind of frame.
const FRAMES_MAX: usize = 4096;

impl Tap {
    pub(super) fn frames(&self) -> Vec<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, frame: &Bytes) {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() < FRAMES_MAX {
            frames.push(frame.clone());
        }
    }
}

/// A transport with a tap.
pub(super) struct Tapped<T> {
    inner: T,
    tap: Tap,
}

impl<T> Tapped<T> {
    pub(super) const fn new(inner: T, tap: Tap) -> Self {
        Self { inner, tap }
    }
}

#[async_trait]
impl<T: Transport> Transport for Tapped<T> {
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
        self.inner.attach(me).await
    }

    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
        self.tap.note(&frame);
        self.inner.send(to, frame).await
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        self.inner.receive().await
    }
}
