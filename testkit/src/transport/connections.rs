//! Who is there: senders are named truly, `Up` and `Down` frame what comes, and an end has one owner.

use std::collections::BTreeSet;
use std::pin::pin;

use bytes::Bytes;
use futures::future::{join, select};
use syncline::{Incoming, ReplicaId, Transport as _, TransportError};

use super::TransportFixture;
use super::subject::{A, B, C, D, Peer, Subject, frame, name};

/// Goal: `from` is the replica that attached the other end. Method: three ends send to each other at once, and the bytes
/// of each frame name somebody else.
///
/// That a stranger cannot attach as a member is the transport's own test: it alone knows what proves a replica.
///
/// # Panics
/// If the transport breaks the property.
pub async fn from_is_true<F: TransportFixture>(fixture: &F) {
    let subject = Subject::new("from_is_true", fixture);
    let peers = subject.connected([A, B, C]).await;
    // The sender in a frame's last byte, and another replica where a careless transport would put the sender.
    let of = |sender: usize, round: u8| {
        let other = &peers[(sender + 1) % peers.len()];
        let number = u8::try_from(sender).expect("few peers");
        Bytes::from([&other.me.as_bytes()[..], &[round, number]].concat())
    };
    let check = |heard: Vec<Incoming>, round: u8| {
        for incoming in heard {
            let Incoming::Frame { from, bytes } = incoming else { continue };
            let sent_by = bytes.last().and_then(|number| peers.get(usize::from(*number))).map(|peer| peer.me);
            if sent_by != Some(from) {
                let sent_by = sent_by.map_or("nobody", name);
                let what = format_args!("a frame of {sent_by} came as one of {}", name(from));
                subject.fail(format_args!("round {round}"), what);
            }
        }
    };
    for round in 0..8 {
        for (sender, peer) in peers.iter().enumerate() {
            for other in peers.iter().filter(|other| other.me != peer.me) {
                let _ = peer.send(other.me, &of(sender, round)).await;
            }
        }
        for (sender, peer) in peers.iter().enumerate() {
            let receiver = &peers[(sender + 2) % peers.len()];
            check(receiver.rest().await, round);
            check(peer.deliver(receiver, &of(sender, 100 + round), "a frame of its own").await, round);
        }
    }
}

/// Receives until `done`, and asserts that frames and `Down` come only from peers that are up.
async fn take_in_order<F: TransportFixture>(
    subject: &Subject<'_, F>,
    at: &Peer<'_, '_, F>,
    step: &str,
    mut done: impl FnMut(&Incoming) -> bool,
) {
    loop {
        let before = at.all_up();
        let incoming = at.next(format_args!("{step} at {}", name(at.me))).await;
        assert_in_order(subject, at, step, &before, &incoming);
        if done(&incoming) {
            return;
        }
    }
}

/// As [`take_in_order`], until nothing comes.
async fn take_rest_in_order<F: TransportFixture>(subject: &Subject<'_, F>, at: &Peer<'_, '_, F>, step: &str) {
    loop {
        let before = at.all_up();
        let Some(incoming) = at.soon().await else { return };
        assert_in_order(subject, at, step, &before, &incoming);
    }
}

fn assert_in_order<F: TransportFixture>(
    subject: &Subject<'_, F>,
    at: &Peer<'_, '_, F>,
    step: &str,
    up: &BTreeSet<ReplicaId>,
    incoming: &Incoming,
) {
    match incoming {
        Incoming::Frame { from, .. } if !up.contains(from) => {
            subject.fail(
                step,
                format_args!("a frame of {} came at {} while it was not up", name(*from), name(at.me)),
            );
        }
        Incoming::Down(peer) if !up.contains(peer) => {
            subject.fail(
                step,
                format_args!("`Down` of {} came at {} while it was not up", name(*peer), name(at.me)),
            );
        }
        _ => {}
    }
}

/// Goal: `Up` of a peer comes before its first frame. Method: ends that send as soon as they are attached, to one that
/// reads at once, later, or was there before.
///
/// # Panics
/// If the transport breaks the property.
pub async fn up_comes_before_the_first_frame<F: TransportFixture>(fixture: &F) {
    let subject = Subject::new("up_comes_before_the_first_frame", fixture);
    let reader = subject.attached(B).await;
    for me in [A, C, D] {
        let sender = subject.attached(me).await;
        // It sends on until a frame has come: before the connection is there, each send is refused or lost.
        let keep_sending = async {
            loop {
                let _ = sender.send(B, &frame(1, 100)).await;
                if subject.soon(sender.end.receive()).await.is_none() {
                    let _ = sender.send(B, &frame(2, 100)).await;
                }
            }
        };
        let is_frame = |incoming: &Incoming| matches!(incoming, Incoming::Frame { from, .. } if *from == me);
        let read = take_in_order(&subject, &reader, "the first frame", is_frame);
        let _ = select(pin!(keep_sending), pin!(read)).await;
        if me != D {
            drop(sender);
            reader.hear_down(me).await;
        }
    }
}

