//! A store keeps a size whole, or it rejects it.

use syncline::{Entry, GET_KEYS_MAX, Key, KeyRange, ScanLimit, StoreLimits, Value, WriteBatch, WriteOp};

use super::samples::pattern;
use super::subject::{Outcome, Subject};
use crate::Fixture;
use crate::sorted_map::{self, SortedMap, bytes};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The lengths of values: around powers of two, where length prefixes grow and pages end.
const VALUE_BYTES: [usize; 17] = [
    0,
    1,
    127,
    128,
    255,
    256,
    511,
    512,
    513,
    4 * KIB - 1,
    4 * KIB,
    4 * KIB + 1,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    MIB,
    16 * MIB,
];

/// The lengths of keys, likewise.
const KEY_BYTES: [usize; 16] = [
    1,
    127,
    128,
    254,
    255,
    256,
    257,
    511,
    512,
    513,
    KIB,
    4 * KIB - 1,
    4 * KIB,
    4 * KIB + 1,
    64 * KIB - 1,
    64 * KIB + 1,
];

/// The prefix of every key of a large batch.
const LARGE: &[u8] = b"large/";

/// Goal: sizes are kept or refused, never bent. Method: keys and values around every edge and at the limits that the
/// store declares, alone and together; batches of as many operations and as many bytes as it declares, and of one more;
/// reads of as many keys as a read has at most; then all of it again after reopening.
///
/// # Panics
/// If the store breaks the property.
pub async fn sizes_are_kept<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("sizes_are_kept", fixture).await;
    let must = subject.must_keep();
    let mut kept = SortedMap::new();
    let values = VALUE_BYTES.into_iter().chain(around(must.value_bytes)).map(|value| (8, value));
    let keys = KEY_BYTES.into_iter().chain(around(must.key_bytes)).map(|key| (key, 8));
    let both = [(513, 4 * KIB + 1), (4 * KIB, 64 * KIB + 1), (must.key_bytes, must.value_bytes)];
    for (salt, (key_bytes, value_bytes)) in (1..).zip(values.chain(keys).chain(both)) {
        put(&subject, must, &mut kept, pattern(key_bytes, salt), pattern(value_bytes, !salt)).await;
    }
    subject.expect("all sizes together", &kept).await;
    subject.reopen("after all sizes").await;
    subject.expect("all sizes together, reopened", &kept).await;

    let clear = async |subject: &Subject<'_, F>| {
        let mut batch = WriteBatch::new();
        batch.delete_range(KeyRange::all());
        subject.write("deleting everything", batch).await;
        subject.expect("deleting everything", &SortedMap::new()).await;
    };
    clear(&subject).await;
    every_length(&subject, must).await;
    clear(&subject).await;
    for count in [must.batch_ops, must.batch_ops.saturating_add(1)] {
        write_large(&mut subject, must, &format!("a batch of {count} operations"), many_puts(count)).await;
        clear(&subject).await;
    }
    for bytes in [must.batch_bytes, must.batch_bytes.saturating_add(1)] {
        write_large(&mut subject, must, &format!("a batch of {bytes} bytes"), long_puts(must, bytes)).await;
        clear(&subject).await;
    }
}

/// Every length of keys and of values up to some hundreds, and of values around the pages of engines, with room for their
/// heads: one length may be wrong where its neighbours are right.
async fn every_length<F: Fixture>(subject: &Subject<'_, F>, must: StoreLimits) {
    const PAGES: [usize; 6] = [2 * KIB, 4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB];
    let near = |page: usize| (page - 128..=page + 16).step_by(if page > 8 * KIB { 4 } else { 1 });
    let values = (0..=1_100).chain(PAGES.into_iter().flat_map(near)).filter(|len| *len <= must.value_bytes);
    let values = values.zip(0_u32..).map(|(len, number)| {
        ([&b"value/"[..], &number.to_be_bytes()].concat(), pattern(len, number.to_be_bytes()[3]))
    });
    let keys = (1..=1_100).filter(|len| *len <= must.key_bytes).map(|len| (vec![b'k'; len], vec![b'v']));
    let all: SortedMap = values.chain(keys).collect();
    subject.fill("keys and values of every length", all.clone()).await;
    subject.expect("keys and values of every length", &all).await;
}

const fn around(size: usize) -> [usize; 3] {
    [size - 1, size, size + 1]
}

