//! Goal: a replica that is shut down while a commit waits for its record to be folded ends, and does not run in circles
//! until then. Method: values lie beside a record, and after an update of the app the store
//! fails once to read them.
#![allow(clippy::unwrap_used, reason = "helpers of a test, not themselves marked as one")]

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::block_on;
use futures::future::{Either, join, join3, select};
use serde::{Deserialize, Serialize};
use syncline::{
    Builder, DeviceId, GroupId, Incoming, ReplicaId, Storage, Syncable, TransactionManager, Transport,
    TransportError, Uuid,
};
use syncline_backends::{MemoryNetwork, MemoryStorage};
use syncline_testkit::{Disk, Fault, FaultKind, Faults, Faulty, Fixture as _, StepClock};

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "bag", merge = Self::union)]
struct Bag {
    #[sync(id)]
    id: u32,
    items: BTreeSet<u32>,
}

impl Bag {
    fn union(mut self, other: Self) -> Self {
        self.items.extend(other.items);
        self
    }
}

const A: ReplicaId = ReplicaId(Uuid::from_u128(0xa));
const B: ReplicaId = ReplicaId(Uuid::from_u128(0xb));
const DEVICE: DeviceId = DeviceId(Uuid::from_u128(0xd));
const GROUP: GroupId = GroupId(Uuid::from_u128(0xf));

fn replica<S: Storage>(store: S, replica: ReplicaId, clock: &StepClock) -> Builder<S> {
    TransactionManager::builder(store).device(DEVICE).replica(replica).clock(clock.clone())
}

fn bag(item: u32) -> Bag {
    Bag { id: 1, items: [item].into() }
}

/// Lets the drivers run.
async fn give_way() {
    let mut gone = false;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut gone, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// How often a driver may ask for frames while it waits for one thing.
const POLLS_MAX: u32 = 1_000;

/// A transport without peers, which is asked for frames so often. If that is too often, time passes, so that a driver
/// that never waits ends all the same.
struct Asked {
    polls: Arc<AtomicU32>,
    clock: StepClock,
}

#[async_trait]
impl Transport for Asked {
    async fn attach(&self, _: ReplicaId) -> Result<(), TransportError> {
        Ok(())
    }

    async fn send(&self, _: ReplicaId, _: Bytes) -> Result<(), TransportError> {
        Ok(())
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        poll_fn(|_| {
            if self.polls.fetch_add(1, SeqCst) < POLLS_MAX {
                return Poll::Pending;
            }
            self.clock.advance(60_000);
            Poll::Ready(Ok(Incoming::Down(A)))
        })
        .await
    }
}

#[test]
fn a_replica_that_closes_while_a_commit_waits_does_not_run_in_circles() {
    let (network, clock, disk) = (MemoryNetwork::new(), StepClock::at(1_000_000), Disk::new());
    block_on(async {
        let a = replica(MemoryStorage::new(), A, &clock).transport(network.transport()).model::<Bag>();
        let (a, driver_of_a) = a.found(GROUP).open().await.unwrap();
        let b = replica(disk.open().await.unwrap(), B, &clock).transport(network.transport());
        let (b, driver_of_b) = b.join(GROUP, A).open().await.unwrap();
        let app = async {
            a.take_over(B, DEVICE).await.unwrap();
            for item in 0..3 {
                a.commit(bag(item)).await.unwrap();
            }
            let has_all = async || {
                let status = a.status().await.unwrap();
                status.peers.iter().any(|peer| peer.acknowledged == status.commits)
            };
            while !has_all().await {
                clock.advance(10);
                give_way().await;
            }
            b.shutdown().await.unwrap();
            a.shutdown().await.unwrap();
        };
        let _ = join3(driver_of_a.run(), driver_of_b.run(), app).await;

        let faults = Faults::new();
        let store = Faulty::new(disk.open().await.unwrap(), faults.clone());
        let polls = Arc::<AtomicU32>::default();
        let transport = Asked { polls: Arc::clone(&polls), clock: clock.clone() };
        let b = replica(store, B, &clock).transport(transport).model::<Bag>();
        let (b, driver) = b.open().await.unwrap();
        // The first page to fold cannot be read, so folding pauses. The commit waits for it, since it reads a record beside
        // which values lie.
        faults.arm(Fault::once(0, FaultKind::ReadError));
        let app = async {
            let calls = join(b.commit(bag(9)), b.shutdown());
            let time = async {
                loop {
                    clock.advance(100);
                    give_way().await;
                }
            };
            let Either::Left(((committed, shut), _)) = select(pin!(calls), pin!(time)).await;
            assert!(faults.fired());
            assert_eq!(committed.unwrap().items, [0, 1, 2, 9].into());
            shut.unwrap();
        };
        let (ended, ()) = join(driver.run(), app).await;
        ended.unwrap();
        let polls = polls.load(SeqCst);
        assert!(polls < POLLS_MAX, "it has asked for frames {polls} times");
    });
}
