//! The counters of a link.

use bytes::Bytes;

/// The frames and bytes that passed on a link, or on all of them.
///
/// A frame that comes twice is sent once; each copy is delivered or dropped for itself. A copy that is neither is still
/// under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames handed over, without those refused as
    /// [`TransportError::Unreachable`](syncline::TransportError::Unreachable).
    pub sent_frames: u64,
    /// The bytes of the sent frames.
    pub sent_bytes: u64,
    /// Frames that [`receive`](syncline::Transport::receive) returned.
    pub delivered_frames: u64,
    /// The bytes of the delivered frames, as they arrived.
    pub delivered_bytes: u64,
    /// Frames that will never arrive: lost, blocked, cut off with their connection, or too many for the queue.
    pub dropped_frames: u64,
}

impl Traffic {
    pub(super) fn sent(&mut self, bytes: &Bytes) {
        self.sent_frames += 1;
        self.sent_bytes += bytes.len() as u64;
    }

    pub(super) fn delivered(&mut self, bytes: &Bytes) {
        self.delivered_frames += 1;
        self.delivered_bytes += bytes.len() as u64;
    }

    pub(super) fn dropped(&mut self, frames: u64) {
        self.dropped_frames += frames;
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            sent_frames: self.sent_frames + other.sent_frames,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            delivered_frames: self.delivered_frames + other.delivered_frames,
            delivered_bytes: self.delivered_bytes + other.delivered_bytes,
            dropped_frames: self.dropped_frames + other.dropped_frames,
        }
    }
}
