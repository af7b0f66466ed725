//! A range of keys as a pair of bounds.

use std::ops::Bound;

use syncline::KeyRange;

/// The start and the end of a range, as ordered maps and the tables of redb take them.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds of `range`, which must not be empty. Of an empty range whose end lies before its start, `BTreeMap`
/// panics, and some versions of redb took it for a range without an end.
pub(crate) fn bounds(range: &KeyRange) -> Bounds<'_> {
    debug_assert!(!range.is_empty(), "{range:?}");
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    (Bound::Included(range.start.as_slice()), end)
}
