//! A job runs once, within its join. It may not run at all only if the join fails.

use syncline::JoinStorage as _;

use super::subject::join_under_faults;
use super::work::{STEPS, Stop, Work};
use crate::JoinFixture;
use crate::poll::poll_at_most;
use crate::storage::subject::{Outcome, Subject};

const POLLS_MAX: usize = 64;

/// Goal: a job runs once, and not after its join has returned. Method: count the runs of jobs that end in every way, of
/// joins that are dropped at every poll, and under every fault of the medium; count again after another join.
///
/// # Panics
/// If the store breaks the property.
pub async fn join_runs_its_job_once<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("join_runs_its_job_once", fixture).await;
    let mut works = vec![Work::new(1)];
    for step in 0..=STEPS {
        works.extend([Stop::Error, Stop::Panic].map(|how| Work::stopping(2, step, how)));
    }
    for work in works {
        let step = format!("a job that stops at {:?}", work.stop);
        let (outcome, _) = subject.try_join(work.job::<F>()).await;
        expect_runs(&mut subject, &step, &work, outcome == Outcome::Ok).await;
        if work.runs.count() != 1 {
            subject.fail(step, "nothing stood against the join, but its job was not run");
        }
    }
    for polls in 0..=POLLS_MAX {
        let work = Work::new(polls.try_into().unwrap_or(u32::MAX) + 10);
        let before = subject.both("before a dropped join").await;
        let after = work.after(&before);
        let finished = poll_at_most(polls, subject.store().join(work.job::<F>()));
        let step = format!("a join dropped after {polls} polls");
        // Reading the rows is a join too: once it has returned, the dropped one has ended.
        let applied = subject.expect_either_both(&step, &before, &after).await;
        expect_runs(&mut subject, &step, &work, applied).await;
        if finished.is_some() {
            break;
        }
    }
    join_under_faults(&mut subject, async |subject, round| {
        if !matches!(round.outcome, Outcome::Ok | Outcome::Rejected) {
            subject.reopen(&round.step).await;
        }
        expect_runs(subject, &round.step, &round.work, round.outcome == Outcome::Ok).await;
    })
    .await;
}

/// Counts the runs at once, and again after another join, a write and reopening.
async fn expect_runs<F: JoinFixture>(subject: &mut Subject<'_, F>, step: &str, work: &Work, ok: bool) {
    let runs = work.runs.count();
    if runs > 1 || (ok && runs == 0) {
        subject.fail(step, format_args!("the job ran {runs} times"));
    }
    subject.join(step, Work::new(1).job::<F>()).await;
    subject.write(step, crate::storage::samples::numbered_batch(2)).await;
    subject.reopen(step).await;
    let later = work.runs.count();
    if later != runs {
        subject.fail(step, format_args!("the job ran {runs} times, later {later} times"));
    }
}
