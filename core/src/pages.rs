//! Reading a range that may be long, page by page.

use crate::storage::{Entry, KeyRange, ReadError, Storage};

/// The entries of a range, a page at a time.
pub(crate) struct Pages<'a, S: ?Sized> {
    storage: &'a S,
    /// What is still to be read; `None` after the last page.
    rest: Option<KeyRange>,
}

/// Enough to make a page cost more than the way to the store; with the largest values it still fits any memory.
pub(crate) const PAGE_ENTRIES: usize = 256;

impl<'a, S: Storage + ?Sized> Pages<'a, S> {
    pub(crate) fn new(storage: &'a S, range: KeyRange) -> Self {
        Self { storage, rest: Some(range) }
    }

    /// The next page; `None` after the last. A page that could not be read can be asked for again.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Entry>>, ReadError> {
        let Some(range) = self.rest.clone() else { return Ok(None) };
        let page = self.storage.scan(range.clone(), PAGE_ENTRIES).await?;
        let last = page.last().filter(|_| page.len() >= PAGE_ENTRIES);
        self.rest = last.map(|last| range.after(&last.key));
        Ok(Some(page))
    }

    /// All entries at once, for ranges that are known to be short.
    pub(crate) async fn all(mut self) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        while let Some(page) = self.next().await? {
            entries.extend(page);
        }
        Ok(entries)
    }
}
