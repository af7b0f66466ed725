//! A whole store over a `BTreeMap`, and the one line that tests it against the contract:
//!
//! ```sh
//! cargo test -p syncline-backends --example custom_storage
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use syncline::{Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, Value, WriteBatch, WriteError};

/// Entries in memory. A real store keeps them in a file, and flushes the file before `write` returns.
#[derive(Default)]
struct MapStorage {
    entries: Arc<Mutex<BTreeMap<Key, Value>>>,
}

impl MapStorage {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Value>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Storage for MapStorage {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        // One lock for all keys, so that their values come from one state.
        let entries = self.entries();
        Ok(keys.iter().map(|key| entries.get(key).cloned()).collect())
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let entries = self.entries();
        Ok(ScanPage::of(entries.iter().filter(|(key, _)| range.contains(key)), limit))
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        // One lock for the whole batch, and nothing below can fail: so all of the batch is applied, or nothing.
        batch.apply_to(&mut self.entries());
        Ok(())
    }
}

fn main() {
    let store = MapStorage::default();
    let mut batch = WriteBatch::new();
    batch.put(*b"hello", *b"world");
    futures::executor::block_on(async {
        store.write(batch).await?;
        let entries = store.scan(KeyRange::all(), ScanLimit::entries(10)).await?.entries;
        println!("{entries:?}");
        Ok::<(), Box<dyn std::error::Error>>(())
    })
    .unwrap_or_else(|error| eprintln!("{error}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows, which last from one opening to the next. For a real store it is a path.
    #[derive(Default)]
    struct Place(Arc<Mutex<BTreeMap<Key, Value>>>);

    #[async_trait]
    impl syncline_testkit::Fixture for Place {
        type Store = MapStorage;

        async fn open(&self) -> Result<MapStorage, syncline::BoxError> {
            if Arc::strong_count(&self.0) > 1 {
                return Err("the store is open already".into());
            }
            Ok(MapStorage { entries: Arc::clone(&self.0) })
        }
    }

    syncline_testkit::storage_tests!(map, Place::default);
}
