//! The list for stamps: over any store, the stamps of a replica rise, whatever becomes of its process and its wall clock.
//!
//! ```
//! # use syncline_testkit::Disk;
//! syncline_testkit::clock_rises_tests!(my_clock, Disk::new);
//! ```
//!
//! Each stamp that an app is told is above all that it was told before, and above all that its replica has received: within
//! an opening, after a restart, after a crash at any point, and after the wall was set back, to 1970 or a year ahead, or
//! failed. That the stamps of the library rise without any store is the matter of its own tests (H1); here the store is
//! what must bring the clock back.

use futures::future::join;
use syncline::{
    ClockError, Error, Event, Events, Hlc, OpenError, ReplicaId, Storage, TransactionManager, WallMs,
};

use super::world::play;
use crate::models::{Note, note};
use crate::replica::app::{START_MS, ask, assert_whole, at_most, drain, open_store, run};
use crate::storage::Property;
use crate::{Fault, FaultKind, Faults, Faulty, Fixture, ManualClock};

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all properties.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_clock_rises_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            stamps_rise_across_restarts
            stamps_rise_after_a_crash_anywhere
            stamps_rise_after_a_future
            stamps_rise_above_a_peers
        }
    };
}

/// Makes a module of the given name with one test for each property of stamps over the store under test.
///
/// The expression is a function that makes a fresh [`Fixture`] each time it is called.
#[macro_export]
macro_rules! clock_rises_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::for_each_clock_rises_property! { [$crate::test_module] clock_rises, $module, $fixture }
    };
}

/// Returns all properties.
#[must_use]
pub fn properties<F: Fixture>() -> Vec<Property<F>> {
    macro_rules! list {
        ([] $($property:ident)*) => {
            vec![$(Property {
                name: stringify!($property),
                check: |fresh| futures::executor::block_on($property(&|| fresh())),
            }),*]
        };
    }
    for_each_clock_rises_property!([list])
}

/// The highest stamp that an app was told, and how many commits it made.
struct Risen {
    property: &'static str,
    highest: Option<Hlc>,
    commits: u32,
}

impl Risen {
    const fn new(property: &'static str) -> Self {
        Self { property, highest: None, commits: 0 }
    }

    /// Asserts that `stamp` is above all before.
    fn above(&mut self, stamp: Hlc, step: &str) {
        let Self { property, highest, .. } = self;
        assert!(
            Some(time(stamp)) > highest.map(time),
            "{property}: {step}: a commit was stamped {stamp}, and an earlier one {highest:?}"
        );
        *highest = Some(stamp);
    }

    /// Asserts that the clock of `library` is not behind what was told.
    async fn not_behind<S: Storage>(&self, library: &TransactionManager<S>, step: &str) {
        let Self { property, highest, .. } = self;
        let clock = library.status().await.expect("it runs").clock;
        assert!(
            Some(time(clock)) >= highest.map(time),
            "{property}: {step}: the clock stands at {clock}, and a commit was stamped {highest:?}"
        );
    }

    /// Takes the stamps of the own commits that were told.
    async fn take(&mut self, events: &mut Events, me: ReplicaId, step: &str) {
        let mut last = None;
        for event in drain(events).await {
            if let Event::Changed(change) = event
                && change.stamp.replica() == me
                // A commit of several records has one stamp.
                && last.replace(change.seq) != Some(change.seq)
            {
                self.above(change.stamp, step);
            }
        }
    }

    /// Commits once, and asserts that the stamp is above all before.
    async fn commit<S: Storage>(&mut self, library: &TransactionManager<S>, step: &str) -> Result<(), Error> {
        self.commits += 1;
        let me = library.status().await?.replica;
        let mut events = library.events();
        let result = library.commit(note(self.commits % 7, format!("commit {}", self.commits))).await;
        self.take(&mut events, me, step).await;
        result.map(drop)
    }
}

/// Wall and counter: the replica only breaks ties.
fn time(stamp: Hlc) -> (WallMs, u16) {
    (stamp.wall(), stamp.counter())
}

const HOUR_MS: u64 = 3_600_000;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;

/// Goal: H1, H2, stamps rise within an opening and from one to the next. Method: restarts, before and within which the wall
/// is set on, back, to 1970, or fails. A commit under a wall that fails is refused, and costs no stamp.
///
/// # Panics
/// If a stamp does not rise.
pub async fn stamps_rise_across_restarts<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut risen = Risen::new("stamps_rise_across_restarts");
    let clock = ManualClock::at(START_MS);
    for (round, at) in (0..20_u64).zip(0..) {
        let walls = [START_MS + round, START_MS - HOUR_MS, 0, START_MS, START_MS + round * 60_000];
        for turn in 0..2 {
            let wall = walls[(at + turn) % walls.len()];
            clock.set_wall(WallMs::new(wall));
            let step = format!("restart {round}.{turn}, the wall at {wall}");
            let result = run(ask(open_store(fixture).await).clock(clock.clone()), async |library| {
                risen.not_behind(&library, &step).await;
                for wall in [wall, wall + 1, wall, wall.saturating_sub(60_000)] {
                    clock.set_wall(WallMs::new(wall));
                    let step = format!("{step}, then at {wall}");
                    risen.commit(&library, &step).await.expect("the commit is made");
                }
                let before = library.status().await.expect("it runs").commits;
                for error in [ClockError::Before1970, ClockError::failed("no time"), beyond()] {
                    clock.set_wall(Err(error));
                    let result = risen.commit(&library, &step).await;
                    assert!(
                        matches!(result, Err(Error::Clock(_))),
                        "{step}: under a wall that fails: {result:?}"
                    );
                }
                assert_eq!(
                    library.status().await.expect("it runs").commits,
                    before,
                    "{step}: a commit without a time"
                );
                clock.set_wall(WallMs::new(wall));
                risen.commit(&library, &step).await.expect("the commit is made");
            })
            .await;
            result.expect("the store opens as a replica");
        }
    }
    assert_whole(fixture, "after all restarts").await;
}

