//! Goal: a `MemoryNetwork` does to frames what it was told, nothing else, and the same for the same seed. Method:
//! numbered frames between ends that are polled by hand, on a clock that moves when somebody sleeps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use syncline::{Clock, ClockError, Incoming, Mono, ReplicaId, Transport, TransportError, WallMs};
use syncline_backends::{Link, MemoryNetwork, MemoryTransport, Traffic};
use syncline_testkit::{ManualClock, poll_at_most};

const A: ReplicaId = ReplicaId::from_bytes([0xA; 16]);
const B: ReplicaId = ReplicaId::from_bytes([0xB; 16]);
const C: ReplicaId = ReplicaId::from_bytes([0xC; 16]);

#[test]
fn a_perfect_link_keeps_the_order_and_shares_the_bytes() {
    let network = MemoryNetwork::new();
    let [a, b, c] = ends(&network, [A, B, C]);
    let frames: Vec<Bytes> = (0..100).map(numbered).collect();
    for frame in &frames {
        now(a.broadcast(&[B, C], frame.clone())).unwrap();
    }
    for receiver in [&b, &c] {
        let found = bytes_from(A, receiver);
        assert_eq!(found, frames);
        assert!(found.iter().zip(&frames).all(|(found, sent)| found.as_ptr() == sent.as_ptr()));
    }
    assert!(heard(&a).is_empty(), "nobody hears itself");
}

#[test]
fn loss_takes_about_its_share_and_the_same_frames_for_the_same_seed() {
    let link = Link { loss: 0.3, ..Link::default() };
    let found = numbers(&run(7, link.clone()));
    assert!((600..=800).contains(&found.len()), "{}", found.len());
    assert!(found.is_sorted_by(|a, b| a < b), "what is not lost is in order and comes once");
    assert_repeatable(&link);
}

#[test]
fn a_chance_of_zero_never_happens_and_a_chance_of_one_always() {
    assert_eq!(numbers(&run(7, Link::default())), (0..FRAMES).collect::<Vec<_>>());
    assert!(run(7, Link { loss: 1.0, ..Link::default() }).is_empty());
    let twice = numbers(&run(7, Link { duplicate: 1.0, ..Link::default() }));
    assert_eq!(twice, (0..FRAMES).flat_map(|n| [n, n]).collect::<Vec<_>>());
}

#[test]
fn duplicates_come_twice_and_the_same_ones_for_the_same_seed() {
    let link = Link { duplicate: 0.3, ..Link::default() };
    let mut found = numbers(&run(7, link.clone()));
    assert!((1200..=1400).contains(&found.len()), "{}", found.len());
    found.dedup();
    assert_eq!(found, (0..FRAMES).collect::<Vec<_>>());
    assert_repeatable(&link);
}

#[test]
fn a_duplicate_may_come_much_later() {
    let clock = ManualClock::at(0);
    let network = MemoryNetwork::builder().clock(clock.clone()).build();
    let [a, b] = ends(&network, [A, B]);
    network.set(A, B, Link { duplicate: 1.0, duplicate_delay_ms: 60_000..=60_000, ..Link::default() });
    now(a.send(B, numbered(1))).unwrap();
    assert_eq!(now(b.receive()).unwrap(), frame(A, 1));
    assert_eq!(clock.mono(), Mono(0));
    network.set(A, B, Link::default());
    now(a.send(B, numbered(2))).unwrap();
    assert_eq!(now(b.receive()).unwrap(), frame(A, 2));
    assert_eq!(now(b.receive()).unwrap(), frame(A, 1));
    assert_eq!(clock.mono(), Mono(60_000));
}

#[test]
fn reordered_frames_all_come_and_in_the_same_order_for_the_same_seed() {
    let link = Link { reorder: 0.1, ..Link::default() };
    let mut found = numbers(&run(7, link.clone()));
    let behind = found.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!((100..=300).contains(&behind), "{behind}");
    found.sort_unstable();
    assert_eq!(found, (0..FRAMES).collect::<Vec<_>>());
    assert_repeatable(&link);
}

