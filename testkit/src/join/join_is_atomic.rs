//! The rows that a job changed and the batches that it applied are there together, or none of them is.

use syncline::{JoinStorage as _, JoinTx as _, WriteBatch};

use super::subject::{Both, join_under_faults};
use super::work::{STEPS, Stop, Work};
use crate::JoinFixture;
use crate::poll::{poll_at_most, poll_at_most_until_woken};
use crate::sorted_map;
use crate::storage::subject::Subject;

const POLLS_MAX: usize = 64;

/// Goal: however a join ends, no part of it is left. Method: joins small and large; jobs that fail at each step; the
/// store dropped at every poll of a join; an error, lasting errors and a panic at every operation of the medium; each
/// time rows and entries are those before or those after, there and then, reopened, and reopened again.
///
/// # Panics
/// If the store breaks the property.
pub async fn join_is_atomic<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("join_is_atomic", fixture).await;
    joins_land_whole(&mut subject).await;
    dropped_stores_hold_whole_joins(&mut subject).await;
    join_under_faults(&mut subject, async |subject, round| {
        let step = &round.step;
        // After an unknown outcome the store may refuse to read. If it reads, the state must be whole.
        if let Some(found) = subject.try_both().await {
            subject.whole_both(step, &found, &round.before, &round.after);
        }
        subject.reopen(step).await;
        let step = format!("{step}, reopened");
        let applied = subject.expect_either_both(&step, &round.before, &round.after).await;
        subject.reopen(&step).await;
        let settled = if applied { &round.after } else { &round.before };
        subject.expect_both(format_args!("{step} twice"), settled).await;
    })
    .await;
}

async fn joins_land_whole<F: JoinFixture>(subject: &mut Subject<'_, F>) {
    const MANY: u32 = 1_000;
    let mut state = Both::default();
    let mut large = WriteBatch::new();
    for number in 0..MANY {
        large.put([&b"large/"[..], &number.to_be_bytes()].concat(), number.to_be_bytes());
    }
    sorted_map::apply(&mut state.entries, large.ops());
    state.rows.extend((0..u64::from(MANY)).map(|key| (key, format!("row {key}"))));
    let job = move |tx: &<F::Store as syncline::JoinStorage>::Tx<'_>| {
        for key in 0..u64::from(MANY) {
            F::put_row(tx.native(), key, &format!("row {key}"))?;
        }
        tx.apply(&large)
    };
    subject.join("a large join", Box::new(job)).await;
    subject.expect_both("a large join", &state).await;
    subject.reopen("a large join").await;
    subject.expect_both("a large join, reopened", &state).await;

    for step in 0..=STEPS {
        for how in [Stop::Error, Stop::Panic] {
            let name = format!("a job that ends with {how:?} before step {step}");
            let failing = Work::stopping(1, step, how);
            subject.try_join(failing.job::<F>()).await;
            subject.expect_both(&name, &state).await;
            let work = Work::new(2);
            state = work.after(&state);
            subject.join(&name, work.job::<F>()).await;
            subject.expect_both(format_args!("{name}, and a join after it"), &state).await;
        }
    }
    let job = move |tx: &<F::Store as syncline::JoinStorage>::Tx<'_>| {
        for (key, _) in F::rows(tx.native())? {
            F::delete_row(tx.native(), key)?;
        }
        let mut all = WriteBatch::new();
        all.delete_range(syncline::KeyRange::all());
        tx.apply(&all)
    };
    subject.join("a join that clears everything", Box::new(job)).await;
    subject.reopen("a join that clears everything").await;
    subject.expect_both("a join that clears everything, reopened", &Both::default()).await;
}

/// Drops a join together with its store, at every poll. Nothing else that every fixture can do is so near to a crash.
async fn dropped_stores_hold_whole_joins<F: JoinFixture>(subject: &mut Subject<'_, F>) {
    let mut number = 2;
    for until_woken in [false, true] {
        for polls in 0..=POLLS_MAX {
            number += 1;
            let work = Work::new(number);
            let before = subject.both("before a dropped join").await;
            let after = work.after(&before);
            let join = subject.store().join(work.job::<F>());
            let finished =
                if until_woken { poll_at_most_until_woken(polls, join) } else { poll_at_most(polls, join) };
            let step = format!("store and join dropped after {polls} polls");
            subject.reopen(&step).await;
            let applied = subject.expect_either_both(&step, &before, &after).await;
            match finished {
                None => {}
                Some(Ok(())) if applied => break,
                Some(result) => {
                    subject.fail(step, format_args!("the join ended with {result:?}, applied: {applied}"))
                }
            }
        }
    }
}
