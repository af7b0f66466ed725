//! The reference model of a store: a sorted map.

use std::collections::BTreeMap;

use syncline::{Entry, Key, KeyRange, ScanLimit, ScanPage, Value, WriteBatch, WriteOp};

/// The state of a store.
pub(crate) type SortedMap = BTreeMap<Key, Value>;

/// Applies `ops` in their order.
pub(crate) fn apply(map: &mut SortedMap, ops: &[WriteOp]) {
    for op in ops {
        match op {
            WriteOp::Put { key, value } => {
                map.insert(key.clone(), value.clone());
            }
            WriteOp::Delete { key } => {
                map.remove(key);
            }
            WriteOp::DeleteRange { range } => map.retain(|key, _| !range.contains(key)),
        }
    }
}

/// The state after `batch`.
pub(crate) fn after(map: &SortedMap, batch: &WriteBatch) -> SortedMap {
    let mut map = map.clone();
    apply(&mut map, batch.ops());
    map
}

/// The first `limit` entries of `range`.
pub(crate) fn scan(map: &SortedMap, range: &KeyRange, limit: usize) -> Vec<Entry> {
    // Not `range(start..end)`: it panics if the end is below the start, and such a range is a case of its own.
    map.range(range.start.clone()..)
        .take_while(|(key, _)| range.contains(key))
        .take(limit)
        .map(|(key, value)| Entry { key: key.clone(), value: value.clone() })
        .collect()
}

/// The page of `range` that is the longest which the limit allows.
pub(crate) fn page(map: &SortedMap, range: &KeyRange, limit: ScanLimit) -> ScanPage {
    ScanPage::of(map.range(range.start.clone()..).take_while(|(key, _)| range.contains(key)), limit)
}

/// The state that has these entries.
pub(crate) fn from_entries(entries: Vec<Entry>) -> SortedMap {
    entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

/// Where `found` differs from `expected`, for a message.
pub(crate) fn difference(found: &SortedMap, expected: &SortedMap) -> String {
    let missing =
        expected.keys().filter(|key| !found.contains_key(*key)).map(|key| format!("missing {}", bytes(key)));
    let extra = found
        .iter()
        .filter(|(key, _)| !expected.contains_key(*key))
        .map(|(key, value)| format!("unexpected {}={}", bytes(key), bytes(value)));
    let wrong = found.iter().filter_map(|(key, value)| {
        let expected = expected.get(key).filter(|expected| *expected != value)?;
        Some(format!("{}={} instead of {}", bytes(key), bytes(value), bytes(expected)))
    });
    match list(missing.chain(extra).chain(wrong)) {
        none if none.is_empty() => "no difference".into(),
        list => list,
    }
}

/// Entries in their order, for a message.
pub(crate) fn show(entries: &[Entry]) -> String {
    format!(
        "[{}]",
        list(entries.iter().map(|entry| format!("{}={}", bytes(&entry.key), bytes(&entry.value))))
    )
}

/// Operations in their order, for a message.
pub(crate) fn show_ops(ops: &[WriteOp]) -> String {
    list(ops.iter().map(|op| match op {
        WriteOp::Put { key, value } => format!("put {}={}", bytes(key), bytes(value)),
        WriteOp::Delete { key } => format!("delete {}", bytes(key)),
        WriteOp::DeleteRange { range } => format!("delete {}", show_range(range)),
    }))
}

/// A batch for a message: its size, and as many of its operations as a message has room for.
pub(crate) fn show_batch(batch: &WriteBatch) -> String {
    const OPS_SHOWN_MAX: usize = 8;
    let ops = batch.ops();
    let shown = ops.get(..OPS_SHOWN_MAX).unwrap_or(ops);
    let more = if ops.len() > shown.len() { ", …" } else { "" };
    format!("{} operations, {} bytes: [{}{more}]", ops.len(), batch.bytes(), show_ops(shown))
}

/// A limit for a message.
pub(crate) fn show_limit(limit: ScanLimit) -> String {
    let some = |count: usize, of: &str| (count != usize::MAX).then(|| format!("{count} {of}"));
    let limits: Vec<_> =
        [some(limit.entries, "entries"), some(limit.bytes, "bytes")].into_iter().flatten().collect();
    if limits.is_empty() { "no limit".into() } else { format!("at most {}", limits.join(" and ")) }
}

/// A range for a message.
pub(crate) fn show_range(range: &KeyRange) -> String {
    format!("{}..{}", bytes(&range.start), range.end.as_deref().map_or_else(String::new, bytes))
}

/// Bytes for a message. Long ones are cut, and their length is added.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    const BYTES_SHOWN_MAX: usize = 24;
    match bytes.get(..BYTES_SHOWN_MAX) {
        Some(start) if bytes.len() > BYTES_SHOWN_MAX => {
            format!("\"{}…\" ({} bytes)", start.escape_ascii(), bytes.len())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    const ITEMS_SHOWN_MAX: usize = 20;
    let mut items: Vec<_> = items.collect();
    let more = items.len().saturating_sub(ITEMS_SHOWN_MAX);
    items.truncate(ITEMS_SHOWN_MAX);
    if more > 0 {
        items.push(format!("and {more} more"));
    }
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(keys: &[&str]) -> SortedMap {
        keys.iter().map(|key| (Key::from(*key), Value::new())).collect()
    }

    #[test]
    fn ops_take_effect_in_their_order() {
        let mut batch = WriteBatch::new();
        batch.put(*b"b", *b"1");
        batch.delete_range(KeyRange::new(*b"a", *b"c"));
        batch.put(*b"c", *b"2");
        batch.delete(*b"d");
        assert_eq!(after(&map(&["a", "b", "d", "e"]), &batch), {
            let mut map = map(&["e"]);
            map.insert(b"c".to_vec(), b"2".to_vec());
            map
        });
    }

    #[test]
    fn a_difference_names_every_key() {
        let mut found = map(&["a", "b"]);
        found.insert(b"a".to_vec(), vec![0xFF; 30]);
        assert_eq!(
            difference(&found, &map(&["a", "c"])),
            format!(
                r#"missing "c", unexpected "b"="", "a"="{}…" (30 bytes) instead of """#,
                r"\xff".repeat(24)
            )
        );
        assert_eq!(difference(&found, &found), "no difference");
    }

    #[test]
    fn a_limit_is_said_in_words() {
        assert_eq!(show_limit(ScanLimit::NONE), "no limit");
        assert_eq!(show_limit(ScanLimit::entries(2)), "at most 2 entries");
        assert_eq!(show_limit(ScanLimit { entries: 9, bytes: 20 }), "at most 9 entries and 20 bytes");
    }

    #[test]
    fn a_backward_range_lists_nothing() {
        assert!(scan(&map(&["a", "b", "c"]), &KeyRange::new(*b"c", *b"a"), 9).is_empty());
        assert_eq!(scan(&map(&["a", "b", "c"]), &KeyRange::all(), 2).len(), 2);
    }
}