#[test]
fn reordering_leaves_other_links_alone() {
    let network = MemoryNetwork::new();
    let [a, b, c] = ends(&network, [A, B, C]);
    network.set(A, C, Link { reorder: 1.0, ..Link::default() });
    for n in 0..100 {
        now(a.send(C, numbered(n))).unwrap();
        now(b.send(C, numbered(n))).unwrap();
    }
    let found = heard(&c);
    let from = |peer| found.iter().filter(move |(from, _)| *from == peer).map(|(_, bytes)| bytes.clone());
    assert_eq!(numbers(&from(B).collect::<Vec<_>>()), (0..100).collect::<Vec<_>>());
    assert!(!numbers(&from(A).collect::<Vec<_>>()).is_sorted());
    // Frames of a link trade places among themselves: the other link's stand where they stood.
    assert!(found.iter().map(|(from, _)| *from).eq((0..200).map(|n| if n % 2 == 0 { A } else { B })));
}

#[test]
fn corrupt_frames_are_cut_off_or_have_one_wrong_byte_and_the_same_for_the_same_seed() {
    let link = Link { corrupt: 0.5, ..Link::default() };
    let (mut cut, mut flipped, mut whole) = (0, 0, 0);
    for (sent, found) in (0..FRAMES).map(numbered).zip(run(7, link.clone())) {
        match sent.iter().zip(&found).filter(|(sent, found)| sent != found).count() {
            0 if found == sent => whole += 1,
            0 if found.len() < sent.len() => cut += 1,
            1 if found.len() == sent.len() => flipped += 1,
            _ => panic!("{sent:?} became {found:?}"),
        }
    }
    assert!((400..=600).contains(&whole), "{whole}");
    assert!(cut > 200 && flipped > 200, "{cut} cut off, {flipped} flipped");
    assert_repeatable(&link);
}

#[test]
fn a_corrupt_copy_harms_neither_the_other_copies_nor_the_sender_s() {
    let network = MemoryNetwork::new();
    let [a, b, c] = ends(&network, [A, B, C]);
    network.set(A, B, Link { corrupt: 1.0, ..Link::default() });
    let sent = numbered(5);
    now(a.broadcast(&[B, C], sent.clone())).unwrap();
    now(a.send(B, Bytes::new())).unwrap();
    assert_eq!(bytes_from(A, &c), [numbered(5)]);
    assert_eq!(sent, numbered(5));
    let found = bytes_from(A, &b);
    assert_ne!(found[0], sent);
    assert!(found[1].is_empty(), "an empty frame has nothing to damage");
}

#[test]
fn delayed_frames_come_when_they_are_due_and_the_same_for_the_same_seed() {
    let clock = ManualClock::at(0);
    let network = MemoryNetwork::builder().clock(clock.clone()).build();
    let [a, b] = ends(&network, [A, B]);
    network.set(A, B, Link { delay_ms: 30..=30, ..Link::default() });
    now(a.send(B, numbered(1))).unwrap();
    clock.advance(20);
    now(a.send(B, numbered(2))).unwrap();
    assert_eq!((now(b.receive()).unwrap(), clock.mono()), (frame(A, 1), Mono(30)));
    assert_eq!((now(b.receive()).unwrap(), clock.mono()), (frame(A, 2), Mono(50)));

    let link = Link { delay_ms: 10..=90, ..Link::default() };
    let mut found = numbers(&run(7, link.clone()));
    assert!(!found.is_sorted(), "those with a short delay overtake");
    found.sort_unstable();
    assert_eq!(found, (0..FRAMES).collect::<Vec<_>>());
    assert_repeatable(&link);
}

#[test]
fn delays_stay_in_their_range_and_a_backward_one_is_its_start() {
    for (delay_ms, expected) in [(10..=12, 10..=12), (u64::MAX..=u64::MAX, u64::MAX..=u64::MAX)] {
        assert_delays(&Link { delay_ms, ..Link::default() }, &expected);
    }
    #[allow(clippy::reversed_empty_ranges, reason = "it is what an app could write")]
    assert_delays(&Link { delay_ms: 12..=10, ..Link::default() }, &(12..=12));
}

#[test]
fn a_frame_without_delay_comes_after_those_that_have_become_due() {
    let clock = ManualClock::at(0);
    let network = MemoryNetwork::builder().clock(clock.clone()).build();
    let [a, b, c] = ends(&network, [A, B, C]);
    network.set(A, C, Link { delay_ms: 10..=10, ..Link::default() });
    now(a.send(C, numbered(1))).unwrap();
    now(b.send(C, numbered(2))).unwrap();
    clock.advance(10);
    now(b.send(C, numbered(3))).unwrap();
    assert_eq!(heard(&c), [(B, numbered(2)), (A, numbered(1)), (B, numbered(3))]);
}

