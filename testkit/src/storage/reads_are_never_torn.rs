//! A read sees whole batches only.

use std::fmt::{self, Display};
use std::ops::ControlFlow;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::FutureExt as _;
use syncline::{GET_KEYS_MAX, Key, KeyRange, ScanLimit, Storage as _, Value, WriteBatch, WriteOp};

use super::subject::Subject;
use crate::on_drop::OnDrop;
use crate::poll::interleave;
use crate::{Fixture, threads, watchdog};

/// Reads that run beside the writes of one shape, whatever the scheduler does.
const READS_MIN: usize = 200;
const READS_MAX: u64 = 20_000;
const LEAD_MAX: usize = 64;

/// The shapes of the batches, as far as the limits of the store allow them. Larger ones are written less often: their
/// writes and reads take longer, so that they meet all the same.
const SHAPES: [Shape; 7] = [
    Shape { ops: 13, value_bytes: 8, writes: 150, reads: READS_MIN },
    Shape { ops: 14, value_bytes: 8, writes: 40, reads: 60 },
    Shape { ops: 100, value_bytes: 8, writes: 30, reads: 40 },
    Shape { ops: 1_000, value_bytes: 8, writes: 10, reads: 20 },
    Shape { ops: 10_000, value_bytes: 8, writes: 4, reads: 8 },
    Shape { ops: 60, value_bytes: 64 << 10, writes: 6, reads: 12 },
    Shape { ops: 24, value_bytes: 5 << 18, writes: 2, reads: 6 },
];

/// The batches of one race.
#[derive(Clone, Copy)]
struct Shape {
    ops: usize,
    value_bytes: usize,
    /// The fewest writes, and the fewest reads beside them.
    writes: u64,
    reads: usize,
}

impl Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batches of {} operations with values of {} bytes", self.ops, self.value_bytes)
    }
}

/// Goal: a read never sees part of a batch, however large. Method: every batch gives all keys the same number; reads
/// start at every poll of a write and writes at every poll of a read, then readers and a writer race on threads; with
/// batches from a dozen operations to the most that the store must take, and of many megabytes.
///
/// # Panics
/// If the store breaks the property.
pub async fn reads_are_never_torn<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("reads_are_never_torn", fixture).await;
    let most = subject.ops_of_a_batch(usize::MAX);
    let largest = Shape { ops: most, value_bytes: 8, writes: 1, reads: 4 };
    let must = subject.must_keep();
    for shape in SHAPES.into_iter().chain([largest]) {
        let ops = shape.ops.min(most);
        let value_bytes = shape.value_bytes.min(must.value_bytes).min(must.batch_bytes / ops / 2);
        let race = Race { shape: Shape { ops, value_bytes, ..shape }, subject: &subject };
        race.subject.write(format_args!("{}, the first", race.shape), race.batch(0)).await;
        if ops <= SHAPES[4].ops {
            race.polls_interleave();
        }
        race.threads().await;
        let step = format!("{}, deleting them", race.shape);
        let mut clearing = WriteBatch::new();
        clearing.delete_range(KeyRange::all());
        subject.write(&step, clearing).await;
        subject.reopen(&step).await;
    }
}

/// Readers and a writer of batches of one shape.
struct Race<'r, 'f, F: Fixture> {
    shape: Shape,
    subject: &'r Subject<'f, F>,
}

#[derive(Clone, Copy)]
enum Way {
    GetMany,
    Scan,
    Visit,
}

impl Way {
    const ALL: [Self; 3] = [Self::GetMany, Self::Scan, Self::Visit];
}

/// What one read found: so many keys of those that it asked for, and a number under each.
struct Found {
    keys: usize,
    of: usize,
    /// The first number, and one that differs from it.
    number: u64,
    other: Option<u64>,
}

impl Found {
    const fn nothing(of: usize) -> Self {
        Self { keys: 0, of, number: 0, other: None }
    }

    fn take(&mut self, value: &[u8]) {
        let number = number_of(value);
        if self.keys == 0 {
            self.number = number;
        }
        if number != self.number {
            self.other = Some(number);
        }
        self.keys += 1;
    }
}

/// The number that a value begins and ends with.
fn number_of(value: &[u8]) -> u64 {
    let at = |bytes: Option<&[u8; 8]>| bytes.copied().map_or(u64::MAX, u64::from_be_bytes);
    let (first, last) = (at(value.first_chunk()), at(value.last_chunk()));
    if first == last { first } else { u64::MAX }
}

impl<F: Fixture> Race<'_, '_, F> {
    /// So many keys that a batch with a put for each, a delete for every second one and a range delete is full.
    fn keys(&self) -> u32 {
        u32::try_from((self.shape.ops - 1) * 2 / 3).unwrap_or(u32::MAX)
    }

    /// Gives every key `number`. The batch deletes keys before it puts them, so a torn state lacks keys or has several
    /// numbers.
    fn batch(&self, number: u64) -> WriteBatch {
        let mut value: Value = vec![0; self.shape.value_bytes.max(8)];
        let len = value.len();
        value[..8].copy_from_slice(&number.to_be_bytes());
        value[len - 8..].copy_from_slice(&number.to_be_bytes());

        let keys = self.keys();
        let mut ops = Vec::with_capacity(self.shape.ops);
        ops.extend((0..keys).step_by(2).map(|at| WriteOp::Delete { key: key(at) }));
        ops.push(WriteOp::DeleteRange { range: KeyRange::prefix(key(keys / 2)) });
        ops.extend((0..keys).map(|at| WriteOp::Put { key: key(at), value: value.clone() }));
        while ops.len() < self.shape.ops {
            ops.push(WriteOp::Delete { key: key(keys) });
        }
        ops.into()
    }

