//! A range of keys in the terms of the standard library.

use std::ops::Bound;

use syncline::KeyRange;

/// A start and an end, for ordered maps and tables.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds of `range`, which must not be empty: `BTreeMap` panics where the end lies before the start, and some
/// versions of redb took such a range for one without an end.
pub(crate) fn bounds(range: &KeyRange) -> Bounds<'_> {
    debug_assert!(!range.is_empty(), "{range:?}");
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    (Bound::Included(range.start.as_slice()), end)
}
