//! The world in which scenarios play: replicas, a network between them and a clock that stands still, on one thread.
//!
//! Nothing here waits for real time. A scenario goes on when everything is quiet: no driver can go on and no store is
//! at work. If the scenario's condition does not hold then, the clock moves to the next time at which a sleeper is due.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use syncline::{GroupId, Key, ReplicaId, Status, TransactionManager, Uuid, Value};
use syncline_backends::{MemoryNetwork, MemoryNetworkBuilder};

use super::contents::Contents;
use super::peer::{Peer, Store, all_models};
use super::watched::Activity;
use crate::poll::give_way;
use crate::replica::app::START_MS;
use crate::{Fixture, StepClock, seed};

pub(super) const GROUP: GroupId = GroupId(Uuid::from_u128(0x60));

/// How many times the clock may move until a condition holds.
const MOVES_MAX: usize = 20_000;

/// Plays a scenario in which every replica reaches every other.
pub(super) async fn play<F: Fixture>(fresh: &impl Fn() -> F, scenario: impl AsyncFnOnce(&World<'_, F>)) {
    play_on(fresh, |network| network, scenario).await;
}

/// Plays a scenario on a network that `network` sets up.
pub(super) async fn play_on<F: Fixture>(
    fresh: &impl Fn() -> F,
    network: impl FnOnce(MemoryNetworkBuilder) -> MemoryNetworkBuilder,
    scenario: impl AsyncFnOnce(&World<'_, F>),
) {
    play_seeded(seed(), fresh, network, scenario).await;
}

/// Plays a scenario whose network and replicas draw from `seed`.
pub(super) async fn play_seeded<F: Fixture>(
    seed: u64,
    fresh: &impl Fn() -> F,
    network: impl FnOnce(MemoryNetworkBuilder) -> MemoryNetworkBuilder,
    scenario: impl AsyncFnOnce(&World<'_, F>),
) {
    let clock = StepClock::at(START_MS);
    let network = network(MemoryNetwork::builder().seed(seed).clock(clock.clone())).build();
    let world = World {
        seed,
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

/// A waker that remembers whether it was woken.
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
    pub(super) seed: u64,
    fresh: &'a dyn Fn() -> F,
    pub(super) clock: StepClock,
    pub(super) network: MemoryNetwork,
    pub(super) activity: Activity,
    spawned: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    /// Whether no driver could go on when all of them were polled last.
    quiet: Cell<bool>,
    /// The open replicas, for the message of a failure.
    open: RefCell<Vec<(ReplicaId, TransactionManager<Store<F>>)>>,
    /// Counts openings, so that each has a seed and thereby a session of its own.
    openings: Cell<u64>,
}

impl<F: Fixture> World<'_, F> {
    /// The replica `n`, with an empty store that is not open yet.
    pub(super) fn device(&self, n: u8) -> Peer<F> {
        Peer::new(n, self.disk(), self.clock.another())
    }

    /// A place for another empty store.
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

    /// A replica that `introducer` has introduced and added, once it is a member.
    pub(super) async fn join(&self, n: u8, introducer: &Peer<F>) -> Peer<F> {
        let mut peer = self.device(n);
        let opened = peer.open(self, |builder| all_models(builder).join(GROUP, introducer.id)).await;
        opened.expect("the joiner opens");
        self.admit(&peer, introducer).await;
        peer
    }

    /// Adds an open replica to the group.
    pub(super) async fn admit(&self, peer: &Peer<F>, introducer: &Peer<F>) {
        // Let time pass until it knocks: its first hello may be lost.
        self.until("the joiner knocks", async || knocks(introducer, peer.id).await).await;
        introducer.add_member(peer.id).await.expect("it is added");
        self.until("the joiner is a member", async || {
            peer.status().await.expect("it runs").joining.is_none()
        })
        .await;
    }

    /// A founder and the replicas that it has introduced: `N` replicas that have the same commits.
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

    /// Counts an opening, and returns its number.
    pub(super) fn next_opening(&self) -> u64 {
        self.openings.set(self.openings.get() + 1);
        self.openings.get()
    }

    /// Notes that a replica is open, for [`report`](Self::report).
    pub(super) fn opened(&self, replica: ReplicaId, library: TransactionManager<Store<F>>) {
        self.open.borrow_mut().push((replica, library));
    }

    /// Notes that a replica is open no longer.
    pub(super) fn closed(&self, replica: ReplicaId) {
        self.open.borrow_mut().retain(|(id, _)| *id != replica);
    }

    /// Runs `task` beside everything else.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.spawned.borrow_mut().push(Box::pin(task));
    }

    /// Waits until everything is quiet.
    pub(super) async fn settle(&self) {
        self.quiet.set(false);
        let mut asked = false;
        poll_fn(|context| {
            if std::mem::replace(&mut asked, true) && self.is_quiet() {
                return Poll::Ready(());
            }
            // Do not spin while a store is at work: it wakes this task when it is done.
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

    /// Waits until everything is quiet and `condition` holds, and lets time pass as long as it does not.
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

    /// Waits until `condition` holds, and returns at once, while everything else is in the middle of its work.
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

    /// Lets so much time pass, with everything that happens meanwhile.
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

    /// Gives way to everything else. If everything is quiet, moves the clock to the next time at which a sleeper is
    /// due.
    pub(super) async fn settle_or_pass(&self) {
        give_way().await;
        if self.is_quiet()
            && let Some(ms) = self.clock.next_wake_ms()
        {
            self.clock.advance(ms.max(1));
        }
    }

    /// Waits until these replicas have the same commits, and lack nothing that a connected peer has.
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

    /// The status of every open replica, for a message.
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

    /// Closes these replicas and asserts that their stores are whole, that their histories are the same to the byte,
    /// and that an app reads the same from all of them.
    pub(super) async fn assert_equal(&self, peers: &mut [&mut Peer<F>]) {
        let mut first: Option<(BTreeMap<Key, Value>, Contents)> = None;
        for peer in peers {
            let contents = Contents::of(peer).await;
            peer.close(self).await;
            let entries = peer.entries().await;
            // Each prunes its log when it can, so what both have of it must be the same.
            let history: BTreeMap<_, _> = entries
                .into_iter()
                .filter(|entry| entry.key.first() == Some(&LOG))
                .map(|entry| (entry.key, entry.value))
                .collect();
            match &first {
                None => first = Some((history, contents)),
                Some((first_history, first_contents)) => {
                    assert_eq!(*first_contents, contents, "{} differs", peer.id);
                    let mut both = history.iter().filter(|(key, _)| first_history.contains_key(*key));
                    let same = both.all(|(key, row)| first_history.get(key) == Some(row));
                    assert!(same, "the history at {} is another one", peer.id);
                }
            }
        }
    }
}

/// Whether `joiner` waits to be added, as `member` hears.
pub(super) async fn knocks<F: Fixture>(member: &Peer<F>, joiner: ReplicaId) -> bool {
    let peers = member.status().await.expect("it runs").peers;
    peers.iter().any(|peer| peer.replica == joiner && peer.knocks.is_some())
}

/// The first byte of the keys of log rows.
const LOG: u8 = 6;

fn describe(status: &Status) -> String {
    let mut text =
        format!("{}: joining {:?}, restored {:?}", status.replica, status.joining, status.restored);
    for stream in &status.streams {
        let _ = write!(text, "\n  stream {} at {}, {:?}", stream.replica, stream.commits, stream.stopped);
    }
    for peer in &status.peers {
        let _ = write!(text, "\n  {peer:?}");
    }
    text
}
