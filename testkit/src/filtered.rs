//! Leaves writes out of batches: how a test shows that a commit path needs every one of them.

use std::fmt;

use async_trait::async_trait;
use syncline::{Entry, Key, KeyRange, ReadError, Storage, Value, WriteBatch, WriteError, WriteOp};

/// A store that drops chosen operations from every batch, and passes everything else on.
pub struct Filtered<S> {
    inner: S,
    dropped: Box<dyn Fn(&WriteOp) -> bool + Send + Sync>,
}

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
        Self { inner, dropped: Box::new(matches) }
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

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        self.inner.scan(range, limit).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let kept: Vec<_> = batch.into_iter().filter(|op| !(self.dropped)(op)).collect();
        self.inner.write(kept.into()).await
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

#[cfg(test)]
mod tests {
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
            let entries = store.scan(KeyRange::all(), 9).await.unwrap();
            assert_eq!(entries, [Entry { key: b"record/1".to_vec(), value: b"value".to_vec() }]);
        });
    }
}