const fn beyond() -> ClockError {
    ClockError::Beyond48Bits { ms: u64::MAX }
}

/// Goal: H2, after a crash at any point the stamps go on above all that was told or is stored. Method: the driver is dropped
/// after each number of polls, and the store fails in each way, under a wall that goes back.
///
/// # Panics
/// If a stamp does not rise.
pub async fn stamps_rise_after_a_crash_anywhere<F: Fixture>(fresh: &impl Fn() -> F) {
    const POLLS_MAX: usize = 24;
    let fixture = &fresh();
    let mut risen = Risen::new("stamps_rise_after_a_crash_anywhere");
    let clock = ManualClock::at(START_MS);
    // A store that the first crash has left empty would begin its clock anew.
    let first = run(ask(open_store(fixture).await).clock(clock.clone()), async |library| {
        risen.commit(&library, "the first commit").await
    });
    first.await.expect("the store opens as a replica").expect("the commit is made");
    for polls in 0..POLLS_MAX {
        let wall = [START_MS, START_MS - HOUR_MS, 0, START_MS + polls as u64][polls % 4];
        clock.set_wall(WallMs::new(wall));
        let step = format!("a crash after {polls} polls, the wall at {wall}");
        let faults = Faults::new();
        let store = Faulty::new(open_store(fixture).await, faults.clone());
        let (library, driver) = match ask(store).clock(clock.clone()).open().await {
            Ok(opened) => opened,
            Err(error) => panic!("{}: {step}: the store does not open: {error}", risen.property),
        };
        if polls % 3 == 0 {
            let kinds = [
                FaultKind::UnknownApplied,
                FaultKind::UnknownLost,
                FaultKind::PanicAfter,
                FaultKind::Rejected,
            ];
            faults.arm(Fault::once((polls % 4) as u64, kinds[polls / 3 % 4]));
        }
        let app = async {
            let library = library;
            for _ in 0..4 {
                // The driver may be gone.
                let _ = risen.commit(&library, &step).await;
            }
        };
        join(at_most(polls + 1, driver.run()), app).await;
        let reopened = run(ask(open_store(fixture).await).clock(clock.clone()), async |library| {
            let step = format!("after {step}");
            risen.not_behind(&library, &step).await;
            risen.commit(&library, &step).await
        });
        reopened.await.expect("the store opens again").expect("the commit is made");
    }
    assert_whole(fixture, "after all crashes").await;
}

/// Goal: H2, a wall that once stood far ahead moves the clock for good: nothing is stamped below what was stamped then.
/// Method: a year ahead, for a few commits; then back, in the same opening and after restarts.
///
/// # Panics
/// If a stamp does not rise.
pub async fn stamps_rise_after_a_future<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut risen = Risen::new("stamps_rise_after_a_future");
    let clock = ManualClock::at(START_MS);
    for (ahead_ms, restarts) in [(0, 1), (YEAR_MS, 3), (YEAR_MS + 1, 2)] {
        for restart in 0..restarts {
            let step = format!("restart {restart} around a wall {ahead_ms} ms ahead");
            clock.set_wall(WallMs::new(START_MS));
            let opened = run(ask(open_store(fixture).await).clock(clock.clone()), async |library| {
                risen.not_behind(&library, &step).await;
                risen.commit(&library, &step).await?;
                if restart == 0 {
                    clock.set_wall(WallMs::new(START_MS + ahead_ms));
                    risen.commit(&library, &step).await?;
                    clock.set_wall(WallMs::new(START_MS));
                }
                risen.commit(&library, &step).await
            });
            let result: Result<Result<(), Error>, OpenError> = opened.await;
            result.expect("the store opens as a replica").expect("the commit is made");
        }
    }
    assert_whole(fixture, "after a wall far ahead").await;
}

/// Goal: H2, H4, what a replica has received is below its next stamp, also after a restart or a crash with a wall that went
/// back: otherwise its edit of what it saw would lose. Method: a peer whose clock is four minutes ahead, which is within
/// the bound, edits; then the replica is closed or killed, its wall goes back, and it edits the same record.
///
/// # Panics
/// If a stamp does not rise.
pub async fn stamps_rise_above_a_peers<F: Fixture>(fresh: &impl Fn() -> F) {
    play(fresh, async |world| {
        let [mut a, mut b] = world.group().await;
        let mut risen = Risen::new("stamps_rise_above_a_peers");
        b.clock.step_wall(4 * 60_000);
        for round in 0..4_u32 {
            let step = format!("round {round}");
            b.commit(note(100, format!("b, {round}"))).await.expect("the commit is made");
            world.converged(&[&a, &b]).await;
            // Long enough for the logs to be pruned: the clock must not rest on them.
            world.pass(1_000).await;
            let received = b.status().await.expect("it runs").clock;
            if round % 2 == 0 {
                a.close(world).await;
            } else {
                a.kill(world).await;
            }
            a.clock.step_wall(-60_000);
            a.reopen(world).await;
            risen.highest = risen.highest.max(Some(received));
            risen.not_behind(&a, &step).await;
            risen.commit(&a, &step).await.expect("the commit is made");
            a.commit(note(100, format!("a, {round}"))).await.expect("the commit is made");
            world.converged(&[&a, &b]).await;
            let found = b.get::<Note>(100).await.expect("it can be read");
            assert_eq!(found, Some(note(100, format!("a, {round}"))), "{step}: the later edit has lost");
        }
        world.assert_equal(&mut [&mut a, &mut b]).await;
    })
    .await;
}
