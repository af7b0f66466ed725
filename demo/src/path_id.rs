//! The name of an entry: its path below the directory that is walked, as bytes that sort as the walk goes.

use std::ffi::OsStr;

use serde::{Deserialize, Serialize};
use syncline::SyncId;

/// A path below the walked directory; the empty one is that directory itself.
///
/// Names are joined by a zero byte, which no file system allows in a name and which sorts before all that are. So
/// `a/b` comes directly after `a` and before `a b` and `a.b`: the order of the bytes is the order of a walk that
/// goes into each directory right after it has named it. Names are kept as the bytes they are, UTF-8 or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PathId(#[serde(with = "serde_bytes")] Vec<u8>);

/// Between two names.
const SEPARATOR: u8 = 0;

/// The longest path, in bytes: about what Linux takes in one call, and a key of it is what every store takes.
pub const ID_BYTES_MAX: usize = 4000;

impl PathId {
    /// The walked directory itself.
    pub const ROOT: Self = Self(Vec::new());

    /// The path of `name` in this directory.
    #[must_use]
    pub fn child(&self, name: &OsStr) -> Self {
        let name = name.as_encoded_bytes();
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        if !self.is_root() {
            bytes.extend_from_slice(&self.0);
            bytes.push(SEPARATOR);
        }
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// Whether this is the walked directory itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is `ancestor`, or lies somewhere below it.
    #[must_use]
    pub fn is_within(&self, ancestor: &Self) -> bool {
        match self.0.strip_prefix(ancestor.as_bytes()) {
            Some(rest) => ancestor.is_root() || rest.first().is_none_or(|byte| *byte == SEPARATOR),
            None => false,
        }
    }

    /// The bytes of the path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl SyncId for PathId {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn path(names: &[String]) -> PathId {
        names.iter().fold(PathId::ROOT, |path, name| path.child(OsStr::new(name)))
    }

    /// Names around the separator and around the slash, which it is not.
    fn names() -> impl Strategy<Value = Vec<String>> {
        vec("[a \u{1}./é]{1,3}", 1..4)
    }

    proptest! {
        #[test]
        fn ids_sort_as_a_sorted_walk_goes(a in names(), b in names()) {
            prop_assert_eq!(path(&a).cmp(&path(&b)), a.cmp(&b));
        }

        #[test]
        fn what_lies_below_a_directory_is_known_by_its_id(a in names(), b in names()) {
            prop_assert_eq!(path(&b).is_within(&path(&a)), b.starts_with(&a));
            prop_assert!(path(&b).is_within(&PathId::ROOT));
        }

        #[test]
        fn an_id_comes_back_as_it_was(names in names()) {
            let id = path(&names);
            let mut bytes = Vec::new();
            id.encode(&mut bytes);
            prop_assert_eq!(PathId::decode(&bytes), Some(id));
        }
    }
}
