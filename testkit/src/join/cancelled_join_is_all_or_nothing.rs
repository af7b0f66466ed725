//! A dropped join leaves all of itself or nothing, and the store goes on.

use syncline::JoinStorage as _;

use super::subject::Both;
use super::work::Work;
use crate::JoinFixture;
use crate::poll::{poll_at_most, poll_at_most_until_woken};
use crate::sorted_map;
use crate::storage::samples::numbered_batch;
use crate::storage::subject::Subject;

const POLLS_MAX: usize = 64;
const DROPPED_IN_A_ROW: u32 = 3;

/// Goal: dropping is safe at every point. Method: drop joins after every number of polls, at once and when they could
/// have gone on, followed by a write or by a join; each time rows and entries are whole, and the next one works and
/// comes after, also when reopened.
///
/// # Panics
/// If the store breaks the property.
pub async fn cancelled_join_is_all_or_nothing<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("cancelled_join_is_all_or_nothing", fixture).await;
    let mut number = 3;
    subject.join("filling the store", Work::new(number).job::<F>()).await;
    for next_is_join in [false, true] {
        for until_woken in [false, true] {
            for polls in 0..=POLLS_MAX {
                if dropped_join(&mut subject, &mut number, polls, until_woken, next_is_join).await {
                    break;
                }
            }
        }
    }
    for polls in 0..=POLLS_MAX {
        if dropped_joins_in_a_row(&mut subject, &mut number, polls).await {
            break;
        }
    }
}

/// Calls what follows a dropped join: a join or a write.
async fn next<F: JoinFixture>(subject: &Subject<'_, F>, step: &str, number: u32, is_join: bool) {
    if is_join {
        subject.join(step, Work::new(number).job::<F>()).await;
    } else {
        subject.write(step, numbered_batch(number)).await;
    }
}

fn after_next(state: &Both, number: u32, is_join: bool) -> Both {
    if is_join {
        return Work::new(number).after(state);
    }
    Both { entries: sorted_map::after(&state.entries, &numbered_batch(number)), rows: state.rows.clone() }
}

/// Drops one join and goes on. Returns whether the join had finished.
async fn dropped_join<F: JoinFixture>(
    subject: &mut Subject<'_, F>,
    number: &mut u32,
    polls: usize,
    until_woken: bool,
    next_is_join: bool,
) -> bool {
    let (dropped, later) = (Work::new(*number + 1), *number + 2);
    *number += 2;
    let step = format!(
        "a join dropped after {polls} polls{}, then a {}",
        if until_woken { ", when it could have gone on" } else { "" },
        if next_is_join { "join" } else { "write" },
    );
    let before = subject.both(format_args!("before {step}")).await;
    let after = dropped.after(&before);
    let join = subject.store().join(dropped.job::<F>());
    let finished =
        if until_woken { poll_at_most_until_woken(polls, join) } else { poll_at_most(polls, join) };
    if let Some(result) = &finished
        && (result.is_err() || !subject.expect_either_both(&step, &before, &after).await)
    {
        subject.fail(step, format_args!("it ended with {result:?}, but it is not there"));
    }
    // Call the next one at once, so that it meets the dropped one.
    next(subject, &step, later, next_is_join).await;
    let found = subject.both(&step).await;
    let ends = [&before, &after].map(|state| after_next(state, later, next_is_join));
    if !ends.contains(&found) {
        let difference = found.difference(&ends[1]);
        subject.fail(
            step,
            format_args!("it is not whole, or came after the next one: against both: {difference}"),
        );
    }
    subject.expect_both(format_args!("{step}, once more"), &found).await;
    subject.reopen(&step).await;
    subject.expect_both(format_args!("{step}, reopened"), &found).await;
    finished.is_some()
}

/// Drops several joins one after the other, then makes one. Returns whether the dropped ones had finished.
async fn dropped_joins_in_a_row<F: JoinFixture>(
    subject: &mut Subject<'_, F>,
    number: &mut u32,
    polls: usize,
) -> bool {
    let step = format!("{DROPPED_IN_A_ROW} joins, each dropped after {polls} polls, and one more");
    let mut states = vec![subject.both(format_args!("before {step}")).await];
    let mut finished = true;
    for _ in 0..DROPPED_IN_A_ROW {
        *number += 1;
        let work = Work::new(*number);
        let with: Vec<_> = states.iter().map(|state| work.after(state)).collect();
        states.extend(with);
        finished &= poll_at_most(polls, subject.store().join(work.job::<F>())).is_some();
    }
    *number += 1;
    let last = Work::new(*number);
    subject.join(&step, last.job::<F>()).await;
    let found = subject.both(&step).await;
    if !states.iter().any(|state| last.after(state) == found) {
        let difference = found.difference(&last.after(&states[states.len() - 1]));
        subject.fail(
            step,
            format_args!("no choice of the dropped joins leaves this: against all: {difference}"),
        );
    }
    subject.reopen(&step).await;
    subject.expect_both(format_args!("{step}, reopened"), &found).await;
    finished
}
