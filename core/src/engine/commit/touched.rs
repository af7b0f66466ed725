//! The records that a write touches. Each is read once, however many commits of the write change it.

use std::collections::HashMap;

use crate::storage::{Key, Value};
use crate::stored::FormatError;
use crate::stored::keys::RecordKey;
use crate::stored::record::{self, Header};

use super::super::Ticket;
use super::draft::Before;
use super::{Commit, Received};

/// Commits that share a write.
pub(crate) trait Commits {
    /// How many they are. A single commit has one change per record.
    fn count(&self) -> usize;

    /// The records that they change, in the order of the changes.
    fn records(&mut self) -> impl Iterator<Item = &mut RecordKey>;
}

impl Commits for Vec<(Ticket, Commit)> {
    fn count(&self) -> usize {
        self.len()
    }

    fn records(&mut self) -> impl Iterator<Item = &mut RecordKey> {
        self.iter_mut().flat_map(|(_, commit)| &mut commit.changes).map(|change| &mut change.record)
    }
}

impl Commits for Vec<Received> {
    fn count(&self) -> usize {
        self.len()
    }

    fn records(&mut self) -> impl Iterator<Item = &mut RecordKey> {
        self.iter_mut().flat_map(|commit| &mut commit.entry.changes).map(|change| &mut change.record)
    }
}

/// For each change of a write, in their order, the place of its record among the records that are read; `None` if each
/// change has a record of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places(Option<Vec<usize>>);

impl Places {
    fn of(commits: &mut impl Commits) -> Self {
        if commits.count() <= 1 {
            return Self(None);
        }
        let mut known = HashMap::new();
        let places = commits.records().map(|record| {
            let new = known.len();
            *known.entry(&*record).or_insert(new)
        });
        let places: Vec<_> = places.collect();
        Self((known.len() < places.len()).then_some(places))
    }

    /// The place of the record of a change.
    pub(crate) fn of_change(&self, change: usize) -> usize {
        match &self.0 {
            Some(places) => places.get(change).copied().unwrap_or(usize::MAX),
            None => change,
        }
    }

    /// The first change of each record.
    fn first_of<T>(&self, changes: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        let mut known = 0;
        changes.enumerate().filter_map(move |(change, item)| {
            let is_first = self.of_change(change) == known;
            known += usize::from(is_first);
            is_first.then_some(item)
        })
    }
}

/// Lends the keys of the records that `commits` change, each once, to read these records. The keys must be [given
/// back](take_keys_back) before the commits are used again.
pub(crate) fn lend_keys(commits: &mut impl Commits) -> (Vec<Key>, Places) {
    let places = Places::of(commits);
    let keys = places.first_of(commits.records()).map(RecordKey::lend).collect();
    (keys, places)
}

/// Takes back the keys that were lent.
pub(crate) fn take_keys_back(commits: &mut impl Commits, keys: Vec<Key>, places: &Places) {
    places.first_of(commits.records()).zip(keys).for_each(|(record, key)| record.take_back(key));
}

/// The records that a write touches, as they are stored. Changes of the same record share its value.
pub(super) struct Stored<'a> {
    values: Vec<Option<Value>>,
    places: &'a Places,
}

impl<'a> Stored<'a> {
    pub(super) fn new(values: Vec<Option<Value>>, places: &'a Places) -> Self {
        Self { values, places }
    }

    /// The record of a change, unless the write has taken it.
    pub(super) fn before(&self, change: usize) -> Result<Option<Before<'_>>, FormatError> {
        let bytes = self.values.get(self.places.of_change(change)).and_then(Option::as_deref);
        bytes.map(|bytes| Ok(Before { header: record::parse(bytes)?.0, bytes })).transpose()
    }

    /// Takes the record of a change, since the write replaces it.
    pub(super) fn take(&mut self, change: usize) -> Result<Option<(Header, Value)>, FormatError> {
        let value = self.values.get_mut(self.places.of_change(change)).and_then(Option::take);
        value.map(|bytes| Ok((record::parse(&bytes)?.0, bytes))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::made::{Author, B, note, stamp};
    use super::*;

    /// Commits of one stream that change these notes.
    fn commits(ids: &[&[u8]]) -> Vec<Received> {
        let mut author = Author::new(B);
        let writes = |ids: &[u8]| ids.iter().map(|id| (note(*id), Some(vec![7]), None)).collect();
        ids.iter().map(|ids| author.commit(&[], writes(ids)).received()).collect()
    }

    #[test]
    fn each_record_is_named_once_and_each_key_comes_back() {
        let cases: [(&[&[u8]], &[u8]); 6] = [
            (&[], &[]),
            (&[&[1, 2, 3]], &[1, 2, 3]),
            (&[&[1], &[2], &[3]], &[1, 2, 3]),
            (&[&[5], &[5], &[5]], &[5]),
            (&[&[1, 2], &[2, 3], &[1, 3, 4]], &[1, 2, 3, 4]),
            (&[&[3], &[], &[1, 3], &[1, 2]], &[3, 1, 2]),
        ];
        for (ids, read) in cases {
            let mut commits = commits(ids);
            let before: Vec<_> = commits.records().map(|record| record.clone()).collect();
            let (keys, places) = lend_keys(&mut commits);
            let expected: Vec<_> = read.iter().map(|id| note(*id).into_bytes()).collect();
            assert_eq!(keys, expected, "{ids:?}");
            for (change, record) in before.iter().enumerate() {
                assert_eq!(keys[places.of_change(change)], record.as_bytes(), "{ids:?}");
            }
            take_keys_back(&mut commits, keys, &places);
            assert_eq!(commits.records().map(|record| record.clone()).collect::<Vec<_>>(), before);
        }
    }

    #[test]
    fn a_value_is_there_for_all_changes_of_its_record_until_one_takes_it() {
        let header = Header { tombstone: false, schema: 1, stamp: stamp(1, B), seq: 1, merge: None };
        let record = record::of(&header, b"value");
        let places = Places(Some(vec![0, 1, 0]));
        let mut stored = Stored::new(vec![Some(record.clone()), None], &places);
        for change in [0, 2, 0] {
            assert_eq!(stored.before(change).unwrap().unwrap().bytes, record);
        }
        assert!(stored.before(1).unwrap().is_none() && stored.before(3).unwrap().is_none());
        assert_eq!(stored.take(2).unwrap().unwrap().1, record);
        assert!(stored.before(0).unwrap().is_none() && stored.take(0).unwrap().is_none());
    }
}
