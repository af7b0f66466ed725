//! A snapshot that is interrupted again and again goes on where it was.

use syncline::{Builder, Limits, Storage};
use syncline_backends::Link;

use super::behind::{again, began_anew, brief, is_left_behind, leaves, returns};
use super::contents::all;
use super::peer::{Peer, Store, all_models};
use super::world::{World, play};
use crate::Fixture;
use crate::models::{Note, note};

/// How a snapshot is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The process of the receiver ends.
    Receiver,
    /// The process of the sender ends.
    Sender,
    /// The receiver loses its sender, and meets another one.
    Change,
    /// The link is there for 3 s, and gone for 3 s.
    Flapping,
}

/// The size of a snapshot, and of the link over which it comes.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How many records there are.
    pub records: u32,
    /// The bytes of a page, at most.
    pub page_bytes: usize,
    /// The rate of the link that flaps.
    pub bytes_a_second: u64,
}

/// A dozen pages.
const SMALL: Size = Size { records: 150, page_bytes: 4 << 10, bytes_a_second: 3_000 };
/// The bytes of a text.
const TEXT: usize = 200;

/// Goal: a snapshot that is interrupted at every page never begins from nothing again, and ends. Method: the receiver, the sender or
/// the connection ends after every page, or the link flaps; the sender goes on writing; look at how much is there after each
/// interruption, and at how much was sent in all.
///
/// Y5, Y10, Y14.
pub async fn a_snapshot_that_is_interrupted_at_every_page_goes_on_where_it_was<F: Fixture>(
    fresh: &impl Fn() -> F,
) {
    a_snapshot_of_this_size_is_interrupted(fresh, SMALL).await;
}

/// As [`a_snapshot_that_is_interrupted_at_every_page_goes_on_where_it_was`], with so many records.
pub async fn a_snapshot_of_this_size_is_interrupted<F: Fixture>(fresh: &impl Fn() -> F, size: Size) {
    play(fresh, async |world| {
        let [mut a, mut b, mut c] = world.group().await;
        let records: Vec<_> = (0..size.records).collect();
        for ids in records.chunks(1_000) {
            let batch =
                a.commit_batch(|batch| Ok(ids.iter().try_for_each(|id| batch.put(&note(*id, text(*id))))?));
            batch.await.unwrap();
        }
        world.converged(&[&a, &b, &c]).await;
        for by in [By::Receiver, By::Sender, By::Change, By::Flapping] {
            leaves(world, &b, &[&a, &c]);
            for peer in [&mut a, &mut c] {
                again(world, peer, brief).await;
            }
            for n in 0..10 {
                a.commit(note(n, format!("before {by:?}"))).await.unwrap();
            }
            world.converged(&[&a, &c]).await;
            is_left_behind(world, &b, &a, &[&a, &c]).await;
            // From now on their logs stay, so that nothing but an interruption is in the way.
            for peer in [&mut a, &mut c] {
                again(world, peer, |builder| paged(builder, size)).await;
            }
            again(world, &mut b, |builder| paged(builder, size)).await;
            world.converged(&[&a, &c]).await;
            installs(world, &mut a, &mut b, &mut c, by, size).await;
            returns(world, &b, &[&a, &c]);
            world.converged(&[&a, &b, &c]).await;
            assert!(all::<Note, _>(&*b).await == all::<Note, _>(&*a).await, "{by:?}");
        }
        world.assert_equal(&mut [&mut a, &mut b, &mut c]).await;
    })
    .await;
}

fn paged<S: Storage>(builder: Builder<S>, size: Size) -> Builder<S> {
    all_models(builder).limits(Limits { page_bytes_max: size.page_bytes, ..Limits::default() })
}

/// A text that no compression makes shorter.
fn text(id: u32) -> String {
    let mut rng = fastrand::Rng::with_seed(id.into());
    std::iter::repeat_with(|| rng.alphanumeric()).take(TEXT).collect()
}

/// Has B install a snapshot that is interrupted after every page.
async fn installs<F: Fixture>(
    world: &World<'_, F>,
    a: &mut Peer<F>,
    b: &mut Peer<F>,
    c: &mut Peer<F>,
    by: By,
    size: Size,
) {
    let setup = |builder: Builder<Store<F>>| paged(builder, size);
    let rate = (by == By::Flapping).then_some(size.bytes_a_second);
    let link = Link { delay_ms: 20..=20, bytes_a_second: rate, ..Link::default() };
    let (mut sender, mut other) = (a.id, c.id);
    for peer in [sender, other] {
        world.network.set(peer, b.id, link.clone());
        world.network.set(b.id, peer, link.clone());
    }
    world.network.reset_traffic();
    world.network.connect(b.id, sender);
    let (mut had, mut interruptions) = (None, 0_u32);
    loop {
        if by == By::Flapping {
            world.pass(3_000).await;
        } else {
            world
                .until("another page is here, or all of it", async || {
                    let installing = b.status().await.unwrap().installing;
                    match (installing, had) {
                        (None, had) => had.is_some(),
                        (Some(install), had) => install.folding || Some(install.records) > had,
                    }
                })
                .await;
        }
        assert!(!began_anew(b).await, "{by:?}: it began from nothing again, after {interruptions}");
        let installing = b.status().await.unwrap().installing;
        match installing.filter(|install| !install.folding) {
            None if had.is_some() => break,
            None => {}
            Some(install) => {
                let more = had.is_none_or(|had| install.records >= had);
                assert!(more, "{by:?}: {} records are left of {had:?}", install.records);
                had = Some(install.records);
            }
        }
        interruptions += 1;
        assert!(interruptions < 10_000, "{by:?}: it does not end, at {had:?} of {}", size.records);
        if interruptions.is_multiple_of(4) {
            a.commit(note(interruptions % 10, format!("{by:?}, {interruptions}"))).await.unwrap();
        }
        match by {
            By::Receiver => {
                b.kill(world).await;
                b.open(world, setup).await.unwrap();
                let here = b.status().await.unwrap().installing.map(|install| install.records);
                assert!(here >= had, "{here:?} records are left of {had:?}");
            }
            By::Sender => {
                a.kill(world).await;
                a.open(world, setup).await.unwrap();
            }
            By::Change => {
                world.network.disconnect(b.id, sender);
                (sender, other) = (other, sender);
                world.network.connect(b.id, sender);
            }
            By::Flapping => {
                world.network.disconnect(b.id, sender);
                world.pass(3_000).await;
                world.network.connect(b.id, sender);
            }
        }
    }
    let sent = [a.id, c.id].map(|from| world.network.traffic(from, b.id).sent_bytes).iter().sum::<u64>();
    let once = u64::from(size.records) * (TEXT as u64 + 60);
    println!("{by:?}: {interruptions} interruptions, {sent} bytes for about {once}");
    assert!(interruptions >= 3, "{by:?}: {interruptions} interruptions");
    assert!(sent <= 3 * once + 40_000, "{by:?}: {sent} bytes were sent for {once}");
}
