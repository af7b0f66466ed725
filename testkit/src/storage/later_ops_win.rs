//! The operations of a batch take effect in their order.

use syncline::{KeyRange, WriteBatch, WriteOp};

use super::samples::{numbered_batch, replacing};
use super::subject::Subject;
use crate::Fixture;
use crate::sorted_map::{self, SortedMap};

/// Goal: a batch has the effect of its operations one after the other. Method: all batches of three operations out of
/// six that disturb each other, against a sorted map.
///
/// # Panics
/// If the store breaks the property.
pub async fn later_ops_win<F: Fixture>(fixture: &F) {
    let subject = Subject::open("later_ops_win", fixture).await;
    let start: SortedMap = [(b"a".to_vec(), b"old".to_vec()), (b"b".to_vec(), b"old".to_vec())].into();
    let ops: [WriteOp; 6] = [
        WriteOp::Put { key: b"a".to_vec(), value: b"first".to_vec() },
        WriteOp::Put { key: b"a".to_vec(), value: b"second".to_vec() },
        WriteOp::Put { key: b"c".to_vec(), value: b"new".to_vec() },
        WriteOp::Delete { key: b"a".to_vec() },
        WriteOp::DeleteRange { range: KeyRange::new(*b"a", *b"c") },
        WriteOp::DeleteRange { range: KeyRange::all() },
    ];
    for first in &ops {
        for second in &ops {
            for third in &ops {
                let batch = WriteBatch::from(vec![first.clone(), second.clone(), third.clone()]);
                let step = sorted_map::show_ops(batch.ops());
                let expected = sorted_map::after(&start, &batch);
                // The first write fills the store and acts in one batch, the second one acts on stored keys: the
                // operations must work on both.
                let whole: Vec<_> = replacing(&start).into_iter().chain(batch.clone()).collect();
                subject.write(&step, whole.into()).await;
                subject.expect(format_args!("{step}, all keys staged"), &expected).await;
                subject.write(&step, replacing(&start)).await;
                subject.write(&step, batch).await;
                subject.expect(format_args!("{step}, keys stored before"), &expected).await;
            }
        }
    }
    let mut expected = subject.state("before a batch without operations").await;
    subject.write("a batch without operations", WriteBatch::new()).await;
    subject.expect("after a batch without operations", &expected).await;
    for number in 0..4 {
        sorted_map::apply(&mut expected, numbered_batch(number).ops());
        subject.write("batches that overwrite each other", numbered_batch(number)).await;
        subject.expect("after batches that overwrite each other", &expected).await;
    }
}
