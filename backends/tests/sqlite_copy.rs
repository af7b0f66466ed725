//! Goal: the database file alone, copied while its store is open, is an old backup and never an empty store. Method: copies
//! without the log right after founding, and once the store is idle; each is opened as a replica.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures::future::join;
use syncline::{Syncable, TransactionManager};
use syncline_backends::SqliteStorage;

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, Syncable)]
#[sync(model = "tag")]
struct Tag {
    #[sync(id)]
    id: u32,
    name: String,
}

type Library = TransactionManager<SqliteStorage>;

/// Runs `app` on the store at `path`, whose log is copied into the database after so long without a write.
async fn run<T>(path: &Path, checkpoint_after: Duration, app: impl AsyncFnOnce(&Library) -> T) -> T {
    let store = SqliteStorage::builder().checkpoint_after(checkpoint_after).open(path).unwrap();
    let open = TransactionManager::builder(store).found_new().model::<Tag>().open();
    let (library, driver) = open.await.unwrap();
    let app = async {
        let library = library;
        app(&library).await
    };
    let (ended, result) = join(driver.run(), app).await;
    ended.unwrap();
    result
}

/// The content of a copy of the database file alone: its group and replica, and how many tags.
async fn copied(path: &Path, copy: &Path) -> Option<(syncline::GroupId, syncline::ReplicaId, usize)> {
    fs::copy(path, copy).unwrap();
    let store = SqliteStorage::open(copy).unwrap();
    // Without a group to found: an empty store would be refused.
    let (library, driver) = TransactionManager::builder(store).model::<Tag>().open().await.ok()?;
    let app = async {
        let library = library;
        let tags = library.list::<Tag>().page_size(10_000).next_page().await.unwrap();
        (library.group(), library.replica(), tags.map_or(0, |tags| tags.len()))
    };
    let found = join(driver.run(), app).await.1;
    fs::remove_file(copy).unwrap();
    Some(found)
}

#[tokio::test]
async fn a_copy_without_the_log_is_never_an_empty_store() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("a.sqlite"), directory.path().join("copy.sqlite"));
    // The store is never idle for so long: what the copy has was there when `open` returned.
    for start in ["the first", "the second"] {
        run(&path, Duration::MAX, async |library| {
            let tag = Tag { id: 1, name: start.into() };
            library.commit(tag).await.unwrap();
            let (group, replica, _) = copied(&path, &copy).await.expect("it is a store of the group");
            assert_eq!((group, replica), (library.group(), library.replica()), "{start} start");
        })
        .await;
    }
}

#[tokio::test]
async fn a_copy_of_an_idle_store_has_every_commit() {
    const TAGS: u32 = 200;
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("a.sqlite"), directory.path().join("copy.sqlite"));
    run(&path, Duration::ZERO, async |library| {
        for id in 0..TAGS {
            library.commit(Tag { id, name: "x".repeat(500) }).await.unwrap();
        }
        // The writing thread is idle by now, or is just about to be: look again until it was.
        let mut tags = 0;
        for _ in 0..1_000 {
            tags = copied(&path, &copy).await.expect("it is a store of the group").2;
            if tags == TAGS as usize {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(tags, TAGS as usize);
    })
    .await;
}
