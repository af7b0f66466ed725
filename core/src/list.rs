//! Listing the records of a model, page by page, in bounded memory.

use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::vec::IntoIter;

use futures::Stream;
use futures::stream::unfold;

use crate::error::Error;
use crate::events::RecordKey;
use crate::manager::{Inner, read_record};
use crate::pages::PAGE;
use crate::storage::{Key, KeyRange, ScanLimit, Storage};
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
    unreadable: Unreadable,
    model: PhantomData<fn() -> M>,
}

/// The records of a page unless the app sets it: enough that reading them costs more than finding their place, few
/// enough for the processor's caches.
const PAGE_SIZE: usize = 256;

impl<M: Syncable, S: Storage> List<M, S> {
    pub(crate) fn new(inner: Arc<Inner<S>>, range: KeyRange) -> Self {
        Self {
            inner,
            rest: range,
            page_size: PAGE_SIZE,
            unreadable: Unreadable::default(),
            model: PhantomData,
        }
    }

    /// Starts behind the record `id`, whether or not that record exists.
    #[must_use]
    pub fn after(mut self, id: &RecordId<M>) -> Self {
        self.rest = self.rest.after(RecordKey::new::<M>(id).as_bytes());
        self
    }

    /// Sets how many records a page holds at most: 256 unless set, at least 1. A page of large records has fewer: its
    /// records have 4 MiB, or one record has more. Memory holds one page at a time.
    #[must_use]
    pub fn page_size(mut self, records: usize) -> Self {
        self.page_size = records.max(1);
        self
    }

    /// Reads the next records that can be read: `None` after the last page.
    ///
    /// A record that cannot be read as `M` is left out, and counted in [`unreadable`](List::unreadable). A page has no
    /// records only if none of its records can be read.
    ///
    /// # Errors
    /// [`Error::UnregisteredModel`], [`Error::Read`], [`Error::Stopped`]. The next call tries the same page again.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the next call reads the same page.
    pub async fn next_page(&mut self) -> Result<Option<Vec<M>>, Error> {
        loop {
            let mut records = Vec::with_capacity(self.page_size.min(PAGE.entries));
            let mut unreadable = Unreadable::default();
            let each = |record| match record {
                Ok(Some(record)) => records.push(record),
                Ok(None) => {}
                Err(error) => unreadable.add(error),
            };
            if !self.read_next(each).await? {
                return Ok(None);
            }
            // A page of tombstones alone has no records, and is not the end of the list.
            if !records.is_empty() || unreadable.records > 0 {
                self.unreadable.add_all(unreadable);
                return Ok(Some(records));
            }
        }
    }

    /// Returns the records that were left out of the pages read so far, since they cannot be read as `M`.
    ///
    /// Look at it after the last page, so that the user learns that something is missing from what is shown.
    #[must_use]
    pub const fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    /// Shows each of the next records of the range as it is decoded, `None` for a tombstone; `false` after the last.
    async fn read_next(
        &mut self,
        mut each: impl FnMut(Result<Option<M>, Error>) + Send,
    ) -> Result<bool, Error> {
        self.inner.models().check::<M>()?;
        if self.rest.is_empty() {
            return Ok(false);
        }
        let mut last = Key::new();
        let mut visitor = |key: &[u8], value: &[u8]| {
            last.clear();
            last.extend_from_slice(key);
            each(read_entry(key, value));
            ControlFlow::Continue(())
        };
        let limit = ScanLimit { entries: self.page_size, ..PAGE };
        let more = self.inner.visit(&self.rest, limit, &mut visitor).await?;
        if more && !last.is_empty() {
            self.rest = std::mem::replace(&mut self.rest, KeyRange::all()).after(&last);
        } else {
            self.rest.end = Some(self.rest.start.clone());
        }
        Ok(true)
    }

    /// Returns the records one by one, in their order.
    ///
    /// In the place of a record that cannot be read as `M` comes the reason, and then the next record. After any other
    /// error, such as [`Error::Read`], the stream ends.
    pub fn into_stream(self) -> impl Stream<Item = Result<M, Error>> + Send {
        unfold((Some(self), Vec::new().into_iter()), |(list, page): (_, IntoIter<_>)| async move {
            let (mut list, mut page) = (list?, page);
            loop {
                if let Some(record) = page.next() {
                    return Some((record, (Some(list), page)));
                }
                let mut next = Vec::new();
                match list.read_next(|record| next.extend(record.transpose())).await {
                    Ok(true) => page = next.into_iter(),
                    Ok(false) => return None,
                    Err(error) => return Some((Err(error), (None, Vec::new().into_iter()))),
                }
            }
        })
    }
}

/// The records that a [`List`] left out, since this version of the app cannot read them.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Unreadable {
    /// How many they are.
    pub records: u64,
    /// Why, for the first 100 of them. Each error names its record.
    pub errors: Vec<Error>,
}

/// The errors that are kept: enough to show, and few enough for any list.
const ERRORS_MAX: usize = 100;

impl Unreadable {
    fn add(&mut self, error: Error) {
        self.records += 1;
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    fn add_all(&mut self, other: Self) {
        self.records += other.records;
        let room = ERRORS_MAX.saturating_sub(self.errors.len());
        self.errors.extend(other.errors.into_iter().take(room));
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let are = if self.records == 1 { "record" } else { "records" };
        write!(f, "{} {are} left out, since they cannot be read", self.records)?;
        match self.errors.first() {
            Some(first) => write!(f, "; the first: {first}"),
            None => Ok(()),
        }
    }
}

/// Decodes the record in an entry of the model's range; `None` for a tombstone.
#[inline]
fn read_entry<M: Syncable>(key: &[u8], value: &[u8]) -> Result<Option<M>, Error> {
    match RecordKey::id_in::<M>(key) {
        Some(id) => read_record(&id, value).map_err(|error| match error {
            Error::Format(error) => Error::decode::<M>(&id, error),
            other => other,
        }),
        None => Err(FormatError::Damaged { what: "a record's key" }.into()),
    }
}

impl<M, S: Storage> fmt::Debug for List<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("rest", &self.rest).finish_non_exhaustive()
    }
}
