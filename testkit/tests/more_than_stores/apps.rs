//! The simulator for apps.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};
use syncline::{BoxError, Syncable};
use syncline_testkit::app_sim::{AppSim, SimFault, SimManager};
use syncline_testkit::merge_laws::Rng;

/// A shared list with a merge of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "basket", merge = Basket::united)]
struct Basket {
    #[sync(id)]
    id: u32,
    items: BTreeSet<u32>,
}

impl Basket {
    fn united(mut self, other: Self) -> Self {
        self.items.extend(other.items);
        self
    }
}

/// The same, with a merge that keeps the order in which things came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "basket", merge = Appended::appended)]
struct Appended {
    #[sync(id)]
    id: u32,
    items: Vec<u32>,
}

impl Appended {
    fn appended(mut self, other: Self) -> Self {
        for item in other.items {
            if !self.items.contains(&item) {
                self.items.push(item);
            }
        }
        self
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "account")]
struct Account {
    #[sync(id)]
    id: u32,
    cents: i64,
}

async fn fill(mut random: Rng, manager: SimManager) -> Result<(), BoxError> {
    let (id, item) = (random.u32(..3), random.u32(..50));
    manager.commit(Basket { id, items: [item].into() }).await?;
    Ok(())
}

/// Moves money between two accounts, in one commit.
async fn transfer(mut random: Rng, manager: SimManager) -> Result<(), BoxError> {
    let cents = random.i64(1..100);
    let both = manager.get_many::<Account>(&[1, 2]).await?;
    let [one, other] = [0, 1].map(|at| both[at].as_ref().map_or(0, |account| account.cents));
    manager
        .commit_batch(move |batch| {
            batch.put(&Account { id: 1, cents: one - cents })?;
            Ok(batch.put(&Account { id: 2, cents: other + cents })?)
        })
        .await?;
    Ok(())
}

/// Neither a batch nor its merge leaves half of a transfer behind.
async fn no_money_is_lost(replicas: Vec<SimManager>) {
    for replica in replicas {
        let both = replica.get_many::<Account>(&[1, 2]).await.unwrap();
        let sum: i64 = both.iter().flatten().map(|account| account.cents).sum();
        assert_eq!(sum, 0, "money was lost: {both:?}");
    }
}

fn sound() -> AppSim {
    AppSim::new()
        .model::<Basket>()
        .model::<Account>()
        .workload(fill)
        .workload(transfer)
        .check(no_money_is_lost)
        .seeds(if cfg!(debug_assertions) { 10 } else { 100 })
}

fn message_of(app: impl Fn() -> AppSim) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| AppSim::play(app))).expect_err("it fails");
    *panic.downcast::<String>().unwrap()
}

/// Goal: a sound app passes, and its histories are rich. Method: two models, two kinds of work, an invariant; twice, with the
/// same result.
#[test]
fn a_sound_app_passes_and_repeats() {
    let report = AppSim::play(sound);
    println!("{report:?}");
    assert!(
        report.crashes > 10 && report.stops > 0 && report.works > 100 && report.works_failed > 0,
        "{report:?}"
    );
    assert_eq!(AppSim::play(sound), report);
}

#[test]
fn faults_can_be_left_out() {
    let calm = || {
        [SimFault::Crashes, SimFault::Stores, SimFault::Partitions, SimFault::Links, SimFault::Clocks]
            .into_iter()
            .fold(sound().replicas(2).steps(30).seeds(3), AppSim::without)
    };
    let report = AppSim::play(calm);
    assert_eq!((report.crashes, report.stops, report.works_failed), (0, 0, 0), "{report:?}");
}

/// Goal: a merge that breaks its laws is found, and the message has the seed and few steps. Method: items in the order in
/// which they came.
#[test]
fn an_app_whose_merge_depends_on_the_order_is_caught() {
    let text = message_of(|| {
        AppSim::new().model::<Appended>().workload(async |mut random, manager| {
            manager.commit(Appended { id: 1, items: vec![random.u32(..50)] }).await?;
            Ok(())
        })
    });
    assert!(text.contains("the same commits and other records"), "{text}");
    assert!(text.contains("Play it again: SYNCLINE_SEED="), "{text}");
    let steps = text.lines().skip_while(|line| !line.contains("shortened:")).count() - 1;
    assert!((2..=4).contains(&steps), "two pieces of work are enough: {text}");
}

/// Goal: an invariant that two commits can break is found. Method: a transfer in two commits, between which a process dies.
#[test]
fn an_app_that_commits_half_is_caught() {
    let text = message_of(|| {
        AppSim::new()
            .model::<Account>()
            .workload(async |mut random, manager| {
                let cents = random.i64(1..100);
                let both = manager.get_many::<Account>(&[1, 2]).await?;
                let [one, other] = [0, 1].map(|at| both[at].as_ref().map_or(0, |account| account.cents));
                manager.commit(Account { id: 1, cents: one - cents }).await?;
                manager.commit(Account { id: 2, cents: other + cents }).await?;
                Ok(())
            })
            .check(no_money_is_lost)
            .replicas(2)
            .seeds(200)
    });
    assert!(text.contains("money was lost"), "{text}");
}

/// Goal: work that waits for ever does not hang the test. Method: a future that never ends.
#[test]
fn work_that_never_returns_is_named() {
    let text = message_of(|| AppSim::new().workload(async |_, _| std::future::pending().await).steps(3));
    assert!(text.starts_with("a piece of work never returns"), "{text}");
}
