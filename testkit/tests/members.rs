//! Goal: what several members decide about the group at once ends the same everywhere, and a large group sends few frames.
//! Method: whole replicas on a network in memory, whose drivers run side by side, and time that passes step by step.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::future::Future;
use std::task::Poll;

use futures::executor::block_on;
use futures::future::{BoxFuture, join_all, poll_fn, select};
use serde::{Deserialize, Serialize};
use syncline::{
    Builder, DeviceId, Error, Event, Events, GroupId, JoinWait, Member, ReplicaId, StopReason, Storage,
    Syncable, TransactionManager, Uuid,
};
use syncline_backends::{Link, MemoryDisk, MemoryNetwork, MemoryStorage};
use syncline_testkit::StepClock;

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "note")]
struct Note {
    #[sync(id)]
    id: u32,
}

type Library = TransactionManager<MemoryStorage>;

const GROUP: GroupId = GroupId(Uuid::from_u128(0xf));
const WRONG: DeviceId = DeviceId(Uuid::from_u128(0x1));

fn replica(n: u128) -> ReplicaId {
    ReplicaId(Uuid::from_u128(0xa0 + n))
}

fn device(n: u128) -> DeviceId {
    DeviceId(Uuid::from_u128(0xd0 + n))
}

/// A group whose drivers run whenever its test waits.
struct Group {
    network: MemoryNetwork,
    clock: StepClock,
    drivers: Vec<BoxFuture<'static, Result<(), StopReason>>>,
}

impl Group {
    fn new() -> Self {
        Self {
            network: MemoryNetwork::builder().build(),
            clock: StepClock::at(1_000_000),
            drivers: Vec::new(),
        }
    }

    fn builder<S: Storage>(&self, store: S, n: u128) -> Builder<S> {
        let builder = TransactionManager::builder(store).device(device(n)).replica(replica(n));
        builder.model::<Note>().clock(self.clock.clone()).transport(self.network.transport())
    }

    async fn open(&mut self, builder: Builder<MemoryStorage>) -> Library {
        let (library, driver) = builder.open().await.unwrap();
        self.drivers.push(Box::pin(driver.run()));
        library
    }

    async fn found(&mut self, n: u128) -> Library {
        self.open(self.builder(MemoryStorage::new(), n).found(GROUP)).await
    }

    /// A group with its founder, replica 0, and a member, replica 1.
    async fn of_two() -> (Self, Library, Library) {
        let mut group = Self::new();
        let a = group.found(0).await;
        let b = group.join(1, 0).await;
        group.run(a.add_member(replica(1))).await.unwrap();
        group.becomes_member(&b).await;
        (group, a, b)
    }

    async fn join(&mut self, n: u128, introducer: u128) -> Library {
        self.open(self.builder(MemoryStorage::new(), n).join(GROUP, replica(introducer))).await
    }

    /// Lets the drivers run until `call` returns.
    async fn run<T>(&mut self, call: impl Future<Output = T>) -> T {
        let drivers = join_all(self.drivers.iter_mut());
        match select(Box::pin(call), drivers).await {
            futures::future::Either::Left((result, _)) => result,
            futures::future::Either::Right((ended, _)) => panic!("the drivers ended: {ended:?}"),
        }
    }

    /// Lets the drivers run while time passes, in steps of 10 ms, until `condition` holds.
    async fn until(&mut self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let clock = self.clock.clone();
        self.run(async {
            for _ in 0..12_000 {
                if condition().await {
                    return;
                }
                clock.advance(10);
                turn().await;
            }
            panic!("not within two minutes: {what}");
        })
        .await;
    }

    /// Lets the drivers run while so many milliseconds pass.
    async fn pass(&mut self, ms: u64) {
        let clock = self.clock.clone();
        self.run(async {
            for _ in 0..ms / 10 {
                clock.advance(10);
                turn().await;
            }
        })
        .await;
    }

