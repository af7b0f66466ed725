//! Keys, values and batches with which stores have gone wrong before.

use syncline::{Key, KeyRange, Value, WriteBatch};

use crate::sorted_map::SortedMap;

/// Keys at the edges of the order of bytes: smallest, largest, around the sign bit, prefixes of each other. And keys that are
/// alike as texts or as numbers: in the case of their letters, but for a space, but for a zero.
pub(crate) const NASTY_KEYS: [&[u8]; 19] = [
    b"\x00",
    b"\x00\x00",
    b"\x00\xff",
    b"\x01",
    b"0",
    b"00",
    b"A",
    b"a",
    b"a\x00",
    b"a ",
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

/// A value under so many keys that stores which work in pages have more than one of them.
pub(crate) fn wide_state(entries: u32) -> SortedMap {
    (0..entries).map(|at| ([&b"wide/"[..], &at.to_be_bytes()].concat(), at.to_be_bytes().to_vec())).collect()
}

/// Enough of them for a page of a hundred, and few enough for a [sweep](super::sweep) to reach the last.
pub(crate) const SWEPT_ENTRIES: u32 = 160;
/// Enough of them for a page of a thousand.
pub(crate) const WIDE_ENTRIES: u32 = 2_500;

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

/// The lengths at which stores have cut keys or bounds, as far as the store takes them, and the longest that it takes.
fn long_lengths(longest: usize) -> Vec<usize> {
    let known = [63, 64, 65, 127, 128, 254, 255, 256, 257, 510, 511, 512, 1_000, 1_001];
    let mut lengths: Vec<_> = known.into_iter().filter(|len| *len < longest).collect();
    lengths.extend([longest - 1, longest]);
    lengths.dedup();
    lengths
}

/// Three keys of a length that differ in their last byte only.
fn siblings(len: usize) -> [Key; 3] {
    [b'\x01', b'q', b'\xff'].map(|last| {
        let mut key = vec![b'p'; len];
        key[len - 1] = last;
        key
    })
}

fn all_ones(longest: usize) -> Vec<Key> {
    let lengths = [1, 8, 15, 16, 17, 32].into_iter().filter(|len| *len < longest);
    lengths.chain(long_lengths(longest)).map(|len| vec![0xFF; len]).collect()
}

/// A value under keys of every long length, up to the longest that the store takes: those of one length, and the
/// shorter ones, are alike but for the last byte. And under keys of 0xFF alone, which lie before no end but an open one.
pub(crate) fn long_state(longest: usize) -> SortedMap {
    let keys = long_lengths(longest).into_iter().flat_map(siblings).chain(all_ones(longest));
    keys.zip(0_u32..).map(|(key, number)| (key, number.to_be_bytes().to_vec())).collect()
}

/// Ranges between the keys of [`long_state`], with bounds that are long themselves.
pub(crate) fn long_ranges(longest: usize) -> Vec<KeyRange> {
    let mut ranges = vec![KeyRange::all(), KeyRange { start: b"q".to_vec(), end: None }];
    for len in long_lengths(longest) {
        let [low, middle, high] = siblings(len);
        let open = |start: &Key| KeyRange { start: start.clone(), end: None };
        ranges.extend([
            KeyRange::new(low.clone(), middle.clone()),
            KeyRange::new(low, high.clone()),
            KeyRange::new(*b"a", middle.clone()),
            KeyRange::new(high, middle.clone()),
            open(&middle),
            KeyRange::prefix(vec![b'p'; len - 1]),
            KeyRange::prefix(middle),
        ]);
    }
    for ones in all_ones(longest) {
        ranges.push(KeyRange { start: ones.clone(), end: None });
        ranges.push(KeyRange::new(*b"p", ones));
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