#[test]
fn the_clock_is_not_asked_before_a_link_delays() {
    let clock = Stopped::default();
    let network = MemoryNetwork::builder().clock(clock.clone()).build();
    let [a, b] = ends(&network, [A, B]);
    network.set_all(Link { duplicate: 0.5, reorder: 0.5, corrupt: 0.5, ..Link::default() });
    now(a.send(B, numbered(1))).unwrap();
    assert_eq!(heard(&b).len(), 1);
    network.heal();
    assert_eq!(clock.asked(), 0);
    network.set_all(Link { delay_ms: 1..=1, ..Link::default() });
    now(a.send(B, numbered(1))).unwrap();
    assert_eq!(clock.asked(), 1);
}

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
fn what_passes_on_one_link_changes_nothing_on_another() {
    let run = |busy: bool| {
        let network = MemoryNetwork::new();
        let [a, b, c] = ends(&network, [A, B, C]);
        network.set_all(Link { loss: 0.5, corrupt: 0.5, duplicate: 0.5, ..Link::default() });
        for n in 0..100 {
            now(a.send(B, numbered(n))).unwrap();
            if busy {
                now(b.send(A, numbered(n))).unwrap();
                now(a.send(C, numbered(n))).unwrap();
                now(c.send(B, numbered(n))).unwrap();
            }
        }
        bytes_from(A, &b)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn links_of_the_same_kind_draw_different_fates() {
    let network = MemoryNetwork::new();
    let [a, b, c] = ends(&network, [A, B, C]);
    network.set_all(Link { loss: 0.5, ..Link::default() });
    for n in 0..100 {
        now(a.broadcast(&[B, C], numbered(n))).unwrap();
        now(b.broadcast(&[A, C], numbered(n))).unwrap();
    }
    let fates = [bytes_from(A, &b), bytes_from(B, &a), bytes_from(A, &c)];
    assert!(fates[0] != fates[1] && fates[1] != fates[2] && fates[0] != fates[2]);
}

#[test]
fn a_link_that_was_worse_for_a_while_draws_the_same_afterwards() {
    let run = |meanwhile: Link| {
        let network = MemoryNetwork::new();
        let [a, b] = ends(&network, [A, B]);
        network.set(A, B, meanwhile);
        for n in 0..100 {
            if n == 50 {
                heard(&b);
                network.set(A, B, Link { loss: 0.5, ..Link::default() });
            }
            now(a.send(B, numbered(n))).unwrap();
        }
        numbers(&bytes_from(A, &b))
    };
    let expected = run(Link::default());
    assert!((15..35).contains(&expected.len()));
    assert_eq!(
        run(Link { duplicate: 0.5, corrupt: 0.5, loss: 0.5, reorder: 0.5, ..Link::default() }),
        expected
    );
    assert_eq!(run(Link { blocked: true, ..Link::default() }), expected);
}

#[test]
fn a_link_set_for_all_holds_for_ends_that_come_later_until_set_by_name() {
    let network = MemoryNetwork::new();
    let [a] = ends(&network, [A]);
    let lossy = Link { loss: 1.0, ..Link::default() };
    network.set(A, B, Link::default());
    network.set_all(lossy.clone());
    network.set(B, A, Link::default());
    let [b] = ends(&network, [B]);
    assert_eq!(
        [network.link(A, B), network.link(B, A), network.link(A, C)],
        [lossy.clone(), Link::default(), lossy]
    );
    now(a.send(B, numbered(1))).unwrap();
    now(b.send(A, numbered(2))).unwrap();
    assert!(heard(&b).is_empty());
    assert_eq!(news_and_frames(&a), [Incoming::Up(B), frame(B, 2)]);
}

#[test]
fn a_blocked_direction_loses_everything_and_the_other_nothing() {
    let network = MemoryNetwork::new();
    let [a, b] = ends(&network, [A, B]);
    network.set(A, B, Link { blocked: true, ..Link::default() });
    now(a.send(B, numbered(1))).unwrap();
    now(a.broadcast(&[B], numbered(2))).unwrap();
    now(b.send(A, numbered(3))).unwrap();
    assert!(news_and_frames(&b).is_empty(), "and nobody is told");
    assert_eq!(news_and_frames(&a), [frame(B, 3)]);
}

#[test]
fn a_partition_cuts_between_its_sides_silently_until_it_heals() {
    let network = MemoryNetwork::new();
    let [a, b, c] = ends(&network, [A, B, C]);
    now(a.send(B, numbered(0))).unwrap();
    network.partition(&[A], &[B, C]);
    for end in [&a, &b, &c] {
        now(end.broadcast(&[A, B, C], numbered(1))).unwrap();
    }
    assert_eq!(news_and_frames(&a), []);
    assert_eq!(news_and_frames(&b), [frame(A, 0), frame(C, 1)]);
    assert_eq!(news_and_frames(&c), [frame(B, 1)]);
    network.heal();
    now(a.broadcast(&[B, C], numbered(2))).unwrap();
    now(b.send(A, numbered(3))).unwrap();
    assert_eq!(news_and_frames(&a), [frame(B, 3)]);
    assert_eq!([news_and_frames(&b), news_and_frames(&c)], [[frame(A, 2)], [frame(A, 2)]]);
}

#[test]
fn healing_makes_links_perfect_and_connects_again() {
    let network = MemoryNetwork::new();
    let [a, b] = ends(&network, [A, B]);
    network.set_all(Link { loss: 1.0, ..Link::default() });
    network.set(A, B, Link { blocked: true, ..Link::default() });
    network.disconnect(A, B);
    network.heal();
    assert_eq!(
        [network.link(A, B), network.link(B, A), network.link(A, C)],
        [(); 3].map(|()| Link::default())
    );
    now(a.send(B, numbered(1))).unwrap();
    assert_eq!(news_and_frames(&b), [Incoming::Down(A), Incoming::Up(A), frame(A, 1)]);
    assert_eq!(news_and_frames(&a), [Incoming::Down(B), Incoming::Up(B)]);
    network.heal();
    assert_eq!([news_and_frames(&a), news_and_frames(&b)], [[], []], "there was nothing to heal");
}

#[test]
fn disconnecting_tells_both_and_loses_what_was_under_way() {
    let network = MemoryNetwork::new();
    let [a, b, c] = ends(&network, [A, B, C]);
    now(a.broadcast(&[B, C], numbered(1))).unwrap();
    now(b.broadcast(&[A, C], numbered(2))).unwrap();
    network.disconnect(B, A);
    network.disconnect(A, B);
    assert_eq!(news_and_frames(&a), [Incoming::Down(B)]);
    assert_eq!(news_and_frames(&b), [Incoming::Down(A)]);
    assert_eq!(news_and_frames(&c), [frame(A, 1), frame(B, 2)]);
    assert_eq!((network.traffic(A, B).dropped_frames, network.traffic(B, A).dropped_frames), (1, 1));

    assert!(matches!(now(a.send(B, numbered(3))), Err(TransportError::Unreachable(B))));
    now(a.broadcast(&[B, C], numbered(4))).unwrap();
    assert_eq!(news_and_frames(&b), []);
    network.disconnect(A, C);
    assert!(matches!(now(a.broadcast(&[B, C], numbered(5))), Err(TransportError::Unreachable(_))));

    network.connect(B, A);
    network.connect(A, B);
    now(a.send(B, numbered(6))).unwrap();
    assert_eq!(news_and_frames(&a), [Incoming::Down(C), Incoming::Up(B)]);
    assert_eq!(news_and_frames(&b), [Incoming::Up(A), frame(A, 6)]);
}

#[test]
fn a_connection_that_was_taken_away_stays_away_for_ends_that_come_later() {
    let network = MemoryNetwork::new();
    let [a, b] = ends(&network, [A, B]);
    network.disconnect(A, B);
    assert_eq!(news_and_frames(&a), [Incoming::Down(B)]);
    drop(b);
    let [b] = ends(&network, [B]);
    assert_eq!([news_and_frames(&a), news_and_frames(&b)], [[], []]);
    assert!(matches!(now(b.send(A, numbered(1))), Err(TransportError::Unreachable(A))));
}

#[test]
fn in_an_unconnected_network_only_neighbours_reach_each_other() {
    let network = MemoryNetwork::builder().unconnected().build();
    network.connect(A, B);
    let [a, b, c] = attached(&network, [A, B, C]);
    network.connect(B, C);
    assert_eq!(news_and_frames(&a), [Incoming::Up(B)]);
    assert_eq!(news_and_frames(&b), [Incoming::Up(A), Incoming::Up(C)]);
    assert_eq!(news_and_frames(&c), [Incoming::Up(B)]);
    now(b.broadcast(&[A, C], numbered(1))).unwrap();
    now(a.broadcast(&[B, C], numbered(2))).unwrap();
    assert!(matches!(now(a.send(C, numbered(3))), Err(TransportError::Unreachable(C))));
    assert_eq!(news_and_frames(&a), [frame(B, 1)]);
    assert_eq!(news_and_frames(&b), [frame(A, 2)]);
    assert_eq!(news_and_frames(&c), [frame(B, 1)]);

    network.disconnect(A, B);
    network.heal();
    assert_eq!(news_and_frames(&a), [Incoming::Down(B), Incoming::Up(B)]);
    assert_eq!(news_and_frames(&c), [], "healing keeps the line a line");
}

#[test]
fn a_new_end_of_the_same_replica_takes_over() {
    let network = MemoryNetwork::new();
    let [old, b] = ends(&network, [A, B]);
    now(b.send(A, numbered(1))).unwrap();
    now(old.send(B, numbered(2))).unwrap();
    network.inject(C, A, numbered(2)).unwrap();
    let new = network.transport();
    now(new.attach(A)).unwrap();
    assert_eq!(news_and_frames(&b), [Incoming::Down(A), Incoming::Up(A)], "and no frame of the old end");
    assert_eq!(news_and_frames(&new), [Incoming::Up(B)], "and no frame to the old end");
    assert_eq!([(B, A), (A, B), (C, A)].map(|(from, to)| network.traffic(from, to).dropped_frames), [1; 3]);

    assert!(matches!(now(old.receive()), Err(TransportError::Closed(_))));
    assert!(matches!(now(old.send(B, numbered(3))), Err(TransportError::Closed(_))));
    assert!(matches!(now(old.broadcast(&[B], numbered(4))), Err(TransportError::Closed(_))));
    drop(old);
    now(new.send(B, numbered(5))).unwrap();
    assert_eq!(news_and_frames(&b), [frame(A, 5)], "the end of the old one says nothing");
}

#[test]
fn who_waits_at_an_end_learns_that_it_was_taken_over() {
    let network = MemoryNetwork::new();
    let [old] = ends(&network, [A]);
    let (woken, waker) = woken();
    let mut receive = pin!(old.receive());
    assert!(receive.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    now(network.transport().attach(A)).unwrap();
    assert_eq!(woken.0.load(SeqCst), 1);
    assert!(matches!(now(receive), Err(TransportError::Closed(_))));
}

#[test]
fn an_end_serves_one_replica_once() {
    let network = MemoryNetwork::new();
    let [b] = ends(&network, [B]);
    let a = network.transport();
    assert!(matches!(now(a.send(B, numbered(1))), Err(TransportError::Closed(_))));
    assert!(matches!(now(a.broadcast(&[B], numbered(1))), Err(TransportError::Closed(_))));
    assert!(matches!(now(a.receive()), Err(TransportError::Closed(_))));
    now(a.attach(A)).unwrap();
    assert!(matches!(now(a.attach(A)), Err(TransportError::Closed(_))));
    assert!(matches!(now(a.attach(C)), Err(TransportError::Closed(_))));
    assert!(matches!(now(a.send(A, numbered(1))), Err(TransportError::Unreachable(A))));
    assert_eq!(news_and_frames(&b), [Incoming::Up(A)]);
}

#[test]
fn dropping_an_end_is_a_down_at_its_peers() {
    let network = MemoryNetwork::new();
    let [a, b] = ends(&network, [A, B]);
    now(a.send(B, numbered(1))).unwrap();
    drop(a);
    drop(network.transport());
    assert_eq!(news_and_frames(&b), [Incoming::Down(A)]);
    assert!(matches!(now(b.send(A, numbered(2))), Err(TransportError::Unreachable(A))));
}

#[test]
fn news_that_was_not_heard_does_not_pile_up() {
    let network = MemoryNetwork::new();
    let [a, b] = ends(&network, [A, B]);
    for _ in 0..100 {
        network.disconnect(A, B);
        network.connect(A, B);
    }
    assert_eq!(news_and_frames(&a), [Incoming::Down(B), Incoming::Up(B)]);
    network.disconnect(A, B);
    assert_eq!(news_and_frames(&a), [Incoming::Down(B)]);
    network.connect(A, B);
    network.disconnect(A, B);
    assert_eq!(news_and_frames(&a), [], "an `Up` that was taken back is not told");
    assert_eq!(news_and_frames(&b), [Incoming::Down(A)]);
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
        // What a disconnection throws out of the queue makes room too.
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
            // Time passes also if no receive gets so far as to sleep.
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

/// Enough that shares come out near their chance.
const FRAMES: u64 = 1000;

/// What arrives at B of [`FRAMES`] numbered frames of A.
fn run(seed: u64, link: Link) -> Vec<Bytes> {
    let builder = MemoryNetwork::builder().seed(seed).clock(ManualClock::at(0)).queue_frames_max(2000);
    let network = builder.build();
    let [a, b] = ends(&network, [A, B]);
    network.set(A, B, link);
    for n in 0..FRAMES {
        now(a.send(B, numbered(n))).unwrap();
    }
    bytes_from(A, &b)
}

fn assert_repeatable(link: &Link) {
    assert_eq!(run(7, link.clone()), run(7, link.clone()));
    assert_ne!(run(7, link.clone()), run(8, link.clone()), "another seed, another run");
}

/// Asserts that frames on `link` take as long as `expected_ms`, each of these times at least once.
fn assert_delays(link: &Link, expected_ms: &std::ops::RangeInclusive<u64>) {
    let clock = ManualClock::at(0);
    let network = MemoryNetwork::builder().clock(clock.clone()).build();
    let [a, b] = ends(&network, [A, B]);
    network.set(A, B, link.clone());
    for n in 0..100 {
        now(a.send(B, numbered(n))).unwrap();
    }
    let mut times = Vec::new();
    for _ in 0..100 {
        now(b.receive()).unwrap();
        times.push(clock.mono().0);
    }
    times.dedup();
    assert_eq!(times, expected_ms.clone().collect::<Vec<_>>());
}

/// Ends of these replicas, which have heard of each other.
fn ends<const N: usize>(network: &MemoryNetwork, replicas: [ReplicaId; N]) -> [MemoryTransport; N] {
    let ends = attached(network, replicas);
    for end in &ends {
        let news = news_and_frames(end);
        assert!(news.iter().all(|incoming| matches!(incoming, Incoming::Up(_))), "{news:?}");
    }
    ends
}

fn attached<const N: usize>(network: &MemoryNetwork, replicas: [ReplicaId; N]) -> [MemoryTransport; N] {
    replicas.map(|replica| {
        let end = network.transport();
        now(end.attach(replica)).unwrap();
        end
    })
}

/// What a future that does not wait returns.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("it does not wait")
}

/// Everything that comes without a wait, or after one that the clock skips.
fn news_and_frames(end: &MemoryTransport) -> Vec<Incoming> {
    std::iter::from_fn(|| end.receive().now_or_never()).map(Result::unwrap).collect()
}

fn heard(end: &MemoryTransport) -> Vec<(ReplicaId, Bytes)> {
    news_and_frames(end)
        .into_iter()
        .filter_map(|incoming| match incoming {
            Incoming::Frame { from, bytes } => Some((from, bytes)),
            Incoming::Up(_) | Incoming::Down(_) => None,
        })
        .collect()
}

fn bytes_from(peer: ReplicaId, end: &MemoryTransport) -> Vec<Bytes> {
    heard(end).into_iter().filter(|(from, _)| *from == peer).map(|(_, bytes)| bytes).collect()
}

/// A frame of eight bytes.
fn numbered(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

fn numbers(frames: &[Bytes]) -> Vec<u64> {
    frames.iter().map(|bytes| u64::from_be_bytes(bytes[..].try_into().unwrap())).collect()
}

fn frame(from: ReplicaId, n: u64) -> Incoming {
    Incoming::Frame { from, bytes: numbered(n) }
}

/// A waker that counts.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn woken() -> (Arc<Woken>, Waker) {
    let woken = Arc::new(Woken::default());
    (Arc::clone(&woken), Waker::from(woken))
}

/// A clock that stands still and counts how often it is asked: who sleeps on it never wakes.
#[derive(Clone, Default)]
struct Stopped(Arc<AtomicUsize>);

impl Stopped {
    fn asked(&self) -> usize {
        self.0.load(SeqCst)
    }
}

#[async_trait]
impl Clock for Stopped {
    fn wall(&self) -> Result<WallMs, ClockError> {
        self.0.fetch_add(1, SeqCst);
        Ok(WallMs::MIN)
    }

    fn mono(&self) -> Mono {
        self.0.fetch_add(1, SeqCst);
        Mono(1000)
    }

    async fn sleep(&self, _: Duration) {
        self.0.fetch_add(1, SeqCst);
        std::future::pending::<()>().await;
    }
}

/// A clock whose sleepers give way once and wake when half the time has passed: places where they can be dropped.
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
        // A sleep may end early: at least a millisecond, so that time goes on.
        self.0.sleep((duration / 2).max(Duration::from_millis(1))).await;
    }
}
