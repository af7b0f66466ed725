//! A wrapper around a store that takes no more than it declares.

use async_trait::async_trait;
use syncline::{
    BoxError, GET_KEYS_MAX, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, StoreLimits, Value,
    Visitor, WriteBatch, WriteError, WriteOp,
};

use crate::Fixture;

/// A store that takes exactly the sizes that it is given, and refuses all that is larger, as
/// [`Storage::limits`] says. With it a test sees that the code above a store keeps to them.
///
/// Around a fixture, [`Limited`] is the fixture of such a store.
#[derive(Clone, Debug)]
pub struct Limited<S> {
    inner: S,
    limits: StoreLimits,
}

impl<S> Limited<S> {
    /// Limits a store, or the stores of a fixture.
    pub const fn new(inner: S, limits: StoreLimits) -> Self {
        Self { inner, limits }
    }

    /// The part of a batch that is too large, if any is.
    fn excess(&self, batch: &WriteBatch) -> Option<String> {
        let StoreLimits { key_bytes, value_bytes, batch_ops, batch_bytes } = self.limits;
        let over =
            |what, size, max| (size > max).then(|| format!("{what} of {size}, where {max} is the most"));
        let of_op = |op: &WriteOp| match op {
            WriteOp::Put { key, value } => {
                over("a key", key.len(), key_bytes).or_else(|| over("a value", value.len(), value_bytes))
            }
            WriteOp::Delete { key } => over("a key", key.len(), key_bytes),
            WriteOp::DeleteRange { range } => {
                let end = range.end.as_ref().map_or(0, Vec::len);
                over("the bound of a range", range.start.len().max(end), key_bytes)
            }
        };
        over("operations", batch.ops().len(), batch_ops)
            .or_else(|| over("bytes", batch.bytes(), batch_bytes))
            .or_else(|| batch.ops().iter().find_map(of_op))
    }
}

#[async_trait]
impl<F: Fixture> Fixture for Limited<F> {
    type Store = Limited<F::Store>;

    async fn open(&self) -> Result<Self::Store, BoxError> {
        Ok(Limited::new(self.inner.open().await?, self.limits))
    }
}

#[async_trait]
impl<S: Storage> Storage for Limited<S> {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        if keys.len() > GET_KEYS_MAX {
            return Err(ReadError::new(format!("a read of {} keys", keys.len())));
        }
        self.inner.get_many(keys).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        self.inner.scan(range, limit).await
    }

    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        self.inner.visit(range, limit, each).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        match self.excess(&batch) {
            Some(excess) => Err(WriteError::too_large(excess)),
            None => self.inner.write(batch).await,
        }
    }

    fn limits(&self) -> StoreLimits {
        self.limits
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
