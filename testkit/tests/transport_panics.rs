//! Goal: a transport that panics ends alone: the app hears that it is lost, and goes on committing. Method: a transport
//! that panics in one of its calls, at the first or at a later one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, and so does its transport")]

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::block_on;
use futures::future::{join, pending};
use serde::{Deserialize, Serialize};
use syncline::{
    DeviceId, Event, GroupId, Incoming, ReplicaId, Syncable, TransactionManager, Transport, TransportError,
    Uuid,
};
use syncline_backends::MemoryStorage;
use syncline_testkit::StepClock;

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "note")]
struct Note {
    #[sync(id)]
    id: u32,
}

const A: ReplicaId = ReplicaId(Uuid::from_u128(0xa));
const B: ReplicaId = ReplicaId(Uuid::from_u128(0xb));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Send,
    Broadcast,
    Receive,
    Drop,
}

/// A transport with the peer B, of which one kind of call panics, but for the first `works` of them.
struct Panics {
    call: Call,
    works: AtomicU32,
    told: AtomicU32,
}

impl Panics {
    fn called(&self, call: Call) {
        let panics = self.call == call
            && self
                .works
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |works| works.checked_sub(1))
                .is_err();
        assert!(!panics, "the cable is gone");
    }
}

#[async_trait]
impl Transport for Panics {
    async fn attach(&self, _: ReplicaId) -> Result<(), TransportError> {
        Ok(())
    }

    async fn send(&self, _: ReplicaId, _: Bytes) -> Result<(), TransportError> {
        self.called(Call::Send);
        Ok(())
    }

    async fn broadcast(&self, _: &[ReplicaId], _: Bytes) -> Result<(), TransportError> {
        self.called(Call::Broadcast);
        Ok(())
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        self.called(Call::Receive);
        match self.told.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(Incoming::Up(B)),
            _ if self.call == Call::Drop => Err(TransportError::closed("the end")),
            _ => pending().await,
        }
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        self.called(Call::Drop);
    }
}

#[test]
fn a_transport_that_panics_is_lost_and_commits_go_on() {
    for (call, works) in [
        (Call::Send, 0),
        (Call::Send, 1),
        (Call::Broadcast, 0),
        (Call::Broadcast, 2),
        (Call::Receive, 0),
        (Call::Receive, 1),
        (Call::Drop, 0),
    ] {
        let clock = StepClock::at(1_000_000);
        let transport = Panics { call, works: works.into(), told: 0.into() };
        block_on(async {
            let builder = TransactionManager::builder(MemoryStorage::new())
                .device(DeviceId(Uuid::from_u128(0xd)))
                .replica(A)
                .model::<Note>()
                .clock(clock.clone())
                .transport(transport)
                .found(GroupId(Uuid::from_u128(0xf)));
            let (a, driver) = builder.open().await.unwrap();
            let mut events = a.events();
            let app = async {
                a.add_member_on(B, DeviceId(Uuid::from_u128(0xb))).await.unwrap();
                for id in 0..5 {
                    clock.advance(40_000);
                    a.commit(Note { id }).await.unwrap();
                }
                let lost = loop {
                    if let Ok(Event::TransportLost { error }) = events.next().await.unwrap() {
                        break error;
                    }
                };
                let said = if call == Call::Drop { "the end" } else { "panicked: the cable is gone" };
                assert!(lost.contains(said), "{call:?}: {lost}");
                assert!(!a.status().await.unwrap().peers.iter().any(|peer| peer.connected), "{call:?}");
                a.commit(Note { id: 9 }).await.unwrap();
                assert!(a.get::<Note>(9).await.unwrap().is_some());
                a.shutdown().await.unwrap();
            };
            let (ended, ()) = join(driver.run(), app).await;
            ended.unwrap();
        });
    }
}
