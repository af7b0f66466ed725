//! A write that returned `Ok` is there after reopening.

use syncline::{KeyRange, Value, WriteBatch, WriteOp};

use super::samples::{nasty_state, numbered_batch, pattern, replacing};
use super::subject::{Outcome, Subject};
use super::sweep::write_under_faults;
use crate::Fixture;
use crate::sorted_map;

const WRITES: u32 = 12;

/// Goal: `Ok` is a promise. Method: reopen right after a write, of every kind and size, with and without writes
/// before; then under every fault of the medium, since a fault that a store hides must not cost the batch. A loss
/// of power is a matter of each store's own tests.
///
/// # Panics
/// If the store breaks the property.
pub async fn write_survives_reopening<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("write_survives_reopening", fixture).await;
    let mut state = nasty_state();
    subject.write("the first write of all", replacing(&state)).await;
    subject.reopen("the first write of all").await;
    subject.expect("the first write of all, reopened", &state).await;

    for number in 0..WRITES {
        // One to three writes between openings: a store may keep only the last one in memory.
        for part in 0..=number % 3 {
            let mut batch = numbered_batch(number * 3 + part);
            batch.put([&b"large/"[..], &number.to_be_bytes()].concat(), pattern(10_000, 7));
            sorted_map::apply(&mut state, batch.ops());
            subject.write(format_args!("write {number}.{part}"), batch).await;
        }
        subject.reopen(format_args!("write {number}")).await;
        subject.expect(format_args!("write {number}, reopened"), &state).await;
    }

    // A store may keep batches of one kind in memory, or take a shorter way for them.
    let ops = [
        WriteOp::Put { key: b"one".to_vec(), value: Value::new() },
        WriteOp::Put { key: b"one".to_vec(), value: b"more".to_vec() },
        WriteOp::Delete { key: b"one".to_vec() },
        WriteOp::DeleteRange { range: KeyRange::prefix(*b"large/") },
    ];
    for op in ops {
        let batch = WriteBatch::from(vec![op]);
        let step = format!("a batch of one operation: {}", sorted_map::show_ops(batch.ops()));
        sorted_map::apply(&mut state, batch.ops());
        subject.write(&step, batch).await;
        subject.reopen(&step).await;
        subject.expect(format_args!("{step}, reopened"), &state).await;
    }

    write_under_faults(&mut subject, async |subject, round| {
        subject.reopen(&round.step).await;
        let step = format!("{}, reopened", round.step);
        let applied = subject.state(&step).await == round.after;
        if round.outcome == Outcome::Ok && !applied {
            subject.fail(step, "the write had returned Ok, but it is gone");
        }
    })
    .await;
}