    async fn read(&self, way: Way) -> Found {
        let keys = self.keys() as usize;
        match way {
            Way::GetMany => {
                // As many keys as one read may have, from all over the batch.
                let asked = keys.min(GET_KEYS_MAX);
                let spread = |at: usize| u32::try_from(at * keys / asked).unwrap_or(u32::MAX);
                let asked: Vec<_> = (0..asked).map(|at| key(spread(at))).collect();
                let mut found = Found::nothing(asked.len());
                let values = self.subject.get_many(format!("{}, a read", self.shape), &asked).await;
                values.into_iter().flatten().for_each(|value| found.take(&value));
                found
            }
            Way::Scan => {
                let step = format!("{}, a scan", self.shape);
                let page = self.subject.scan_page(step, KeyRange::prefix(*b"torn/"), ScanLimit::NONE).await;
                // A store may answer in part. Only within one answer is there one state.
                let mut found = Found::nothing(if page.more { page.entries.len() } else { keys });
                page.entries.iter().for_each(|entry| found.take(&entry.value));
                found
            }
            Way::Visit => {
                let mut found = Found::nothing(keys);
                let mut each = |_: &[u8], value: &[u8]| {
                    found.take(value);
                    ControlFlow::Continue(())
                };
                let range = KeyRange::prefix(*b"torn/");
                watchdog::step(format_args!("{}, a visit", self.shape));
                match self.subject.store().visit(range, ScanLimit::NONE, &mut each).await {
                    Ok(false) => {}
                    Ok(true) => found.of = found.keys,
                    Err(error) => self.fail("a visit", format_args!("it failed: {error}")),
                }
                found
            }
        }
    }

    /// Fails if a read was torn; returns the number of the batch that it found.
    fn whole(&self, step: impl Display, found: &Found) -> u64 {
        let Found { keys, of, number, other } = found;
        if keys != of {
            self.fail(step, format_args!("every batch puts all {of} keys, but a read found {keys} of them"));
        }
        if let Some(other) = other {
            self.fail(
                step,
                format_args!("{of} keys always get the same number, but a read found {number} and {other}"),
            );
        }
        *number
    }

    fn fail(&self, step: impl Display, what: impl Display) -> ! {
        self.subject.fail(format_args!("{}, {step}", self.shape), what)
    }

    fn polls_interleave(&self) {
        let mut number = 0;
        for way in Way::ALL {
            for write_leads in [true, false] {
                for lead in 0..=LEAD_MAX {
                    let write = self.subject.store().write(self.batch(number + 1));
                    let read = self.read(way);
                    let (written, found, overlapped) = if write_leads {
                        interleave(lead, write, read)
                    } else {
                        let (found, written, overlapped) = interleave(lead, read, write);
                        (written, found, overlapped)
                    };
                    let leader = if write_leads { "the write" } else { "the read" };
                    let step = format!("a read and a write, {leader} polled {lead} times before the other");
                    if let Err(error) = written {
                        self.fail(step, format_args!("the write failed: {error}"));
                    }
                    let found = self.whole(&step, &found);
                    if found != number && found != number + 1 {
                        self.fail(step, format_args!("found batch {found} while {} was written", number + 1));
                    }
                    number += 1;
                    if lead > 0 && !overlapped {
                        break;
                    }
                }
            }
        }
    }

    async fn threads(&self) {
        // Bounds the writes that wait for readers to get their turn: a fast store would be done before they begin.
        let writes_max = self.shape.writes * 500;
        let reads_min = self.shape.reads;
        let step = format!("{}, threads", self.shape);
        self.subject.write(&step, self.batch(0)).await;
        let done = AtomicBool::new(false);
        let reads = AtomicUsize::new(0);
        let start = Barrier::new(Way::ALL.len() + 1);
        let (done, reads, start, step) = (&done, &reads, &start, &step);
        let mut tasks = vec![
            async move {
                let _ended = OnDrop::new(|| done.store(true, Ordering::SeqCst));
                start.wait();
                for number in 1..=writes_max {
                    if number > self.shape.writes && reads.load(Ordering::SeqCst) >= reads_min {
                        break;
                    }
                    self.subject.write(step, self.batch(number)).await;
                }
            }
            .boxed(),
        ];
        for way in Way::ALL {
            let reading = async move {
                // A reader that has failed keeps the writer no longer.
                let _ended = OnDrop::new(|| {
                    reads.fetch_add(reads_min, Ordering::SeqCst);
                });
                start.wait();
                let mut seen = 0;
                for _ in 0..READS_MAX {
                    let last_round = done.load(Ordering::SeqCst);
                    let found = self.whole("threads", &self.read(way).await);
                    if found < seen {
                        self.fail("threads", format_args!("found batch {found} after batch {seen}"));
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
}

fn key(at: u32) -> Key {
    [&b"torn/"[..], &at.to_be_bytes()].concat()
}
