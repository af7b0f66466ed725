//! A store that leaves operations out of batches, by which a test shows that a commit path needs every one of them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use syncline::{
    Attempt, BoxError, JoinJob, JoinStorage, JoinTx, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage,
    StoreLimits, Value, Visitor, WriteBatch, WriteError, WriteOp,
};

use crate::{Reference, ReferenceRows, ReferenceTx};

/// A store that drops chosen operations from every batch, and passes everything else on.
pub struct Filtered<S> {
    inner: S,
    dropped: Dropped,
}

type Dropped = Arc<dyn Fn(&WriteOp) -> bool + Send + Sync>;

impl<S: Storage> Filtered<S> {
    /// Drops the operations on keys that match. A range matches by its start.
    pub fn without_keys(inner: S, matches: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self::without_ops(inner, move |op| {
            matches(match op {
                WriteOp::Put { key, .. } | WriteOp::Delete { key } => key,
                WriteOp::DeleteRange { range } => &range.start,
            })
        })
    }

    /// Drops the operations that match.
    pub fn without_ops(inner: S, matches: impl Fn(&WriteOp) -> bool + Send + Sync + 'static) -> Self {
        Self { inner, dropped: Arc::new(matches) }
    }
}

impl<S: fmt::Debug> fmt::Debug for Filtered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filtered").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: Storage> Storage for Filtered<S> {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.inner.get_many(keys).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        self.inner.scan(range, limit).await
    }

    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        self.inner.visit(range, limit, each).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        self.inner.write(without(batch, &self.dropped)).await
    }

    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

fn without(batch: WriteBatch, dropped: &Dropped) -> WriteBatch {
    batch.into_iter().filter(|op| !dropped(op)).collect::<Vec<_>>().into()
}

/// The batches that a job applies are filtered as those of a write are. The rows of the app are not.
///
/// This exists over the [`Reference`] alone: its transaction borrows nothing, and one that does cannot be wrapped in
/// one that borrows it.
#[async_trait]
impl JoinStorage for Filtered<Reference> {
    type Tx<'t> = FilteredTx<'t>;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        let dropped = Arc::clone(&self.dropped);
        self.inner.join(Box::new(move |tx| job(&FilteredTx { inner: tx, dropped: &dropped }))).await
    }
}

/// A transaction of a [`Filtered`] store.
pub struct FilteredTx<'t> {
    inner: &'t ReferenceTx,
    dropped: &'t Dropped,
}

impl JoinTx for FilteredTx<'_> {
    type Native = ReferenceRows;

    fn native(&self) -> &ReferenceRows {
        self.inner.native()
    }

    fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.inner.get_many(keys)
    }

    fn apply(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        self.inner.apply(&without(batch.clone(), self.dropped))
    }

    fn attempt(&self, part: &mut dyn FnMut() -> Result<(), BoxError>) -> Attempt {
        self.inner.attempt(part)
    }
}

impl fmt::Debug for FilteredTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilteredTx").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use syncline::Entry;

    use super::*;
    use crate::{Disk, Fixture as _, block_on};

    #[test]
    fn only_what_matches_is_left_out() {
        block_on(async {
            let store =
                Filtered::without_keys(Disk::new().open().await.unwrap(), |key| key.starts_with(b"log/"));
            let mut batch = WriteBatch::new();
            batch.put(*b"log/1", *b"entry");
            batch.put(*b"record/1", *b"value");
            store.write(batch).await.unwrap();
            let entries = store.scan(KeyRange::all(), ScanLimit::NONE).await.unwrap().entries;
            assert_eq!(entries, [Entry { key: b"record/1".to_vec(), value: b"value".to_vec() }]);
            let mut batch = WriteBatch::new();
            batch.put(*b"log/2", *b"entry");
            batch.put(*b"record/1", *b"joined");
            store.join(Box::new(move |tx| tx.apply(&batch))).await.unwrap();
            let entries = store.scan(KeyRange::all(), ScanLimit::NONE).await.unwrap().entries;
            assert_eq!(entries, [Entry { key: b"record/1".to_vec(), value: b"joined".to_vec() }]);
        });
    }
}
