//! Live: the own commits that were sent as they were made, as far back as a page reaches.
//!
//! A peer on a slow link acknowledges late. What it has not acknowledged lies in the queue of its transport, and what
//! does not fit there is lost. So live commits wait for a peer that is more than a page behind: it pulls them.
//!
//! Owns: the frames of the last commits, by place and length. Holds always: they follow each other, and all but the last
//! of them have no more bytes than the limit.

use std::collections::VecDeque;

use super::Machine;

/// The frames of the last own commits.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The last commit before each frame, and the bytes of the frame.
    frames: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Live {
    /// Takes note of a frame with the commits behind `before`, where so many bytes may be on their way.
    pub(super) fn sent(&mut self, before: u64, bytes: usize, max: usize) {
        self.frames.push_back((before, bytes));
        self.bytes += bytes;
        while self.bytes > max && self.frames.len() > 1 {
            self.bytes -= self.frames.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// The commit that a peer must have, so that it is no more than a page behind.
    pub(super) fn floor(&self) -> u64 {
        self.frames.front().map_or(0, |(before, _)| *before)
    }
}

impl Machine for Live {
    fn check(&self) {
        assert_eq!(self.bytes, self.frames.iter().map(|(_, bytes)| bytes).sum::<usize>());
        assert!(self.frames.iter().is_sorted_by(|one, next| one.0 < next.0), "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_may_be_a_page_behind_and_one_frame_at_least() {
        let mut live = Live::default();
        let mut floor = |before, bytes| {
            live.sent(before, bytes, 100);
            live.check();
            live.floor()
        };
        assert_eq!(floor(0, 60), 0);
        assert_eq!(floor(1, 40), 0);
        assert_eq!(floor(2, 1), 1);
        assert_eq!(floor(5, 500), 5, "it is longer than a page");
        assert_eq!(floor(6, 50), 6);
    }
}
