//! A store whose medium has flipped a bit in its log: nobody else is harmed, and the peers mend it.

use futures::future::join;
use syncline::{
    Damage, DamagedPart, Event, KeyRange, LogCheck, ScanLimit, Storage, StreamStatus, WriteBatch,
};

use super::catching_up::commits_of;
use super::contents::{Contents, all};
use super::peer::Peer;
use super::world::{World, play};
use crate::Fixture;
use crate::models::{Note, note};
use crate::replica::app::drain;

/// The first bytes of the keys of log rows and of kept values.
const LOG: u8 = 0x06;
const KEPT: u8 = 0x07;

/// The place of a field in a log row that puts a note.
type Place = fn(&[u8]) -> usize;

/// The kinds of fields of a log row.
const FIELDS: [(&str, Place); 5] = [
    ("the digest before it", |_| 3),
    ("the counter of the stamp", |_| 32 + 1 + 16 + 7),
    ("the operation", |row| {
        row.windows(5).rposition(|part| part == b"\x04note").expect("it puts a note") - 1
    }),
    ("the text of the id", |row| row.len() - 32 - 4 - 2 - 1),
    ("the digest of the value", |row| row.len() - 1),
];

/// Changes a row of a closed store, as a bad medium does: nothing notices it but whoever knows what stood there.
async fn damage<F: Fixture>(disk: &F, range: KeyRange, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
    let store = disk.open().await.expect("the store opens");
    let row = store.scan(range, ScanLimit::entries(1)).await.expect("it can be read").entries.remove(0);
    let mut batch = WriteBatch::new();
    match change(row.value) {
        Some(value) => batch.put(row.key, value),
        None => batch.delete(row.key),
    }
    store.write(batch).await.expect("it is written");
}

/// The status of the stream of `author` at `peer`.
async fn stream_of<F: Fixture>(peer: &Peer<F>, author: &Peer<F>) -> StreamStatus {
    let streams = peer.status().await.unwrap().streams;
    streams.into_iter().find(|stream| stream.replica == author.id).expect("a member has a stream")
}

/// Checks the log of a replica while its peers are heard.
async fn check<F: Fixture>(world: &World<'_, F>, peer: &Peer<F>) -> LogCheck {
    world.pass(40_000).await;
    let (checked, ()) = join(peer.check_log(), world.pass(40_000)).await;
    checked.expect("the store can be read")
}

/// The author `a`, a relay that has all its commits and one of its own, and a third that was away meanwhile.
async fn group<F: Fixture>(world: &World<'_, F>, texts: &[&str]) -> [Peer<F>; 3] {
    let [a, b, c] = world.group().await;
    world.converged(&[&a, &b, &c]).await;
    for other in [&a, &b] {
        world.network.disconnect(c.id, other.id);
    }
    b.commit(note(100, "of the relay")).await.unwrap();
    for (id, text) in (0..).zip(texts) {
        a.commit(note(id % 2, *text)).await.unwrap();
    }
    world.converged(&[&a, &b]).await;
    [a, b, c]
}

/// The third meets the damaged relay alone, and takes nothing but what its author wrote; no stream is given up anywhere.
async fn only_the_truth_arrives<F: Fixture>(world: &World<'_, F>, [a, b, c]: [&Peer<F>; 3], before: u64) {
    world.network.disconnect(a.id, b.id);
    world.network.connect(c.id, b.id);
    world.pass(120_000).await;
    let (here, there) = (commits_of(c, a).await, commits_of(a, a).await);
    assert!((before.saturating_sub(2)..before).contains(&here), "{here} of {there} commits arrive");
    let notes: Vec<Note> = all(&**c).await;
    assert!(notes.iter().any(|note| note.id == 100), "the stream of the relay goes on: {notes:?}");
    world.network.connect(a.id, b.id);
    a.commit(note(50, "the author goes on")).await.expect("it is healthy");
    world.pass(120_000).await;
    for peer in [a, b, c] {
        let status = peer.status().await.unwrap();
        assert_eq!(status.restored, None);
        assert!(status.streams.iter().all(|stream| stream.stopped.is_none() && stream.fork.is_none()));
    }
    a.commit(note(51, "and on")).await.expect("it is healthy");
}

