//! Goal: on a runtime with many threads every call returns when the driver is dropped, and the store can be opened
//! again at once. Method: tasks commit until they are refused, and the driver is dropped in the middle, over and over.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Error, GroupId, Storage, Syncable, TransactionManager, Uuid, audit};
use syncline_backends::{MemoryDisk, MemoryStorage};

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "counter")]
struct Counter {
    #[sync(id)]
    id: u32,
    count: u64,
}

const CALLERS: u32 = 8;

/// Drops the driver in each round after some commits, and opens the store again with `open`.
async fn drop_drivers<S: Storage>(rounds: u64, open: impl Fn() -> S) {
    let mut told = vec![0; CALLERS as usize];
    for round in 0..rounds {
        let (library, driver) = TransactionManager::builder(open())
            .device(DeviceId(Uuid::from_u128(1)))
            .found(GroupId(Uuid::from_u128(2)))
            .model::<Counter>()
            .open()
            .await
            .unwrap();
        let driver = tokio::spawn(driver.run());
        let callers: Vec<_> = (0..CALLERS)
            .map(|id| {
                let (library, mut count) = (library.clone(), told[id as usize]);
                tokio::spawn(async move {
                    loop {
                        match library.commit(Counter { id, count: count + 1 }).await {
                            Ok(_) => count += 1,
                            Err(Error::Stopped(_)) => return (count, count),
                            // The commit is there or not. The end of this round looks.
                            Err(Error::Unknown(_)) => return (count, count + 1),
                            Err(other) => panic!("{other}"),
                        }
                        // A call that needs no write.
                        let _ = library.status().await;
                    }
                })
            })
            .collect();
        for n in 0..round % 7 {
            library.commit(Counter { id: CALLERS, count: n }).await.unwrap();
        }
        driver.abort();
        let mut possible = Vec::new();
        for caller in callers {
            possible.push(caller.await.unwrap());
        }
        assert!(matches!(library.shutdown().await, Err(Error::Stopped(_))));

        let store = open();
        let violations = audit(&store).await;
        assert!(violations.is_empty(), "round {round}: {violations:?}");
        let (library, driver) = TransactionManager::builder(store).model::<Counter>().open().await.unwrap();
        tokio::spawn(driver.run());
        for (id, (least, most)) in (0..).zip(possible) {
            let found = library.get::<Counter>(id).await.unwrap().map_or(0, |counter| counter.count);
            assert!((least..=most).contains(&found), "round {round}: {found} is not in {least}..={most}");
            told[id as usize] = found;
        }
        library.shutdown().await.unwrap();
    }
    assert!(told.iter().sum::<u64>() > rounds, "the callers hardly committed anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_returns_when_the_driver_goes_on_memory() {
    let disk = MemoryDisk::new();
    drop_drivers(300, || MemoryStorage::open(&disk)).await;
}

#[cfg(feature = "redb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_returns_when_the_driver_goes_on_redb() {
    let directory = tempfile::tempdir().unwrap();
    drop_drivers(40, || syncline_backends::RedbStorage::open(directory.path().join("store.redb")).unwrap())
        .await;
}

#[cfg(feature = "sled")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_returns_when_the_driver_goes_on_sled() {
    let directory = tempfile::tempdir().unwrap();
    drop_drivers(40, || syncline_backends::SledStorage::open(directory.path().join("store.sled")).unwrap())
        .await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_returns_when_the_driver_goes_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    drop_drivers(40, || {
        syncline_backends::SqliteStorage::open(directory.path().join("store.sqlite")).unwrap()
    })
    .await;
}

/// A read of the manager inside a transaction must not keep a dropped driver waiting for ever: the read returns an
/// error, also if it is a scan on another thread, whose end closes the store on the writing thread.
#[cfg(any(feature = "redb", feature = "sqlite"))]
async fn reads_inside_a_transaction_return<S: syncline::JoinStorage>(open: impl Fn() -> S) {
    for inside in ["get", "list"] {
        let (library, driver) = TransactionManager::builder(open())
            .device(DeviceId(Uuid::from_u128(1)))
            .found(GroupId(Uuid::from_u128(2)))
            .model::<Counter>()
            .open()
            .await
            .unwrap();
        let driver = tokio::spawn(driver.run());
        library.commit(Counter { id: 1, count: 1 }).await.unwrap();
        let (reached, is_reached) = tokio::sync::oneshot::channel();
        let (reader, caller) = (library.clone(), library.clone());
        let call = tokio::spawn(async move {
            let work = move |_: &mut syncline::Tx<'_, S::Tx<'_>>| {
                reached.send(()).unwrap();
                loop {
                    let read = match inside {
                        "get" => futures::executor::block_on(reader.get::<Counter>(1)).map(drop),
                        // The page is so large that it is read on another thread.
                        _ => futures::executor::block_on(
                            reader.list::<Counter>().page_size(100_000).next_page(),
                        )
                        .map(drop),
                    };
                    if let Err(error) = read {
                        return Err::<(), _>(error.into());
                    }
                }
            };
            caller.with_tx(work).await
        });
        is_reached.await.unwrap();
        driver.abort();
        assert!(matches!(call.await.unwrap(), Err(Error::Unknown(_) | Error::Stopped(_))), "{inside}");
        assert!(matches!(library.shutdown().await, Err(Error::Stopped(_))), "{inside}");
    }
}

#[cfg(feature = "redb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_inside_a_transaction_return_when_the_driver_goes_on_redb() {
    let directory = tempfile::tempdir().unwrap();
    let opened = std::sync::atomic::AtomicU32::new(0);
    let path =
        || directory.path().join(opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string());
    reads_inside_a_transaction_return(|| syncline_backends::RedbStorage::open(path()).unwrap()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_inside_a_transaction_return_when_the_driver_goes_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let opened = std::sync::atomic::AtomicU32::new(0);
    let path =
        || directory.path().join(opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string());
    reads_inside_a_transaction_return(|| syncline_backends::SqliteStorage::open(path()).unwrap()).await;
}
