//! A store in memory, for tests, examples and caches: nothing survives the process.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use syncline::{
    Key, KeyRange, ReadError, ScanLimit, ScanMeter, ScanPage, Storage, StoreLimits, Value, Visitor,
    WriteBatch, WriteError,
};

use crate::bounds::bounds;

/// A store in memory. Its content ends with the process.
///
/// Reads and writes do not wait, and never fail, except that the writes of a store whose [`MemoryDisk`] was opened
/// again return [`WriteError::Fenced`]. Keys and values may have any size.
#[derive(Debug)]
pub struct MemoryStorage {
    disk: MemoryDisk,
    owner: u64,
}

/// The content of a [`MemoryStorage`]. Clones share it: keep one to open the same content again.
///
/// ```
/// use syncline::{Storage, WriteBatch, WriteError};
/// use syncline_backends::{MemoryDisk, MemoryStorage};
///
/// # futures::executor::block_on(async {
/// let disk = MemoryDisk::new();
/// let first = MemoryStorage::open(&disk);
/// let mut batch = WriteBatch::new();
/// batch.put(*b"key", *b"value");
/// first.write(batch.clone()).await?;
///
/// let second = MemoryStorage::open(&disk);
/// assert_eq!(second.get_many(&[b"key".to_vec()]).await?, [Some(b"value".to_vec())]);
/// assert!(matches!(first.write(batch).await, Err(WriteError::Fenced)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    content: Arc<RwLock<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    entries: BTreeMap<Key, Value>,
    /// How often the disk was opened. The newest store owns it.
    owner: u64,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // Poison is ignored: the code under this lock does not panic while it changes the map, so that a panic leaves no
    // batch half applied.
    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStorage {
    /// A store on an empty disk of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::open(&MemoryDisk::new())
    }

    /// Opens `disk` and takes it over: writes of the stores that were opened on it before return
    /// [`WriteError::Fenced`].
    #[must_use]
    pub fn open(disk: &MemoryDisk) -> Self {
        let mut content = disk.write();
        content.owner += 1;
        Self { disk: disk.clone(), owner: content.owner }
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        let content = self.disk.read();
        Ok(keys.iter().map(|key| content.entries.get(key).cloned()).collect())
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        if range.is_empty() {
            return Ok(ScanPage::default());
        }
        Ok(ScanPage::of(self.disk.read().entries.range::<[u8], _>(bounds(&range)), limit))
    }

    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        if range.is_empty() {
            return Ok(false);
        }
        let (content, mut meter) = (self.disk.read(), ScanMeter::new(limit));
        let mut entries = content.entries.range::<[u8], _>(bounds(&range));
        Ok(entries.any(|(key, value)| !meter.takes(key, value) || each(key, value).is_break()))
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let mut content = self.disk.write();
        // Checked under the same lock as the changes: a store that takes over in between would be overwritten.
        if content.owner != self.owner {
            return Err(WriteError::Fenced);
        }
        // Applying has no step that can fail: otherwise a batch could be applied in part.
        batch.apply_to(&mut content.entries);
        Ok(())
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits::NONE
    }

    fn location(&self) -> String {
        "memory".into()
    }
}
