//! What comes: whole frames, up to the longest one, to those who were named, and none lost by a dropped call.

use std::collections::BTreeSet;

use bytes::Bytes;
use syncline::{Incoming, Limits, ReplicaId, Transport as _, Uuid};

use super::TransportFixture;
use super::subject::{A, B, C, D, Subject, frame, name, numbers};
use crate::replica::app::at_most;

/// Goal: a frame that comes is one that was sent. Method: frames of many lengths, alone and many in a row.
///
/// # Panics
/// If the transport breaks the property.
pub async fn frames_come_whole<F: TransportFixture>(fixture: &F) {
    const LENGTHS: [usize; 12] =
        [8, 9, 255, 256, 1_399, 1_500, 16_384, 65_535, 65_536, 65_543, 200_000, 1 << 20];
    let subject = Subject::new("frames_come_whole", fixture);
    let [a, b] = subject.connected([A, B]).await;
    let frames: Vec<_> = (0..).zip(LENGTHS).map(|(number, len)| frame(number, len)).collect();
    let sent: BTreeSet<Bytes> = frames.iter().cloned().collect();
    let check = |heard: Vec<Incoming>, step: &str| {
        for incoming in heard {
            let Incoming::Frame { bytes, .. } = incoming else { continue };
            if !sent.contains(&bytes) {
                let longest = sent.iter().max_by_key(|frame| common(frame, &bytes));
                let (len, common) = longest.map_or((0, 0), |frame| (frame.len(), common(frame, &bytes)));
                let what = format_args!(
                    "a frame of {} bytes came that nobody sent; its first {common} bytes are those of a frame of {len}",
                    bytes.len()
                );
                subject.fail(step, what);
            }
        }
    };
    for _ in 0..4 {
        for frame in frames.iter().filter(|frame| frame.len() <= 16_384) {
            let _ = a.send(B, frame).await;
        }
    }
    check(b.rest().await, "many frames in a row");
    for frame in &frames {
        let _ = b.send(A, frame).await;
        let step = format!("a frame of {} bytes", frame.len());
        // The neighbours of a frame may be cut or joined with it.
        let _ = a.send(B, frame).await;
        let _ = a.send(B, &frames[1]).await;
        check(b.rest().await, &step);
        check(a.deliver(&b, frame, &step).await, &step);
    }
    check(a.rest().await, "the rest");
    check(b.rest().await, "the rest");
}

fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// Goal: the longest frame that a replica sends by default arrives. Method: one each way.
///
/// # Panics
/// If the transport breaks the property.
pub async fn largest_frame_arrives<F: TransportFixture>(fixture: &F) {
    let subject = Subject::new("largest_frame_arrives", fixture);
    let [a, b] = subject.connected([A, B]).await;
    let largest = frame(7, Limits::default().frame_bytes_max);
    a.deliver(&b, &largest, "the largest frame").await;
    b.deliver(&a, &largest, "the largest frame").await;
    // The dropped call leaves nothing behind that keeps the next one.
    a.deliver(&b, &frame(8, 8), "a short frame behind the largest").await;
}

/// Goal: a dropped `receive` loses nothing. Method: frames and news are received by calls of which every other one is
/// dropped after so many polls.
///
/// # Panics
/// If the transport breaks the property.
pub async fn receive_is_cancel_safe<F: TransportFixture>(fixture: &F) {
    const FRAMES: u64 = 32;
    let subject = Subject::new("receive_is_cancel_safe", fixture);
    let [a, b] = subject.connected([A, B]).await;
    for polls in 0..4 {
        let step = format!("every other `receive` is dropped after {polls} polls");
        for number in 0..FRAMES {
            let _ = a.send(B, &frame(number, 100)).await;
        }
        let mut heard = Vec::new();
        loop {
            if let Some(received) = subject.soon(at_most(polls, b.end.receive())).await.flatten() {
                heard.push(b.heard(received));
                continue;
            }
            match b.soon().await {
                Some(incoming) => heard.push(incoming),
                None => break,
            }
        }
        let came: BTreeSet<u64> = numbers(A, &heard).collect();
        let lost: Vec<_> = (0..FRAMES).filter(|number| !came.contains(number)).collect();
        if !lost.is_empty() {
            subject.fail(
                &step,
                format_args!(
                    "of {FRAMES} frames, these never came although nothing floods the network: {lost:?}"
                ),
            );
        }

        let c = subject.attached(C).await;
        while !b.is_up(C) {
            match subject.soon(at_most(polls, b.end.receive())).await.flatten() {
                Some(received) => drop(b.heard(received)),
                None => drop(b.next(format_args!("{step}: `Up` of {}", name(C))).await),
            }
        }
        drop(c);
        while b.is_up(C) {
            match subject.soon(at_most(polls, b.end.receive())).await.flatten() {
                Some(received) => drop(b.heard(received)),
                None => drop(b.next(format_args!("{step}: `Down` of {}", name(C))).await),
            }
        }
        while a.soon().await.is_some() {}
    }
}

/// Goal: `broadcast` reaches those who are named, and nobody else. Method: four ends, two of them named, also beside one
/// that is not there.
///
/// # Panics
/// If the transport breaks the property.
pub async fn broadcast_reaches_the_named_and_no_other<F: TransportFixture>(fixture: &F) {
    const ABSENT: ReplicaId = ReplicaId(Uuid::from_u128(0x10));
    const TRIES: u64 = 20;
    let subject = Subject::new("broadcast_reaches_the_named_and_no_other", fixture);
    let [a, b, c, d] = subject.connected([A, B, C, D]).await;
    for named in [&[B, C][..], &[ABSENT, B, C], &[C, ABSENT, B]] {
        let names = named.iter().map(|replica| name(*replica)).collect::<Vec<_>>().join(", ");
        let step = format!("a broadcast to {names}");
        let mut missing = BTreeSet::from([B, C]);
        for number in 0..TRIES {
            let call = a.end.broadcast(named, frame(number, 500));
            let _ = subject.within(format_args!("the return of {step}"), call).await;
            for (me, at) in [(B, &b), (C, &c)] {
                if numbers(A, &at.rest().await).any(|came| came < TRIES) {
                    missing.remove(&me);
                }
            }
            if missing.is_empty() {
                break;
            }
        }
        if !missing.is_empty() {
            subject.fail(
                &step,
                format_args!(
                    "it did not come to {}, sent {TRIES} times",
                    name(missing.first().copied().unwrap_or(B))
                ),
            );
        }
        // What is sent to `d` by name comes behind whatever else was sent there.
        let mut heard = a.deliver(&d, &frame(100, 500), "a frame behind the broadcast").await;
        heard.extend(d.rest().await);
        if numbers(A, &heard).any(|came| came < TRIES) {
            subject.fail(
                &step,
                format_args!("it came to {}, which was not named and may be a stranger", name(D)),
            );
        }
    }
}
