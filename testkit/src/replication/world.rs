//! Where the scenarios play: replicas, a network between them and a clock that stands still, all on one thread.
//!
//! Nothing here waits for real time. A scenario goes on when everything is quiet: no driver has anything to do and no
//! store is at work. If what it waits for is not there by then, the clock is set to the next moment for which anybody
//! waits.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use syncline::{
    Builder, DeviceId, Entry, GroupId, KeyRange, OpenError, ReplicaId, Status, Storage, TransactionManager,
    Uuid, WriteBatch, audit,
};
use syncline_backends::{MemoryNetwork, MemoryNetworkBuilder};

use super::contents::Contents;
use super::watched::{Activity, Watched};
use crate::models::{Basket, Note, Place};
use crate::poll::give_way;
use crate::replica::app::{START_MS, at_most};
use crate::tap::{Tap, Tapped};
use crate::{Faults, Faulty, Fixture, StepClock, seed};

/// The store of a replica: one that fails on demand and says whether it is at work.
pub(super) type Store<F> = Watched<Faulty<<F as Fixture>::Store>>;

pub(super) const GROUP: GroupId = GroupId(Uuid::from_u128(0x60));

/// The id of the replica `n`, and of the one that takes the place of a store that was thrown away.
pub(super) const fn replica_id(n: u8) -> ReplicaId {
    ReplicaId(Uuid::from_u128(0xe0_0000 + n as u128))
}

/// The device of the replica `n`.
pub(super) const fn device_id(n: u8) -> DeviceId {
    DeviceId(Uuid::from_u128(0xd0_0000 + n as u128))
}

/// How often the clock may be moved until what a scenario waits for is there.
const MOVES_MAX: usize = 20_000;

