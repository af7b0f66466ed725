//! One direction between two replicas: how bad it is, and what that does to a frame.

use std::ops::RangeInclusive;

use bytes::Bytes;
use fastrand::Rng;

/// A length that a transport may well hold for a peer that is slow to reach.
const QUEUE_BYTES_DEFAULT: usize = 1 << 20;

/// How one replica reaches another: one direction. The default is perfect.
///
/// Chances lie between 0, never, and 1, always. A range that ends before it starts is its start.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The chance that a frame is lost.
    pub loss: f64,
    /// The chance that a frame comes twice.
    pub duplicate: f64,
    /// How much later than usual the second copy comes: later than the peer remembers the first one, for instance.
    pub duplicate_delay_ms: RangeInclusive<u64>,
    /// The chance that a frame changes places with another one that is still under way on this link.
    ///
    /// There is another one as long as the peer does not read, or if the link delays.
    pub reorder: f64,
    /// The chance that a frame arrives cut off or with a wrong byte. An empty frame has nothing to damage.
    pub corrupt: f64,
    /// How long frames take. Those that draw different delays overtake each other.
    pub delay_ms: RangeInclusive<u64>,
    /// How many bytes pass in a second; without a number, any. Frames then leave one behind the other, and each takes its
    /// delay once its last byte has left. A frame that the link loses takes its time all the same. 0 counts as 1.
    pub bytes_a_second: Option<u64>,
    /// How many bytes wait to leave when the queue is full, if the link has a rate. A frame that finds it full is dropped, as
    /// the contract of a transport allows; any other is taken, however long it is.
    pub queue_bytes_max: usize,
    /// Whether every frame is lost, and neither replica is told. Such a frame takes no time.
    pub blocked: bool,
}

impl Link {
    pub(super) fn delays(&self) -> bool {
        let waits = [&self.delay_ms, &self.duplicate_delay_ms];
        self.bytes_a_second.is_some() || waits.into_iter().any(|ms| (*ms.start()).max(*ms.end()) > 0)
    }
}

impl Default for Link {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            duplicate_delay_ms: 0..=0,
            reorder: 0.0,
            corrupt: 0.0,
            delay_ms: 0..=0,
            bytes_a_second: None,
            queue_bytes_max: QUEUE_BYTES_DEFAULT,
            blocked: false,
        }
    }
}

pub(super) fn chance(random: &mut Rng, chance: f64) -> bool {
    random.f64() < chance
}

pub(super) fn within(random: &mut Rng, ms: &RangeInclusive<u64>) -> u64 {
    ms.start().saturating_add(random.u64(0..=ms.end().saturating_sub(*ms.start())))
}

/// A copy of `bytes` that is cut off or has one wrong byte. The original stays whole: other receivers share it.
pub(super) fn damaged(bytes: &Bytes, random: &mut Rng) -> Bytes {
    if bytes.is_empty() {
        return bytes.clone();
    }
    let at = random.usize(..bytes.len());
    if random.bool() {
        return bytes.slice(..at);
    }
    let mut copy = bytes.to_vec();
    if let Some(byte) = copy.get_mut(at) {
        *byte ^= random.u8(1..);
    }
    copy.into()
}