/// Goal: a bit that flips in the log of a relay harms neither the author nor a third, and the relay has all as before once
/// its log was checked. Method: a bit of each kind of field flips in a row in the middle of the log and in the last one,
/// while the relay is closed; the third gets everything over it.
///
/// C19, Y15, Y16.
pub async fn a_damaged_log_harms_nobody_and_is_mended<F: Fixture>(fresh: &impl Fn() -> F) {
    for (field, place) in FIELDS {
        for is_last in [false, true] {
            play(fresh, async |world| {
                let what = format!("{field}, of the last row: {is_last}");
                let [mut a, mut b, mut c] = group(world, &["1", "2", "3", "4", "5"]).await;
                let seq = commits_of(&a, &a).await - if is_last { 0 } else { 2 };
                b.close(world).await;
                let key = [&[LOG][..], a.id.as_bytes(), &seq.to_be_bytes()].concat();
                damage(&b.disk, KeyRange::prefix(key), |mut row| {
                    let at = place(&row);
                    *row.get_mut(at)? ^= 1;
                    Some(row)
                })
                .await;
                b.reopen(world).await;
                let mut events = b.events();
                only_the_truth_arrives(world, [&a, &b, &c], seq).await;
                assert!(stream_of(&b, &a).await.damaged.is_some(), "{what}");
                let checked = check(world, &b).await;
                assert_eq!((checked.mended, checked.damaged), (1, vec![]), "{what}");
                let part = if is_last { DamagedPart::Head } else { DamagedPart::Row };
                let mended = drain(&mut events).await.into_iter().find_map(|event| match event {
                    Event::Mended(Damage { stream, seq, part, .. }) => Some((stream, seq, part)),
                    _ => None,
                });
                assert_eq!(mended, Some((a.id, seq, part)), "{what}");
                assert_eq!(stream_of(&b, &a).await.damaged, None, "{what}");
                world.converged(&[&a, &b, &c]).await;
                assert_eq!(Contents::of(&*c).await, Contents::of(&*a).await, "{what}");
                for peer in [&mut a, &mut b, &mut c] {
                    peer.close(world).await;
                    peer.entries().await;
                }
            })
            .await;
        }
    }
}

/// Goal: a kept value that is gone, or is another one, ends its own stream at its own replica, which says so, and blocks no
/// other stream; a check fetches it. Method: the row is deleted, or a bit of it flips, while the relay is closed.
///
/// C19, Y16.
pub async fn a_value_that_is_gone_ends_its_own_stream_alone<F: Fixture>(fresh: &impl Fn() -> F) {
    for gone in [true, false] {
        play(fresh, async |world| {
            let [mut a, mut b, mut c] = group(world, &["first", "other", "second"]).await;
            let seq = commits_of(&a, &a).await - 2;
            b.close(world).await;
            let key = [&[KEPT][..], a.id.as_bytes(), &seq.to_be_bytes()].concat();
            damage(&b.disk, KeyRange::prefix(key), |mut row| {
                *row.last_mut()? ^= 1;
                (!gone).then_some(row)
            })
            .await;
            b.reopen(world).await;
            let mut events = b.events();
            only_the_truth_arrives(world, [&a, &b, &c], seq).await;
            let named = |event: &Event| match event {
                Event::Damaged(damage) => Some((damage.stream, damage.seq, damage.part)),
                _ => None,
            };
            let told: Vec<_> = drain(&mut events).await.iter().filter_map(named).collect();
            assert_eq!(told, [(a.id, seq, DamagedPart::Value)]);
            let checked = check(world, &b).await;
            assert_eq!((checked.mended, checked.damaged), (1, vec![]));
            assert_eq!(stream_of(&b, &a).await.damaged, None);
            world.converged(&[&a, &b, &c]).await;
            assert_eq!(Contents::of(&*c).await, Contents::of(&*a).await);
            for peer in [&mut a, &mut b, &mut c] {
                peer.close(world).await;
                peer.entries().await;
            }
        })
        .await;
    }
}
