//! Keys, values and batches with which stores have gone wrong before.

use syncline::{Key, KeyRange, Value, WriteBatch};

use crate::sorted_map::SortedMap;

/// Keys at the edges of the order of bytes: smallest, largest, around the sign bit, prefixes of each other.
pub(crate) const NASTY_KEYS: [&[u8]; 15] = [
    b"\x00",
    b"\x00\x00",
    b"\x00\xff",
    b"\x01",
    b"a",
    b"a\x00",
    b"a\xff",
    b"ab",
    b"b",
    b"\x7f",
    b"\x80",
    b"\xfe\xff",
    b"\xff",
    b"\xff\xff",
    b"\xff\xff\xff",
];

/// A value under every nasty key, every third one empty.
pub(crate) fn nasty_state() -> SortedMap {
    NASTY_KEYS
        .iter()
        .enumerate()
        .map(|(index, key)| {
            let value = if index % 3 == 0 { Value::new() } else { format!("value {index}").into_bytes() };
            (key.to_vec(), value)
        })
        .collect()
}

/// Ranges with every bound, also backward, empty and open ones.
pub(crate) fn nasty_ranges() -> Vec<KeyRange> {
    let bounds =
        [&b""[..], b"\x00", b"\x00\x01", b"a", b"a\xff\xff", b"ab", b"\x80", b"\xff", b"\xff\xff\xff"];
    let mut ranges = Vec::new();
    for start in bounds {
        ranges.push(KeyRange { start: start.to_vec(), end: None });
        ranges.push(KeyRange::prefix(start));
        ranges.extend(bounds.map(|end| KeyRange::new(start, end)));
    }
    ranges
}

/// The batch that makes an empty store hold `state`.
pub(crate) fn filling(state: &SortedMap) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (key, value) in state {
        batch.put(key.clone(), value.clone());
    }
    batch
}

/// The batch that makes any store hold `state` and nothing else.
pub(crate) fn replacing(state: &SortedMap) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.delete_range(KeyRange::all());
    batch.into_iter().chain(filling(state)).collect::<Vec<_>>().into()
}

/// Bytes in which no two stretches are alike, so that a cut, a shift or a repeated page shows.
pub(crate) fn pattern(len: usize, salt: u8) -> Value {
    const STRIDE: usize = 64;
    let mut bytes = vec![salt; len];
    for (index, chunk) in bytes.chunks_mut(STRIDE).enumerate() {
        for (byte, number) in chunk.iter_mut().zip(index.to_be_bytes()) {
            *byte ^= number;
        }
    }
    bytes
}

/// The batch `number` of a sequence. Each batch changes keys of the ones before, so that a wrong order shows, and puts
/// a [`mark`] of its own, so that a missing batch shows. Each puts, deletes and deletes a range.
pub(crate) fn numbered_batch(number: u32) -> WriteBatch {
    let text = number.to_string().into_bytes();
    let mut batch = WriteBatch::new();
    batch.put(*b"first", text.clone());
    batch.delete_range(KeyRange::prefix(*b"tail/"));
    batch.put(mark(number), text.clone());
    batch.put([&b"tail/"[..], &text].concat(), Value::new());
    batch.delete(if number.is_multiple_of(2) { &b"odd"[..] } else { b"even" });
    batch.put(if number.is_multiple_of(2) { &b"even"[..] } else { b"odd" }, text.clone());
    batch.put(*b"last", text);
    batch
}

/// The key that only the batch `number` of the sequence puts.
pub(crate) fn mark(number: u32) -> Key {
    [&b"mark/"[..], &number.to_be_bytes()].concat()
}
