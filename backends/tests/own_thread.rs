//! Goal: a driver on a thread of its own does all that one in a task does, and lets the store write in place. Method: callers in
//! threads and transactions over each store, which is opened again at once; a store that notes where it is called.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;

use async_trait::async_trait;
use futures::executor::block_on;
use futures::future::join;
use serde::{Deserialize, Serialize};
use syncline::{
    Driver, Key, KeyRange, ReadError, ScanLimit, ScanPage, StopReason, Storage, StoreLimits, Syncable,
    TransactionManager, Value, WriteBatch, WriteError, audit,
};
use syncline_backends::{MemoryDisk, MemoryStorage};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "counter")]
struct Counter {
    #[sync(id)]
    id: u32,
    count: u32,
}

const CALLERS: u32 = 4;
const COMMITS: u32 = 30;

fn open<S: Storage>(store: S) -> (TransactionManager<S>, Driver<S>) {
    block_on(TransactionManager::builder(store).found_new().model::<Counter>().open()).unwrap()
}

/// Commits from several threads, and ends the driver in both ways.
fn commit_and_end<S: Storage>(store: impl Fn() -> S) {
    for round in 0..4 {
        let (library, driver) = open(store());
        let driver = driver.run_on_thread().unwrap();
        let callers = (0..CALLERS).map(|id| {
            let library = library.clone();
            thread::spawn(move || {
                for count in 0..COMMITS {
                    block_on(library.commit(Counter { id, count: round * COMMITS + count })).unwrap();
                }
            })
        });
        callers.collect::<Vec<_>>().into_iter().for_each(|caller| caller.join().unwrap());
        let listed = block_on(library.list::<Counter>().page_size(100_000).next_page()).unwrap();
        assert_eq!(listed.unwrap().len(), CALLERS as usize);
        if round % 2 == 0 {
            block_on(library.shutdown()).unwrap();
        }
        drop(library);
        driver.join().unwrap();
        let store = store();
        assert_eq!(block_on(audit(&store)), [], "round {round}");
        let (library, driver) = open(store);
        let driver = driver.run_on_thread().unwrap();
        for id in 0..CALLERS {
            let count = (round + 1) * COMMITS - 1;
            assert_eq!(block_on(library.get::<Counter>(id)).unwrap(), Some(Counter { id, count }));
        }
        drop(library);
        block_on(driver).unwrap();
    }
}

#[test]
fn a_driver_on_its_own_thread_serves_memory() {
    let disk = MemoryDisk::new();
    commit_and_end(|| MemoryStorage::open(&disk));
}

#[cfg(feature = "redb")]
#[test]
fn a_driver_on_its_own_thread_serves_redb() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    commit_and_end(|| syncline_backends::RedbStorage::open(&path).unwrap());
    transactions_in_place(syncline_backends::RedbStorage::open(&path).unwrap());
}

#[cfg(feature = "sled")]
#[test]
fn a_driver_on_its_own_thread_serves_sled() {
    let directory = tempfile::tempdir().unwrap();
    commit_and_end(|| syncline_backends::SledStorage::open(directory.path().join("store")).unwrap());
}

#[cfg(feature = "sqlite")]
#[test]
fn a_driver_on_its_own_thread_serves_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    commit_and_end(|| syncline_backends::SqliteStorage::open(&path).unwrap());
    transactions_in_place(syncline_backends::SqliteStorage::open(&path).unwrap());
}

/// A transaction runs on the driver's thread; one that fails undoes its changes and harms no other.
#[cfg(any(feature = "redb", feature = "sqlite"))]
fn transactions_in_place<S: syncline::JoinStorage>(store: S) {
    let (library, driver) = open(store);
    let driver = driver.run_on_thread().unwrap();
    let inside = block_on(library.with_tx(|tx| {
        tx.put(&Counter { id: 100, count: 1 })?;
        Ok((thread::current().name().map(str::to_owned), syncline::may_block()))
    }));
    assert_eq!(inside.unwrap(), (Some("syncline-driver".to_owned()), true));
    let failed: Result<(), _> = block_on(library.with_tx(|tx| {
        tx.put(&Counter { id: 100, count: 2 })?;
        panic!("the app's closure")
    }));
    failed.unwrap_err();
    let caller = library.clone();
    let inner = block_on(library.with_tx(move |_| {
        // A call of the replica from inside would wait for itself, and is refused.
        Ok(block_on(caller.commit(Counter { id: 100, count: 3 })).is_err())
    }));
    assert!(inner.unwrap());
    assert_eq!(block_on(library.get::<Counter>(100)).unwrap(), Some(Counter { id: 100, count: 1 }));
    block_on(library.shutdown()).unwrap();
    driver.join().unwrap();
}

/// A store that notes whether its writes may block, and fails if it is told to.
struct Noting {
    store: MemoryStorage,
    in_place: Arc<AtomicU32>,
    panics: Arc<AtomicBool>,
}

#[async_trait]
impl Storage for Noting {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.store.get_many(keys).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        self.store.scan(range, limit).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        assert!(!self.panics.load(SeqCst), "the store panics");
        self.in_place.fetch_add(u32::from(syncline::may_block()), SeqCst);
        self.store.write(batch).await
    }

    fn limits(&self) -> StoreLimits {
        self.store.limits()
    }
}

#[test]
fn a_store_may_block_on_the_drivers_own_thread_alone() {
    let (in_place, panics) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let store = || Noting {
        store: MemoryStorage::new(),
        in_place: Arc::clone(&in_place),
        panics: Arc::clone(&panics),
    };
    let (library, driver) = open(store());
    let commit = async {
        library.commit(Counter { id: 1, count: 1 }).await.unwrap();
        library.shutdown().await.unwrap();
    };
    block_on(join(driver.run(), commit)).0.unwrap();
    assert_eq!(in_place.load(SeqCst), 0, "a task of an executor");

    let (library, driver) = open(store());
    let driver = driver.run_on_thread().unwrap();
    block_on(library.commit(Counter { id: 1, count: 1 })).unwrap();
    assert_eq!(in_place.load(SeqCst), 1);
    panics.store(true, SeqCst);
    block_on(library.commit(Counter { id: 1, count: 2 })).unwrap_err();
    let ended = driver.join().unwrap_err();
    assert!(matches!(ended, StopReason::Unknown(_) | StopReason::Panicked { .. }), "{ended}");
    block_on(library.commit(Counter { id: 1, count: 3 })).unwrap_err();
}
