//! Links with a rate: frames wait behind each other, in a queue that fills.

use bytes::Bytes;
use syncline::{Clock, Mono, Transport};
use syncline_backends::{Link, MemoryNetwork};
use syncline_testkit::ManualClock;

use crate::support::*;

/// A link of 1,000 bytes a second, on which a frame of eight bytes takes 8 ms.
fn slow() -> Link {
    Link { bytes_a_second: Some(1_000), ..Link::default() }
}

#[test]
fn frames_wait_behind_each_other_and_then_take_their_delay() {
    let clock = ManualClock::at(0);
    let network = MemoryNetwork::builder().clock(clock.clone()).build();
    let [a, b] = ends(&network, [A, B]);
    network.set(A, B, Link { delay_ms: 30..=30, ..slow() });
    let mut times = Vec::new();
    for n in 0..3 {
        now(a.send(B, numbered(n))).unwrap();
    }
    for n in 0..3 {
        assert_eq!(now(b.receive()).unwrap(), frame(A, n));
        times.push(clock.mono().0);
    }
    assert_eq!(times, [38, 46, 54]);
    now(a.send(B, numbered(3))).unwrap();
    now(b.receive()).unwrap();
    assert_eq!(clock.mono(), Mono(54 + 38), "nothing waited any more");
}

#[test]
fn each_direction_and_each_pair_has_a_wire_of_its_own() {
    let clock = ManualClock::at(0);
    let network = MemoryNetwork::builder().clock(clock.clone()).build();
    let [a, b, c] = ends(&network, [A, B, C]);
    network.set_all(slow());
    network.set(B, A, Link { bytes_a_second: Some(8_000), ..Link::default() });
    now(a.broadcast(&[B, C], numbered(1))).unwrap();
    now(b.send(A, numbered(2))).unwrap();
    now(a.receive()).unwrap();
    assert_eq!(clock.mono(), Mono(1));
    now(b.receive()).unwrap();
    now(c.receive()).unwrap();
    assert_eq!(clock.mono(), Mono(8));
}

#[test]
fn a_full_queue_drops_what_comes_and_counts_it() {
    let clock = ManualClock::at(0);
    let network = MemoryNetwork::builder().clock(clock.clone()).build();
    let [a, b] = ends(&network, [A, B]);
    network.set(A, B, Link { queue_bytes_max: 16, ..slow() });
    for n in 0..4 {
        now(a.send(B, numbered(n))).unwrap();
    }
    assert_eq!(network.traffic(A, B).dropped_frames, 2, "two of eight bytes fill 16");
    clock.advance(8);
    now(a.send(B, numbered(4))).unwrap();
    assert_eq!(numbers(&bytes_from(A, &b)), [0, 1, 4]);
    now(a.send(B, Bytes::from(vec![0; 100]))).unwrap();
    assert_eq!(bytes_from(A, &b).len(), 1, "a frame that finds the queue not full is taken");
    let traffic = network.traffic(A, B);
    assert_eq!((traffic.sent_frames, traffic.sent_bytes, traffic.dropped_frames), (6, 140, 2));
}

#[test]
fn a_frame_that_is_lost_has_taken_its_time() {
    let clock = ManualClock::at(0);
    let network = MemoryNetwork::builder().clock(clock.clone()).build();
    let [a, b] = ends(&network, [A, B]);
    network.set(A, B, Link { loss: 1.0, ..slow() });
    now(a.send(B, numbered(1))).unwrap();
    network.set(A, B, slow());
    now(a.send(B, numbered(2))).unwrap();
    assert_eq!((now(b.receive()).unwrap(), clock.mono()), (frame(A, 2), Mono(16)));
}

/// Frames that are sent into a partition pile up nowhere: once it ends, others pass as on a free link.
#[test]
fn a_frame_that_is_blocked_takes_no_time() {
    let clock = ManualClock::at(0);
    let network = MemoryNetwork::builder().clock(clock.clone()).build();
    let [a, b] = ends(&network, [A, B]);
    network.set(A, B, Link { blocked: true, ..slow() });
    now(a.send(B, Bytes::from(vec![0; 5_000]))).unwrap();
    network.set(A, B, slow());
    now(a.send(B, numbered(1))).unwrap();
    assert_eq!((now(b.receive()).unwrap(), clock.mono()), (frame(A, 1), Mono(8)));
}

#[test]
fn a_new_connection_begins_with_a_free_wire() {
    let clock = ManualClock::at(0);
    let network = MemoryNetwork::builder().clock(clock.clone()).build();
    let [a, b] = ends(&network, [A, B]);
    network.set(A, B, slow());
    now(a.send(B, Bytes::from(vec![0; 5_000]))).unwrap();
    network.disconnect(A, B);
    network.connect(A, B);
    now(a.send(B, numbered(1))).unwrap();
    assert_eq!((numbers(&bytes_from(A, &b)), clock.mono()), (vec![1], Mono(8)));
}
