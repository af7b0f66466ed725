//! Goal: C17, I13: what is acknowledged reads back equal, and what could not is refused before any work. Method: models
//! with the attributes of serde that break this, over each way to commit, on the memory store.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Error, GroupId, Syncable, TransactionManager};
use syncline_backends::MemoryStorage;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "photo")]
struct Photo {
    #[sync(id)]
    id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rating: Option<u8>,
    shelf: u8,
    pages: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Number(u64),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "question")]
struct Question {
    #[sync(id)]
    id: u64,
    answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "table")]
struct Table {
    #[sync(id)]
    id: u64,
    rows: HashMap<u32, u32>,
}

fn photo(rating: Option<u8>) -> Photo {
    Photo { id: 1, rating, shelf: 1, pages: vec![9, 1, 7] }
}

/// Whether the error is a refusal to encode that names what is wrong.
fn names(error: &Error, what: &str) -> bool {
    matches!(error, Error::Encode { .. }) && error.to_string().contains(what)
}

#[tokio::test]
async fn what_would_not_read_back_is_refused_and_nothing_is_written() {
    let storage = MemoryStorage::new();
    let builder = TransactionManager::builder(storage).device(DeviceId::new()).found(GroupId::new());
    let builder = builder.model::<Photo>().model::<Question>().model::<Table>();
    let (library, driver) = builder.open().await.unwrap();
    let running = tokio::spawn(driver.run());
    let commits = library.status().await.unwrap().commits;

    let error = library.commit(photo(None)).await.unwrap_err();
    assert!(names(&error, "`rating` of `Photo`"), "{error}");
    let error = library
        .commit_batch(|batch| {
            batch.put(&photo(Some(3)))?;
            batch.put(&photo(None))?;
            Ok(())
        })
        .await
        .unwrap_err();
    assert!(names(&error, "skip_serializing_if"), "{error}");
    let error = library.update::<Photo, _>(1, |_| Ok(photo(None))).await.unwrap_err();
    assert!(names(&error, "rating"), "{error}");
    let answer = Answer::Text("yes".into());
    let error = library.commit(Question { id: 1, answer }).await.unwrap_err();
    assert!(names(&error, "plain enum"), "{error}");
    assert_eq!(library.status().await.unwrap().commits, commits, "nothing was written");
    assert_eq!(library.get::<Photo>(1).await.unwrap(), None);

    let put = library.commit(photo(Some(3))).await.unwrap();
    assert_eq!(library.get::<Photo>(1).await.unwrap(), Some(put));

    library.shutdown().await.unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_equal_hash_map_is_no_commit() {
    let builder = TransactionManager::builder(MemoryStorage::new()).device(DeviceId::new());
    let (library, driver) = builder.found(GroupId::new()).model::<Table>().open().await.unwrap();
    let running = tokio::spawn(driver.run());
    let table = || Table { id: 1, rows: (0..40).map(|n| (n, n)).collect() };
    library.commit(table()).await.unwrap();
    let commits = library.status().await.unwrap().commits;
    library.commit(table()).await.unwrap();
    assert_eq!(library.status().await.unwrap().commits, commits);
    assert_eq!(library.get::<Table>(1).await.unwrap(), Some(table()));
    library.shutdown().await.unwrap();
    running.await.unwrap().unwrap();
}
