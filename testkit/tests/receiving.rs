//! Goal: a replica checks the commits and answers the pulls of its peers while its store writes. Method: two replicas
//! whose drivers run beside the app, and a gate before the writes of one.
#![allow(clippy::unwrap_used, reason = "helpers of a test, not themselves marked as one")]

use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::block_on;
use futures::future::{join, join3, pending, poll_fn};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use syncline::{
    Builder, DeviceId, GroupId, Incoming, ReplicaId, Storage, Syncable, TransactionManager, Transport,
    TransportError, Uuid,
};
use syncline_backends::{MemoryNetwork, MemoryStorage};
use syncline_testkit::{Gate, Gated, StepClock};

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "note")]
struct Note {
    #[sync(id)]
    id: u32,
}

const A: ReplicaId = ReplicaId(Uuid::from_u128(0xa));
const B: ReplicaId = ReplicaId(Uuid::from_u128(0xb));
const DEVICE: DeviceId = DeviceId(Uuid::from_u128(0xd));
const GROUP: GroupId = GroupId(Uuid::from_u128(0xf));

fn replica<S: Storage>(
    store: S,
    replica: ReplicaId,
    transport: impl Transport + 'static,
    clock: &StepClock,
) -> Builder<S> {
    TransactionManager::builder(store)
        .device(DEVICE)
        .replica(replica)
        .model::<Note>()
        .clock(clock.clone())
        .transport(transport)
}

