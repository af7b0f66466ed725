//! Goal: an app can ask where its commits are, and wait until they are there; no such call waits longer than it should, and
//! none is lost. Method: whole replicas on a network in memory, whose drivers run side by side, and time that passes in
//! steps of 10 ms while a call waits.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{BoxFuture, Either, Fuse, join, join_all, poll_fn, select};
use serde::{Deserialize, Serialize};
use syncline::{
    Clock, DeviceId, Error, GroupId, KeyRange, ReplicaId, ScanLimit, StopReason, Storage, Syncable, Synced,
    TransactionManager, Uuid, WriteBatch,
};
use syncline_backends::{Link, MemoryDisk, MemoryNetwork, MemoryStorage};
use syncline_testkit::StepClock;

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "note")]
struct Note {
    #[sync(id)]
    id: u32,
    text: String,
}

fn note(id: u32) -> Note {
    Note { id, text: "some words".into() }
}

type Library = TransactionManager<MemoryStorage>;

const GROUP: GroupId = GroupId(Uuid::from_u128(0xf));
const LONG: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn replica(n: u128) -> ReplicaId {
    ReplicaId(Uuid::from_u128(0xa0 + n))
}

/// A group whose drivers run, and whose time passes, whenever its test waits.
struct Group {
    network: MemoryNetwork,
    clock: StepClock,
    drivers: Vec<Fuse<BoxFuture<'static, Result<(), StopReason>>>>,
}

impl Group {
    /// Opens replica `n` on a disk: the founder of the group, or a member that joins through an introducer.
    async fn open(&mut self, n: u128, disk: &MemoryDisk, introducer: Option<ReplicaId>) -> Library {
        let builder = TransactionManager::builder(MemoryStorage::open(disk));
        let builder = builder.device(DeviceId(Uuid::from_u128(0xd0 + n))).replica(replica(n));
        let builder = match introducer {
            None => builder.found(GROUP),
            Some(introducer) => builder.join(GROUP, introducer),
        };
        let builder = builder.model::<Note>().clock(self.clock.clone()).transport(self.network.transport());
        let (library, driver) = builder.open().await.unwrap();
        self.drivers.push(driver.run().boxed().fuse());
        library
    }

    /// A group of so many members, the first of which is its founder; all are level.
    async fn of(size: u128) -> (Self, Vec<Library>) {
        let network = MemoryNetwork::new();
        let mut group = Self { network, clock: StepClock::at(1_000_000), drivers: Vec::new() };
        let mut all = vec![group.open(0, &MemoryDisk::new(), None).await];
        for n in 1..size {
            let joiner = group.open(n, &MemoryDisk::new(), Some(replica(0))).await;
            group.run(all.first().unwrap().add_member(replica(n))).await.unwrap();
            all.push(joiner);
        }
        for library in &all {
            let synced = group.run(library.wait_synced(LONG)).await.unwrap();
            assert_eq!(synced.is_level(), size > 1, "{synced:?}");
        }
        (group, all)
    }

    /// Lets the drivers run while time passes, until `call` returns.
    async fn run<T>(&mut self, call: impl Future<Output = T>) -> T {
        let clock = self.clock.clone();
        let passes = async {
            for _ in 0..12_000 {
                turn().await;
                clock.advance(10);
            }
            panic!("not within two minutes");
        };
        let drivers = join_all(self.drivers.iter_mut());
        match select(Box::pin(call), select(drivers, Box::pin(passes))).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => panic!("the drivers ended"),
        }
    }

    fn block(&self, from: u128, to: u128) {
        self.network.set(replica(from), replica(to), Link { blocked: true, ..Link::default() });
    }

    fn now(&self) -> u64 {
        self.clock.mono().0
    }
}

