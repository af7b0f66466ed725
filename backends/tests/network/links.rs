//! The faults of a link: loss, repeats, order, delay.

use bytes::Bytes;
use syncline::{Clock, Incoming, Mono, Transport};
use syncline_backends::{Link, MemoryNetwork};
use syncline_testkit::ManualClock;

use crate::support::*;

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
    // Frames change places with frames of their own link only: the senders alternate as before.
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
    #[allow(clippy::reversed_empty_ranges, reason = "an app could write such a range")]
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

/// So many that the share of each fate is near its chance.
const FRAMES: u64 = 1000;

/// Sends [`FRAMES`] numbered frames from A to B, and returns those that arrive.
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

/// Asserts that frames on `link` take a time in `expected_ms`, and that each of these times occurs.
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
