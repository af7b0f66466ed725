//! Commits share writes, queues are bounded, and a busy replica still answers.

use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::{join, join_all, join3};
use syncline::{Lagged, Limits};

use super::app::{ask, assert_whole, open_store, run, run_on, settle};
use crate::models::{Note, note};
use crate::poll::give_way;
use crate::{Fixture, Gate, Gated};

/// Commits that wait while the store writes share its next write.
pub async fn commits_share_writes<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    const CALLERS: u32 = 64;
    let gate = Gate::new();
    let (library, driver) = ask(Gated::writes(open_store(fixture).await, gate.clone())).open().await.unwrap();
    let app = async {
        let library = library;
        let opened = gate.passed();
        gate.close();
        let first = library.commit(note(1000, "first"));
        let rest = async {
            settle().await;
            let rest = join_all((0..CALLERS).map(|id| library.commit(note(id, "rest"))));
            join(rest, async {
                settle().await;
                gate.open();
            })
            .await
            .0
        };
        let (first, rest) = join(first, rest).await;
        first.unwrap();
        rest.into_iter().for_each(|result| drop(result.unwrap()));
        assert_eq!(gate.passed() - opened, 2, "one write for the first, one for all that came meanwhile");
        assert_eq!(
            library.status().await.unwrap().commits,
            2 + u64::from(CALLERS),
            "each is a commit of its own"
        );
    };
    join(driver.run(), app).await.0.unwrap();
    assert_whole(fixture, "after a group").await;
}

/// B1, B4: callers wait while the queue has no room for their commits; no commit is dropped and none fails.
pub async fn a_full_queue_makes_callers_wait<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    const CALLERS: u32 = 50;
    let limits = Limits {
        value_bytes_max: 4096,
        commit_bytes_max: 4096,
        commit_changes_max: 8,
        queue_bytes_max: 3 * 4096,
        ..Limits::default()
    };
    let queue = limits.queue_bytes_max;
    let gate = Gate::new();
    let (library, driver) =
        ask(Gated::writes(open_store(fixture).await, gate.clone())).limits(limits).open().await.unwrap();
    let app = async {
        let library = library;
        gate.close();
        let text = "x".repeat(3000);
        let commits = join_all((0..CALLERS).map(|id| library.commit(note(id, &*text))));
        let outside = async {
            settle().await;
            let queued = library.status().await.unwrap().queued_bytes;
            assert!(queued > 6000 && queued <= queue, "{queued} of {queue} bytes are taken");
            gate.open();
        };
        let (results, ()) = join(commits, outside).await;
        results.into_iter().for_each(|result| drop(result.unwrap()));
        assert_eq!(library.status().await.unwrap().queued_bytes, 0, "all of it is given back");
    };
    join(driver.run(), app).await.0.unwrap();
}

/// B2, C3: a subscriber that takes no events delays no commit. It is told that it lags, and goes on with the events
/// that are still there.
pub async fn a_stuck_subscriber_delays_nobody<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let limits = Limits { event_commits_max: 4, ..Limits::default() };
    run(ask(open_store(fixture).await).limits(limits), async |library| {
        let mut stuck = library.events();
        for id in 0..10 {
            library.commit(note(id, "x")).await.unwrap();
        }
        assert_eq!(stuck.next().await, Some(Err(Lagged { notices: 6 })));
        for id in 6..10 {
            let Some(Ok(syncline::Event::Changed(change))) = stuck.next().await else { panic!("an event") };
            assert_eq!(change.record.id::<Note>(), Some(id));
        }
    })
    .await
    .unwrap();
}

/// A replica that is never idle answers `status` and `shutdown` within a bounded number of commits.
pub async fn a_busy_replica_answers<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let (library, driver) = ask(open_store(fixture).await).open().await.unwrap();
    let made = AtomicU32::new(0);
    let busy = async {
        for n in 0..2000 {
            if library.commit(note(1, n.to_string())).await.is_err() {
                break;
            }
            made.store(n + 1, Ordering::Relaxed);
        }
    };
    let asking = async {
        give_way().await;
        library.status().await.unwrap();
        assert!(made.load(Ordering::Relaxed) < 100, "status waited for {made:?} commits");
        library.shutdown().await.unwrap();
        assert!(made.load(Ordering::Relaxed) < 200, "shutdown waited for {made:?} commits");
    };
    join3(driver.run(), busy, asking).await.0.unwrap();
}

/// A shutdown makes the commits that were called before it, ends the subscriptions, and releases the store.
pub async fn shutting_down_serves_what_was_sent<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let gate = Gate::new();
    let (library, driver) = ask(Gated::writes(open_store(fixture).await, gate.clone())).open().await.unwrap();
    let app = async {
        let mut events = library.events();
        gate.close();
        // When the shutdown is called, one commit is being written and the others wait.
        let first = library.commit(note(0, "x"));
        let rest = async {
            settle().await;
            join_all((1..20).map(|id| library.commit(note(id, "x")))).await
        };
        let shutdown = async {
            settle().await;
            settle().await;
            let (done, ()) = join(library.shutdown(), async {
                settle().await;
                gate.open();
            })
            .await;
            done
        };
        let (first, rest, shutdown) = join3(first, rest, shutdown).await;
        first.unwrap();
        rest.into_iter().for_each(|result| drop(result.unwrap()));
        shutdown.unwrap();
        for _ in 0..20 {
            assert!(matches!(events.next().await, Some(Ok(_))));
        }
        assert_eq!(events.next().await, None);
        assert_eq!(library.events().next().await, None, "a subscription made too late has ended");
        // The store is released although a handle still lives.
        assert_whole(fixture, "after a shutdown").await;
        library.shutdown().await.unwrap();
    };
    join(driver.run(), app).await.0.unwrap();
    run_on(fixture, async |library| assert_eq!(library.status().await.unwrap().commits, 21)).await;
}
