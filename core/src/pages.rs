//! Reads a range that may be long, page by page, so that memory holds one page.

use crate::storage::{Entry, KeyRange, ReadError, Storage};

/// The entries of a range, a page at a time.
pub(crate) struct Pages<'a, S: ?Sized> {
    storage: &'a S,
    /// The part of the range that was not read yet; `None` after the last page.
    rest: Option<KeyRange>,
}

/// The entries of a page: enough that reading them costs more than the call of the store, few enough that memory holds
/// a page of the largest values.
pub(crate) const PAGE_ENTRIES: usize = 256;

impl<'a, S: Storage + ?Sized> Pages<'a, S> {
    pub(crate) fn new(storage: &'a S, range: KeyRange) -> Self {
        Self { storage, rest: Some(range) }
    }

    /// Reads the next page; `None` after the last. After an error the next call reads the same page.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Entry>>, ReadError> {
        let Some(range) = self.rest.clone() else { return Ok(None) };
        let page = self.storage.scan(range.clone(), PAGE_ENTRIES).await?;
        let last = page.last().filter(|_| page.len() >= PAGE_ENTRIES);
        self.rest = last.map(|last| range.after(&last.key));
        Ok(Some(page))
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
