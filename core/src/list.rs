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
use crate::syncable::{RecordId, Syncable};

/// The records of a model, in the order of their ids. See [`TransactionManager::list`].
///
/// A page is read from one consistent state. Commits between two pages are seen by the second, so a record that
/// changes meanwhile is listed once, as it was or as it is.
///
/// [`TransactionManager::list`]: crate::TransactionManager::list
pub struct List<M, S: Storage> {
    inner: Arc<Inner<S>>,
    /// What is still to be read.
    rest: KeyRange,
    page_size: usize,
    model: PhantomData<fn() -> M>,
}

/// Large enough that a page costs more than finding its place, small enough for the processor's caches.
const PAGE_SIZE: usize = 256;

impl<M: Syncable, S: Storage> List<M, S> {
    pub(crate) fn new(inner: Arc<Inner<S>>, range: KeyRange) -> Self {
        Self { inner, rest: range, page_size: PAGE_SIZE, model: PhantomData }
    }

    /// Starts behind the record `id`, whether or not that is there.
    #[must_use]
    pub fn after(mut self, id: &RecordId<M>) -> Self {
        self.rest = self.rest.after(RecordKey::new::<M>(id).as_bytes());
        self
    }

    /// How many records a page holds at most: 256 unless set, at least 1. Memory holds one page at a time.
    #[must_use]
    pub fn page_size(mut self, records: usize) -> Self {
        self.page_size = records.max(1);
        self
    }

    /// Reads the next records: at least one, `None` after the last.
    ///
    /// # Errors
    /// As [`get`](crate::TransactionManager::get). The next call tries the same page again.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the next call reads the same page.
    pub async fn next_page(&mut self) -> Result<Option<Vec<M>>, Error> {
        self.inner.models().check::<M>()?;
        while !self.rest.is_empty() {
            let entries = self.inner.store().await?.store.scan(self.rest.clone(), self.page_size).await?;
            let full = entries.len() >= self.page_size;
            let mut records = Vec::with_capacity(entries.len());
            let mut last = None;
            // Taken apart one by one: memory that was just freed is the next one's.
            for Entry { key, value } in entries {
                let id = RecordKey::id_in::<M>(&key)
                    .ok_or_else(|| Error::decode::<M>("its key holds no id of this model"))?;
                records.extend(read_record(&id, &value)?);
                last = Some(key);
            }
            match last {
                Some(last) if full => {
                    self.rest = std::mem::replace(&mut self.rest, KeyRange::all()).after(&last);
                }
                _ => self.rest.end = Some(self.rest.start.clone()),
            }
            // A page of tombstones alone is not the end.
            if !records.is_empty() {
                return Ok(Some(records));
            }
        }
        Ok(None)
    }

    /// The records one by one.
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

impl<M, S: Storage> fmt::Debug for List<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("rest", &self.rest).finish_non_exhaustive()
    }
}
