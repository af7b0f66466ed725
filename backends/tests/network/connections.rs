//! Which replicas reach each other: partitions, connections, and ends that come and go.

use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Context;

use bytes::Bytes;
use syncline::{Incoming, OpenError, ReplicaId, TransactionManager, Transport, TransportError};
use syncline_backends::{Link, MemoryNetwork, MemoryStorage};

use crate::support::*;

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
    assert!(matches!(now(a.send(B, numbered(1))), Err(TransportError::Refused(_))));
    assert!(matches!(now(a.broadcast(&[B], numbered(1))), Err(TransportError::Refused(_))));
    assert!(matches!(now(a.receive()), Err(TransportError::Refused(_))));
    now(a.attach(A)).unwrap();
    assert!(matches!(now(a.attach(A)), Err(TransportError::Refused(_))));
    assert!(matches!(now(a.attach(C)), Err(TransportError::Refused(_))));
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

/// A transport that does not attach keeps the store from being opened, and the error says which store and what to do.
#[test]
fn a_transport_that_does_not_attach_is_named_with_what_to_do() {
    for (error, says) in [
        (TransportError::not_started("port 7000 is taken"), "free or allow what it needs"),
        (
            TransportError::refused("it serves another replica"),
            "give each opening of a store an end of its own",
        ),
    ] {
        let store = MemoryStorage::new();
        let ask = TransactionManager::builder(store).found_new().transport(NoPort(error.clone()));
        let refused = now(ask.open()).map(drop).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(&error.to_string()) && text.contains(says), "{text}");
        let OpenError::Transport { source, .. } = refused else { panic!("{refused:?}") };
        assert_eq!(std::mem::discriminant(&source), std::mem::discriminant(&error));
    }
}

/// A transport that does not attach, for this reason.
struct NoPort(TransportError);

#[async_trait::async_trait]
impl Transport for NoPort {
    async fn attach(&self, _: ReplicaId) -> Result<(), TransportError> {
        Err(self.0.clone())
    }

    async fn send(&self, to: ReplicaId, _: Bytes) -> Result<(), TransportError> {
        Err(TransportError::Unreachable(to))
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        std::future::pending().await
    }
}