/// Goal: `Down` comes to both ends when their connection goes, after their `Up`, and no frame comes after it before the
/// next `Up`. Method: the connection is taken away and given back under frames, also while nobody reads.
///
/// # Panics
/// If the transport breaks the property.
pub async fn down_comes_after_up<F: TransportFixture>(fixture: &F) {
    let subject = Subject::new("down_comes_after_up", fixture);
    let (a, b) = (subject.attached(A).await, subject.attached(B).await);
    let up = |peer| move |incoming: &Incoming| *incoming == Incoming::Up(peer);
    let down = |peer| move |incoming: &Incoming| *incoming == Incoming::Down(peer);
    take_in_order(&subject, &a, "the first `Up`", up(B)).await;
    take_in_order(&subject, &b, "the first `Up`", up(A)).await;
    for round in 0..4 {
        for number in 0..4 {
            let _ = a.send(B, &frame(number, 100)).await;
            let _ = b.send(A, &frame(number, 100)).await;
        }
        subject.can("`disconnect`", fixture.disconnect(A, B)).await;
        if round % 2 == 0 {
            take_in_order(&subject, &a, "`Down` after `disconnect`", down(B)).await;
            take_in_order(&subject, &b, "`Down` after `disconnect`", down(A)).await;
        }
        // A send meanwhile may fail or be lost; its frame must not come before the next `Up`.
        let _ = a.send(B, &frame(9, 100)).await;
        subject.can("`connect`", fixture.connect(A, B)).await;
        if round % 2 == 0 {
            take_in_order(&subject, &a, "`Up` after `connect`", up(B)).await;
            take_in_order(&subject, &b, "`Up` after `connect`", up(A)).await;
        } else {
            // A peer that went and came while nobody read may have said both or neither; then it is up.
            for peer in [&a, &b] {
                take_rest_in_order(&subject, peer, "after a short break").await;
            }
        }
        a.deliver(&b, &frame(100 + round, 100), "a frame after the next `Up`").await;
        b.deliver(&a, &frame(100 + round, 100), "a frame after the next `Up`").await;
    }
}

/// Goal: an end that is dropped is a `Down` at its peers, and its replica may come back with a new one. Method: three
/// lives of one replica beside another that only reads.
///
/// # Panics
/// If the transport breaks the property.
pub async fn dropping_an_end_is_a_down<F: TransportFixture>(fixture: &F) {
    let subject = Subject::new("dropping_an_end_is_a_down", fixture);
    let b = subject.attached(B).await;
    for life in 0..3 {
        let a = subject.attached(A).await;
        b.hear_up(A).await;
        a.deliver(&b, &frame(life, 100), format_args!("a frame of life {life}")).await;
        drop(a);
        b.hear_down(A).await;
    }
}

/// Goal: an end has one owner. Method: a second `attach` of another replica is refused, and the first owner goes on under
/// its own name.
///
/// # Panics
/// If the transport breaks the property.
pub async fn attach_twice_is_refused<F: TransportFixture>(fixture: &F) {
    let subject = Subject::new("attach_twice_is_refused", fixture);
    let [a, b] = subject.connected([A, B]).await;
    match subject.within("the answer of the second `attach`", a.end.attach(C)).await {
        Err(TransportError::Refused(_)) => {}
        Err(error) => subject.fail("the second `attach`", format_args!("it is not `Refused`, but: {error}")),
        Ok(()) => subject.fail("the second `attach`", "an end of one replica was attached by another one"),
    }
    let mut heard = a.deliver(&b, &frame(1, 100), "a frame after the second `attach`").await;
    heard.extend(b.deliver(&a, &frame(1, 100), "a frame after the second `attach`").await);
    heard.extend(b.rest().await);
    if heard.contains(&Incoming::Up(C)) {
        subject.fail(
            "the second `attach`",
            format_args!("it was refused, but {} is up at {}", name(C), name(B)),
        );
    }
}

/// Goal: an end that has ended for good says so. Method: the network takes it away while it waits, and it is asked again.
///
/// # Panics
/// If the transport breaks the property.
pub async fn closed_says_closed<F: TransportFixture>(fixture: &F) {
    let subject = Subject::new("closed_says_closed", fixture);
    let [a, _b] = subject.connected([A, B]).await;
    let waiting = async {
        loop {
            if let Err(error) = a.end.receive().await {
                return error;
            }
        }
    };
    let close = subject.can("`close`", fixture.close(A));
    let both = join(subject.within("the end of `receive`", waiting), close);
    let mut error = both.await.0;
    for call in ["the `receive` that waited", "the next `receive`", "the one after it"] {
        if !matches!(error, TransportError::Closed(_)) {
            subject.fail(call, format_args!("it is not `Closed`, but: {error}"));
        }
        error = match subject.within("the error of a closed end", a.end.receive()).await {
            Err(error) => error,
            Ok(incoming) => subject.fail("a closed end", format_args!("it received {incoming:?}")),
        };
    }
    // The call may say anything, but must return.
    let _ = a.send(B, &frame(1, 100)).await;
}