/// Lets the other futures run.
async fn turn() {
    for _ in 0..3 {
        let mut gone = false;
        poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut gone, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Lets some time pass, inside of a run.
async fn some_time() {
    for _ in 0..20 {
        turn().await;
    }
}

#[test]
fn y23_a_commit_is_waited_for_until_it_is_on_enough_devices() {
    block_on(async {
        let (mut group, all) = Group::of(3).await;
        let [a, b, c] = all.as_slice() else { panic!("three") };
        group.run(a.commit(note(1))).await.unwrap();
        let commit = a.last_commit().unwrap();
        let durable = group.run(a.wait_durable_on(3, commit, LONG)).await.unwrap();
        assert_eq!(durable.members, [a.replica(), b.replica(), c.replica()]);
        for library in [b, c] {
            // Others know of it too, once all have said hello.
            let durable = group.run(library.wait_durable_on(3, commit, LONG)).await.unwrap();
            assert_eq!((durable.count(), durable.relayed), (3, vec![]));
        }
        let status = group.run(a.status()).await.unwrap();
        let own = |lag: &&(ReplicaId, u64)| lag.0 == a.replica();
        assert!(status.peers.iter().all(|peer| peer.behind.iter().find(own).is_none()), "{status:?}");
        assert_eq!(status.commits, commit.seq);
    });
}

/// The commits of others have names too: those of events.
#[test]
fn y23_an_event_names_its_commit() {
    block_on(async {
        let (mut group, all) = Group::of(2).await;
        let [a, b] = all.as_slice() else { panic!("two") };
        let mut events = b.events();
        group.run(a.commit(note(1))).await.unwrap();
        let commit = a.last_commit().unwrap();
        let told = loop {
            if let Some(Ok(syncline::Event::Changed(change))) = group.run(events.next()).await {
                break change.commit();
            }
        };
        assert_eq!(told, commit);
        // A call that changes nothing makes no commit.
        group.run(a.commit(note(1))).await.unwrap();
        assert_eq!(a.last_commit(), Some(commit));
        group.run(b.commit(note(2))).await.unwrap();
        assert_eq!((a.last_commit(), b.last_commit().unwrap().seq), (Some(commit), 1));
    });
}

#[test]
fn y23_a_wait_ends_with_its_time_and_says_what_differs() {
    block_on(async {
        let (mut group, all) = Group::of(2).await;
        let [a, b] = all.as_slice() else { panic!("two") };
        group.block(0, 1);
        group.run(a.commit(note(1))).await.unwrap();
        let (commit, before) = (a.last_commit().unwrap(), group.now());
        let durable = group.run(a.wait_durable_on(2, commit, SECOND)).await.unwrap();
        assert_eq!(durable.members, [a.replica()]);
        assert!((1_000..1_100).contains(&(group.now() - before)), "{} ms", group.now() - before);
        let Synced::NotYet(unsynced) = group.run(a.wait_synced(SECOND)).await.unwrap() else {
            panic!("b cannot have it");
        };
        let lags: Vec<_> = unsynced
            .peers
            .iter()
            .map(|lag| (lag.replica, lag.missing_there, lag.missing_here.len()))
            .collect();
        assert_eq!(lags, [(b.replica(), 1, 0)]);
        group.network.heal();
        let synced = group.run(a.wait_synced(LONG)).await.unwrap();
        assert!(synced.is_level(), "{synced:?}");
        assert_eq!(group.run(a.durable_on(commit)).await.unwrap().count(), 2);
    });
}

#[test]
fn y23_a_peer_that_goes_away_is_waited_for_no_more() {
    block_on(async {
        let (mut group, all) = Group::of(3).await;
        let [a, b, c] = all.as_slice() else { panic!("three") };
        group.block(0, 1);
        group.block(0, 2);
        group.run(a.commit(note(1))).await.unwrap();
        let network = group.network.clone();
        let goes = async |from: &Library, to: &Library| {
            some_time().await;
            network.disconnect(from.replica(), to.replica());
        };
        network.set(a.replica(), c.replica(), Link::default());
        let (synced, ()) = group.run(join(a.wait_synced(LONG), goes(a, b))).await;
        let Ok(Synced::Level { with, away, .. }) = synced else { panic!("{synced:?}") };
        assert_eq!((with, away), (vec![c.replica()], vec![b.replica()]));
        group.block(0, 2);
        group.run(a.commit(note(2))).await.unwrap();
        let (synced, ()) = group.run(join(a.wait_synced(LONG), goes(a, c))).await;
        let Ok(Synced::Alone { away }) = synced else { panic!("{synced:?}") };
        assert_eq!(away, [b.replica(), c.replica()]);
    });
}

/// In a star the phone hears the hub alone, which tells it of the laptop.
#[test]
fn y23_a_commit_is_waited_for_through_a_hub() {
    block_on(async {
        let (mut group, all) = Group::of(3).await;
        let [hub, phone, laptop] = all.as_slice() else { panic!("three") };
        group.network.disconnect(phone.replica(), laptop.replica());
        group.run(phone.commit(note(1))).await.unwrap();
        let commit = phone.last_commit().unwrap();
        let durable = group.run(phone.wait_durable_on(3, commit, LONG)).await.unwrap();
        assert_eq!(durable.members, [hub.replica(), phone.replica()]);
        assert_eq!(durable.relayed, [laptop.replica()]);
    });
}

#[test]
fn y23_a_joiner_waits_until_it_is_a_member_and_has_everything() {
    block_on(async {
        let (mut group, all) = Group::of(2).await;
        let [a, b] = all.as_slice() else { panic!("two") };
        for id in 0..100 {
            group.run(a.commit(note(id))).await.unwrap();
        }
        let c = group.open(2, &MemoryDisk::new(), Some(a.replica())).await;
        let adds = async {
            some_time().await;
            a.add_member(c.replica()).await
        };
        let (synced, added) = group.run(join(c.wait_synced(LONG), adds)).await;
        added.unwrap();
        assert!(matches!(&synced, Ok(synced @ Synced::Level { .. }) if synced.is_level()), "{synced:?}");
        assert!(c.get::<Note>(99).await.unwrap().is_some());
        let commit = a.last_commit().unwrap();
        let durable = group.run(a.wait_durable_on(3, commit, LONG)).await.unwrap();
        assert_eq!(durable.members, [a.replica(), b.replica(), c.replica()]);
    });
}

/// Otherwise an app that commits all the time never learns that its older commits have arrived.
#[test]
fn y23_a_wait_ends_beside_writers_that_never_stop() {
    block_on(async {
        let (mut group, all) = Group::of(2).await;
        let [a, b] = all.as_slice() else { panic!("two") };
        let writes = async |library: &Library| {
            for id in 0.. {
                library.commit(note(id % 50)).await.unwrap();
                library.delete::<Note>(id % 50).await.unwrap();
            }
        };
        let writers = join(writes(a), writes(b));
        let waits = async {
            some_time().await;
            a.wait_synced(LONG).await.unwrap()
        };
        let synced = group.run(select(Box::pin(waits), Box::pin(writers))).await;
        assert!(matches!(synced, Either::Left((synced, _)) if synced.is_level()));
    });
}

/// A copy of a disk, as a backup makes it.
async fn copy(disk: &MemoryDisk) -> MemoryDisk {
    let copy = MemoryDisk::new();
    let page = MemoryStorage::open(disk).scan(KeyRange::all(), ScanLimit::NONE).await.unwrap();
    let mut batch = WriteBatch::new();
    page.entries.into_iter().for_each(|entry| batch.put(entry.key, entry.value));
    MemoryStorage::open(&copy).write(batch).await.unwrap();
    copy
}

#[test]
fn y23_a_restored_store_has_acknowledged_nothing() {
    block_on(async {
        let (mut group, all) = Group::of(2).await;
        let [a, _] = all.as_slice() else { panic!("two") };
        let disk = MemoryDisk::new();
        let c = group.open(2, &disk, Some(a.replica())).await;
        group.run(a.add_member(c.replica())).await.unwrap();
        assert!(group.run(c.wait_synced(LONG)).await.unwrap().is_level());
        group.run(c.shutdown()).await.unwrap();
        let backup = copy(&disk).await;
        let c = group.open(2, &disk, Some(a.replica())).await;
        group.run(c.commit(note(1))).await.unwrap();
        group.run(a.commit(note(2))).await.unwrap();
        let commit = a.last_commit().unwrap();
        assert_eq!(group.run(a.wait_durable_on(3, commit, LONG)).await.unwrap().count(), 3);
        assert!(group.run(c.wait_synced(LONG)).await.unwrap().is_level());
        group.run(c.shutdown()).await.unwrap();
        let c = group.open(2, &backup, Some(a.replica())).await;
        let failed = group.run(c.wait_synced(LONG)).await;
        let synced = match failed {
            // It was level before it learned that its store is an old one.
            Ok(_) => {
                group.run(some_time()).await;
                group.run(c.wait_synced(LONG)).await
            }
            failed => failed,
        };
        assert!(matches!(synced, Err(Error::Restored(_))), "{synced:?}");
        group.run(some_time()).await;
        let durable = group.run(a.durable_on(commit)).await.unwrap();
        assert!(!durable.contains(c.replica()), "{durable:?}");
        let synced = group.run(a.wait_synced(SECOND)).await.unwrap();
        let Synced::NotYet(unsynced) = synced else { panic!("{synced:?}") };
        let restored: Vec<_> = unsynced.peers.iter().map(|lag| (lag.replica, lag.restored)).collect();
        assert_eq!(restored, [(c.replica(), true)]);
    });
}

/// Waits for some turns, then drops the call; returns whether it was not answered by then.
async fn given_up(turns: usize, call: impl Future) -> bool {
    let gives_up = async {
        for _ in 0..turns {
            turn().await;
        }
    };
    matches!(select(Box::pin(call), Box::pin(gives_up)).await, Either::Right(_))
}

/// X1: a wait that is dropped is gone, whenever that is, and the next one is answered.
#[test]
fn x1_a_wait_that_is_dropped_disturbs_no_other() {
    block_on(async {
        let (mut group, all) = Group::of(2).await;
        let [a, b] = all.as_slice() else { panic!("two") };
        group.block(0, 1);
        group.run(a.commit(note(1))).await.unwrap();
        let commit = a.last_commit().unwrap();
        for turns in 0..4 {
            assert!(group.run(given_up(turns, a.wait_synced(LONG))).await);
            assert!(group.run(given_up(turns, a.wait_durable_on(2, commit, LONG))).await);
        }
        let network = group.network.clone();
        let heals = async {
            some_time().await;
            network.heal();
        };
        let both = join(a.wait_synced(LONG), a.wait_durable_on(2, commit, LONG));
        let ((synced, durable), ()) = group.run(join(both, heals)).await;
        assert!(synced.unwrap().is_level());
        assert_eq!(durable.unwrap().members, [a.replica(), b.replica()]);
    });
}

/// X3: the end of the driver answers every call that waits.
#[test]
fn x3_every_wait_returns_when_the_driver_ends() {
    block_on(async {
        let (mut group, all) = Group::of(2).await;
        let [a, _] = all.as_slice() else { panic!("two") };
        group.block(0, 1);
        group.run(a.commit(note(1))).await.unwrap();
        let commit = a.last_commit().unwrap();
        let shuts_down = async {
            some_time().await;
            a.shutdown().await
        };
        let both = join(a.wait_synced(LONG), a.wait_durable_on(2, commit, LONG));
        let ((synced, durable), ended) = group.run(join(both, shuts_down)).await;
        ended.unwrap();
        assert!(matches!(synced, Err(Error::Stopped(StopReason::Shutdown))), "{synced:?}");
        assert!(matches!(durable, Err(Error::Stopped(StopReason::Shutdown))), "{durable:?}");
        let late = a.wait_synced(LONG).await;
        assert!(matches!(late, Err(Error::Stopped(StopReason::Shutdown))), "{late:?}");
    });
}

/// The sum is what a scan of the store finds, over many pages; tombstones are told from records.
#[test]
fn the_usage_counts_every_row_of_the_store_once() {
    block_on(async {
        let (mut group, all) = Group::of(2).await;
        let [a, b] = all.as_slice() else { panic!("two") };
        let fills = a.commit_batch(|batch| {
            for id in 0..1_000 {
                batch.put(&note(id))?;
            }
            Ok(())
        });
        group.run(fills).await.unwrap();
        for id in 0..7 {
            group.run(a.delete::<Note>(id)).await.unwrap();
        }
        assert!(group.run(a.wait_synced(LONG)).await.unwrap().is_level());
        let log = a.last_commit().unwrap().seq + b.last_commit().map_or(0, |commit| commit.seq);
        for library in [a, b] {
            let usage = library.usage().await.unwrap();
            let members = 2;
            assert_eq!((usage.records.rows, usage.tombstones.rows), (993 + members, 7));
            assert_eq!((usage.log.rows, usage.kept.rows), (log, 7), "a value that a log entry needs is kept");
            assert!(usage.records.bytes > 993 * 10 && usage.other.rows > 0);
        }
    });
}