/// Plays a scenario in which every replica reaches every other.
pub(super) async fn play<F: Fixture>(fresh: &impl Fn() -> F, scenario: impl AsyncFnOnce(&World<'_, F>)) {
    play_on(fresh, |network| network, scenario).await;
}

/// Plays a scenario on a network that is set up like this.
pub(super) async fn play_on<F: Fixture>(
    fresh: &impl Fn() -> F,
    network: impl FnOnce(MemoryNetworkBuilder) -> MemoryNetworkBuilder,
    scenario: impl AsyncFnOnce(&World<'_, F>),
) {
    let clock = StepClock::at(START_MS);
    let network = network(MemoryNetwork::builder().seed(seed()).clock(clock.clone())).build();
    let world = World {
        fresh,
        clock,
        network,
        activity: Activity::default(),
        spawned: RefCell::default(),
        quiet: Cell::new(false),
        open: RefCell::default(),
        openings: Cell::new(0),
    };
    let mut drivers = FuturesUnordered::new();
    let mut scenario = pin!(scenario(&world));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    poll_fn(|outer| {
        woken.outer.register(outer.waker());
        let context = &mut Context::from_waker(&waker);
        loop {
            woken.since_last.store(false, Ordering::SeqCst);
            drivers.extend(world.spawned.take());
            while let Poll::Ready(Some(())) = drivers.poll_next_unpin(context) {}
            world.quiet.set(!woken.since_last.load(Ordering::SeqCst));
            if scenario.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            if !woken.since_last.load(Ordering::SeqCst) && world.spawned.borrow().is_empty() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// Knows whether anything was woken.
#[derive(Default)]
struct Woken {
    since_last: AtomicBool,
    outer: AtomicWaker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.since_last.store(true, Ordering::SeqCst);
        self.outer.wake();
    }
}

/// What all replicas of a scenario share.
pub(super) struct World<'a, F: Fixture> {
    fresh: &'a dyn Fn() -> F,
    pub(super) clock: StepClock,
    pub(super) network: MemoryNetwork,
    activity: Activity,
    spawned: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    /// Whether no driver has anything to do, as of the last time that they were polled.
    quiet: Cell<bool>,
    /// The open replicas, for what a failure says.
    open: RefCell<Vec<(ReplicaId, TransactionManager<Store<F>>)>>,
    /// Counts openings: each has a seed of its own, and so a session of its own.
    openings: Cell<u64>,
}

impl<F: Fixture> World<'_, F> {
    /// A device with an empty store that is not open yet.
    pub(super) fn device(&self, n: u8) -> Peer<F> {
        Peer {
            id: replica_id(n),
            device: device_id(n),
            disk: (self.fresh)(),
            clock: self.clock.another(),
            faults: Faults::new(),
            tap: Tap::default(),
            paused: Rc::default(),
            running: None,
        }
    }

    /// Another empty place.
    pub(super) fn disk(&self) -> F {
        (self.fresh)()
    }

    /// The founder of the group, open.
    pub(super) async fn found(&self, n: u8) -> Peer<F> {
        let mut peer = self.device(n);
        let opened = peer.open(self, |builder| all_models(builder).found(GROUP)).await;
        opened.expect("the founder opens");
        peer
    }

    /// A replica that `introducer` introduces and adds, once it is a member that lacks nothing.
    pub(super) async fn join(&self, n: u8, introducer: &Peer<F>) -> Peer<F> {
        let mut peer = self.device(n);
        let opened = peer.open(self, |builder| all_models(builder).join(GROUP, introducer.id)).await;
        opened.expect("the joiner opens");
        self.admit(&peer, introducer).await;
        peer
    }

    /// Adds an open replica to the group.
    pub(super) async fn admit(&self, peer: &Peer<F>, introducer: &Peer<F>) {
        introducer.add_member(peer.id, peer.device).await.expect("it is added");
        self.until("the joiner is a member", async || !peer.status().await.expect("it runs").joining).await;
    }

    /// A founder and those whom it introduces: `N` replicas that agree.
    pub(super) async fn group<const N: usize>(&self) -> [Peer<F>; N] {
        let mut peers = vec![self.found(0).await];
        for n in 1..N {
            let peer = self.join(u8::try_from(n).expect("few replicas"), &peers[0]).await;
            peers.push(peer);
        }
        let peers: [Peer<F>; N] = peers.try_into().ok().expect("as many as were made");
        self.converged(&peers.each_ref()).await;
        peers
    }

    /// Runs `task` beside everything else.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.spawned.borrow_mut().push(Box::pin(task));
    }

    /// Waits until nothing moves any more, but for the clock.
    pub(super) async fn settle(&self) {
        self.quiet.set(false);
        let mut asked = false;
        poll_fn(|context| {
            if std::mem::replace(&mut asked, true) && self.is_quiet() {
                return Poll::Ready(());
            }
            // A store at work wakes whoever waits for it.
            if self.activity.is_none() {
                context.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
    }

    fn is_quiet(&self) -> bool {
        self.quiet.get() && self.activity.is_none()
    }

    /// Waits until `condition` holds when nothing moves any more, and lets time pass as long as it does not.
    pub(super) async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        for _ in 0..MOVES_MAX {
            self.settle().await;
            if condition().await {
                return;
            }
            match self.clock.next_wake_ms() {
                Some(ms) => self.clock.advance(ms.max(1)),
                None => break,
            }
        }
        panic!("it never came to be that {what}:\n{}", self.report().await);
    }

    /// Waits until `condition` holds, and goes on at that moment, whatever moves.
    pub(super) async fn as_soon_as(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let mut moves = 0;
        self.quiet.set(false);
        let came = poll_fn(|context| {
            if condition() {
                return Poll::Ready(true);
            }
            if self.is_quiet() {
                moves += 1;
                match self.clock.next_wake_ms().filter(|_| moves < MOVES_MAX) {
                    Some(ms) => self.clock.advance(ms.max(1)),
                    None => return Poll::Ready(false),
                }
                self.quiet.set(false);
            }
            if self.activity.is_none() {
                context.waker().wake_by_ref();
            }
            Poll::Pending
        });
        if !came.await {
            panic!("it never came to be that {what}:\n{}", self.report().await);
        }
    }

    /// Lets so much time pass, and everything happen that it brings.
    pub(super) async fn pass(&self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            self.settle().await;
            let step = self.clock.next_wake_ms().unwrap_or(left).clamp(1, left);
            self.clock.advance(step);
            left -= step;
        }
        self.settle().await;
    }

    /// Gives way to everything else; if nothing moves, lets time pass until something does.
    pub(super) async fn settle_or_pass(&self) {
        give_way().await;
        if self.is_quiet()
            && let Some(ms) = self.clock.next_wake_ms()
        {
            self.clock.advance(ms.max(1));
        }
    }

    /// Waits until all of them have the same commits.
    pub(super) async fn converged(&self, peers: &[&Peer<F>]) {
        self.until("all have the same commits", async || {
            let mut heads = None;
            for peer in peers {
                let status = peer.status().await.expect("it runs");
                let here: Vec<_> = status.streams.iter().map(|s| (s.replica, s.commits)).collect();
                let lacks = status.peers.iter().any(|other| other.connected && other.missing > 0);
                if lacks || *heads.get_or_insert_with(|| here.clone()) != here {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// What every open replica says of itself.
    pub(super) async fn report(&self) -> String {
        let mut text = String::new();
        let open: Vec<_> = self.open.borrow().clone();
        for (replica, library) in open {
            let _ = match library.status().await {
                Ok(status) => writeln!(text, "{}", describe(&status)),
                Err(error) => writeln!(text, "{replica}: {error}"),
            };
        }
        text
    }

    /// Stops all of them and asserts that their stores are whole and say the same: the histories to the byte, and what
    /// is read.
    pub(super) async fn assert_equal(&self, peers: &mut [&mut Peer<F>]) {
        let mut first: Option<(Vec<Entry>, Contents)> = None;
        for peer in peers {
            let contents = Contents::of(peer).await;
            peer.close(self).await;
            let entries = peer.entries().await;
            let history: Vec<_> =
                entries.into_iter().filter(|entry| entry.key.first() == Some(&LOG)).collect();
            match &first {
                None => first = Some((history, contents)),
                Some((first_history, first_contents)) => {
                    assert_eq!(*first_contents, contents, "{} differs", peer.id);
                    assert!(*first_history == history, "the history at {} is another one", peer.id);
                }
            }
        }
    }
}

/// The first byte of the keys of log rows.
const LOG: u8 = 6;

/// Registers all models of the scenarios.
pub(super) fn all_models<S: Storage>(builder: Builder<S>) -> Builder<S> {
    builder.model::<Note>().model::<Place>().model::<Basket>()
}

fn describe(status: &Status) -> String {
    let mut text = format!("{}: joining {}, restored {:?}", status.replica, status.joining, status.restored);
    for stream in &status.streams {
        let _ = write!(text, "\n  stream {} at {}, {:?}", stream.replica, stream.commits, stream.stopped);
    }
    for peer in &status.peers {
        let _ = write!(text, "\n  {peer:?}");
    }
    text
}

/// A replica of a scenario: the place of its store, which outlives its openings, and its manager while it is open.
pub(super) struct Peer<F: Fixture> {
    pub(super) id: ReplicaId,
    pub(super) device: DeviceId,
    pub(super) disk: F,
    pub(super) clock: StepClock,
    pub(super) faults: Faults,
    /// What it sends.
    pub(super) tap: Tap,
    paused: Rc<Cell<bool>>,
    running: Option<Running<F>>,
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
    /// Opens the store as `setup` says and spawns its driver.
    pub(super) async fn open(
        &mut self,
        world: &World<'_, F>,
        setup: impl FnOnce(Builder<Store<F>>) -> Builder<Store<F>>,
    ) -> Result<(), OpenError> {
        self.open_for(usize::MAX, world, setup).await
    }

    /// As [`open`](Self::open), but the driver is dropped after so many polls.
    pub(super) async fn open_for(
        &mut self,
        polls: usize,
        world: &World<'_, F>,
        setup: impl FnOnce(Builder<Store<F>>) -> Builder<Store<F>>,
    ) -> Result<(), OpenError> {
        assert!(self.running.is_none(), "it is open");
        let store = self.disk.open().await.expect("the store opens");
        let store = Watched::new(Faulty::new(store, self.faults.clone()), world.activity.clone());
        let opening = world.openings.get() + 1;
        world.openings.set(opening);
        let transport = Tapped::new(world.network.transport(), self.tap.clone());
        let builder = TransactionManager::builder(store)
            .device(self.device)
            .replica(self.id)
            .clock(self.clock.clone())
            .seed(seed().wrapping_add(opening))
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
                if paused.get() {
                    return Poll::Pending;
                }
                driver.as_mut().poll(context).map(drop)
            })
            .await;
        });
        world.open.borrow_mut().push((self.id, library.clone()));
        self.running = Some(Running { library, killed });
        Ok(())
    }

    /// Opens the store again with all models.
    pub(super) async fn reopen(&mut self, world: &World<'_, F>) {
        self.open(world, all_models).await.expect("the store opens again");
    }

    /// Shuts down in order, if it is open.
    pub(super) async fn close(&mut self, world: &World<'_, F>) {
        let Some(Running { library, .. }) = self.running.take() else { return };
        world.open.borrow_mut().retain(|(id, _)| *id != self.id);
        let _ = library.shutdown().await;
    }

    /// Drops the driver where it stands, and waits until the store is released.
    pub(super) async fn kill(&mut self, world: &World<'_, F>) {
        let Some(Running { library, killed }) = self.running.take() else { return };
        world.open.borrow_mut().retain(|(id, _)| *id != self.id);
        killed.set(true);
        // Whatever is asked of it wakes the driver, which then goes.
        let _ = library.shutdown().await;
    }

    /// Stops the driver from doing anything, as a process that hangs.
    pub(super) fn pause(&self) {
        self.paused.set(true);
    }

    /// Lets the driver go on.
    pub(super) async fn go_on(&self) {
        self.paused.set(false);
        // Asking wakes it.
        self.status().await.expect("it runs");
    }

    /// Everything in the store, which is whole and not open.
    pub(super) async fn entries(&self) -> Vec<Entry> {
        assert!(self.running.is_none(), "it is open");
        entries(&self.disk, &format!("{}", self.id)).await
    }
}

/// Everything in a store, which must be whole.
pub(super) async fn entries<F: Fixture>(disk: &F, whose: &str) -> Vec<Entry> {
    let store = disk.open().await.expect("the store opens");
    let violations = audit(&store).await;
    assert!(violations.is_empty(), "the store of {whose} is not whole: {violations:#?}");
    scan(&store).await
}

async fn scan(store: &impl Storage) -> Vec<Entry> {
    const PAGE: usize = 1000;
    let (mut all, mut range) = (Vec::<Entry>::new(), KeyRange::all());
    loop {
        let page = store.scan(range.clone(), PAGE).await.expect("the store can be read");
        let full = page.len() == PAGE;
        all.extend(page);
        match all.last() {
            Some(last) if full => range.start = [&last.key[..], &[0]].concat(),
            _ => return all,
        }
    }
}

/// Copies what is in one store into an empty one, as a backup does.
pub(super) async fn copy<F: Fixture>(from: &F, to: &F) {
    let entries = scan(&from.open().await.expect("the store opens")).await;
    let store = to.open().await.expect("the copy opens");
    for page in entries.chunks(1000) {
        let mut batch = WriteBatch::new();
        page.iter().for_each(|entry| batch.put(entry.key.clone(), entry.value.clone()));
        store.write(batch).await.expect("the copy is written");
    }
}
