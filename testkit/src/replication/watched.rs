//! A store that counts its operations under way, by which a scenario finds out that nothing moves any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use syncline::{
    JoinJob, JoinStorage, Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, StoreLimits, Value,
    Visitor, WriteBatch, WriteError,
};

use crate::poll::give_way;

/// How many operations of all stores of a scenario are under way. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(Arc<AtomicUsize>);

impl Activity {
    pub(crate) fn is_none(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }

    fn begin(&self) -> Busy<'_> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Busy(self)
    }
}

struct Busy<'a>(&'a Activity);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        (self.0).0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A store whose operations are counted while they are under way.
#[derive(Debug)]
pub struct Watched<S> {
    inner: S,
    activity: Activity,
}

impl<S> Watched<S> {
    pub(crate) const fn new(inner: S, activity: Activity) -> Self {
        Self { inner, activity }
    }
}

#[async_trait]
impl<S: Storage> Storage for Watched<S> {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let _busy = self.activity.begin();
        self.inner.get_many(keys).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let _busy = self.activity.begin();
        self.inner.scan(range, limit).await
    }

    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        let _busy = self.activity.begin();
        self.inner.visit(range, limit, each).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let _busy = self.activity.begin();
        self.inner.write(batch).await?;
        // Give way after each write, so that readers see every state, also if the store writes without giving way.
        give_way().await;
        Ok(())
    }

    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

#[async_trait]
impl<S: JoinStorage> JoinStorage for Watched<S> {
    type Tx<'t> = S::Tx<'t>;

    async fn join(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        let _busy = self.activity.begin();
        self.inner.join(job).await?;
        give_way().await;
        Ok(())
    }

    async fn join_without_foreign_keys(&self, job: JoinJob<Self>) -> Result<(), WriteError> {
        let _busy = self.activity.begin();
        self.inner.join_without_foreign_keys(job).await?;
        give_way().await;
        Ok(())
    }

    async fn breaks_foreign_keys(&self) -> Result<bool, ReadError> {
        self.inner.breaks_foreign_keys().await
    }
}
