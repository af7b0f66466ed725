//! Reads a range that may be long, page by page, so that memory holds one page.

use crate::storage::{Entry, KeyRange, ReadError, ScanLimit, ScanPage, Storage};

/// The entries of a range, a page at a time.
pub(crate) struct Pages<'a, S: ?Sized> {
    storage: &'a S,
    /// The part of the range that was not read yet; `None` after the last page.
    rest: Option<KeyRange>,
}

/// The most entries of a page: enough that reading them costs more than the call of the store.
pub(crate) const PAGE_ENTRIES: usize = 256;
/// The most of a page.
pub(crate) const PAGE: ScanLimit = ScanLimit { entries: PAGE_ENTRIES, bytes: 4 << 20 };

impl<'a, S: Storage + ?Sized> Pages<'a, S> {
    pub(crate) const fn new(storage: &'a S, range: KeyRange) -> Self {
        Self { storage, rest: Some(range) }
    }

    /// Reads the next page; `None` after the last. After an error the next call reads the same page.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Entry>>, ReadError> {
        let Some(range) = self.rest.clone() else { return Ok(None) };
        let page = self.storage.scan(range.clone(), PAGE).await?;
        self.rest = rest(range, &page);
        Ok(Some(page.entries))
    }

    /// Reads all entries at once, for ranges that are known to be short.
    pub(crate) async fn all(mut self) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        while let Some(page) = self.next().await? {
            entries.extend(page);
        }
        Ok(entries)
    }
}

/// The part of `range` behind a page of it; `None` if there is none.
pub(crate) fn rest(range: KeyRange, page: &ScanPage) -> Option<KeyRange> {
    let last = page.entries.last().filter(|_| page.more)?;
    Some(range.after(&last.key))
}

/// Whether a range has no entry.
pub(crate) async fn is_empty<S: Storage + ?Sized>(storage: &S, range: KeyRange) -> Result<bool, ReadError> {
    // With a limit of bytes too, a store may read it where it is called.
    Ok(storage.scan(range, ScanLimit { entries: 1, ..PAGE }).await?.entries.is_empty())
}
