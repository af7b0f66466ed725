//! A replica of a scenario, which can be opened, closed, killed and paused.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use syncline::{Builder, DeviceId, Entry, OpenError, ReplicaId, Storage, TransactionManager, Uuid};

use super::stored::entries;
use super::watched::Watched;
use super::world::World;
use crate::models::{Basket, Note, Place};
use crate::replica::app::at_most;
use crate::tap::{Tap, Tapped};
use crate::{Faults, Faulty, Fixture, StepClock};

/// The store of a replica. It fails on demand and counts the operations that are under way.
pub(super) type Store<F> = Watched<Faulty<<F as Fixture>::Store>>;

/// The id of the replica `n`.
pub(super) const fn replica_id(n: u8) -> ReplicaId {
    ReplicaId(Uuid::from_u128(0xe0_0000 + n as u128))
}

/// The device of the replica `n`.
const fn device_id(n: u8) -> DeviceId {
    DeviceId(Uuid::from_u128(0xd0_0000 + n as u128))
}

/// Registers all models of the scenarios.
pub(super) fn all_models<S: Storage>(builder: Builder<S>) -> Builder<S> {
    builder.model::<Note>().model::<Place>().model::<Basket>()
}

/// A replica of a scenario: the place of its store, which outlives openings, and its manager while it is open.
pub(super) struct Peer<F: Fixture> {
    pub(super) id: ReplicaId,
    pub(super) device: DeviceId,
    pub(super) disk: F,
    pub(super) clock: StepClock,
    pub(super) faults: Faults,
    /// The frames that it has sent.
    pub(super) tap: Tap,
    paused: Rc<Pause>,
    running: Option<Running<F>>,
}

/// Whether a driver is not polled, and how to have it polled again: it may never have been, so that nothing wakes it.
#[derive(Default)]
struct Pause {
    on: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Pause {
    fn is_on(&self, waker: &Waker) -> bool {
        if self.on.get() {
            self.waker.set(Some(waker.clone()));
        }
        self.on.get()
    }
}

struct Running<F: Fixture> {
    library: TransactionManager<Store<F>>,
    killed: Rc<Cell<bool>>,
}

impl<F: Fixture> Deref for Peer<F> {
    type Target = TransactionManager<Store<F>>;

    fn deref(&self) -> &Self::Target {
        &self.running.as_ref().expect("the replica is open").library
    }
}

impl<F: Fixture> Peer<F> {
    /// The replica `n` on an empty disk, not open yet.
    pub(super) fn new(n: u8, disk: F, clock: StepClock) -> Self {
        Self {
            id: replica_id(n),
            device: device_id(n),
            disk,
            clock,
            faults: Faults::new(),
            tap: Tap::default(),
            paused: Rc::default(),
            running: None,
        }
    }

    /// Opens the store as `setup` says and spawns its driver.
    pub(super) async fn open(
        &mut self,
        world: &World<'_, F>,
        setup: impl FnOnce(Builder<Store<F>>) -> Builder<Store<F>>,
    ) -> Result<(), OpenError> {
        self.open_for(usize::MAX, world, setup).await
    }

    /// As [`open`](Self::open), but drops the driver after so many polls.
    pub(super) async fn open_for(
        &mut self,
        polls: usize,
        world: &World<'_, F>,
        setup: impl FnOnce(Builder<Store<F>>) -> Builder<Store<F>>,
    ) -> Result<(), OpenError> {
        assert!(self.running.is_none(), "it is open");
        let store = self.disk.open().await.expect("the store opens");
        let store = Watched::new(Faulty::new(store, self.faults.clone()), world.activity.clone());
        let opening = world.next_opening();
        let transport = Tapped::new(world.network.transport(), self.tap.clone());
        let builder = TransactionManager::builder(store)
            .device(self.device)
            .replica(self.id)
            .clock(self.clock.clone())
            .seed(world.seed.wrapping_add(opening))
            .transport(transport);
        let (library, driver) = setup(builder).open().await?;
        let killed = Rc::<Cell<bool>>::default();
        let stopped = Rc::clone(&killed);
        let paused = Rc::clone(&self.paused);
        world.spawn(async move {
            let mut driver = pin!(at_most(polls, driver.run()));
            poll_fn(|context| {
                if stopped.get() {
                    return Poll::Ready(());
                }
                if paused.is_on(context.waker()) {
                    return Poll::Pending;
                }
                driver.as_mut().poll(context).map(drop)
            })
            .await;
        });
        world.opened(self.id, library.clone());
        self.running = Some(Running { library, killed });
        Ok(())
    }

    /// Opens the store again with all models.
    pub(super) async fn reopen(&mut self, world: &World<'_, F>) {
        self.open(world, all_models).await.expect("the store opens again");
    }

    /// Shuts the replica down, if it is open.
    pub(super) async fn close(&mut self, world: &World<'_, F>) {
        let Some(Running { library, .. }) = self.running.take() else { return };
        world.closed(self.id);
        let _ = library.shutdown().await;
    }

    /// Drops the driver where it stands, and waits until the store is released.
    pub(super) async fn kill(&mut self, world: &World<'_, F>) {
        let Some(Running { library, killed }) = self.running.take() else { return };
        world.closed(self.id);
        killed.set(true);
        self.paused.on.set(false);
        self.paused.waker.take().into_iter().for_each(Waker::wake);
        // Any call wakes the driver, which then finds that it is killed.
        let _ = library.shutdown().await;
    }

    /// Stops polling the driver, as if its process hung.
    pub(super) fn pause(&self) {
        self.paused.on.set(true);
    }

    /// Polls the driver again.
    pub(super) fn let_run(&self) {
        self.paused.on.set(false);
        self.paused.waker.take().into_iter().for_each(Waker::wake);
    }

    /// Polls the driver again, and waits until it has answered.
    pub(super) async fn go_on(&self) {
        self.let_run();
        self.status().await.expect("it runs");
    }

    /// Everything in the store, which must be closed and whole.
    pub(super) async fn entries(&self) -> Vec<Entry> {
        assert!(self.running.is_none(), "it is open");
        entries(&self.disk, &format!("{}", self.id)).await
    }
}