/// Lets the drivers run and time pass until `condition` holds.
async fn until(what: &str, clock: &StepClock, mut condition: impl AsyncFnMut() -> bool) {
    let mut turns = 0;
    while !condition().await {
        turns += 1;
        assert!(turns < 1000, "{what}");
        clock.advance(10);
        let mut gone = false;
        poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut gone, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[test]
fn what_comes_during_a_write_is_checked_meanwhile_and_shares_the_next_one() {
    const COMMITS: u32 = 10;
    let (network, clock, gate) = (MemoryNetwork::builder().build(), StepClock::at(1_000_000), Gate::new());
    block_on(async {
        let a = replica(MemoryStorage::new(), A, network.transport(), &clock).found(GROUP).open();
        let (a, driver_of_a) = a.await.unwrap();
        let store = Gated::writes(MemoryStorage::new(), gate.clone());
        let (b, driver_of_b) =
            replica(store, B, network.transport(), &clock).join(GROUP, A).open().await.unwrap();
        let app = async {
            a.take_over(B, DEVICE).await.unwrap();
            until("B is a member", &clock, async || b.status().await.unwrap().joining.is_none()).await;
            gate.close();
            let passed = gate.passed();
            a.commit(Note { id: 0 }).await.unwrap();
            let writes = async || gate.passed() > passed || b.status().await.unwrap().received == 0;
            until("B begins to write", &clock, writes).await;
            for id in 1..=COMMITS {
                a.commit(Note { id }).await.unwrap();
            }
            let all = COMMITS as usize;
            let waits = async || b.status().await.unwrap().received == all;
            until("all are checked while the write stands still", &clock, waits).await;
            assert_eq!(b.get::<Note>(1).await.unwrap().map(|note| note.id), None);
            gate.open();
            let has_all = async || b.get::<Note>(COMMITS).await.unwrap().is_some();
            until("B has all", &clock, has_all).await;
            assert_eq!(gate.passed() - passed, 2, "one write for the first, one for all that came meanwhile");
            a.shutdown().await.unwrap();
            b.shutdown().await.unwrap();
        };
        let (of_a, of_b, ()) = join3(driver_of_a.run(), driver_of_b.run(), app).await;
        of_a.unwrap();
        of_b.unwrap();
    });
}

#[test]
fn peers_are_served_during_a_write() {
    const COMMITS: u32 = 10;
    let (network, clock, gate) = (MemoryNetwork::builder().build(), StepClock::at(1_000_000), Gate::new());
    block_on(async {
        let store = Gated::writes(MemoryStorage::new(), gate.clone());
        let (a, driver_of_a) =
            replica(store, A, network.transport(), &clock).found(GROUP).open().await.unwrap();
        let b = replica(MemoryStorage::new(), B, network.transport(), &clock).join(GROUP, A).open();
        let (b, driver_of_b) = b.await.unwrap();
        let app = async {
            a.take_over(B, DEVICE).await.unwrap();
            until("B is a member", &clock, async || b.status().await.unwrap().joining.is_none()).await;
            network.disconnect(A, B);
            for id in 0..COMMITS {
                a.commit(Note { id }).await.unwrap();
            }
            gate.close();
            let late = async {
                a.commit(Note { id: COMMITS }).await.unwrap();
            };
            let others = async {
                network.connect(A, B);
                let has_all = async || b.get::<Note>(COMMITS - 1).await.unwrap().is_some();
                until("B has what A had written", &clock, has_all).await;
                assert!(b.get::<Note>(COMMITS).await.unwrap().is_none());
                gate.open();
            };
            join(late, others).await;
            let has_all = async || b.get::<Note>(COMMITS).await.unwrap().is_some();
            until("B has the last one", &clock, has_all).await;
            a.shutdown().await.unwrap();
            b.shutdown().await.unwrap();
        };
        let (of_a, of_b, ()) = join3(driver_of_a.run(), driver_of_b.run(), app).await;
        of_a.unwrap();
        of_b.unwrap();
    });
}

/// A member that pulls everything again and again, and takes no answer.
#[derive(Default)]
struct Insatiable(AtomicU32);

impl Insatiable {
    /// More pulls than the driver takes if it gives way to others.
    const ASKS_MAX: u32 = 100_000;
}

#[async_trait]
impl Transport for Insatiable {
    async fn attach(&self, _: ReplicaId) -> Result<(), TransportError> {
        Ok(())
    }

    async fn send(&self, _: ReplicaId, _: Bytes) -> Result<(), TransportError> {
        Ok(())
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(Incoming::Up(B)),
            Self::ASKS_MAX.. => pending().await,
            asks => {
                let [.., id] = asks.to_be_bytes();
                // The body of a pull: its id, the bytes of a page and of a frame, no heads, no streams that are left out.
                Ok(Incoming::Frame {
                    from: B,
                    bytes: syncline::internals::fuzz::seal(GROUP, 3, &[id & 0x3f, 100, 100, 0, 0]),
                })
            }
        }
    }
}

#[test]
fn pulls_that_never_end_keep_nobody_from_running_during_a_write() {
    let (clock, gate, peer) = (StepClock::at(1_000_000), Gate::new(), Arc::new(Insatiable::default()));
    block_on(async {
        let store = Gated::writes(MemoryStorage::new(), gate.clone());
        let (a, driver) = replica(store, A, Arc::clone(&peer), &clock).found(GROUP).open().await.unwrap();
        let app = async {
            a.take_over(B, DEVICE).await.unwrap();
            gate.close();
            let mut turns = 0;
            let others = async {
                until("others ran", &clock, async || {
                    turns += 1;
                    turns > 10
                })
                .await;
                gate.open();
            };
            let (written, ()) = join(a.commit(Note { id: 1 }), others).await;
            written.unwrap();
            let asks = peer.0.load(Ordering::Relaxed);
            assert!((100..Insatiable::ASKS_MAX).contains(&asks), "it was heard {asks} times");
            a.shutdown().await.unwrap();
        };
        let (ended, ()) = join(driver.run(), app).await;
        ended.unwrap();
    });
}

/// A member that says once that it has a commit, answers nothing, and then never stops sending.
struct Restless {
    clock: StepClock,
    /// Whether it has been added: before that, nobody listens to it.
    is_member: AtomicBool,
    heard: AtomicU32,
    /// The kinds of the messages that it was sent.
    sent: Mutex<Vec<u8>>,
}

impl Restless {
    const FRAMES: u32 = 10_000;
    const FRAME_EVERY_MS: u64 = 20;
    const HELLO: u8 = 1;
    const PULL: u8 = 3;
    const ACK: u8 = 6;

    fn is_done(&self) -> bool {
        self.heard.load(Ordering::Relaxed) >= Self::FRAMES
    }

    fn count(&self, kind: u8) -> usize {
        self.sent.lock().unwrap().iter().filter(|sent| **sent == kind).count()
    }

    /// A hello with a head of the own stream.
    fn hello() -> Bytes {
        // The session, features, not restored; no wall clock, a timer, no echo; nobody knocks, is unheard or relayed.
        let mut body = vec![7, 0, 0, 0, 1, 0, 0, 0, 0];
        // One head: its stream, its number, its digest.
        body.extend([1, 16]);
        body.extend(B.0.as_bytes());
        body.push(1);
        body.extend([9; 32]);
        syncline::internals::fuzz::seal(GROUP, Self::HELLO, &body)
    }
}

#[async_trait]
impl Transport for Restless {
    async fn attach(&self, _: ReplicaId) -> Result<(), TransportError> {
        Ok(())
    }

    async fn send(&self, _: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
        if !self.is_done() {
            self.sent.lock().unwrap().extend(frame.get(6));
        }
        Ok(())
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        if !self.is_member.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        let bytes = match self.heard.fetch_add(1, Ordering::Relaxed) {
            0 => return Ok(Incoming::Up(B)),
            1 => Self::hello(),
            Self::FRAMES.. => pending().await,
            // An acknowledgement of nothing.
            _ => syncline::internals::fuzz::seal(GROUP, Self::ACK, &[0]),
        };
        self.clock.advance(Self::FRAME_EVERY_MS);
        Ok(Incoming::Frame { from: B, bytes })
    }
}

/// The driver of a busy replica never waits for a timer. Hellos and the patience with a pull must not depend on that.
#[test]
fn timers_fire_while_frames_never_stop_coming() {
    let clock = StepClock::at(1_000_000);
    let peer = Arc::new(Restless {
        clock: clock.clone(),
        is_member: AtomicBool::new(false),
        heard: AtomicU32::new(0),
        sent: Mutex::default(),
    });
    block_on(async {
        let opened = replica(MemoryStorage::new(), A, Arc::clone(&peer), &clock).found(GROUP).open();
        let (a, driver) = opened.await.unwrap();
        let app = async {
            a.take_over(B, DEVICE).await.unwrap();
            peer.is_member.store(true, Ordering::Relaxed);
            // The call wakes the driver, so that it asks the transport again.
            a.status().await.unwrap();
            until("all frames have come", &clock, async || peer.is_done()).await;
            // 200 s: hellos are due every half minute. A pull without an answer is made again, after ever longer pauses.
            let (hellos, pulls) = (peer.count(Restless::HELLO), peer.count(Restless::PULL));
            assert!((5..=12).contains(&hellos), "{hellos} hellos");
            assert!((3..=20).contains(&pulls), "{pulls} pulls");
            a.shutdown().await.unwrap();
        };
        let (ended, ()) = join(driver.run(), app).await;
        ended.unwrap();
    });
}
