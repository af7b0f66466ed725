//! What the table compares with must be honest work: every hand-written store stores the record, the log row with
//! the value and the head, and finds them again.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::sync::Arc;

use syncline_benches::hand_written::redb::Redb;
use syncline_benches::hand_written::sled::Sled;
use syncline_benches::hand_written::sqlite::Sqlite;
use syncline_benches::hand_written::{CACHE_BYTES, HandWritten, Row, Writer};
use syncline_benches::item::{Ids, Item, Items, copy_out_and_decode, decode_in_place};

macro_rules! for_each_engine {
    ($($name:ident: $engine:ty,)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn stores_record_log_and_head() {
                super::stores_record_log_and_head::<$engine>();
            }

            #[test]
            fn can_keep_the_rows_alone() {
                super::can_keep_the_rows_alone::<$engine>();
            }
        }
    )*};
}

for_each_engine! {
    redb: Redb,
    sled: Sled,
    sqlite: Sqlite,
}

fn sorted(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by_key(|item| item.id);
    items
}

/// Goal: record, log row and head for every item, also after reopening. Method: through the writer, several
/// callers at once, then look.
fn stores_record_log_and_head<H: HandWritten>() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hand");
    let items = Items::new(Ids::Random, 1).take(40);

    let store = H::open(&path, H::Commit::default(), CACHE_BYTES).unwrap();
    let writer = Arc::new(Writer::start(store));
    runtime.block_on(async {
        let callers: Vec<_> = items
            .chunks(4)
            .map(|items| {
                let (writer, items) = (Arc::clone(&writer), items.to_vec());
                tokio::spawn(async move { writer.commit(Row::all(&items).unwrap()).await })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
    });
    drop(Arc::into_inner(writer).unwrap().stop().unwrap());

    let store = H::open(&path, H::COMMITS[H::COMMITS.len() - 1], CACHE_BYTES).unwrap();
    let mut scanned = Vec::new();
    store.scan(|item| scanned.push(item)).unwrap();
    let items = sorted(items);
    assert_eq!(scanned, items);
    let (first, rest) = items.split_at(30);
    assert_eq!(store.page(syncline::Uuid::nil(), 30).unwrap(), first);
    assert_eq!(store.page(first[29].id, 30).unwrap(), rest);
    let (seqs, logged): (Vec<_>, Vec<_>) = store.log().unwrap().into_iter().unzip();
    assert_eq!(seqs, (1..=40).collect::<Vec<_>>());
    assert_eq!(sorted(logged), items);
    assert_eq!(store.head().unwrap(), 40);

    let ids: Vec<_> = items.iter().map(|item| item.id).collect();
    let found: Vec<_> = items.iter().cloned().map(Some).collect();
    assert_eq!(store.get_many(&ids, copy_out_and_decode).unwrap(), found);
    assert_eq!(store.get(ids[7], decode_in_place).unwrap(), found[7]);
    assert_eq!(store.get(syncline::Uuid::nil(), decode_in_place).unwrap(), None);
}

fn can_keep_the_rows_alone<H: HandWritten>() {
    let dir = tempfile::tempdir().unwrap();
    let items = Items::new(Ids::TimeOrdered, 1).take(10);
    let mut store = H::open(&dir.path().join("rows"), H::Commit::default(), CACHE_BYTES).unwrap();
    store.commit_rows_alone(&Row::all(&items).unwrap()).unwrap();
    let mut scanned = Vec::new();
    store.scan(|item| scanned.push(item)).unwrap();
    assert_eq!(scanned, items);
    assert_eq!((store.log().unwrap().len(), store.head().unwrap()), (0, 0));
}
