//! The list for replicas over a transport: whole replicas that talk over the network under test.
//!
//! ```
//! use syncline_testkit::transport::MemoryNetworkFixture;
//!
//! syncline_testkit::replication_over_tests!(memory, MemoryNetworkFixture::new);
//! ```
//!
//! The stores are in memory and the clock is the platform's. What must come has thirty seconds. These are the scenarios that
//! need no more of a network than that it connects, breaks and connects again: those of
//! [`replication_tests!`](crate::replication_tests) set the loss, the delay and the rate of each link, count and inject frames,
//! and let time pass by hand when nothing moves any more, all of which the network in memory alone can do.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use syncline::{BoxError, Builder, Clock as _, ReplicaId, SystemClock, TransactionManager};

use super::TransportFixture;
use super::subject::{A, B, C, name};
use crate::models::{Note, note};
use crate::replica::app::GROUP;
use crate::{Disk, Fixture as _, Reference, watchdog};

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all scenarios.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_replication_over_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            replicas_agree_over_it
            a_connection_that_breaks_is_caught_up
            a_replica_that_went_comes_back
            a_long_commit_gets_through
        }
    };
}

/// Makes a module of the given name with one test for each scenario of whole replicas over the transport under test.
///
/// The expression is a function that makes a fresh [`TransportFixture`]. As with
/// [`transport_tests!`](crate::transport_tests), scenarios may stand behind `ignore`, each with the reason.
#[macro_export]
macro_rules! replication_over_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::replication_over_tests!($module, $fixture, ignore {});
    };
    ($module:ident, $fixture:expr, ignore { $($ignored:ident = $reason:literal),* $(,)? } $(,)?) => {
        $crate::for_each_replication_over_property! {
            [$crate::watched_test_module]
            ($) over_transport, $module, $fixture, { $($ignored = $reason),* }
        }
    };
}

/// Runs a scenario as its fixture says.
#[doc(hidden)]
pub fn run<F: TransportFixture>(
    fixture: &F,
    scenario: impl FnOnce(&F) -> Pin<Box<dyn Future<Output = ()> + '_>>,
) {
    super::run(fixture, scenario);
}

/// Goal: what one replica commits, all have. Method: three replicas, of which each commits.
///
/// # Panics
/// If replicas do not agree.
pub async fn replicas_agree_over_it<F: TransportFixture>(fixture: &F) {
    play("replicas_agree_over_it", fixture, async |world| {
        let replicas = world.group([A, B, C]).await;
        for (n, replica) in (0..).zip(&replicas) {
            for round in 0..10 {
                world.commit(replica, n * 100 + round).await;
            }
        }
        world.all_have(&replicas, &[0, 9, 100, 109, 200, 209]).await;
    })
    .await;
}

/// Goal: what was committed while a connection was broken comes when it is back. Method: both sides commit meanwhile.
///
/// # Panics
/// If replicas do not agree.
pub async fn a_connection_that_breaks_is_caught_up<F: TransportFixture>(fixture: &F) {
    play("a_connection_that_breaks_is_caught_up", fixture, async |world| {
        let replicas = world.group([A, B]).await;
        for round in 0..3 {
            world.can(fixture.disconnect(A, B).await);
            for (n, replica) in (0..).zip(&replicas) {
                for commit in 0..20 {
                    world.commit(replica, round * 1000 + n * 100 + commit).await;
                }
            }
            world.can(fixture.connect(A, B).await);
            world.all_have(&replicas, &[round * 1000 + 19, round * 1000 + 119]).await;
        }
    })
    .await;
}

/// Goal: a replica that was shut down comes back with a new end, and catches up. Method: twice, under commits of another.
///
/// # Panics
/// If replicas do not agree.
pub async fn a_replica_that_went_comes_back<F: TransportFixture>(fixture: &F) {
    play("a_replica_that_went_comes_back", fixture, async |world| {
        let [a, mut b] = world.group([A, B]).await;
        for round in 1..3 {
            let _ = b.manager.shutdown().await;
            for commit in 0..20 {
                world.commit(&a, round * 100 + commit).await;
            }
            b = world.open(B, b.disk, |builder| builder).await;
            world.commit(&b, round * 100 + 50).await;
            world.all_have(&[a.clone(), b.clone()], &[round * 100 + 19, round * 100 + 50]).await;
        }
    })
    .await;
}

/// Goal: commits of many MiB go through. Method: eight values of nearly a MiB in one commit, and a small one behind it.
///
/// # Panics
/// If replicas do not agree.
pub async fn a_long_commit_gets_through<F: TransportFixture>(fixture: &F) {
    play("a_long_commit_gets_through", fixture, async |world| {
        let replicas = world.group([A, B]).await;
        // Bytes that no compression makes shorter.
        let mut random = fastrand::Rng::with_seed(crate::seed());
        let texts: Vec<String> =
            (0..8).map(|_| (0..1_000_000).map(|_| random.alphanumeric()).collect()).collect();
        let long = texts.clone();
        let commit = replicas[0].manager.commit_batch(move |batch| {
            Ok((0..).zip(long).try_for_each(|(id, text)| batch.put(&note(id, text)))?)
        });
        commit.await.expect("the commit is made");
        world.commit(&replicas[0], 100).await;
        world.all_have(&replicas, &[100]).await;
        for (id, text) in (0..).zip(texts) {
            let found = replicas[1].manager.get::<Note>(id).await.expect("it can be read");
            assert!(found == Some(note(id, text)), "note {id} came in parts");
        }
    })
    .await;
}

