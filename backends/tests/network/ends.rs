//! The frames that an end receives, and when it is woken; the limits of its queue; the counters.

use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use syncline::{Clock, ClockError, Incoming, Mono, Transport, TransportError, WallMs};
use syncline_backends::{Link, MemoryNetwork, Traffic};
use syncline_testkit::{ManualClock, poll_at_most};

use crate::support::*;

#[test]
fn what_arrives_ends_the_wait_for_what_is_due_later() {
    let network = MemoryNetwork::builder().clock(Stopped::default()).build();
    let [a, b, c] = ends(&network, [A, B, C]);
    network.set(A, C, Link { delay_ms: 10..=10, ..Link::default() });
    now(a.send(C, numbered(1))).unwrap();
    let (woken, waker) = woken();
    let mut receive = pin!(c.receive());
    assert!(receive.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    now(b.send(C, numbered(2))).unwrap();
    assert_eq!(woken.0.load(SeqCst), 1);
    let Poll::Ready(found) = receive.poll(&mut Context::from_waker(&waker)) else { panic!("it is there") };
    assert_eq!(found.unwrap(), frame(B, 2));
}

#[test]
fn what_arrives_wakes_who_waits_for_it() {
    let network = MemoryNetwork::new();
    let [a, b] = ends(&network, [A, B]);
    let arrivals: [(&dyn Fn(), Incoming); 4] = [
        (&|| now(a.send(B, numbered(1))).unwrap(), frame(A, 1)),
        (&|| network.inject(C, B, numbered(2)).unwrap(), frame(C, 2)),
        (&|| network.disconnect(A, B), Incoming::Down(A)),
        (&|| network.connect(A, B), Incoming::Up(A)),
    ];
    for (arrive, expected) in arrivals {
        let (woken, waker) = woken();
        let mut receive = pin!(b.receive());
        assert!(receive.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        arrive();
        assert_eq!(woken.0.load(SeqCst), 1, "{expected:?}");
        assert_eq!(now(receive).unwrap(), expected);
    }
}

#[test]
fn a_full_queue_drops_and_counts_until_there_is_room() {
    let (frames, bytes) =
        (MemoryNetwork::builder().queue_frames_max(3), MemoryNetwork::builder().queue_bytes_max(24));
    for network in [frames.build(), bytes.build()] {
        let [a, b, c] = ends(&network, [A, B, C]);
        for n in 0..5 {
            now(a.broadcast(&[B, C], numbered(n))).unwrap();
        }
        assert_eq!(network.traffic(A, B).dropped_frames, 2);
        assert_eq!(now(b.receive()).unwrap(), frame(A, 0));
        now(c.send(B, numbered(5))).unwrap();
        now(c.send(B, numbered(6))).unwrap();
        assert_eq!(network.traffic(C, B).dropped_frames, 1, "the queue is shared by all peers");
        assert_eq!(news_and_frames(&b), [frame(A, 1), frame(A, 2), frame(C, 5)]);
        // A disconnection drops frames from the queue, which makes room too.
        network.disconnect(A, C);
        assert!(news_and_frames(&c).contains(&Incoming::Down(A)));
        (0..3).for_each(|n| now(b.send(C, numbered(n))).unwrap());
        assert_eq!(news_and_frames(&c).len(), 3);
    }
    let network = MemoryNetwork::builder().queue_bytes_max(24).build();
    let [a, b] = ends(&network, [A, B]);
    now(a.send(B, Bytes::from(vec![0; 25]))).unwrap();
    now(a.send(B, Bytes::from(vec![0; 24]))).unwrap();
    assert_eq!(bytes_from(A, &b).len(), 1);
}

#[test]
fn a_queue_holds_1024_frames_and_64_mebibytes_unless_told_otherwise() {
    let network = MemoryNetwork::new();
    let [a, b] = ends(&network, [A, B]);
    for n in 0..1030 {
        now(a.send(B, numbered(n))).unwrap();
    }
    assert_eq!((network.traffic(A, B).dropped_frames, bytes_from(A, &b).len()), (6, 1024));
    let mebibyte = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..65 {
        now(a.send(B, mebibyte.clone())).unwrap();
    }
    assert_eq!(bytes_from(A, &b).len(), 64);
}

#[test]
fn a_receive_that_is_dropped_loses_nothing() {
    for polls in 0..4 {
        let clock = Patient(ManualClock::at(0));
        let network = MemoryNetwork::builder().clock(clock.clone()).build();
        let [a, b] = ends(&network, [A, B]);
        network.set(A, B, Link { delay_ms: 10..=10, ..Link::default() });
        for n in 0..3 {
            now(a.send(B, numbered(n))).unwrap();
        }
        let mut found = Vec::new();
        for _ in 0..20 {
            if found.len() < 3 {
                found.extend(poll_at_most(polls, b.receive()).map(Result::unwrap));
            }
            assert_eq!(network.traffic(A, B).delivered_frames, found.len() as u64, "{polls} polls");
            // Moves the clock also if the receive was dropped before it slept.
            clock.0.advance(1);
        }
        found.extend(news_and_frames(&b));
        assert_eq!(found, [frame(A, 0), frame(A, 1), frame(A, 2)], "{polls} polls");
    }
}

#[test]
fn traffic_is_counted_exactly() {
    let network = MemoryNetwork::new();
    let [a, b, c] = ends(&network, [A, B, C]);
    network.set(A, C, Link { duplicate: 1.0, ..Link::default() });
    network.set(B, A, Link { blocked: true, ..Link::default() });
    now(a.broadcast(&[B, C], Bytes::from_static(b"four"))).unwrap();
    now(a.send(B, Bytes::from_static(b"seventy"))).unwrap();
    now(b.send(A, Bytes::from_static(b"lost"))).unwrap();
    now(b.receive()).unwrap();
    heard(&c);
    network.disconnect(B, C);
    now(c.send(B, Bytes::new())).unwrap_err();

    let a_to_b = Traffic {
        sent_frames: 2,
        sent_bytes: 11,
        delivered_frames: 1,
        delivered_bytes: 4,
        dropped_frames: 0,
    };
    let a_to_c = Traffic { sent_frames: 1, sent_bytes: 4, delivered_frames: 2, delivered_bytes: 8, ..a_to_b };
    let b_to_a = Traffic { sent_frames: 1, sent_bytes: 4, dropped_frames: 1, ..Traffic::default() };
    assert_eq!(network.traffic(A, B), a_to_b);
    assert_eq!(network.traffic(A, C), a_to_c);
    assert_eq!(network.traffic(B, A), b_to_a);
    assert_eq!(network.traffic(C, B), Traffic::default(), "what was refused was not sent");
    let total = Traffic {
        sent_frames: 4,
        sent_bytes: 19,
        delivered_frames: 3,
        delivered_bytes: 12,
        dropped_frames: 1,
    };
    assert_eq!(network.total(), total);

    network.reset_traffic();
    assert_eq!(network.total(), Traffic::default());
    heard(&b);
    let arrived = Traffic { delivered_frames: 1, delivered_bytes: 7, ..Traffic::default() };
    assert_eq!((network.traffic(A, B), network.total()), (arrived, arrived));
}

/// Goal: who fills a queue loses the room and not the others. Method: a flood in frames and one in bytes, with a frame
/// of another peer at the end of each.
#[test]
fn a_flood_keeps_no_other_peer_from_an_end() {
    let (frames, bytes) =
        (MemoryNetwork::builder().queue_frames_max(3), MemoryNetwork::builder().queue_bytes_max(24));
    for network in [frames.build(), bytes.build()] {
        let [a, b, c] = ends(&network, [A, B, C]);
        for n in 0..5 {
            now(a.send(B, numbered(n))).unwrap();
        }
        for n in 0..3 {
            now(c.send(B, numbered(n))).unwrap();
        }
        assert_eq!(
            news_and_frames(&b),
            [frame(A, 0), frame(A, 1), frame(C, 0)],
            "two thirds are a's, one is c's"
        );
        assert_eq!((network.traffic(A, B).dropped_frames, network.traffic(C, B).dropped_frames), (3, 2));
        now(a.send(B, numbered(9))).unwrap();
        assert_eq!(news_and_frames(&b), [frame(A, 9)], "there is room again");
    }
}

#[test]
fn bytes_are_injected_in_the_name_of_anyone() {
    let network = MemoryNetwork::builder().queue_frames_max(2).build();
    let [a, b] = ends(&network, [A, B]);
    network.set_all(Link { loss: 1.0, blocked: true, ..Link::default() });
    network.inject(A, B, numbered(1)).unwrap();
    network.inject(C, B, numbered(2)).unwrap();
    network.inject(C, B, numbered(3)).unwrap();
    assert_eq!(
        news_and_frames(&b),
        [frame(A, 1), frame(C, 2)],
        "no link is in between, but the queue is bounded"
    );
    let from_c = Traffic {
        sent_frames: 2,
        sent_bytes: 16,
        delivered_frames: 1,
        delivered_bytes: 8,
        dropped_frames: 1,
    };
    assert_eq!(network.traffic(C, B), from_c);
    assert!(matches!(network.inject(A, C, numbered(4)), Err(TransportError::Unreachable(C))));
    assert_eq!(network.traffic(A, C), Traffic::default());
    assert_eq!(news_and_frames(&a), []);
}

#[test]
fn a_clone_is_the_same_network() {
    let network = MemoryNetwork::default();
    let [a, b] = [network.transport(), network.clone().transport()];
    now(a.attach(A)).unwrap();
    now(b.attach(B)).unwrap();
    assert_eq!(news_and_frames(&a), [Incoming::Up(B)]);
    assert_eq!(news_and_frames(&b), [Incoming::Up(A)]);
}

/// A clock whose sleep returns `Pending` once, and ends after half its time: places where a receive can be dropped.
#[derive(Clone)]
struct Patient(ManualClock);

#[async_trait]
impl Clock for Patient {
    fn wall(&self) -> Result<WallMs, ClockError> {
        self.0.wall()
    }

    fn mono(&self) -> Mono {
        self.0.mono()
    }

    async fn sleep(&self, duration: Duration) {
        let mut gave_way = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut gave_way, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        // The sleep ends early, but takes a millisecond at least, so that the time comes for every frame.
        self.0.sleep((duration / 2).max(Duration::from_millis(1))).await;
    }
}
