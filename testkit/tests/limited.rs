//! Goal: a replica keeps to what its store takes, and says what does not fit before it does any work. Method: stores that take
//! exactly what they declare, one that takes less, and crashes between the writes of one large commit.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

use async_trait::async_trait;
use futures::executor::block_on;
use futures::future::join;
use serde::{Deserialize, Serialize};
use syncline::{
    BoxError, DeviceId, Error, Key, KeyRange, Limits, OpenError, ReadError, ScanLimit, ScanPage, Storage,
    StoreLimits, Syncable, TransactionManager, Uuid, Value, WriteBatch, WriteError, audit,
};
use syncline_backends::MemoryNetwork;
use syncline_testkit::{Disk, Fault, FaultKind, Faults, Faulty, FileStore, Fixture, Limited, crash_tests};

// A store on files with small limits is killed with batches that it takes.
crash_tests!(killed, |path| FileStore::open(path).map(|store| Limited::new(store, SMALL)));

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Syncable)]
#[sync(model = "page")]
struct Page {
    #[sync(id)]
    name: String,
    text: String,
}

fn page(number: u32, text: impl Into<String>) -> Page {
    Page { name: format!("page {number}"), text: text.into() }
}

/// The least that a replica can do with.
const SMALL: StoreLimits =
    StoreLimits { key_bytes: 511, value_bytes: 16 << 10, batch_ops: 1 << 10, batch_bytes: 1 << 20 };

/// Runs `app` over a store, with peers that have heard of nothing yet: the log keeps every value.
async fn run_on<S: Storage, T>(
    store: S,
    limits: Limits,
    app: impl AsyncFnOnce(&TransactionManager<S>) -> T,
) -> T {
    let builder = TransactionManager::builder(store).device(DeviceId(Uuid::from_u128(1))).found_new();
    let builder = builder.limits(limits).transport(MemoryNetwork::builder().build().transport());
    let (library, driver) = builder.model::<Page>().open().await.unwrap();
    let app = async {
        let library = library;
        app(&library).await
    };
    join(driver.run(), app).await.1
}

/// A store that declares what every store takes, and takes less.
struct Boasting<S>(Limited<S>);

#[async_trait]
impl<S: Storage> Storage for Boasting<S> {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.0.get_many(keys).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        self.0.scan(range, limit).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        self.0.write(batch).await
    }
}

async fn open(disk: &Disk, limits: StoreLimits) -> Limited<<Disk as Fixture>::Store> {
    Limited::new(disk.open().await.unwrap(), limits)
}

#[test]
fn what_a_small_store_cannot_hold_is_an_error_of_the_call() {
    let disk = Disk::new();
    block_on(async {
        run_on(open(&disk, SMALL).await, Limits::default(), async |library| {
            let too_large = |result: Result<_, Error>, name| {
                let Err(Error::TooLarge { size, limit }) = result.map(drop) else { panic!("it fits") };
                assert!(limit.name == name && size > limit.max, "{size} above {limit:?}, not {name}");
            };
            let commits = library.status().await.unwrap().commits;
            too_large(library.commit(page(1, "x".repeat(17 << 10))).await.map(drop), "value_bytes_max");
            let long = Page { name: "n".repeat(400), text: String::new() };
            too_large(library.commit(long).await.map(drop), "id_bytes_max");
            let many = |count: u32| {
                library
                    .commit_batch(move |batch| Ok((0..count).try_for_each(|n| batch.put(&page(n, "text")))?))
            };
            too_large(many(1_000).await.map(drop), "entry_bytes_max");
            assert_eq!(library.status().await.unwrap().commits, commits, "none of them was tried");
            // What fits into the limits fits into the store.
            many(100).await.unwrap();
            library.commit(page(1, "x".repeat(15 << 10))).await.unwrap();
        })
        .await;
        assert_eq!(audit(&disk.open().await.unwrap()).await, []);
    });
}

/// The text of a commit of default limits: it fills a batch as far as one commit can.
#[test]
fn the_largest_commit_fits_what_every_store_takes() {
    let disk = Disk::new();
    block_on(async {
        run_on(open(&disk, StoreLimits::CONTRACT).await, Limits::default(), async |library| {
            for round in 0..2 {
                // As many changes as fit, and as many bytes; each of them replaces what is there.
                let text = move |n: u32| page(n, format!("{round}{}", "x".repeat(700)));
                library
                    .commit_batch(move |batch| Ok((0..10_000).try_for_each(|n| batch.put(&text(n)))?))
                    .await
                    .unwrap();
                let long = "n".repeat(1_000);
                let named = move |n: u32| Page { name: format!("{long}{n:04}"), text: format!("{round}") };
                library
                    .commit_batch(move |batch| Ok((0..900).try_for_each(|n| batch.put(&named(n)))?))
                    .await
                    .unwrap();
            }
        })
        .await;
        assert_eq!(audit(&disk.open().await.unwrap()).await, []);
    });
}

