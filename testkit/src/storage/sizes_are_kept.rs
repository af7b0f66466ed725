//! A store keeps a size whole, or it rejects it.

use syncline::{Key, Value, WriteBatch};

use super::samples::pattern;
use super::subject::{Outcome, Subject};
use crate::Fixture;
use crate::sorted_map::SortedMap;

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

/// The sizes that every store must keep: the default limits of a replica, and the bytes that it adds.
const MUST_KEEP_KEY_BYTES: usize = 2 * KIB;
const MUST_KEEP_VALUE_BYTES: usize = MIB;

/// Goal: sizes are kept or refused, never bent. Method: keys and values around every edge, alone and together, a batch
/// of many operations, then all of it again after reopening.
///
/// # Panics
/// If the store breaks the property.
pub async fn sizes_are_kept<F: Fixture>(fixture: &F) {
    const MANY: u32 = 5_000;

    let mut subject = Subject::open("sizes_are_kept", fixture).await;
    let mut kept = SortedMap::new();
    let sizes = VALUE_BYTES.map(|value| (8, value)).into_iter().chain(KEY_BYTES.map(|key| (key, 8))).chain([
        (513, 4 * KIB + 1),
        (4 * KIB, 64 * KIB + 1),
        (64 * KIB - 1, MIB),
    ]);
    for (salt, (key_bytes, value_bytes)) in (1..).zip(sizes) {
        put(&subject, &mut kept, pattern(key_bytes, salt), pattern(value_bytes, !salt)).await;
    }
    subject.expect("all sizes together", &kept).await;

    let mut batch = WriteBatch::new();
    for number in 0..MANY {
        let (key, value) = ([&b"many/"[..], &number.to_be_bytes()].concat(), number.to_be_bytes().to_vec());
        kept.insert(key.clone(), value.clone());
        batch.put(key, value);
    }
    subject.write("a batch of many operations", batch).await;
    subject.reopen("after all sizes").await;
    subject.expect("all sizes together, reopened", &kept).await;
}

async fn put<F: Fixture>(subject: &Subject<'_, F>, kept: &mut SortedMap, key: Key, value: Value) {
    let step = format!("a key of {} bytes with a value of {} bytes", key.len(), value.len());
    let mut batch = WriteBatch::new();
    batch.put(key.clone(), value.clone());
    let found = match subject.try_write(batch).await {
        Outcome::Ok => {
            kept.insert(key.clone(), value.clone());
            Some(value)
        }
        Outcome::TooLarge if key.len() > MUST_KEEP_KEY_BYTES || value.len() > MUST_KEEP_VALUE_BYTES => None,
        Outcome::TooLarge => subject.fail(step, "a size that every store must keep is refused"),
        other => subject.fail(step, format_args!("a size that is not accepted is TooLarge, not {other}")),
    };
    if subject.get(&step, &key).await != found {
        subject.fail(step, "it did not come back as it went in");
    }
}