async fn put<F: Fixture>(
    subject: &Subject<'_, F>,
    must: StoreLimits,
    kept: &mut SortedMap,
    key: Key,
    value: Value,
) {
    let step = format!("a key of {} bytes with a value of {} bytes", key.len(), value.len());
    let mut batch = WriteBatch::new();
    batch.put(key.clone(), value.clone());
    let found = if is_taken(subject, must, &step, batch).await {
        kept.insert(key.clone(), value.clone());
        Some(value)
    } else {
        None
    };
    if subject.get(&step, &key).await != found {
        subject.fail(step, "it did not come back as it went in");
    }
}

/// Writes a batch, which the store must take if its sizes are those that it must keep; returns whether it took the batch.
async fn is_taken<F: Fixture>(
    subject: &Subject<'_, F>,
    must: StoreLimits,
    step: &str,
    batch: WriteBatch,
) -> bool {
    let fits = batch.ops().len() <= must.batch_ops
        && batch.bytes() <= must.batch_bytes
        && batch.ops().iter().all(|op| match op {
            WriteOp::Put { key, value } => key.len() <= must.key_bytes && value.len() <= must.value_bytes,
            WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => true,
        });
    match subject.try_write(batch).await {
        Outcome::Ok => true,
        Outcome::TooLarge if !fits => false,
        Outcome::TooLarge => {
            subject.fail(step, "a size is refused that the store must keep by its `limits()`")
        }
        other => subject.fail(step, format_args!("a size that is not accepted is TooLarge, not {other}")),
    }
}

/// Writes a large batch of puts into an empty store, and looks for all of it, also after reopening.
async fn write_large<F: Fixture>(
    subject: &mut Subject<'_, F>,
    must: StoreLimits,
    step: &str,
    batch: WriteBatch,
) {
    let mut expected = SortedMap::new();
    sorted_map::apply(&mut expected, batch.ops());
    if !is_taken(subject, must, step, batch).await {
        expected.clear();
    }
    expect_large(subject, step, &expected).await;
    subject.reopen(step).await;
    expect_large(subject, &format!("{step}, reopened"), &expected).await;
}

/// Compares everything in the store with `expected`, a page after the other and then a read after the other, without
/// having all of it in memory twice.
async fn expect_large<F: Fixture>(subject: &Subject<'_, F>, step: &str, expected: &SortedMap) {
    let mut left = expected.iter();
    let mut range = KeyRange::all();
    loop {
        let page = subject.scan_page(step, range.clone(), ScanLimit { entries: 1_000, bytes: MIB }).await;
        for Entry { key, value } in &page.entries {
            if left.next() != Some((key, value)) {
                subject.fail(
                    step,
                    format_args!("a scan found another entry than was written at {}", bytes(key)),
                );
            }
        }
        match page.entries.last() {
            Some(last) if page.more => range = range.after(&last.key),
            _ => break,
        }
    }
    if let Some((key, _)) = left.next() {
        subject.fail(step, format_args!("no scan finds {}", bytes(key)));
    }
    let (keys, values): (Vec<_>, Vec<_>) = expected.iter().map(|(key, value)| (key.clone(), value)).unzip();
    for (keys, values) in keys.chunks(GET_KEYS_MAX).zip(values.chunks(GET_KEYS_MAX)) {
        let found = subject.get_many(step, keys).await;
        if let Some(at) = found.iter().zip(values).position(|(found, value)| found.as_ref() != Some(*value)) {
            let key = keys.get(at).map(|key| bytes(key)).unwrap_or_default();
            subject.fail(
                step,
                format_args!("a read of {} keys did not find {key} as it was written", keys.len()),
            );
        }
    }
}

/// A batch of so many small puts.
fn many_puts(count: usize) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for number in 0..count as u64 {
        batch.put([LARGE, &number.to_be_bytes()].concat(), number.to_be_bytes());
    }
    batch
}

/// A batch of puts that has so many bytes, its values as long as the store must keep them.
fn long_puts(must: StoreLimits, bytes: usize) -> WriteBatch {
    let key_bytes = LARGE.len() + 8;
    let (mut batch, mut left) = (WriteBatch::new(), bytes);
    for number in 0_u64.. {
        let value_bytes = left.saturating_sub(key_bytes).min(must.value_bytes);
        // One byte all over: these are many bytes, and the short values show the order of bytes.
        let value = vec![number.to_le_bytes()[0]; value_bytes];
        batch.put([LARGE, &number.to_be_bytes()].concat(), value);
        left = left.saturating_sub(key_bytes + value_bytes);
        // What is left is too short for a key: the last value has it too, or none has.
        if left <= key_bytes {
            break;
        }
    }
    batch
}
