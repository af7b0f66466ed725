//! Empty values and the empty key are like all others.

use syncline::{KeyRange, Value, WriteBatch};

use super::subject::Subject;
use crate::Fixture;
use crate::sorted_map::{self, SortedMap};

/// Goal: nothing in a store means "empty" by being absent. Method: empty and full values under empty and full keys,
/// read every way, reopened, deleted.
///
/// # Panics
/// If the store breaks the property.
pub async fn empty_is_not_absent<F: Fixture>(fixture: &F) {
    let mut subject = Subject::open("empty_is_not_absent", fixture).await;
    let values = [Value::new(), b"full".to_vec()];
    for of_empty_key in &values {
        for of_full_key in &values {
            let state: SortedMap =
                [(Vec::new(), of_empty_key.clone()), (b"key".to_vec(), of_full_key.clone())].into();
            let step = format!(
                "{} under the empty key, {} under another",
                sorted_map::bytes(of_empty_key),
                sorted_map::bytes(of_full_key)
            );
            let mut batch = WriteBatch::new();
            batch.put(*b"", of_empty_key.clone());
            batch.put(*b"key", of_full_key.clone());
            subject.write(&step, batch).await;
            subject.expect(&step, &state).await;
            subject.reopen(&step).await;
            subject.expect(format_args!("{step}, reopened"), &state).await;
        }
    }

    let mut batch = WriteBatch::new();
    batch.put(*b"key", *b"");
    batch.delete(*b"");
    subject.write("deleting the empty key", batch).await;
    subject.expect("deleting the empty key", &[(b"key".to_vec(), Value::new())].into()).await;
    if subject.get("deleting the empty key", b"").await.is_some() {
        subject.fail("deleting the empty key", "it is still there");
    }

    let mut batch = WriteBatch::new();
    batch.put(*b"", *b"");
    batch.delete(*b"key");
    batch.delete_range(KeyRange::new(*b"", *b""));
    subject.write("deleting an empty value", batch).await;
    subject.expect("deleting an empty value", &[(Vec::new(), Value::new())].into()).await;
    if subject.get("deleting an empty value", b"key").await.is_some() {
        subject.fail("deleting an empty value", "a deleted key has a value");
    }

    let mut batch = WriteBatch::new();
    batch.delete_range(KeyRange::new(*b"", *b"\x00"));
    subject.write("deleting the range of the empty key", batch).await;
    subject.expect("deleting the range of the empty key", &SortedMap::new()).await;
}
