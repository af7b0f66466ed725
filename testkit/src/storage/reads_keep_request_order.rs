//! `get_many` returns the values in the order of the keys.

use syncline::{GET_KEYS_MAX, Key, WriteBatch};

use super::samples::NASTY_KEYS;
use super::subject::Subject;
use crate::{Fixture, sorted_map};

/// Goal: each value belongs to the key at its place. Method: ask in orders that sorting or deduplicating would change,
/// and for as many keys as a read has at most.
///
/// # Panics
/// If the store breaks the property.
pub async fn reads_keep_request_order<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let subject = Subject::open("reads_keep_request_order", fixture).await;
    let mut batch = WriteBatch::new();
    // Put every other key, so that present and absent ones alternate. Each value names its key.
    for key in NASTY_KEYS.iter().step_by(2) {
        batch.put(*key, [b"value of ", *key].concat());
    }
    subject.write("filling the store", batch).await;

    let sorted: Vec<Key> = NASTY_KEYS.iter().map(|key| key.to_vec()).collect();
    let backward = sorted.iter().rev().cloned().collect();
    let repeated = sorted.iter().flat_map(|key| [key.clone(), key.clone()]).collect();
    // Steps of seven through fifteen keys meet all of them, neither upwards nor downwards.
    let many = (0..GET_KEYS_MAX).map(|index| sorted[index * 7 % sorted.len()].clone()).collect();
    for (order, keys) in [
        ("no keys", Vec::new()),
        ("ascending keys", sorted.clone()),
        ("descending keys", backward),
        ("each key twice", repeated),
        ("many keys, shuffled and repeated", many),
    ] {
        let values = subject.get_many(order, &keys).await;
        for (place, (key, value)) in keys.iter().zip(values).enumerate() {
            let index = sorted.iter().position(|nasty| nasty == key);
            let expected =
                index.is_some_and(|index| index % 2 == 0).then(|| [b"value of ", key.as_slice()].concat());
            if value != expected {
                subject.fail(
                    order,
                    format_args!(
                        "at place {place} is the answer to another key: {} gave {}",
                        sorted_map::bytes(key),
                        value.as_deref().map_or_else(|| "nothing".into(), sorted_map::bytes)
                    ),
                );
            }
        }
    }
}