const REPLACED: u32 = 90;
/// How many of them one commit makes. So few commits are not pruned while the test runs.
const TOGETHER: u32 = 6;

/// Makes records of 1 MiB each, and replaces all of them in one small commit. Other members may not have them yet, so
/// the log keeps what it displaces.
async fn replace_large_records<S: Storage>(
    store: S,
    faults: &Faults,
    fails: Option<u64>,
) -> Result<(), Error> {
    run_on(store, Limits::default(), async |library| {
        for n in 0..REPLACED / TOGETHER {
            let large = (n * TOGETHER..(n + 1) * TOGETHER).map(|n| page(n, "x".repeat((1 << 20) - 100)));
            let made = library.commit_batch(move |batch| {
                large.into_iter().try_for_each(|page| batch.put(&page))?;
                Ok(())
            });
            made.await.unwrap();
        }
        if let Some(at) = fails {
            faults.arm(Fault::once(at, FaultKind::UnknownLost));
        }
        let all =
            library.commit_batch(|batch| Ok((0..REPLACED).try_for_each(|n| batch.put(&page(n, "short")))?));
        all.await.map(drop)
    })
    .await
}

/// What one commit displaces has no limit. It is kept in writes ahead, and a crash between them harms nothing.
#[test]
fn what_a_commit_displaces_is_kept_ahead_of_it() {
    for fails in [None, Some(0), Some(1)] {
        let (disk, faults) = (Disk::new(), Faults::new());
        block_on(async {
            let store = Faulty::new(open(&disk, StoreLimits::CONTRACT).await, faults.clone());
            let writes = faults.writes();
            let result = replace_large_records(store, &faults, fails).await;
            assert_eq!(result.is_ok(), fails.is_none(), "{result:?}");
            let before = writes + 2 + u64::from(REPLACED / TOGETHER);
            assert!(fails.is_some() || faults.writes() > before, "in one write of more than a store takes");
            assert_eq!(audit(&disk.open().await.unwrap()).await, [], "{fails:?}");
            // The commit is there whole, or not at all, and succeeds the next time.
            run_on(open(&disk, StoreLimits::CONTRACT).await, Limits::default(), async |library| {
                let found = library.get::<Page>("page 7".into()).await.unwrap().unwrap();
                assert_eq!(found.text == "short", fails.is_none(), "{fails:?}");
                library
                    .commit_batch(|batch| Ok((0..REPLACED).try_for_each(|n| batch.put(&page(n, "shorter")))?))
                    .await
                    .unwrap();
            })
            .await;
            assert_eq!(audit(&disk.open().await.unwrap()).await, [], "{fails:?}");
        });
    }
}

#[test]
fn a_store_that_takes_less_than_it_declares_is_named() {
    let disk = Disk::new();
    block_on(async {
        let store = Boasting(open(&disk, SMALL).await);
        run_on(store, Limits::default(), async |library| {
            let error = library.commit(page(1, "x".repeat(17 << 10))).await.map(drop).unwrap_err();
            assert!(matches!(error, Error::TooLargeForStore(_)), "{error}");
            assert!(error.to_string().contains("`limits()`"), "{error}");
            library.commit(page(1, "short")).await.unwrap();
        })
        .await;
    });
}

#[test]
fn a_store_in_which_no_replica_fits_is_refused() {
    let disk = Disk::new();
    let open = |limits| -> Result<(), BoxError> {
        block_on(async {
            let store = open(&disk, limits).await;
            let opened = TransactionManager::builder(store).found_new().model::<Page>().open().await;
            match opened {
                Ok(_) => Ok(()),
                Err(error @ OpenError::StoreTooSmall { .. }) => Err(error.into()),
                Err(error) => panic!("{error}"),
            }
        })
    };
    let error = open(StoreLimits { value_bytes: 1_000, ..SMALL }).unwrap_err().to_string();
    assert!(error.contains("StoreLimits::value_bytes") && error.contains("16384"), "{error}");
    open(SMALL).unwrap();
}
