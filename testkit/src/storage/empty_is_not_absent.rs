//! Empty values are like all others.

use syncline::{KeyRange, Value, WriteBatch};

use super::subject::Subject;
use crate::Fixture;
use crate::sorted_map::{self, SortedMap};

/// Goal: nothing in a store means "empty" by being absent. Method: empty and full values, read every way, reopened,
/// deleted.
///
/// # Panics
/// If the store breaks the property.
pub async fn empty_is_not_absent<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("empty_is_not_absent", fixture).await;
    let values = [Value::new(), b"full".to_vec()];
    for first in &values {
        for second in &values {
            let state: SortedMap = [(vec![0], first.clone()), (b"key".to_vec(), second.clone())].into();
            let step = format!(
                "{} under the smallest key, {} under another",
                sorted_map::bytes(first),
                sorted_map::bytes(second)
            );
            let mut batch = WriteBatch::new();
            batch.put([0], first.clone());
            batch.put(*b"key", second.clone());
            subject.write(&step, batch).await;
            subject.expect(&step, &state).await;
            subject.reopen(&step).await;
            subject.expect(format_args!("{step}, reopened"), &state).await;
        }
    }

    let mut batch = WriteBatch::new();
    batch.put(*b"key", *b"");
    batch.delete([0]);
    subject.write("an empty value in place of a full one", batch).await;
    let state = [(b"key".to_vec(), Value::new())].into();
    subject.expect("an empty value in place of a full one", &state).await;

    let mut batch = WriteBatch::new();
    batch.delete(*b"key");
    batch.delete_range(KeyRange::new(*b"", *b""));
    subject.write("deleting an empty value", batch).await;
    subject.expect("deleting an empty value", &SortedMap::new()).await;
    if subject.get("deleting an empty value", b"key").await.is_some() {
        subject.fail("deleting an empty value", "a deleted key has a value");
    }
}
