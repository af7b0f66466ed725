//! The merge: compares what is on disk with what is stored, entry by entry, and says what to do.

use std::cmp::Ordering;
use std::iter;

use futures::Stream;
use futures::stream::{self, StreamExt};

use crate::Result;
use crate::models::Entry;
use crate::walk::Seen;

/// What becomes of one entry.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// On disk alone: to be put.
    Add(Entry),
    /// Another one on disk than in the store: to be put.
    Change(Entry),
    /// The same in both.
    Same(Entry),
    /// In the store alone: to be deleted.
    Delete(Entry),
    /// In the store, and on disk nobody knows: to be left as it is.
    Keep(Entry),
}

/// Two sequences sorted by id, side by side. Holds one entry of each.
#[derive(Debug)]
pub struct Merge<D, S> {
    disk: iter::Fuse<D>,
    store: stream::Fuse<S>,
    seen: Option<Seen>,
    stored: Option<Entry>,
}

impl<D, S> Merge<D, S>
where
    D: Iterator<Item = Seen>,
    S: Stream<Item = Result<Entry>> + Unpin,
{
    /// Begins.
    pub fn new(disk: D, store: S) -> Self {
        Self { disk: disk.fuse(), store: store.fuse(), seen: None, stored: None }
    }

    /// The next step; `None` at the end of both.
    ///
    /// # Errors
    /// The first error of the store. Going on would take what was not read for what is not there.
    pub async fn next(&mut self) -> Result<Option<Step>> {
        loop {
            if self.seen.is_none() {
                self.seen = self.disk.next();
            }
            if self.stored.is_none() {
                self.stored = self.store.next().await.transpose()?;
            }
            let step = match (self.seen.take(), self.stored.take()) {
                (None, None) => return Ok(None),
                (None, Some(stored)) => Step::Delete(stored),
                (Some(Seen::Found(found)), None) => Step::Add(found),
                (Some(Seen::Unreadable { .. }), None) => continue,
                (Some(Seen::Found(found)), Some(stored)) => match found.path.cmp(&stored.path) {
                    Ordering::Less => {
                        self.stored = Some(stored);
                        Step::Add(found)
                    }
                    Ordering::Equal if found == stored => Step::Same(found),
                    Ordering::Equal => Step::Change(found),
                    Ordering::Greater => {
                        self.seen = Some(Seen::Found(found));
                        Step::Delete(stored)
                    }
                },
                (Some(Seen::Unreadable { path, why }), Some(stored)) => {
                    if stored.path.is_within(&path) {
                        self.seen = Some(Seen::Unreadable { path, why });
                        Step::Keep(stored)
                    } else if stored.path < path {
                        self.seen = Some(Seen::Unreadable { path, why });
                        Step::Delete(stored)
                    } else {
                        // What lies within comes directly after the directory itself, so nothing more of it does.
                        self.stored = Some(stored);
                        continue;
                    }
                }
            };
            return Ok(Some(step));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ffi::OsStr;

    use futures::executor::block_on;
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;
    use syncline::{DeviceId, Uuid};

    use super::*;
    use crate::path_id::PathId;

    fn entry(path: &PathId, size: u64) -> Entry {
        Entry {
            path: path.clone(),
            device_id: DeviceId(Uuid::nil()),
            parent: None,
            name: String::new(),
            kind: "other".into(),
            size,
            modified_ms: None,
        }
    }

    fn path() -> impl Strategy<Value = PathId> {
        vec("[a .]{1,2}", 1..4)
            .prop_map(|names| names.iter().fold(PathId::ROOT, |path, name| path.child(OsStr::new(name))))
    }

    fn paths() -> impl Strategy<Value = BTreeMap<PathId, u64>> {
        btree_map(path(), 0..2_u64, 0..12)
    }

    proptest! {
        /// Goal: the store becomes what is on disk, and where nobody could read, stays what it was. Method: the
        /// steps, applied to a map; the same by sets, which look at every pair.
        #[test]
        fn the_store_becomes_the_disk_except_where_that_is_unreadable(
            disk in paths(),
            stored in paths(),
            dark in btree_set(path(), 0..3),
            dark_root in prop::bool::weighted(0.05),
        ) {
            let dark: BTreeSet<_> = dark.into_iter().chain(dark_root.then_some(PathId::ROOT)).collect();
            // A walk does not go into what it cannot read, and names a directory itself before that.
            let in_dark = |path: &PathId| dark.iter().any(|dark| path.is_within(dark));
            let below_dark = |path: &PathId| dark.iter().any(|dark| path != dark && path.is_within(dark));
            let mut seen: Vec<_> = disk
                .iter()
                .filter(|(path, _)| !below_dark(path))
                .map(|(path, size)| (path.clone(), 0, Seen::Found(entry(path, *size))))
                .collect();
            seen.extend(dark.iter().filter(|path| !below_dark(path)).map(|path| {
                (path.clone(), 1, Seen::Unreadable { path: path.clone(), why: String::new() })
            }));
            seen.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));

            let mut result = stored.clone();
            let mut merge = Merge::new(
                seen.into_iter().map(|(_, _, seen)| seen),
                stream::iter(stored.iter().map(|(path, size)| Ok(entry(path, *size)))),
            );
            while let Some(step) = block_on(merge.next()).unwrap() {
                match step {
                    Step::Add(entry) => prop_assert_eq!(result.insert(entry.path, entry.size), None),
                    Step::Change(entry) => {
                        prop_assert_ne!(result.insert(entry.path, entry.size), Some(entry.size));
                    }
                    Step::Delete(entry) => prop_assert_eq!(result.remove(&entry.path), Some(entry.size)),
                    Step::Same(entry) => {
                        prop_assert_eq!(disk.get(&entry.path), Some(&entry.size));
                        prop_assert_eq!(stored.get(&entry.path), Some(&entry.size));
                    }
                    Step::Keep(entry) => prop_assert!(in_dark(&entry.path)),
                }
            }

            let mut expected: BTreeMap<_, _> = stored.into_iter().filter(|(path, _)| in_dark(path)).collect();
            expected.extend(disk.into_iter().filter(|(path, _)| !below_dark(path)));
            prop_assert_eq!(result, expected);
        }
    }

    #[test]
    fn what_the_store_could_not_read_is_not_taken_for_new() {
        let a = PathId::ROOT.child(OsStr::new("a"));
        let stored = stream::iter([Err("the store could not read".into())]);
        let mut merge = Merge::new([Seen::Found(entry(&a, 0))].into_iter(), stored);
        assert!(block_on(merge.next()).is_err());
    }
}
