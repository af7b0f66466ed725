//! Reads a range that may be long, page by page, so that memory holds one page.

use crate::storage::{Entry, KeyRange, ReadError, Storage};

/// The entries of a range, a page at a time.
pub(crate) struct Pages<'a, S: ?Sized> {
    storage: &'a S,
    /// The part of the range that was not read yet; `None` after the last page.
    rest: Option<KeyRange>,
    reach: Reach,
}

/// The most entries of a page: enough that reading them costs more than the call of the store.
pub(crate) const PAGE_ENTRIES: usize = 256;

impl<'a, S: Storage + ?Sized> Pages<'a, S> {
    pub(crate) fn new(storage: &'a S, range: KeyRange) -> Self {
        Self { storage, rest: Some(range), reach: Reach::new(PAGE_ENTRIES) }
    }

    /// Reads the next page; `None` after the last. After an error the next call reads the same page.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Entry>>, ReadError> {
        let Some(range) = self.rest.clone() else { return Ok(None) };
        let limit = self.reach.entries();
        let page = self.storage.scan(range.clone(), limit).await?;
        let last = page.last().filter(|_| page.len() >= limit);
        self.rest = last.map(|last| range.after(&last.key));
        self.reach.found(&page);
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

/// The bytes of a page, if its entries are as long as those of the page before.
pub(crate) const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The entries of the first page: as many as fit if each is as long as a value may be.
const FIRST_ENTRIES: usize = 4;

/// How many entries the next page of a range may have, as far as the page before tells how long they are.
///
/// The first page is small, and each is at most twice as large as the one before: so a range of large values is never
/// read by the hundred.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    entries: usize,
    most: usize,
}

impl Reach {
    /// The reach into a range of which nothing was read, with `most` entries at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self { entries: FIRST_ENTRIES.min(most), most }
    }

    /// How many entries to read next.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Takes note of the entries that were read.
    pub(crate) fn found(&mut self, page: &[Entry]) {
        let longest = page.iter().map(|entry| entry.key.len() + entry.value.len()).max().unwrap_or(0);
        let fit = PAGE_BYTES / longest.max(1);
        self.entries = fit.clamp(1, self.most.min(2 * self.entries));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(bytes: &[usize]) -> Vec<Entry> {
        bytes.iter().map(|bytes| Entry { key: vec![1], value: vec![0; bytes - 1] }).collect()
    }

    #[test]
    fn a_page_is_small_first_and_grows_while_its_entries_are_short() {
        let mut reach = Reach::new(256);
        let mut entries = Vec::new();
        for _ in 0..9 {
            entries.push(reach.entries());
            reach.found(&page(&[10, 200]));
        }
        assert_eq!(entries, [4, 8, 16, 32, 64, 128, 256, 256, 256]);
        assert_eq!(Reach::new(1).entries(), 1);
    }

    #[test]
    fn a_page_of_long_entries_is_followed_by_few() {
        for (longest, entries) in
            [(PAGE_BYTES / 100, 100), (PAGE_BYTES / 4, 4), (PAGE_BYTES, 1), (3 * PAGE_BYTES, 1)]
        {
            let mut reach = Reach { entries: 256, most: 256 };
            reach.found(&page(&[10, longest, 10]));
            assert_eq!(reach.entries(), entries, "{longest} bytes");
            reach.found(&page(&[10]));
            assert_eq!(reach.entries(), (2 * entries).min(256));
        }
    }
}
