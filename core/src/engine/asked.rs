//! A chapter of the engine: what the driver asks of it between two inputs.

use crate::ids::ReplicaId;

use super::{EFFECTS_MAX, Engine};

impl Engine {
    /// From here on, serves only calls of the app: nothing is received, pulled or sent as a page.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// Whether a frame may be handed over: the inbox has room for its commits, and the effects for what it causes.
    pub(crate) fn has_room(&self) -> bool {
        let room = self.inbox.bytes() <= self.context.limits.frame_bytes_max;
        room && self.effects.len() < EFFECTS_MAX && !self.closing
    }

    /// Whether no effect is left to perform: the moment to hand over frames.
    pub(crate) fn is_between_effects(&self) -> bool {
        self.effects.is_empty()
    }

    /// Whether no write is under way either: the moment to hand over calls of the app, and to let other tasks run.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_between_effects() && self.writes.is_idle()
    }

    /// Whether calls of the app wait for their turn.
    pub(crate) fn has_calls(&self) -> bool {
        self.writes.has_calls()
    }

    /// Lets the held commits of a stream through; `false` if the stream is not held.
    pub(crate) fn release_held(&mut self, stream: ReplicaId) -> bool {
        let told = self.streams.release(stream);
        let held = told.is_some();
        self.tell_of_streams(told);
        held
    }
}
