//! The contents of a store that no replica has open.

use syncline::{Entry, KeyRange, ScanLimit, Storage, WriteBatch, audit};

use crate::Fixture;

/// Everything in a store, which must be whole.
pub(super) async fn entries<F: Fixture>(disk: &F, whose: &str) -> Vec<Entry> {
    let store = disk.open().await.expect("the store opens");
    let violations = audit(&store).await;
    assert!(violations.is_empty(), "the store of {whose} is not whole: {violations:#?}");
    scan(&store).await
}

async fn scan(store: &impl Storage) -> Vec<Entry> {
    let (mut all, mut range) = (Vec::<Entry>::new(), KeyRange::all());
    loop {
        let page = store.scan(range.clone(), ScanLimit::entries(1000)).await.expect("the store can be read");
        all.extend(page.entries);
        match all.last() {
            Some(last) if page.more => range.start = [&last.key[..], &[0]].concat(),
            _ => return all,
        }
    }
}

/// Copies everything in a store into an empty one, as a backup does.
pub(super) async fn copy<F: Fixture>(from: &F, to: &F) {
    let entries = scan(&from.open().await.expect("the store opens")).await;
    let store = to.open().await.expect("the copy opens");
    for page in entries.chunks(1000) {
        let mut batch = WriteBatch::new();
        page.iter().for_each(|entry| batch.put(entry.key.clone(), entry.value.clone()));
        store.write(batch).await.expect("the copy is written");
    }
}
