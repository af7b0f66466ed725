//! A read sees whole batches only.

use std::fmt::Display;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::FutureExt as _;
use syncline::{Key, KeyRange, Storage as _, WriteBatch};

use super::reads_see_last_write::number_of;
use super::subject::Subject;
use crate::on_drop::OnDrop;
use crate::poll::interleave;
use crate::{Fixture, threads};

const KEYS: u8 = 8;
const WRITES: u64 = 150;
/// Bounds the writes that wait for readers to get their turn: a fast store would be done before they begin.
const WRITES_MAX: u64 = 100_000;
const READERS: usize = 2;
/// Reads that run beside the writes, whatever the scheduler does.
const READS_MIN: usize = 200;
const READS_MAX: u64 = 20_000;
const LEAD_MAX: usize = 64;

/// Goal: a read never sees part of a batch. Method: every batch gives all keys the same number; reads start at every
/// poll of a write and writes at every poll of a read, then readers and a writer race on threads.
///
/// # Panics
/// If the store breaks the property.
pub async fn reads_are_never_torn<F: Fixture>(fixture: &F) {
    let subject = Subject::open("reads_are_never_torn", fixture).await;
    subject.write("filling the store", same_number(0)).await;
    polls_interleave(&subject);
    threads_race(&subject).await;
}

/// Gives every key `number`. The batch deletes keys before it puts them, so a torn state lacks keys or has several
/// numbers.
fn same_number(number: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for key in keys().into_iter().step_by(2) {
        batch.delete(key);
    }
    batch.delete_range(KeyRange::prefix(*b"torn/\x05"));
    for key in keys() {
        batch.put(key, number.to_be_bytes());
    }
    batch
}

fn keys() -> Vec<Key> {
    (0..KEYS).map(|key| [&b"torn/"[..], &[key]].concat()).collect()
}

#[derive(Clone, Copy)]
enum Way {
    GetMany,
    Scan,
}

/// The numbers that a read finds, one for each key that is there.
async fn numbers<F: Fixture>(subject: &Subject<'_, F>, way: Way) -> Vec<u64> {
    match way {
        Way::GetMany => {
            let values = subject.get_many("a read beside a write", &keys()).await;
            values.into_iter().flatten().map(number_of).collect()
        }
        Way::Scan => {
            let entries =
                subject.scan("a scan beside a write", KeyRange::prefix(*b"torn/"), usize::MAX).await;
            entries.into_iter().map(|entry| number_of(entry.value)).collect()
        }
    }
}

fn check<F: Fixture>(subject: &Subject<'_, F>, step: impl Display, numbers: &[u64]) -> u64 {
    let first = numbers.first().copied().unwrap_or_default();
    if numbers.len() != usize::from(KEYS) || numbers.iter().any(|number| *number != first) {
        subject
            .fail(step, format_args!("{KEYS} keys always get the same number, but a read found {numbers:?}"));
    }
    first
}

fn polls_interleave<F: Fixture>(subject: &Subject<'_, F>) {
    let mut number = 0;
    for way in [Way::GetMany, Way::Scan] {
        for write_leads in [true, false] {
            for lead in 0..=LEAD_MAX {
                let write = subject.store().write(same_number(number + 1));
                let read = numbers(subject, way);
                let (written, found, overlapped) = if write_leads {
                    interleave(lead, write, read)
                } else {
                    let (found, written, overlapped) = interleave(lead, read, write);
                    (written, found, overlapped)
                };
                let leader = if write_leads { "the write" } else { "the read" };
                let step = format!("a read and a write, {leader} polled {lead} times before the other");
                if let Err(error) = written {
                    subject.fail(step, format_args!("the write failed: {error}"));
                }
                let found = check(subject, &step, &found);
                if found != number && found != number + 1 {
                    subject.fail(step, format_args!("found batch {found} while {} was written", number + 1));
                }
                number += 1;
                if lead > 0 && !overlapped {
                    break;
                }
            }
        }
    }
}

async fn threads_race<F: Fixture>(subject: &Subject<'_, F>) {
    subject.write("before the race", same_number(0)).await;
    let done = AtomicBool::new(false);
    let reads = AtomicUsize::new(0);
    let start = Barrier::new(READERS + 1);
    let (done, reads, start) = (&done, &reads, &start);
    let mut tasks = vec![
        async move {
            start.wait();
            for number in 1..=WRITES_MAX {
                if number > WRITES && reads.load(Ordering::SeqCst) >= READS_MIN {
                    break;
                }
                subject.write("a write beside readers", same_number(number)).await;
            }
            done.store(true, Ordering::SeqCst);
        }
        .boxed(),
    ];
    for way in [Way::GetMany, Way::Scan].into_iter().cycle().take(READERS) {
        let reading = async move {
            // A reader that has failed keeps the writer no longer.
            let _ended = OnDrop::new(|| {
                reads.fetch_add(READS_MIN, Ordering::SeqCst);
            });
            start.wait();
            let mut seen = 0;
            for _ in 0..READS_MAX {
                let last_round = done.load(Ordering::SeqCst);
                let found = check(subject, "threads", &numbers(subject, way).await);
                if found < seen {
                    subject.fail("threads", format_args!("found batch {found} after batch {seen}"));
                }
                seen = found;
                reads.fetch_add(1, Ordering::SeqCst);
                if last_round {
                    break;
                }
            }
        };
        tasks.push(reading.boxed());
    }
    threads::run_all(tasks);
}
