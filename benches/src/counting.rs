//! Counts the writes of a store, to learn how many records share one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use syncline::{
    Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, Value, Visitor, WriteBatch, WriteError,
};

/// How often a store was written.
#[derive(Clone, Debug, Default)]
pub struct Writes(Arc<AtomicUsize>);

impl Writes {
    /// Since the start.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A store whose writes are counted.
#[derive(Debug)]
pub struct Counting<S> {
    store: S,
    writes: Writes,
}

impl<S> Counting<S> {
    /// Counts the writes of `store`.
    #[must_use]
    pub fn new(store: S) -> (Self, Writes) {
        let writes = Writes::default();
        (Self { store, writes: writes.clone() }, writes)
    }
}

#[async_trait]
impl<S: Storage> Storage for Counting<S> {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.store.get_many(keys).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        self.store.scan(range, limit).await
    }

    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        self.store.visit(range, limit, each).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        self.writes.0.fetch_add(1, Ordering::Relaxed);
        self.store.write(batch).await
    }

    fn location(&self) -> String {
        self.store.location()
    }
}