/// How long anything may take that must come.
const DEADLINE_MS: u64 = 30_000;

/// A replica, and the disk of its store.
#[derive(Clone)]
struct Replica {
    id: ReplicaId,
    disk: Disk,
    manager: TransactionManager<Reference>,
}

/// The world of a scenario.
struct World<'f, F> {
    scenario: &'static str,
    fixture: &'f F,
    clock: SystemClock,
    spawned: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
}

/// Plays a scenario beside the drivers of its replicas.
async fn play<F: TransportFixture>(
    name: &'static str,
    fixture: &F,
    scenario: impl AsyncFnOnce(&World<'_, F>),
) {
    let world = World { scenario: name, fixture, clock: SystemClock::new(), spawned: RefCell::default() };
    let mut drivers = FuturesUnordered::new();
    let mut scenario = pin!(scenario(&world));
    poll_fn(|context| {
        loop {
            drivers.extend(world.spawned.take());
            while let Poll::Ready(Some(())) = drivers.poll_next_unpin(context) {}
            if scenario.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            if world.spawned.borrow().is_empty() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

impl<F: TransportFixture> World<'_, F> {
    fn can(&self, done: Result<(), BoxError>) {
        if let Err(error) = done {
            panic!("{}: {error}", self.scenario);
        }
    }

    async fn open(
        &self,
        id: ReplicaId,
        disk: Disk,
        setup: impl FnOnce(Builder<Reference>) -> Builder<Reference>,
    ) -> Replica {
        watchdog::step(format_args!("{} does not open", name(id)));
        let end = match self.fixture.end(id).await {
            Ok(end) => end,
            Err(error) => panic!("{}: an end of {}: {error}", self.scenario, name(id)),
        };
        let store = disk.open().await.expect("the store opens");
        let builder = TransactionManager::builder(store).replica(id).model::<Note>().transport(end);
        let (manager, driver) = match setup(builder).open().await {
            Ok(opened) => opened,
            Err(error) => panic!("{}: {} does not open: {error}", self.scenario, name(id)),
        };
        self.spawned.borrow_mut().push(Box::pin(async move {
            let _ = driver.run().await;
        }));
        Replica { id, disk, manager }
    }

    /// The founder of a group, and the members that it has added.
    async fn group<const N: usize>(&self, ids: [ReplicaId; N]) -> [Replica; N] {
        let mut replicas: Vec<Replica> = Vec::new();
        for id in ids {
            let joiner = match replicas.first() {
                None => self.open(id, Disk::new(), |builder| builder.found(GROUP)).await,
                Some(first) => {
                    let joiner = self.open(id, Disk::new(), |builder| builder.join(GROUP, first.id)).await;
                    let knocks = async || {
                        let peers = first.manager.status().await.expect("it runs").peers;
                        peers.iter().any(|peer| peer.replica == id && peer.knocks.is_some())
                    };
                    self.until("a joiner knocks", &replicas, knocks).await;
                    first.manager.add_member(id).await.expect("it is added");
                    let is_member =
                        async || joiner.manager.status().await.expect("it runs").joining.is_none();
                    self.until("a joiner is a member", &replicas, is_member).await;
                    joiner
                }
            };
            replicas.push(joiner);
        }
        replicas.try_into().ok().expect("as many as were made")
    }

    async fn commit(&self, replica: &Replica, id: u32) {
        let commit = replica.manager.commit(note(id, format!("note {id}"))).await;
        commit.expect("the commit is made");
    }

    /// Waits until all replicas have these notes.
    async fn all_have(&self, replicas: &[Replica], ids: &[u32]) {
        let all_there = async || {
            for replica in replicas {
                for found in replica.manager.get_many::<Note>(ids).await.expect("they can be read") {
                    if found.is_none() {
                        return false;
                    }
                }
            }
            true
        };
        self.until(&format!("all have the notes {ids:?}"), replicas, all_there).await;
    }

    async fn until(&self, what: &str, replicas: &[Replica], mut condition: impl AsyncFnMut() -> bool) {
        const PAUSE_MS: u64 = 5;
        watchdog::step(format_args!("it does not come to be that {what}"));
        let start = self.clock.mono();
        while self.clock.mono().since(start) < DEADLINE_MS {
            if condition().await {
                return;
            }
            self.clock.sleep(Duration::from_millis(PAUSE_MS)).await;
        }
        let mut report = String::new();
        for replica in replicas {
            let _ = write!(report, "\n{}: {:?}", name(replica.id), replica.manager.status().await);
        }
        panic!(
            "{}: within {} s it did not come to be that {what}:{report}",
            self.scenario,
            DEADLINE_MS / 1000
        );
    }
}
