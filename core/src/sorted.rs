//! A sorted map that is filled in order most of the time.

use std::collections::{BTreeMap, btree_map};

/// A sorted map: a vector as long as every new key is above all others, since that costs a fraction of a tree.
///
/// New records with time-ordered ids come in order, by the thousand.
#[derive(Debug)]
pub(crate) enum SortedMap<K, V> {
    InOrder(Vec<(K, V)>),
    Any(BTreeMap<K, V>),
}

impl<K: Ord, V> SortedMap<K, V> {
    pub(crate) const fn new() -> Self {
        Self::InOrder(Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::InOrder(entries) => entries.len(),
            Self::Any(entries) => entries.len(),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        match self {
            Self::InOrder(entries) => {
                // Look at the last key first: most keys that are looked up are new and above it.
                if entries.last().is_none_or(|(last, _)| last < key) {
                    return None;
                }
                let at = entries.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
                entries.get(at).map(|(_, value)| value)
            }
            Self::Any(entries) => entries.get(key),
        }
    }

    /// Inserts `value` under `key` and returns the value that was there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self {
            Self::InOrder(entries) if entries.last().is_none_or(|(last, _)| *last < key) => {
                entries.push((key, value));
                None
            }
            Self::InOrder(entries) => {
                let mut entries: BTreeMap<K, V> = std::mem::take(entries).into_iter().collect();
                let before = entries.insert(key, value);
                *self = Self::Any(entries);
                before
            }
            Self::Any(entries) => entries.insert(key, value),
        }
    }
}

impl<K, V> IntoIterator for SortedMap<K, V> {
    type Item = (K, V);
    type IntoIter = IntoIter<K, V>;

    fn into_iter(self) -> IntoIter<K, V> {
        match self {
            Self::InOrder(entries) => IntoIter::InOrder(entries.into_iter()),
            Self::Any(entries) => IntoIter::Any(entries.into_iter()),
        }
    }
}

/// The entries of a [`SortedMap`], in order.
pub(crate) enum IntoIter<K, V> {
    InOrder(std::vec::IntoIter<(K, V)>),
    Any(btree_map::IntoIter<K, V>),
}

impl<K, V> Iterator for IntoIter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        match self {
            Self::InOrder(entries) => entries.next(),
            Self::Any(entries) => entries.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::InOrder(entries) => entries.size_hint(),
            Self::Any(entries) => entries.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_however_it_is_filled(entries: Vec<(u8, u8)>, sorted: bool) {
            let mut entries = entries;
            if sorted {
                entries.sort_unstable();
            }
            let (mut map, mut model) = (SortedMap::new(), BTreeMap::new());
            for (key, value) in entries {
                prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                prop_assert_eq!(map.len(), model.len());
                for key in [key, key.wrapping_add(1), key.wrapping_sub(1)] {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                }
            }
            prop_assert!(map.into_iter().eq(model));
        }
    }
}
