//! Once a write has returned, every read sees it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::FutureExt as _;
use futures::future::{join, join_all};
use syncline::{KeyRange, ScanLimit, Storage as _, WriteBatch};

use super::samples::{SWEPT_ENTRIES, mark, nasty_state, numbered_batch, replacing, wide_state};
use super::subject::{Subject, try_read};
use super::sweep::Sweep;
use crate::poll::{block_on_patiently, patience, poll_at_most};
use crate::sorted_map::{self, SortedMap};
use crate::{Fixture, threads, watchdog};

const WRITES: u64 = 200;
const READERS: usize = 2;
const READS_MAX: u64 = 20_000;

/// Goal: no cache, no queue and no other thread hides a write that returned. Method: read every key both ways before
/// and after each kind of operation; then threads that read beside a writer; reads beside a write whose future is held,
/// which they must not wait for; many reads at a time, and on many threads; then a broken medium, under which a failed read must not say "absent".
///
/// # Panics
/// If the store breaks the property.
pub async fn reads_see_last_write<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let subject = Subject::open("reads_see_last_write", fixture).await;
    every_read_is_fresh(&subject).await;
    other_threads_see_it(&subject);
    reads_wait_for_no_write(&subject).await;
    many_readers_read(&subject).await;
    failed_gets_say_so(subject).await;
}

async fn every_read_is_fresh<F: Fixture>(subject: &Subject<'_, F>) {
    let mut state = SortedMap::new();
    let keys: Vec<_> = nasty_state().into_keys().collect();
    let mut emptying = WriteBatch::new();
    emptying.delete_range(KeyRange::all());
    let mut deleting = WriteBatch::new();
    for key in &keys {
        deleting.delete(key.clone());
    }
    let batches = [
        ("the first puts", replacing(&nasty_state())),
        ("a range delete of everything", emptying),
        ("puts after a range delete", replacing(&nasty_state())),
        ("deletes", deleting),
        ("puts after deletes", replacing(&nasty_state())),
    ];
    for (step, batch) in
        batches.into_iter().chain((0..6).map(|number| ("overwrites", numbered_batch(number))))
    {
        sorted_map::apply(&mut state, batch.ops());
        subject.write(step, batch).await;
        subject.expect(step, &state).await;
        // Ask for absent keys too: a cache may remember both kinds.
        let expected: Vec<_> = keys.iter().map(|key| state.get(key).cloned()).collect();
        if subject.get_many(step, &keys).await != expected {
            subject.fail(step, "`get_many` found a value of before");
        }
    }
}

fn other_threads_see_it<F: Fixture>(subject: &Subject<'_, F>) {
    let (returned, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let start = Barrier::new(READERS + 1);
    let (returned, done, start) = (&returned, &done, &start);

    let mut tasks = vec![
        async move {
            start.wait();
            for number in 1..=WRITES {
                let mut batch = WriteBatch::new();
                batch.put(*b"number", number.to_be_bytes());
                subject.write("a write beside readers", batch).await;
                returned.store(number, Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        }
        .boxed(),
    ];
    for _ in 0..READERS {
        let reading = async move {
            start.wait();
            let mut seen = 0;
            for read in 0..READS_MAX {
                let floor = returned.load(Ordering::SeqCst);
                let last_round = done.load(Ordering::SeqCst);
                let value = if read % 2 == 0 {
                    subject.get("a read beside a writer", b"number").await
                } else {
                    let entries =
                        subject.scan("a scan beside a writer", KeyRange::prefix(*b"number"), 1).await;
                    entries.into_iter().next().map(|entry| entry.value)
                };
                let found = value.map_or(0, number_of);
                if found < floor.max(seen) {
                    subject.fail(
                        "a read beside a writer",
                        format_args!("found write {found} after write {floor} had returned, {seen} was seen"),
                    );
                }
                seen = found;
                if last_round {
                    break;
                }
            }
        };
        tasks.push(reading.boxed());
    }
    threads::run_all(tasks);
}

fn number_of(value: Vec<u8>) -> u64 {
    value.try_into().map_or(u64::MAX, u64::from_be_bytes)
}

/// Holds a write after each of its polls and reads meanwhile: nobody but the reader could let the write go on.
async fn reads_wait_for_no_write<F: Fixture>(subject: &Subject<'_, F>) {
    const POLLS_MAX: usize = 64;
    let keys = [mark(0)];
    for polls in 1..=POLLS_MAX {
        let step = format!("a read beside a write that is held after {polls} polls");
        watchdog::step(&step);
        let mut write = subject.store().write(numbered_batch(0));
        let finished = poll_at_most(polls, write.as_mut());
        let all = ScanLimit::entries(100);
        for ended in [
            block_on_patiently(subject.store().get_many(&keys)).map(|found| found.map(drop)),
            block_on_patiently(subject.store().scan(KeyRange::all(), all)).map(|found| found.map(drop)),
        ] {
            match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => subject.fail(step, format_args!("it failed: {error}")),
                None => subject.fail(step, format_args!("it has waited for {} s", patience().as_secs())),
            }
        }
        let is_last = finished.is_some();
        let written = match finished {
            Some(written) => written,
            None => write.await,
        };
        if let Err(error) = written {
            subject.fail(step, format_args!("the write failed: {error}"));
        }
        if is_last {
            break;
        }
    }
}

/// Reads that run at a time, and threads that have read and are gone: more than the slots that engines have for readers.
async fn many_readers_read<F: Fixture>(subject: &Subject<'_, F>) {
    const READS: usize = 64;
    const READING_THREADS: usize = 150;
    let (key, step) = (mark(0), format!("{READS} reads at a time"));
    let all = ScanLimit::entries(10);
    let gets = (0..READS).map(|_| subject.store().get_many(std::slice::from_ref(&key)));
    let scans = (0..READS).map(|_| subject.store().scan(KeyRange::all(), all));
    watchdog::step(&step);
    let (gets, scans) = join(join_all(gets), join_all(scans)).await;
    let errors = gets.into_iter().filter_map(Result::err).chain(scans.into_iter().filter_map(Result::err));
    if let Some(error) = errors.into_iter().next() {
        subject.fail(step, format_args!("one of them failed: {error}"));
    }
    for thread in 1..=READING_THREADS {
        let step = format!("a read on thread {thread}, of which each ends before the next");
        threads::run_all(vec![async { drop(subject.get(&step, &key).await) }.boxed()]);
    }
}

async fn failed_gets_say_so<F: Fixture>(mut subject: Subject<'_, F>) {
    let state = wide_state(SWEPT_ENTRIES);
    subject.write("filling the store", replacing(&state)).await;
    let (keys, values): (Vec<_>, Vec<_>) = state.into_iter().unzip();
    let mut sweep = Sweep::of(subject.fixture());
    while let Some(fault) = sweep.next_fault() {
        let step = format!("a read under {fault}");
        // Reopen it before: a store that answers from memory reads its medium only when it opens.
        subject.reopen(&step).await;
        subject.break_medium(fault);
        let found = try_read(subject.store().get_many(&keys)).await;
        subject.mend_medium();
        if let Some(found) = &found
            && !found.iter().map(Option::as_ref).eq(values.iter().map(Some))
        {
            subject.fail(step, "a key that could not be read was answered with a wrong value, not an error");
        }
        sweep.went_well(found.is_some());
    }
}
