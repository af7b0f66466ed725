//! A rejected batch leaves nothing behind.

use syncline::{KeyRange, WriteBatch, WriteOp};

use super::samples::{nasty_state, numbered_batch, replacing};
use super::subject::{Outcome, Subject};
use super::sweep::write_under_faults;
use crate::Fixture;
use crate::sorted_map::{self, SortedMap};

const MIB: usize = 1024 * 1024;

/// Goal: after a rejection the store goes on as if the write had not been called. Method: provoke rejections with
/// batches that end in an oversized key or value, and with every fault of the medium; look at once, and then either
/// reopened with nothing written in between, or after the next write, and reopened.
///
/// # Panics
/// If the store breaks the property.
pub async fn rejected_leaves_no_trace<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("rejected_leaves_no_trace", fixture).await;
    let state = nasty_state();
    // The limits of known stores, the smallest first. A store that accepts all sizes rejects nothing here.
    for (key_bytes, value_bytes) in [(600, 1), (4_000, 1), (64 * 1024 + 1, 1), (MIB, 1), (1, 16 * MIB + 1)] {
        for at_once in [true, false] {
            subject.write("filling the store", replacing(&state)).await;
            let step =
                format!("a batch that ends in a key of {key_bytes} and a value of {value_bytes} bytes");
            let batch = ending_in(vec![b'k'; key_bytes], vec![b'v'; value_bytes]);
            match subject.try_write(batch.clone()).await {
                Outcome::Ok => break,
                Outcome::TooLarge => {
                    expect_no_trace(&mut subject, &step, &batch, &state, 1, at_once).await;
                }
                other => {
                    subject.fail(step, format_args!("a size that is not accepted is TooLarge, not {other}"))
                }
            }
        }
    }
    subject.write("clearing the store", replacing(&SortedMap::new())).await;

    let mut at_once = false;
    write_under_faults(&mut subject, async |subject, round| match round.outcome {
        Outcome::Ok => {}
        Outcome::Rejected => {
            at_once = !at_once;
            let batch = numbered_batch(round.number);
            expect_no_trace(subject, &round.step, &batch, &round.before, round.number + 1, at_once).await;
        }
        _ => subject.reopen(&round.step).await,
    })
    .await;
}

/// A batch of operations that would show if they were applied, and of a put that is too large.
fn ending_in(key: Vec<u8>, value: Vec<u8>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(*b"a", *b"rejected");
    batch.put(*b"rejected", *b"rejected");
    batch.delete(*b"b");
    batch.delete_range(KeyRange::prefix(*b"\xff"));
    batch.put(key, value);
    batch
}

/// Looks for traces of a rejected batch: after reopening `at_once`, or else after the next write first. What one way
/// brings to light the other one may hide.
async fn expect_no_trace<F: Fixture>(
    subject: &mut Subject<'_, F>,
    step: &str,
    rejected: &WriteBatch,
    before: &SortedMap,
    number: u32,
    at_once: bool,
) {
    subject.expect(step, before).await;
    // Reads of keys may have another way to a trace than scans.
    let longest = subject.must_keep().key_bytes;
    let keys = rejected.ops().iter().filter_map(|op| match op {
        WriteOp::Put { key, .. } | WriteOp::Delete { key } => Some(key.clone()),
        WriteOp::DeleteRange { .. } => None,
    });
    let keys: Vec<_> = keys.filter(|key| key.len() <= longest).collect();
    subject.expect_keys(step, &keys, before).await;
    if at_once {
        subject.reopen(step).await;
        subject.expect(format_args!("{step}, reopened at once"), before).await;
    }
    let step = format!("{step}, the next write");
    let after = sorted_map::after(before, &numbered_batch(number));
    subject.write(&step, numbered_batch(number)).await;
    subject.expect(&step, &after).await;
    subject.reopen(&step).await;
    subject.expect(format_args!("{step}, reopened"), &after).await;
}
