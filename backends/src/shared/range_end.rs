//! The end of a range, compared with every key of a scan.

use syncline::KeyRange;

/// Tells the keys below the end of a range from the others.
///
/// For engines whose own comparison is a part of what a scan costs, and which lend an entry without copying it.
/// Nearly always the first bytes say it all, and those are compared here as one number.
#[derive(Debug)]
pub(crate) struct RangeEnd<'r> {
    end: Option<&'r [u8]>,
    /// The first bytes of the end; zeros behind a shorter one, as no key is below them.
    first: u64,
}

impl<'r> RangeEnd<'r> {
    pub(crate) fn of(range: &'r KeyRange) -> Self {
        let end = range.end.as_deref();
        let mut first = [0; 8];
        first.iter_mut().zip(end.unwrap_or_default()).for_each(|(to, from)| *to = *from);
        Self { end, first: u64::from_be_bytes(first) }
    }

    /// Whether the end is above `key`, so that the range may have it.
    #[inline]
    pub(crate) fn is_above(&self, key: &[u8]) -> bool {
        if let Some(first) = key.first_chunk()
            && u64::from_be_bytes(*first) < self.first
        {
            return true;
        }
        self.end.is_none_or(|end| key < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_say_no_more_than_the_keys() {
        let keys = [
            &b""[..],
            b"\0",
            b"a",
            b"a\0",
            b"a\0\0\0\0\0\0\0",
            b"a\0\0\0\0\0\0\0\0",
            b"abcdefgh",
            b"abcdefgi",
            b"b",
            b"\xff",
        ];
        for end in keys {
            let range = KeyRange::new([], end);
            let is_above = |key| RangeEnd::of(&range).is_above(key);
            keys.iter().for_each(|key| assert_eq!(is_above(key), *key < end, "{key:?} {end:?}"));
        }
        assert!(RangeEnd::of(&KeyRange::all()).is_above(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"));
    }
}
