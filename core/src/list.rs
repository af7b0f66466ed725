//! Listing the records of a model, page by page, in bounded memory.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::Stream;
use futures::stream::try_unfold;

use crate::error::Error;
use crate::events::RecordKey;
use crate::manager::{Inner, read_record};
use crate::storage::{Entry, KeyRange, Storage};
use crate::stored::FormatError;
use crate::syncable::{RecordId, Syncable};

/// The records of a model, in the order of their ids. See [`TransactionManager::list`].
///
/// A page is read from one consistent state. The second of two pages sees the commits between them, so a record that
/// changes meanwhile is listed once, as it was or as it is.
///
/// [`TransactionManager::list`]: crate::TransactionManager::list
pub struct List<M, S: Storage> {
    inner: Arc<Inner<S>>,
    /// The part of the model's range that was not read yet.
    rest: KeyRange,
    page_size: usize,
    model: PhantomData<fn() -> M>,
}

/// The records of a page unless the app sets it: enough that reading them costs more than finding their place, few
/// enough for the processor's caches.
const PAGE_SIZE: usize = 256;

impl<M: Syncable, S: Storage> List<M, S> {
    pub(crate) fn new(inner: Arc<Inner<S>>, range: KeyRange) -> Self {
        Self { inner, rest: range, page_size: PAGE_SIZE, model: PhantomData }
    }

    /// Starts behind the record `id`, whether or not that record exists.
    #[must_use]
    pub fn after(mut self, id: &RecordId<M>) -> Self {
        self.rest = self.rest.after(RecordKey::new::<M>(id).as_bytes());
        self
    }

    /// Sets how many records a page holds at most: 256 unless set, at least 1. Memory holds one page at a time.
    #[must_use]
    pub fn page_size(mut self, records: usize) -> Self {
        self.page_size = records.max(1);
        self
    }

    /// Reads the next records: at least one, `None` after the last.
    ///
    /// # Errors
    /// As [`get`](crate::TransactionManager::get). If the store could not read, the next call tries the same page
    /// again; if a record could not be read as `M`, the error names it and the next call goes on behind it.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the next call reads the same page.
    pub async fn next_page(&mut self) -> Result<Option<Vec<M>>, Error> {
        self.inner.models().check::<M>()?;
        while !self.rest.is_empty() {
            let entries = self.inner.read_page(&self.rest, self.page_size).await?;
            let mut at_end = entries.len() < self.page_size;
            let mut records = Vec::with_capacity(entries.len());
            let mut last = None;
            // Decode and drop the entries one by one: the next record then reuses the memory that was just freed.
            for Entry { key, value } in entries {
                match read_entry(&key, &value) {
                    Ok(record) => records.extend(record),
                    Err(error) if records.is_empty() => {
                        self.go_on_after(&key);
                        return Err(error);
                    }
                    // Return the records before the damaged one first: the next call begins with that one and fails.
                    Err(_) => {
                        at_end = false;
                        break;
                    }
                }
                last = Some(key);
            }
            match last {
                Some(last) if !at_end => self.go_on_after(&last),
                _ => self.rest.end = Some(self.rest.start.clone()),
            }
            // A page of tombstones alone has no records, and is not the end of the list.
            if !records.is_empty() {
                return Ok(Some(records));
            }
        }
        Ok(None)
    }

    fn go_on_after(&mut self, key: &[u8]) {
        self.rest = std::mem::replace(&mut self.rest, KeyRange::all()).after(key);
    }

    /// Returns the records one by one, up to the first error.
    ///
    /// Use [`next_page`](List::next_page) to go on behind an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<M, Error>> + Send {
        try_unfold((self, Vec::new().into_iter()), |(mut list, mut page)| async move {
            loop {
                if let Some(model) = page.next() {
                    return Ok(Some((model, (list, page))));
                }
                match list.next_page().await? {
                    Some(next) => page = next.into_iter(),
                    None => return Ok(None),
                }
            }
        })
    }
}

/// Decodes the record in an entry of the model's range; `None` for a tombstone.
fn read_entry<M: Syncable>(key: &[u8], value: &[u8]) -> Result<Option<M>, Error> {
    match RecordKey::id_in::<M>(key) {
        Some(id) => read_record(&id, value),
        None => Err(FormatError::Damaged { what: "a record's key" }.into()),
    }
}

impl<M, S: Storage> fmt::Debug for List<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("rest", &self.rest).finish_non_exhaustive()
    }
}