    async fn becomes_member(&mut self, library: &Library) {
        self.until("it is a member", async || library.status().await.unwrap().joining.is_none()).await;
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

async fn has(library: &Library, id: u32) -> bool {
    library.get::<Note>(id).await.unwrap().is_some()
}

fn is_wrong(wait: Option<JoinWait>) -> bool {
    matches!(wait, Some(JoinWait::OtherDevice { added: WRONG, .. }))
}

async fn told(events: &mut Events, wanted: impl Fn(&Event) -> bool) {
    while !wanted(&events.next().await.expect("the driver runs").unwrap()) {}
}

/// Y19: the add that was first counts everywhere. The replica is at work already when it hears of the other one.
#[test]
fn y19_two_members_add_one_replica_on_two_devices_at_once() {
    for wrong_is_first in [true, false] {
        block_on(async {
            let mut group = Group::new();
            let a = group.found(0).await;
            let b = group.join(1, 0).await;
            group.run(a.add_member_on(replica(1), device(1))).await.unwrap();
            group.becomes_member(&b).await;
            let r = group.join(2, 1).await;
            let mut events = r.events();
            for other in [1, 2] {
                group.network.disconnect(replica(0), replica(other));
            }
            if wrong_is_first {
                group.run(a.add_member_on(replica(2), WRONG)).await.unwrap();
            }
            group.pass(1_000).await;
            group.run(b.add_member(replica(2))).await.unwrap();
            group.becomes_member(&r).await;
            group.run(r.commit(Note { id: 1 })).await.unwrap();
            group.pass(1_000).await;
            if !wrong_is_first {
                group.run(a.add_member_on(replica(2), WRONG)).await.unwrap();
            }

            for other in [1, 2] {
                group.network.connect(replica(0), replica(other));
            }
            let all = [&a, &b, &r];
            let settled = async || {
                let mut records = Vec::new();
                for library in all {
                    records.push(library.get::<Member>(replica(2)).await.unwrap());
                    if !has(library, 1).await {
                        return false;
                    }
                }
                let device = if wrong_is_first { WRONG } else { device(2) };
                records.iter().all(|record| *record == records[0])
                    && records[0].as_ref().is_some_and(|member| member.device == device)
            };
            group.until("all have the same records, and the commit", settled).await;
            for library in all {
                let streams = group.run(library.status()).await.unwrap().streams;
                assert!(streams.iter().all(|stream| stream.stopped.is_none()), "{streams:?}");
            }
            if !wrong_is_first {
                group.run(r.commit(Note { id: 2 })).await.unwrap();
                assert_eq!(group.run(r.status()).await.unwrap().joining, None);
                return;
            }

            // The replica stops, and says so.
            group
                .run(told(&mut events, |event| matches!(event, Event::Joining(JoinWait::OtherDevice { .. }))))
                .await;
            assert!(is_wrong(group.run(r.status()).await.unwrap().joining));
            let refused = group.run(r.commit(Note { id: 2 })).await;
            assert!(
                matches!(refused, Err(Error::Joining { wait, .. }) if is_wrong(Some(wait))),
                "{refused:?}"
            );
            // Both see that it knocks. A member that does not ask whether it does is told that it is at work elsewhere.
            let knocks = async || {
                let peers = a.status().await.unwrap().peers;
                peers.iter().any(|peer| peer.replica == replica(2) && peer.knocks == Some(device(2)))
            };
            group.until("it knocks", knocks).await;
            let elsewhere = group.run(a.add_member_on(replica(2), device(7))).await;
            assert!(matches!(elsewhere, Err(Error::KnocksOnOtherDevice { .. })), "{elsewhere:?}");
            group.run(a.add_member(replica(2))).await.unwrap();
            group.becomes_member(&r).await;
            group.run(told(&mut events, |event| *event == Event::Joined)).await;
            group.run(r.commit(Note { id: 3 })).await.unwrap();
            let all_have = async || has(&a, 3).await && has(&b, 3).await;
            group.until("all have what it commits again", all_have).await;
        });
    }
}

/// A member at work is not moved to another device, whoever tries.
#[test]
fn y19_a_member_at_work_is_added_on_no_other_device() {
    block_on(async {
        let (mut group, a, b) = Group::of_two().await;
        let refused = group.run(a.add_member_on(replica(1), WRONG)).await;
        assert!(matches!(refused, Err(Error::MemberOnOtherDevice { .. })), "{refused:?}");
        assert_eq!(
            group.run(a.add_member_on(replica(1), device(1))).await.ok(),
            Some(()),
            "it is there already"
        );
        assert_eq!(b.get::<Member>(replica(1)).await.unwrap().map(|member| member.device), Some(device(1)));
    });
}

/// The introducer of a joiner is lost for good before it has added it: opened again with another one, it joins by that.
#[test]
fn a_joiner_is_given_another_introducer() {
    block_on(async {
        let (mut group, _a, b) = Group::of_two().await;
        let disk = MemoryDisk::new();
        let builder = group.builder(MemoryStorage::open(&disk), 2).join(GROUP, replica(0));
        let r = group.open(builder).await;
        group.pass(5_000).await;
        group.network.disconnect(replica(0), replica(2));
        group.network.disconnect(replica(0), replica(1));
        group.pass(50).await;
        let joining = group.run(r.status()).await.unwrap().joining;
        assert!(matches!(joining, Some(JoinWait::NoAnswer { introducer, .. }) if introducer == replica(0)));
        let driver = group.drivers.pop().unwrap();
        drop((driver, r));

        for opening in 0..2 {
            // The second opening names no introducer: the store remembers the last one.
            let builder = group.builder(MemoryStorage::open(&disk), 2);
            let builder = if opening == 0 { builder.join(GROUP, replica(1)) } else { builder };
            let r = group.open(builder).await;
            group.network.disconnect(replica(0), replica(2));
            if opening == 0 {
                let asks = async || {
                    let joining = r.status().await.unwrap().joining;
                    matches!(joining, Some(JoinWait::NotAdded { introducer }) if introducer == replica(1))
                };
                group.until("it asks the other one", asks).await;
                let driver = group.drivers.pop().unwrap();
                drop((driver, r));
                continue;
            }
            group.run(b.add_member(replica(2))).await.unwrap();
            group.becomes_member(&r).await;
            group.run(r.commit(Note { id: 1 })).await.unwrap();
            group.until("its introducer has it", async || has(&b, 1).await).await;
        }
    });
}

/// The frames of a commit of one author, with everything that it causes, at most four for each member.
#[test]
fn a_commit_takes_at_most_four_frames_a_member() {
    for size in [2, 3, 8, 32_u32] {
        block_on(async {
            let mut group = Group::new();
            let founder = group.found(0).await;
            let mut others = Vec::new();
            for n in 1..u128::from(size) {
                let joiner = group.join(n, 0).await;
                group.run(founder.add_member(replica(n))).await.unwrap();
                group.becomes_member(&joiner).await;
                others.push(joiner);
            }
            // The first hellos are corrected, since not all were heard by then.
            group.pass(8_000).await;
            const COMMITS: u32 = 5;
            // The least of some commits: now and then a hello falls between them, which has its own cost.
            let mut least = u64::MAX;
            for id in 0..COMMITS {
                group.network.reset_traffic();
                group.run(founder.commit(Note { id })).await.unwrap();
                group.pass(300).await;
                least = least.min(group.network.total().sent_frames);
                for other in &others {
                    assert!(has(other, id).await, "{size} members");
                }
            }
            assert!(least <= u64::from(4 * size), "{size} members: {least} frames a commit");
            // A commit is acknowledged by all of them.
            let peers = group.run(founder.status()).await.unwrap().peers;
            assert!(peers.iter().all(|peer| peer.acknowledged > u64::from(COMMITS)), "{peers:?}");
        });
    }
}

/// A lost commit is noticed within a second, though its author says nothing more.
#[test]
fn a_lost_commit_is_noticed_by_the_word_of_others() {
    block_on(async {
        let mut group = Group::new();
        let founder = group.found(0).await;
        let mut others = Vec::new();
        for n in 1..8 {
            let joiner = group.join(n, 0).await;
            group.run(founder.add_member(replica(n))).await.unwrap();
            group.becomes_member(&joiner).await;
            others.push(joiner);
        }
        group.pass(8_000).await;
        for (id, lost) in (1..8).enumerate() {
            let id = u32::try_from(id).unwrap();
            let link = Link { blocked: true, ..Default::default() };
            group.network.set(replica(0), replica(lost), link);
            group.run(founder.commit(Note { id })).await.unwrap();
            let library = &others[usize::try_from(lost).unwrap() - 1];
            group.pass(1_000).await;
            assert!(has(library, id).await, "member {lost}");
            group.network.set(replica(0), replica(lost), Default::default());
        }
    });
}
