//! The line: the transport that brings frames, and the clock that says when they came.

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::FutureExt;

use crate::clock::{Clock, Now};
use crate::engine::{Engine, Input};
use crate::error::panic_message;
use crate::events::{Event, Notice};
use crate::transport::{Incoming, Transport, TransportError};

use super::channels::Channels;
use super::trace;

/// Reads the wall clock and the timer.
pub(crate) fn read_clock(clock: &dyn Clock) -> Now {
    Now { wall: clock.wall(), mono: clock.mono() }
}

/// The transport that brings frames, and the clock that says when they came.
pub(super) struct Line {
    pub(super) clock: Arc<dyn Clock>,
    /// The transport; `None` if the store was opened without one, and once it has ended.
    pub(super) transport: Option<Arc<dyn Transport>>,
}

impl Line {
    pub(super) fn now(&self) -> Now {
        read_clock(&*self.clock)
    }

    /// Waits for the transport to bring something; for ever while the engine has no room for more commits.
    pub(super) async fn receive(&self, has_room: bool) -> Result<Incoming, TransportError> {
        match self.transport.as_deref().filter(|_| has_room) {
            Some(transport) => unless_it_panics(async { transport.receive().await }).await.flatten(),
            None => pending().await,
        }
    }

    pub(super) fn take<S>(
        &mut self,
        incoming: Result<Incoming, TransportError>,
        engine: &mut Engine,
        channels: &Channels<S>,
    ) {
        let input = match incoming {
            Ok(Incoming::Frame { from, bytes }) => Input::Frame(from, bytes),
            Ok(Incoming::Up(peer)) => {
                trace::peer(engine.me(), peer, true);
                Input::Up(peer)
            }
            Ok(Incoming::Down(peer)) => {
                trace::peer(engine.me(), peer, false);
                Input::Down(peer)
            }
            Err(error) => return self.lost(&error, engine, channels),
        };
        engine.handle(self.now(), input);
    }

    /// Goes on without the transport, which has ended.
    pub(super) fn lost<S>(&mut self, error: &TransportError, engine: &mut Engine, channels: &Channels<S>) {
        let Some(transport) = self.transport.take() else { return };
        // Dropping what has panicked may panic again.
        drop(catch_unwind(AssertUnwindSafe(|| drop(transport))));
        engine.handle(self.now(), Input::Offline);
        let notice = Notice::from([Event::TransportLost { error: error.to_string() }]);
        trace::notice(engine.me(), &notice);
        channels.notify(notice);
    }
}

/// Waits for a call of the transport, which is code of the app or of others.
///
/// # Errors
/// A transport that panicked is in no known state: it has ended.
pub(super) async fn unless_it_panics<T>(call: impl Future<Output = T>) -> Result<T, TransportError> {
    let ended = AssertUnwindSafe(call).catch_unwind().await;
    ended.map_err(|panic| TransportError::closed(format!("it panicked: {}", panic_message(&*panic))))
}
