//! A range delete removes its range and nothing else.

use syncline::{KeyRange, WriteBatch};

use super::samples::{nasty_ranges, nasty_state, replacing};
use super::subject::Subject;
use crate::Fixture;
use crate::sorted_map;

/// Goal: every key of the range goes, no other. Method: every range of nasty bounds against a sorted map, then a range
/// larger than a page.
///
/// # Panics
/// If the store breaks the property.
pub async fn delete_range_stays_inside<F: Fixture>(fixture: &F) {
    const MANY: u32 = 5_000;

    let subject = Subject::open("delete_range_stays_inside", fixture).await;
    let state = nasty_state();
    for range in nasty_ranges() {
        let step = format!("deleting {}", sorted_map::show_range(&range));
        subject.write(&step, replacing(&state)).await;
        let mut batch = WriteBatch::new();
        batch.delete_range(range);
        let expected = sorted_map::after(&state, &batch);
        subject.write(&step, batch).await;
        subject.expect(&step, &expected).await;
    }

    subject.write("storing some keys", replacing(&state)).await;
    let many = (0..MANY).map(|number| ([&b"many/"[..], &number.to_be_bytes()].concat(), b"value".to_vec()));
    subject.fill("storing many keys", many).await;
    let mut batch = WriteBatch::new();
    batch.delete_range(KeyRange::prefix(*b"many/"));
    subject.write("deleting many keys", batch).await;
    subject.expect("deleting many keys", &state).await;
}
