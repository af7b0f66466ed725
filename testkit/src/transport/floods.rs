//! Too much: an end that does not read makes nobody wait, costs bounded memory, and starves no other.

use syncline::{Incoming, ReplicaId, Uuid};

use super::subject::{A, B, C, Peer, Subject, frame, name};
use super::{Holds, TransportFixture};

/// The longest frame of a flood.
const FLOOD_FRAME_BYTES_MAX: usize = 1 << 20;

/// The length of frames of which twice as many as the network holds have twice as many bytes as it holds.
fn flood_len(holds: Holds) -> usize {
    (2 * holds.bytes_max / holds.frames_max.max(1)).clamp(8, FLOOD_FRAME_BYTES_MAX)
}

/// Sends twice as many bytes as the network holds, to an end that does not read.
async fn flood_bytes<F: TransportFixture>(from: &Peer<'_, '_, F>, to: ReplicaId, holds: Holds) {
    let frame = frame(1, flood_len(holds));
    for _ in 0..(2 * holds.bytes_max).div_ceil(frame.len()) {
        let _ = from.send(to, &frame).await;
    }
}

/// Goal: `send` neither waits for the peer to read nor for the network, and a queue that is full drops frames and nothing
/// else. Method: twice what the network holds, to an end that does not read; then it reads, and a frame comes through.
///
/// B2.
///
/// # Panics
/// If the transport breaks the property.
pub async fn full_queue_drops<F: TransportFixture>(fixture: &F) {
    const ABSENT: ReplicaId = ReplicaId(Uuid::from_u128(0x10));
    let subject = Subject::new("full_queue_drops", fixture);
    let [a, b] = subject.connected([A, B]).await;
    let _ = a.send(ABSENT, &frame(1, 100)).await;
    flood_bytes(&a, B, fixture.holds()).await;
    for _ in 0..2 * fixture.holds().frames_max {
        let _ = a.send(B, &frame(2, 8)).await;
    }
    b.rest().await;
    a.deliver(&b, &frame(3, 100), "a frame after the flood was read").await;
    b.deliver(&a, &frame(3, 100), "a frame to the one who flooded").await;
}

/// Goal: a network holds what its fixture says and no more, in frames and in bytes. Method: twice as much is sent to an
/// end that does not read; what it then receives is counted.
///
/// B1.
///
/// # Panics
/// If the transport breaks the property.
pub async fn memory_is_bounded<F: TransportFixture>(fixture: &F) {
    let subject = Subject::new("memory_is_bounded", fixture);
    let holds = fixture.holds();
    let [a, b] = subject.connected([A, B]).await;
    let check = |step: &str, heard: Vec<Incoming>| {
        let (mut frames, mut bytes) = (0_usize, 0_usize);
        for incoming in heard {
            if let Incoming::Frame { bytes: frame, .. } = incoming {
                frames += 1;
                bytes += frame.len();
            }
        }
        if frames > holds.frames_max || bytes > holds.bytes_max {
            subject.fail(
                step,
                format_args!("it held {frames} frames of {bytes} bytes; the fixture says {holds:?}"),
            );
        }
        if frames == 0 {
            subject.fail(step, "nothing came of what the network holds");
        }
    };
    flood_bytes(&a, B, holds).await;
    check("twice as many bytes as it holds", b.rest().await);
    for _ in 0..2 * holds.frames_max {
        let _ = a.send(B, &frame(2, 8)).await;
    }
    check("twice as many frames as it holds", b.rest().await);
}

/// Goal: a peer that floods an end keeps no other peer from it. Method: one fills the queue and goes on to send more than
/// the end reads; a frame of another one comes all the same, before the end has read four times what the network holds.
///
/// # Panics
/// If the transport breaks the property.
pub async fn peers_take_turns<F: TransportFixture>(fixture: &F) {
    const BURST: usize = 64;
    const LEN: usize = 1024;
    let subject = Subject::new("peers_take_turns", fixture);
    let [a, b, c] = subject.connected([A, B, C]).await;
    let holds = fixture.holds();
    let held = holds.frames_max.min(holds.bytes_max / LEN);
    // Whoever was attached first, or has the lower id, may be the one who is preferred.
    for (flooding, other) in [(&a, &c), (&c, &a)] {
        for _ in 0..held + BURST {
            let _ = flooding.send(B, &frame(1, LEN)).await;
        }
        let mut read = 0;
        let mut came = false;
        while !came {
            for _ in 0..BURST {
                let _ = flooding.send(B, &frame(1, LEN)).await;
            }
            let _ = other.send(B, &frame(2, LEN)).await;
            for _ in 0..BURST / 2 {
                // Counted also if nothing comes: otherwise a network that has ended would be asked for ever.
                read += 1;
                let Some(incoming) = b.soon().await else { continue };
                came |= matches!(incoming, Incoming::Frame { from, .. } if from == other.me);
            }
            if read > 4 * held + BURST {
                let what = format_args!(
                    "{} read {read} frames, and none of {}, which sent one in each round",
                    name(B),
                    name(other.me)
                );
                subject.fail(format_args!("a flood of {}", name(flooding.me)), what);
            }
        }
        b.rest().await;
    }
}
